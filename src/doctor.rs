//! Why a published port could be dead: findings from what the host, pf and the record say.
//!
//! [`examine`] asks and changes nothing. Each finding has a name that stays, what was seen, and the line or the command
//! that mends it. A problem makes a published port dead, or leaves one open that nobody published; a warning may be just
//! what the admin wants.

pub mod self_test;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::conflict;
use crate::error::{Error, Kind, Result, quoted};
use crate::host::{Host, HostInterface, Interfaces};
use crate::name::{Anchor, PARENT};
use crate::net::{Family, Interface, Place, is_link_local6};
use crate::options::Source;
use crate::pf::{Firewall, Status, calls_of_kport};
use crate::publication::{Publication, Redirect};
use crate::readiness::{self, Trouble};
use crate::rule::{Direction, Rule};
use crate::rules;
use crate::sim::packet::{Party, Release, Ruleset, Step, World};
use crate::store::{Record, Store};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It may be meant so, or could not be looked at.
    Warning,
    /// A published port is dead, or open without being published.
    Problem,
}

impl Level {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which: one of [`IDS`].
    pub id: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was seen, and what it means.
    pub seen: String,
    /// The line or the command that mends it; empty where nothing is to be done.
    pub mend: String,
}

impl fmt::Display for Finding {
    /// Two lines, or one without a remedy; no newline at the end. Control characters are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |text: &str| Error::new(Kind::Internal, text).message().to_owned();
        write!(f, "{:<7}  {:<19}  {}", self.level.name(), self.id, line(&self.seen))?;
        if self.mend.is_empty() { Ok(()) } else { write!(f, "\n{:30}-> {}", "", line(&self.mend)) }
    }
}

/// What a check found: nothing wrong is an empty list, and `None` means that another finding is the reason not to look.
type Found = Result<Option<Vec<Finding>>>;

