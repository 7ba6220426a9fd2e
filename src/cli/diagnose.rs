//! What pf does with packets, and why a port is dead: `kport trace`, `kport doctor`.

use std::net::SocketAddr;

use crate::doctor::{self, Level, ManagerFiles, self_test};
use crate::error::{Error, Kind, Problem, Result, error, quoted};
use crate::net::Family;
use crate::trace::{IpProtocol, Packet, Party, Release, Trace, TraceStep, Verdict, World};
use serde_json::{Value, json};

use super::args::{Cli, DoctorArgs, Global, Question, endpoint};
use super::output::{self, Shown, VERSION, complain, document, print};
use super::{any_session, session, with_conf};

/// The source port if none is given.
const SOURCE_PORT: u16 = 40000;

/// `kport trace`. Changes nothing: the states of the packet exist only during this call.
pub fn trace(global: &Global, question: &Question) -> Result<()> {
    let session = any_session(global)?;
    let release = question.release.map_or_else(|| Release::of_host(&*session.host), Ok)?;
    let session = with_conf(session, question.pf_conf.as_deref())?;
    let host = &*session.host;
    let mut world =
        World::of_pf(host, &*session.firewall, release).map_err(|error| match (error.kind(), &global.host) {
            (Kind::Unsupported, None) if cfg!(not(target_os = "freebsd")) => {
                error.and("describe a host with --host FILE")
            }
            _ => error,
        })?;
    let packet = packet_of(question, &world)?;
    let sender = world.sender(packet.from.ip(), question.on)?;
    let mut notes: Vec<String> = session.notice().map(str::to_owned).into_iter().collect();
    if host.sysctl("net.link.bridge.pfil_member")?.is_some_and(|value| value != 0) {
        notes.push("net.link.bridge.pfil_member is 1: rules on the members of bridges are not evaluated".to_owned());
    }
    notes.extend(crate::readiness::limits(host, |_| true)?.problems.iter().map(Problem::to_string));
    notes.extend_from_slice(&world.notes);
    let trace = world.trace_packet(&sender, &packet);
    if !global.quiet {
        notes.iter().for_each(|note| complain(note));
    }
    let looked = match global.verbose {
        0 => String::new(),
        _ => format!("\nlooked at: {} anchors, {} rules", trace.looked.anchors, trace.looked.rules),
    };
    print(&if question.json { document(&json(&trace, release)) } else { format!("{trace}{looked}\n") })?;
    match verdict(&trace).1 {
        None => Ok(()),
        Some((kind, why)) => Err(Error::new(kind, why)),
    }
}

/// The packet in question; ports are given if the protocol has them.
fn packet_of(question: &Question, world: &World) -> Result<Packet> {
    let (protocol, (to, has_port)) = (question.protocol, question.destination);
    let wrong = |why: &str| Err(error!(Argument, "{protocol}: {why}"));
    let icmp = protocol.with_ports().is_none();
    match (icmp, has_port) {
        (true, true) => return wrong("it has no ports; give only the address"),
        (false, false) => return wrong("give the port, too: 192.0.2.1:8080 or [2001:db8::1]:8080"),
        (true, false) if to.is_ipv6() != (protocol == IpProtocol::ICMP6) => {
            return wrong("use icmp for IPv4, icmp6 for IPv6");
        }
        (false, true) if question.icmp_type.is_some() => return wrong("--icmp-type is for icmp and icmp6"),
        _ => {}
    }
    let from = source(&question.source, to, world)?;
    let Some(name) = &question.icmp_type else { return Ok(Packet::first(protocol, from, to)) };
    let kind = crate::pfconf::icmp_type(name, to.is_ipv6());
    let kind = kind.ok_or_else(|| error!(Argument, "{} is not an ICMP type of pf.conf(5)", quoted(name)))?;
    Ok(Packet::icmp(kind, 0, from, to))
}

fn source(text: &str, to: SocketAddr, world: &World) -> Result<SocketAddr> {
    let family = Family::of(to.ip());
    if let Ok((mut given, has_port)) = endpoint(text) {
        if Family::of(given.ip()) != family {
            return Err(error!(Argument, "{} and {} are of different families", given.ip(), to.ip()));
        }
        given.set_port(if has_port { given.port() } else { SOURCE_PORT });
        return Ok(given);
    }
    let addresses = world.jails.iter().filter(|jail| jail.name == text).flat_map(|jail| &jail.addresses);
    let address = addresses.map(|network| network.addr()).find(|address| Family::of(*address) == family);
    address.map(|address| SocketAddr::new(address, SOURCE_PORT)).ok_or_else(|| {
        error!(Argument, "{} is not an address, nor a jail of this host with an {family} address", quoted(text))
    })
}

