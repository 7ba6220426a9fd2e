//! The assignments of an rc.conf(5), a script of sh(1), as far as they are known without running it.

pub struct Assignment {
    pub line: usize,
    pub name: String,
    /// `None` if it depends on other variables.
    pub value: Option<String>,
}

#[derive(Default)]
pub struct Script {
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

    fn assignment(&self, line: usize) -> Option<Assignment> {
        let (name, value) = self.text.split_at_checked(self.equals?)?;
        let mut letters = name.chars();
        let first = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        let value = (!self.made_by_sh).then(|| value[1..].to_owned());
        let is_name = first && letters.all(|c| c.is_ascii_alphanumeric() || c == '_');
        is_name.then(|| Assignment { line, name: name.to_owned(), value })
    }
}

/// Reads a file. An error says why its commands cannot be separated from quoted text.
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
            '\'' | '"' => {
                let open = line;
                word.quote();
                loop {
                    let inner = characters.next().ok_or(format!("line {open}: a quote is not closed"))?;
                    if inner == c {
                        break;
                    }
                    line += usize::from(inner == '\n');
                    if c == '\'' {
                        word.text.push(inner);
                    } else if inner != '\\' {
                        expansion(inner, characters.clone(), line)?;
                        word.made_by_sh |= inner == '$';
                        word.text.push(inner);
                    } else if let Some(escaped) = characters.next() {
                        if escaped == '\n' {
                            line += 1;
                            continue;
                        }
                        word.text.extend((!matches!(escaped, '$' | '`' | '"' | '\\')).then_some('\\'));
                        word.text.push(escaped);
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

    pub fn last(&self, name: &str) -> Option<&Assignment> {
        self.assignments.iter().rfind(|assignment| assignment.name == name)
    }
}