/// A check: its name, what is said where it finds nothing, and the check.
type Check = (&'static str, &'static str, fn(&Facts<'_>) -> Found);

const CHECKS: [Check; 18] = [
    ("state", "the records can be read", state),
    ("pf", "pf answers", pf),
    ("securelevel", "pf's rules may be changed", securelevel),
    ("enabled", "pf is enabled", enabled),
    ("anchors-called", "pf's main ruleset calls kport's anchors", anchors_called),
    ("anchors-order", "kport's anchors are called for every packet, and before rules that are final", anchors_order),
    ("forwarding", "the host forwards what is published", forwarding),
    ("interfaces", "the interfaces and addresses that are published on are there", interfaces),
    ("skip", "no interface that is needed has set skip", skip),
    ("neighbour-discovery", "IPv6 neighbour discovery is not blocked", neighbour_discovery),
    ("main-ruleset", "the main ruleset lets through what is published", main_ruleset),
    ("anchors-loaded", "pf has what is recorded, and nothing else", anchors_loaded),
    ("jails", "the jails run, with the addresses that are published", jails),
    ("host-access", "the host itself gets where it should", host_access),
    ("bridge-members", "pf does not look at bridge members", bridge_members),
    ("reach", "nobody outside reaches a jail's own address", reach),
    ("other-redirects", "no other redirect takes a published port", other_redirects),
    ("anchors-limit", "pf has room for more anchors", anchors_limit),
];

/// The names of all checks, in the order of the findings.
pub const IDS: [&str; CHECKS.len()] = {
    let mut ids = [""; CHECKS.len()];
    let mut at = 0;
    while at < ids.len() {
        ids[at] = CHECKS[at].0;
        at += 1;
    }
    ids
};

/// Looks at everything; at least one finding for each check that could be made. `store` is an error where the state
/// directory cannot be used: that is a finding too.
pub fn examine(host: &dyn Host, firewall: &dyn Firewall, store: Result<Store>) -> Vec<Finding> {
    let facts = Facts::ask(host, firewall, store);
    let mut findings = vec![];
    for (id, fine, check) in CHECKS {
        let plain = |level, seen: String| Finding { id, level, seen, mend: String::new() };
        match check(&facts) {
            Ok(None) => {}
            Ok(Some(found)) if found.is_empty() => findings.push(plain(Level::Ok, fine.to_owned())),
            Ok(Some(found)) => findings.extend(found.into_iter().map(|finding| Finding { id, ..finding })),
            // a system that has no such thing cannot have it wrong
            Err(error) if error.kind() == Kind::Unsupported => {
                findings.push(plain(Level::Ok, format!("not looked at: {error}")));
            }
            Err(error) => findings.push(plain(Level::Problem, error.message().to_owned())),
        }
    }
    findings
}

/// What is asked once.
struct Facts<'a> {
    host: &'a dyn Host,
    firewall: &'a dyn Firewall,
    store: Result<Store>,
    interfaces: Result<Vec<HostInterface>>,
    status: Result<Status>,
    /// By path; the main ruleset's is empty.
    rulesets: Result<Vec<(String, String)>>,
    /// What is published; records of an earlier boot and those that cannot be read are left out.
    records: Vec<Record>,
}

fn problem(seen: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { id: "", level: Level::Problem, seen: seen.into(), mend: mend.into() }
}

fn warning(seen: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { level: Level::Warning, ..problem(seen, mend) }
}

fn found(trouble: Option<Trouble>) -> Found {
    Ok(Some(trouble.into_iter().map(|trouble| problem(trouble.seen, trouble.mend)).collect()))
}

const RELOAD: &str = "then: service pf reload";

impl<'a> Facts<'a> {
    fn ask(host: &'a dyn Host, firewall: &'a dyn Firewall, store: Result<Store>) -> Facts<'a> {
        let (boot, mut records) = (host.boot_id(), vec![]);
        if let (Ok(boot), Ok(store)) = (&boot, &store) {
            let anchors = store.anchors().unwrap_or_default();
            records = anchors.iter().filter_map(|anchor| store.get(anchor).ok()?).collect();
            records.retain(|record: &Record| record.boot == *boot);
        }
        let interfaces = host.interfaces();
        Facts { host, firewall, store, interfaces, status: firewall.status(), rulesets: firewall.rulesets(), records }
    }

    fn publications(&self) -> impl Iterator<Item = &Publication> {
        self.records.iter().flat_map(|record| &record.publications)
    }

    fn redirects(&self) -> impl Iterator<Item = (&Publication, &Redirect)> {
        self.publications().flat_map(|publication| publication.redirects.iter().map(move |r| (publication, r)))
    }

    fn interfaces(&self) -> Result<&[HostInterface]> {
        self.interfaces.as_deref().map_err(Error::clone)
    }

    /// The interfaces by which packets for a place come in; for every place, that of the default route.
    fn outer(&self, place: Place, family: Family) -> Result<Vec<&HostInterface>> {
        let all = self.interfaces()?;
        let named = |name| Interfaces(all).members(name).map(|found| found.name).collect::<Vec<_>>();
        let names = match place {
            Place::Interface(name) => named(name),
            Place::Any => self.host.gateway(family)?.into_iter().flat_map(named).collect(),
            Place::Address(address) => holders(all, address).map(|found| found.name).collect(),
        };
        Ok(all.iter().filter(|interface| names.contains(&interface.name)).collect())
    }

    /// The interface that leads to a target; `None` for the host's own address, and where none is known.
    fn inner(&self, target: IpAddr) -> Result<Option<Interface>> {
        let all = self.interfaces()?;
        Ok(Interfaces(all).leads_to(target).unwrap_or(None))
    }

    fn main(&self) -> Option<&str> {
        let (_, text) = self.rulesets.as_ref().ok()?.iter().find(|(path, _)| path.is_empty())?;
        Some(text)
    }

    fn sysctl_is_on(&self, name: &str) -> Result<bool> {
        Ok(self.host.sysctl(name)?.is_some_and(|value| value != 0))
    }
}

fn holders(all: &[HostInterface], address: IpAddr) -> impl Iterator<Item = &HostInterface> {
    all.iter().filter(move |interface| interface.addresses.iter().any(|own| own.addr() == address))
}

/// The address by which outsiders know an interface.
fn address(interface: &HostInterface, family: Family) -> Option<IpAddr> {
    let usable = |address: &IpAddr| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(v6) => !is_link_local6(*v6),
    };
    interface.addresses.iter().map(|own| own.addr()).find(|a| Family::of(*a) == family && usable(a))
}

fn jail(publication: &Publication) -> String {
    format!("jail {}", quoted(publication.jail.as_str()))
}