/// The word for a verdict, and the error for the exit status if the connection is not established.
fn verdict(trace: &Trace) -> (&'static str, Option<(Kind, &'static str)>) {
    let unavailable = |why| Some((Kind::Unavailable, why));
    match trace.verdict {
        Verdict::Answered => ("answered", None),
        Verdict::Delivered => ("delivered", None),
        Verdict::Refused => ("refused", unavailable("the packet arrives, but nothing listens there")),
        Verdict::Unanswered => ("unanswered", unavailable("the packet arrives, but the connection is not established")),
        Verdict::Lost => ("lost", unavailable("the packet does not arrive")),
        Verdict::Depends if trace.arrives => {
            ("depends", unavailable("the packet arrives; kport cannot decide whether it is answered"))
        }
        Verdict::Depends => ("depends", Some((Kind::Unsupported, "kport cannot decide whether the packet arrives"))),
    }
}

fn json(trace: &Trace, release: Release) -> Value {
    json!({
        "version": VERSION,
        "release": release.number(),
        "verdict": verdict(trace).0,
        "depends_on": trace.depends_on,
        "possible": trace.possible.iter().map(delivered).collect::<Vec<_>>(),
        "looked_at": { "anchors": trace.looked.anchors, "rules": trace.looked.rules },
        "delivered_to": trace.delivered_to.as_ref().map(delivered),
        "steps": trace.steps.iter().map(step).collect::<Vec<_>>(),
    })
}

fn delivered((who, at): &(Party, SocketAddr)) -> Value {
    json!({ "party": party(who), "address": at.to_string() })
}

fn party(party: &Party) -> Value {
    match party {
        Party::Host => json!({ "host": true }),
        Party::Jail(name) => json!({ "jail": name }),
        Party::Network(interface) => json!({ "behind": interface.to_string() }),
    }
}

fn packet(packet: &Packet) -> Value {
    let mut value = json!({
        "protocol": packet.protocol.to_string(), "from": packet.from.to_string(), "to": packet.to.to_string(),
    });
    if let Some((kind, code)) = packet.icmp {
        value["icmp"] = json!({ "type": kind, "code": code });
        value["from"] = json!(packet.from.ip().to_string());
        value["to"] = json!(packet.to.ip().to_string());
    }
    value
}

fn step(step: &TraceStep) -> Value {
    match step {
        TraceStep::Sent(who, what) => json!({ "step": "sent", "by": party(who), "packet": packet(what) }),
        TraceStep::Hook { direction, on } => {
            json!({ "step": "hook", "direction": direction.to_string(), "on": on.to_string() })
        }
        TraceStep::Rule { anchor, text } => json!({ "step": "rule", "anchor": anchor, "rule": text }),
        TraceStep::Call { anchor, text } => json!({ "step": "call", "anchor": anchor, "rule": text }),
        TraceStep::DefaultRule => json!({ "step": "default", "rule": "block" }),
        TraceStep::State { anchor, text } => json!({ "step": "state", "anchor": anchor, "rule": text }),
        TraceStep::Translated(what) => json!({ "step": "translated", "packet": packet(what) }),
        TraceStep::Undecided { what, taken } => json!({ "step": "undecided", "what": what, "taken": taken }),
        TraceStep::Verdict(text) => json!({ "step": "verdict", "text": text }),
        TraceStep::Delivered(who, at) => json!({ "step": "delivered", "to": party(who), "address": at.to_string() }),
        TraceStep::Note(text) => json!({ "step": "note", "text": text }),
    }
}

/// `kport doctor`. Warnings may be intended by the administrator, so only problems set the exit status.
pub fn doctor(global: &Global, args: &DoctorArgs) -> Result<()> {
    if args.self_test {
        return self_test(global);
    }
    let session = with_conf(session(global)?, args.pf_conf.as_deref())?;
    let with_values = Cli::flags_with_values();
    let files = ManagerFiles { root: std::path::Path::new("/"), with_values: &with_values, pfctl: &global.pfctl };
    let files = (!session.host.is_played()).then_some(files);
    let findings = doctor::examine(&*session.host, &*session.firewall, session.store(), files);
    let problems = findings.iter().filter(|f| f.level == Level::Problem).count();
    print(&if args.json {
        document(&output::findings_json(&findings))
    } else {
        output::lines(findings.iter().filter(|f| !global.quiet || f.level > Level::Ok))
    })?;
    match problems {
        0 => Ok(()),
        1 => Err(Error::new(Kind::Unavailable, "one problem was found")),
        n => Err(error!(Unavailable, "{n} problems were found")),
    }
}

fn self_test(global: &Global) -> Result<()> {
    let session = session(global)?;
    let (store, observer) = (session.store()?, Shown::new(global.verbose));
    let steps = self_test::run(&*session.host, &*session.firewall, store.dir(), &observer)?;
    session.notice().iter().for_each(|notice| complain(notice));
    print(&output::steps(&steps))?;
    match steps.iter().filter(|step| step.result.is_err()).count() {
        0 => Ok(()),
        n => Err(error!(Unavailable, "self-test: {n} of {} steps failed", steps.len())),
    }
}
