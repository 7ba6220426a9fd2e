//! kport.conf: its lines in hooks, `kport apply`, `kport check`, and what follows a jail that changes.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use crate::support::rig::{Rig, host, request};
use crate::support::standin;
use kport::conf::{self, Conf};
use kport::deadline::Deadline;
use kport::error::{Kind, Result};
use kport::host::Fixed;
use kport::name::JailName;
use kport::pf::Firewall;
use kport::pf::pfctl::Pfctl;
use kport::publisher::{Liveness, Outcome, Unobserved};

/// A host, a file, a state directory, and the helper.
struct World {
    dir: tempfile::TempDir,
    host: Fixed,
}

impl World {
    fn new(conf: &str) -> World {
        let world = World { dir: tempfile::tempdir().unwrap(), host: host() };
        world.write(conf);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, conf: &str) {
        fs::write(self.path("kport.conf"), conf).unwrap();
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        fs::write(self.path("host.json"), serde_json::to_string(&self.host).unwrap()).unwrap();
        Command::new(env!("CARGO_BIN_EXE_kport"))
            .args(["--backend", "sim", "--host"])
            .arg(self.path("host.json"))
            .arg("--config")
            .arg(self.path("kport.conf"))
            .args(arguments)
            .env_clear()
            .env("KPORT_STATE_DIR", self.path("state"))
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }

    /// Standard output of a success.
    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        self.ok_with(arguments, &[])
    }

    #[track_caller]
    fn ok_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> String {
        let output = self.run(arguments, environment);
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {err}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Standard error of a failure.
    #[track_caller]
    fn fails(&self, arguments: &[&str], status: i32) -> String {
        let output = self.run(arguments, &[]);
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {err}");
        err
    }

    /// What is published, a line each: the jail, the host's port and place, the target.
    fn list(&self) -> Vec<String> {
        let lines = self.ok(&["list"]);
        lines.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }
}

const HOOK: [(&str, &str); 2] = [("JNAME", "db"), ("JID", "3")];

#[test]
fn a_hook_without_ports_publishes_the_lines_of_its_jail() {
    let world = World::new("web 8080:80\ndb 5432 --sources 192.0.2.0/24\n/^d/ auto:22\n");
    let told = world.ok_with(&["publish", "--hook"], &HOOK);
    assert!(told.contains("tcp 5432 on em0 -> 10.0.0.3:5432") && told.lines().count() == 2, "{told}");
    assert_eq!(world.list().len(), 2);
    // the same again changes nothing; a line that is gone is unpublished
    world.ok_with(&["publish", "--hook"], &HOOK);
    world.write("db 5432 --sources 192.0.2.0/24\n");
    world.ok_with(&["publish", "--hook"], &HOOK);
    assert_eq!(world.list(), ["db tcp em0 5432 10.0.0.3:5432 live"]);
    // as is the name on the command line
    world.ok(&["publish", "--hook", "web"]);
    assert_eq!(world.list().len(), 1, "web has no line");
    world.ok_with(&["unpublish", "--hook"], &HOOK);
    assert_eq!(world.list(), [""; 0]);
}

/// exec.prestart, with the address in the file; an error without it, as with ports.
#[test]
fn a_hook_before_the_jail_exists() {
    let mut world = World::new("db 5432 -a 10.0.0.3\n");
    world.host.jails.retain(|jail| jail.name != "db");
    world.ok_with(&["publish", "--hook"], &[("JNAME", "db")]);
    assert_eq!(world.list(), ["db tcp em0 5432 10.0.0.3:5432 live"]);
    world.write("db 5432\n");
    let error = world.run(&["publish", "--hook"], &[("JNAME", "db")]);
    assert!(!error.status.success() && String::from_utf8_lossy(&error.stderr).contains("is not running here"));
}

#[test]
fn a_hook_without_ports_and_without_lines_does_nothing() {
    let world = World::new("web 8080:80\n");
    assert_eq!(world.ok_with(&["publish", "--hook"], &HOOK), "");
    assert_eq!(world.list(), [""; 0]);
    // exec.prepare
    world.ok_with(&["publish", "--hook", "--dry-run"], &HOOK);
    let error = world.run(&["publish", "--hook", "--log"], &HOOK);
    assert!(String::from_utf8_lossy(&error.stderr).contains("--log needs the ports"));
    world.ok_with(&["publish", "--hook", "--wait", "1"], &HOOK);
    world.write("db 8080:x\n");
    let error = world.run(&["publish", "--hook"], &HOOK);
    assert!(String::from_utf8_lossy(&error.stderr).contains("kport.conf:1: at byte 8"), "{error:?}");
}

