//! `kport setup` on the pf.conf of each jail manager, and of administrators: tests/setup/NAME.conf becomes NAME.ok, or is not changed.
//! To renew: `KPORT_BLESS=1 cargo test --test suite setup`.

mod marks;
mod plan;
mod replace;
mod settings;
mod shell;

use crate::support::cc;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn templates() -> Vec<(String, String)> {
    let mut found = vec![];
    for entry in fs::read_dir(cc::root().join("tests/setup")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "conf") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    assert!(found.len() >= 12);
    found
}

/// A directory with a pf.conf, and kport setup on it, without a pfctl(8) unless one is given.
struct Etc {
    dir: tempfile::TempDir,
}

impl Etc {
    fn new(text: &str) -> Etc {
        let etc = Etc { dir: tempfile::tempdir().unwrap() };
        fs::write(etc.file("pf.conf"), text).unwrap();
        fs::copy(cc::root().join("tests/setup/pfctl.sh"), etc.standin()).unwrap();
        etc
    }

    /// A stand-in for pfctl(8) and sysctl(8).
    fn standin(&self) -> PathBuf {
        self.file("standin.sh")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file("pf.conf")).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.starts_with("pf.conf"));
        names.sort();
        names
    }

    fn kport(&self, arguments: &[&str]) -> Command {
        let mut kport = Command::new(env!("CARGO_BIN_EXE_kport"));
        kport.env_clear().env("KPORT_BACKEND", "sim").env("KPORT_STATE_DIR", self.file("state"));
        kport.arg("--host").arg(cc::root().join("examples/host.json")).args(arguments);
        kport.current_dir(self.dir.path());
        kport
    }

    /// With an rc.conf and a sysctl.conf.
    fn with(self, rc_conf: &str, sysctl_conf: &str) -> Etc {
        fs::write(self.file("rc.conf"), rc_conf).unwrap();
        fs::write(self.file("sysctl.conf"), sysctl_conf).unwrap();
        self
    }

    fn all(&self, arguments: &[&str]) -> (i32, String) {
        let files = ["--rc-conf", "rc.conf", "--sysctl-conf", "sysctl.conf", "--sysctl"];
        let standin = self.standin();
        self.setup_with(&standin, &[&files[..], &[standin.to_str().unwrap()], arguments].concat())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Every file, by name, with its contents.
    fn everything(&self) -> Vec<(String, String)> {
        let names = fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap());
        let files = names.filter(|e| e.metadata().unwrap().is_file() && e.file_name() != "log");
        let mut all: Vec<_> =
            files.map(|e| (e.file_name().into_string().unwrap(), fs::read_to_string(e.path()).unwrap())).collect();
        all.sort();
        all
    }

    /// The exit status, and all output.
    fn setup(&self, arguments: &[&str]) -> (i32, String) {
        self.setup_with(Path::new("/nonexistent/pfctl"), arguments)
    }

    fn setup_with(&self, pfctl: &Path, arguments: &[&str]) -> (i32, String) {
        let mut kport = self.kport(&["setup"]);
        let output = kport
            .arg("--pf-conf")
            .arg(self.file("pf.conf"))
            .arg("--pfctl")
            .arg(pfctl)
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code().unwrap(), cc::text(&output.stdout) + &cc::text(&output.stderr))
    }
}

