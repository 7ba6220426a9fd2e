//! Sources, and what a main ruleset makes of them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::net::{Direction, Family, Interface, PerFamily, Protocol};
use crate::pfconf::Conf;
use crate::pfconf::rule::{Rule, RuleKind};
use crate::trace::{At, Met, Packet, World};

/// The port of the senders.
pub(super) const SOURCE_PORT: u16 = 40_000;
/// The maximum number of ports at which rules refuse sources.
const MOST_PORTS: usize = 8;
/// How many addresses of a class are taken for tables and anchors.
const MOST_FREE: u32 = 4096;
/// The number of classes from which addresses are added to tables and blocked in anchors.
const MOST_CLASSES: usize = 4;

/// A published port, as packets from outside use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entrance {
    /// The interface on which they come in.
    pub on: Interface,
    /// Their protocol.
    pub protocol: Protocol,
    /// The address and port of the host.
    pub host: SocketAddr,
    /// The address and port of the jail.
    pub jail: SocketAddr,
    /// The interface that leads to the jail; `None` if the address is the host's own.
    pub via: Option<Interface>,
}

impl Entrance {
    /// The family of its packets.
    pub fn family(&self) -> Family {
        Family::of(self.jail.ip())
    }

    /// The interfaces at which pf evaluates a packet to it after the redirect.
    pub(super) fn hooks(&self) -> impl Iterator<Item = At> {
        let received_on = Some(self.on);
        let out = self.via.map(|on| At { direction: Direction::Out, on, received_on });
        std::iter::once(At { direction: Direction::In, on: self.on, received_on }).chain(out)
    }
}

/// `em0 inet tcp`
impl fmt::Display for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.on, self.family(), self.protocol)
    }
}

/// A statement of the ruleset, for messages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cited {
    /// The file, if it is not the main one; empty for a rule that was not read from a file.
    pub file: Arc<str>,
    /// The line, from 1; 0 if the rule was not read from a file.
    pub line: usize,
    /// As it is in the file, without comments.
    pub text: Arc<str>,
}

/// `line 5, block drop in quick from <bad> to any`
impl fmt::Display for Cited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return f.write_str(&self.text);
        }
        if !self.file.is_empty() {
            write!(f, "{} ", self.file)?;
        }
        write!(f, "line {}, {}", self.line, self.text)
    }
}

/// Somebody who sends packets to published ports.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub address: IpAddr,
    /// What cannot be decided, and holds for its packets.
    pub holds: Option<String>,
    /// It is blocked in an anchor of a program that is not known to block anybody.
    pub perhaps: bool,
}

impl Source {
    fn of(address: IpAddr) -> Source {
        Source { address, holds: None, perhaps: false }
    }
}

/// Programs that block sources in an anchor of this name.
const BLOCKERS: [&str; 6] = ["blacklistd", "blocklistd", "crowdsec", "f2b", "fail2ban", "sshguard"];

/// An ordinary outsider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outsider {
    /// Its address.
    pub address: IpAddr,
    /// The statement that refuses most others: only those that it allows, as this one, get in.
    pub allowed_by: Option<Cited>,
}

/// A ruleset, and the sources that it can distinguish.
#[derive(Debug)]
pub struct Judge {
    pub(super) world: World,
    /// The name of its file.
    main: Arc<str>,
    sources: PerFamily<Vec<Source>>,
    /// Entrances to other ports of jails, at which rules refuse sources.
    ports: Vec<Entrance>,
}

/// The rules that match the packets of each source at one [`Entrance`].
pub struct BySource<'j> {
    sources: Vec<Source>,
    /// By source and interface.
    trails: Vec<Vec<Vec<Met<'j>>>>,
    /// The ordinary outsider among the sources.
    ordinary: Option<usize>,
    /// The statement that refuses larger classes of sources, if there is one.
    most: Option<Cited>,
}

impl Judge {
    /// Judges a world without kport's own rules. `main` is the name of the file of its main ruleset, if it was read from
    /// one.
    pub fn new(mut world: World, main: &str) -> Judge {
        world.settle();
        let families = Family::ALL.map(|family| (family, world.classes(family)));
        let mut sources: PerFamily<Vec<Source>> = PerFamily::default();
        let (tables, anchors) = (world.tables(), world.open_anchors());
        for (family, classes) in families {
            let of = sources.of_mut(family);
            of.extend(classes.iter().map(|class| Source::of(class.address)));
            // of the largest ones, since an allow-list may refuse the first
            for class in classes.iter().take(MOST_CLASSES) {
                let mut free = (0..MOST_FREE).filter_map(|number| class.another(number));
                for table in &tables {
                    let Some(address) = free.next() else { break };
                    world.add_to_table(table, address);
                    of.push(Source::of(address));
                }
                for anchor in &anchors {
                    let Some(address) = free.next() else { break };
                    // as fail2ban, blocklistd(8) and others load it
                    world.load_more(anchor, &Conf::of_output(&format!("block drop quick from {address}\n")));
                    let perhaps = !anchor.split('/').any(|name| BLOCKERS.contains(&name));
                    of.push(Source { perhaps, ..Source::of(address) });
                }
            }
        }
        Judge { world, main: main.into(), sources, ports: vec![] }
    }

