//! A narrower publication ends the connections that it does not allow any more, and no others.

use std::time::Duration;

use kport::deadline::Deadline;
use kport::net::{Family, Interface};
use kport::options::Options;
use kport::pf::Firewall;
use kport::pf::native::Native;
use kport::pf::pfctl::{Helpers, Pfctl};
use kport::publisher::{Request, Unobserved, shut_out};

use crate::support::fake_kernel::{Fake, State};
use crate::support::rig::{Rig, request};
use crate::support::standin;

/// Where a connection came in, its source and its destination, and the target if it was redirected.
struct Row(&'static str, &'static str, &'static str, Option<&'static str>);

const FRIEND: Row = Row("em0", "192.0.2.100:40000", "192.0.2.1:8080", Some("10.0.0.2:80"));
const STRANGER: Row = Row("em0", "203.0.113.9:40000", "192.0.2.1:8080", Some("10.0.0.2:80"));
const STRANGER6: Row = Row("em0", "[2001:db8::9]:40000", "[2001:db8::1]:8080", Some("[fd00::2]:80"));
const JAIL: Row = Row("bridge1", "10.1.0.2:40000", "192.0.2.1:8080", Some("10.0.0.2:80"));
const HOST: Row = Row("lo0", "192.0.2.1:40000", "192.0.2.1:8080", Some("10.0.0.2:80"));
/// To the jail itself, from another bridge and from its own.
const DIRECT: Row = Row("bridge1", "10.1.0.2:40001", "10.0.0.2:80", None);
const NEAR: Row = Row("bridge0", "10.0.0.3:40001", "10.0.0.2:80", None);
/// Another mapping.
const OTHER: Row = Row("em0", "192.0.2.100:40000", "192.0.2.1:9090", Some("10.0.0.2:90"));
const ALL: [&Row; 8] = [&FRIEND, &STRANGER, &STRANGER6, &JAIL, &HOST, &DIRECT, &NEAR, &OTHER];

impl Row {
    fn state(&self) -> State {
        let socket = |text: &str| text.parse::<std::net::SocketAddr>().unwrap();
        let (from, to) = (socket(self.1), socket(self.2));
        let redirected = self.3.map(|target| socket(target).ip());
        State { on: self.0, from: from.ip(), to: to.ip(), redirected, ..State::new("kport:web", 6, to.port()) }
    }

    /// As pfctl(8) prints it, with the interface.
    fn line(&self) -> String {
        let host = |text: &str| match text.strip_prefix('[') {
            Some(v6) => v6.replace("]:", "[") + "]",
            None => text.to_owned(),
        };
        let to = match self.3 {
            Some(target) => format!("{} ({})", host(target), host(self.2)),
            None => host(self.2),
        };
        format!("{} tcp {to} <- {}       ESTABLISHED:ESTABLISHED", self.0, host(self.1))
    }
}

fn wide() -> Options {
    Options { hairpin: true, host_access: true, ..Options::default() }
}

