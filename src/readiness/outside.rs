//! Whether packets from outside arrive at published ports, and whether those arrive that the main ruleset refuses because of
//! their source. By evaluation only, and by what was found before.

use std::collections::BTreeMap;

use super::evaluator::{Outcome, Probe};
use super::{Findings, MainRuleset, Publications, and_more};
use crate::error::{Problem, Result};

/// Sends the first packet of published ports through the evaluator, with the real main ruleset and the rules of the
/// redirect. Ports that no rule of the main ruleset distinguishes are tried once. A ruleset that could not be read is a
/// warning.
pub fn main_ruleset<'p>(main: &MainRuleset<'_>, publications: impl Publications<'p>) -> Result<Findings> {
    let mut found = Findings::default();
    let facts = main.facts()?;
    found.problems.extend(facts.refused.clone());
    found.warnings.extend(facts.unread.clone());
    if !facts.can_be_judged() {
        return Ok(found);
    }
    let mut open: BTreeMap<String, String> = BTreeMap::new();
    let mut lost: BTreeMap<String, (String, usize)> = BTreeMap::new();
    let classes = main.classes(publications)?;
    for class in &classes {
        let judged = main.judged(class)?;
        for note in judged.notes {
            if !found.notes.contains(&note) {
                found.notes.push(note);
            }
        }
        for (n, (probe, outcome)) in class.probes.iter().zip(judged.outcomes).enumerate() {
            let alike = if n == 0 { class.count } else { 1 };
            match outcome {
                Outcome::Arrives => {}
                Outcome::Depends(what) => _ = open.entry(what).or_insert_with(|| probe.to_string()),
                Outcome::Lost(reason) => lost.entry(reason).or_insert_with(|| (probe.to_string(), 0)).1 += alike,
            }
        }
    }
    let undecided = |(what, seen): (String, String)| Problem {
        seen: format!("{seen}: whether it arrives depends on what kport cannot decide: {what}"),
        remedy: String::new(),
    };
    found.warnings.extend(open.into_iter().map(undecided));
    // a family that is not forwarded is a finding of its own
    lost.remove("the host does not forward");
    if lost.is_empty() {
        return Ok(found);
    }
    let remedy = main.remedy(&classes)?;
    found.problems.extend(lost.into_iter().map(|(reason, (first, count))| Problem {
        seen: format!("{first}{}: {reason}", and_more(count - 1)),
        remedy: remedy.clone(),
    }));
    Ok(found)
}

/// The statements of the main ruleset that refuse sources which reach published ports, without a remedy: one finding for each
/// class of ports. Ports that are published for some sources only are not judged: the administrator has named who gets in.
pub fn bypassed<'p>(main: &MainRuleset<'_>, publications: impl Publications<'p>) -> Result<Vec<Problem>> {
    if !main.facts()?.can_be_judged() {
        return Ok(vec![]);
    }
    let classes = main.classes(publications)?;
    let mut seen: BTreeMap<(String, usize), &Probe> = BTreeMap::new();
    for class in &classes {
        if let Some(found) = main.bypassed(class)? {
            seen.entry(found).or_insert(&class.probes[0]);
        }
    }
    let problem = |((statement, count), probe): ((String, usize), &Probe)| Problem {
        seen: format!(
            "{statement}{} refuses sources, but not at {} on {}, which {} publishes",
            and_more(count),
            probe.to.port(),
            probe.redirect.place,
            probe.publication.jail.mention()
        ),
        remedy: String::new(),
    };
    Ok(seen.into_iter().map(problem).collect())
}

/// Another place of kport's calls with which what is published arrives, and nobody is let in whom a rule refuses because of the
/// source. Empty if there is none.
pub fn remedy<'p>(main: &MainRuleset<'_>, publications: impl Publications<'p>) -> Result<String> {
    let classes = main.classes(publications)?;
    main.remedy(&classes)
}

/// A call with a condition is a problem if published ports do not arrive; otherwise it may be intended.
pub fn calls<'p>(main: &MainRuleset<'_>, publications: impl Publications<'p>) -> Result<Findings> {
    let mut found = Findings::default();
    let conditional = &main.facts()?.conditional;
    if !conditional.is_empty() {
        let Findings { problems, warnings, .. } = main_ruleset(main, publications)?;
        let arrives = problems.is_empty() && warnings.is_empty();
        let list = if arrives { &mut found.warnings } else { &mut found.problems };
        list.extend_from_slice(conditional);
    }
    Ok(found)
}
