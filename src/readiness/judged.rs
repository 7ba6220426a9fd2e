//! The main ruleset, judged for published ports: each class of mappings once, and what was found is kept.
//!
//! Two mappings are of one class if nothing that the evaluation uses tells them apart: the place, the family, the protocol, the
//! options, the interface that leads to the jail, and the parts that the rules distinguish among ports and addresses, in which the
//! ports and the jail's address are. The jail's name counts if a rule has `tagged`.
//!
//! What was found is valid for one main ruleset with its settings, which the backend makes sure of
//! ([`Firewall::kept`](crate::pf::Firewall::kept)), on a host with the same addresses, interfaces, default routes and sysctls, and
//! for one version of kport. An interface that a jail's epair adds without an address makes no difference. The contents of tables
//! are not part of it: they have no ticket, and a publish does not read them. A rule with a table is judged by an address that is
//! in no other list, as one that is added to the table later.

use std::cell::{Cell, RefCell};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use once_cell::unsync::OnceCell;
use serde::{Deserialize, Serialize};

use super::evaluator::{self, Evaluator, Judged, Outcome, Probe};
use super::{Findings, Publications, RELOAD, Surroundings};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Problem, Result};
use crate::host::HostInterface;
use crate::name::PARENT;
use crate::net::{Direction, Family, Interface, PerFamily, Place, PortRange};
use crate::options::{Options, Source};
use crate::pf::Rulesets;
use crate::pfconf::Conf;
use crate::pfconf::rule::RuleKind;
use crate::proof::{Entrance, and_more};
use crate::publication::{Answer, Publication, Redirect};
use crate::trace::{DOCUMENTATION, Party, Release, World};

/// The source ports of packets from outside and of those from the host.
pub(super) const SOURCE_PORTS: [u16; 2] = [40_000, 40_001];
const MOST_PORTS: usize = 64;
const MOST_KEPT: usize = 128;
/// The format of [`Kept`], and the evaluator that has filled it.
const VERSION: &str = concat!("3 ", env!("CARGO_PKG_VERSION"));

/// Mappings between which nothing makes a difference, and the packets to try the first one with.
pub(super) struct Class {
    pub(super) probes: Vec<Probe>,
    pub(super) count: usize,
    key: u64,
    /// Of the first mapping alone.
    exact: u64,
}

/// What does not depend on mappings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Facts {
    pub(super) known: bool,
    /// Why the rulesets are not evaluated.
    pub(super) unfit: Findings,
    pub(super) skip: Vec<String>,
    /// Calls of kport's anchors that are made for some packets only.
    pub(super) conditional: Vec<Problem>,
    /// The first ports and addresses of the parts that rules distinguish.
    ports: Vec<u16>,
    addresses: PerFamily<Vec<IpAddr>>,
    tagged: bool,
}

impl Facts {
    pub(super) fn can_be_judged(&self) -> bool {
        self.known && self.unfit == Findings::default()
    }
}

/// What was found about a main ruleset on a host.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: String,
    /// A digest of what the evaluation uses of the host.
    host: u64,
    facts: Option<Facts>,
    judged: BTreeMap<u64, Judged>,
    bypassed: BTreeMap<u64, Option<(String, usize)>>,
    /// By the classes together.
    remedies: BTreeMap<u64, String>,
    /// The rule that blocks IPv6 neighbour discovery, by interface and direction.
    neighbours: BTreeMap<u64, Option<String>>,
}

/// The main ruleset of pf on a host.
pub struct MainRuleset<'a> {
    pub(super) around: Surroundings<'a>,
    read: Box<dyn Fn() -> Result<Rulesets> + 'a>,
    /// The pf.conf(5) from which it was loaded: statements are named as the file has them, as far as it has the same rules.
    pub file: Option<&'a Path>,
    /// Nothing is evaluated after it: it is a [`Kind::Busy`] then.
    pub deadline: Option<Deadline>,
    rulesets: OnceCell<Rulesets>,
    facts: OnceCell<Facts>,
    evaluator: OnceCell<Evaluator<'a>>,
    kept: RefCell<Kept>,
    evaluations: Cell<usize>,
}

