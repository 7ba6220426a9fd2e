//! The lines that rc.conf(5) and sysctl.conf(5) need: text in, plan out. They are added to the end of the file, since the
//! last assignment wins: lines of the administrator stay, and count again when kport's are removed.

use std::fmt;

use crate::net::Interface;

use super::marks;
use super::shell::{self, Script};

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// rc.conf(5): variables of sh(1).
    Rc,
    /// sysctl.conf(5): a variable of the kernel on each line.
    Sysctl,
}

/// A variable and its required value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// The variable.
    pub name: String,
    /// The value.
    pub value: String,
}

impl Variable {
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Variable {
        Variable { name: name.into(), value: value.into() }
    }

    fn line(&self, format: Format) -> String {
        match format {
            Format::Rc => format!("{}=\"{}\"", self.name, self.value),
            Format::Sysctl => format!("{}={}", self.name, self.value),
        }
    }

    /// Whether `value` is equivalent.
    fn is(&self, value: &str) -> bool {
        // checkyesno() of rc.subr(8)
        let yes = ["yes", "true", "on", "1"].iter().any(|yes| yes.eq_ignore_ascii_case(value));
        value == self.value || self.value == "YES" && yes
    }
}

/// A file that is read after the one that is written, and overrides it.
#[derive(Clone, Debug)]
pub struct Later {
    /// Its path, for messages.
    pub path: String,
    /// Its text.
    pub text: String,
    /// The variables that it is read for; empty for all.
    pub only: &'static [&'static str],
}

/// The plan for a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Additions {
    /// The lines for its end.
    pub lines: Vec<String>,
    /// Why they must be added by hand.
    pub by_hand: Vec<String>,
    /// Notes about the file.
    pub notes: Vec<String>,
}

/// The value of a variable, as far as it is known.
enum Known {
    Absent,
    Is {
        line: usize,
        value: String,
    },
    /// It is unknown, and why.
    Open(String),
}

/// The values of a file.
enum Values {
    Rc(Result<Script, String>),
    Sysctl(Vec<(usize, String, String)>),
}

impl Values {
    fn read(format: Format, text: &str) -> Values {
        match format {
            Format::Rc => Values::Rc(shell::read(text)),
            Format::Sysctl => Values::Sysctl((1..).zip(text.lines()).filter_map(sysctl).collect()),
        }
    }

    fn of(&self, name: &str) -> Known {
        match self {
            Values::Rc(Err(why)) => Known::Open(why.clone()),
            Values::Rc(Ok(script)) => {
                let last = script.last(name);
                match (&script.other, last) {
                    (Some((line, word)), last) if last.is_none_or(|last| last.line <= *line) => Known::Open(format!(
                        "line {line}: {word:?} is not an assignment; the value of {name} after it is unknown"
                    )),
                    (_, None) => Known::Absent,
                    (_, Some(last)) => match &last.value {
                        Some(value) => Known::Is { line: last.line, value: value.clone() },
                        None => Known::Open(format!("line {}: {name} depends on other variables", last.line)),
                    },
                }
            }
            Values::Sysctl(all) => match all.iter().rfind(|(_, known, _)| known == name) {
                Some((line, _, value)) => Known::Is { line: *line, value: value.clone() },
                None => Known::Absent,
            },
        }
    }
}

/// A line of sysctl.conf(5), read like parsefile() and parse() of sysctl(8).
fn sysctl((number, line): (usize, &str)) -> Option<(usize, String, String)> {
    let line = line.split('#').next()?;
    let (name, value) = line.split_once(['=', ':'])?;
    Some((number, name.trim().to_owned(), value.trim().trim_matches(['"', '\'']).to_owned()))
}

