//! Whether the main ruleset calls kport's anchors for every packet, and before what is final.

use super::packets::main_ruleset;
use super::{Findings, RELOAD, Surroundings};
use crate::error::{Problem, Result, quoted};
use crate::pf::calls_of_kport;
use crate::publication::Publication;

/// A call with a condition is a problem where what is published does not arrive; where it does, it may be meant so, as may a rule
/// that ends the evaluation before the call.
pub fn calls<'a>(
    around: &Surroundings<'_>,
    publications: impl IntoIterator<Item = &'a Publication> + Clone,
) -> Result<Findings> {
    let mut found = Findings::default();
    let Some(main) = around.main() else { return Ok(found) };
    let conditional: Vec<Problem> = ["nat-anchor", "rdr-anchor", "anchor"]
        .into_iter()
        .filter_map(|keyword| {
            let calls = calls_of_kport(main, keyword);
            let (_, conditions) = calls.first()?;
            calls.iter().all(|(_, conditions)| !conditions.is_empty()).then(|| Problem {
                seen: format!(
                    "{keyword} \"kport/*\" is called with a condition ({conditions}), so it is passed over for other packets"
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
    let called = calls_of_kport(main, "anchor").first().map_or(0, |(at, _)| *at);
    for line in main.lines().take(called).map(str::trim) {
        let mut words = line.split_whitespace();
        if words.next() == Some("block") && words.any(|word| word == "quick") {
            found.warnings.push(Problem {
                seen: format!(
                    "{} stands before anchor \"kport/*\", and is final for published ports as well",
                    quoted(line)
                ),
                remedy: format!("if that is not meant, move the line behind the anchor line in /etc/pf.conf, {RELOAD}"),
            });
        }
    }
    Ok(found)
}
