//! Whether packets arrive at what is published: pf, its main ruleset and its tables, redirects of other tools, and what the host has
//! and forwards.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::hooks::rewriters;
use super::{Checked, Evidence, Finding, Level, all, fine, found, problem, warning};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::host::{HostInterface, Interfaces};
use crate::name::{JailName, PARENT};
use crate::net::{Family, Interface};
use crate::options::{Options, Source};
use crate::publication::{Publication, distinct};
use crate::readiness::{self, MainRuleset, RELOAD};
use crate::rule::Rule;
use crate::{child, conflict, managers, pf, rules};

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
    let Some(problem) = readiness::securelevel(evidence.host, true)? else { return Ok(Some(vec![])) };
    if evidence.firewall.runs_pfctl() || readiness::securelevel(evidence.host, false)?.is_some() {
        return found([problem]);
    }
    found([warning(format!("{}; the backend native can", problem.seen), problem.remedy)])
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
    if evidence.main().is_none_or(|main| !main.unread.is_empty()) {
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
    let claims: Vec<_> = evidence.publications().flat_map(Publication::claims).collect();
    let pairs = claims.iter().flat_map(|claim| foreign.iter().map(move |foreign| (claim, foreign)));
    found(pairs.filter_map(|(claim, foreign)| conflict::with_foreign(claim, foreign, places)))
}

pub(super) fn limits(evidence: &Evidence<'_>) -> Checked {
    Ok(Some(all(readiness::limits(evidence.host, |_| true)?)))
}

pub(super) fn forwarding(evidence: &Evidence<'_>) -> Checked {
    let mut all = vec![];
    for family in Family::ALL {
        let redirects = evidence.redirects().map(|(_, redirect)| redirect);
        let problem = readiness::unforwarded(evidence.host, family, redirects, || evidence.interfaces())?;
        all.extend(problem.map(Finding::from));
    }
    let is_off = |(sysctl, _): &(&str, _)| matches!(evidence.host.sysctl(sysctl), Ok(Some(0)));
    let off: Vec<&str> =
        Family::ALL.map(readiness::forwarding).into_iter().filter(is_off).map(|(name, _)| name).collect();
    if all.is_empty() && !off.is_empty() {
        all.push(fine(format!("nothing is published that needs {}, which is 0", off.join(" or "))));
    }
    Ok(Some(all))
}

pub(super) fn interfaces(evidence: &Evidence<'_>) -> Checked {
    let mut found = all(readiness::interfaces(&evidence.surroundings()?, evidence.publications())?);
    if found.is_empty() {
        let seen = readiness::everywhere(evidence.publications());
        found.extend(seen.map(|seen| fine(format!("they exist; {seen}"))));
    }
    Ok(Some(found))
}

pub(super) fn host_access(evidence: &Evidence<'_>) -> Checked {
    let jail = evidence.jail_with(|options| options.host_access);
    found(jail.map(|jail| readiness::unfiltered(evidence.host, &jail)).transpose()?.flatten())
}

pub(super) fn bridge_members(evidence: &Evidence<'_>) -> Checked {
    let jail = evidence.jail_with(Options::translate_sources);
    found(jail.map(|jail| readiness::bridge_members(evidence.host, &jail)).transpose()?.flatten())
}

/// Jails and guests whose packets --af-to cannot translate: pf does not compute what is left to the hardware of a checksum.
pub(super) fn checksums(evidence: &Evidence<'_>) -> Checked {
    let translated = |p: &&Publication| p.options.hairpin && p.redirects.iter().any(|r| r.af_to && r.host != r.jail);
    let Some(publication) = evidence.publications().find(translated) else { return Ok(Some(vec![])) };
    let epair = "epair".parse().ok();
    for interface in evidence.interfaces()?.iter().filter(|known| epair.is_some_and(|epair| known.is_in(epair))) {
        if evidence.host.leaves_checksums(interface.name)? {
            let name = interface.name;
            let seen = format!(
                "{name} leaves checksums to the hardware, so the jail behind it does not reach the IPv6 ports that {} publishes \
                 with af-to",
                publication.jail.mention()
            );
            let remedy = format!("ifconfig {name} -txcsum -txcsum6, and the same for its other end in the jail");
            return found([warning(seen, remedy)]);
        }
    }
    Ok(Some(vec![]))
}

pub(super) fn reach(evidence: &Evidence<'_>) -> Checked {
    let around = evidence.surroundings()?;
    let mut all = BTreeMap::new();
    let mut outer: BTreeMap<&JailName, Vec<&HostInterface>> = BTreeMap::new();
    let outside = || evidence.redirects().filter(|(_, redirect)| !redirect.place.is_loopback());
    for (publication, redirect) in outside() {
        outer.entry(&publication.jail).or_default().extend(around.outer(redirect.place, redirect.family())?);
    }
    for (publication, redirect) in outside() {
        for interface in around.outer(redirect.place, redirect.family())? {
            let Some(by) = publication.options.reach.iter().find(|name| interface.is_in(**name)) else { continue };
            let group = if *by == interface.name { String::new() } else { format!(" (by its group {by})") };
            all.entry((&publication.jail, interface.name)).or_insert(warning(
                format!(
                    "{}{group} is in the reach list of {}: the hosts behind it reach {} port {} directly",
                    interface.name,
                    publication.jail.mention(),
                    redirect.target,
                    redirect.jail
                ),
                format!(
                    "if that is not intended, publish with a reach list without it: {}",
                    inner_reach(&publication.options.reach, &outer[&publication.jail], &around.interfaces)
                ),
            ));
        }
    }
    Ok(Some(all.into_values().collect()))
}

/// The flags for a reach list without the interfaces that lead outside: a group that one of them is in is replaced by its
/// other members. The host itself is always behind `lo`.
fn inner_reach(reach: &[Interface], outer: &[&HostInterface], all: &[HostInterface]) -> String {
    let is_outer = |name: Interface| outer.iter().any(|interface| interface.is_in(name));
    let members = |name: Interface| Interfaces(all).members(name).map(|member| member.name);
    let each = |name: Interface| std::iter::once(name).chain(members(name).filter(move |_| is_outer(name)));
    let mut inner: Vec<Interface> = reach.iter().copied().flat_map(each).filter(|name| !is_outer(*name)).collect();
    if inner.is_empty() {
        inner.extend("lo".parse::<Interface>().ok());
    }
    distinct(inner).iter().map(|name| format!("--reach {name}")).collect::<Vec<_>>().join(" ")
}

/// The tables of `--sources` that let nobody in.
pub(super) fn sources(evidence: &Evidence<'_>) -> Checked {
    let Some(main) = evidence.main() else { return Ok(None) };
    let mut all = BTreeMap::new();
    for publication in evidence.publications() {
        for source in &publication.options.sources {
            let Source::Table(table) = source else { continue };
            let jail = publication.jail.mention();
            let finding = match (evidence.firewall.has_table(table)?, main.table_is_empty(table)) {
                (false, _) => problem(
                    format!("pf has no table <{table}>, so it lets nobody in to the ports of {jail}"),
                    format!("add to /etc/pf.conf: table <{table}> persist, {RELOAD}"),
                ),
                (true, Some(true)) => warning(
                    format!("table <{table}> is empty, so it lets nobody in to the ports of {jail}"),
                    format!("add the addresses: pfctl -t {table} -T add ADDRESS"),
                ),
                (true, _) => continue,
            };
            all.entry((&publication.jail, table)).or_insert(finding);
        }
    }
    Ok(Some(all.into_values().collect()))
}
