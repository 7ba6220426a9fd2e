//! Reads the calls of kport in hooks.

use crate::managers::Statement;

/// Whether a hook calls kport.
pub(super) fn calls_kport(statement: &Statement) -> bool {
    statement.values.iter().any(|value| call(value).is_some())
}

/// The arguments after `publish` or `unpublish` in a command that calls kport.
fn call(command: &str) -> Option<Vec<&str>> {
    let mut words = command.split_ascii_whitespace().map(|word| word.trim_matches(['"', '\'']));
    words.find(|word| *word == "kport" || word.ends_with("/kport"))?;
    words.find(|word| matches!(*word, "publish" | "unpublish"))?;
    Some(words.take_while(|word| !matches!(*word, "||" | "&&" | "|" | ";" | "&")).collect())
}

/// The jail that a command calls kport for, if its name is given literally, without expansion by a shell or jail(8).
/// `with_values` are the flags of the helper that take a value.
pub(super) fn jail_of<'a>(command: &'a str, with_values: &[String]) -> Option<&'a str> {
    let words = call(command)?;
    if words.contains(&"--hook") {
        return None;
    }
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if with_values.iter().any(|flag| flag == word) {
            words.next();
        } else if !word.starts_with('-') {
            return Some(word).filter(|name| !name.contains(['$', '`', '%']));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jail_of_a_command() {
        let with_values = ["-a", "--address", "--backend"].map(str::to_owned);
        for (command, jail) in [
            ("/usr/local/bin/kport publish web 8080:80", Some("web")),
            ("kport -v --backend pfctl publish -a 10.0.0.2 --hairpin web 8080", Some("web")),
            ("kport publish --address=10.0.0.2 \"web\" 8080", Some("web")),
            ("/usr/local/bin/kport unpublish web || true", Some("web")),
            ("kport -vv publish -a10.0.0.2 -- web 8080", Some("web")),
            ("kport publish --hook 8080:80", None),
            ("kport publish $name 8080", None),
            ("kport publish ${name} 8080", None),
            ("kport unpublish || true", None),
            ("kport list", None),
            ("echo publish web", None),
        ] {
            assert_eq!(jail_of(command, &with_values), jail, "{command}");
        }
    }

    proptest::proptest! {
        /// Any command is read to its end.
        #[test]
        fn any_command_is_read(text in ".*") {
            _ = jail_of(&text, &[]);
        }
    }
}