/// In whichever file they are; undo gives back each byte.
#[test]
fn calls_by_wildcard_are_turned_in_included_files() {
    let own = "include \"INCLUDED\"\nblock in all\nanchor \"kport/*\" # mine\npass out";
    let included = "nat-anchor \"kport/*\"\nrdr-anchor \"kport/*\" on em0 # x\r\n";
    let etc = Etc::new("").with("", "");
    let own = own.replace("INCLUDED", etc.file("nat.conf").to_str().unwrap());
    fs::write(etc.file("pf.conf"), &own).unwrap();
    fs::write(etc.file("nat.conf"), included).unwrap();
    let (status, said) = etc.all(&[]);
    assert_eq!(status, 0, "{said}");
    for shown in ["anchor \"kport\" # mine", "nat-anchor \"kport\"", "rdr-anchor \"kport\" on em0", "has kport's lines"]
    {
        assert!(said.contains(shown), "{shown}: {said}");
    }
    assert_eq!((etc.text(), etc.read("nat.conf")), (own.clone(), included.to_owned()));
    let (status, said) = etc.all(&["--write"]);
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("not loaded: pfctl -f"), "{said}");
    let mark = "# kport setup (was \"kport/*\")";
    assert_eq!(etc.text(), own.replace("\"kport/*\" # mine", &format!("\"kport\" # mine {mark}")));
    assert_eq!(
        etc.read("nat.conf"),
        format!("nat-anchor \"kport\" {mark}\nrdr-anchor \"kport\" on em0 # x {mark}\r\n")
    );
    let turned = (etc.text(), etc.read("nat.conf"));
    let (status, said) = etc.all(&["--write"]);
    assert!(status == 0 && !said.contains("wildcard"), "{said}");
    assert_eq!((etc.text(), etc.read("nat.conf")), turned);
    let (status, said) = etc.all(&["--check"]);
    assert!(status == 0 && !said.contains("every jail"), "{said}");
    let (status, said) = etc.all(&["--undo"]);
    assert_eq!(status, 0, "{said}");
    assert_eq!((etc.text(), etc.read("nat.conf")), (own, included.to_owned()));
    let (_, said) = etc.all(&["--check"]);
    assert!(said.contains("line 3 calls \"kport/*\"") && said.contains("nat.conf: line 2"), "{said}");
}

#[test]
fn every_template_gets_its_lines_where_they_belong() {
    for (name, text) in templates() {
        let etc = Etc::new(&text);
        let (status, said) = etc.setup(&[]);
        assert_eq!(status, 0, "{name}: {said}");
        assert!(etc.text() == text && etc.names() == ["pf.conf"], "{name}: only --write writes");
        let golden = cc::root().join(format!("tests/setup/{name}.ok"));
        if ["include", "late"].contains(&name.as_str()) {
            assert!(said.contains("by hand") && said.contains("rdr-anchor \"kport\""), "{name}: {said}");
            let (status, said) = etc.setup(&["--write"]);
            assert!(status == 5 && said.contains("no file was changed"), "{name}: {status} {said}");
            assert!(etc.text() == text && etc.names() == ["pf.conf"] && !golden.exists(), "{name}");
            continue;
        }
        let (status, said) = etc.setup(&["--write"]);
        assert!(status == 0 && said.contains("not checked: there is no /nonexistent/pfctl"), "{name}: {said}");
        if std::env::var_os("KPORT_BLESS").is_some() {
            fs::write(&golden, etc.text()).unwrap();
        }
        assert_eq!(etc.text(), fs::read_to_string(&golden).unwrap(), "{name}");
        assert_eq!(etc.names(), ["pf.conf", "pf.conf.before-kport"]);
        assert_eq!(fs::read_to_string(etc.file("pf.conf.before-kport")).unwrap(), text);
        // again changes nothing
        let before = fs::metadata(etc.file("pf.conf")).unwrap().modified().unwrap();
        let (status, said) = etc.setup(&["--write"]);
        assert!(status == 0 && said.contains("has kport's lines"), "{name}: {said}");
        assert_eq!(fs::metadata(etc.file("pf.conf")).unwrap().modified().unwrap(), before);
        assert_eq!(etc.names().len(), 2);
        // what the admin adds meanwhile stays
        fs::write(etc.file("pf.conf"), etc.text() + "# later\n").unwrap();
        assert_eq!(etc.setup(&["--undo"]).0, 0);
        assert_eq!(etc.text(), text.clone() + "# later\n", "{name}");
        let (status, said) = etc.setup(&["--undo"]);
        assert!(status == 0 && said.contains("has no line"), "{name}: {said}");
    }
}

