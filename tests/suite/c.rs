//! Every C and C++ program of c-examples and tests/c, compiled with warnings as errors against the shared library that cargo
//! built, and run, alone and under valgrind.

use crate::support::{cc, standin};

use std::path::Path;
use std::process::Command;

use crate::support::cc::{C99, CXX11, Compiler, text};

#[test]
fn publish_c_publishes_lists_and_unpublishes() {
    let program = C99.build("c-examples/publish.c");
    let printed = cc::run(&program, &["web", "10.0.0.2", "8080:80 em1:5353:53/udp em1:9000-9009:9000/sctp"]);
    assert_eq!(
        printed,
        "published 8080:80/tcp em1:5353:53/udp em1:9000-9009:9000-9009/sctp\n\
         web: tcp port 8080 on em0 -> 10.0.0.2 port 80\n\
         web: udp port 5353 on em1 -> 10.0.0.2 port 53\n\
         web: sctp port 9000 on em1 -> 10.0.0.2 port 9000\n\
         unpublished web\n"
    );
}

/// The benchmark of a FreeBSD host, with the simulator in place of its kernel.
#[test]
fn kernel_c_measures_and_takes_everything_back() {
    let program = C99.build("benches/kernel.c");
    let mut command = Command::new(&program);
    let output = cc::done(command.args(["-b", "sim", "-n", "1", "-j", "20"]));
    let printed = text(&output.stdout);
    for part in ["backend sim, 1 rounds", "|       50 |", "| current |", "\n| 20 | "] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    assert_eq!(cc::without_notice(&text(&output.stderr)), "");
    let wrong = Command::new(&program).args(["-n", "0"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(64));
}

#[test]
fn publish_c_prints_why_it_failed() {
    let program = C99.build("c-examples/publish.c");
    let (mut command, _dir) = cc::command(&program);
    let output = command.args(["web", "10.0.0.2", "8080:80/TCP"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    let said = text(&output.stderr);
    assert!(
        said.starts_with("publish: bad port spec: ") && said.contains("tcp") && said.lines().count() == 1,
        "{said}"
    );
}

/// Every dialect that the header supports, with every compiler that is installed.
#[test]
fn the_header_is_c99_to_c23_and_cxx11_to_cxx20() {
    let c = ["c99", "c11", "c17", "c2x"];
    let cxx = ["c++11", "c++17", "c++20"];
    let compilers = [("cc", &c[..]), ("c++", &cxx[..]), ("gcc", &c), ("clang", &c), ("g++", &cxx), ("clang++", &cxx)];
    let mut built = 0;
    for (program, dialects) in compilers {
        if !cc::has(program) {
            continue;
        }
        for dialect in dialects {
            let flags: &[&str] = if program.ends_with("++") { &["-x", "c++"] } else { &[] };
            let program = Compiler { program, dialect, flags }.build("tests/c/header.c");
            cc::done(&mut cc::command(&program).0);
            built += 1;
        }
    }
    assert!(built >= c.len() + cxx.len(), "no C and C++ compiler");
}

#[test]
fn null_is_an_answer_or_an_error_everywhere() {
    assert_eq!(cc::run(&C99.build("tests/c/null.c"), &[]), "");
}

/// In the program's own loop: the first line is of a target that is not a jail, and a change of the file comes when it is asked for.
#[test]
fn a_watch_in_a_loop_of_its_own() {
    let program = C99.build("c-examples/watch.c");
    let (mut command, dir) = cc::command(&program);
    let conf = dir.path().join("kport.conf");
    std::fs::write(&conf, "guest em0:8080:80 --no-jail -a 10.0.0.9\n").unwrap();
    let output = cc::done(command.arg(&conf).arg("1"));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["what"], &report["jail"]), (&"published".into(), &"guest".into()), "{report}");
    assert_eq!(report["after"], serde_json::json!(["tcp 8080 on em0 -> 10.0.0.9:80"]));
    std::fs::write(&conf, "nonsense\n").unwrap();
    let output = cc::done(cc::command(&program).0.arg(&conf).arg("1"));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["error"].as_str().unwrap().contains("kport.conf:1: "), "{report}");
    let output = cc::command(&program).0.args(["/nonexistent\u{7f}", "1"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("there is no file"), "{output:?}");
}

#[test]
fn hostile_texts_sizes_and_numbers_are_errors() {
    assert_eq!(cc::run(&C99.build("tests/c/hostile.c"), &[]), "");
}

fn process(host: &str) {
    assert_eq!(cc::run(&C99.build("tests/c/process.c"), &[host]), "");
}

#[test]
fn two_hundred_threads_at_once() {
    cc::done(cc::command(&C99.build("tests/c/process.c")).0.arg("threads"));
    // valgrind runs one thread at a time
    process("some-threads");
}

#[test]
fn the_child_of_a_fork() {
    process("forked");
}

/// Without valgrind, which reports as leaks what the other thread was using, which the child does not have.
#[test]
fn the_child_of_a_fork_while_another_thread_is_in_the_library() {
    cc::done(cc::command(&C99.build("tests/c/process.c")).0.arg("forked-busy"));
}

#[test]
fn no_descriptor_is_left_open() {
    process("descriptors");
}

#[test]
fn a_host_that_has_closed_standard_input_output_and_error() {
    process("closed");
}

#[test]
fn a_host_that_ignores_sigchld() {
    process("sigchld-ignored");
}

#[test]
fn a_host_whose_signals_are_at_their_defaults() {
    process("sigchld-default");
}

#[test]
fn hook_c_starts_and_stops() {
    let program = C99.build("c-examples/hook.c");
    let hook = |state: &Path, args: &[&str]| {
        let mut hook = Command::new(&program);
        hook.args(args).env("KPORT_BACKEND", "sim").env("KPORT_STATE_DIR", state);
        let output = hook.output().unwrap();
        assert_eq!(text(&output.stdout), "");
        (output.status.code().unwrap(), cc::without_notice(&text(&output.stderr)))
    };
    let dir = tempfile::tempdir().unwrap();
    let specs = "em0:8080:80 em0:8443:443";
    let addresses = "10.0.0.2 fd00::2";
    assert_eq!(hook(dir.path(), &["start", "web", "7", addresses, specs]), (0, String::new()));
    assert_eq!(hook(dir.path(), &["start", "db", "8", "10.0.0.3", "em0:5432:5432"]), (0, String::new()));
    assert_eq!(published(dir.path()).len(), 5);

    let (status, said) = hook(dir.path(), &["start", "api", "9", "10.0.0.4", "em0:8443:443"]);
    assert_eq!(status, 3);
    assert!(said.starts_with("jail api: ") && said.contains("web") && said.lines().count() == 1, "{said}");

    let (status, said) = hook(dir.path(), &["start", "api", "9", "10.0.0.4", "8081:80 443:"]);
    assert_eq!(status, 2);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert_eq!((lines[1], lines[2]), ("\t8081:80 443:", "\t            ^"));

    // the restart of web came before the stop of its first start
    assert_eq!(hook(dir.path(), &["start", "web", "10", addresses, specs]), (0, String::new()));
    let (status, said) = hook(dir.path(), &["stop", "web", "7"]);
    assert_eq!(status, 0);
    assert!(
        said.starts_with("kport: jail \"web\" was published again as jid 10; ") && said.lines().count() == 1,
        "{said}"
    );
    assert_eq!(published(dir.path()).len(), 5);
    assert_eq!(hook(dir.path(), &["stop", "web", "10"]), (0, String::new()));
    assert_eq!(hook(dir.path(), &["stop", "db", "8"]), (0, String::new()));
    assert_eq!(hook(dir.path(), &["stop", "db", "8"]), (0, String::new()));
    assert_eq!(published(dir.path()), [""; 0]);

    let lost = dir.path().join("file");
    std::fs::write(&lost, "").unwrap();
    let (status, said) = hook(&lost, &["stop", "web", "10"]);
    assert_eq!(status, 0, "a jail must stop");
    assert!(said.starts_with("jail web: ") && said.ends_with("\"kport apply\" removes what is left\n"), "{said}");
}

#[test]
fn hook_c_has_no_leak() {
    let program = C99.build("c-examples/hook.c");
    assert_eq!(cc::run(&program, &["start", "web", "7", "10.0.0.2", "em0:8080:80"]), "");
    assert_eq!(cc::run(&program, &["stop", "web", "7"]), "");
}

/// The published redirects, as kport(8) prints them.
fn published(state: &Path) -> Vec<String> {
    let mut kport = Command::new(env!("CARGO_BIN_EXE_kport"));
    let list = kport.args(["list", "--backend", "sim", "--state-dir"]).arg(state);
    text(&cc::done(list).stdout).lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn publish_cpp_frees_and_throws() {
    for dialect in ["c++11", "c++17", "c++20"] {
        let program = Compiler { dialect, ..CXX11 }.build("c-examples/publish.cpp");
        assert_eq!(cc::run(&program, &["web", "10.0.0.2", "em0:8080:80 em0:8443:443"]), "2 published\n0 published\n");
    }
    let program = CXX11.build("c-examples/publish.cpp");
    let output = cc::command(&program).0.args(["web", "127.0.0.1", "em0:8080:80"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("loopback"), "{}", text(&output.stderr));
}

#[test]
fn kport_py_calls_through_ctypes() {
    if !cc::has("python3") {
        return;
    }
    let (mut python, _dir) = cc::command(Path::new("python3"));
    python.arg(cc::root().join("c-examples/kport.py")).env("KPORT_LIBRARY", cc::library_dir().join(cc::soname()));
    let good = cc::done(python.args(["web", "10.0.0.2", "em0:8080:80", "em0:5353:53/udp"]));
    assert_eq!(
        text(&good.stdout),
        "published em0:8080:80/tcp em0:5353:53/udp\n\
         web em0 8080 10.0.0.2 80\n\
         web em0 5353 10.0.0.2 53\n\
         left: []\n\
         notes:\n\tsimulator: the rules are kept in files, no packet is redirected\n\
         \tsimulator: the rules are kept in files, no packet is redirected\n"
    );
    let bad = python.arg("70000").output().unwrap();
    assert_eq!(bad.status.code(), Some(2));
    let said = text(&bad.stderr);
    assert!(said.starts_with("kport.py: ") && said.contains("65535") && said.lines().count() == 1, "{said}");
}

/// The NIF, and the mix project of examples/elixir, whose tests do what Kleene's daemon would do.
#[test]
fn the_nif_is_all_of_the_library_in_elixir() {
    if !["erl", "mix"].iter().all(|program| cc::has(program)) {
        return;
    }
    let mut erl = Command::new("erl");
    let erl = erl.args(["-noshell", "-eval", "io:put_chars(code:root_dir()), halt()."]);
    let include = format!("{}/usr/include", text(&cc::done(erl).stdout));
    // erl_nif.h is written for GNU C
    let shared = ["-shared", "-fPIC", "-isystem", &include];
    let nif = Compiler { dialect: "gnu99", flags: &shared, ..C99 }.build("c-examples/kport_nif.c");
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(nif, dir.path().join("kport_nif.so")).unwrap();

    let project = cc::root().join("examples/elixir");
    let (mut mix, _state) = cc::command(Path::new("mix"));
    // it leaves nothing in the tree, and does not use the network
    mix.arg("test").current_dir(&project).env("MIX_BUILD_PATH", dir.path().join("build")).env("MIX_ENV", "test");
    mix.env("HOME", dir.path()).env("HEX_OFFLINE", "1").env("KPORT_NIF", dir.path().join("kport_nif"));
    let output = cc::done(&mut mix);
    assert!(text(&output.stdout).contains("6 tests, 0 failures"), "{}", text(&output.stdout));

    let formatted = Command::new("mix").args(["format", "--check-formatted"]).current_dir(&project).output().unwrap();
    assert!(formatted.status.success(), "{}", text(&formatted.stderr));
    // every function of the header that a caller needs is called
    let source = std::fs::read_to_string(cc::root().join("c-examples/kport_nif.c")).unwrap();
    let header = std::fs::read_to_string(cc::root().join("include/kport.h")).unwrap();
    for name in [
        "parse",
        "parse_kleene",
        "publish",
        "unpublish",
        "unpublish_some",
        "list",
        "restore",
        "gc",
        "rules",
        "watch_open",
        "watch_descriptor",
        "watch_next",
        "watch_reload",
    ] {
        let name = format!("kport_{name}");
        assert!(source.contains(&name) && header.contains(&format!("{name}(")), "{name}");
    }
    let module = std::fs::read_to_string(cc::root().join("c-examples/kport.ex")).unwrap();
    let table = source.split("static ErlNifFunc functions[] = {").nth(1).unwrap().split("};").next().unwrap();
    for function in table.lines().filter_map(|line| line.split('"').nth(1)) {
        assert!(module.contains(&format!("  def {function}(_")), "{function} is not in kport.ex");
    }
}

/// As far as stable Rust allows: the C side is instrumented, and every allocation of both sides is checked.
#[test]
fn programs_with_address_sanitizer_are_clean() {
    let flags = &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    for (source, args) in [
        ("c-examples/publish.c", &["web", "10.0.0.2", "em0:8080:80"][..]),
        ("c-examples/hook.c", &["start", "web", "7", "10.0.0.2", "em0:8080:80"]),
        ("tests/c/null.c", &[]),
        ("tests/c/hostile.c", &[]),
        ("tests/c/process.c", &["threads"]),
    ] {
        let program = Compiler { flags, ..C99 }.build(source);
        let output = cc::done(cc::command(&program).0.args(args));
        assert_eq!(cc::without_notice(&text(&output.stderr)), "", "{source}");
    }
}

/// The backend pfctl, with a stand-in for pfctl(8), in programs that each treat their children differently.
#[test]
fn a_child_is_run_in_every_kind_of_host() {
    let flags = &["-rdynamic"];
    let program = Compiler { flags, ..C99 }.build("tests/c/child.c");
    for host in ["waits", "ignores", "reaps", "closed"] {
        let pf = standin::Pfctl::new();
        let (mut command, _dir) = cc::command(&program);
        let output = command.arg(host).arg(pf.program()).output().unwrap();
        assert!(output.status.success(), "{host}: {}\n{}", output.status, text(&output.stderr));
        assert_eq!(text(&output.stdout) + &text(&output.stderr), "", "{host}");
        assert_eq!(pf.rules("kport/web"), None, "{host}");
    }
}

#[test]
fn every_program_is_in_these_tests() {
    let tests =
        concat!(include_str!("c.rs"), include_str!("attack/the_lock_and_forks.rs"), include_str!("attack/callers.rs"));
    for dir in ["c-examples", "tests/c"] {
        for entry in std::fs::read_dir(cc::root().join(dir)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let built = tests.contains(&format!("{dir}/{name}\""));
            // the Elixir module is built by examples/elixir
            assert!(
                built || matches!(name.as_str(), "check.h" | "kport.ex"),
                "{dir}/{name} is not built by tests/suite/c.rs"
            );
        }
    }
}
