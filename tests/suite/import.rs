//! `kport import` on files as each jail manager writes them, with their odd cases: tests/import.

use crate::support::cc;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn data(path: &str) -> PathBuf {
    cc::root().join("tests/import").join(path)
}

/// kport on the host of the recordings, with a state directory of its own.
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

        // the lines themselves, by a shell
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
fn what_is_no_file_of_the_manager_is_an_error_that_names_the_line() {
    let kport = Kport::new();
    for (manager, name, text, word) in [
        ("bastille", "rdr.conf", "tcp 80 80\nnonsense\n", ":2: not a line"),
        ("bastille", "rdr.conf", "dual em0 any any tcp ssh 22\n", "ssh"),
        ("bastille", "rdr.conf", "dual em0 any any tcp 80 80 lgo\n", "not a line"),
        ("bastille", "rdr.conf", "dual em0 <a\x01b> any tcp 80 80\n", ":1:"),
        ("bastille", "rdr.conf", "dual em0;reboot any any tcp 80 80\n", ":1:"),
        ("bastille", "rdr.conf", "tcp 8010:8000 80\n", "8010"),
        ("pot", "pot.conf", "pot.export.ports=80:70000\n", "70000"),
        ("iocage", "config.json", "{ \"nat_forwards\": ", "not a config.json"),
        ("iocage", "config.json", "{ \"nat_forwards\": \"icmp(80)\" }", "icmp"),
        ("iocage", "config.json", "{ \"nat_forwards\": \"tcp(80\" }", "tcp(80"),
        ("cbsd", "pfrdr.conf", "rdr pass on em0 from any to any -> 10.0.0.1\n", "not a line"),
        ("cbsd", "expose.sqlite", "SQLite format 3\0", "pfrdr.conf"),
    ] {
        let file = kport.file(name, text);
        let (status, printed, said) = kport.import(manager, &[file], &[]);
        assert!((1..=2).contains(&status) && printed.is_empty(), "{manager} {text}: {status} {printed}");
        assert!(said.contains(word) && said.lines().count() == 1, "{text}: {said}");
    }
    let (status, _, said) = kport.import("appjail", &[kport.file("hport", "80")], &[]);
    assert!(status == 1 && said.contains("hport"), "{said}");
    let (status, _, said) = kport.import("pot", &[data("none")], &[]);
    assert!(status == 1 && said.contains("none"), "{said}");
    // no line, nothing to say
    for (manager, name, text) in [
        ("bastille", "rdr.conf", "\n# none\n"),
        ("pot", "pot.conf", "pot.level=1\n"),
        ("iocage", "config.json", "{ \"nat_forwards\": \"none\" }"),
    ] {
        assert_eq!(kport.import(manager, &[kport.file(name, text)], &[]), (0, String::new(), String::new()));
    }
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
fn what_kport_cannot_say_is_said_and_not_published() {
    let kport = Kport::new();
    let lines = "\
rdr pass proto {tcp, udp} from {any} to 192.0.2.1/32 -> 10.0.0.5/32 # // Setup by CBSD expose: tcp-0-web from IPs any
rdr pass proto tcp from {any} to 192.0.2.1 port 80 -> 10.0.0.5 port 80 # // Setup by CBSD expose: tcp-80-web from IPs any
";
    let file = kport.file("pfrdr.conf", lines);
    let (status, printed, said) = kport.import("cbsd", std::slice::from_ref(&file), &[]);
    assert_eq!((status, said.as_str()), (8, "kport: one port cannot be published, see above\n"));
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
    // a later line of the jail's meets the other one's port
    let (status, _, said) = import();
    assert!(status == 3 && said.contains("jail \"web\"") && said.contains("8443"), "{status} {said}");
    assert_eq!(kport.run(&["list", "--json"]).1, before);
    // what the jail has published by then stays
    assert_eq!(kport.run(&["publish", "web", "em0:9999:99"]).0, 0);
    let before = kport.run(&["list", "--json"]).1;
    assert_eq!(import().0, 3);
    assert_eq!(kport.run(&["list", "--json"]).1, before);
    // importing again changes nothing
    assert_eq!(kport.run(&["unpublish", "name-server"]).0, 0);
    assert_eq!(import().0, 0);
    let record = || fs::read(kport.dir.path().join("jails/web.json")).unwrap();
    let published = record();
    assert_eq!(import().0, 0);
    assert_eq!(record(), published);
}
