//! The assignments of an rc.conf(5), a script of sh(1), as far as they are known without running it.

/// A variable that is assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The line.
    pub line: usize,
    /// The variable.
    pub name: String,
    /// Its value; `None` if it depends on other variables.
    pub value: Option<String>,
}

/// The contents of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// In the order of the file.
    pub assignments: Vec<Assignment>,
    /// The last line that is not an assignment, with its first word: values that are assigned before it may change there.
    pub other: Option<(usize, String)>,
}

/// A word of a command, as far as it was read.
#[derive(Default)]
struct Word {
    text: String,
    /// The offset of its first `=`, if nothing before it was quoted.
    equals: Option<usize>,
    quoted: bool,
    made_by_sh: bool,
    begun: bool,
}

impl Word {
    fn push(&mut self, c: char) {
        if c == '=' && !self.quoted && self.equals.is_none() {
            self.equals = Some(self.text.len());
        }
        self.begun = true;
        self.text.push(c);
    }

    fn quote(&mut self) {
        (self.begun, self.quoted) = (true, true);
    }

    /// As an assignment.
    fn assignment(&self, line: usize) -> Option<Assignment> {
        let (name, value) = self.text.split_at_checked(self.equals?)?;
        let mut letters = name.chars();
        let first = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        let value = (!self.made_by_sh).then(|| value[1..].to_owned());
        (first && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')).then(|| Assignment {
            line,
            name: name.to_owned(),
            value,
        })
    }
}

/// Reads a file.
///
/// # Errors
///
/// Why its commands cannot be separated from quoted text.
pub fn read(text: &str) -> Result<Script, String> {
    let mut script = Script::default();
    let mut words: Vec<(usize, Word)> = vec![];
    let mut word = Word::default();
    let mut line = 1;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            ' ' | '\t' | '\n' | ';' => {
                if word.begun {
                    words.push((line, std::mem::take(&mut word)));
                }
                if matches!(c, '\n' | ';') {
                    script.command(std::mem::take(&mut words));
                }
            }
            '#' if !word.begun => while characters.next_if(|c| *c != '\n').is_some() {},
            '\\' => match characters.next() {
                Some('\n') if characters.peek().is_some() => line += 1,
                Some(c) if c != '\n' => {
                    word.quote();
                    word.push(c);
                }
                _ => return Err(format!("line {line}: the backslash at its end joins the next line to it")),
            },
            '\'' => {
                let open = line;
                word.quote();
                loop {
                    match characters.next().ok_or(format!("line {open}: a quote is not closed"))? {
                        '\'' => break,
                        c => {
                            line += usize::from(c == '\n');
                            word.text.push(c);
                        }
                    }
                }
            }
            '"' => {
                let open = line;
                word.quote();
                loop {
                    match characters.next().ok_or(format!("line {open}: a quote is not closed"))? {
                        '"' => break,
                        '\\' => match characters.next() {
                            Some('\n') => line += 1,
                            Some(c) => {
                                word.text.extend((!matches!(c, '$' | '`' | '"' | '\\')).then_some('\\'));
                                word.text.push(c);
                            }
                            None => {}
                        },
                        c => {
                            expansion(c, characters.clone(), line)?;
                            word.made_by_sh |= c == '$';
                            line += usize::from(c == '\n');
                            word.text.push(c);
                        }
                    }
                }
            }
            '<' if characters.peek() == Some(&'<') => return Err(format!("line {line}: it has a here-document")),
            '(' | ')' | '{' | '}' | '|' | '&' | '<' | '>' => {
                script.other = Some((line, c.to_string()));
                word.push(c);
            }
            c => {
                expansion(c, characters.clone(), line)?;
                word.made_by_sh |= matches!(c, '$' | '~');
                word.push(c);
                if c == '$' && characters.next_if_eq(&'{').is_some() {
                    // to its end, which `expansion` has seen
                    word.text.push('{');
                    for c in characters.by_ref() {
                        word.text.push(c);
                        if c == '}' {
                            break;
                        }
                    }
                }
            }
        }
        line += usize::from(c == '\n');
    }
    if word.begun {
        words.push((line, word));
    }
    script.command(words);
    Ok(script)
}

