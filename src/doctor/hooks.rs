//! Reads the calls of kport in hooks.

use crate::managers::Statement;

/// Whether a hook calls kport.
pub(super) fn calls_kport(statement: &Statement) -> bool {
    statement.values.iter().any(|value| call(value).is_some())
}

/// What stands behind `publish` or `unpublish` in a command that calls kport.
fn call(command: &str) -> Option<Vec<&str>> {
    let mut words = command.split_ascii_whitespace().map(|word| word.trim_matches(['"', '\'']));
    words.find(|word| *word == "kport" || word.ends_with("/kport"))?;
    words.find(|word| matches!(*word, "publish" | "unpublish"))?;
    Some(words.take_while(|word| !matches!(*word, "||" | "&&" | "|" | ";" | "&")).collect())
}

/// The jail that a command calls kport for, if it says so by a name that no shell and no jail(8) expands.
pub(super) fn jail_of(command: &str) -> Option<&str> {
    // options without a value; every other one has its value in the same word or the next one
    const FLAGS: [&str; 16] = [
        "--add",
        "--allow-inert",
        "--force",
        "--hairpin",
        "--hook",
        "--host-access",
        "--json",
        "--kleene",
        "--log",
        "--no-quick",
        "--quiet",
        "--verbose",
        "-q",
        "-v",
        "-vv",
        "--",
    ];
    let words = call(command)?;
    if words.contains(&"--hook") {
        return None;
    }
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word {
            _ if FLAGS.contains(&word) || word.starts_with("--") && word.contains('=') => {}
            _ if word.starts_with('-') => _ = words.next(),
            name => return Some(name).filter(|name| !name.contains(['$', '`', '%'])),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jail_of_a_command() {
        for (command, jail) in [
            ("/usr/local/bin/kport publish web 8080:80", Some("web")),
            ("kport -v --backend pfctl publish -a 10.0.0.2 --hairpin web 8080", Some("web")),
            ("kport publish --address=10.0.0.2 \"web\" 8080", Some("web")),
            ("/usr/local/bin/kport unpublish web || true", Some("web")),
            ("kport publish --hook 8080:80", None),
            ("kport publish $name 8080", None),
            ("kport publish ${name} 8080", None),
            ("kport unpublish || true", None),
            ("kport list", None),
            ("echo publish web", None),
        ] {
            assert_eq!(jail_of(command), jail, "{command}");
        }
    }

    proptest::proptest! {
        /// Whatever a command is, it is read to its end.
        #[test]
        fn any_command_is_read(text in ".*") {
            _ = jail_of(&text);
        }
    }
}
