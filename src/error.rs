//! Errors, sorted by what the caller can do about them.
//!
//! Every error is one [`Kind`] and one line of text: what was found, and what to do. The number of a kind is the status of
//! the C ABI and the exit status of the helper; numbers never change.

use std::borrow::Cow;
use std::ffi::CStr;
use std::{fmt, io};

use serde::{Deserialize, Serialize};

/// What the caller can do about an error. The numbers are the status codes of the C ABI.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Kind {
    /// An argument is unusable (empty, too long, not UTF-8): a mistake in the caller.
    Argument = 1,
    /// The text does not follow the grammar; [`Error::offset`] is the position.
    Spec = 2,
    /// A port is in use by another jail, by the host, or by another tool's rules.
    Conflict = 3,
    /// The caller may not change the firewall or the records.
    Permission = 4,
    /// pf is disabled or missing, its rules would not be evaluated, or a fact that is needed is missing.
    Unavailable = 5,
    /// The lock, or pf itself, was busy until the time-out: try again.
    Busy = 6,
    /// A system call or pfctl(8) failed; [`Error::errno`] if there is one.
    System = 7,
    /// Not possible for this jail, or not supported by this version.
    Unsupported = 8,
    /// A defect in kport.
    Internal = 9,
}

impl Kind {
    /// Every kind, in the order of the numbers.
    pub const ALL: [Kind; 9] = {
        use Kind::{Argument, Busy, Conflict, Internal, Permission, Spec, System, Unavailable, Unsupported};
        [Argument, Spec, Conflict, Permission, Unavailable, Busy, System, Unsupported, Internal]
    };

    /// The status number: of the C ABI, and the exit status of the helper.
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// A few words, identical for every error of this kind.
    pub const fn text(self) -> &'static str {
        match self.c_text().to_str() {
            Ok(text) => text,
            Err(_) => unreachable!(),
        }
    }

    pub(crate) const fn c_text(self) -> &'static CStr {
        match self {
            Kind::Argument => c"bad argument",
            Kind::Spec => c"bad port spec",
            Kind::Conflict => c"port in use",
            Kind::Permission => c"permission denied",
            Kind::Unavailable => c"firewall not ready",
            Kind::Busy => c"busy, try again",
            Kind::System => c"system error",
            Kind::Unsupported => c"not supported",
            Kind::Internal => c"internal error in kport",
        }
    }
}

/// Why a call failed: one line for the user, and numbers for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    kind: Kind,
    /// What was found, and what to do; the latter ends with a setting.
    parts: Vec<(String, Option<Setting>)>,
    /// All of them, in the words of the helper.
    message: String,
    offset: Option<usize>,
    errno: Option<i32>,
    cause: Option<Cause>,
}

/// A setting of a call that can be the remedy of an error. Each interface of kport has its own words for it, or does not have it:
/// the text of an error never contains the name of an option, see [`Error::remedy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The addresses of the jail.
    Address,
    /// The ports that `auto` chooses from.
    AutoRange,
    /// The backend pfctl.
    Backend,
    /// Publish even if something else has the port.
    Force,
    /// The gateway interface.
    Gateway,
    /// The families of the published ports.
    Family,
    /// Let the host itself use the port.
    HostAccess,
    /// The maximum rate of new connections.
    Rate,
    /// The routers through which connections are answered.
    ReplyTo,
    /// The state directory.
    StateDir,
    /// The maximum time of the call.
    Timeout,
    /// The networks from which the addresses that a jail reports are believed.
    Trust,
    /// Wait until the jail has an address.
    Wait,
}

