//! Anchors without a name: pfctl(8) shows their rules in braces behind the call, and not what they are called (print_rule and
//! pfctl_show_rules in sbin/pfctl). pf has them below the caller as `_1`, `_2` and so on (pfa_anchor in sbin/pfctl/parse.y), and what
//! is called in the braces is below them.

use super::Pfctl;
use crate::error::Result;
use crate::pf::foreign::{self, Reader};
use crate::pfconf::path::{self, Called};

/// A ruleset as it is shown, or what of it stands in a pair of braces. Lines are without indentation.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shown<'a> {
    /// Every line, those in braces too.
    pub(super) lines: Vec<&'a str>,
    /// The lines that are in no braces.
    pub(super) own: Vec<&'a str>,
    /// The anchors without a name that it calls, each with its number among all in the text, from 1.
    pub(super) unnamed: Vec<(usize, Shown<'a>)>,
}

impl<'a> Shown<'a> {
    /// Reads what `-sr` shows.
    pub(super) fn read(text: &'a str) -> Shown<'a> {
        let mut outer = Vec::new();
        let mut open = (0, Shown::default());
        let mut count = 0;
        for line in text.lines().map(str::trim) {
            if line == "}"
                && let Some(before) = outer.pop()
            {
                open = close(before, open);
                open.1.lines.push(line);
                continue;
            }
            open.1.lines.push(line);
            open.1.own.push(line);
            if line.starts_with("anchor ") && line.ends_with(" {") {
                count += 1;
                outer.push(std::mem::replace(&mut open, (count, Shown::default())));
            }
        }
        outer.into_iter().rev().fold(open, |open, before| close(before, open)).1
    }
}

fn close<'a>(mut outer: (usize, Shown<'a>), inside: (usize, Shown<'a>)) -> (usize, Shown<'a>) {
    outer.1.lines.extend(&inside.1.lines);
    outer.1.unnamed.push(inside);
    outer
}

/// A ruleset: where pf has it, and where it is for whoever reads the texts, which do not show the numbers of anchors without a name.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) read_as: String,
}

/// What a ruleset calls, likewise.
pub(super) struct Call {
    pub(super) called: Called,
    pub(super) read_as: Called,
}

impl Place {
    pub(super) fn below(&self, name: &str, read_as: &str) -> Place {
        Place { path: path::join(&self.path, name), read_as: path::join(&self.read_as, read_as) }
    }

    fn call(&self, call: &str) -> Call {
        Call { called: Called::resolve(&self.path, call), read_as: Called::resolve(&self.read_as, call) }
    }
}

impl Pfctl {
    /// What the ruleset `at` calls, from within the braces of anchors without a name as well.
    pub(super) fn calls(&self, at: &Place, shown: &Shown<'_>, keywords: &[&str]) -> Result<Vec<Call>> {
        let call = |line: &&str| keywords.iter().find_map(|keyword| foreign::call(line, keyword).map(str::to_owned));
        let mut found: Vec<Call> = shown.own.iter().filter_map(call).map(|call| at.call(&call)).collect();
        let calling = shown.unnamed.iter().filter(|(_, inside)| inside.lines.iter().any(|line| call(line).is_some()));
        let calling: Vec<_> = calling.collect();
        if calling.is_empty() {
            return Ok(found);
        }
        // pf may have more of them: what an earlier pf.conf has left. The numbers rise with the text
        let numbers = self.numbers(&at.path)?;
        let mut left = &numbers[..];
        for (number, inside) in calling {
            let mut names = &numbers[..];
            for (nth, name) in left.iter().enumerate() {
                let held = self.show(&path::join(&at.path, name), &["-sr", "-P"])?;
                if held.lines().map(str::trim).eq(inside.lines.iter().copied()) {
                    (names, left) = (&left[nth..=nth], &left[nth + 1..]);
                    break;
                }
            }
            // where none holds what is shown, it may be any: what is called must not be overlooked
            for name in names {
                found.extend(self.calls(&at.below(name, &format!("_{number}")), inside, keywords)?);
            }
        }
        Ok(found)
    }

    /// The anchors without a name below one, in the order of their numbers.
    fn numbers(&self, anchor: &str) -> Result<Vec<String>> {
        let number = |name: &str| name.strip_prefix('_')?.parse::<u32>().ok();
        let mut all = self.children(anchor)?;
        all.retain(|name| number(name).is_some());
        all.sort_by_key(|name| number(name));
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_in_braces() {
        let text = "\
block drop all
anchor on em0 all {
  pass all flags S/SA keep state
  anchor all {
    anchor \"deep\" all
  }
}
anchor \"x\" all
anchor in all {
}
";
        let shown = Shown::read(text);
        assert_eq!(shown.lines, text.lines().map(str::trim).collect::<Vec<_>>());
        assert_eq!(shown.own, ["block drop all", "anchor on em0 all {", "anchor \"x\" all", "anchor in all {"]);
        let [(1, first), (3, third)] = &shown.unnamed[..] else { panic!("{shown:?}") };
        assert_eq!(first.own, ["pass all flags S/SA keep state", "anchor all {"]);
        assert_eq!(first.lines.len(), 4);
        assert_eq!(third, &Shown::default());
        let [(2, second)] = &first.unnamed[..] else { panic!("{first:?}") };
        assert_eq!((&second.own[..], &second.lines[..]), (&["anchor \"deep\" all"][..], &["anchor \"deep\" all"][..]));
        // cut off, and a brace too many
        assert_eq!(Shown::read("anchor all {\npass all").unnamed[0].1.own, ["pass all"]);
        assert_eq!(Shown::read("}\npass all").own, ["}", "pass all"]);
    }
}