fn reach(names: &[&str]) -> Vec<Interface> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// Publishes with `before`, then with `now`: the connections that end.
fn narrowed(place: &str, before: &Options, now: &Options) -> Vec<&'static Row> {
    let web = |options: &Options| Request {
        options: options.clone(),
        ..request("web", &format!("{place}:8080:80 em0:9090:90"))
    };
    let deadline = || Deadline::after(Duration::from_secs(60));
    // the way out to the jail of a connection that stays
    let way_out = State { on: "bridge0", ..Row("", FRIEND.1, "10.0.0.2:80", None).state() };

    let (rig, fake) = (Rig::new(), Fake::new());
    let publish = |firewall: &dyn Firewall, options: &Options| {
        rig.with(firewall, &Unobserved, |p| p.publish(&web(options))).unwrap().killed
    };
    publish(&Native::over(&fake, deadline()), before);
    let states: Vec<State> = ALL.iter().map(|row| row.state()).chain([way_out.clone()]).collect();
    fake.set_states(&states);
    publish(&Native::over(&fake, deadline()), now);
    let left = fake.states();
    let ended: Vec<&Row> = ALL.into_iter().filter(|row| !left.contains(&row.state())).collect();
    assert_eq!(left.contains(&way_out), left.contains(&FRIEND.state()), "the way out to the jail");

    let (rig, pf) = (Rig::new(), standin::Pfctl::new());
    let publish = |options: &Options| {
        let firewall = Pfctl::new(pf.program(), deadline())
            .with(Helpers { skipped: Some(Box::new(|| Some(vec![]))), ..Helpers::default() });
        rig.with(&firewall, &Unobserved, |p| p.publish(&web(options))).unwrap().killed
    };
    publish(before);
    let label = "kport:web kport:web:tcp:8080".to_owned();
    // after each connection the way out to the jail, which is no connection of its own
    let out = "bridge0 tcp 192.0.2.100:40000 -> 10.0.0.2:80       ESTABLISHED:ESTABLISHED".to_owned();
    let lines = ALL.iter().flat_map(|row| [row.line(), out.clone()]);
    let lines: Vec<String> = lines.chain([label]).collect();
    pf.set_states(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let before = pf.calls().len();
    let killed = publish(now);
    let left = pf.states();
    // one run for each connection that ends, whatever interfaces there are
    let runs = pf.calls()[before..].iter().filter(|call| call.contains("-k key")).count();
    assert_eq!(runs as u64, killed);
    let same: Vec<&Row> = ALL.into_iter().filter(|row| !left.contains(&row.line())).collect();
    assert_eq!(
        same.iter().map(|row| row.line()).collect::<Vec<_>>(),
        ended.iter().map(|row| row.line()).collect::<Vec<_>>()
    );
    ended
}

#[test]
fn only_what_is_not_allowed_any_more_ends() {
    let sources = |text: &str| vec![text.parse().unwrap()];
    let rows: [(&str, Options, Options, &[&Row]); 9] = [
        ("em0", wide(), Options { log: true, ..wide() }, &[]),
        ("em0", wide(), Options { sources: sources("192.0.2.0/24"), ..wide() }, &[&STRANGER, &STRANGER6]),
        (
            "em0",
            Options { sources: sources("0.0.0.0/0"), ..wide() },
            Options { sources: sources("192.0.2.100"), ..wide() },
            &[&STRANGER],
        ),
        // jails and the host have rules of their own
        ("192.0.2.1", wide(), Options { sources: sources("192.0.2.0/24"), ..wide() }, &[&STRANGER]),
        ("em0", wide(), Options { hairpin: false, ..wide() }, &[&JAIL]),
        ("em0", wide(), Options { host_access: false, ..wide() }, &[&HOST]),
        // without `on` and without sources the rule is for all of them
        ("192.0.2.1", wide(), Options::default(), &[]),
        ("em0", wide(), Options { reach: reach(&["bridge0"]), ..wide() }, &[&JAIL, &DIRECT]),
        ("em0", wide(), Options { reach: vec![], hairpin: false, ..wide() }, &[&JAIL, &DIRECT, &NEAR]),
    ];
    for (place, before, now, ends) in rows {
        let ended = narrowed(place, &before, &now);
        let names = |rows: &[&Row]| rows.iter().map(|row| row.line()).collect::<Vec<_>>();
        assert_eq!(names(&ended), names(ends), "{place} {before:?} {now:?}");
    }
}