fn state(facts: &Facts<'_>) -> Found {
    let store = match &facts.store {
        Ok(store) => store,
        Err(error) => {
            let mend = "run as root, or name another directory: --state-dir DIR";
            return Ok(Some(vec![problem(error.message(), mend)]));
        }
    };
    let mut all = vec![];
    for anchor in store.anchors()? {
        if let Err(error) = store.get(&anchor) {
            all.push(problem(error.message(), "publish or unpublish its jail again: the file is set aside then"));
        }
    }
    for path in store.foreign_files()? {
        all.push(warning(
            format!("{} is not one of kport's files", path.display()),
            format!("see what it is, and remove it: rm {}", quoted(&path.to_string_lossy())),
        ));
    }
    for path in store.aside()? {
        all.push(warning(
            format!("{} was a record that could not be read", path.display()),
            format!("see what it is, and remove it: rm {}", quoted(&path.to_string_lossy())),
        ));
    }
    Ok(Some(all))
}

fn pf(facts: &Facts<'_>) -> Found {
    let Err(error) = &facts.status else {
        let seen = match facts.firewall.redirects_packets() {
            false => "the simulator plays pf: no packet is redirected".to_owned(),
            true => format!("pf answers, by backend {}", facts.firewall.name()),
        };
        return Ok(Some(vec![Finding { level: Level::Ok, ..problem(seen, "") }]));
    };
    let mend = match error.kind() {
        _ if facts.sysctl_is_on("security.jail.jailed")? => {
            "inside a jail pf needs vnet, and in the devfs ruleset of the jail: add path pf unhide"
        }
        Kind::Permission => "run as root; for another user: chmod or a devfs.rules(5) line for /dev/pf",
        Kind::Unavailable => "load pf: kldload pf (and at boot: sysrc pf_enable=YES)",
        Kind::Argument => "--pfctl /sbin/pfctl",
        Kind::Busy => "try again",
        _ => "see dmesg(8), and what pfctl -s Running says",
    };
    Ok(Some(vec![problem(error.message(), mend)]))
}

fn securelevel(facts: &Facts<'_>) -> Found {
    let level = facts.host.sysctl("kern.securelevel")?.unwrap_or(-1);
    let trouble = (level >= 3).then(|| Trouble {
        seen: format!("kern.securelevel is {level}: nobody can change pf's rules until the next boot"),
        mend: "allow it from the next boot on: sysrc kern_securelevel=2, then reboot".to_owned(),
    });
    found(trouble)
}

fn enabled(facts: &Facts<'_>) -> Found {
    let Ok(status) = &facts.status else { return Ok(None) };
    found(readiness::disabled(status))
}

fn anchors_called(facts: &Facts<'_>) -> Found {
    let Ok(status) = &facts.status else { return Ok(None) };
    // the README asks for all three, so that an option given later works
    let Some(trouble) = readiness::uncalled(status, true) else { return Ok(Some(vec![])) };
    let nat = facts.records.iter().flat_map(|r| rules::of_all(&r.publications)).any(|r| matches!(r, Rule::Nat { .. }));
    let only_nat = readiness::uncalled(status, false).is_none() && !nat;
    let finding = problem(trouble.seen, trouble.mend);
    Ok(Some(vec![if only_nat { Finding { level: Level::Warning, ..finding } } else { finding }]))
}

fn anchors_order(facts: &Facts<'_>) -> Found {
    if facts.status.is_err() {
        return Ok(None);
    }
    if let Err(error) = &facts.rulesets {
        return Ok(Some(vec![warning(format!("not looked at: {error}"), "")]));
    }
    let Some(main) = facts.main() else { return Ok(None) };
    let mut all = vec![];
    for keyword in ["nat-anchor", "rdr-anchor", "anchor"] {
        let calls = calls_of_kport(main, keyword);
        if let Some((_, conditions)) = calls.first()
            && calls.iter().all(|(_, conditions)| !conditions.is_empty())
        {
            all.push(problem(
                format!(
                    "{keyword} \"kport/*\" is called with a condition ({conditions}), so it is passed over for other packets"
                ),
                format!("write in /etc/pf.conf: {keyword} \"kport/*\", {RELOAD}"),
            ));
        }
    }
    let called = calls_of_kport(main, "anchor").first().map_or(0, |(at, _)| *at);
    for line in main.lines().take(called).map(str::trim) {
        let mut words = line.split_whitespace();
        if words.next() == Some("block") && words.any(|word| word == "quick") {
            all.push(warning(
                format!("{} stands before anchor \"kport/*\", and is final for published ports as well", quoted(line)),
                format!("if that is not meant, move the line behind the anchor line in /etc/pf.conf, {RELOAD}"),
            ));
        }
    }
    Ok(Some(all))
}