impl<'a> MainRuleset<'a> {
    /// `read` returns pf's rulesets by path, the main one's empty; it is called if something is not in `kept`, the text that
    /// [`MainRuleset::learned`] has returned. That is nothing if it is damaged, or of another host or version.
    pub fn new(
        around: Surroundings<'a>, kept: Option<&str>, read: impl Fn() -> Result<Rulesets> + 'a,
    ) -> Result<MainRuleset<'a>> {
        let host = digest_of_host(&around)?;
        let kept = kept.and_then(|text| serde_json::from_str::<Kept>(text).ok());
        let kept = kept.filter(|kept| kept.version == VERSION && kept.host == host);
        let kept = kept.unwrap_or_else(|| Kept { version: VERSION.to_owned(), host, ..Kept::default() });
        Ok(MainRuleset {
            around,
            read: Box::new(read),
            file: None,
            deadline: None,
            rulesets: OnceCell::new(),
            facts: kept.facts.clone().map_or_else(OnceCell::new, OnceCell::with_value),
            evaluator: OnceCell::new(),
            kept: RefCell::new(kept),
            evaluations: Cell::new(0),
        })
    }

    pub fn evaluations(&self) -> usize {
        self.evaluations.get()
    }

    /// What is to be kept, if anything new was found.
    pub fn learned(&self) -> Option<String> {
        let learned = self.evaluations.get() > 0 || self.rulesets.get().is_some();
        learned.then(|| serde_json::to_string(&*self.kept.borrow()).ok())?
    }

    fn rulesets(&self) -> Result<&Rulesets> {
        self.rulesets.get_or_try_init(&self.read)
    }

    pub(super) fn facts(&self) -> Result<&Facts> {
        self.facts.get_or_try_init(|| {
            let facts = self.find_facts()?;
            self.kept.borrow_mut().facts = Some(facts.clone());
            Ok(facts)
        })
    }

    fn find_facts(&self) -> Result<Facts> {
        let Some((_, main)) = self.rulesets()?.iter().find(|(path, _)| path.is_empty()) else {
            return Ok(Facts::default());
        };
        let conditional = |kind: RuleKind| {
            let calls = main.calls_of_kport(kind);
            let conditions = calls.first()?.conditions();
            let call = format!("{} \"{PARENT}\"", kind.call());
            let seen = format!("{call} is called with a condition ({conditions}), so it is skipped for other packets");
            let problem = || Problem::new(seen, format!("write in /etc/pf.conf: {call}, {RELOAD}"));
            calls.iter().all(|call| !call.conditions().is_empty()).then(problem)
        };
        let conditional = RuleKind::OF_KPORT.into_iter().filter_map(conditional).collect();
        let unfit = evaluator::unfit(&self.around, self.rulesets()?)?;
        let mut facts = Facts { known: true, unfit, skip: main.skip.clone(), conditional, ..Facts::default() };
        if facts.can_be_judged() {
            let world = &self.evaluator()?.world;
            facts.ports = world.port_edges().into_iter().collect();
            facts.addresses = PerFamily::each(|family| world.address_edges(family));
            facts.tagged = world.rules().any(|(_, rule)| rule.when.tagged.is_some());
        }
        Ok(facts)
    }

    /// The host with the main ruleset; `None` if that cannot be evaluated.
    pub(super) fn world(&self) -> Result<Option<&World>> {
        self.facts()?.can_be_judged().then(|| self.evaluator().map(|evaluator| &evaluator.world)).transpose()
    }

    fn evaluator(&self) -> Result<&Evaluator<'a>> {
        self.evaluator.get_or_try_init(|| {
            let mut rulesets = self.rulesets()?.clone();
            if let Some(file) = self.file {
                name_by_file(&mut rulesets, &self.around.interfaces, file);
            }
            Evaluator::new(self.around.clone(), rulesets)
        })
    }

    fn ask<T>(&self, ask: impl FnOnce(&Evaluator<'a>) -> Result<T>) -> Result<T> {
        if self.deadline.is_some_and(Deadline::passed) {
            return Err(Error::new(Kind::Busy, "there is no time to judge the main ruleset"));
        }
        self.evaluations.set(self.evaluations.get() + 1);
        ask(self.evaluator()?)
    }

    pub(super) fn judged(&self, class: &Class) -> Result<Judged> {
        let known = |key: &u64| self.kept.borrow().judged.get(key).cloned();
        if let Some(known) = known(&class.exact).or_else(|| known(&class.key)) {
            return Ok(known);
        }
        let judged = self.ask(|evaluator| evaluator.judge(&class.probes))?;
        let key = if class.probes.iter().any(|probe| judged.names(probe)) { class.exact } else { class.key };
        keep(&mut self.kept.borrow_mut().judged, key, judged.clone());
        Ok(judged)
    }

    /// What is kept by this key; else what `find` returns.
    fn once<V: Clone>(
        &self, part: fn(&mut Kept) -> &mut BTreeMap<u64, V>, key: u64, find: impl FnOnce() -> Result<V>,
    ) -> Result<V> {
        if let Some(known) = part(&mut self.kept.borrow_mut()).get(&key) {
            return Ok(known.clone());
        }
        let found = find()?;
        keep(part(&mut self.kept.borrow_mut()), key, found.clone());
        Ok(found)
    }

    /// The first statement that refuses sources which reach the ports of a class, and how many more there are.
    pub(super) fn bypassed(&self, class: &Class) -> Result<Option<(String, usize)>> {
        let find = || self.ask(|evaluator| evaluator.bypassed(&class.probes));
        self.once(|kept| &mut kept.bypassed, class.key, find)
    }

    pub(super) fn remedy(&self, classes: &[Class]) -> Result<String> {
        let mut keys: Vec<u64> = classes.iter().map(|class| class.key).collect();
        keys.sort_unstable();
        let probes: Vec<&Probe> = classes.iter().flat_map(|class| &class.probes).collect();
        let find = || self.ask(|evaluator| evaluator.remedy(&probes));
        self.once(|kept| &mut kept.remedies, digest(&keys), find)
    }

    /// The rule that blocks IPv6 neighbour discovery on an interface; a ruleset that cannot be evaluated has none.
    pub(super) fn blocks_neighbours(&self, on: Interface, direction: Direction) -> Result<Option<String>> {
        let groups = self.around.interfaces.iter().filter(|interface| interface.name == on).map(|on| &on.groups);
        let key = digest(&(direction, on, groups.collect::<Vec<_>>()));
        let find = || Ok(self.world()?.and_then(|world| evaluator::blocks_neighbours(world, on, direction)));
        self.once(|kept| &mut kept.neighbours, key, find)
    }

    /// The mappings by class. Those at an interface without an address have none.
    pub(super) fn classes<'p>(&self, publications: impl Publications<'p>) -> Result<Vec<Class>> {
        let facts = self.facts()?;
        let filter_local = self.around.sysctl_is_on("net.pf.filter_local")?;
        let mut made: Vec<Class> = vec![];
        let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
        for publication in publications {
            let options = digest(&serde_json::to_string(&publication.options).unwrap_or_default());
            for redirect in &publication.redirects {
                let family = redirect.family();
                let target = facts.addresses.of(family).partition_point(|edge| *edge <= redirect.target);
                let via = (self.around.via(redirect.target), publication.via.get(&redirect.target));
                let jail = facts.tagged.then_some(&publication.jail);
                let is_of = |a: &&Answer| (a.place, a.target) == (redirect.place, redirect.target);
                let answers = publication.answers.iter().filter(is_of).map(|a| (a.on, a.beyond, a.routing));
                let way = (answers.collect::<Vec<_>>(), redirect.af_to);
                let kind = (redirect.place, redirect.protocol, family, target, via, options, jail, way);
                for (host, jail) in ports(facts, redirect) {
                    let part = |port| facts.ports.partition_point(|edge| *edge <= port);
                    let key = digest(&(&kind, part(host), part(jail)));
                    match seen.entry(key) {
                        Entry::Occupied(known) => made[*known.get()].count += 1,
                        Entry::Vacant(new) => {
                            let probes = self.probes(publication, *redirect, host, jail, filter_local)?;
                            if !probes.is_empty() {
                                let exact = digest(&(&kind, redirect, &publication.jail, host, jail));
                                new.insert(made.len());
                                made.push(Class { probes, count: 1, key, exact });
                            }
                        }
                    }
                }
            }
        }
        Ok(made)
    }

    /// The packets to try a mapping with: from outside, and from the host if it has access.
    fn probes(
        &self, publication: &Publication, redirect: Redirect, host: u16, jail: u16, filter_local: bool,
    ) -> Result<Vec<Probe>> {
        let family = redirect.family();
        let alone = Publication { redirects: vec![redirect], ..publication.clone() };
        let probe =
            |sender, from, to, entrance| Probe { publication: alone.clone(), redirect, sender, from, to, entrance };
        let mut made = vec![];
        for interface in self.around.outer(redirect.place, family)? {
            let Some(own) = interface.address(family) else { continue };
            let to = match redirect.place {
                Place::Address(address) => address,
                Place::Interface(_) | Place::Any | Place::AnyOf(_) => own,
            };
            let to = SocketAddr::new(to, host);
            let source = first_source(&publication.options, family);
            if let Some(source) = source.filter(|_| !redirect.place.is_loopback()) {
                let entrance = Entrance {
                    on: interface.name,
                    protocol: redirect.protocol,
                    host: to,
                    jail: SocketAddr::new(redirect.target, jail),
                    via: self.around.via(redirect.target),
                    required: true,
                };
                let from = SocketAddr::new(source, SOURCE_PORTS[0]);
                made.push(probe(Party::Network(interface.name), from, to, Some(entrance)));
            }
            if publication.options.host_access && filter_local {
                made.push(probe(Party::Host, SocketAddr::new(to.ip(), SOURCE_PORTS[1]), to, None));
            }
        }
        Ok(made)
    }
}