/// The places are right: from outside, the published port answers, and the jail's own address does not.
#[test]
fn a_published_port_is_reached_under_every_template() {
    for (name, text) in templates().into_iter().filter(|(name, _)| !["include", "late"].contains(&name.as_str())) {
        let etc = Etc::new(&text);
        assert_eq!(etc.setup(&["--write"]).0, 0);
        fs::create_dir_all(etc.file("state/sim")).unwrap();
        fs::set_permissions(etc.file("state"), fs::Permissions::from_mode(0o700)).unwrap();
        // an empty table of the main ruleset; antispoof drops what no client here sends, and is not modelled, nor is :0
        let tables = if name == "final" { "table <refused> persist\n" } else { "" };
        let text =
            tables.to_owned() + &etc.text().replace("\nantispoof", "\n# antispoof").replace("($ext_if:0)", "($ext_if)");
        fs::write(etc.file("state/sim/main.conf"), &text).unwrap();
        let publish = etc.kport(&["publish", "web", "8080:80"]).output().unwrap();
        assert!(publish.status.success(), "{name}: {}", cc::text(&publish.stderr));
        let trace = |to: &str| etc.kport(&["trace", "tcp", "198.51.100.7", to]).output().unwrap();
        let output = trace("192.0.2.1:8080");
        let said = cc::text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{name}: {said}\n{}", cc::text(&output.stdout));
        if text.contains("block") {
            assert_eq!(trace("10.0.0.2:80").status.code(), Some(5), "{name}: the jail's own address");
        }
    }
}

#[test]
fn pfctl_checks_it_first_and_loads_it_when_asked_to() {
    let (_, bastille) = templates().into_iter().find(|(name, _)| name == "bastille").unwrap();
    let etc = Etc::new(&bastille);
    let (pfctl, log) = (etc.standin(), etc.file("log"));
    fs::write(etc.file("refuse"), "").unwrap();
    let (status, said) = etc.setup_with(&pfctl, &["--write", "--load"]);
    assert!(
        status == 5 && said.contains("pf.conf:3: syntax error") && said.contains("also rejects the present file"),
        "{status} {said}"
    );
    assert!(etc.text() == bastille && etc.names() == ["pf.conf"], "{:?}", etc.names());
    assert!(fs::read_to_string(&log).unwrap().lines().all(|line| line.starts_with("-n -f ")));

    fs::remove_file(&log).unwrap();
    fs::remove_file(etc.file("refuse")).unwrap();
    let (status, said) = etc.setup_with(&pfctl, &["--write", "--load"]);
    assert!(status == 0 && said.contains("written, checked") && said.contains(": loaded"), "{status} {said}");
    let path = fs::canonicalize(etc.file("pf.conf")).unwrap();
    let expected = format!("-n -f {0}.kport-new\n-f {0}\n-s info\n", path.display());
    assert_eq!(fs::read_to_string(&log).unwrap(), expected);
    // the lines are there, and pfctl(8) rejects the file
    fs::write(etc.file("refuse"), "").unwrap();
    for arguments in [&[][..], &["--write"], &["--write", "--load"]] {
        let (status, said) = etc.setup_with(&pfctl, arguments);
        assert!(status == 5 && said.contains("pf.conf:3: syntax error"), "{status} {said}");
    }
    fs::remove_file(etc.file("refuse")).unwrap();
    let (status, said) = etc.setup_with(&pfctl, &["--undo"]);
    assert!(status == 0 && said.contains("not loaded: pfctl -f"), "{said}");
    // the first copy remains
    assert_eq!(etc.names(), ["pf.conf", "pf.conf.before-kport", "pf.conf.before-kport.1"]);
}