fn forwarding(facts: &Facts<'_>) -> Found {
    let mut all = vec![];
    for family in Family::ALL {
        let redirects = facts.redirects().map(|(_, redirect)| redirect);
        let trouble = readiness::unforwarded(facts.host, family, redirects, || facts.interfaces())?;
        all.extend(trouble.map(|trouble| problem(trouble.seen, trouble.mend)));
    }
    Ok(Some(all))
}

fn interfaces(facts: &Facts<'_>) -> Found {
    let all = facts.interfaces()?;
    let mut findings: BTreeMap<(Place, Family), Finding> = BTreeMap::new();
    for (publication, redirect) in facts.redirects() {
        let (place, family) = (redirect.place, redirect.family());
        let outer = facts.outer(place, family)?;
        let has = |family| outer.iter().any(|interface| address(interface, family).is_some());
        let jail = jail(publication);
        let finding = match place {
            Place::Any => continue,
            Place::Address(address) if outer.is_empty() && !address.is_loopback() => problem(
                format!("the host does not have the address {address}, on which {jail} is published"),
                "give it to an interface, or publish on another; the host's: ifconfig".to_owned(),
            ),
            Place::Address(_) => continue,
            Place::Interface(name) if outer.is_empty() => problem(
                format!("there is no interface or group {name}, on which {jail} is published; its rules wait for it"),
                format!(
                    "make it, or publish on one of: {}",
                    all.iter().map(|i| i.name.to_string()).collect::<Vec<_>>().join(" ")
                ),
            ),
            Place::Interface(name) if outer.iter().all(|interface| !interface.up) => problem(
                format!("{name}, on which {jail} is published, is down"),
                format!("ifconfig {} up", outer[0].name),
            ),
            Place::Interface(name) if !has(family) => {
                let text = format!("{name}, on which {jail} is published, has no {family} address");
                let mend = format!("ifconfig {} {family} ADDRESS/PREFIX alias", outer[0].name);
                let other = |r: &Redirect| r.place == place && r.family() == family.other();
                // a jail with both families on a host with one is as reachable as it can be
                if has(family.other()) && publication.redirects.iter().any(other) {
                    warning(text, mend)
                } else {
                    problem(text, mend)
                }
            }
            Place::Interface(_) => continue,
        };
        findings.entry((place, family)).or_insert(finding);
    }
    let mut findings: Vec<Finding> = findings.into_values().collect();
    // both families of a missing interface are one finding
    findings.dedup();
    Ok(Some(findings))
}

fn skip(facts: &Facts<'_>) -> Found {
    let Some(main) = facts.main() else { return Ok(None) };
    // whatever else is there to be read
    let settings: Vec<&str> = main.lines().filter(|line| line.trim_start().starts_with("set skip")).collect();
    let settings: Ruleset = settings.join("\n").parse()?;
    let skipped =
        |i: &HostInterface| settings.skipped().iter().find(|name| i.name == **name || i.groups.contains(name)).copied();
    let mut needed: BTreeMap<Interface, (Interface, String)> = BTreeMap::new();
    let mut need = |interface: &HostInterface, why: String| {
        if let Some(name) = skipped(interface) {
            needed.entry(interface.name).or_insert((name, why));
        }
    };
    for (publication, redirect) in facts.redirects() {
        for interface in facts.outer(redirect.place, redirect.family())? {
            need(interface, format!("where {} is published", jail(publication)));
        }
        let options = &publication.options;
        if let Some(inner) = facts.inner(redirect.target)?.filter(|_| options.hairpin || options.host_access) {
            for interface in Interfaces(facts.interfaces()?).members(inner) {
                need(interface, format!("which hairpin and host access to {} need", jail(publication)));
            }
        }
        if options.host_access {
            for interface in facts.interfaces()?.iter().filter(|i| i.name.as_str() == "lo0") {
                need(interface, format!("which host access to {} needs", jail(publication)));
            }
        }
    }
    let finding = |(interface, (name, why)): (Interface, (Interface, String))| {
        let mut mend = format!("take {name} out of the set skip line in /etc/pf.conf, {RELOAD}");
        if interface.as_str() == "lo0" {
            mend.push_str("; let lo0 pass there by: pass quick on lo0 no state");
        }
        problem(format!("set skip on {name}: pf does not look at {interface}, {why}"), mend)
    };
    Ok(Some(needed.into_iter().map(finding).collect()))
}

