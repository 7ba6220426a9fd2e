//! Anchors without a name: pfctl(8) shows their rules in braces after the call, and not what they are called (print_rule and
//! pfctl_show_rules in sbin/pfctl). pf has them below the caller as `_1`, `_2` and so on (pfa_anchor in sbin/pfctl/parse.y), and what
//! is called in the braces is below them.

use super::Pfctl;
use crate::error::Result;
use crate::pf::foreign::Reader;
use crate::pfconf::Conf;
use crate::pfconf::path::{self, Called};
use crate::pfconf::rule::{Action, RuleKind};

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
    /// What the ruleset `at` calls, from within the braces of anchors without a name as well. `shown` is what pfctl shows of it.
    pub(super) fn calls(&self, at: &Place, shown: &Conf, kinds: &[RuleKind]) -> Result<Vec<Call>> {
        self.calls_in(at, shown, "", kinds)
    }

    /// The same in the braces that are `inside`, which pf has at `at`.
    fn calls_in(&self, at: &Place, shown: &Conf, inside: &str, kinds: &[RuleKind]) -> Result<Vec<Call>> {
        let mut found = vec![];
        let mut unnamed = vec![];
        for rule in shown.rulesets.get(inside).into_iter().flatten() {
            let Action::Call(kind, call) = &rule.action else { continue };
            match path::join(inside, call) {
                name if shown.rulesets.contains_key(&name) => unnamed.push((call, name)),
                _ if kinds.contains(kind) => found.push(at.call(call)),
                _ => {}
            }
        }
        unnamed.retain(|(_, name)| calls_out(shown, name, kinds));
        if unnamed.is_empty() {
            return Ok(found);
        }
        // pf may have more of them: what an earlier pf.conf has left. The numbers rise with the text
        let numbers = self.numbers(&at.path)?;
        let mut left = &numbers[..];
        for (read_as, name) in unnamed {
            let wanted = shown.below(&name).to_string();
            let mut names = &numbers[..];
            for (nth, name) in left.iter().enumerate() {
                let held = self.rules(&path::join(&at.path, name), "-sr")?;
                if held.to_string() == wanted {
                    (names, left) = (&left[nth..=nth], &left[nth + 1..]);
                    break;
                }
            }
            // if none holds what is shown, it may be any: what is called must not be overlooked
            for number in names {
                found.extend(self.calls_in(&at.below(number, read_as), shown, &name, kinds)?);
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

/// Whether the braces `inside` call anything that does not stand in braces itself.
fn calls_out(shown: &Conf, inside: &str, kinds: &[RuleKind]) -> bool {
    shown.rulesets.get(inside).into_iter().flatten().any(|rule| match &rule.action {
        Action::Call(kind, call) => match path::join(inside, call) {
            name if shown.rulesets.contains_key(&name) => calls_out(shown, &name, kinds),
            _ => kinds.contains(kind),
        },
        _ => false,
    })
}
