//! `kport import` on files as each jail manager writes them, with their odd cases: tests/import.

use crate::support::cc;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kport::error::Kind;
use kport::managers::{self, Port, by_jail};
use kport::name::JailName;
use kport::publisher::Request;

fn data(path: &str) -> PathBuf {
    cc::root().join("tests/import").join(path)
}

/// kport on the host of the recordings, with its own state directory.
struct Kport {
    dir: tempfile::TempDir,
}

impl Kport {
    fn new() -> Kport {
        Kport { dir: tempfile::tempdir().unwrap() }
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut kport = Command::new(env!("CARGO_BIN_EXE_kport"));
        kport.env_clear().env("KPORT_BACKEND", "sim").env("KPORT_STATE_DIR", self.dir.path());
        let output = kport.arg("--host").arg(data("host.json")).args(arguments).output().unwrap();
        (output.status.code().unwrap(), cc::text(&output.stdout), cc::text(&output.stderr))
    }

    fn import(&self, manager: &str, files: &[PathBuf], options: &[&str]) -> (i32, String, String) {
        let mut arguments = vec!["import", manager];
        arguments.extend(options);
        arguments.extend(files.iter().map(|file| file.to_str().unwrap()));
        self.run(&arguments)
    }

    /// A file with this text, for a jail "web".
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let dir = self.dir.path().join("jails/web");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(name), text).unwrap();
        dir.join(name)
    }
}

/// A manager, and its files.
fn managers() -> Vec<(&'static str, Vec<PathBuf>)> {
    let expose = "appjail/jails/web/conf/boot/expose";
    vec![
        ("bastille", vec![data("bastille/jails/web/rdr.conf")]),
        ("appjail", (0..4).map(|n| data(&format!("{expose}/{n}"))).collect()),
        ("pot", vec![data("pot/jails/web/conf/pot.conf")]),
        ("iocage", vec![data("iocage/jails/web/config.json"), data("iocage/jails/web.db/config.json")]),
        ("cbsd", vec![data("cbsd/pfrdr.conf")]),
    ]
}

#[test]
fn every_manager_is_printed_as_commands_that_a_shell_can_run() {
    for (manager, files) in managers() {
        let kport = Kport::new();
        let (status, printed, said) = kport.import(manager, &files, &[]);
        assert_eq!((status, said.as_str()), (0, ""), "{manager}");
        let parent = files[0].parent().unwrap().to_str().unwrap();
        let named =
            printed.replace(files[0].to_str().unwrap(), "FILE").replace("FILE: ", "DIR/0: ").replace(parent, "DIR");
        let expected = fs::read_to_string(data(&format!("{manager}.ok"))).unwrap();
        assert_eq!(named, expected, "{manager}");

        // the lines themselves, in a shell
        let state = kport.dir.path().display();
        let program = format!(
            "KPORT_BACKEND=sim KPORT_STATE_DIR={state} {} --host {}",
            env!("CARGO_BIN_EXE_kport"),
            data("host.json").display()
        );
        let lines = format!("kport() {{\n{program} \"$@\"\n}}\nset -e\n{printed}");
        let output = Command::new("sh").arg("-c").arg(&lines).output().unwrap();
        assert!(output.status.success(), "{manager}: {}", cc::text(&output.stderr));
        let by_shell = kport.run(&["list"]).1;

        let kport = Kport::new();
        let (status, printed, said) = kport.import(manager, &files, &["--publish"]);
        assert_eq!((status, printed.as_str()), (0, ""), "{manager}: {said}");
        assert_eq!(kport.run(&["list"]).1, by_shell, "{manager}");
        assert!(by_shell.lines().count() > 2, "{by_shell}");
    }
}