fn neighbour_discovery(facts: &Facts<'_>) -> Found {
    // what cannot be read is told once, by the check of the main ruleset
    let Some(Ok(main)) = facts.main().map(str::parse::<Ruleset>) else { return Ok(None) };
    let all = facts.interfaces()?;
    // by rule: the targets do not matter for the remedy, so the first one stands for all
    let mut blocked: BTreeMap<&str, (IpAddr, BTreeSet<Interface>)> = BTreeMap::new();
    for (_, redirect) in
        facts.redirects().filter(|(_, r)| r.family() == Family::Inet6 && !Interfaces(all).is_own(r.target))
    {
        let outer = facts.outer(redirect.place, Family::Inet6)?.into_iter().map(|interface| interface.name);
        for on in outer.chain(facts.inner(redirect.target)?).filter(|on| !Place::Interface(*on).is_loopback()) {
            for direction in [Direction::In, Direction::Out] {
                if let Some(rule) = main.blocks_neighbours(all, on, direction) {
                    blocked.entry(rule).or_insert((redirect.target, BTreeSet::new())).1.insert(on);
                }
            }
        }
    }
    let finding = |(rule, (target, on)): (&str, (IpAddr, BTreeSet<Interface>))| {
        let on: Vec<String> = on.iter().map(Interface::to_string).collect();
        problem(
            format!(
                "{} blocks IPv6 neighbour discovery on {}, so nothing arrives at {target}",
                quoted(rule),
                on.join(" and ")
            ),
            format!("add to /etc/pf.conf, before anchor \"kport/*\": pass quick inet6 proto ipv6-icmp, {RELOAD}"),
        )
    };
    Ok(Some(blocked.into_iter().map(finding).collect()))
}

/// Sends the first packet of each publication through the simulator, with the real main ruleset and kport's rules.
fn main_ruleset(facts: &Facts<'_>) -> Found {
    let (Ok(status), Ok(rulesets)) = (&facts.status, &facts.rulesets) else { return Ok(None) };
    let past = skip(facts)?.is_some_and(|found| !found.is_empty());
    if !status.enabled || !status.rdr_anchor || !status.anchor || past {
        return Ok(None);
    }
    let release = Release::of(facts.host.sysctl("kern.osreldate")?.unwrap_or(i64::MAX));
    let mut world = World::new(release, facts.interfaces()?.to_vec());
    for family in Family::ALL {
        world.gateway[usize::from(family == Family::Inet6)] = facts.host.gateway(family)?;
    }
    world.filter_local = facts.sysctl_is_on("net.pf.filter_local")?;
    let own = |path: &str| path.strip_prefix(PARENT).is_some_and(|rest| rest.starts_with('/'));
    for (path, text) in rulesets.iter().filter(|(path, _)| !own(path)) {
        let read = if path.is_empty() { world.load_main(text) } else { world.load_text(path, text) };
        if let Err(error) = read {
            let place = if path.is_empty() { "the main ruleset".to_owned() } else { format!("anchor {path}") };
            return Ok(Some(vec![warning(format!("not looked at: {place}: {error}"), "")]));
        }
    }
    // what should be there, so that what is missing is no reason here
    for record in &facts.records {
        world.load(record.jail.anchor().path(), &rules::of_all(&record.publications));
    }
    let mut lost: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (publication, redirect) in facts.redirects() {
        for (sender, from, to) in probes(facts, publication, redirect, world.filter_local)? {
            // no states of the probe before
            let trace = world.clone().trace(&sender, redirect.protocol, from, to);
            let reason = match trace.delivered_to {
                Some((_, at)) if at.ip() == redirect.target => continue,
                Some((party, at)) => format!("it goes to {party} at {at} instead"),
                None => reason(&trace.steps),
            };
            lost.entry(reason).or_default().push(format!("{} from {sender} to {redirect}", jail(publication)));
        }
    }
    let finding = |(reason, lost): (String, Vec<String>)| {
        let more = if lost.len() > 1 { format!(" (and {} more)", lost.len() - 1) } else { String::new() };
        problem(
            format!("{}{more}: {reason}", lost[0]),
            format!("let it pass in /etc/pf.conf, or move that line behind anchor \"kport/*\", {RELOAD}"),
        )
    };
    // a family that is not forwarded is a finding of its own
    lost.remove("the host does not forward");
    Ok(Some(lost.into_iter().map(finding).collect()))
}

