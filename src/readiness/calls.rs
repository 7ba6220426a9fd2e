//! Whether the main ruleset calls kport's anchors for every packet, and before what is final.

use super::{Findings, RELOAD, Surroundings};
use crate::error::{Problem, quoted};
use crate::pf::calls_of_kport;

/// A call with a condition is a problem; a rule that ends the evaluation before the call may be meant so.
pub fn calls(around: &Surroundings<'_>) -> Findings {
    let Some(main) = around.main() else { return Findings::default() };
    let mut found = Findings::default();
    for keyword in ["nat-anchor", "rdr-anchor", "anchor"] {
        let calls = calls_of_kport(main, keyword);
        if let Some((_, conditions)) = calls.first()
            && calls.iter().all(|(_, conditions)| !conditions.is_empty())
        {
            found.problems.push(Problem {
                seen: format!(
                    "{keyword} \"kport/*\" is called with a condition ({conditions}), so it is passed over for other packets"
                ),
                remedy: format!("write in /etc/pf.conf: {keyword} \"kport/*\", {RELOAD}"),
            });
        }
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
    found
}