#[test]
fn a_line_that_is_not_understood_is_a_comment() {
    let kport = Kport::new();
    for (manager, name, text, word) in [
        ("bastille", "rdr.conf", "tcp 80 80\nnonsense\n", ":2: not a line"),
        ("bastille", "rdr.conf", "tcp 80 80\ndual em0 any any tcp nosuchname 22\n", "nosuchname"),
        ("bastille", "rdr.conf", "dual em0 any any tcp 80 80 lgo\ntcp 80 80\n", ":1: not a line"),
        ("bastille", "rdr.conf", "dual em0 <a\x01b> any tcp 80 80\ntcp 80 80\n", ":1:"),
        ("bastille", "rdr.conf", "dual em0;reboot any any tcp 80 80\ntcp 80 80\n", ":1:"),
        ("bastille", "rdr.conf", "dual any any tcp 80 80\ntcp 80 80\n", ":1: not a line"),
        ("bastille", "rdr.conf", "em0 any any tcp 80 80\ntcp 80 80\n", ":1: not a line"),
        ("bastille", "rdr.conf", "tcp 8010:8000 80\ntcp 80 80\n", "8010"),
        ("bastille", "rdr.conf", "tcp 80\ntcp 80 80\n", ":1: not a line"),
        ("pot", "pot.conf", "pot.export.ports=80:70000 80:80\n", "70000"),
        ("iocage", "config.json", "{ \"nat_forwards\": \"icmp(80), tcp(80)\" }", "icmp"),
        ("iocage", "config.json", "{ \"nat_forwards\": \"tcp(80,80\" }", "tcp(80"),
        ("cbsd", "pfrdr.conf", "rdr pass on em0 from any to any -> 10.0.0.1\n", "not a line"),
        (
            "cbsd",
            "pfrdr.conf",
            "rdr pass proto tcp from any to -> 10.0.0.1 # Setup by CBSD expose: tcp-1-web\n",
            "not a line",
        ),
        ("cbsd", "pfrdr.conf", "-> to from proto # Setup by CBSD expose: tcp-1-web\n", "not a line"),
        ("cbsd", "pfrdr.conf", "rdr pass proto tcp from any to any port 1 -> 10.0.0.1 port 1\n", "not a line"),
    ] {
        let file = kport.file(name, text);
        let (status, printed, said) = kport.import(manager, std::slice::from_ref(&file), &[]);
        assert_eq!((status, said.as_str()), (8, "kport: one entry was not imported, see its comment\n"), "{text}");
        let (comments, commands): (Vec<&str>, Vec<&str>) = printed.lines().partition(|line| line.starts_with("# "));
        assert!(comments.len() == 1 && comments[0].contains(word), "{text}: {printed}");
        assert!(!comments[0].contains(char::is_control), "{printed:?}");
        let rest = if manager == "cbsd" { 0 } else { 1 };
        assert_eq!(commands.len(), rest, "{text}: {printed}");
        assert!(commands.iter().all(|command| command.ends_with(" 80:80")), "{printed}");
        // and nothing is published of a jail without all of it
        let (status, _, said) = kport.import(manager, &[file], &["--publish"]);
        assert!(status == 8 && said.contains(word), "{text}: {said}");
        assert_eq!(kport.run(&["list"]).1, "");
    }
    let stray = kport.file("stray", "80");
    let (status, printed, _) = kport.import("appjail", &[stray, managers()[1].1[0].clone()], &[]);
    assert_eq!(status, 8);
    assert!(printed.contains("it has no hport") && printed.contains("kport publish web em0:8080:80"), "{printed}");
}

#[test]
fn a_file_of_another_kind_is_an_error() {
    let kport = Kport::new();
    for (manager, name, text, word) in [
        ("iocage", "config.json", "{ \"nat_forwards\": ", "not a config.json"),
        ("cbsd", "expose.sqlite", "SQLite format 3\0", "pfrdr.conf"),
    ] {
        let (status, printed, said) = kport.import(manager, &[kport.file(name, text)], &[]);
        assert!(status == 1 && printed.is_empty(), "{manager} {text}: {status} {printed}");
        assert!(said.contains(word) && said.lines().count() == 1, "{text}: {said}");
    }
    let (status, _, said) = kport.import("pot", &[data("none")], &[]);
    assert!(status == 1 && said.contains("none"), "{said}");
    // no line, no output
    for (manager, name, text) in [
        ("bastille", "rdr.conf", "\n# none\n"),
        ("pot", "pot.conf", "pot.level=1\n"),
        ("iocage", "config.json", "{ \"nat_forwards\": \"none\" }"),
    ] {
        assert_eq!(kport.import(manager, &[kport.file(name, text)], &[]), (0, String::new(), String::new()));
    }
}

