//! Reads the calls of kport in hooks.

use crate::managers::ExecStatement;

/// A call of `kport publish` or `kport unpublish` in a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call<'a> {
    /// Whether it publishes.
    pub(super) publishes: bool,
    /// Whether the program is found by PATH.
    pub(super) by_path: bool,
    /// The words after `publish` or `unpublish`.
    words: Vec<&'a str>,
}

/// The calls of kport in a command of sh(1).
pub(super) fn calls(command: &str) -> Vec<Call<'_>> {
    let quotes = ['"', '\''];
    let mut found = vec![];
    let mut sets_path = false;
    let mut words = command.split_ascii_whitespace();
    loop {
        // a simple command, up to the next operator
        let mut simple: Vec<&str> = vec![];
        let mut ended = true;
        for word in words.by_ref() {
            ended = false;
            if matches!(word, "||" | "&&" | "|" | ";" | "&") {
                break;
            }
            let plain = word.trim_end_matches(';');
            simple.push(plain.trim_matches(quotes));
            if plain.len() < word.len() {
                break;
            }
        }
        if ended {
            return found;
        }
        sets_path |= simple.iter().any(|word| word.starts_with("PATH="));
        let program = simple.iter().position(|word| *word == "kport" || word.ends_with("/kport"));
        let Some(program) = program else { continue };
        let verb = simple[program..].iter().position(|word| matches!(*word, "publish" | "unpublish"));
        if let Some(verb) = verb.map(|verb| program + verb) {
            found.push(Call {
                publishes: simple[verb] == "publish",
                by_path: simple[program] == "kport" && !sets_path,
                words: simple[verb + 1..].to_vec(),
            });
        }
    }
}

/// Whether a hook calls kport.
pub(super) fn calls_kport(statement: &ExecStatement) -> bool {
    statement.values.iter().any(|value| !calls(value).is_empty())
}

impl<'a> Call<'a> {
    /// The jail that it is for, if its name is given literally, without expansion by a shell or jail(8). `with_values` are
    /// the flags of the helper that take a value.
    pub(super) fn jail(&self, with_values: &[String]) -> Option<&'a str> {
        if self.words.contains(&"--hook") {
            return None;
        }
        let mut words = self.words.iter();
        while let Some(word) = words.next() {
            if with_values.iter().any(|flag| flag == word) {
                words.next();
            } else if !word.starts_with('-') {
                return Some(*word).filter(|name| !name.contains(['$', '`', '%']));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jail_of<'a>(command: &'a str, with_values: &[String]) -> Option<&'a str> {
        calls(command).first()?.jail(with_values)
    }

    #[test]
    fn the_calls_of_a_command() {
        let shown = |command| -> Vec<(bool, bool)> {
            calls(command).iter().map(|call| (call.publishes, call.by_path)).collect()
        };
        for (command, expected) in [
            ("kport publish --hook 80", &[(true, true)][..]),
            ("/usr/local/bin/kport publish --hook 80", &[(true, false)]),
            ("PATH=/usr/local/bin:$PATH kport publish --hook 80", &[(true, false)]),
            ("export PATH=/usr/local/bin; kport publish --hook 80", &[(true, false)]),
            ("logger up; kport unpublish --hook || true", &[(false, true)]),
            ("/x/kport unpublish web; kport publish web 80", &[(false, false), (true, true)]),
            ("sh -c 'kport publish web 80'", &[(true, true)]),
            ("kport list", &[]),
            ("/usr/local/bin/kport apply; echo publish", &[]),
            ("", &[]),
        ] {
            assert_eq!(shown(command), expected, "{command}");
        }
    }

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