/// The packets to try a redirect with: from outside, and from the host where it has access.
fn probes(
    facts: &Facts<'_>,
    publication: &Publication,
    redirect: &Redirect,
    filter_local: bool,
) -> Result<Vec<(Party, SocketAddr, SocketAddr)>> {
    let family = redirect.family();
    // documentation addresses: RFC 5737, RFC 3849
    let usual: [IpAddr; 2] = [[203, 0, 113, 77].into(), [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x77].into()];
    let source = match publication.options.sources.as_slice() {
        [] => Some(usual[usize::from(family == Family::Inet6)]),
        sources => sources.iter().find_map(|source| match source {
            Source::Network(network) if Family::of(network.addr()) == family => network.hosts().next(),
            // whoever is in a table is not known here
            Source::Network(_) | Source::Table(_) => None,
        }),
    };
    let mut probes = vec![];
    let outer = facts.outer(redirect.place, family)?;
    let Some((on, own)) = outer.iter().find_map(|interface| Some((interface.name, address(interface, family)?))) else {
        return Ok(probes);
    };
    let to = match redirect.place {
        Place::Address(address) => address,
        Place::Interface(_) | Place::Any => own,
    };
    let to = SocketAddr::new(to, redirect.host.first());
    if let Some(source) = source.filter(|_| !redirect.place.is_loopback()) {
        probes.push((Party::Beyond(on), SocketAddr::new(source, 40_000), to));
    }
    if publication.options.host_access && filter_local {
        probes.push((Party::Host, SocketAddr::new(to.ip(), 40_001), to));
    }
    Ok(probes)
}

/// Why a packet did not arrive.
fn reason(steps: &[Step]) -> String {
    let deciding = steps.iter().rev().find_map(|step| match step {
        Step::Rule { anchor, text } => Some((anchor, text)),
        _ => None,
    });
    match (steps.last(), deciding) {
        (Some(Step::Verdict(verdict)), Some((anchor, text))) => {
            let place = if anchor.is_empty() { "the main ruleset".to_owned() } else { format!("anchor {anchor}") };
            format!("{verdict} by {} of {place}", quoted(text))
        }
        (Some(Step::Note(note)), _) => note.clone(),
        _ => "it does not arrive".to_owned(),
    }
}

fn anchors_loaded(facts: &Facts<'_>) -> Found {
    let (Ok(_), Ok(store)) = (&facts.status, &facts.store) else { return Ok(None) };
    let mut all = vec![];
    let mut known = BTreeSet::new();
    for record in &facts.records {
        let (anchor, jail) = (record.jail.anchor(), quoted(record.jail.as_str()));
        if !record.replaces.is_empty() {
            all.push(problem(format!("a change of what jail {jail} publishes was interrupted"), "kport restore"));
        } else if !facts.firewall.holds(&anchor, &rules::of_all(&record.publications))? {
            all.push(problem(
                format!("pf does not have, in {anchor}, what jail {jail} has published"),
                "kport restore",
            ));
        }
        known.insert(anchor.child().to_owned());
    }
    for child in facts.firewall.anchors()?.into_iter().filter(|child| !known.contains(child)) {
        let path = format!("{PARENT}/{child}");
        all.push(match Anchor::from_child(&child) {
            // its record is there, and cannot be read: a finding of its own
            Some(anchor) if store.get(&anchor).is_err() => continue,
            Some(_) => problem(format!("anchor {path} has rules that no record knows"), "kport gc"),
            None => warning(
                format!("anchor {} is not one of kport's", quoted(&path)),
                format!("if nobody needs it: pfctl -a {} -F rules -F nat", quoted(&path)),
            ),
        });
    }
    Ok(Some(all))
}