/// An address that the manager gives to the hook stays that of the line.
#[test]
fn the_managers_address_stays_when_the_file_is_applied() {
    let mut world = World::new("db 5432\n");
    world.host.vnet_addresses.insert("db".to_owned(), vec!["203.0.113.9".parse().unwrap()]);
    let pot = [("_POT_NAME", "db"), ("_POT_JID", "3"), ("_POT_IP", "10.0.0.77")];
    world.ok_with(&["publish", "--hook"], &pot);
    let published = ["db tcp em0 5432 10.0.0.77:5432 live"];
    assert_eq!(world.list(), published);
    assert_eq!(world.ok(&["apply", "--dry-run"]), "");
    world.ok(&["apply"]);
    assert_eq!(world.list(), published);
}

#[test]
fn apply_makes_what_runs_what_the_file_says() {
    let world = World::new("web 8080:80 8081:81\ndb 5432\nnone 9999\n");
    world.ok(&["apply"]);
    let all = [
        "db tcp em0 5432 10.0.0.3:5432 live",
        "web tcp em0 8080 10.0.0.2:80 live",
        "web tcp em0 8080 [fd00::2]:80 live",
        "web tcp em0 8081 10.0.0.2:81 live",
        "web tcp em0 8081 [fd00::2]:81 live",
    ];
    assert_eq!(world.list(), all);
    let json = world.ok(&["apply", "--json"]);
    assert!(json.contains("\"changed\": false"), "{json}");
    // by hand
    world.ok(&["publish", "--add", "web", "9000:90", "--family", "inet"]);
    world.write("web 8081:81\ndb 5432 --log\n");
    assert_eq!(
        world.ok(&["apply", "--dry-run"]),
        "kport publish --add db 5432 --log\nkport unpublish web 8080:80/tcp\nkport publish --add web 8081:81\n",
        "the line changed, its port 8081 did not"
    );
    world.ok(&["apply"]);
    let left = [
        "db tcp em0 5432 10.0.0.3:5432 live",
        "web tcp em0 9000 10.0.0.2:90 live",
        "web tcp em0 8081 10.0.0.2:81 live",
        "web tcp em0 8081 [fd00::2]:81 live",
    ];
    let (mut now, mut expected) = (world.list(), left.map(str::to_owned).to_vec());
    now.sort();
    expected.sort();
    assert_eq!(now, expected);
    assert_eq!(world.ok(&["apply", "--dry-run"]), "");
    // one jail alone
    world.write("");
    world.ok(&["apply", "db"]);
    assert!(!world.list().iter().any(|line| line.starts_with("db")) && world.list().len() == 3);
    world.ok(&["apply"]);
    assert_eq!(world.list(), ["web tcp em0 9000 10.0.0.2:90 live"]);
}

#[test]
fn the_commands_of_a_dry_run_publish_the_same() {
    let world = World::new(
        "web 8080:80 --sources <friends>\ndb em1:5432:5432 --host-access --no-quick\nguest 81 --no-jail -a 10.0.0.9\n",
    );
    world.ok(&["apply"]);
    let applied = world.list();
    for jail in ["web", "db", "guest"] {
        world.ok(&["unpublish", jail]);
    }
    for command in world.ok(&["apply", "--dry-run"]).lines() {
        let words: Vec<&str> = command.split(' ').skip(1).map(|word| word.trim_matches('\'')).collect();
        world.ok(&words);
    }
    assert_eq!(world.list(), applied);
    assert_eq!(applied.len(), 4);
}

/// What a flush removed, and what nobody has recorded.
#[test]
fn apply_loads_what_pf_lost_and_removes_what_is_not_recorded() {
    let world = World::new("web 8080:80\ndb 5432\n");
    world.ok(&["apply"]);
    let applied = world.list();
    let sim = |anchor: &str| world.path(&format!("state/sim/{anchor}.json"));
    fs::copy(sim("db"), sim("nobody")).unwrap();
    fs::copy(sim("db"), sim("long+0123456789abcdef0123456789abcdef")).unwrap();
    fs::remove_file(sim("web")).unwrap();
    assert_eq!(world.ok(&["apply", "--dry-run"]), "kport apply\nkport unpublish nobody\nkport apply web\n");
    assert_eq!(world.ok(&["apply", "--dry-run", "web"]), "kport apply web\n");
    world.ok(&["apply", "web"]);
    assert!(sim("web").exists() && sim("nobody").exists());
    // the words of earlier versions
    world.ok(&["gc"]);
    assert_eq!(world.list(), applied);
    assert_eq!(world.ok(&["apply", "--dry-run"]), "");
}

