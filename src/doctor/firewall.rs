//! Whether pf is enabled, can be changed, calls kport's anchors at the right place, passes the packets, and has no redirect of
//! another tool.

use std::path::Path;
use std::time::Duration;

use super::evidence::Evidence;
use super::hooks::rewriters;
use super::{Checked, Finding, Level, all, fine, found, problem, warning};
use crate::child;
use crate::conflict;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Problem, Result};
use crate::host::Interfaces;
use crate::managers;
use crate::name::PARENT;
use crate::pf;
use crate::publication::Publication;
use crate::readiness::{self, MainRuleset, RELOAD};
use crate::rule::Rule;
use crate::rules;

pub(super) fn pf(evidence: &Evidence<'_>) -> Checked {
    let Err(error) = &evidence.status else {
        return found([fine(match evidence.firewall.redirects_packets() {
            false => "the simulator stands in for pf: no packet is redirected".to_owned(),
            true => format!("pf answers (backend {})", evidence.firewall.name()),
        })]);
    };
    let remedy = match error.kind() {
        _ if evidence.host.sysctl("security.jail.jailed")?.is_some_and(|jailed| jailed != 0) => {
            "inside a jail pf needs vnet, and in the devfs ruleset of the jail: add path pf unhide"
        }
        Kind::Permission => "run as root; for another user: chmod or a devfs.rules(5) line for /dev/pf",
        Kind::Unavailable => "load pf: kldload pf (and at boot: sysrc pf_enable=YES)",
        Kind::Argument => "--pfctl /sbin/pfctl",
        Kind::Busy => "try again",
        _ => "see dmesg(8), and the output of pfctl -s Running",
    };
    found([problem(error.message(), remedy)])
}

pub(super) fn securelevel(evidence: &Evidence<'_>) -> Checked {
    // the backend native still can, if only pfctl(8) cannot
    let native = readiness::securelevel(evidence.host, false)?;
    let Some(problem) = native.or(readiness::securelevel(evidence.host, evidence.firewall.runs_pfctl())?) else {
        let of_pfctl = readiness::securelevel(evidence.host, true)?
            .map(|Problem { seen, remedy }| warning(format!("{seen}; the backend native can"), remedy));
        return found(of_pfctl);
    };
    found(Some(problem))
}

/// The time for pfctl(8) to read a file.
const CHECK_TIME: Duration = Duration::from_secs(10);

pub(super) fn enabled(evidence: &Evidence<'_>) -> Checked {
    let Ok(status) = &evidence.status else { return Ok(None) };
    found(readiness::disabled(status))
}

pub(super) fn anchors_called(evidence: &Evidence<'_>) -> Checked {
    let Ok(status) = &evidence.status else { return Ok(None) };
    let file = evidence.files.map(|files| managers::main_ruleset(files.root));
    let file = file.as_deref();
    // the README needs all three, so that an option given later works
    let Some(problem) = readiness::uncalled(status, true, file) else {
        let by_wildcard = evidence.main().filter(|main| main.calls_by_wildcard());
        return found(file.and_then(unsaved).into_iter().chain(by_wildcard.map(|_| by_wildcard_costs(file))));
    };
    let nat =
        evidence.records.iter().flat_map(|r| rules::of_all(&r.publications)).any(|r| matches!(r, Rule::Nat { .. }));
    let only_nat = readiness::uncalled(status, false, None).is_none() && !nat;
    let finding = Finding::from(problem);
    let mut all = vec![if only_nat { Finding { level: Level::Warning, ..finding } } else { finding }];
    if let (Some(files), Some(file)) = (evidence.files, file) {
        all.extend(rejected(files.pfctl, file));
    }
    // the manager that has loaded it without kport's lines, and will do so again
    all.extend(evidence.files.into_iter().flat_map(|files| rewriters(files.root)));
    Ok(Some(all))
}

/// The main ruleset calls the anchor of each jail.
fn by_wildcard_costs(file: Option<&Path>) -> Finding {
    let seen = format!(
        "pf's main ruleset calls \"{PARENT}/*\": each new connection is compared with the rules of every jail, not only with those of \
         the jail that it is for"
    );
    let remedy = match file.filter(|file| readiness::can_be_turned(file)) {
        Some(_) => format!("kport setup --write, {RELOAD}"),
        None => format!("write \"{PARENT}\" instead, {RELOAD}"),
    };
    warning(seen, remedy)
}

/// kport's lines are loaded, but the file does not have them.
fn unsaved(file: &Path) -> Option<Finding> {
    let missing = readiness::missing_in(file).filter(|missing| !missing.is_empty())?;
    let seen = format!("{} does not have {}, which pf has loaded", file.display(), missing.join(" and "));
    Some(warning(seen, "the next reload removes them from pf: kport setup --write"))
}

/// pfctl(8) does not load the file.
fn rejected(pfctl: &Path, file: &Path) -> Option<Finding> {
    let said = child::output_of(pfctl, &["-n", "-f"], Some(file), Deadline::after(CHECK_TIME));
    let why = said.ok()??.err().filter(|_| file.exists())?;
    Some(problem(format!("pfctl(8) rejects {}: {why}", file.display()), format!("correct the line, {RELOAD}")))
}

pub(super) fn anchors_order(evidence: &Evidence<'_>) -> Checked {
    let Ok(status) = &evidence.status else { return Ok(None) };
    if let Err(error) = &evidence.rulesets {
        return found([warning(format!("not checked: {error}"), "")]);
    }
    // a call that is missing has no place
    if evidence.main().is_none() || readiness::uncalled(status, false, None).is_some() {
        return Ok(None);
    }
    let main = evidence.judged()?;
    let mut found = all(readiness::calls(main, evidence.publications())?);
    match readiness::bypassed(main, evidence.publications()) {
        Ok(problems) if problems.is_empty() => {}
        Ok(problems) => {
            let remedy = readiness::remedy(main, evidence.publications())?;
            found.extend(problems.into_iter().map(|found| problem(found.seen, remedy.clone())));
        }
        Err(error) => found.push(warning(format!("not checked: {error}"), "")),
    }
    Ok(Some(found))
}

pub(super) fn skip(evidence: &Evidence<'_>) -> Checked {
    if evidence.main().is_none() {
        return Ok(None);
    }
    found(readiness::skip(evidence.judged()?, evidence.publications())?)
}

pub(super) fn neighbour_discovery(evidence: &Evidence<'_>) -> Checked {
    if evidence.main().is_none_or(|main| !main.unread().is_empty()) {
        return Ok(None);
    }
    found(readiness::neighbour_discovery(evidence.judged()?, evidence.publications())?)
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
        findings.push(fine(format!("the main ruleset passes what is published; {note}")));
    }
    Ok(Some(findings))
}

pub(super) fn other_redirects(evidence: &Evidence<'_>) -> Checked {
    if evidence.status.is_err() {
        return Ok(None);
    }
    let foreign = pf::redirects_of(evidence.rulesets.as_ref().map_err(Error::clone)?);
    let places = Interfaces(evidence.interfaces()?);
    let mut all = vec![];
    for redirect in evidence.publications().flat_map(Publication::claims) {
        for foreign in &foreign {
            all.extend(conflict::with_foreign(&redirect, foreign, places).map(Finding::from));
        }
    }
    Ok(Some(all))
}

pub(super) fn limits(evidence: &Evidence<'_>) -> Checked {
    Ok(Some(all(readiness::limits(evidence.host, |_| true)?)))
}
