//! The jails of the self-test are removed, whatever fails.

use std::collections::BTreeSet;
use std::sync::Mutex;

use kport::child::{End, Output};
use kport::deadline::Deadline;
use kport::doctor::self_test::{Ground, Real};
use kport::host::Fixed;

/// A base system that keeps jails and epairs, and fails at one command.
#[derive(Default)]
struct Base {
    made: Mutex<BTreeSet<String>>,
    commands: Mutex<Vec<String>>,
    fails_at: usize,
}

impl Base {
    fn run(&self, name: &str, arguments: &[&str]) -> Output {
        let (mut made, mut commands) = (self.made.lock().unwrap(), self.commands.lock().unwrap());
        commands.push(format!("{name} {}", arguments.join(" ")));
        let mut stdout = String::new();
        let fails = commands.len() == self.fails_at;
        match arguments {
            _ if fails => {}
            ["epair", "create"] => {
                let end = format!("epair{}a", made.iter().filter(|name| name.starts_with("epair")).count());
                stdout = format!("{end}\n");
                assert!(made.insert(end));
            }
            [end, "destroy"] => assert!(made.remove(*end)),
            ["-c", name, ..] => assert!(made.insert(name.replace("name=", ""))),
            ["-r", name] => assert!(made.remove(*name)),
            _ => {}
        }
        let end = End::Exit(i32::from(fails));
        Output { end, stdout: stdout.into_bytes(), stderr: b"no\n".to_vec() }
    }
}

#[test]
fn whatever_fails_nothing_is_left() {
    let client = ["198.18.78.1/30", "198.18.78.2/30"].map(|address| address.parse().unwrap());
    // two jails, six commands for each; and removing one of them
    for fails_at in 0..=13 {
        let base = Base { fails_at, ..Base::default() };
        let run = |name: &str, arguments: &[&str], _: &str, _: Deadline| Ok(base.run(name, arguments));
        let host = Fixed::default();
        let mut ground = Real::new(&host, &run, client);
        let made = ground.set_up();
        assert_eq!(made.is_ok(), [0, 13].contains(&fails_at), "{fails_at}");
        if let Ok(outer) = made {
            assert_eq!(base.made.lock().unwrap().len(), 4);
            assert_eq!(outer.as_str(), "epair1a");
        }
        let removed = ground.take_down();
        let left = base.made.lock().unwrap().iter().cloned().collect::<Vec<_>>();
        if fails_at < 13 {
            assert!(removed.is_ok() && left.is_empty(), "{fails_at}: {:?}", base.commands.lock().unwrap());
        } else {
            // the others are removed all the same
            let error = removed.unwrap_err();
            assert!(error.message().contains("jail -r kport-selftest-client: Exit(1): no"), "{error}");
            assert_eq!(left, ["kport-selftest-client"]);
        }
    }
}
