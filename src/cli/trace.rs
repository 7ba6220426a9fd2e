//! `kport trace`: the way of a packet through the rules that are loaded.

use std::net::{IpAddr, SocketAddr};

use kport::error::{Error, Kind, Result, quoted};
use kport::net::Family;
use kport::session::Session;
use kport::sim;
use kport::sim::{Packet, Party, Release, Trace, TraceStep, Verdict, World};
use serde_json::{Value, json};

use super::args::{Global, Question};
use super::output::{complain, document, print};
use super::session::any_session;
use super::show::VERSION;

/// The source port where none is given.
const SOURCE_PORT: u16 = 40000;

/// `kport trace`
pub fn run(global: &Global, question: &Question) -> Result<()> {
    let traced = trace(question, &any_session(global)?, global)?;
    if !global.quiet {
        traced.notes.iter().for_each(|note| complain(note));
    }
    print(&if question.json { document(&json(&traced)) } else { format!("{}\n", traced.trace) })?;
    verdict(&traced)
}

/// What was found out.
struct Traced {
    /// The way.
    trace: Trace,
    /// What the caller should know about it, a line each.
    notes: Vec<String>,
    release: Release,
}

/// Sends the packet. Changes nothing: its states live as long as this call.
fn trace(question: &Question, session: &Session, global: &Global) -> Result<Traced> {
    let host = &*session.host;
    let release = match question.release {
        Some(release) => release,
        None => host.sysctl("kern.osreldate")?.map(Release::of).unwrap_or_default(),
    };
    let made = World::of_pf(host, &*session.firewall, release);
    let mut world = made.map_err(|error| match (error.kind(), &global.host) {
        (Kind::Unsupported, None) if cfg!(not(target_os = "freebsd")) => error.and("describe a host with --host FILE"),
        _ => error,
    })?;
    let source = source(&question.source, question.destination, &world)?;
    let sender = world.sender(source.ip(), question.on)?;
    let mut notes = vec![];
    if !session.firewall.redirects_packets() {
        notes.push(sim::NOTICE.to_owned());
    }
    if host.sysctl("net.link.bridge.pfil_member")?.is_some_and(|value| value != 0) {
        notes.push("net.link.bridge.pfil_member is 1: what pf does at the members of bridges is left out".to_owned());
    }
    notes.extend_from_slice(world.notes());
    Ok(Traced { trace: world.trace(&sender, question.protocol, source, question.destination), notes, release })
}

/// An address, an address with a port, or the address that a jail has in the family of where it goes.
fn source(text: &str, to: SocketAddr, world: &World) -> Result<SocketAddr> {
    let given = text.parse().or_else(|_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, SOURCE_PORT)));
    let family = Family::of(to.ip());
    if let Ok(given) = given {
        if Family::of(given.ip()) != family {
            let why = format!("{} and {} are of different families", given.ip(), to.ip());
            return Err(Error::new(Kind::Argument, why));
        }
        return Ok(given);
    }
    let addresses = world.jails.iter().filter(|jail| jail.name == text).flat_map(|jail| &jail.addresses);
    let address = addresses.map(|network| network.addr()).find(|address| Family::of(*address) == family);
    address.map(|address| SocketAddr::new(address, SOURCE_PORT)).ok_or_else(|| {
        let why = format!("{} is no address, and no jail here with an {family} address", quoted(text));
        Error::new(Kind::Argument, why)
    })
}

/// Nothing where the connection comes about, or the error that is the exit status.
fn verdict(traced: &Traced) -> Result<()> {
    let why = match traced.trace.verdict {
        Verdict::Answered | Verdict::Delivered => return Ok(()),
        Verdict::Refused => "the packet arrives, but nothing listens there",
        Verdict::Unanswered => "the packet arrives, but the connection does not come about",
        Verdict::Lost => "the packet does not arrive",
        Verdict::Depends => {
            let why = "whether the packet arrives depends on what kport cannot decide";
            return Err(Error::new(Kind::Unsupported, why));
        }
    };
    Err(Error::new(Kind::Unavailable, why))
}

/// The trace as JSON.
fn json(traced: &Traced) -> Value {
    let trace = &traced.trace;
    json!({
        "version": VERSION,
        "release": traced.release.number(),
        "verdict": match trace.verdict {
            Verdict::Answered => "answered",
            Verdict::Delivered => "delivered",
            Verdict::Refused => "refused",
            Verdict::Unanswered => "unanswered",
            Verdict::Lost => "lost",
            Verdict::Depends => "depends",
        },
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
        TraceStep::State { anchor, text } => json!({ "step": "state", "anchor": anchor, "rule": text }),
        TraceStep::Translated(what) => json!({ "step": "translated", "packet": packet(what) }),
        TraceStep::Undecided { what, taken } => json!({ "step": "undecided", "what": what, "taken": taken }),
        TraceStep::Verdict(text) => json!({ "step": "verdict", "text": text }),
        TraceStep::Delivered(who, at) => json!({ "step": "delivered", "to": party(who), "address": at.to_string() }),
        TraceStep::Note(text) => json!({ "step": "note", "text": text }),
    }
}