fn jails(facts: &Facts<'_>) -> Found {
    let mut all = vec![];
    if facts.records.is_empty() {
        return Ok(Some(all));
    }
    let running = facts.host.jails()?;
    for record in &facts.records {
        let (name, shown) = (record.jail.as_str(), quoted(record.jail.as_str()));
        let known = running.iter().find(|jail| !jail.dying && jail.name == name);
        let jail = match (known, record.jid) {
            (None, _) => {
                all.push(problem(format!("jail {shown} is published, but does not run"), "kport gc"));
                continue;
            }
            (Some(jail), Some(jid)) if jid != jail.jid => {
                all.push(problem(
                    format!("jail {shown} was published as jid {jid}, and was started again since as jid {}", jail.jid),
                    "publish it again; what its last start has left: kport gc",
                ));
                continue;
            }
            (Some(jail), _) => jail,
        };
        let addresses = if jail.vnet { facts.host.vnet_addresses(jail)? } else { jail.addresses.clone() };
        let targets: BTreeSet<IpAddr> = record.redirects().map(|r| r.target).collect();
        for target in targets.into_iter().filter(|target| !addresses.is_empty() && !addresses.contains(target)) {
            all.push(problem(
                format!("jail {shown} does not have the address {target}, to which its ports lead"),
                "publish it again",
            ));
        }
    }
    Ok(Some(all))
}

fn host_access(facts: &Facts<'_>) -> Found {
    let wanted = facts.publications().find(|publication| publication.options.host_access);
    found(match wanted {
        Some(publication) => readiness::unfiltered(facts.host, &jail(publication))?,
        None => None,
    })
}

fn bridge_members(facts: &Facts<'_>) -> Found {
    let needs = |publication: &&Publication| publication.options.hairpin || publication.options.host_access;
    let trouble = match facts.publications().find(needs) {
        Some(publication) if facts.sysctl_is_on("net.link.bridge.pfil_member")? => Some(Trouble {
            seen: format!(
                "net.link.bridge.pfil_member is 1: answers are translated back too early for the hairpin and host access \
                 of {}",
                jail(publication)
            ),
            mend: "sysctl net.link.bridge.pfil_member=0 (and in /etc/sysctl.conf)".to_owned(),
        }),
        _ => None,
    };
    found(trouble)
}

fn reach(facts: &Facts<'_>) -> Found {
    let mut all = BTreeMap::new();
    for (publication, redirect) in facts.redirects().filter(|(_, r)| !r.place.is_loopback()) {
        for interface in facts.outer(redirect.place, redirect.family())? {
            let named = |name: &&Interface| interface.name == **name || interface.groups.contains(name);
            let Some(by) = publication.options.reach.iter().find(named) else { continue };
            let group = if *by == interface.name { String::new() } else { format!(" (by its group {by})") };
            all.entry((&publication.jail, interface.name)).or_insert(warning(
                format!(
                    "{}{group} is in the reach list of {}: whoever is behind it reaches {} port {} directly",
                    interface.name,
                    jail(publication),
                    redirect.target,
                    redirect.jail
                ),
                "if that is not meant, publish with a reach list of its own, such as --reach bridge0",
            ));
        }
    }
    Ok(Some(all.into_values().collect()))
}

fn other_redirects(facts: &Facts<'_>) -> Found {
    if facts.status.is_err() {
        return Ok(None);
    }
    let foreign = facts.firewall.foreign_redirects()?;
    let places = Interfaces(facts.interfaces()?);
    let mut all = vec![];
    for redirect in facts.publications().flat_map(Publication::claims) {
        for foreign in &foreign {
            if let Err(error) = conflict::with_foreign(&redirect, foreign, places) {
                let (seen, mend) = error.message().rsplit_once("; ").unwrap_or((error.message(), ""));
                all.push(problem(seen, mend));
            }
        }
    }
    Ok(Some(all))
}

fn anchors_limit(facts: &Facts<'_>) -> Found {
    if facts.status.is_err() {
        return Ok(None);
    }
    let (anchors, Some(limit)) = facts.firewall.anchors_of_all()? else { return Ok(Some(vec![])) };
    let seen = format!("pf has {anchors} anchors, and its limit is {limit}: a jail needs one");
    let mend = format!("add to /etc/pf.conf: set limit anchors {}, {RELOAD}", limit.saturating_mul(2));
    Ok(Some(match anchors {
        n if n >= limit => vec![problem(seen, mend)],
        // nine tenths
        n if n.saturating_mul(10) >= limit.saturating_mul(9) => vec![warning(seen, mend)],
        _ => vec![],
    }))
}