/// Rejects expansions of commands and of words: they may have quotes that do not belong to the file.
fn expansion(c: char, mut rest: impl Iterator<Item = char>, line: usize) -> Result<(), String> {
    let refuse = || Err(format!("line {line}: the result of this expansion is unknown"));
    match (c, rest.next()) {
        ('`', _) | ('$', Some('(' | '\'' | '"')) => refuse(),
        ('$', Some('{')) => {
            let name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
            match rest.find(|c| !name(c)) {
                Some('}') => Ok(()),
                _ => refuse(),
            }
        }
        _ => Ok(()),
    }
}

impl Script {
    fn command(&mut self, words: Vec<(usize, Word)>) {
        let assignments: Vec<Option<Assignment>> = words.iter().map(|(line, word)| word.assignment(*line)).collect();
        // an assignment before a command applies only to that command
        match words.iter().zip(&assignments).find(|(_, assignment)| assignment.is_none()) {
            Some(((line, word), _)) => self.other = Some((*line, word.text.clone())),
            None => self.assignments.extend(assignments.into_iter().flatten()),
        }
    }

    /// The last assignment of a variable.
    pub fn last(&self, name: &str) -> Option<&Assignment> {
        self.assignments.iter().rfind(|assignment| assignment.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(usize, String, Option<String>)> {
        read(text).unwrap().assignments.into_iter().map(|a| (a.line, a.name, a.value)).collect()
    }

    #[test]
    fn assignments() {
        let text = "# rc.conf\nhostname=\"a b\"  # x=1\n\npf_enable=YES; b='c'\\''d' e=\"\\\"\\x\"\nlist=\"one\n two\"\nf=\"$g\"\nh=#\n";
        let is = |line, name: &str, value: &str| (line, name.to_owned(), Some(value.to_owned()));
        assert_eq!(
            values(text),
            [
                is(2, "hostname", "a b"),
                is(4, "pf_enable", "YES"),
                is(4, "b", "c'd"),
                is(4, "e", "\"\\x"),
                is(6, "list", "one\n two"),
                (7, "f".to_owned(), None),
                is(8, "h", "#"),
            ]
        );
        assert_eq!(read(text).unwrap().other, None);
        // joined lines, and one that does not end
        assert_eq!(values("a=b\\\nc\nd=e"), [is(2, "a", "bc"), is(3, "d", "e")]);
        assert_eq!(values("a=${b}\n"), [(1, "a".to_owned(), None)]);
    }

    #[test]
    fn what_is_no_assignment() {
        for (text, line, word) in [
            (". /etc/rc.conf.site\na=b\n", 1, "."),
            ("a=b\nif [ -e /x ]; then\n a=c\nfi\n", 4, "fi"),
            ("export a=b\n", 1, "export"),
            ("a=b true\n", 1, "true"),
            ("a+=b\n", 1, "a+=b"),
            ("f() {\n a=b\n}\n", 3, "}"),
            ("'a'=b\n", 1, "a=b"),
            ("a=b && exit\n", 1, "&&"),
        ] {
            assert_eq!(read(text).unwrap().other, Some((line, word.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read() {
        for (text, why) in [
            ("a=\"b\nc=d\n", "line 1: a quote is not closed"),
            ("a=b\nc='d\n", "line 2: a quote is not closed"),
            ("a=$(b)\n", "line 1"),
            ("\na=\"`b`\"\n", "line 2"),
            ("a=${b:-\"c\"}\n", "line 1"),
            ("cat <<E\n", "here-document"),
            ("a=b \\\n", "backslash"),
            ("a=b\\", "backslash"),
        ] {
            assert!(read(text).is_err_and(|said| said.contains(why)), "{text}: {:?}", read(text));
        }
    }
}