#[test]
fn the_forms_that_managers_write() {
    let kport = Kport::new();
    let local = "FILE:N: for access from the host itself, run kport setup --host-access";
    for (manager, name, text, expected) in [
        // ext_if="{ em0 em1 }", "{ em0, em1 }", "{em0,em1}"
        ("bastille", "rdr.conf", "dual em0 em1 any any tcp 143 143\n", "kport publish web em0:143:143 em1:143:143\n"),
        ("bastille", "rdr.conf", "dual em0, em1 any any udp 1 2\n", "kport publish web em0:1:2/udp em1:1:2/udp\n"),
        ("bastille", "rdr.conf", "dual {em0,em1} any any tcp 1 2\n", "kport publish web em0:1:2 em1:1:2\n"),
        (
            "bastille",
            "rdr.conf",
            "dual em0 em1 <bad> any tcp 1 2 log\n",
            "kport publish --sources '<bad>' --log web em0:1:2 em1:1:2\n",
        ),
        ("bastille", "rdr.conf", "tcp http http\n", "kport publish web 80:80\n"),
        (
            "bastille",
            "rdr.conf",
            "dual em0 any any tcp 8080 80\ndual lo0 any any tcp 8080 80\n",
            "# LOCAL\nkport publish --host-access web em0:8080:80\n",
        ),
        (
            "bastille",
            "rdr.conf",
            "dual lo0 em0 any any tcp 8080 80\n",
            "# LOCAL\nkport publish --host-access web em0:8080:80\n",
        ),
        (
            "bastille",
            "rdr.conf",
            "dual lo0 any any tcp 8080 80\n",
            "# LOCAL\nkport publish --host-access web lo0:8080:80\n",
        ),
        (
            "cbsd",
            "pfrdr.conf",
            "rdr pass proto tcp from any to 192.0.2.1 port 80 -> 10.0.0.5 port 80 # // Setup by CBSD expose: tcp-80-web\n",
            "kport publish web 192.0.2.1:80:80\n",
        ),
        (
            "cbsd",
            "pfrdr.conf",
            "rdr pass proto {tcp, udp} from any to 192.0.2.1/32 port 53 -> 10.0.0.5/32 port 53 # // Setup by CBSD expose: tcp-53-a-b\n",
            "kport publish a-b 192.0.2.1:53:53/tcp,udp\n",
        ),
        (
            "iocage",
            "config.json",
            "{ \"nat_forwards\": \"tcp(80:8080), udp(53), tcp/udp( 5060 )\" }",
            "kport publish ioc-web 8080:80 53:53/udp 5060:5060/tcp,udp\n",
        ),
        ("iocage", "config.json", "{ \"nat_forwards\": \"tcp(80),\" }", "kport publish ioc-web 80:80\n"),
    ] {
        let (status, printed, said) = kport.import(manager, &[kport.file(name, text)], &[]);
        assert_eq!((status, said.as_str()), (0, ""), "{text}");
        let without = |line: &str| match line.strip_prefix("# ").filter(|_| line.ends_with("--host-access")) {
            Some(_) => "# LOCAL".to_owned(),
            None => line.to_owned(),
        };
        let shown: String = printed.lines().map(|line| without(line) + "\n").collect();
        assert_eq!(shown, expected, "{text}: {local}");
    }
    // AppJail: a port by its name
    let dir = kport.dir.path().join("jails/web/conf/boot/expose/0");
    fs::create_dir_all(&dir).unwrap();
    for (name, text) in [("enabled", "1"), ("hport", "http"), ("jport", "http"), ("protocol", "tcp"), ("on_if", "em0")]
    {
        fs::write(dir.join(name), format!("{text}\n")).unwrap();
    }
    assert_eq!(kport.import("appjail", &[dir], &[]), (0, "kport publish web em0:80:80\n".to_owned(), String::new()));
}