#[test]
fn ports_move_from_one_jail_to_another_and_are_exchanged() {
    let world = World::new("web 8080:80 8082:82 --family inet\ndb 8081:80\n");
    world.ok(&["apply"]);
    world.write("web 8081:80 8082:82 --family inet\ndb 8080:80\n");
    world.ok(&["apply"]);
    let exchanged =
        ["db tcp em0 8080 10.0.0.3:80 live", "web tcp em0 8081 10.0.0.2:80 live", "web tcp em0 8082 10.0.0.2:82 live"];
    assert_eq!(world.list(), exchanged);
    world.write("db 8080:80 8081:80 8082:80\n");
    world.ok(&["apply"]);
    assert_eq!(world.list().len(), 3);
    // a conflict with what was made by hand is reported, and the others are done
    world.ok(&["publish", "web", "9000:80"]);
    world.write("db 9000:80\nflat 8090:80\n");
    let error = world.fails(&["apply"], 3);
    assert!(error.contains("jail \"db\"") && error.contains("published by jail \"web\""), "{error}");
    assert!(world.list().contains(&"flat tcp em0 8090 10.9.0.2:80 live".to_owned()));
}

/// A file that cannot be read is an error, but what needs no file is done.
#[test]
fn a_broken_file_keeps_nobody_from_the_rest() {
    let mut world = World::new("web 8080:80\ndb 5432\n");
    world.ok(&["apply"]);
    world.host.jails.retain(|jail| jail.name != "db");
    world.write("web 8080:80\nweb nonsense\n");
    let error = world.fails(&["apply"], 2);
    assert!(error.contains("kport.conf:2: "), "{error}");
    assert_eq!(world.list().len(), 2);
    assert!(world.list().iter().all(|line| line.starts_with("web")));
    assert!(world.fails(&["apply", "--dry-run"], 2).contains("kport.conf:2: "));
    fs::remove_file(world.path("kport.conf")).unwrap();
    let error = world.fails(&["apply"], 1);
    assert!(error.contains("there is no file /") && world.list().len() == 2, "{error}");
}

#[test]
fn check_says_what_is_wrong_with_every_line() {
    let world = World::new("web 8080:80\ndb *:8080:80\nflat em9:81:81\n");
    let error = world.fails(&["check"], 3);
    let found: Vec<&str> = error.lines().collect();
    assert_eq!(found.len(), 2, "{error}");
    assert!(found.iter().any(|line| line.contains("kport.conf:3: ") && line.contains("em9")), "{error}");
    assert!(found.iter().any(|line| line.contains("is also for jail ")), "{error}");
    let other = world.path("other.conf");
    fs::write(&other, "web 8080:80\n").unwrap();
    assert_eq!(world.ok(&["check", other.to_str().unwrap()]), "");
    assert!(world.fails(&["check", "/nonexistent"], 1).contains("no file /nonexistent"));
    // nothing was created
    assert!(!world.path("state").exists());
}

/// Each line is what the command line of publish makes of the same words.
#[test]
fn a_line_has_the_meaning_of_the_command_line() {
    for words in [
        "8080:80",
        "em1:8080-8090:80/udp 5353:53/tcp,udp",
        "80 --sources 192.0.2.0/24 --sources 2001:db8::/32 --log --no-quick",
        "80 --rate=5/10 --max-connections 3 --max-connections-per-source 2 --reach bridge1",
        "80 -a 10.0.0.2 --address fd00::2 --family inet,inet6 --hairpin --host-access --masquerade",
        "80 --gateway em1 --reply-to none --force --allow-inert",
        "auto:80 --auto-range 8000-8010 --trust 10.0.0.0/8",
    ] {
        let (line, command) = (World::new(&format!("web {words}\n")), World::new(""));
        line.ok(&["apply"]);
        let arguments: Vec<&str> = ["publish", "web"].into_iter().chain(words.split(' ')).collect();
        command.ok(&arguments);
        let loaded = |world: &World| fs::read_to_string(world.path("state/jails/web.json")).unwrap();
        let publications =
            |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["publications"].clone();
        assert_eq!(publications(&loaded(&line)), publications(&loaded(&command)), "{words}");
    }
}

