//! Names in pf: jails, anchors, labels, tags, tables.
//!
//! A jail name may be nearly anything (jail(8)); pf gets the name itself if it fits, or a prefix of it and a digest.
//! The digest form contains a `+`, which the plain form never does, so two jails cannot share an anchor, whatever their
//! names are.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use arrayvec::ArrayString;
use sha2::{Digest, Sha256};

use crate::error::{Error, error, quoted, shows};
use crate::net::{PortRange, Protocol, as_text};

/// The anchor that contains kport's own anchors. pf.conf(5) calls it as `"kport"`, or, with every anchor below it, as
/// `"kport/*"`.
pub const PARENT: &str = "kport";

/// The anchor below [`PARENT`] whose children are the nodes of the tree of calls (`calls`): `kport/+calls/tcp.8080-8095`.
/// No jail's anchor has this name ([`Anchor::from_child`]), and `"kport/*"` does not evaluate what is two levels below.
pub const NODES: &str = "+calls";

/// The longest anchor path that pfctl(8) can load, and the longest label and tag: PF_ANCHOR_NAME_SIZE,
/// PF_RULE_LABEL_SIZE and PF_TAG_NAME_SIZE are 64 with the NUL (sys/netpfil/pf/pf.h).
pub const MAX_NAME: usize = 63;

/// The longest name of a table: PF_TABLE_NAME_SIZE is 32 with the NUL (sys/netpfil/pf/pf.h).
pub const MAX_TABLE: usize = 31;

/// The length of the digest in a name that does not fit, in bytes: 128 bits of SHA-256 in hex.
const DIGEST: usize = 32;

/// The name of a jail, as jail(8) knows it: not empty, at most 255 bytes, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JailName(String);

impl JailName {
    /// MAXHOSTNAMELEN of sys/param.h is 256 with the NUL; struct prison holds the name in as many bytes.
    const MAX: usize = 255;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `jail "web"`: the form of its name in messages.
    pub fn mention(&self) -> String {
        format!("jail {}", quoted(&self.0))
    }

    /// The anchor for this jail's rules. This is the one place that decides which anchor a jail's rules are in.
    pub fn anchor(&self) -> Anchor {
        Anchor(format!("{PARENT}/{}", self.child()))
    }

    fn child(&self) -> Cow<'_, str> {
        short(&self.0, MAX_NAME - PARENT.len() - 1)
    }

    /// The label of every state of this jail.
    pub fn label(&self) -> Label {
        Label::of_anchor(&self.anchor())
    }

    /// The label of the states of one mapping: `kport:web:tcp:8080`.
    pub fn mapping_label(&self, protocol: Protocol, host: PortRange) -> Label {
        Label(self.with_tail(format_args!(":{protocol}:{host}")))
    }

    /// The tag of one mapping in one of the publications of the jail, counted from 0: `kport:web:tcp:8080`,
    /// `kport:web:tcp:8080:1`. A packet carries it from an rdr rule to its pass rule: two jails may share an address, and then
    /// only the tag tells their packets apart. The tag of a mapping that does not need its own is [`JailName::label`].
    ///
    /// pf keeps a number for each tag that a loaded rule has, at most 50,000 (TAGID_MAX of sys/netpfil/pf/pf_ioctl.c).
    pub fn mapping_tag(&self, protocol: Protocol, host: PortRange, publication: usize) -> Label {
        match publication {
            0 => self.mapping_label(protocol, host),
            n => Label(self.with_tail(format_args!(":{protocol}:{host}:{n}"))),
        }
    }

    /// `kport:`, as much of the name as there is room for, and `tail`.
    fn with_tail(&self, tail: fmt::Arguments<'_>) -> ArrayString<MAX_NAME> {
        let tail = inline(tail);
        let whole = MAX_NAME - PARENT.len() - 1;
        let mut name = short(&self.0, whole);
        if name.len() + tail.len() > whole {
            name = digested(&self.0, whole - tail.len()).into();
        }
        inline(format_args!("{PARENT}:{name}{tail}"))
    }
}

impl FromStr for JailName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let why = match text {
            "" => "is empty",
            _ if text.len() > JailName::MAX => "has more than 255 bytes",
            _ if text.contains(char::is_control) => "has a control character",
            // jail(8) takes any bytes; this is how a name with others is read
            _ if text.contains(char::REPLACEMENT_CHARACTER) => "is not UTF-8; rename the jail",
            _ => return Ok(JailName(text.to_owned())),
        };
        Err(error!(Argument, "jail name {}: {why}", quoted(text)))
    }
}