/// What the names of files and the lines in them hold gets into no command.
#[test]
fn nothing_but_commands_of_kport_gets_into_the_script() {
    let kport = Kport::new();
    for name in ["a\nreboot\n", "a\rreboot", "$(reboot)", "`reboot`", "a'; reboot #", "-x", "a b", "\u{202e}x", "a\\"] {
        let dir = kport.dir.path().join(name).join("jails").join(name.replace('/', "_"));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("rdr.conf");
        let lines =
            "ipv4 em0 any any tcp 80 80\n$(reboot) `reboot`\ndual em0 $(reboot) any tcp 81 81\ntcp '80 80\n; reboot\n";
        fs::write(&file, lines).unwrap();
        let (status, printed, said) = kport.import("bastille", &[file], &[]);
        assert_eq!(status, 8, "{name:?}: {said}");
        for line in printed.lines() {
            assert!(line.starts_with("# ") || line.starts_with("kport publish "), "{name:?}: {printed}");
        }
        // a shell calls kport alone
        let script = format!("PATH=/nowhere\nkport() {{ echo \"$#\"; }}\n{printed}");
        let output = Command::new("/bin/sh").arg("-c").arg(&script).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{name:?}: {}", cc::text(&output.stderr));
        let commands = printed.lines().filter(|line| line.starts_with("kport ")).count();
        assert_eq!(cc::text(&output.stdout).lines().count(), commands, "{name:?}");
    }
    // a jail whose name looks like an option
    let file = kport.dir.path().join("rdr.conf");
    fs::write(&file, "tcp 80 80\n").unwrap();
    let (_, printed, _) = kport.import("bastille", &[file], &["--jail=-x"]);
    assert_eq!(printed, "kport publish -- -x 80:80\n");
    assert!(kport.run(&["publish", "--", "-x", "80:80"]).2.contains("jail \"-x\""));
}

#[test]
fn the_jail_is_the_path_s_or_the_one_that_is_given() {
    let kport = Kport::new();
    let outside = kport.dir.path().join("rdr.conf");
    fs::write(&outside, "tcp 80 8080\n").unwrap();
    let (status, _, said) = kport.import("bastille", std::slice::from_ref(&outside), &[]);
    assert!(status == 1 && said.contains("-j"), "{said}");
    let (status, printed, _) = kport.import("bastille", &[outside], &["-j", "it's"]);
    assert_eq!((status, printed.as_str()), (0, "kport publish 'it'\\''s' 80:8080\n"));
}

#[test]
fn what_kport_cannot_publish_is_reported() {
    let kport = Kport::new();
    let lines = "\
rdr pass proto {tcp, udp} from {any} to 192.0.2.1/32 -> 10.0.0.5/32 # // Setup by CBSD expose: tcp-0-web from IPs any
rdr pass proto tcp from {any} to 192.0.2.1 port 80 -> 10.0.0.5 port 80 # // Setup by CBSD expose: tcp-80-web from IPs any
";
    let file = kport.file("pfrdr.conf", lines);
    let (status, printed, said) = kport.import("cbsd", std::slice::from_ref(&file), &[]);
    assert_eq!((status, said.as_str()), (8, "kport: one entry was not imported, see its comment\n"));
    assert!(
        printed.contains(":1: all ports of an address") && printed.ends_with("kport publish web 192.0.2.1:80:80\n")
    );
    let (status, _, said) = kport.import("cbsd", &[file], &["--publish"]);
    assert!(status == 8 && said.contains("nothing was published"), "{said}");
    assert_eq!(kport.run(&["list"]).1, "");
}

