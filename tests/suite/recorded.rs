//! The output of FreeBSD's own tests of pfctl(8): how much of it is read, and how much of that answers without "depends". The files
//! are not part of kport; KPORT_PFCTL_FILES names the directory (CONTRIBUTING.md). Without it nothing is done.

// to see the numbers: cargo test --test suite recorded -- --ignored --nocapture
#![allow(clippy::print_stdout)]

use kport::net::Protocol;
use kport::pfconf::Conf;
use kport::trace::{Release, Verdict, World};

use crate::support::world::{host, party};

/// From, protocol, source, destination.
const QUESTIONS: [(&str, Protocol, &str, &str); 6] = [
    ("em0", Protocol::Tcp, "192.0.2.100:40000", "192.0.2.1:22"),
    ("em0", Protocol::Tcp, "192.0.2.100:40000", "10.0.0.2:80"),
    ("em0", Protocol::Udp, "192.0.2.100:40000", "192.0.2.1:53"),
    ("web", Protocol::Tcp, "10.0.0.2:40000", "203.0.113.7:443"),
    ("em0", Protocol::Tcp, "[2001:db8::100]:40000", "[2001:db8::1]:80"),
    ("host", Protocol::Udp, "192.0.2.1:40000", "203.0.113.7:53"),
];

#[test]
#[ignore = "needs KPORT_PFCTL_FILES: sbin/pfctl/tests/files of the FreeBSD source"]
fn the_outputs_of_pfctls_own_tests() {
    let dir = std::env::var_os("KPORT_PFCTL_FILES").expect("KPORT_PFCTL_FILES");
    let mut files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "ok"));
    files.sort();
    let (mut read, mut without, mut questions, mut answers) = (0, 0, 0, 0);
    let here = std::env::current_dir().unwrap();
    for path in &files {
        // their tables name files in the same directory
        std::env::set_current_dir(&dir).unwrap();
        let conf = Conf::of_file(path);
        std::env::set_current_dir(&here).unwrap();
        let conf = match conf {
            Ok(conf) => conf,
            Err(error) => {
                println!("not read: {}: {error}", path.file_name().unwrap().display());
                continue;
            }
        };
        read += 1;
        assert_eq!(conf.to_string().parse::<Conf>().as_ref(), Ok(&conf), "{}\n{conf}", path.display());
        let mut depends = vec![];
        for release in [Release::V14, Release::V15] {
            let mut world: World = host(release);
            world.load_conf("", &conf);
            for (who, protocol, from, to) in QUESTIONS {
                let trace = world.clone().trace(&party(who), protocol, from.parse().unwrap(), to.parse().unwrap());
                questions += 1;
                if trace.verdict == Verdict::Depends { depends.extend(trace.depends_on) } else { answers += 1 }
            }
        }
        if depends.is_empty() {
            without += 1;
        } else {
            depends.sort();
            depends.dedup();
            println!("depends: {}: {}", path.file_name().unwrap().display(), depends.join("\n    "));
        }
    }
    // and their input, pf.conf(5) as it is written by hand
    let (mut sources, mut understood) = (0, 0);
    for path in files.iter().map(|path| path.with_extension("in")).filter(|path| path.exists()) {
        std::env::set_current_dir(&dir).unwrap();
        let conf = Conf::of_file(&path);
        std::env::set_current_dir(&here).unwrap();
        sources += 1;
        match conf {
            Ok(_) => understood += 1,
            Err(error) => println!("not read: {error}"),
        }
    }
    println!("{understood} of {sources} pf.conf files read");
    println!("{} files, {read} read, {without} answer every question; {answers} of {questions} answers", files.len());
    assert_eq!(read, files.len());
}
