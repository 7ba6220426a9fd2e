//! What was there before: states of connections with the host itself, from before its ports were redirected, end; no others.

use std::cell::RefCell;
use std::time::Duration;

use kport::deadline::Deadline;
use kport::error::Result;
use kport::pf::native::Native;
use kport::pf::pfctl::Pfctl;
use kport::pf::{Firewall, States};
use kport::publisher::{Observer, Phase, Request, Unobserved};

use crate::support::around::{Around, Call, Moment};
use crate::support::fake_kernel::{Fake, State};
use crate::support::rig::{Rig, request};
use crate::support::standin;

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

/// A state: where it was created, its direction, protocol, source, destination with port, and the destination after a redirect.
struct Row {
    on: &'static str,
    protocol: &'static str,
    from: &'static str,
    to: &'static str,
    port: u16,
    redirected: bool,
    /// Whether publishing `em0:5399:53/udp` ends it.
    ends: bool,
}

const fn row(on: &'static str, protocol: &'static str, to: (&'static str, u16), redirected: bool, ends: bool) -> Row {
    Row { on, protocol, from: "192.0.2.100", to: to.0, port: to.1, redirected, ends }
}

/// Those of a host on which jail web publishes `5399:53/udp`.
const STATES: [Row; 9] = [
    row("em0", "udp", ("192.0.2.1", 5399), false, true),
    row("em0", "udp", ("192.0.2.7", 5399), false, true),
    // another protocol, port, address, interface
    row("em0", "tcp", ("192.0.2.1", 5399), false, false),
    row("em0", "udp", ("192.0.2.1", 5398), false, false),
    row("em1", "udp", ("198.51.100.1", 5399), false, false),
    row("bridge0", "udp", ("192.0.2.1", 5399), false, false),
    // of a redirect
    row("em0", "udp", ("192.0.2.1", 5399), true, false),
    // of the host itself, from that port to another host: its destination is that one
    row("em0", "udp", ("203.0.113.9", 40000), false, false),
    // of a jail, through the host
    row("em0", "udp", ("203.0.113.9", 5399), false, false),
];

impl Row {
    fn state(&self) -> State {
        State {
            on: self.on,
            protocol: if self.protocol == "udp" { 17 } else { 6 },
            from: self.from.parse().unwrap(),
            to: self.to.parse().unwrap(),
            port: self.port,
            redirected: self.redirected.then(|| [10, 0, 0, 2].into()),
            ..State::new("", 0, 0)
        }
    }

    /// As `pfctl -ss` prints it, with the interface where it was created.
    fn line(&self) -> String {
        let Row { on, protocol, from, to, port, redirected, .. } = self;
        let (to, port) = if *redirected { ("10.0.0.2", 53) } else { (*to, *port) };
        let before = if *redirected { format!(" ({}:{})", self.to, self.port) } else { String::new() };
        // no two states are of the same ports
        let source = 40000 + u32::from(*redirected);
        format!("{on} {protocol} {to}:{port}{before} <- {from}:{source}       MULTIPLE:SINGLE")
    }
}

fn spec() -> Request {
    request("web", "5399:53/udp")
}

const NOTE: &str =
    "ended the states of connections that reached the host itself at these ports before they were redirected: 2";

/// A kernel without COMPAT_FREEBSD14, or one that does not tell.
#[test]
fn native_ends_them_without_a_look_if_it_must() {
    let (rig, fake) = (Rig::new(), Fake::new());
    fake.set_states(&STATES.each_ref().map(Row::state));
    fake.refuse("DIOCGETSTATESV2", 1, libc::ENODEV);
    let done = rig.with(&Native::over(&fake, soon()), &Unobserved, |p| p.publish(&spec())).unwrap();
    let stay: Vec<State> = STATES.iter().filter(|row| !row.ends).map(Row::state).collect();
    assert_eq!((fake.states(), done.killed), (stay, 2));
}

#[test]
fn native_ends_states_of_before() {
    let (rig, fake) = (Rig::new(), Fake::new());
    let publish =
        |request: &Request| rig.with(&Native::over(&fake, soon()), &Unobserved, |p| p.publish(request)).unwrap();
    fake.set_states(&STATES.each_ref().map(Row::state));
    let done = publish(&spec());
    let stay: Vec<State> = STATES.iter().filter(|row| !row.ends).map(Row::state).collect();
    assert_eq!(fake.states(), stay);
    assert_eq!((done.killed, done.notes), (2, vec![NOTE.to_owned()]));
    // nothing new is redirected
    fake.set_states(&[STATES[0].state()]);
    for request in [spec(), request("web", "5399:53/udp")] {
        assert_eq!(publish(&request).killed, 0);
    }
    let added = Request { add: true, ..request("web", "8080:80") };
    let calls = fake.calls_of(|| assert_eq!(publish(&added).killed, 0));
    let count = |calls: &[&str], name| calls.iter().filter(|call| **call == name).count();
    assert_eq!((count(&calls, "DIOCGETSTATESV2"), count(&calls, "DIOCKILLSTATESNV")), (2, 0), "no state has that port");
    // after a flush it was not redirected for a while
    Native::over(&fake, soon()).replace(&spec().jail.anchor(), &[]).unwrap();
    let done = rig.with(&Native::over(&fake, soon()), &Unobserved, |p| p.restore()).unwrap();
    assert_eq!(done.killed, 1, "{done:?}");
    assert_eq!(fake.states(), stay);
}

/// The kernel of 14 cannot tell states of a redirect from others: only those of udp end there, which come again at once.
#[test]
fn native_on_14_ends_those_of_udp() {
    let (rig, fake) = (Rig::new(), Fake::new());
    fake.set_14();
    fake.set_states(&[State::new("", 6, 8080), STATES[0].state()]);
    let native = Native::over(&fake, soon());
    let done = rig.with(&native, &Unobserved, |p| p.publish(&request("web", "8080:80/tcp,udp 5399:53/udp"))).unwrap();
    assert_eq!((done.killed, fake.states()), (1, vec![State::new("", 6, 8080)]));
}

#[test]
fn pfctl_ends_states_of_before() {
    let (rig, pf) = (Rig::new(), standin::Pfctl::new());
    let publish =
        |spec: &Request| rig.with(&Pfctl::new(pf.program(), soon()), &Unobserved, |p| p.publish(spec)).unwrap();
    let lines: Vec<String> = STATES.iter().map(Row::line).collect();
    let v6 = "em0 udp 2001:db8::1[5399] <- 2001:db8::9[40000]       MULTIPLE:SINGLE";
    let out = "em0 udp 192.0.2.1:5399 -> 203.0.113.9:40000       MULTIPLE:SINGLE";
    let label = "kport:web kport:web:udp:5399";
    pf.set_states(&lines.iter().map(String::as_str).chain([v6, out, label]).collect::<Vec<_>>());
    let done = publish(&spec());
    let mut stay: Vec<&str> =
        STATES.iter().zip(&lines).filter(|(row, _)| !row.ends).map(|(_, line)| line.as_str()).collect();
    stay.extend([out, label]);
    assert_eq!(pf.states(), stay);
    assert_eq!((done.killed, done.notes.last()), (3, Some(&NOTE.replace(": 2", ": 3"))));
    // what pfctl cannot do is a note: the ports are published
    pf.fault("-ss", standin::Fault::Say(1, "pfctl: DIOCGETSTATES: Cannot allocate memory\n"));
    let done = publish(&Request { add: true, ..request("web", "5400:54/udp") });
    assert!(done.changed && done.notes.last().unwrap().contains("unpublish and publish again to end them"), "{done:?}");
}

/// What is asked of pf: one range of ports for each address of a place.
#[test]
fn which_states() {
    let of = |spec: &str, set: fn(&mut Request)| {
        let (rig, asked) = (Rig::new(), RefCell::new(vec![]));
        let around = |call: Call<'_>, moment| {
            if let (Call::KillStates(states), Moment::Before) = (call, moment) {
                asked.borrow_mut().extend_from_slice(states);
            }
            Ok(())
        };
        let mut request = request("web", spec);
        request.addresses = vec!["10.0.0.2".parse().unwrap()];
        set(&mut request);
        let firewall = Around { sim: rig.sim(), around };
        rig.with(&firewall, &Unobserved, |p| p.publish(&request)).unwrap();
        let text = |states: &States| {
            let (protocol, ports) = states.ports.unwrap();
            let (on, from) = (states.on.map(|on| on.to_string()), states.from.map(|from| from.network.to_string()));
            let to = states.to.unwrap().network.addr();
            assert!(states.jail.is_none() && states.at == [to], "{states:?}");
            let known = [on, from, Some(format!("{protocol} {to} {ports}"))];
            known.into_iter().flatten().collect::<Vec<_>>().join(" ")
        };
        let asked: Vec<String> = asked.borrow().iter().map(text).collect();
        asked
    };
    type Set = fn(&mut Request);
    let rows: [(&str, Set, &[&str]); 11] = [
        ("em1:70:70", |_| (), &["em1 tcp 198.51.100.1 70"]),
        // ranges that are next to each other are one
        ("em1:70:70 em1:71-80:1 em1:82:82", |_| (), &["em1 tcp 198.51.100.1 70-80", "em1 tcp 198.51.100.1 82"]),
        ("em1:70:70/tcp,udp", |_| (), &["em1 tcp 198.51.100.1 70", "em1 udp 198.51.100.1 70"]),
        ("192.0.2.7:70:70", |_| (), &["tcp 192.0.2.7 70"]),
        ("lo:70:70", |r| r.options.host_access = true, &["tcp 10.9.0.2 70", "tcp 127.0.0.1 70"]),
        // from elsewhere, too
        ("em1:70:70", |r| r.options.hairpin = true, &["tcp 198.51.100.1 70"]),
        ("em1:70:70", |r| r.options.host_access = true, &["tcp 127.0.0.1 70", "tcp 198.51.100.1 70"]),
        (
            "em1:70:70",
            |r| r.options.sources = vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            &["em1 192.0.2.0/24 tcp 198.51.100.1 70"],
        ),
        ("em1:70:70", |r| r.options.sources = vec!["<friends>".parse().unwrap()], &["em1 tcp 198.51.100.1 70"]),
        (
            "*:70:70",
            |_| (),
            &[
                "tcp 10.0.0.1 70",
                "tcp 10.1.0.1 70",
                "tcp 10.9.0.2 70",
                "tcp 127.0.0.1 70",
                "tcp 192.0.2.1 70",
                "tcp 192.0.2.7 70",
                "tcp 198.51.100.1 70",
            ],
        ),
        // an interface that the host does not have yet
        ("wg0:70:70", |_| (), &[]),
    ];
    for (spec, set, expected) in rows {
        assert_eq!(of(spec, set), expected, "{spec}");
    }
    // the address of a jail on the host's stack is not the host itself
    let flat = |r: &mut Request| (r.jail, r.addresses) = ("flat".parse().unwrap(), vec![]);
    assert!(!of("*:8100:80", flat).contains(&"tcp 10.9.0.2 8100".to_owned()));
}

/// A publish that is killed after the load leaves it to the next one, also a first publish.
#[test]
fn the_next_call_ends_them() {
    struct Cut(Phase);
    impl Observer for Cut {
        fn phase(&self, phase: Phase) -> Result<()> {
            // unwinds, as a kill does
            if phase == self.0 { std::panic::panic_any("cut off") } else { Ok(()) }
        }
    }
    for phase in [Phase::Load, Phase::Verify, Phase::Kill] {
        let (rig, fake) = (Rig::new(), Fake::new());
        let native = || Native::over(&fake, soon());
        fake.set_states(&[STATES[0].state()]);
        let cut = || rig.with(&native(), &Cut(phase), |p| p.publish(&spec()));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(cut)).is_err());
        let listed = rig.with(&native(), &Unobserved, |p| p.list(None)).unwrap();
        assert!(listed[0].problem.as_ref().is_some_and(|problem| problem.contains("interrupted")), "{listed:?}");
        let done = rig.with(&native(), &Unobserved, |p| p.publish(&spec())).unwrap();
        assert_eq!((done.killed, fake.states()), (1, vec![]), "{phase:?}");
        assert!(rig.with(&native(), &Unobserved, |p| p.list(None)).unwrap()[0].problem.is_none());
    }
}