#[test]
fn a_jail_is_published_whole_or_not_at_all() {
    let kport = Kport::new();
    let import = || kport.import("bastille", &[data("bastille/jails/web/rdr.conf")], &["--publish"]);
    assert_eq!(kport.run(&["publish", "name-server", "em0:8443:443"]).0, 0);
    let before = kport.run(&["list", "--json"]).1;
    // a later line of the jail has the port of another jail
    let (status, _, said) = import();
    assert!(status == 3 && said.contains("jail \"web\"") && said.contains("8443"), "{status} {said}");
    assert_eq!(kport.run(&["list", "--json"]).1, before);
    // what the jail had published before remains
    assert_eq!(kport.run(&["publish", "web", "em0:9999:99"]).0, 0);
    let before = kport.run(&["list", "--json"]).1;
    assert_eq!(import().0, 3);
    assert_eq!(kport.run(&["list", "--json"]).1, before);
    // publishing again changes nothing
    assert_eq!(kport.run(&["unpublish", "name-server"]).0, 0);
    assert_eq!(import().0, 0);
    let record = || fs::read(kport.dir.path().join("jails/web.json")).unwrap();
    let published = record();
    assert_eq!(import().0, 0);
    assert_eq!(record(), published);
}

#[test]
fn names_of_services_are_numbers() {
    let services = "# services(5)\nhttp\t80/tcp www # web\nntp 123/udp\nfoo-bar 7/tcp\nalt 8080/tcp\n";
    let bastille = managers::ALL.iter().find(|manager| manager.name == "bastille").unwrap().exports.unwrap();
    for (given, protocol, number) in [
        ("http", "tcp", "80"),
        ("www", "tcp", "80"),
        ("http", "udp", "http"),
        ("ntp", "udp", "123"),
        ("foo-bar", "tcp", "7"),
        ("http:alt", "tcp", "80-8080"),
        ("http-alt", "tcp", "80-8080"),
        ("8000:8010", "tcp", "8000-8010"),
        ("9000:*", "tcp", "9000"),
        ("auto", "tcp", "auto"),
        ("80/tcp", "tcp", "80/tcp"),
    ] {
        let text = |path: &Path| match path == Path::new("/etc/services") {
            true => Ok(services.to_owned()),
            false => Ok(format!("{protocol} {given} 1\n")),
        };
        let ports = (bastille.read)(Path::new("/jails/web/rdr.conf"), &text).unwrap();
        assert_eq!(ports[0].host, number, "{given}/{protocol}");
    }
}

fn port(host: &str) -> Port {
    let (from, jail) = (format!("file:{host}"), "web".to_owned());
    Port {
        from,
        jail,
        host: host.to_owned(),
        ports: "80".to_owned(),
        protocols: vec!["tcp".to_owned()],
        ..Port::default()
    }
}

