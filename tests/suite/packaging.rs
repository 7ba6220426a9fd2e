//! The FreeBSD port: its files agree with the sources and with scripts/install.sh, and its scripts are run.

use crate::install::{install, symbols};
use crate::support::cc;
use crate::support::rig::files;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn port(file: &str) -> PathBuf {
    cc::root().join("packaging/freebsd").join(file)
}

fn text(file: &str) -> String {
    fs::read_to_string(port(file)).unwrap()
}

#[test]
fn the_crates_are_those_of_cargo_lock() {
    // in a copy: the script writes into its directory
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().join("packaging/freebsd");
    fs::create_dir_all(&there).unwrap();
    fs::copy(cc::root().join("Cargo.lock"), dir.path().join("Cargo.lock")).unwrap();
    let script = text("crates.sh");
    let made = cc::done(Command::new("sh").arg("-c").arg(script).arg(there.join("crates.sh")).current_dir(&there));
    assert_eq!(cc::text(&made.stderr), "");
    let made = fs::read_to_string(there.join("Makefile.crates")).unwrap();
    if std::env::var_os("KPORT_BLESS").is_some() {
        fs::write(port("Makefile.crates"), &made).unwrap();
    }
    assert_eq!(made, text("Makefile.crates"), "update it: packaging/freebsd/crates.sh");
    assert!(made.contains("\tclap-4.") && !made.contains("kport-"), "{made}");
}

#[test]
fn distinfo_takes_the_sums_of_cargo_lock_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().join("packaging/freebsd");
    fs::create_dir_all(&there).unwrap();
    // the sum of an empty file
    let sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let lock = |sum: &str| {
        let registry = "registry+somewhere";
        let text = format!(
            "[[package]]\nname = \"own\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"a\"\nversion = \"0.1.2\"\nsource = \"{registry}\"\nchecksum = \"{sum}\"\n"
        );
        fs::write(dir.path().join("Cargo.lock"), text).unwrap();
    };
    fs::write(dir.path().join("a-0.1.2.crate"), "").unwrap();
    let run = || {
        let mut sh = Command::new("sh");
        sh.arg("-c").arg(text("crates.sh")).arg(there.join("crates.sh")).arg("--distinfo").arg(dir.path());
        sh.env("SOURCE_DATE_EPOCH", "7").current_dir(&there).output().unwrap()
    };
    lock(sum);
    assert!(run().status.success());
    let made = fs::read_to_string(there.join("distinfo")).unwrap();
    assert_eq!(
        made,
        format!("TIMESTAMP = 7\nSHA256 (rust/crates/a-0.1.2.crate) = {sum}\nSIZE (rust/crates/a-0.1.2.crate) = 0\n")
    );
    lock(&sum.replace('e', "f"));
    let other = run();
    assert!(
        !other.status.success() && cc::text(&other.stderr).contains("does not have the checksum"),
        "{}",
        cc::text(&other.stderr)
    );
}

#[test]
fn the_port_is_of_this_version() {
    assert!(text("Makefile").contains(&format!("DISTVERSION=\t{}\n", env!("CARGO_PKG_VERSION"))));
    let message = text("files/pkg-message.in");
    assert!(message.contains("kport setup") && message.contains("%%PREFIX%%/bin/kport publish --hook"), "{message}");
}

/// The files that pkg-plist lists.
fn listed() -> BTreeSet<String> {
    let version = env!("CARGO_PKG_VERSION");
    let (abi, _) = version.rsplit_once('.').unwrap();
    let plist = text("pkg-plist").replace("%%ABI%%", abi).replace("%%VERSION%%", version);
    let plist = plist.replace("%%EXAMPLESDIR%%", "share/examples/kport").replace("%%DATADIR%%", "share/kport");
    plist.lines().map(|line| line.trim_end_matches(".gz").to_owned()).collect()
}

#[test]
fn the_port_installs_what_the_installer_does() {
    let freebsd = ["--pkgconfigdir=/usr/local/libdata/pkgconfig", "--sysconfdir=/usr/local/etc"];
    let dest = install("port", &[&["--prefix=/usr/local"][..], &freebsd].concat());
    let installed: BTreeSet<String> = files(&dest.join("usr/local")).into_iter().collect();
    let mut listed = listed();
    // the examples belong to the port alone; USE_RC_SUBR lists the rc script
    listed.retain(|file| !file.starts_with("share/examples/"));
    listed.insert("etc/rc.d/kport".to_owned());
    assert_eq!(listed, installed);
    for script in ["etc/rc.d/kport", "etc/periodic/daily/410.kport-apply"] {
        let path = dest.join("usr/local").join(script);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"/usr/local/bin/kport\"") && !text.contains("%%"), "{text}");
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o755);
    }
}