/// Each setting in the words of kport(8), of kport(3), and as a field of kport-cni(8), which has none for the addresses, since the
/// runtime gives them, and none for the places and ports of all mappings. In the order of the enum.
const WORDS: [(Setting, &str, &str, Option<&str>); 13] = [
    (Setting::Address, "-a", "options->addresses", None),
    (Setting::AutoRange, "--auto-range", "options->auto_first and auto_last", None),
    (Setting::Backend, "--backend pfctl", r#"options->backend "pfctl""#, Some(r#""backend": "pfctl""#)),
    (Setting::Force, "--force", "KPORT_FORCE in options->flags", Some(r#""force": true"#)),
    (Setting::Gateway, "--gateway", "options->gateway", None),
    (Setting::Family, "--family", "options->families", Some(r#""family": [...]"#)),
    (Setting::HostAccess, "--host-access", "KPORT_HOST_ACCESS in options->flags", Some(r#""hostAccess": true"#)),
    (Setting::Rate, "--rate", "options->rate_connections", Some(r#""limits": { "rate": ... }"#)),
    (Setting::ReplyTo, "--reply-to", "options->reply_to", Some(r#""replyTo": [ "ROUTER" ]"#)),
    (Setting::StateDir, "--state-dir", "options->state_dir", Some(r#""stateDir": "...""#)),
    (Setting::Timeout, "--timeout", "options->timeout_ms", Some(r#""timeout": SECONDS"#)),
    (Setting::Trust, "--trust", "options->trust", None),
    (Setting::Wait, "--wait", "options->wait_ms", None),
];

impl Setting {
    /// Every setting.
    pub const ALL: [Setting; WORDS.len()] = {
        let mut all = [Setting::Address; WORDS.len()];
        let mut at = 0;
        while at < WORDS.len() {
            all[at] = WORDS[at].0;
            assert!(all[at] as usize == at);
            at += 1;
        }
        all
    };

    /// The words of kport(3).
    #[doc(hidden)]
    pub fn in_c(self) -> &'static str {
        WORDS[self as usize].2
    }

    /// The field of a network configuration, as in kport-cni(8); `None` if it has none.
    #[doc(hidden)]
    pub fn in_cni(self) -> Option<&'static str> {
        WORDS[self as usize].3
    }
}

/// The words of kport(8).
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WORDS[*self as usize].1)
    }
}

/// What some callers need in addition to the [`Kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The file of a record is not a record of that jail: it may be moved aside.
    DamagedRecord,
}

/// `error!(Busy, "the time is up after {n} rules")`: an [`Error`] of this [`Kind`].
macro_rules! error {
    ($kind:ident, $($text:tt)+) => {
        $crate::error::Error::new($crate::error::Kind::$kind, format!($($text)+))
    };
}
pub(crate) use error;

/// Implements `Display` by a method that returns the text.
macro_rules! shows {
    ($($name:ty: $text:ident),+) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.$text())
            }
        }
    )+};
}
pub(crate) use shows;

/// The result of everything in kport that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind`. Characters of `message` that cannot be printed are escaped, so that the text is always one line.
    pub fn new(kind: Kind, message: impl AsRef<str>) -> Self {
        let message = one_line(message.as_ref());
        let parts = vec![(message.clone(), None)];
        Error(Box::new(Inner { kind, parts, message, offset: None, errno: None, cause: None }))
    }

    /// A failed system call: `doing` names the operation and its object ("open /var/run/kport/lock"). EACCES, EPERM and EROFS
    /// are [`Kind::Permission`], everything else is [`Kind::System`].
    pub fn io(doing: impl fmt::Display, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Permission,
            _ => Kind::System,
        };
        let mut made = Error::new(kind, format!("{doing}: {error}"));
        made.0.errno = error.raw_os_error();
        made
    }

    /// The error with a byte offset in the text that was parsed.
    #[must_use]
    pub fn at(mut self, offset: usize) -> Self {
        self.0.offset = Some(offset);
        self
    }

    /// The error with an errno.
    #[must_use]
    pub fn with_errno(mut self, errno: i32) -> Self {
        self.0.errno = Some(errno);
        self
    }

    /// The error with a cause.
    #[must_use]
    pub fn because(mut self, cause: Cause) -> Self {
        self.0.cause = Some(cause);
        self
    }

    /// The error with `before` and ": " before its text.
    #[must_use]
    pub fn context(mut self, before: impl fmt::Display) -> Self {
        let before = one_line(&format!("{before}: "));
        self.0.message.insert_str(0, &before);
        self.0.parts[0].0.insert_str(0, &before);
        self
    }

    /// The error with "; " and `after` after its text.
    #[must_use]
    pub fn and(self, after: impl fmt::Display) -> Self {
        self.with((one_line(&after.to_string()), None))
    }

    /// The error with "; ", `what` and the setting after its text: "give one with" and the address. Each interface prints the
    /// setting in its own words, or omits the remedy: [`Error::in_words`].
    #[must_use]
    pub fn remedy(self, what: impl fmt::Display, setting: Setting) -> Self {
        self.with((one_line(&what.to_string()), Some(setting)))
    }

    fn with(mut self, part: (String, Option<Setting>)) -> Self {
        self.0.parts.push(part);
        self.0.message = self.text(|setting| Some(setting.to_string()));
        self
    }

    /// All parts; without those with a setting for which there is no word.
    fn text(&self, words: impl Fn(Setting) -> Option<String>) -> String {
        let part = |(text, setting): &(String, Option<Setting>)| match setting {
            Some(setting) => Some(format!("{text} {}", words(*setting)?)),
            None => Some(text.clone()),
        };
        self.0.parts.iter().filter_map(part).collect::<Vec<_>>().join("; ")
    }

    /// The error in the words that an interface has for the settings; remedies with a setting that it does not have are omitted.
    #[must_use]
    pub fn in_words(mut self, words: impl Fn(Setting) -> Option<String>) -> Self {
        self.0.message = self.text(words);
        self.0.parts = vec![(self.0.message.clone(), None)];
        self
    }

    /// What was found, without the remedies that are settings: for a note about something that was overridden.
    pub fn found(&self) -> String {
        self.text(|_| None)
    }

    /// No error, or all errors as one: the text of all, and the kind of the first; of [`Kind::System`], which tells the caller the
    /// least, only if all are.
    pub fn all(errors: impl IntoIterator<Item = Error>) -> Result<()> {
        let join = |mut first: Error, next: Error| {
            if first.kind() == Kind::System {
                first.0.kind = next.kind();
            }
            next.0.parts.into_iter().fold(first, Error::with)
        };
        errors.into_iter().reduce(join).map_or(Ok(()), Err)
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// One line, no newline.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Byte offset into the spec text, for [`Kind::Spec`].
    pub fn offset(&self) -> Option<usize> {
        self.0.offset
    }

    /// The errno of the system call that failed, if it was one.
    pub fn errno(&self) -> Option<i32> {
        self.0.errno
    }

    /// The cause, if there is one in addition to the kind.
    pub fn cause(&self) -> Option<Cause> {
        self.0.cause
    }
}

/// A problem, and what to do about it: the two lines of a finding of `kport doctor`, or one line of an [`Error`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What was found, and what it means.
    pub seen: String,
    /// The line or the command that fixes it; empty if nothing needs to be done.
    pub remedy: String,
}

impl Problem {
    pub(crate) fn new(seen: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem { seen: seen.into(), remedy: remedy.into() }
    }

    /// The finding as an error.
    pub fn error(&self, kind: Kind) -> Error {
        Error::new(kind, self.to_string())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.seen)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

shows!(Error: message);

impl std::error::Error for Error {}

/// `text` as one line of printable characters, the others escaped: a NUL cannot be in a C string, a newline cannot forge a
/// second log line, and neither ESC nor U+202E can change what a terminal shows of the rest.
fn one_line(text: &str) -> String {
    printable(text.trim_end_matches('\n')).into_owned()
}

/// `text` with every character that cannot be printed escaped, including newlines. Everything that others may have written
/// passes through here before it is printed.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // escape_debug knows which characters can be printed, and also escapes these, as in Rust's literals
        if matches!(c, '\'' | '"' | '\\') { shown.push(c) } else { shown.extend(c.escape_debug()) }
    }
    shown.into()
}

/// `text` for an error message: quoted, escaped, and cut after 80 characters.
pub fn quoted(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut shown = String::new();
    for c in text.chars().take(LONGEST) {
        // escape_debug would escape it, as in Rust's character literals
        if c == '\'' { shown.push(c) } else { shown.extend(c.escape_debug()) }
    }
    if text.chars().nth(LONGEST).is_some() {
        shown.push_str("...");
    }
    format!("\"{shown}\"")
}
