//! Anchors without a name: pfctl(8) prints their rules in braces after the call, without their names (print_rule and
//! pfctl_show_rules in sbin/pfctl). pf holds them below the caller as `_1`, `_2` and so on (pfa_anchor in
//! sbin/pfctl/parse.y); what is called in the braces is below them.

use super::Pfctl;
use crate::error::Result;
use crate::pfconf::Conf;
use crate::pfconf::path::{self, Called};
use crate::pfconf::rule::{Action, RuleKind};

/// A ruleset: its path in pf, and its path in pfctl's output, which does not print the numbers of anchors without a
/// name.
#[derive(Clone, Debug, Default)]
pub(super) struct RulesetPath {
    pub(super) path: String,
    pub(super) read_as: String,
}

/// An anchor that a ruleset calls, likewise.
pub(super) struct Call {
    pub(super) called: Called,
    pub(super) read_as: Called,
}

impl RulesetPath {
    pub(super) fn below(&self, name: &str, read_as: &str) -> RulesetPath {
        RulesetPath { path: path::join(&self.path, name), read_as: path::join(&self.read_as, read_as) }
    }
}

impl Pfctl {
    /// The anchors that the ruleset `at` calls, also from within braces. `shown` is pfctl's output, and `inside` the path of this
    /// ruleset in it: that of its braces.
    pub(super) fn calls(&self, at: &RulesetPath, shown: &Conf, inside: &str, kinds: &[RuleKind]) -> Result<Vec<Call>> {
        let mut found = vec![];
        let mut unnamed = vec![];
        for rule in shown.rulesets.get(inside).into_iter().flatten() {
            let Action::Call(kind, call) = &rule.action else { continue };
            match path::join(inside, call) {
                name if shown.rulesets.contains_key(&name) => unnamed.push((call, name)),
                _ if kinds.contains(kind) => {
                    let (called, read_as) = (Called::resolve(&at.path, call), Called::resolve(&at.read_as, call));
                    found.push(Call { called, read_as });
                }
                _ => {}
            }
        }
        unnamed.retain(|(_, name)| calls_out(shown, name, kinds));
        if unnamed.is_empty() {
            return Ok(found);
        }
        // pf may have more of them, left by an earlier pf.conf. The numbers rise in the order of the file
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
            // if none has the printed rules, it may be any: no called anchor must be overlooked
            for number in names {
                found.extend(self.calls(&at.below(number, read_as), shown, &name, kinds)?);
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

/// Whether the braces `inside` call an anchor that is not itself in braces.
fn calls_out(shown: &Conf, inside: &str, kinds: &[RuleKind]) -> bool {
    shown.rulesets.get(inside).into_iter().flatten().any(|rule| match &rule.action {
        Action::Call(kind, call) => match path::join(inside, call) {
            name if shown.rulesets.contains_key(&name) => calls_out(shown, &name, kinds),
            _ => kinds.contains(kind),
        },
        _ => false,
    })
}