/// Runs the commands of do-install in a shell, in place of make(1), after what cinstall of cargo-c does; `debug`: with
/// WITH_DEBUG. Returns the directory below the prefix.
fn staged(debug: bool) -> PathBuf {
    let stage = cc::work_dir().join(if debug { "stage-debug" } else { "stage" });
    let (target, prefix) = (stage.join("target"), stage.join("stage/usr/local"));
    let work = stage.join("work");
    let built = target.join("x86_64-unknown-freebsd").join(if debug { "debug" } else { "release" });
    // mtree(8) creates the usual ones
    for dir in ["bin", "share/man/man3", "share/man/man5", "share/man/man8"] {
        fs::create_dir_all(prefix.join(dir)).unwrap();
    }
    for dir in [&built, &work] {
        fs::create_dir_all(dir).unwrap();
    }
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kport"), built.join("kport")).unwrap();
    for file in ["410.kport-apply", "pf"] {
        fs::write(work.join(file), text(&format!("files/{file}.in"))).unwrap();
    }
    let library = format!("libkport.so.{}", env!("CARGO_PKG_VERSION"));
    let by_cargo_c = |file: &String| {
        let name = file.rsplit('/').next().unwrap();
        name.starts_with("libkport") || ["kport.h", "kport.pc"].contains(&name)
    };
    for file in listed().into_iter().filter(by_cargo_c) {
        let path = prefix.join(&file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if file.ends_with(&library) {
            fs::copy(cc::shared_library(), &path).unwrap();
        } else {
            fs::write(&path, "").unwrap();
        }
    }

    let makefile = text("Makefile").replace("\\\n", " ");
    let variable = |name: &str| {
        let line = makefile.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
    };
    let (_, recipe) = makefile.split_once("\ndo-install:\n").unwrap();
    let recipe = recipe.split("\n\n").next().unwrap();
    let commands = recipe.lines().filter(|line| line.starts_with('\t') && !line.contains(" cinstall "));
    let mut script: String = commands.map(|line| format!("{}\n", line.trim_start_matches(['\t', '@']))).collect();
    let root = cc::root();
    let (program, strip) = if debug { ("install -m 755", "true") } else { ("install -s -m 755", "strip") };
    for (name, value) in [
        ("${KPORT}", &*variable("KPORT")),
        ("${WITH_DEBUG:Ddebug:Urelease}", if debug { "debug" } else { "release" }),
        ("${CARGO_TARGET_DIR}", target.to_str().unwrap()),
        ("${CARGO_BUILD_TARGET}", "x86_64-unknown-freebsd"),
        ("${STAGEDIR}", stage.join("stage").to_str().unwrap()),
        ("${EXAMPLESDIR}", "/usr/local/share/examples/kport"),
        ("${DATADIR}", "/usr/local/share/kport"),
        ("${PREFIX}", "/usr/local"),
        ("${WRKSRC}", root.to_str().unwrap()),
        ("${WRKDIR}", work.to_str().unwrap()),
        ("${DISTVERSION}", env!("CARGO_PKG_VERSION")),
        ("${MKDIR}", "mkdir -p"),
        ("${INSTALL_PROGRAM}", program),
        ("${STRIP_CMD}", strip),
        ("${INSTALL_SCRIPT}", "install -m 755"),
        ("${INSTALL_DATA}", "install -m 644"),
        ("${INSTALL_MAN}", "install -m 644"),
    ] {
        script = script.replace(name, value);
    }
    assert!(!script.contains('$') && script.contains(&library), "{script}");
    cc::done(Command::new("sh").arg("-ec").arg(script));
    prefix
}

#[test]
fn do_install_installs_what_is_listed_and_strips_it() {
    let prefix = staged(false);
    let found: BTreeSet<String> = files(&prefix).into_iter().collect();
    assert_eq!(found, listed());
    let library = format!("lib/libkport.so.{}", env!("CARGO_PKG_VERSION"));
    for file in ["bin/kport", &library] {
        assert_eq!(symbols(&prefix.join(file)), 0, "{file} is not stripped");
    }
}

#[test]
fn with_debug_the_symbols_are_installed() {
    let prefix = staged(true);
    assert!(symbols(&prefix.join("bin/kport")) > 0);
}

/// A file of the port after the ports tree has filled in its variables; kport is installed in a directory.
fn made(dir: &Path, file: &str) -> PathBuf {
    let path = dir.join(file.trim_end_matches(".in"));
    let text = text(&format!("files/{file}")).replace("%%PREFIX%%", dir.to_str().unwrap());
    assert!(!text.contains("%%"), "{text}");
    fs::write(&path, text).unwrap();
    path
}

/// A program in place of kport that prints its arguments, and fails if there is a file "fail".
fn stand_in(dir: &Path) {
    fs::create_dir_all(dir.join("bin")).unwrap();
    let script = "#!/bin/sh\nhere=$(dirname \"$0\")\necho \"kport $*\"\n[ ! -e \"$here/fail\" ] || exit 5\n";
    // a shell writes it and exits, so no descriptor is open for writing when it is run (ETXTBSY)
    let write = "printf '%s' \"$1\" >\"$2\"; chmod 755 \"$2\"";
    cc::done(Command::new("sh").args(["-c", write, "sh", script]).arg(dir.join("bin/kport")));
}

#[test]
fn the_rc_script_applies_and_watches_and_never_fails() {
    let dir = tempfile::tempdir().unwrap();
    stand_in(dir.path());
    let script = made(dir.path(), "kport.in");
    let text = fs::read_to_string(&script).unwrap();
    for line in ["# PROVIDE: kport", "# REQUIRE: pf", "# BEFORE: jail", "# KEYWORD: nojail"] {
        assert!(text.lines().any(|l| l == line), "{line}");
    }
    // the part of rc.subr(8) that the script uses
    let subr = dir.path().join("rc.subr");
    let played = "load_rc_config() { :; }\nwarn() { echo \"warn $*\"; }\nrun_rc_command() { eval \"\\${${1}_cmd}\" || exit 1; }\n\
        checkyesno() { eval [ \\${$1} = YES ]; }\nwait_for_pids() { echo \"wait $*\"; }\n\
        check_pidfile() { [ ! -f \"$1\" ] || cat \"$1\"; }\nkill() { echo \"kill $*\"; }\n";
    fs::write(&subr, played).unwrap();
    let here = dir.path().to_str().unwrap();
    let text = text.replace("/etc/rc.subr", subr.to_str().unwrap()).replace("/var/run", here);
    fs::write(&script, text.replace("/usr/sbin/daemon -c", "echo daemon -c")).unwrap();
    let run = |command: &str| {
        let output = Command::new("sh").arg(&script).arg(command).output().unwrap();
        (output.status.code().unwrap(), cc::text(&output.stdout))
    };
    assert_eq!(run("start"), (0, "kport apply\n".to_owned()));
    assert_eq!(run("reload"), (0, "kport apply\n".to_owned()));
    // with the watcher
    let watched = |command: &str| {
        let output = Command::new("sh").arg(&script).arg(command).env("kport_watch", "YES").output().unwrap();
        (output.status.code().unwrap(), cc::text(&output.stdout))
    };
    let (status, said) = watched("start");
    let started = format!("{here}/bin/kport --quiet watch\n");
    assert!(status == 0 && said.starts_with("kport apply\ndaemon -c ") && said.ends_with(&started), "{said}");
    fs::write(dir.path().join("kport_daemon.pid"), "77").unwrap();
    fs::write(dir.path().join("kport_watch.pid"), "78").unwrap();
    assert_eq!(watched("start"), (0, "kport apply\n".to_owned()));
    assert_eq!(watched("reload"), (0, "kill -HUP 78\n".to_owned()));
    assert_eq!(watched("stop"), (0, "kill -TERM 77\nwait 77\n".to_owned()));
    fs::remove_file(dir.path().join("kport_daemon.pid")).unwrap();
    fs::remove_file(dir.path().join("kport_watch.pid")).unwrap();
    assert_eq!(run("doctor"), (0, "kport doctor\n".to_owned()));
    assert_eq!(run("status"), (0, "kport doctor --quiet\n".to_owned()));
    assert_eq!(run("stop"), (0, String::new()));
    fs::write(dir.path().join("bin/fail"), "").unwrap();
    let (status, said) = run("start");
    assert!(status == 0 && said.contains("warn not everything"), "{said}");
    for command in ["apply", "check", "doctor", "reload", "status"] {
        assert_eq!(run(command).0, 5, "{command}");
    }
}

#[test]
fn the_periodic_script_applies_if_enabled() {
    let dir = tempfile::tempdir().unwrap();
    stand_in(dir.path());
    let script = made(dir.path(), "410.kport-apply.in");
    let run = |enable: &str| {
        let output = Command::new("sh").arg(&script).env("daily_kport_apply_enable", enable).output().unwrap();
        (output.status.code().unwrap(), cc::text(&output.stdout))
    };
    assert_eq!(run("NO"), (0, String::new()));
    let (status, said) = run("YES");
    assert!(status == 1 && said.contains("kport apply"), "{status} {said}");
    fs::write(dir.path().join("bin/fail"), "").unwrap();
    assert_eq!(run("yes").0, 3);
}

#[test]
fn the_scripts_of_the_port_are_sound() {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = ["kport.in", "410.kport-apply.in", "pf.in"].map(|file| made(dir.path(), file)).into();
    for file in &files {
        cc::done(Command::new("sh").arg("-n").arg(file));
    }
    if cc::has("shellcheck") {
        // rc.subr(8) and periodic.conf(5) are not here, and rc.subr reads the variables
        let mut shellcheck = Command::new("shellcheck");
        let output = shellcheck.args(["-s", "sh", "-e", "SC1091,SC2034"]).args(&files).output().unwrap();
        assert!(output.status.success(), "{}", cc::text(&output.stdout));
    }
    assert_eq!(fs::metadata(port("crates.sh")).unwrap().permissions().mode() & 0o111, 0o111);
}

/// `cargo package` takes every file that its tests read and that scripts/install.sh and the port install, and nothing of CI.
#[test]
fn the_package_is_complete() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["package", "--list", "--offline", "--allow-dirty"]).current_dir(cc::root());
    let list = cc::text(&cc::done(&mut cargo).stdout);
    let listed: BTreeSet<&str> = list.lines().collect();
    for folder in ["abi", "c-examples", "docs", "include", "man", "packaging", "schema", "scripts", "src", "tests"] {
        for file in files(&cc::root().join(folder)) {
            let path = format!("{folder}/{file}");
            assert!(listed.contains(&*path), "{path} is not in the package");
        }
    }
    let others = "CHANGELOG.md CONTRIBUTING.md Cargo.lock LICENSE README.md build.rs cbindgen.toml kport.pc.in \
        benches/kernel.c examples/host.json examples/jail.conf examples/pf.conf examples/elixir/mix.exs";
    for file in others.split_whitespace() {
        assert!(listed.contains(file), "{file} is not in the package");
    }
    for file in listed {
        assert!(
            !file.starts_with(".ci/") && !file.starts_with("fuzz/") && file != ".gitignore",
            "{file} is in the package"
        );
        // a name that some systems do not have
        assert!(!file.contains(['\\', '<', '>', ':', '"', '|', '?', '*']), "{file}");
    }
    let manifest = fs::read_to_string(cc::root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("[package.metadata.docs.rs]") && manifest.contains("x86_64-unknown-freebsd"));
}

/// The newest version of CHANGELOG.md is that of Cargo.toml, with its date.
#[test]
fn the_changelog_has_this_version() {
    let changelog = fs::read_to_string(cc::root().join("CHANGELOG.md")).unwrap();
    let mut heads = changelog.lines().filter_map(|line| line.strip_prefix("## "));
    assert_eq!(heads.next(), Some("[Unreleased]"));
    let (version, date) = heads.next().unwrap().split_once(" - ").expect("a date");
    assert_eq!(version, concat!("[", env!("CARGO_PKG_VERSION"), "]"));
    let shape: String = date.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(shape, "9999-99-99");
    // the words of Keep a Changelog
    let words = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "What has run"];
    for section in changelog.lines().filter_map(|line| line.strip_prefix("### ")) {
        assert!(words.contains(&section), "{section}");
    }
}