/// Which connections exceed a lower limit is not known, and a list of sources that would need too many searches of the state table
/// is not worth them.
#[test]
fn in_doubt_all_of_the_mapping_ends() {
    let limited = {
        let mut limited = wide();
        limited.limits.connections = Some(9.try_into().unwrap());
        limited
    };
    let scattered = |n: u8| format!("{}.0.2.1", 2 * n).parse().unwrap();
    let many = Options { sources: (1..60).map(scattered).collect(), ..wide() };
    for now in [limited, many] {
        let (rig, fake) = (Rig::new(), Fake::new());
        let web = |options: &Options| Request { options: options.clone(), ..request("web", "8080:80") };
        let native = Native::over(&fake, Deadline::after(Duration::from_secs(60)));
        rig.with(&native, &Unobserved, |p| p.publish(&web(&wide()))).unwrap();
        fake.set_states(&ALL.map(Row::state));
        rig.with(&native, &Unobserved, |p| p.publish(&web(&now))).unwrap();
        let redirected = [FRIEND.state(), STRANGER.state(), STRANGER6.state(), JAIL.state(), HOST.state()];
        assert!(!fake.states().iter().any(|state| redirected.contains(state)), "{now:?}");
    }
}

/// pfctl(8) prints both families of such a state, which no line above is like.
#[test]
fn pfctl_ends_all_connections_of_a_mapping_with_af_to() {
    let (rig, pf) = (Rig::new(), standin::Pfctl::new());
    let publish = |sources: &[&str]| {
        let sources = sources.iter().map(|text| text.parse().unwrap()).collect();
        let options = Options { af_to: true, sources, ..Options::default() };
        let firewall = Pfctl::new(pf.program(), Deadline::after(Duration::from_secs(60)));
        rig.with(&firewall, &Unobserved, |p| p.publish(&Request { options, ..request("db", "8080:80") }))
            .unwrap()
            .killed
    };
    publish(&[]);
    let printed = "all tcp 10.0.0.1:49263 (2001:db8::100[49263]) -> 10.0.0.3:80 (2001:db8::1[8080])       ESTABLISHED:ESTABLISHED";
    pf.set_states(&["kport:db kport:db:tcp:8080", printed]);
    assert_eq!(publish(&["2001:db8:ffff::/48"]), 1);
    assert_eq!(pf.states(), [printed], "the stand-in has the labels of a state, or its line");
}

#[test]
fn those_who_are_shut_out() {
    use Family::{Inet, Inet6};
    fn read<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> Vec<T> {
        text.split_whitespace().map(|word| word.parse().unwrap()).collect()
    }
    for (before, now, others, family, expected) in [
        ("", "192.0.2.0/24", "", Inet, "!192.0.2.0/24"),
        ("", "192.0.2.0/24 2001:db8::/32", "", Inet, "!192.0.2.0/24"),
        ("", "192.0.2.0/24", "", Inet6, "::/0"),
        ("", "192.0.2.1 192.0.2.2", "", Inet, "!192.0.2.0/30 192.0.2.0/32 192.0.2.3/32"),
        ("192.0.2.0/24 198.51.100.0/24", "192.0.2.0/24", "", Inet, "198.51.100.0/24"),
        ("192.0.2.0/24", "192.0.2.0/25", "", Inet, "192.0.2.128/25"),
        ("", "0.0.0.0/1 192.0.0.0/2", "", Inet, "128.0.0.0/2"),
        // those with a rule of their own
        ("", "10.0.0.0/25", "10.0.0.128/25", Inet, "!10.0.0.0/24"),
        // a table that stays has whom it had; one that was taken away may have had everybody
        ("<a> 192.0.2.0/24", "<a>", "", Inet, "192.0.2.0/24"),
        ("<a> 192.0.2.0/24", "192.0.2.0/24", "", Inet, "!192.0.2.0/24"),
        ("", "<a>", "", Inet, "0.0.0.0/0"),
    ] {
        let found = shut_out(&read(before), &read(now), read(others), family).into_iter();
        let found = found.map(|from| format!("{}{}", if from.not { "!" } else { "" }, from.network));
        assert_eq!(found.collect::<Vec<_>>().join(" "), expected, "{before} -> {now}");
    }
}
