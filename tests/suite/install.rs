//! scripts/install.sh installs what a C program is built with, shared and static, through pkg-config.

use crate::support::cc;
use crate::support::rig::files;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ARGUMENTS: [&str; 3] = ["web", "10.0.0.2", "em0:8080:80"];
const PRINTED: &str = "published em0:8080:80/tcp\nweb: tcp port 8080 on em0 -> 10.0.0.2 port 80\nunpublished web\n";

/// Installs into a directory of its own, and returns it.
pub fn install(name: &str, options: &[&str]) -> PathBuf {
    let dest = cc::work_dir().join(name);
    let mut sh = Command::new("sh");
    sh.arg(cc::root().join("scripts/install.sh")).arg("--from").arg(from(name)).args(options).env("DESTDIR", &dest);
    cc::done(&mut sh);
    dest
}

/// A directory with the files that cargo builds.
fn from(name: &str) -> PathBuf {
    let from = cc::work_dir().join(format!("{name}-from"));
    fs::create_dir(&from).unwrap();
    let deps = cc::shared_library();
    for (file, path) in [
        ("libkport.so", deps.clone()),
        ("libkport.a", deps.with_file_name("libkport.a")),
        ("kport", env!("CARGO_BIN_EXE_kport").into()),
    ] {
        std::os::unix::fs::symlink(path, from.join(file)).unwrap();
    }
    from
}

/// How many sections of a file hold symbols or line tables.
pub fn symbols(file: &Path) -> usize {
    let sections = cc::text(&cc::done(Command::new("readelf").arg("-SW").arg(file)).stdout);
    assert!(sections.contains(" .text "), "{sections}");
    sections.lines().filter(|line| line.contains(" .debug_line ") || line.contains(" .symtab ")).count()
}

#[test]
fn symbols_are_kept_if_asked_for_and_in_what_cargo_built() {
    assert!(symbols(Path::new(env!("CARGO_BIN_EXE_kport"))) > 0);
    let from = from("unstripped");
    let dest = cc::work_dir().join("unstripped");
    let mut sh = Command::new("sh");
    sh.arg(cc::root().join("scripts/install.sh")).arg("--from").arg(from).env("DESTDIR", &dest).env("STRIP", "");
    assert_eq!(cc::text(&cc::done(&mut sh).stderr), "");
    assert!(symbols(&dest.join("usr/local/bin/kport")) > 0);
}

fn pkg_config(dest: &Path, arguments: &[&str]) -> Vec<String> {
    let mut pkg_config = Command::new("pkg-config");
    pkg_config.args(arguments).arg("kport").env("PKG_CONFIG_SYSROOT_DIR", dest).env("PKG_CONFIG_PATH", dest.join("pc"));
    cc::text(&cc::done(&mut pkg_config).stdout).split_whitespace().map(str::to_owned).collect()
}

fn compile(dest: &Path, flags: &[String]) -> PathBuf {
    let program = dest.join("publish");
    let source = cc::root().join("c-examples/publish.c");
    cc::done(Command::new("cc").arg("-std=c99").arg(source).args(flags).arg("-o").arg(&program));
    program
}

