//! Whether the main ruleset passes the packets.

use super::evidence::Evidence;
use super::{Checked, Finding, Level, all, problem};
use crate::error::Result;
use crate::readiness::{self, MainRuleset};

pub(super) fn skip(evidence: &Evidence<'_>) -> Checked {
    if evidence.main().is_none() {
        return Ok(None);
    }
    let problems = readiness::skip(evidence.judged()?, evidence.publications())?;
    Ok(Some(problems.into_iter().map(Finding::from).collect()))
}

pub(super) fn neighbour_discovery(evidence: &Evidence<'_>) -> Checked {
    if !evidence.main_is_readable() {
        return Ok(None);
    }
    let problems = readiness::neighbour_discovery(evidence.judged()?, evidence.publications())?;
    Ok(Some(problems.into_iter().map(Finding::from).collect()))
}

/// `None` if packets would not get to kport's rules: another finding is the reason then.
fn evaluated<'e, 'a>(evidence: &'e Evidence<'a>) -> Result<Option<&'e MainRuleset<'a>>> {
    let (Ok(status), Ok(_)) = (&evidence.status, &evidence.rulesets) else { return Ok(None) };
    let past = skip(evidence)?.is_some_and(|found| !found.is_empty());
    if !status.enabled || !status.rdr_anchor || !status.anchor || past {
        return Ok(None);
    }
    let main = evidence.judged()?;
    // a call with a condition is the reason then
    let called = readiness::calls(main, evidence.publications())?.problems.is_empty();
    Ok(called.then_some(main))
}

pub(super) fn answers(evidence: &Evidence<'_>) -> Checked {
    let Some(main) = evaluated(evidence)? else { return Ok(None) };
    let mut found = all(readiness::on_the_lan(main, evidence.publications())?);
    found.extend(readiness::unanswered(main, evidence.publications())?.into_iter().map(Finding::from));
    Ok(Some(found))
}

pub(super) fn main_ruleset(evidence: &Evidence<'_>) -> Checked {
    let Some(main) = evaluated(evidence)? else { return Ok(None) };
    let found = readiness::main_ruleset(main, evidence.publications())?;
    let note = found.notes.join("; ");
    let mut findings = all(found);
    if findings.is_empty() && !note.is_empty() {
        let seen = format!("the main ruleset passes what is published; {note}");
        findings.push(Finding { level: Level::Ok, ..problem(seen, "") });
    }
    Ok(Some(findings))
}