    /// From now on also judges whether sources that are refused at other ports of the jails, those that rules name, stay
    /// refused there.
    pub(super) fn refuses_at_ports_of<'a>(&mut self, entrances: impl Iterator<Item = &'a Entrance>) {
        let ports: Vec<u16> = self.world.refusing_ports().into_iter().take(MOST_PORTS).collect();
        let other = |entrance: &Entrance| {
            let (entrance, jail) = (*entrance, entrance.jail);
            let ports = ports.clone().into_iter().filter(move |port| *port != jail.port());
            ports.map(move |port| Entrance { jail: SocketAddr::new(jail.ip(), port), ..entrance })
        };
        self.ports = entrances.flat_map(other).collect();
    }

    pub(super) fn ports(&self) -> &[Entrance] {
        &self.ports
    }

    /// The sources of a family: the largest class of addresses first.
    pub(super) fn sources(&self, family: Family) -> &[Source] {
        self.sources.of(family)
    }

    /// What becomes of every source at an entrance.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`]: the evaluation cannot be followed.
    pub fn survey(&self, entrance: &Entrance) -> Result<BySource<'_>> {
        let mut sources = self.sources.of(entrance.family()).clone();
        let mut undecided = BTreeSet::new();
        let mut trails = vec![];
        for source in &sources {
            trails.push(self.trail(entrance, source, &mut undecided)?);
        }
        let (ordinary, _) = self.find_ordinary(entrance, &sources, &trails);
        // what cannot be decided differs for packets of one source
        if let Some(address) = sources.get(ordinary.unwrap_or(0)).map(|source| source.address) {
            for what in std::mem::take(&mut undecided) {
                let source = Source { holds: Some(what), ..Source::of(address) };
                trails.push(self.trail(entrance, &source, &mut undecided)?);
                sources.push(source);
            }
        }
        let (ordinary, most) = self.find_ordinary(entrance, &sources, &trails);
        let most = most.map(|met| self.statement(&met));
        Ok(BySource { sources, trails, ordinary, most })
    }

    /// The ordinary outsider among sources, the largest class of those that are not refused, or by a rule that refuses
    /// every source that reaches it; and the rule that refuses larger classes. Packets from its address come in on the interface
    /// of the entrance, as the routes are.
    fn find_ordinary<'j>(
        &self,
        entrance: &Entrance,
        sources: &[Source],
        trails: &[Vec<Vec<Met<'j>>>],
    ) -> (Option<usize>, Option<Met<'j>>) {
        let mut most = None;
        for (at, hooks) in trails.iter().enumerate() {
            if !self.world.is_behind(entrance.on, sources[at].address) {
                continue;
            }
            let refused = hooks.iter().enumerate().find_map(|(hook, met)| {
                let last = decision(met).filter(Met::blocks)?;
                (!refuses_all(trails, hook, &last)).then_some(last)
            });
            match refused {
                None => return (Some(at), most),
                Some(last) => _ = most.get_or_insert(last),
            }
        }
        (None, most)
    }

    /// The filter rules that match a packet of a source, by interface.
    fn trail(
        &self,
        entrance: &Entrance,
        source: &Source,
        undecided: &mut BTreeSet<String>,
    ) -> Result<Vec<Vec<Met<'_>>>> {
        let packet = packet(entrance, source.address);
        let mut trail = vec![];
        for hook in entrance.hooks() {
            let met = self.world.met(RuleKind::Filter, hook, &packet, (None, source.holds.as_slice()));
            let (met, more) = met.map_err(unfollowed)?;
            undecided.extend(more);
            trail.push(met);
        }
        Ok(trail)
    }

    /// An ordinary outsider at an entrance: a source that no rule, list or table singles out. If only an allow-list lets
    /// anybody in, one of those. `None` if there is no such source.
    pub fn outsider(&self, entrance: &Entrance) -> Result<Option<Outsider>> {
        Ok(self.survey(entrance)?.outsider())
    }

    /// The statement that refuses a source at an entrance because of its address: an ordinary outsider is not refused by
    /// it. `None` if the source is not refused, or refused as everybody is.
    pub fn refusal(&self, entrance: &Entrance, source: IpAddr) -> Result<Option<Cited>> {
        let survey = self.survey(entrance)?;
        let source = Source::of(source);
        let trail = self.trail(entrance, &source, &mut BTreeSet::new())?;
        Ok(survey.refused_by_source(&trail).map(|met| self.statement(&met)))
    }

    /// The statement of a rule: that of the file.
    pub(super) fn statement(&self, met: &Met<'_>) -> Cited {
        // rules that a program has loaded, or may load, are the call's
        let of_file = |rule: &&Rule| rule.origin.line > 0 && !rule.origin.file.is_empty();
        let main = self.world.main_rule(met.rule.action.kind(), met.at);
        let rule = Some(met.rule).filter(of_file).or(main).unwrap_or(met.rule);
        self.statement_of(rule)
    }

    pub(super) fn statement_of(&self, rule: &Rule) -> Cited {
        let origin = &rule.origin;
        let (line, file) = match &*origin.file {
            "" => (0, "".into()),
            name if *name == *self.main => (origin.line, "".into()),
            _ => (origin.line, origin.file.clone()),
        };
        Cited { file, line, text: origin.text.clone() }
    }
}

