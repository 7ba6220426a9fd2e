//! The lines that rc.conf(5) and sysctl.conf(5) need: text in, plan out. They are added to the end of the file, since the
//! last assignment wins: lines of the administrator stay, and count again when kport's are removed.

use std::fmt;

use super::marks;
use super::replace::ConfFile;
use super::shell::{self, Assignment, Script};

#[derive(Clone, Copy, Debug)]
pub enum Format {
    /// rc.conf(5): variables of sh(1).
    Rc,
    /// sysctl.conf(5): a variable of the kernel on each line.
    Sysctl,
}

impl Format {
    fn line(self, name: &str, value: &str) -> String {
        match self {
            Format::Rc => format!("{name}=\"{value}\""),
            Format::Sysctl => format!("{name}={value}"),
        }
    }

    fn read(self, text: &str) -> Result<Script, String> {
        match self {
            Format::Rc => shell::read(text),
            Format::Sysctl => {
                Ok(Script { assignments: (1..).zip(text.lines()).filter_map(sysctl).collect(), other: None })
            }
        }
    }
}

/// A line of sysctl.conf(5), read like parsefile() and parse() of sysctl(8).
fn sysctl((number, line): (usize, &str)) -> Option<Assignment> {
    let line = line.split('#').next()?;
    let (name, value) = line.split_once(['=', ':'])?;
    let value = value.trim().trim_matches(['"', '\'']).to_owned();
    Some(Assignment { line: number, name: name.trim().to_owned(), value: Some(value) })
}

/// A variable and its required value.
pub type Variable = (&'static str, String);

/// Whether a value is equivalent to the required one.
fn is_enough(required: &str, value: &str) -> bool {
    // checkyesno() of rc.subr(8)
    let yes = ["yes", "true", "on", "1"].iter().any(|yes| yes.eq_ignore_ascii_case(value));
    value == required || required == "YES" && yes
}

/// A file that is read after the one that is written, and overrides it; and the variables that it is read for, empty for all.
pub type Later = (ConfFile, &'static [&'static str]);

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Additions {
    /// The lines for its end.
    pub lines: Vec<String>,
    /// Why they must be added by hand.
    pub by_hand: Vec<String>,
    pub notes: Vec<String>,
}

/// The last line that sets a variable, and the value; or why that is unknown.
fn known<'a>(script: &'a Result<Script, String>, name: &str) -> Result<Option<(usize, &'a str)>, String> {
    let script = script.as_ref().map_err(String::clone)?;
    let last = script.last(name);
    if let Some((line, word)) = &script.other
        && last.is_none_or(|last| last.line <= *line)
    {
        return Err(format!("line {line}: {word:?} is not an assignment; the value of {name} after it is unknown"));
    }
    let Some(last) = last else { return Ok(None) };
    match &last.value {
        Some(value) => Ok(Some((last.line, value))),
        None => Err(format!("line {}: {name} depends on other variables", last.line)),
    }
}

pub fn value(format: Format, text: &str, name: &str) -> Option<String> {
    known(&format.read(text), name).ok()?.map(|(_, value)| value.to_owned())
}

/// The plan for `text` and `settings`; `later` are the files that override it.
pub fn plan(format: Format, text: &str, settings: &[Variable], later: &[Later]) -> Additions {
    let mut plan = Additions::default();
    let own = format.read(text);
    let later: Vec<_> = later.iter().rev().map(|(file, only)| (file, only, format.read(&file.shown()))).collect();
    for (name, required) in settings {
        let line = format.line(name, required);
        let mut of_it = later.iter().filter(|(_, only, _)| only.is_empty() || only.contains(name));
        let wins = of_it.find_map(|(file, _, script)| Some((file, known(script, name).ok()??)));
        if let Some((file, (number, value))) = wins {
            if !is_enough(required, value) {
                let path = file.path.display();
                let why = format!("{path} line {number}: {name} is {value:?}, which wins; change it to {line}");
                plan.by_hand.push(why);
            }
            continue;
        }
        match known(&own, name) {
            Ok(Some((_, value))) if is_enough(required, value) => continue,
            Ok(Some((number, value))) => {
                plan.notes.push(format!("line {number}: {name} is {value:?}; the last line wins"));
            }
            Ok(None) => {}
            Err(why) if plan.by_hand.contains(&why) => {}
            Err(why) => plan.by_hand.push(why),
        }
        plan.lines.push(line);
    }
    plan
}

impl Additions {
    pub fn applied(&self, text: &[u8]) -> Vec<u8> {
        let mut made = text.to_owned();
        marks::add(&mut made, self.lines.iter().map(String::as_str));
        made
    }
}

/// The file without the lines that [`Additions::applied`] has added. A line whose value was changed stays.
pub fn undone(format: Format, text: &[u8]) -> Vec<u8> {
    marks::removed(text, |line| match format {
        Format::Rc if line.starts_with(&format!("{WAN}=\"")) => true,
        Format::Rc => RC.iter().any(|name| line == format.line(name, "YES")),
        Format::Sysctl => SYSCTL.iter().any(|(name, value)| line == format.line(name, value)),
    })
}

/// The variables of rc.conf(5) that kport sets to YES.
const RC: [&str; 3] = ["pf_enable", "gateway_enable", "ipv6_gateway_enable"];

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
        list(f, "kport cannot write it:", &self.by_hand)?;
        let how = if self.by_hand.is_empty() { "at the end:" } else { "add these lines by hand:" };
        list(f, how, &self.lines)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "  note: {note}"))
    }
}

/// Lines of a plan under a heading, if there are any.
pub fn list(f: &mut fmt::Formatter<'_>, heading: &str, lines: &[impl fmt::Display]) -> fmt::Result {
    if !lines.is_empty() {
        writeln!(f, "  {heading}")?;
    }
    lines.iter().try_for_each(|line| writeln!(f, "    {line}"))
}