/// Names the rules of the main ruleset as the file has them from which pfctl(8) has loaded it, as far as they are the same.
pub fn name_by_file(rulesets: &mut Rulesets, interfaces: &[HostInterface], file: &Path) {
    let Some((_, main)) = rulesets.iter_mut().find(|(path, _)| path.is_empty()) else { return };
    // the administrator's file may be another one, or not be readable
    let Ok(file) = Conf::of_file(file) else { return };
    let world = World::new(Release::default(), interfaces.to_vec());
    *main = Arc::new(world.named_by(main, &file));
}

/// Sends the first packet of published ports through the evaluator, with the real main ruleset and the rules of the
/// redirect. Ports that no rule of the main ruleset distinguishes are tried once. A ruleset that could not be read is a
/// warning.
pub fn main_ruleset<'p>(main: &MainRuleset<'_>, publications: impl Publications<'p>) -> Result<Findings> {
    let facts = main.facts()?;
    if !facts.can_be_judged() {
        return Ok(facts.unfit.clone());
    }
    let mut found = Findings::default();
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
    let undecided = |(what, seen)| format!("{seen}: whether it arrives depends on what kport cannot decide: {what}");
    found.warnings.extend(open.into_iter().map(undecided).map(|seen| Problem::new(seen, "")));
    // a family that is not forwarded is a finding of its own
    lost.remove("the host does not forward");
    if lost.is_empty() {
        return Ok(found);
    }
    let remedy = main.remedy(&classes)?;
    let seen = |(reason, (first, count))| format!("{first}{}: {reason}", and_more(count - 1));
    found.problems.extend(lost.into_iter().map(seen).map(|seen| Problem::new(seen, &remedy)));
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
    let problem = |((statement, count), probe): ((String, usize), &Probe)| {
        let (port, place, jail) = (probe.to.port(), probe.redirect.place, probe.publication.jail.mention());
        let more = and_more(count);
        Problem::new(
            format!("{statement}{more} refuses sources, but not at {port} on {place}, which {jail} publishes"),
            "",
        )
    };
    Ok(seen.into_iter().map(problem).collect())
}