/// The packet of a source after the redirect.
pub(super) fn packet(entrance: &Entrance, source: IpAddr) -> Packet {
    Packet::first(entrance.protocol, SocketAddr::new(source, SOURCE_PORT), entrance.jail)
}

pub(super) fn unfollowed(why: String) -> Error {
    Error::new(Kind::Unsupported, format!("the ruleset cannot be judged: {why}"))
}

impl<'j> BySource<'j> {
    /// An ordinary outsider: see [`Judge::outsider`].
    pub fn outsider(&self) -> Option<Outsider> {
        Some(Outsider { address: self.sources[self.ordinary?].address, allowed_by: self.most.clone() })
    }

    /// The statement that refuses most sources because of their addresses, if there is one.
    pub(super) fn refuses_most(&self) -> Option<&Cited> {
        self.most.as_ref()
    }

    pub(super) fn refused_sources(&self) -> impl Iterator<Item = (&Source, Met<'j>)> {
        self.refused_trails().map(|(source, _, met)| (source, met))
    }

    /// The sources that are refused, the rules that match their packets, by interface, and the one that refuses.
    pub(super) fn refused_trails(&self) -> impl Iterator<Item = (&Source, &[Vec<Met<'j>>], Met<'j>)> {
        let all = self.sources.iter().zip(&self.trails);
        all.filter_map(|(source, trail)| Some((source, trail.as_slice(), self.refused_by_source(trail)?)))
    }

    /// The rules that match an ordinary outsider's packet, by interface.
    pub(super) fn ordinary_trail(&self) -> Option<&[Vec<Met<'j>>]> {
        Some(&self.trails[self.ordinary?])
    }

    /// The rule that refuses a source, unless there is an ordinary outsider that is refused by it as well.
    pub(super) fn refused_by_source(&self, trail: &[Vec<Met<'j>>]) -> Option<Met<'j>> {
        let ordinary = self.ordinary_trail();
        let last = |(hook, met): (usize, &Vec<Met<'j>>)| {
            let last = decision(met).filter(Met::blocks)?;
            let other = ordinary.and_then(|hooks| decision(&hooks[hook]));
            Some((last, other.is_some_and(|other| other.is(&last))))
        };
        let (refused, as_others) = trail.iter().enumerate().find_map(last)?;
        (!as_others).then_some(refused)
    }
}

/// The rule that decides: the last one.
pub(super) fn decision<'j>(met: &[Met<'j>]) -> Option<Met<'j>> {
    met.iter().rfind(|met| met.decides).copied()
}