#[test]
fn import_prints_lines_that_apply_reads() {
    let world = World::new("");
    fs::create_dir_all(world.path("web")).unwrap();
    let rdr = world.path("web/rdr.conf");
    fs::write(&rdr, "dual em0 any any tcp 8080 80\ndual em0 any any udp 5353 53\n").unwrap();
    let lines = world.ok(&["import", "--lines", "-j", "web", "bastille", rdr.to_str().unwrap()]);
    world.write(&lines);
    assert!(Conf::parse("f", &lines).unwrap().of(&"web".parse().unwrap()).count() > 0, "{lines}");
    world.ok(&["apply"]);
    assert!(world.list().iter().any(|line| line.contains("udp em0 5353")), "{:?}", world.list());
}

// what follows

fn follow(rig: &Rig, jail: &str, conf: Option<&str>) -> Result<Outcome> {
    let jail: JailName = jail.parse().unwrap();
    let requests = conf.map(|text| Conf::parse("f", text).unwrap().requests(&jail));
    rig.with(&rig.sim(), &Unobserved, |publisher| publisher.follow(&jail, requests.as_deref()))
}

fn shown(rig: &Rig) -> Vec<String> {
    rig.list().iter().flat_map(|l| l.redirects.iter().map(|(r, _)| r.to_string())).collect()
}

fn addresses(rig: &mut Rig, jail: &str, addresses: &[&str]) {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    rig.host.vnet_addresses.insert(jail.to_owned(), addresses);
}

#[test]
fn a_found_address_is_followed_and_a_given_one_is_not() {
    let mut rig = Rig::new();
    rig.publish(&request("web", "8080:80")).unwrap();
    let mut given = request("db", "5432");
    given.addresses = vec!["10.0.0.3".parse().unwrap()];
    rig.publish(&given).unwrap();
    addresses(&mut rig, "web", &["10.0.0.12"]);
    addresses(&mut rig, "db", &["10.0.0.13"]);
    assert!(follow(&rig, "web", None).unwrap().changed);
    assert!(!follow(&rig, "db", None).unwrap().changed);
    assert_eq!(shown(&rig), ["tcp 5432 on em0 -> 10.0.0.3:5432", "tcp 8080 on em0 -> 10.0.0.12:80"]);
    // a family that comes late
    addresses(&mut rig, "web", &["10.0.0.12", "fd00::12"]);
    follow(&rig, "web", None).unwrap();
    assert_eq!(shown(&rig)[1..], ["tcp 8080 on em0 -> 10.0.0.12:80", "tcp 8080 on em0 -> [fd00::12]:80"]);
    assert!(!follow(&rig, "web", None).unwrap().changed);
}

#[test]
fn the_gateway_interface_is_followed_by_mappings_without_a_place() {
    let mut rig = Rig::new();
    rig.publish(&request("web", "8080:80 em0:8081:81")).unwrap();
    rig.host.gateway.inet = Some("em1".parse().unwrap());
    rig.host.gateway.inet6 = None;
    follow(&rig, "web", None).unwrap();
    let on: Vec<String> = shown(&rig).iter().map(|r| r.split(" -> ").next().unwrap().to_owned()).collect();
    assert_eq!(on, ["tcp 8080 on em1", "tcp 8080 on em1", "tcp 8081 on em0", "tcp 8081 on em0"]);
    // no default route for a moment: the ports stay
    rig.host.gateway.inet = None;
    let error = follow(&rig, "web", None).unwrap_err();
    assert!(error.message().contains("no default route"), "{error}");
    assert_eq!(shown(&rig).len(), 4);
}

#[test]
fn a_jail_that_loses_its_address_is_closed_and_comes_back() {
    let mut rig = Rig::new();
    rig.publish(&request("web", "8080:80")).unwrap();
    let before = shown(&rig);
    for lost in [&[][..], &["192.0.2.200"], &["10.0.0.1"]] {
        addresses(&mut rig, "web", lost);
        follow(&rig, "web", None).unwrap_err();
        assert_eq!(shown(&rig), [""; 0], "{lost:?}");
        assert_eq!(rig.loaded(), []);
        let listed = rig.list();
        assert_eq!((listed.len(), listed[0].liveness), (1, Liveness::Missing));
        assert!(listed[0].problem.as_ref().unwrap().contains("lost its address"));
        // the port is free for others meanwhile
        rig.publish(&request("db", "8080:80")).unwrap();
        rig.unpublish("db").unwrap();
        rig.with(&rig.sim(), &Unobserved, |p| p.restore()).unwrap();
        rig.with(&rig.sim(), &Unobserved, |p| p.gc()).unwrap();
        addresses(&mut rig, "web", &["10.0.0.2", "fd00::2"]);
        follow(&rig, "web", None).unwrap();
        assert_eq!(shown(&rig), before);
    }
    addresses(&mut rig, "web", &[]);
    follow(&rig, "web", None).unwrap_err();
    rig.unpublish("web").unwrap();
    assert_eq!(rig.list(), []);
}

