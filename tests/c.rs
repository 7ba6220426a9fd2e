//! Every C and C++ program of c-examples and tests/c, compiled with warnings as errors against the shared library that cargo
//! built, and run, alone and under valgrind.

#[path = "c/cc.rs"]
mod cc;

use cc::{C99, text};

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