/// The path of an anchor of kport: `kport/` and a name of letters, digits, `.`, `-`, `_` and `+`, at most 63 bytes in all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Anchor(String);

impl Anchor {
    /// The whole path, as pfctl(8) `-a` takes it.
    pub fn path(&self) -> &str {
        &self.0
    }

    /// The part below [`PARENT`].
    pub fn child(&self) -> &str {
        &self.0[PARENT.len() + 1..]
    }

    /// Whether it is [`JailName::anchor`] of this jail.
    pub fn is_of(&self, jail: &JailName) -> bool {
        self.child() == jail.child()
    }

    /// The anchor with this name below [`PARENT`], for names that pf or a file reports. `None` if kport could not have
    /// made it.
    pub fn from_child(child: &str) -> Option<Anchor> {
        let made = fits(child)
            || child.split_once('+').is_some_and(|(prefix, digest)| {
                (prefix.is_empty() || fits(prefix) || prefix.bytes().all(|b| b == b'.'))
                    && digest.len() == DIGEST
                    && digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            });
        (made && child.len() < MAX_NAME - PARENT.len()).then(|| Anchor([PARENT, "/", child].concat()))
    }
}

/// A label of a filter rule, or a tag, at most 63 bytes, without `"`, `$`, white space or control characters: pfctl(8) would
/// expand a `$`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(ArrayString<MAX_NAME>);

impl Label {
    /// The label of all states of the jail whose anchor this is.
    pub fn of_anchor(anchor: &Anchor) -> Label {
        Label(inline(format_args!("{PARENT}:{}", anchor.child())))
    }

    /// A label that pf reports; `None` unless kport could have made it.
    pub fn loaded(text: &str) -> Option<Label> {
        let good = |b: u8| plain(b) || b == b':' || b == b'+';
        let ours = text.strip_prefix(PARENT)?.starts_with(':') && text.bytes().all(good);
        ArrayString::from(text).ok().filter(|_| ours).map(Label)
    }

    /// The label.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Label::loaded(text).ok_or_else(|| error!(Argument, "{} is not one of kport's labels", quoted(text)))
    }
}

/// The name of a pf table: letters, digits, `_`, `-` and `.`, at most 31 bytes, first a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(ArrayString<MAX_TABLE>);

impl Table {
    /// The name, without the angle brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Table {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let good = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric) && text.bytes().all(plain);
        ArrayString::from(text).ok().filter(|_| good).map(Table).ok_or_else(|| {
            let why = "a name has letters, digits, _, - and . only, at most 31 bytes, first a letter or digit";
            error!(Argument, "table {}: {why}", quoted(text))
        })
    }
}

shows!(JailName: as_str, Anchor: path, Label: as_str, Table: as_str);
as_text!(JailName, Label, Table);

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

/// Whether a name can be an anchor unchanged. pfctl(8) refuses a leading `_`; `.` and `..` walk the tree of anchors
/// (pf_find_kruleset in sys/netpfil/pf/pf_ruleset.c).
fn fits(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('_') && name != "." && name != ".." && name.bytes().all(plain)
}

/// `name` itself if it fits in `room` bytes, else its digest form.
fn short(name: &str, room: usize) -> Cow<'_, str> {
    if name.len() <= room && fits(name) { name.into() } else { digested(name, room).into() }
}

/// The text of a label or a tag, stored inline: a rule has three of them.
fn inline(text: fmt::Arguments<'_>) -> ArrayString<MAX_NAME> {
    let mut made = ArrayString::new();
    made.write_fmt(text).expect("a label or a tag has at most MAX_NAME bytes by construction");
    made
}

/// As much of `name` as there is room for, with `-` for other bytes, then `+` and the digest of the whole name.
fn digested(name: &str, room: usize) -> String {
    let prefix = room.saturating_sub(DIGEST + 1).min(24);
    let mut made: String = name.bytes().take(prefix).map(|b| if plain(b) { b as char } else { '-' }).collect();
    if made.starts_with('_') {
        made.replace_range(..1, "-");
    }
    made.push('+');
    made.extend(Sha256::digest(name.as_bytes())[..DIGEST / 2].iter().map(|byte| format!("{byte:02x}")));
    made
}
