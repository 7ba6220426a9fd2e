//! Whether the main ruleset calls kport's anchors for every packet.

use super::outside::main_ruleset;
use super::{Findings, RELOAD, Surroundings};
use crate::error::{Problem, Result};
use crate::pfconf::rule::RuleKind;
use crate::publication::Publication;

/// A call with a condition is a problem if published ports do not arrive; otherwise it may be intended.
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
        let Findings { problems, warnings, .. } = main_ruleset(around, publications)?;
        let arrives = problems.is_empty() && warnings.is_empty();
        let list = if arrives { &mut found.warnings } else { &mut found.problems };
        list.extend(conditional);
    }
    Ok(found)
}
