//! `kport setup` on the pf.conf of each jail manager, and of admins: tests/setup/NAME.conf becomes NAME.ok, or is left as it is.
//! To renew: `KPORT_BLESS=1 cargo test --test suite setup`.

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
        etc
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
        kport
    }

    /// The exit status, and all that was said.
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

#[test]
fn every_template_gets_its_lines_where_they_belong() {
    for (name, text) in templates() {
        let etc = Etc::new(&text);
        let (status, said) = etc.setup(&[]);
        assert_eq!(status, 0, "{name}: {said}");
        assert!(etc.text() == text && etc.names() == ["pf.conf"], "{name}: only --write writes");
        let golden = cc::root().join(format!("tests/setup/{name}.ok"));
        if ["include", "late"].contains(&name.as_str()) {
            assert!(said.contains("by hand") && said.contains("rdr-anchor \"kport/*\""), "{name}: {said}");
            let (status, said) = etc.setup(&["--write"]);
            assert!(status == 5 && said.contains("left as it is"), "{name}: {status} {said}");
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

/// What the places are for: from outside, the published port answers, and the jail's own address does not.
#[test]
fn a_published_port_is_reached_under_every_template() {
    for (name, text) in templates().into_iter().filter(|(name, _)| !["include", "late"].contains(&name.as_str())) {
        let etc = Etc::new(&text);
        assert_eq!(etc.setup(&["--write"]).0, 0);
        fs::create_dir_all(etc.file("state/sim")).unwrap();
        fs::set_permissions(etc.file("state"), fs::Permissions::from_mode(0o700)).unwrap();
        // a table of the admin's that holds nobody; antispoof drops what no client here sends, and is not modelled, nor is :0
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
    let pfctl = cc::root().join("tests/setup/pfctl.sh");
    let (_, bastille) = templates().into_iter().find(|(name, _)| name == "bastille").unwrap();
    let etc = Etc::new(&bastille);
    let log = etc.file("log");
    fs::write(etc.file("refuse"), "").unwrap();
    let (status, said) = etc.setup_with(&pfctl, &["--write", "--load"]);
    assert!(
        status == 5 && said.contains("pf.conf:3: syntax error") && said.contains("as it is, too"),
        "{status} {said}"
    );
    assert!(etc.text() == bastille && etc.names() == ["pf.conf"], "{:?}", etc.names());
    assert!(fs::read_to_string(&log).unwrap().lines().all(|line| line.starts_with("-n -f ")));

    fs::remove_file(&log).unwrap();
    fs::remove_file(etc.file("refuse")).unwrap();
    let (status, said) = etc.setup_with(&pfctl, &["--write", "--load"]);
    assert!(status == 0 && said.contains("written, checked") && said.contains(": loaded"), "{status} {said}");
    let path = fs::canonicalize(etc.file("pf.conf")).unwrap();
    let expected = format!("-n -f {0}.kport-new\n-f {0}\n", path.display());
    assert_eq!(fs::read_to_string(&log).unwrap(), expected);
    let (status, said) = etc.setup_with(&pfctl, &["--undo"]);
    assert!(status == 0 && said.contains("not loaded: pfctl -f"), "{said}");
    // the copy of the first time stays
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
    // none is made
    let etc = Etc::new("");
    fs::remove_file(etc.file("pf.conf")).unwrap();
    assert_eq!(etc.setup(&["--write"]).0, 0);
    assert_eq!(etc.text().lines().count(), 3);
    assert_eq!(etc.names(), ["pf.conf"]);
    // a directory, and options that cannot hold together
    fs::remove_file(etc.file("pf.conf")).unwrap();
    fs::create_dir(etc.file("pf.conf")).unwrap();
    assert_eq!(etc.setup(&["--write"]).0, 7);
    assert_eq!(etc.setup(&["--write", "--undo"]).0, 64);
}
