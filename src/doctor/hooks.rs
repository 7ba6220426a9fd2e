//! Reads the hooks of jail.conf(5) and of AppJail's templates, as far as they call kport.

/// One statement about a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// Where it begins, counted from 1.
    pub(super) line: usize,
    /// Whose it is; `None` for those outside of any jail's block, and of `*`.
    pub(super) jail: Option<String>,
    /// `exec.poststart`
    pub(super) parameter: String,
    /// Whether it is added to what was said before: `+=`.
    pub(super) appends: bool,
    /// The commands, without their quotes.
    pub(super) values: Vec<String>,
}

impl Statement {
    pub(super) fn calls_kport(&self) -> bool {
        self.values.iter().any(|value| call(value).is_some())
    }
}

/// The hooks of jail.conf(5) text. A jail's `name` counts, where it is written out.
pub(super) fn jail_conf(text: &str) -> Vec<Statement> {
    let mut found = vec![];
    let mut block: Option<String> = None;
    let mut names: Vec<(Option<String>, String)> = vec![];
    let mut chars = text.chars().peekable();
    let (mut line, mut start) = (1, 1);
    let mut statement = String::new();
    let mut quote = None;
    while let Some(c) = chars.next() {
        if c == '\n' {
            line += 1;
        }
        match (c, quote) {
            (_, Some(end)) => {
                statement.push(c);
                match c {
                    '\\' => statement.extend(chars.next()),
                    _ if c == end => quote = None,
                    _ => {}
                }
            }
            ('"' | '\'', None) => {
                quote = Some(c);
                statement.push(c);
            }
            ('#', None) => while chars.next_if(|c| *c != '\n').is_some() {},
            ('/', None) if chars.peek() == Some(&'/') => while chars.next_if(|c| *c != '\n').is_some() {},
            ('/', None) if chars.peek() == Some(&'*') => {
                let mut last = ' ';
                for c in chars.by_ref() {
                    line += usize::from(c == '\n');
                    if last == '*' && c == '/' {
                        break;
                    }
                    last = c;
                }
            }
            // ${name}
            ('{', None) if statement.ends_with('$') => {
                statement.push(c);
                while let Some(c) = chars.next_if(|c| *c != '}') {
                    statement.push(c);
                }
                statement.extend(chars.next());
            }
            ('{', None) => {
                let name = unquoted(statement.trim());
                block = Some(name).filter(|name| name != "*");
                statement.clear();
            }
            ('}', None) => {
                block = None;
                statement.clear();
            }
            (';', None) => {
                let made = std::mem::take(&mut statement);
                if let Some((parameter, appends, values)) = parameter(&made) {
                    if parameter == "name" {
                        names.extend(values.into_iter().map(|name| (block.clone(), name)));
                    } else if parameter.starts_with("exec.") {
                        found.push(Statement { line: start, jail: block.clone(), parameter, appends, values });
                    }
                }
            }
            _ => {
                if statement.is_empty() {
                    if c.is_whitespace() {
                        continue;
                    }
                    start = line;
                }
                statement.push(c);
            }
        }
    }
    for statement in &mut found {
        if let Some((_, name)) = names.iter().find(|(block, name)| *block == statement.jail && !name.contains('$')) {
            statement.jail = Some(name.clone());
        }
    }
    found
}

/// The hooks of an AppJail template of a jail: a statement a line.
pub(super) fn template(text: &str, jail: &str) -> Vec<Statement> {
    let mut found = vec![];
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        let Some((parameter, value)) = line.split_once(':').filter(|_| line.starts_with("exec.")) else { continue };
        let appends = parameter.ends_with('+');
        let parameter = parameter.trim_end_matches('+').trim().to_owned();
        found.push(Statement { line: number, jail: Some(jail.to_owned()), parameter, appends, values: list(value) });
    }
    found
}

/// `exec.poststart += "a", "b"`
fn parameter(statement: &str) -> Option<(String, bool, Vec<String>)> {
    let (head, value) = statement.split_once('=')?;
    let appends = head.ends_with('+');
    let head = head.trim_end_matches('+').trim();
    head.chars()
        .all(|c| c.is_ascii_alphanumeric() || "._$*".contains(c))
        .then(|| (head.to_owned(), appends, list(value)))
}

/// Values between commas, without their quotes.
fn list(text: &str) -> Vec<String> {
    let (mut all, mut one, mut quote) = (vec![], String::new(), None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', Some('"')) => one.extend(chars.next()),
            (_, Some(end)) if c == end => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (',', None) => all.push(std::mem::take(&mut one).trim().to_owned()),
            _ => one.push(c),
        }
    }
    all.push(one.trim().to_owned());
    all
}

fn unquoted(text: &str) -> String {
    text.trim_matches(['"', '\'']).to_owned()
}

/// What stands behind `publish` or `unpublish` in a command that calls kport.
fn call(command: &str) -> Option<Vec<&str>> {
    let mut words = command.split_ascii_whitespace().map(|word| word.trim_matches(['"', '\'']));
    words.find(|word| *word == "kport" || word.ends_with("/kport"))?;
    words.find(|word| matches!(*word, "publish" | "unpublish"))?;
    Some(words.take_while(|word| !matches!(*word, "||" | "&&" | "|" | ";" | "&")).collect())
}

/// The jail that a command calls kport for, if it says so by a name that no shell and no jail(8) expands. `with_values` are the
/// flags of the helper after which a value stands.
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

    #[test]
    fn jail_conf_as_people_write_it() {
        let text = "\
# exec.poststart = \"kport publish no\";
exec.start = \"/bin/sh /etc/rc\"; // and so on
path = \"/jails/$name\"; /* exec.stop = \"x\";
*/
exec.poststart = '/usr/local/bin/kport publish --hook 8080:80';
* { exec.prestop = \"kport unpublish web\"; }
\"web\" {
	host.hostname = ${name}.example;
	exec.poststart += \"a, \\\"b\\\"\", \"kport publish db 80\";
}
www { name = \"web\"; exec.clean; exec.poststop = \"kport unpublish web\"; }
";
        let found = jail_conf(text);
        let shown: Vec<String> = found
            .iter()
            .map(|s| format!("{} {:?} {} {} {:?}", s.line, s.jail, s.parameter, s.appends, s.values))
            .collect();
        assert_eq!(
            shown,
            [
                "2 None exec.start false [\"/bin/sh /etc/rc\"]",
                "5 None exec.poststart false [\"/usr/local/bin/kport publish --hook 8080:80\"]",
                "6 None exec.prestop false [\"kport unpublish web\"]",
                "9 Some(\"web\") exec.poststart true [\"a, \\\"b\\\"\", \"kport publish db 80\"]",
                "11 Some(\"web\") exec.poststop false [\"kport unpublish web\"]",
            ]
        );
    }

    proptest::proptest! {
        /// Whatever a file holds, it is read to its end.
        #[test]
        fn anything_is_read(text in ".*", parts in proptest::collection::vec(proptest::sample::select(vec![
            "exec.poststart", "=", "+=", ";", "{", "}", "\"", "'", "#", "//", "/*", "*/", "$", "${", "kport publish", "\\", "\n", ",",
        ]), 0..40)) {
            _ = jail_conf(&text);
            _ = jail_conf(&parts.join(""));
            _ = template(&parts.join(""), "web");
            _ = jail_of(&text, &[]);
        }
    }
}
