//! Every C and C++ program of c-examples and tests/c, compiled with warnings as errors against the shared library that cargo
//! built, and run, alone and under valgrind.

#[path = "c/cc.rs"]
mod cc;

use cc::{C99, Compiler, text};

#[test]
fn publish_c_publishes_lists_and_unpublishes() {
    let program = C99.build("c-examples/publish.c");
    let printed = cc::run(&program, &["web", "10.0.0.2", "8080:80 em1:5353:53/udp 192.0.2.1:9000-9009:9000/sctp"]);
    assert_eq!(
        printed,
        "published 8080:80/tcp em1:5353:53/udp 192.0.2.1:9000-9009:9000-9009/sctp\n\
         web: tcp port 8080 on em0 -> 10.0.0.2 port 80\n\
         web: udp port 5353 on em1 -> 10.0.0.2 port 53\n\
         web: sctp port 9000 on 192.0.2.1 -> 10.0.0.2 port 9000\n\
         unpublished web\n"
    );
}

#[test]
fn publish_c_tells_why_it_failed() {
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

/// Every dialect that the header promises, with every compiler that there is.
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

/// Without valgrind, which takes for leaks what the other thread, which the child does not have, was using.
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
