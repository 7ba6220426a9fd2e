//! Errors, sorted by what the caller can do about them.
//!
//! Every error is one [`Kind`] and one line of text: what was found, and what to do. The number of a kind is the status of
//! the C ABI and the exit status of the helper; numbers never change.

use std::borrow::Cow;
use std::fmt;
use std::io;

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
    pub const ALL: [Kind; 9] = [
        Kind::Argument,
        Kind::Spec,
        Kind::Conflict,
        Kind::Permission,
        Kind::Unavailable,
        Kind::Busy,
        Kind::System,
        Kind::Unsupported,
        Kind::Internal,
    ];

    /// The status number: of the C ABI, and the exit status of the helper.
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// A few words, identical for every error of this kind.
    pub const fn text(self) -> &'static str {
        match self {
            Kind::Argument => "bad argument",
            Kind::Spec => "bad port spec",
            Kind::Conflict => "port in use",
            Kind::Permission => "permission denied",
            Kind::Unavailable => "firewall not ready",
            Kind::Busy => "busy, try again",
            Kind::System => "system error",
            Kind::Unsupported => "not supported",
            Kind::Internal => "internal error in kport",
        }
    }
}

/// Why a call failed: one line for the user, and numbers for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    kind: Kind,
    message: String,
    offset: Option<usize>,
    errno: Option<i32>,
    cause: Option<Cause>,
}

/// What some callers need in addition to the [`Kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The file of a record is not a record of that jail: it may be moved aside.
    DamagedRecord,
}

/// The result of everything in kport that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind`. Characters of `message` that cannot be printed are escaped, so that the text is always one line.
    pub fn new(kind: Kind, message: impl AsRef<str>) -> Self {
        Error(Box::new(Inner { kind, message: one_line(message.as_ref()), offset: None, errno: None, cause: None }))
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
        self.0.message = one_line(&format!("{before}: {}", self.0.message));
        self
    }

    /// The error with "; " and `after` after its text.
    #[must_use]
    pub fn and(mut self, after: impl fmt::Display) -> Self {
        self.0.message = one_line(&format!("{}; {after}", self.0.message));
        self
    }

    /// No error, or all errors as one: the kind of the first, the text of all.
    pub fn all(errors: impl IntoIterator<Item = Error>) -> Result<()> {
        errors.into_iter().reduce(|first, next| first.and(next)).map_or(Ok(()), Err)
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What was found, and what it means.
    pub seen: String,
    /// The line or the command that fixes it; empty if nothing needs to be done.
    pub remedy: String,
}

impl Problem {
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_contract() {
        let numbers: Vec<i32> = Kind::ALL.iter().map(|k| k.number()).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_message_is_one_line() {
        let error = Error::new(Kind::Argument, "a\nb\0c\n");
        assert_eq!(error.message(), "a\\nb\\0c");
        assert_eq!(quoted("x\"\n"), "\"x\\\"\\n\"");
        assert_eq!(quoted(&"y".repeat(100)), format!("\"{}...\"", "y".repeat(80)));
    }

    #[test]
    fn what_does_not_print_is_escaped_and_nothing_else() {
        for text in ["", "web", "it's \"a\\b\"", "käse", "日本", "🦀"] {
            assert_eq!(printable(text), text);
        }
        for (text, shown) in [
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("a\tb\r\n", "a\\tb\\r\\n"),
            ("a\u{200b}\u{feff}\u{2028}", "a\\u{200b}\\u{feff}\\u{2028}"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("\u{7f}", "\\u{7f}"),
        ] {
            assert_eq!(printable(text), shown);
            assert_eq!(Error::new(Kind::Argument, text).message(), printable(text.trim_end_matches('\n')));
        }
    }

    #[test]
    fn errno_decides_between_permission_and_system() {
        let denied = Error::io("open x", &io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!((denied.kind(), denied.errno()), (Kind::Permission, Some(libc::EACCES)));
        let missing = Error::io("open x", &io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(missing.kind(), Kind::System);
    }
}