/// A port that cannot be had is an error, and what the jail has stays.
#[test]
fn an_error_of_another_kind_leaves_everything() {
    let rig = Rig::new();
    rig.publish(&request("web", "8080:80")).unwrap();
    rig.publish(&request("db", "5432")).unwrap();
    let before = shown(&rig);
    let error = follow(&rig, "web", Some("web 5432:80\n")).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert_eq!(shown(&rig), before);
    // and what pf lost is loaded
    rig.sim().replace(&"web".parse::<JailName>().unwrap().anchor(), &[]).unwrap();
    follow(&rig, "web", Some("web 5432:80\n")).unwrap_err();
    assert!(rig.list().iter().all(|l| l.liveness == Liveness::Live));
}

#[test]
fn a_jail_that_is_gone_and_one_that_has_started_again() {
    let mut rig = Rig::new();
    rig.publish(&request("web", "8080:80")).unwrap();
    follow(&rig, "web", Some("web 8081:81\n")).unwrap();
    assert_eq!(shown(&rig).len(), 4);
    let jail = rig.host.jails.iter_mut().find(|jail| jail.name == "web").unwrap();
    jail.jid += 100;
    follow(&rig, "web", Some("web 8081:81\n")).unwrap();
    assert_eq!(shown(&rig).len(), 2, "what the earlier start had by hand is not adopted");
    rig.host.jails.retain(|jail| jail.name != "web");
    follow(&rig, "web", Some("web 8081:81\n")).unwrap();
    assert_eq!(rig.list(), []);
}

#[test]
fn what_is_unpublished_is_not_published_again() {
    let rig = Rig::new();
    let web: JailName = "web".parse().unwrap();
    rig.publish(&request("web", "8080:80 8081:81 auto:82")).unwrap();
    let mut more = request("web", "8081:81 9000:90");
    (more.add, more.options.log) = (true, true);
    rig.publish(&more).unwrap();
    rig.with(&rig.sim(), &Unobserved, |p| p.unpublish_some(&web, None, &"8080:80 auto:82".parse().unwrap())).unwrap();
    let before = (shown(&rig), rig.loaded());
    assert!(!follow(&rig, "web", None).unwrap().changed);
    assert_eq!((shown(&rig), rig.loaded()), before);
    assert_eq!(before.0.len(), 4);
}

#[test]
fn the_jails_of_a_file_are_those_that_run_and_those_that_are_recorded() {
    let rig = Rig::new();
    rig.publish(&request("db", "5432")).unwrap();
    let recorded = rig.with(&rig.sim(), &Unobserved, |p| p.recorded()).unwrap();
    let conf = Conf::parse("f", "/^w/ 80\nnone 81\nguest 82 --no-jail -a 10.0.0.9\n").unwrap();
    let jails = conf::jails(Some(&conf), &rig.host, &recorded).unwrap();
    assert_eq!(jails.iter().map(JailName::as_str).collect::<Vec<_>>(), ["db", "guest", "web"]);
    assert_eq!(conf::jails(None, &rig.host, &recorded).unwrap().len(), 1);
}

/// With pfctl(8), publishing the same again looks at the pass rules alone.
#[test]
fn a_flush_of_the_translations_alone_is_followed() {
    let (rig, pf) = (Rig::new(), standin::Pfctl::new());
    let firewall = || Pfctl::new(pf.program(), Deadline::after(Duration::from_secs(60)));
    rig.with(&firewall(), &Unobserved, |p| p.publish(&request("web", "8080:80"))).unwrap();
    let loaded = pf.rules("kport/web").unwrap();
    let filters: String =
        loaded.lines().filter(|rule| rule.starts_with("pass")).map(|rule| format!("{rule}\n")).collect();
    pf.put("kport/web", &filters);
    let done = rig.with(&firewall(), &Unobserved, |p| p.follow(&"web".parse().unwrap(), None)).unwrap();
    assert!(done.changed && pf.rules("kport/web").unwrap() == loaded, "{done:?}");
    let done = rig.with(&firewall(), &Unobserved, |p| p.follow(&"web".parse().unwrap(), None)).unwrap();
    assert!(!done.changed, "{done:?}");
}
