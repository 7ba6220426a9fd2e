//! `kport watch`: after any events, and however it is ended, what is published is what kport.conf, what was made by hand, and
//! the running jails say.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::rig;
use crate::support::schema::Schema;
use kport::error::Result;
use kport::host::{Event, Events, Fixed, Jail, Played};
use kport::name::JailName;
use kport::pf::Firewall;
use kport::pf::files::Sim;
use kport::publisher::{Liveness, Publisher, Request, Unobserved};
use kport::session::{Backend, Session, Settings};
use kport::watch::{Report, Watcher, What, counts};
use proptest::prelude::*;
use proptest::sample::select;

/// A source of events that a test fills.
#[derive(Clone)]
struct Fake {
    told: Arc<Mutex<VecDeque<Event>>>,
    tells_jails: bool,
    file: Arc<fs::File>,
}

impl Events for Fake {
    fn tells_jails(&self) -> bool {
        self.tells_jails
    }
    fn next(&mut self, _: Duration) -> Result<Vec<Event>> {
        Ok(self.told.lock().unwrap().drain(..).collect())
    }
    fn wake(&mut self, _: Duration) {}
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A host that changes, a file, and a watcher with a clock of its own.
struct World {
    dir: tempfile::TempDir,
    host: Fixed,
    conf: String,
    events: Fake,
    now: Arc<Mutex<Instant>>,
    watcher: Option<Watcher>,
    jid: i32,
}

impl World {
    fn new(conf: &str, tells_jails: bool) -> World {
        let dir = tempfile::tempdir().unwrap();
        let file = Arc::new(fs::File::open("/dev/null").unwrap());
        let mut host = rig::host();
        host.listeners.clear();
        let events = Fake { told: Arc::default(), tells_jails, file };
        let now = Arc::new(Mutex::new(Instant::now()));
        let mut world = World { dir, host, conf: conf.to_owned(), events, now, watcher: None, jid: 100 };
        world.save();
        world.start_watcher();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn save(&self) {
        save(&self.path("host.json"), &self.host);
        fs::write(self.path("kport.conf"), &self.conf).unwrap();
    }

    fn start_watcher(&mut self) {
        let (host, state, now) = (self.path("host.json"), self.path("state"), Arc::clone(&self.now));
        let open = Box::new(move || {
            let settings = Settings { backend: Backend::Sim, state_dir: Some(state.clone()), ..Settings::default() };
            Session::new(&settings, Box::new(Played::new(&host)?))
        });
        let clock = Box::new(move || *now.lock().unwrap());
        self.watcher = Some(Watcher::new(open, Box::new(self.events.clone()), clock, Some(self.path("kport.conf"))));
    }

    fn tell(&self, event: Event) {
        self.events.told.lock().unwrap().push_back(event);
    }

    /// Steps until nothing is to be done at this moment.
    fn settle(&mut self) -> Vec<Report> {
        let mut reports = vec![];
        let watcher = self.watcher.as_mut().unwrap();
        for _ in 0..100 {
            match watcher.step(Duration::ZERO).unwrap() {
                Some(report) => reports.push(report),
                None if reports.len() > 90 => break,
                None => {}
            }
        }
        reports
    }

    fn time(&self) -> Instant {
        *self.now.lock().unwrap()
    }

    fn pass(&mut self, time: Duration) -> Vec<Report> {
        let end = self.time() + time;
        let mut reports = self.settle();
        while self.time() < end {
            *self.now.lock().unwrap() += Duration::from_millis(500);
            let watcher = self.watcher.as_mut().unwrap();
            for _ in 0..3 {
                reports.extend(watcher.step(Duration::ZERO).unwrap());
            }
        }
        reports
    }

    fn with<T>(&self, act: impl FnOnce(&Publisher<'_>) -> T) -> T {
        let sim = Sim::new(&self.path("state"));
        rig::run(&self.path("state"), &self.host, &sim, &Unobserved, act)
    }

    /// The redirects of each jail; all are in pf.
    fn published(&self) -> BTreeMap<String, BTreeSet<String>> {
        published(&self.path("state"), &self.host)
    }

    fn jail(&mut self, name: &str) -> Option<&mut Jail> {
        self.host.jails.iter_mut().find(|jail| jail.name == name)
    }

    fn stop(&mut self, name: &str) -> Option<i32> {
        let jid = self.jail(name)?.jid;
        self.host.jails.retain(|jail| jail.name != name);
        self.save();
        Some(jid)
    }

    fn start(&mut self, name: &str) {
        if self.jail(name).is_none() {
            self.jid += 1;
            let addresses = if name == "flat" { vec!["10.9.0.2".parse().unwrap()] } else { vec![] };
            let jail =
                Jail { jid: self.jid, name: name.to_owned(), vnet: name != "flat", addresses, ..Jail::default() };
            self.host.jails.push(jail);
            self.save();
        }
    }

    fn addresses(&mut self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.host.vnet_addresses.insert(name.to_owned(), addresses);
        self.save();
    }
}

fn save(path: &Path, host: &Fixed) {
    // as a whole: another process may read it
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_string(host).unwrap()).unwrap();
    fs::rename(new, path).unwrap();
}

fn published(state: &Path, host: &Fixed) -> BTreeMap<String, BTreeSet<String>> {
    let sim = Sim::new(state);
    let list = rig::run(state, host, &sim, &Unobserved, |p| p.list(None)).unwrap();
    let mut all = BTreeMap::new();
    for listed in list {
        if listed.redirects.is_empty() {
            continue;
        }
        assert_eq!((listed.liveness, &listed.problem), (Liveness::Live, &None), "{:?}", listed.jail);
        let redirects = listed.redirects.iter().map(|(r, _)| r.to_string()).collect();
        all.insert(listed.jail.unwrap().to_string(), redirects);
    }
    all
}

fn what(reports: &[Report]) -> Vec<(What, Option<&str>)> {
    reports.iter().map(|report| (report.what, report.jail.as_ref().map(JailName::as_str))).collect()
}

const CONF: &str = "web 8080:80\ndb 5432\nflat 8090:80\n";

#[test]
fn the_first_step_makes_everything_true() {
    let mut world = World::new(CONF, true);
    let reports = world.settle();
    let all = [(What::Published, Some("db")), (What::Published, Some("flat")), (What::Published, Some("web"))];
    assert_eq!(what(&reports), all);
    assert_eq!(world.published().len(), 3);
    // idle: nothing is done
    assert_eq!(world.pass(Duration::from_secs(60)), []);
    // a second one has nothing to do, and the counts go on
    world.start_watcher();
    assert_eq!(world.pass(Duration::from_secs(20)), []);
    let counted = world.with(|_| counts(&kport::store::Store::open(&world.path("state")).unwrap()));
    assert_eq!(counted, BTreeMap::from([("published".to_owned(), 3)]));
}

#[test]
fn a_jail_that_is_gone_is_closed_at_the_event_and_without_one_soon() {
    for (tells_jails, told, within) in [(true, true, 0), (true, false, 10), (false, false, 2)] {
        let mut world = World::new(CONF, tells_jails);
        world.pass(Duration::from_secs(5));
        let jid = world.stop("flat").unwrap();
        if told {
            world.tell(Event::Jail(jid));
        }
        let reports = if within == 0 { world.settle() } else { world.pass(Duration::from_secs(within)) };
        assert_eq!(what(&reports), [(What::Unpublished, Some("flat"))], "{tells_jails} {told}");
        assert!(reports[0].after.is_empty() && reports[0].before.len() == 1 && reports[0].why.contains("gone"));
        assert_eq!(world.published().len(), 2);
    }
}

#[test]
fn a_jail_that_starts_is_published_when_it_has_an_address() {
    let mut world = World::new(CONF, true);
    world.stop("web");
    world.addresses("web", &[]);
    world.pass(Duration::from_secs(5));
    world.start("web");
    world.tell(Event::Jails);
    assert_eq!(world.settle(), [], "it has no address for a moment");
    let jid = world.jail("web").unwrap().jid;
    world.addresses("web", &["10.0.0.20"]);
    world.tell(Event::Network(jid));
    let reports = world.pass(Duration::from_secs(2));
    assert_eq!(what(&reports), [(What::Published, Some("web"))]);
    // one that never gets one is reported once
    world.addresses("web", &[]);
    world.tell(Event::Network(jid));
    let reports = world.pass(Duration::from_secs(300));
    assert_eq!(what(&reports), [(What::Unpublished, Some("web")), (What::Failed, Some("web"))]);
    assert!(reports[1].error.as_ref().unwrap().contains("has no address"), "{reports:?}");
    world.addresses("web", &["10.0.0.21", "fd00::21"]);
    let reports = world.pass(Duration::from_secs(70));
    assert_eq!(what(&reports), [(What::Published, Some("web"))]);
    assert_eq!(reports[0].after.len(), 2);
}

#[test]
fn what_pf_loses_is_loaded_and_pf_that_does_not_work_is_told_once() {
    let mut world = World::new(CONF, true);
    world.pass(Duration::from_secs(5));
    let sim = Sim::new(&world.path("state"));
    for jail in ["web", "db"] {
        sim.replace(&jail.parse::<JailName>().unwrap().anchor(), &[]).unwrap();
    }
    let reports = world.pass(Duration::from_secs(3));
    assert_eq!(what(&reports), [(What::Restored, Some("db")), (What::Restored, Some("web"))]);
    assert_eq!(world.published().len(), 3);
}

#[test]
fn what_was_changed_by_hand_is_made_what_the_file_says_and_the_rest_stays() {
    let mut world = World::new(CONF, true);
    world.pass(Duration::from_secs(5));
    let before = world.published();
    world.with(|p| p.unpublish(&"web".parse().unwrap(), None)).unwrap();
    let by_hand = rig::request("db", "9000:90");
    world.with(|p| p.publish(&by_hand)).unwrap();
    // a stop hook may have done that
    world.pass(Duration::from_secs(12));
    assert!(!world.published().contains_key("web"));
    world.pass(Duration::from_secs(40));
    let after = world.published();
    assert_eq!(after["web"], before["web"]);
    assert!(after["db"].len() == 2 && after["db"].is_superset(&before["db"]), "{after:?}");
}

#[test]
fn the_file_is_read_again_when_it_is_asked_for() {
    let mut world = World::new(CONF, true);
    world.pass(Duration::from_secs(5));
    world.conf = "web 8081:80\ndb 8080:80\n".to_owned();
    world.save();
    assert_eq!(world.pass(Duration::from_secs(30)), [], "not before");
    world.watcher.as_mut().unwrap().reload();
    world.settle();
    let now = world.published();
    assert!(
        now["db"].iter().all(|r| r.contains("8080")) && now["web"].iter().all(|r| r.contains("8081")) && now.len() == 2
    );
    // a file with a mistake changes nothing
    world.conf = "web nonsense\n".to_owned();
    world.save();
    world.watcher.as_mut().unwrap().reload();
    let reports = world.settle();
    assert_eq!(what(&reports), [(What::Failed, None)]);
    assert!(reports[0].error.as_ref().unwrap().contains("kport.conf:1: "), "{reports:?}");
    assert_eq!(world.published(), now);
}

/// What happens, each with whether an event tells it.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Start(&'static str),
    Stop(&'static str),
    Restart(&'static str),
    Addresses(&'static str, &'static [&'static str]),
    Gateway(Option<&'static str>),
    Flush(&'static str),
    Conf(usize),
    ByHand(&'static str),
    Unpublish(&'static str),
    /// The watcher is killed, and started again.
    Kill,
    Pass(u64),
    /// An event about nothing.
    Noise(Event),
}

const CONFS: [&str; 4] = [
    CONF,
    "",
    "web 8081:80 8080:81 --log\n/^(db|flat)$/ auto:80\n",
    "db 8080:80\nweb 5432\nguest 7000 --no-jail -a 10.0.0.9\n",
];
const JAILS: [&str; 3] = ["web", "db", "flat"];

fn happens() -> impl Strategy<Value = (Happens, bool)> {
    let jail = || select(JAILS.to_vec());
    let vnet = || select(vec!["web", "db"]);
    let web: Vec<&'static [&'static str]> = vec![&[], &["10.0.0.2"], &["10.0.0.12", "fd00::12"], &["192.0.2.77"]];
    let db: Vec<&'static [&'static str]> = vec![&[], &["10.0.0.3"], &["10.0.0.13", "fd00::13"], &["10.0.0.1"]];
    let event = prop_oneof![
        Just(Event::Jails),
        Just(Event::Routes),
        (0..110).prop_map(Event::Jail),
        (0..110).prop_map(Event::Network)
    ];
    let happens = prop_oneof![
        jail().prop_map(Happens::Start),
        jail().prop_map(Happens::Stop),
        jail().prop_map(Happens::Restart),
        select(web).prop_map(|addresses| Happens::Addresses("web", addresses)),
        select(db).prop_map(|addresses| Happens::Addresses("db", addresses)),
        select(vec![None, Some("em0"), Some("em1")]).prop_map(Happens::Gateway),
        jail().prop_map(Happens::Flush),
        (0..CONFS.len()).prop_map(Happens::Conf),
        vnet().prop_map(Happens::ByHand),
        jail().prop_map(Happens::Unpublish),
        Just(Happens::Kill),
        (0u64..3000).prop_map(Happens::Pass),
        event.prop_map(Happens::Noise),
    ];
    (happens, any::<bool>())
}

/// What was made by hand for this start of a jail.
type ByHand = BTreeMap<&'static str, Request>;

fn happen(world: &mut World, by_hand: &mut ByHand, what: Happens) -> Option<Event> {
    match what {
        Happens::Start(jail) => {
            world.start(jail);
            Some(Event::Jails)
        }
        Happens::Stop(jail) => {
            by_hand.remove(jail);
            world.stop(jail).map(Event::Jail)
        }
        Happens::Restart(jail) => {
            by_hand.remove(jail);
            let event = world.stop(jail).map(Event::Jail);
            world.start(jail);
            event
        }
        Happens::Addresses(jail, addresses) => {
            world.addresses(jail, addresses);
            world.jail(jail).map(|jail| Event::Network(jail.jid))
        }
        Happens::Gateway(name) => {
            let interface = name.map(|name| name.parse().unwrap());
            (world.host.gateway.inet, world.host.gateway.inet6) = (interface, interface);
            world.save();
            Some(Event::Routes)
        }
        Happens::Flush(jail) => {
            let sim = Sim::new(&world.path("state"));
            sim.replace(&jail.parse::<JailName>().unwrap().anchor(), &[]).unwrap();
            None
        }
        Happens::Conf(number) => {
            world.conf = CONFS[number].to_owned();
            world.save();
            world.watcher.as_mut().unwrap().reload();
            None
        }
        Happens::ByHand(jail) => {
            let request = rig::request(jail, if jail == "web" { "9000:90" } else { "9001:91" });
            if world.jail(jail).is_some() && world.with(|p| p.publish(&request)).is_ok() {
                by_hand.insert(jail, request);
            }
            None
        }
        Happens::Unpublish(jail) => {
            by_hand.remove(jail);
            world.with(|p| p.unpublish(&jail.parse().unwrap(), None)).unwrap();
            None
        }
        Happens::Kill => {
            world.start_watcher();
            None
        }
        Happens::Pass(time) => {
            world.pass(Duration::from_millis(time));
            None
        }
        Happens::Noise(event) => Some(event),
    }
}

/// What a publish into an empty state directory makes of the same host, file and requests by hand.
fn expected(world: &World, by_hand: &ByHand) -> BTreeMap<String, BTreeSet<String>> {
    let state = tempfile::tempdir().unwrap();
    let conf = kport::conf::Conf::parse("f", &world.conf).unwrap();
    let sim = Sim::new(state.path());
    let targets = JAILS.iter().filter(|name| world.host.jails.iter().any(|jail| jail.name == **name)).chain(&["guest"]);
    for name in targets {
        let mut requests = conf.requests(&name.parse().unwrap());
        requests.extend(by_hand.get(name).cloned());
        if !requests.is_empty() {
            // without an address there is nothing
            _ = rig::run(state.path(), &world.host, &sim, &Unobserved, |p| p.publish_all(&requests));
        }
    }
    published(state.path(), &world.host)
}

fn run(tells_jails: bool, all: &[(Happens, bool)]) {
    let mut world = World::new(CONF, tells_jails);
    let mut by_hand = ByHand::new();
    world.settle();
    for (what, told) in all {
        if let Some(event) = happen(&mut world, &mut by_hand, *what)
            && *told
        {
            world.tell(event);
        }
        world.watcher.as_mut().unwrap().step(Duration::ZERO).unwrap();
    }
    // with no default route, what was published by another one stays
    if world.host.gateway.inet.is_none() {
        happen(&mut world, &mut by_hand, Happens::Gateway(Some("em0")));
    }
    world.pass(Duration::from_secs(150));
    assert_eq!(world.published(), expected(&world, &by_hand));
    let reports = world.pass(Duration::from_secs(60));
    assert!(reports.iter().all(|report| report.what == What::Failed), "{reports:?}");
}

/// A reload follows what no look has seen.
#[test]
fn what_changes_back_between_two_looks() {
    run(false, &[(Happens::Gateway(Some("em1")), false), (Happens::Conf(0), false), (Happens::Gateway(None), false)]);
}

/// The exchange cannot be made when the file is read.
#[test]
fn ports_are_exchanged_later() {
    run(false, &[(Happens::Gateway(None), false), (Happens::Conf(3), false)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_events_in_any_order_and_lost_ones(
        tells_jails in any::<bool>(),
        all in prop::collection::vec(happens(), 1..16),
    ) {
        run(tells_jails, &all);
    }
}

/// The program itself.
struct Daemon(Child);

impl Daemon {
    fn start(world: &World) -> Daemon {
        let child = Command::new(env!("CARGO_BIN_EXE_kport"))
            .args(["--backend", "sim", "watch", "--json", "--host"])
            .arg(world.path("host.json"))
            .arg("--config")
            .arg(world.path("kport.conf"))
            .env_clear()
            .env("KPORT_STATE_DIR", world.path("state"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Daemon(child)
    }

    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[test]
fn the_program_prints_what_it_does_and_leaves_it_when_it_ends() {
    let mut world = World::new(CONF, false);
    let mut daemon = Daemon::start(&world);
    let mut lines = BufReader::new(daemon.0.stdout.take().unwrap()).lines();
    let schema = Schema::new("watch");
    let mut next = || -> (String, String) {
        let line: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        schema.holds_for(&line);
        (line["what"].as_str().unwrap().to_owned(), line["jail"].as_str().unwrap_or_default().to_owned())
    };
    let of = |what: &str, jail: &str| (what.to_owned(), jail.to_owned());
    for jail in ["db", "flat", "web"] {
        assert_eq!(next(), of("published", jail));
    }
    world.stop("flat");
    assert_eq!(next(), of("unpublished", "flat"));
    world.conf = "web 8081:80\n".to_owned();
    world.save();
    daemon.signal("-HUP");
    assert_eq!(next(), of("unpublished", "db"));
    assert_eq!(next(), of("changed", "web"));
    daemon.signal("-TERM");
    assert!(daemon.0.wait().unwrap().success());
    assert_eq!(world.published().len(), 1);
}

/// Killed again and again while jails come and go; then one goes on.
#[test]
fn a_kill_at_any_moment() {
    let mut world = World::new(CONF, false);
    for round in 0..30u64 {
        let daemon = Daemon::start(&world);
        std::thread::sleep(Duration::from_millis(round * 7 % 40));
        match round % 5 {
            0 => _ = world.stop("web"),
            1 => world.start("web"),
            2 => world.addresses("db", &[["10.0.0.3", "10.0.0.33"][(round / 5 % 2) as usize]]),
            3 => world.conf = CONFS[(round / 5 % 4) as usize].to_owned(),
            _ => _ = happen(&mut world, &mut ByHand::new(), Happens::Flush("db")),
        }
        world.save();
        std::thread::sleep(Duration::from_millis(round * 11 % 40));
        drop(daemon);
    }
    let daemon = Daemon::start(&world);
    let end = Instant::now() + Duration::from_secs(20);
    let expected = expected(&world, &ByHand::new());
    let is_done =
        || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.published())).is_ok_and(|p| p == expected);
    while !is_done() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(daemon);
    assert_eq!(world.published(), expected);
}

#[test]
fn a_line_and_a_document() {
    let report = Report {
        jail: Some("wéb".parse().unwrap()),
        why: "the jail is gone".to_owned(),
        time: 7,
        ..Report::new(What::Unpublished)
    };
    assert_eq!(report.to_string(), "jail \"wéb\": unpublished: the jail is gone");
    assert_eq!(
        report.json(),
        "{\"after\":[],\"before\":[],\"error\":null,\"jail\":\"w\\u00e9b\",\"notes\":[],\"time\":7,\"version\":1,\
         \"what\":\"unpublished\",\"why\":\"the jail is gone\"}"
    );
    let read: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(read["jail"], "wéb");
    let failed = Report { error: Some("no address".to_owned()), ..report };
    assert_eq!(failed.to_string(), "jail \"wéb\": no address");
}