#[test]
fn a_program_is_built_and_run_with_the_shared_library() {
    if !cc::has("pkg-config") {
        return;
    }
    let dest = install("shared", &["--prefix=/opt/kport", "--libdir", "/opt/kport/lib64", "--pkgconfigdir=/pc"]);
    assert_eq!(pkg_config(&dest, &["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    assert_eq!(pkg_config(&dest, &["--variable=libdir"]).len(), 1);
    let program = compile(&dest, &pkg_config(&dest, &["--cflags", "--libs"]));

    let needed = cc::text(&cc::done(Command::new("readelf").arg("-d").arg(&program)).stdout);
    assert!(needed.contains(&format!("[{}]", cc::soname())), "{needed}");
    let (mut run, _state) = cc::command(&program);
    let output = cc::done(run.args(ARGUMENTS).env("LD_LIBRARY_PATH", dest.join("opt/kport/lib64")));
    assert_eq!(cc::text(&output.stdout), PRINTED);

    for file in [
        "include/kport.h",
        "share/man/man3/kport.3",
        "share/man/man8/kport.8",
        "share/man/man5/kport.conf.5",
        "share/man/man8/kport-cni.8",
        "lib64/libkport.a",
        "share/bash-completion/completions/kport",
        "share/fish/vendor_completions.d/kport.fish",
        "share/zsh/site-functions/_kport",
        "share/kport/schema/list.json",
    ] {
        assert!(dest.join("opt/kport").join(file).is_file(), "{file}");
    }
    let version = cc::done(Command::new(dest.join("opt/kport/bin/kport")).arg("--version"));
    assert_eq!(cc::text(&version.stdout), concat!("kport ", env!("CARGO_PKG_VERSION"), "\n"));
    for file in ["bin/kport", "lib64/libkport.so"] {
        assert_eq!(symbols(&dest.join("opt/kport").join(file)), 0, "{file} is not stripped");
    }
    let pc = fs::read_to_string(dest.join("pc/kport.pc")).unwrap();
    assert!(!pc.contains(cc::work_dir().to_str().unwrap()) && !pc.contains('@'), "{pc}");
}

#[test]
fn a_program_is_built_and_run_with_the_static_library() {
    if !cc::has("pkg-config") {
        return;
    }
    let dest = install("static", &["--prefix=/opt/kport", "--pkgconfigdir=/pc"]);
    // the linker would use the shared one
    fs::remove_file(dest.join("opt/kport/lib/libkport.so")).unwrap();
    let program = compile(&dest, &pkg_config(&dest, &["--cflags", "--libs", "--static"]));
    let needed = cc::text(&cc::done(Command::new("readelf").arg("-d").arg(&program)).stdout);
    assert!(!needed.contains("libkport"), "{needed}");
    let (mut run, _state) = cc::command(&program);
    assert_eq!(cc::text(&cc::done(run.args(ARGUMENTS)).stdout), PRINTED);
}

#[test]
fn wrong_options_and_missing_files_are_errors() {
    let script = cc::root().join("scripts/install.sh");
    let output = Command::new("sh").arg(&script).arg("--prefux=/x").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let output = Command::new("sh").arg(&script).args(["--from", "/nonexistent"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(cc::text(&output.stderr).contains("cargo build --release"));
}

/// As on a host that gets what another has built.
#[test]
fn without_a_compiler_the_rest_is_installed() {
    let dest = cc::work_dir().join("no-rustc");
    let mut sh = Command::new("sh");
    sh.arg(cc::root().join("scripts/install.sh")).arg("--from").arg(from("no-rustc")).env("DESTDIR", &dest);
    let said = cc::text(&cc::done(sh.env("RUSTC", "/nonexistent/rustc")).stderr);
    assert_eq!(said, "install.sh: there is no rustc; kport.pc has no libraries for static linking\n");
    assert!(dest.join("usr/local/bin/kport").is_file());
}

#[test]
fn what_was_installed_is_uninstalled_and_nothing_else() {
    let options = [
        "--prefix=/opt/kport",
        "--libdir=/opt/kport/lib64",
        "--pkgconfigdir=/pc",
        "--datadir=/opt/data",
        "--sysconfdir=/etc",
    ];
    let dest = install("uninstall", &options);
    let zsh = dest.join("opt/data/zsh/site-functions/_kport");
    assert!(fs::read_to_string(&zsh).unwrap().starts_with("#compdef kport\n"));
    fs::write(zsh.with_file_name("_other"), "").unwrap();
    assert!(files(&dest).len() > 10, "{:?}", files(&dest));
    let mut sh = Command::new("sh");
    sh.arg(cc::root().join("scripts/install.sh")).args(options).arg("--uninstall").env("DESTDIR", &dest);
    cc::done(&mut sh);
    assert_eq!(files(&dest), ["opt/data/zsh/site-functions/_other"]);
}

#[test]
fn a_helper_for_another_machine_is_installed_unstripped_without_completions() {
    let from = cc::work_dir().join("foreign-from/x86_64-unknown-freebsd/release");
    fs::create_dir_all(&from).unwrap();
    for file in ["libkport.so", "libkport.a", "kport"] {
        fs::write(from.join(file), "\x7fELF of another machine").unwrap();
    }
    // what a static library needs on that machine
    let rustc = cc::work_dir().join("foreign-rustc");
    let script = "#!/bin/sh\ncase \" $* \" in *\" --target x86_64-unknown-freebsd \"*) \
                  echo 'note: native-static-libs: -lof_freebsd' >&2 ;; esac\n";
    let write = "printf '%s' \"$1\" >\"$2\"; chmod 755 \"$2\"";
    cc::done(Command::new("sh").args(["-c", write, "sh", script]).arg(&rustc));
    let dest = cc::work_dir().join("foreign");
    let mut sh = Command::new("sh");
    sh.arg(cc::root().join("scripts/install.sh")).arg("--from").arg(from).env("DESTDIR", &dest).env("RUSTC", rustc);
    let said = cc::text(&cc::done(&mut sh).stderr);
    let pc = fs::read_to_string(dest.join("usr/local/libdata/pkgconfig/kport.pc")).unwrap();
    assert!(pc.contains("Libs.private: -lof_freebsd\n"), "{pc}");
    assert!(dest.join("usr/local/etc/rc.d/kport").is_file());
    assert!(said.contains("no completions were installed"), "{said}");
    assert!(said.contains("strip cannot strip") && said.contains("with its symbols"), "{said}");
    assert!(dest.join("usr/local/bin/kport").is_file() && !dest.join("usr/local/share/zsh").exists());
}