/// The plan for `text` and `settings`; `later` are the files that override it.
pub fn plan(format: Format, text: &str, settings: &[Variable], later: &[Later]) -> Additions {
    let mut plan = Additions::default();
    let values = Values::read(format, text);
    for setting in settings {
        let (name, line) = (&setting.name, setting.line(format));
        let wins = later.iter().rev().find_map(|later| {
            let counts = later.only.is_empty() || later.only.contains(&name.as_str());
            match Values::read(format, &later.text).of(name) {
                Known::Is { line, value } if counts => Some((later, line, value)),
                _ => None,
            }
        });
        match (wins, values.of(name)) {
            (Some((_, _, value)), _) if setting.is(&value) => {}
            (Some((later, number, value)), _) => {
                plan.by_hand.push(format!(
                    "{} line {number}: {name} is {value:?}, which wins; change it to {line}",
                    later.path
                ));
            }
            (None, Known::Is { value, .. }) if setting.is(&value) => {}
            (None, Known::Is { line: number, value }) => {
                plan.notes.push(format!("line {number}: {name} is {value:?}; the last line wins"));
                plan.lines.push(line);
            }
            (None, Known::Absent) => plan.lines.push(line),
            (None, Known::Open(why)) => {
                if !plan.by_hand.contains(&why) {
                    plan.by_hand.push(why);
                }
                plan.lines.push(line);
            }
        }
    }
    plan
}

/// The value of a variable, if it is known.
pub fn value(format: Format, text: &str, name: &str) -> Option<String> {
    match Values::read(format, text).of(name) {
        Known::Is { value, .. } => Some(value),
        _ => None,
    }
}

impl Additions {
    /// The file with the lines in it.
    pub fn applied(&self, text: &[u8]) -> Vec<u8> {
        let mut made = text.to_owned();
        marks::add(&mut made, self.lines.iter().map(String::as_str));
        made
    }
}

/// The file without the lines that [`Additions::applied`] has added. A line whose value was changed stays.
pub fn undone(format: Format, text: &[u8]) -> Vec<u8> {
    marks::removed(text, |line| match format {
        Format::Rc => {
            RC.iter().any(|name| line == Variable::new(*name, "YES").line(format))
                || line
                    .strip_prefix(WAN)
                    .and_then(|rest| rest.strip_prefix("=\"")?.strip_suffix('"'))
                    .is_some_and(|name| name.parse::<Interface>().is_ok())
        }
        Format::Sysctl => SYSCTL.iter().any(|(name, value)| line == Variable::new(*name, *value).line(format)),
    })
}

/// The variables of rc.conf(5) that kport sets to YES.
pub const RC: [&str; 3] = ["pf_enable", "gateway_enable", "ipv6_gateway_enable"];

/// The interface from which a router takes advertisements, rc.conf(5).
pub const WAN: &str = "ipv6_cpe_wanif";

/// The variables of the kernel that kport sets, with their values.
pub const SYSCTL: [(&str, &str); 4] = [
    ("net.inet.ip.forwarding", "1"),
    ("net.inet6.ip6.forwarding", "1"),
    ("net.pf.filter_local", "1"),
    ("net.link.bridge.pfil_member", "0"),
];