#[test]
fn files_that_are_not_plain() {
    // a link stays one, and the mode stays
    let etc = Etc::new("");
    fs::rename(etc.file("pf.conf"), etc.file("real")).unwrap();
    fs::write(etc.file("real"), "block all\n").unwrap();
    fs::set_permissions(etc.file("real"), fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink("real", etc.file("pf.conf")).unwrap();
    assert_eq!(etc.setup(&["--write"]).0, 0);
    assert!(fs::symlink_metadata(etc.file("pf.conf")).unwrap().is_symlink());
    assert_eq!(fs::metadata(etc.file("real")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(etc.text().contains("rdr-anchor"));
    // none is created
    let etc = Etc::new("");
    fs::remove_file(etc.file("pf.conf")).unwrap();
    assert_eq!(etc.setup(&["--write"]).0, 0);
    assert_eq!(etc.text().lines().count(), 3);
    assert_eq!(etc.names(), ["pf.conf"]);
    // a directory, and options that contradict each other
    fs::remove_file(etc.file("pf.conf")).unwrap();
    fs::create_dir(etc.file("pf.conf")).unwrap();
    assert_eq!(etc.setup(&["--write"]).0, 7);
    assert_eq!(etc.setup(&["--write", "--undo"]).0, 64);
}

const RC: &str = "hostname=\"a\"\npf_enable=\"NO\"\n";
const RC_LINES: &str = "pf_enable=\"YES\" # kport setup\ngateway_enable=\"YES\" # kport setup\nipv6_gateway_enable=\"YES\" # kport setup\n";

#[test]
fn rc_conf_and_sysctl_conf_get_their_lines_too() {
    let etc = Etc::new("block all\n").with(RC, "kern.coredump=0\n");
    let before = etc.everything();
    let (status, said) = etc.all(&[]);
    assert!(status == 0 && said.contains("rc.conf:\n  at the end:\n    pf_enable=\"YES\"\n"), "{said}");
    assert!(
        said.contains("line 2: pf_enable is \"NO\"") && said.contains("sysctl.conf:\n  has what it needs"),
        "{said}"
    );
    assert_eq!(etc.everything(), before, "only --write writes");

    let (status, said) = etc.all(&["--write"]);
    assert!(status == 0 && said.contains("rc.conf: written, checked; the old file is"), "{said}");
    assert_eq!(etc.read("rc.conf"), RC.to_owned() + RC_LINES);
    assert_eq!(etc.read("rc.conf.before-kport"), RC);
    assert_eq!(etc.read("sysctl.conf"), "kern.coredump=0\n");
    assert!(!etc.file("sysctl.conf.before-kport").exists() && !etc.file("sysctl.kld.d").exists());
    // as rc(8) reads it
    let ask = ". ./rc.conf; echo $pf_enable $gateway_enable $ipv6_gateway_enable";
    assert_eq!(
        cc::text(&cc::done(Command::new("sh").args(["-c", ask]).current_dir(etc.file(""))).stdout),
        "YES YES YES\n"
    );

    let (_, said) = etc.all(&["--write", "--host-access"]);
    assert!(said.contains("sysctl net.pf.filter_local=1") && said.contains("service pf restart"), "{said}");
    assert_eq!(etc.read("sysctl.conf"), "kern.coredump=0\nnet.pf.filter_local=1 # kport setup\n");
    assert_eq!(etc.read("sysctl.kld.d/pf.conf"), "net.pf.filter_local=1 # kport setup (and the file)\n");

    // again changes nothing
    let all = etc.everything();
    for again in [&["--write"][..], &["--write", "--host-access"]] {
        assert_eq!(etc.all(again).0, 0);
        assert_eq!(etc.everything(), all);
    }
    // what the admin adds meanwhile stays
    fs::write(etc.file("rc.conf"), etc.read("rc.conf") + "sshd_enable=YES\n").unwrap();
    let (status, said) = etc.all(&["--undo"]);
    assert_eq!(status, 0, "{said}");
    assert_eq!(etc.read("rc.conf"), RC.to_owned() + "sshd_enable=YES\n");
    assert_eq!(etc.read("sysctl.conf"), "kern.coredump=0\n");
    assert!(!etc.file("sysctl.kld.d/pf.conf").exists());
    assert_eq!(etc.text(), "block all\n");
}

#[test]
fn all_files_are_written_or_none() {
    // a pf.conf that pfctl refuses, an rc.conf that is a program, a place that wins, a file that cannot be read
    let refuse = |etc: &Etc| fs::write(etc.file("refuse"), "").unwrap();
    let program = |etc: &Etc| fs::write(etc.file("rc.conf"), "if x; then y=z; fi\n").unwrap();
    let local = |etc: &Etc| fs::write(etc.file("rc.conf.local"), "gateway_enable=NO\n").unwrap();
    let hand = |etc: &Etc| fs::write(etc.file("pf.conf"), "include \"x\"\n").unwrap();
    type Breaks<'a> = (&'a dyn Fn(&Etc), &'a str);
    let broken: [Breaks<'_>; 4] = [
        (&refuse, "syntax error"),
        (&program, "\"fi\" is not an assignment"),
        (&local, "rc.conf.local line 1: gateway_enable is \"NO\", which wins"),
        (&hand, "read x: "),
    ];
    for (breaks, word) in broken {
        let etc = Etc::new("block all\n").with(RC, "");
        breaks(&etc);
        let before = etc.everything();
        let (status, said) = etc.all(&["--write", "--load", "--host-access"]);
        assert!(status == 5 && said.contains(word), "{status} {said}");
        assert!(word == "syntax error" || said.contains("by hand"), "{said}");
        assert_eq!(etc.everything(), before, "{word}");
        assert!(!fs::read_to_string(etc.file("log")).unwrap_or_default().lines().any(|line| line.starts_with("-f")));
    }
    // no place for the copy of one of them
    let etc = Etc::new("block all\n").with(RC, "");
    fs::write(etc.file("rc.conf.before-kport"), "").unwrap();
    (1..100).for_each(|n| fs::write(etc.file(&format!("rc.conf.before-kport.{n}")), "").unwrap());
    let before = etc.everything();
    assert!(etc.all(&["--write"]).1.contains("remove some"));
    assert_eq!(etc.everything(), before);
    // a link to nothing stays one
    let etc = Etc::new("block all\n").with(RC, "");
    fs::remove_file(etc.file("rc.conf")).unwrap();
    std::os::unix::fs::symlink("nothing", etc.file("rc.conf")).unwrap();
    let (status, said) = etc.all(&["--write"]);
    assert!(status == 7 && said.contains("rc.conf"), "{status} {said}");
    assert!(fs::symlink_metadata(etc.file("rc.conf")).unwrap().is_symlink() && etc.text() == "block all\n");
}

#[test]
fn load_sets_what_the_kernel_lacks_and_does_not_enable_pf() {
    let etc = Etc::new("block all\n").with("pf_enable=YES\n", "");
    let host = fs::read_to_string(cc::root().join("examples/host.json")).unwrap();
    let host = host.replace("\"net.inet.ip.forwarding\": 1", "\"net.inet.ip.forwarding\": 0");
    fs::write(etc.file("host.json"), host).unwrap();
    let all = |arguments: &[&str]| etc.all(&[&["--host", "host.json"], arguments].concat());
    let (status, said) = all(&["--write"]);
    assert!(status == 0 && said.contains("not set: sysctl net.inet.ip.forwarding=1\n"), "{said}");
    fs::remove_file(etc.file("log")).unwrap();
    let (status, said) = all(&["--write", "--load"]);
    assert!(status == 0 && said.contains("net.inet.ip.forwarding=1: set\n"), "{said}");
    assert!(said.contains("pf is not enabled") && said.contains("service pf onestart"), "{said}");
    let path = fs::canonicalize(etc.file("pf.conf")).unwrap();
    assert_eq!(etc.read("log"), format!("-f {}\nnet.inet.ip.forwarding=1\n-s info\n", path.display()));
    fs::write(etc.file("enabled"), "").unwrap();
    assert!(!all(&["--write", "--load"]).1.contains("not enabled"));
    fs::write(etc.file("refuse-sysctl"), "").unwrap();
    let (status, said) = all(&["--write", "--load"]);
    // what was done before is reported
    assert!(status == 5 && said.contains("Operation not permitted") && said.contains(": loaded"), "{status} {said}");
}

#[test]
fn a_router_goes_on_taking_its_default_route_from_advertisements() {
    let etc = Etc::new("").with("ifconfig_em0_ipv6=\"inet6 accept_rtadv\"\n", "net.inet.ip.forwarding=0 # no router\n");
    assert_eq!(etc.all(&["--write"]).0, 0);
    assert!(etc.read("rc.conf").ends_with("ipv6_cpe_wanif=\"em0\" # kport setup\n"), "{}", etc.read("rc.conf"));
    // sysctl.conf is read again after rc.conf
    assert!(etc.read("sysctl.conf").ends_with("net.inet.ip.forwarding=1 # kport setup\n"));
    let all = etc.everything();
    assert_eq!(etc.all(&["--write"]).0, 0);
    assert_eq!(etc.everything(), all);
    assert_eq!(etc.all(&["--undo"]).0, 0);
    assert_eq!(etc.read("rc.conf"), "ifconfig_em0_ipv6=\"inet6 accept_rtadv\"\n");
}

#[test]
fn what_a_killed_run_has_left_is_in_nobodys_way() {
    let etc = Etc::new("block all\n").with(RC, "");
    fs::write(etc.file("pf.conf.kport-new"), "half of it, and longer than what comes into its place. ".repeat(9))
        .unwrap();
    fs::write(etc.file("rc.conf.kport-new"), "").unwrap();
    assert_eq!(etc.all(&["--write"]).0, 0);
    assert!(etc.text().ends_with("anchor \"kport\" # kport setup\n"), "{}", etc.text());
    assert!(!etc.file("pf.conf.kport-new").exists() && !etc.file("rc.conf.kport-new").exists());
    // a link there is not followed
    let etc = Etc::new("block all\n").with(RC, "");
    fs::write(etc.file("victim"), "mine").unwrap();
    std::os::unix::fs::symlink("victim", etc.file("rc.conf.kport-new")).unwrap();
    assert_eq!(etc.all(&["--write"]).0, 0);
    assert!(etc.read("victim") == "mine" && !etc.file("rc.conf").is_symlink());
    // another run is writing
    let etc = Etc::new("block all\n").with(RC, "");
    let other = fs::File::open(etc.file("")).unwrap();
    other.lock().unwrap();
    let (status, said) = etc.all(&["--write"]);
    assert!(status == 6 && said.contains("another kport setup"), "{status} {said}");
    assert_eq!(etc.text(), "block all\n");
}

#[test]
fn undo_restores_what_was_there() {
    use std::os::unix::fs::MetadataExt;
    // an empty file stays one, and what did not exist is gone
    for there in [true, false] {
        let etc = Etc::new("");
        let names = ["pf.conf", "rc.conf", "sysctl.conf"];
        for name in names {
            if there {
                fs::write(etc.file(name), "").unwrap();
                fs::set_permissions(etc.file(name), fs::Permissions::from_mode(0o640)).unwrap();
            } else {
                _ = fs::remove_file(etc.file(name));
            }
        }
        for arguments in [&["--write"][..], &["--write", "--host-access"], &["--write"]] {
            let (status, said) = etc.all(arguments);
            assert_eq!(status, 0, "{said}");
        }
        assert!(etc.text().contains("rdr-anchor") && etc.read("sysctl.conf").contains("filter_local"));
        let owner = fs::metadata(etc.file("pf.conf")).unwrap();
        let (status, said) = etc.all(&["--undo"]);
        assert_eq!(status, 0, "{said}");
        for name in names {
            assert_eq!(etc.file(name).exists(), there, "{name}: {said}");
            if there {
                let about = fs::metadata(etc.file(name)).unwrap();
                assert_eq!((about.len(), about.mode() & 0o7777), (0, 0o640), "{name}");
                assert_eq!((about.uid(), about.gid()), (owner.uid(), owner.gid()));
            }
        }
        let (status, said) = etc.all(&["--undo"]);
        assert!(status == 0 && said.matches("has no line of kport setup").count() == 4, "{said}");
        assert!(etc.everything().iter().all(|(name, _)| !name.ends_with("-new")));
    }
    // what was added meanwhile stays, with its file
    let etc = Etc::new("").with("", "");
    fs::remove_file(etc.file("rc.conf")).unwrap();
    assert_eq!(etc.all(&["--write"]).0, 0);
    fs::write(etc.file("rc.conf"), etc.read("rc.conf") + "sshd_enable=YES\n").unwrap();
    assert_eq!(etc.all(&["--undo"]).0, 0);
    assert_eq!(etc.read("rc.conf"), "sshd_enable=YES\n");
}

/// nodump goes to the new file; with uchg there is none.
#[cfg(target_os = "freebsd")]
#[test]
fn the_flags_of_a_file() {
    use std::os::freebsd::fs::MetadataExt;
    let etc = Etc::new("block all\n");
    let chflags = |flag: &str| cc::done(Command::new("chflags").arg(flag).arg(etc.file("pf.conf")));
    chflags("nodump");
    let (status, said) = etc.setup(&["--write"]);
    assert!(status == 0 && fs::metadata(etc.file("pf.conf")).unwrap().st_flags() & 1 == 1, "{said}");
    chflags("uchg");
    let (status, said) = etc.setup(&["--undo"]);
    assert!(status == 4 && said.contains("chflags nouchg ") && etc.text().contains("anchor"), "{said}");
    chflags("nouchg");
}

#[test]
fn a_carriage_return_in_a_rule_is_reported_and_kept() {
    for text in ["block in all\r\npass out all\r\n", "block in all\n\r\n", "set skip on lo0\r\n", "block\rin\n"] {
        let etc = Etc::new(text).with("", "");
        let (status, said) = etc.all(&[]);
        assert!(status == 0 && said.contains("carriage return"), "{text:?}: {status} {said}");
        let (status, said) = etc.all(&["--write"]);
        assert!(status == 5 && said.contains("carriage return"), "{text:?}: {status} {said}");
        assert!(etc.text() == text && etc.names() == ["pf.conf"], "{text:?}");
    }
    // sh(1) takes it for a part of the value, and sysctl(8) for white space
    let etc = Etc::new("block in all # here it may be\r\n").with("pf_enable=\"YES\"\r\n", "net.pf.filter_local=1\r\n");
    let before = etc.everything();
    let (status, said) = etc.all(&["--write", "--host-access"]);
    assert!(status == 0 && said.contains("line 1: pf_enable is \"YES\\r\""), "{said}");
    assert!(etc.read("rc.conf").starts_with("pf_enable=\"YES\"\r\npf_enable=\"YES\" # kport setup\n"));
    assert_eq!(etc.read("sysctl.conf"), "net.pf.filter_local=1\r\n");
    assert_eq!(etc.all(&["--undo"]).0, 0);
    let after: Vec<_> = etc.everything().into_iter().filter(|(name, _)| !name.contains("before-kport")).collect();
    assert_eq!(after, before);
}

#[test]
fn no_file_of_others_is_written() {
    let unchanged = |etc: &Etc, word: &str| {
        let before = etc.everything();
        let (status, said) = etc.all(&["--write"]);
        assert!(status == 4 && said.contains(word), "{status} {said}");
        assert_eq!(etc.everything(), before);
    };
    // a hard link in the place of the new file
    for name in ["pf.conf", "rc.conf"] {
        let etc = Etc::new("block all\n").with(RC, "");
        fs::write(etc.file("victim"), "mine").unwrap();
        fs::hard_link(etc.file("victim"), etc.file(&format!("{name}.kport-new"))).unwrap();
        assert_eq!(etc.all(&["--write"]).0, 0);
        assert_eq!(etc.read("victim"), "mine");
    }
    // and other things there
    let etc = Etc::new("block all\n").with(RC, "");
    fs::create_dir(etc.file("rc.conf.kport-new")).unwrap();
    let before = etc.everything();
    let (status, said) = etc.all(&["--write"]);
    assert!(status == 7 && said.contains("write ") && said.contains("rc.conf.kport-new"), "{status} {said}");
    assert_eq!(etc.everything(), before);
    // a file that has another name as well
    let etc = Etc::new("block all\n").with(RC, "");
    fs::hard_link(etc.file("rc.conf"), etc.file("other")).unwrap();
    unchanged(&etc, "it has 2 links");
    // a directory that others can write to
    for mode in [0o777, 0o770] {
        let etc = Etc::new("block all\n").with(RC, "");
        fs::set_permissions(etc.file(""), fs::Permissions::from_mode(mode)).unwrap();
        unchanged(&etc, "others may rename files in");
        // one above it
        let etc = Etc::new("");
        fs::create_dir_all(etc.file("above/etc")).unwrap();
        fs::write(etc.file("above/etc/pf.conf"), "block all\n").unwrap();
        fs::set_permissions(etc.file("above"), fs::Permissions::from_mode(mode)).unwrap();
        let output = etc.kport(&["setup", "--write", "--pf-conf", "above/etc/pf.conf"]).output().unwrap();
        assert!(
            output.status.code() == Some(4) && cc::text(&output.stderr).contains("others may rename"),
            "{output:?}"
        );
        assert_eq!(etc.read("above/etc/pf.conf"), "block all\n");
    }
}

#[test]
fn what_is_read_and_run_is_bounded() {
    let fifo = |etc: &Etc, name: &str| {
        _ = fs::remove_file(etc.file(name));
        cc::done(Command::new("mkfifo").arg(etc.file(name)));
    };
    for name in ["pf.conf", "rc.conf", "sysctl.conf"] {
        let etc = Etc::new("block all\n").with(RC, "");
        fifo(&etc, name);
        let (status, said) = etc.all(&["--write"]);
        assert!(status == 7 && said.contains("not a regular file"), "{name}: {status} {said}");
        let etc = Etc::new("block all\n").with(RC, "");
        fs::File::create(etc.file(name)).unwrap().set_len(1 << 40).unwrap();
        let (status, said) = etc.all(&["--write"]);
        assert!(status == 7 && said.contains("bytes"), "{name}: {status} {said}");
    }
    // a pfctl(8) that does not end
    let etc = Etc::new("block all\n").with(RC, "");
    fifo(&etc, "never");
    let program = etc.file("pfctl");
    fs::write(&program, format!("#!/bin/sh\nexec cat {}\n", etc.file("never").display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let (status, said) = etc.setup_with(&program, &["--write", "--timeout", "0.2"]);
    assert!(status == 6 && said.contains("in time") && said.contains("--timeout"), "{status} {said}");
    assert!(etc.text() == "block all\n" && etc.names() == ["pf.conf"], "{:?}", etc.names());
}

/// Latin-1 in comments and in strings, lines that end with CR and LF, a last line without a newline.
#[test]
fn no_byte_of_a_file_is_lost() {
    let files: [(&str, &[u8]); 3] = [
        ("pf.conf", b"# caf\xe9 \xff\r\nblock in all label \"\xe9\" # \xe9\npass out # \xe9"),
        ("rc.conf", b"# caf\xe9\r\nhostname=\"\xe9\" # \xff"),
        ("sysctl.conf", b"# caf\xe9\nkern.corefile=\xe9"),
    ];
    let etc = Etc::new("");
    for (name, bytes) in files {
        fs::write(etc.file(name), bytes).unwrap();
    }
    let (status, said) = etc.all(&["--write", "--host-access"]);
    assert_eq!(status, 0, "{said}");
    for (name, bytes) in files {
        let written = fs::read(etc.file(name)).unwrap();
        assert_eq!(fs::read(etc.file(&format!("{name}.before-kport"))).unwrap(), bytes);
        assert!(written.len() > bytes.len() && String::from_utf8_lossy(&written).contains("# kport setup"), "{name}");
    }
    let written = fs::read(etc.file("pf.conf")).unwrap();
    assert!(
        written.starts_with(b"# caf\xe9 \xff\r\nnat-anchor") && written.ends_with(b"\npass out # \xe9"),
        "{written:?}"
    );
    assert!(fs::read(etc.file("rc.conf")).unwrap().starts_with(files[1].1));
    let (status, said) = etc.all(&["--write", "--host-access"]);
    assert!(
        status == 0 && said.matches("has what it needs").count() >= 2 && said.contains("has kport's lines"),
        "{said}"
    );
    assert_eq!(etc.all(&["--undo"]).0, 0);
    for (name, bytes) in files {
        assert_eq!(fs::read(etc.file(name)).unwrap(), bytes, "{name}");
    }
}