/// Whether a rule blocks every source that reaches it.
fn refuses_all(trails: &[Vec<Vec<Met<'_>>>], hook: usize, rule: &Met<'_>) -> bool {
    trails.iter().all(|hooks| {
        let ended = hooks[hook].last().is_some_and(|last| last.last && last.at < rule.at);
        ended || hooks[hook].iter().any(|met| met.is(rule))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostInterface;
    use crate::trace::Release;

    fn judge(text: &str) -> Judge {
        let interface = |name: &str, group: &str, address: &str| {
            let groups = vec![group.parse().unwrap()];
            HostInterface::up(name.parse().unwrap(), groups, vec![address.parse().unwrap()])
        };
        let interfaces =
            vec![interface("em0", "egress", "192.0.2.1/24"), interface("bridge0", "bridge", "10.0.0.1/24")];
        let mut world = World::new(Release::V15, interfaces);
        world.gateway.inet = Some("em0".parse().unwrap());
        world.load_main(text).unwrap();
        Judge::new(world, "pf.conf")
    }

    fn entrance() -> Entrance {
        Entrance {
            on: "em0".parse().unwrap(),
            protocol: Protocol::Tcp,
            host: "192.0.2.1:8080".parse().unwrap(),
            jail: "10.0.0.2:80".parse().unwrap(),
            via: Some("bridge0".parse().unwrap()),
        }
    }

    #[test]
    fn an_outsider_is_singled_out_by_no_rule() {
        let allowed = "table <friends> { 198.51.100.0/24 }\n";
        for (text, address, by) in [
            ("", "203.0.113.77", None),
            ("block all\n", "203.0.113.77", None),
            ("block in quick from 203.0.113.0/24\n", "198.51.100.77", None),
            (
                "table <bogons> { 192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 }\nblock in quick from <bogons>\n",
                "0",
                None,
            ),
            (&format!("{allowed}block in quick from ! <friends>\nblock all\n"), "198.51.100.77", Some("line 2, ")),
            (&format!("{allowed}pass in quick from <friends>\nblock in quick all\n"), "203.0.113.77", None),
            ("pass in quick from ! 203.0.113.0/24\nblock quick all\n", "198.51.100.77", None),
            (
                "block in quick from urpf-failed\nblock in quick from no-route\nantispoof quick for em0\n",
                "203.0.113.77",
                None,
            ),
            (
                "table <later> persist\nblock in quick from ! <later>\n",
                "0",
                Some("line 2, block in quick from ! <later>"),
            ),
        ] {
            let found = judge(text).outsider(&entrance()).unwrap().expect(text);
            let shown = found.address.to_string();
            assert!(shown == address || address == "0" && !PREFERRED.contains(&&*shown), "{text}: {found:?}");
            let allowed_by = found.allowed_by.map(|by| by.to_string());
            assert_eq!(allowed_by.is_some(), by.is_some(), "{text}");
            assert!(allowed_by.unwrap_or_default().starts_with(by.unwrap_or_default()), "{text}");
        }
    }
    const PREFERRED: [&str; 3] = ["203.0.113.77", "198.51.100.77", "192.0.2.77"];

    #[test]
    fn who_is_refused_because_of_his_source() {
        let refusal = |text: &str, source: &str| {
            judge(text).refusal(&entrance(), source.parse().unwrap()).unwrap().map(|found| found.to_string())
        };
        let list = "table <bad> { 198.51.100.66 }\nblock all\nblock in quick from <bad>\n";
        assert_eq!(refusal(list, "198.51.100.66").unwrap(), "line 3, block in quick from <bad>");
        assert_eq!(refusal(list, "198.51.100.67"), None);
        assert_eq!(refusal("block all\n", "198.51.100.66"), None);
        let spoofed = "block in all\nantispoof for bridge0\npass out\n";
        assert_eq!(refusal(spoofed, "10.0.0.7").unwrap(), "line 2, antispoof for bridge0");
        assert_eq!(
            refusal("block in quick from urpf-failed\n", "10.0.0.7").unwrap(),
            "line 1, block in quick from urpf-failed"
        );
        assert_eq!(
            refusal("block out on bridge0 from 198.51.100.0/24\n", "198.51.100.1").unwrap(),
            "line 1, block out on bridge0 from 198.51.100.0/24"
        );
        // everybody else has passed
        assert!(refusal("pass quick from ! 198.51.100.0/24\nblock quick all\n", "198.51.100.1").is_some());
    }

    #[test]
    fn who_may_be_refused_later() {
        let refused = |text: &str| {
            let judge = judge(text);
            let survey = judge.survey(&entrance()).unwrap();
            let mut lines: Vec<usize> = survey
                .refused_sources()
                .filter(|(source, _)| !source.perhaps)
                .map(|(_, met)| judge.statement(&met).line)
                .collect();
            lines.sort_unstable();
            lines.dedup();
            lines
        };
        assert!(refused("block all\n").is_empty());
        assert_eq!(refused("table <f2b> persist\nblock all\nblock in quick from <f2b>\n"), [3]);
        assert_eq!(
            refused("block all\nanchor \"f2b/*\"\nanchor \"blacklistd\" in on em0\nanchor \"x\" out on em0\n"),
            [2, 3]
        );
        assert_eq!(refused("anchor \"kport\"\nanchor {\n block quick from 10.9.0.0/16\n}\n"), [3]);
        assert_eq!(
            refused("block in quick proto tcp from any os \"Windows\"\nblock in quick from bad.example.org\n"),
            [1, 2]
        );
        // never reached
        assert!(refused("block in quick all\nanchor \"f2b/*\"\n").is_empty());
    }
}