impl fmt::Display for Additions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lines.is_empty() && self.by_hand.is_empty() {
            writeln!(f, "  has what it needs")?;
        }
        if !self.by_hand.is_empty() {
            writeln!(f, "  kport cannot write it:")?;
            for why in &self.by_hand {
                writeln!(f, "    {why}")?;
            }
        }
        if !self.lines.is_empty() {
            let how = if self.by_hand.is_empty() { "at the end" } else { "add these lines by hand" };
            writeln!(f, "  {how}:")?;
            for line in &self.lines {
                writeln!(f, "    {line}")?;
            }
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Vec<Variable> {
        vec![Variable::new("pf_enable", "YES"), Variable::new("gateway_enable", "YES")]
    }

    fn rc(text: &str) -> Additions {
        plan(Format::Rc, text, &wanted(), &[])
    }

    const BOTH: [&str; 2] = ["pf_enable=\"YES\"", "gateway_enable=\"YES\""];

    #[test]
    fn an_rc_conf_gets_what_it_lacks() {
        for text in ["", "hostname=a\n", "pf_enable=\"NO\"\n", "#pf_enable=YES\n"] {
            let plan = rc(text);
            assert_eq!(plan.lines, BOTH, "{text}");
            let once = plan.applied(text.as_bytes());
            let shown = std::str::from_utf8(&once).unwrap();
            assert_eq!(rc(shown), Additions { notes: vec![], ..Additions::default() }, "{shown}");
            assert_eq!(undone(Format::Rc, &once), text.as_bytes());
        }
        assert_eq!(rc("pf_enable=NO\n").notes, ["line 1: pf_enable is \"NO\"; the last line wins"]);
        assert_eq!(rc("pf_enable=yes gateway_enable='On'\n"), Additions::default());
        assert_eq!(rc("pf_enable=YES\npf_enable=NO\n").lines, BOTH);
        // bytes that are not UTF-8, and a last line without a newline
        let text = b"# caf\xe9\na=\"\xff\"";
        let once = rc(&String::from_utf8_lossy(text)).applied(text);
        assert!(once.starts_with(text) && once.ends_with(b"\ngateway_enable=\"YES\" # kport setup\n"), "{once:?}");
        assert_eq!(rc(&String::from_utf8_lossy(&once)), Additions::default());
        assert_eq!(undone(Format::Rc, &once), text);
    }

    #[test]
    fn what_is_changed_afterwards_is_not_undone() {
        let theirs =
            b"pf_enable=\"NO\" # kport setup\nother=\"YES\" # kport setup\n ipv6_cpe_wanif=\"em0\" # kport setup\n";
        assert_eq!(undone(Format::Rc, theirs), theirs);
        assert_eq!(
            undone(Format::Rc, b"ipv6_cpe_wanif=\"em0\" # kport setup\nipv6_cpe_wanif=\"em0\"\n"),
            b"ipv6_cpe_wanif=\"em0\"\n"
        );
    }

    #[test]
    fn an_rc_conf_that_is_a_program() {
        let by_hand = rc("a=b\nif x; then\npf_enable=YES\nfi\n");
        assert_eq!(by_hand.lines, BOTH);
        assert!(by_hand.by_hand[0].starts_with("line 4: \"fi\" is not an assignment"), "{by_hand:?}");
        let shown = by_hand.to_string();
        assert!(shown.contains("by hand:\n    pf_enable=\"YES\"\n"), "{shown}");
        assert_eq!(rc(". /x\npf_enable=YES\ngateway_enable=YES\n"), Additions::default());
        assert_eq!(rc("x=$(date)\n").by_hand, ["line 1: the result of this expansion is unknown"]);
        assert_eq!(rc("pf_enable=$x\ngateway_enable=YES\n").lines, ["pf_enable=\"YES\""]);
        assert!(!rc("pf_enable=$x\ngateway_enable=YES\n").by_hand.is_empty());
    }

    #[test]
    fn a_file_that_is_read_later_wins() {
        let later = |text: &str, only| [Later { path: "rc.conf.local".to_owned(), text: text.to_owned(), only }];
        let of = |text, only| plan(Format::Rc, "", &wanted(), &later(text, only));
        assert_eq!(of("pf_enable=YES\n", &[]).lines, [BOTH[1]]);
        let no = of("x=y\npf_enable=NO\n", &["pf_enable"]);
        assert_eq!(
            no.by_hand,
            ["rc.conf.local line 2: pf_enable is \"NO\", which wins; change it to pf_enable=\"YES\""]
        );
        assert_eq!(of("pf_enable=NO\n", &["gateway_enable"]).lines, BOTH);
        assert_eq!(of("x=`y`\n", &[]).lines, BOTH);
    }

    #[test]
    fn sysctl_conf() {
        let settings = [Variable::new("net.pf.filter_local", "1")];
        let of = |text: &str| plan(Format::Sysctl, text, &settings, &[]);
        for text in
            ["", "# net.pf.filter_local=1\n", "net.pf.filter_local=1\nnet.pf.filter_local: 0 # no\n", "nonsense\n"]
        {
            let made = of(text).applied(text.as_bytes());
            let shown = std::str::from_utf8(&made).unwrap();
            assert!(shown.ends_with("net.pf.filter_local=1 # kport setup\n"), "{shown}");
            assert_eq!(of(shown), Additions::default());
            assert_eq!(undone(Format::Sysctl, &made), text.as_bytes());
        }
        for text in ["net.pf.filter_local=1\n", " net.pf.filter_local : \"1\"  # yes\n"] {
            assert_eq!(of(text), Additions::default(), "{text}");
        }
    }
}