#[test]
fn ports_with_the_same_options_are_one_request_of_the_jail() {
    let logged = Port { log: true, sources: vec!["192.0.2.0/24".to_owned()], ..port("81") };
    let jails = by_jail(vec![port("80"), logged, port("82"), Port { jail: "db".to_owned(), ..port("83") }], None);
    let jails = jails.unwrap().jails;
    let requests = |name: &str| {
        let jail: JailName = name.parse().unwrap();
        let requests = jails[&jail].requests(&jail).unwrap();
        let shown = |r: &Request| (r.spec.to_string(), r.options.log, r.options.sources.len());
        requests.iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(requests("web"), [("80:80/tcp 82:80/tcp".to_owned(), false, 0), ("81:80/tcp".to_owned(), true, 1)]);
    assert_eq!(requests("db"), [("83:80/tcp".to_owned(), false, 0)]);
}

#[test]
fn all_of_a_jail_or_nothing() {
    let jail: JailName = "web".parse().unwrap();
    for wrong in [
        Port { unsupported: Some("no".to_owned()), ..port("81") },
        port("0"),
        Port { places: vec!["em 0".to_owned()], ..port("81") },
        Port { places: vec!["tcp".to_owned()], ..port("81") },
        port("81:81 22"),
        Port { sources: vec!["nobody".to_owned()], ..port("81") },
    ] {
        let from = wrong.from.clone();
        let import = by_jail(vec![wrong, port("80"), Port { jail: "db".to_owned(), ..port("82") }], None).unwrap();
        assert_eq!(import.unpublished(), 1);
        let of = &import.jails[&jail];
        assert!(of.unsupported[0].starts_with(&from), "{of:?}");
        // printed, but not published without the other
        assert_eq!(of.commands[0].specs, ["80:80"]);
        assert_eq!(of.requests(&jail).unwrap_err().kind(), Kind::Unsupported);
        let db: JailName = "db".parse().unwrap();
        assert_eq!(import.jails[&db].requests(&db).unwrap().len(), 1);
    }
    for unknown in ["a\nb", "a\u{202e}b"] {
        let import = by_jail(vec![Port { jail: unknown.to_owned(), ..port("80") }], None).unwrap();
        assert!(import.jails.is_empty() && import.unread[0].starts_with("file:80: "), "{import:?}");
    }
    let error = by_jail(vec![Port { jail: String::new(), ..port("80") }], None).unwrap_err();
    assert!(error.message().contains("-j"), "{error}");
}

#[test]
fn a_port_at_lo0_is_access_from_the_host() {
    let at =
        |host: &str, places: &[&str]| Port { places: places.iter().map(|p| (*p).to_owned()).collect(), ..port(host) };
    let commands = |ports: Vec<Port>| {
        let import = by_jail(ports, None).unwrap();
        let of = import.jails.into_values().next().unwrap();
        let shown = |command: managers::Command| {
            let names: Vec<&str> = command.options.iter().map(|option| option.0).collect();
            format!("{}{}", names.iter().map(|name| format!("{name} ")).collect::<String>(), command.specs.join(" "))
        };
        of.commands.into_iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(commands(vec![at("80", &["em0"]), at("80", &["lo0"])]), ["host-access em0:80:80"]);
    assert_eq!(commands(vec![at("80", &["lo0"]), at("80", &[])]), ["host-access 80:80"]);
    assert_eq!(commands(vec![at("80", &["em0", "lo0"])]), ["host-access em0:80:80"]);
    assert_eq!(
        commands(vec![at("80", &["127.0.0.1"]), at("80", &["em0", "em1"])]),
        ["host-access em0:80:80 em1:80:80"]
    );
    assert_eq!(commands(vec![at("80", &["::1"])]), ["host-access [::1]:80:80"]);
    // another port of the host is another mapping
    assert_eq!(commands(vec![at("80", &["em0"]), at("81", &["lo0"])]), ["em0:80:80", "host-access lo0:81:80"]);
    let udp = Port { protocols: vec!["udp".to_owned()], ..at("80", &["lo0"]) };
    assert_eq!(commands(vec![at("80", &["em0"]), udp]), ["em0:80:80", "host-access lo0:80:80/udp"]);
}

proptest::proptest! {
    /// Any file gives ports, or an error with its name, and the ports give requests.
    #[test]
    fn any_file_is_read_or_refused(parts in proptest::collection::vec(proptest::sample::select(vec![
        "dual", "ipv4", "em0", "em0,em1", "lo0", "{", "}", "http", "any", "tcp", "udp", "8080", "8000:8010", "80", "log", "(all)", "\n", "#", " ",
        "pot.export.ports=", "udp:53:53", ":", "{\"nat_forwards\":\"", "tcp(80:8080)", "\"}", ",", "-", "auto",
        "rdr pass on em0 proto tcp from any to 192.0.2.1 port 80 -> 10.0.0.2 port 80 ", "-> ", "from ", "to ", "proto ",
        "# // Setup by CBSD expose: tcp-80-web from IPs any\n", "SQLite format", "1", "<a>", "\u{1b}",
    ]), 0..20)) {
        let text = parts.join(" ");
        for exports in managers::ALL.iter().filter_map(|manager| manager.exports) {
            let read = (exports.read)("/jails/web/FILE".as_ref(), &|_| Ok(text.clone()));
            match read.and_then(|ports| by_jail(ports, None)) {
                Err(error) => proptest::prop_assert!(error.message().contains("FILE"), "{}", error),
                Ok(import) => {
                    for (jail, imported) in import.jails.iter().filter(|(_, of)| of.unsupported.is_empty()) {
                        proptest::prop_assert_eq!(imported.requests(jail).unwrap().len(), imported.commands.len());
                    }
                    for why in import.jails.values().flat_map(|of| &of.unsupported).chain(&import.unread) {
                        proptest::prop_assert!(why.contains("FILE"), "{}", why);
                    }
                }
            }
        }
    }
}