/// See [`Evaluator::remedy`].
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

/// The first port of a redirect, and those at which rules begin to differ, each with its port in the jail.
fn ports(facts: &Facts, redirect: &Redirect) -> BTreeSet<(u16, u16)> {
    let (host, jail) = (redirect.host, redirect.jail);
    let within = |ports: PortRange| {
        let edges = facts.ports.iter().filter(move |edge| ports.contains(**edge));
        edges.map(move |edge| edge - ports.first())
    };
    let offsets = within(host).chain(within(jail)).take(MOST_PORTS);
    std::iter::once(0).chain(offsets).map(|offset| (host.first() + offset, jail.first() + offset)).collect()
}

/// The source to try first: anybody, or the first one that the publication lets in; what is in a table is unknown here.
pub(super) fn first_source(options: &Options, family: Family) -> Option<IpAddr> {
    if options.sources.is_empty() {
        return DOCUMENTATION.into_iter().find(|address| Family::of(*address) == family);
    }
    let networks = options.sources.iter().filter_map(Source::network);
    networks.filter(|network| Family::of(network.addr()) == family).find_map(|network| network.hosts().next())
}

/// A digest of what the evaluation uses of the host.
fn digest_of_host(around: &Surroundings<'_>) -> Result<u64> {
    let epair = "epair".parse().ok();
    // not a link-local one either
    let has_address = |i: &HostInterface| Family::ALL.into_iter().any(|family| i.address(family).is_some());
    let matters = |i: &&HostInterface| has_address(i) || !epair.is_some_and(|epair| i.is_in(epair));
    let interfaces: Vec<_> = around.interfaces.iter().filter(matters).collect();
    let interfaces = serde_json::to_string(&interfaces).unwrap_or_default();
    let [inet, inet6] = Family::ALL.map(|family| around.host.gateway(family));
    let sysctls = ["kern.osreldate", "net.pf.filter_local", "net.pf.default_to_drop"];
    let sysctls: Vec<_> = sysctls.iter().map(|name| around.host.sysctl(name)).collect::<Result<_>>()?;
    Ok(digest(&(interfaces, inet?, inet6?, sysctls)))
}

fn digest(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Adds an answer; if there are too many, those before it are forgotten.
fn keep<V>(kept: &mut BTreeMap<u64, V>, key: u64, answer: V) {
    if kept.len() >= MOST_KEPT {
        kept.clear();
    }
    kept.insert(key, answer);
}
