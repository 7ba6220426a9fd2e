//! Whether the main ruleset calls kport's anchors for every packet, and before a final rule.

use super::packets::main_ruleset;
use super::{Findings, RELOAD, Surroundings};
use crate::error::{Problem, Result, quoted};
use crate::pfconf::rule::{Action, RuleKind};
use crate::publication::Publication;

/// A call with a condition is a problem if published ports do not arrive; otherwise it may be intended, as may a quick
/// rule before the call.
pub fn calls<'a>(
    around: &Surroundings<'_>,
    publications: impl IntoIterator<Item = &'a Publication> + Clone,
) -> Result<Findings> {
    let mut found = Findings::default();
    let Some(main) = around.main() else { return Ok(found) };
    let conditional: Vec<Problem> = [RuleKind::Nat, RuleKind::Rdr, RuleKind::Filter]
        .into_iter()
        .filter_map(|kind| {
            let calls = main.calls_of_kport(kind);
            let conditions = calls.first()?.conditions();
            let keyword = kind.call();
            calls.iter().all(|call| !call.conditions().is_empty()).then(|| Problem {
                seen: format!(
                    "{keyword} \"kport/*\" is called with a condition ({conditions}), so it is skipped for other packets"
                ),
                remedy: format!("write in /etc/pf.conf: {keyword} \"kport/*\", {RELOAD}"),
            })
        })
        .collect();
    if !conditional.is_empty() {
        let arrives = main_ruleset(around, publications)? == Findings::default();
        let list = if arrives { &mut found.warnings } else { &mut found.problems };
        list.extend(conditional);
    }
    let mut last = "";
    for rule in main.before_kport() {
        let text = &*rule.origin.text;
        // a rule with lists is one line of the file
        if rule.action == Action::Block && rule.quick && text != last {
            found.warnings.push(Problem {
                seen: format!(
                    "{} comes before anchor \"kport/*\", and is final for published ports as well",
                    quoted(text)
                ),
                remedy: format!(
                    "if that is not intended, move the line after the anchor line in /etc/pf.conf, {RELOAD}"
                ),
            });
        }
        last = text;
    }
    Ok(found)
}
