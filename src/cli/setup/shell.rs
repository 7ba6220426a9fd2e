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
}

impl Word {
    fn push(&mut self, c: char) {
        if c == '=' && !self.quoted && self.equals.is_none() {
            self.equals = Some(self.text.len());
        }
        self.text.push(c);
    }

    fn assignment(&self, line: usize) -> Option<Assignment> {
        let (name, value) = self.text.split_at(self.equals?);
        let value = (!self.made_by_sh).then(|| value[1..].to_owned());
        let is_name = !name.is_empty() && name.chars().all(in_name) && !name.starts_with(|c: char| c.is_ascii_digit());
        is_name.then(|| Assignment { line, name: name.to_owned(), value })
    }
}

fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Reads a file. An error says why its commands cannot be separated from quoted text.
pub fn read(text: &str) -> Result<Script, String> {
    let mut script = Script::default();
    let mut words: Vec<(usize, Word)> = vec![];
    // that which has begun
    let mut word: Option<Word> = None;
    let mut line = 1;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            ' ' | '\t' | '\n' | ';' => {
                words.extend(word.take().map(|word| (line, word)));
                if matches!(c, '\n' | ';') {
                    script.command(std::mem::take(&mut words));
                }
            }
            '#' if word.is_none() => while characters.next_if(|c| *c != '\n').is_some() {},
            '\\' => match characters.next() {
                Some('\n') if characters.peek().is_some() => line += 1,
                Some(c) if c != '\n' => {
                    let word = word.get_or_insert_default();
                    word.quoted = true;
                    word.push(c);
                }
                _ => return Err(format!("line {line}: the backslash at its end joins the next line to it")),
            },
            '\'' | '"' => {
                let open = line;
                let word = word.get_or_insert_default();
                word.quoted = true;
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
                word.get_or_insert_default().push(c);
            }
            c => {
                expansion(c, characters.clone(), line)?;
                let word = word.get_or_insert_default();
                word.made_by_sh |= matches!(c, '$' | '~');
                word.push(c);
                if c == '$' && characters.peek() == Some(&'{') {
                    // to its end, which `expansion` has seen
                    word.text.extend(characters.by_ref().take_while(|c| *c != '}'));
                    word.text.push('}');
                }
            }
        }
        line += usize::from(c == '\n');
    }
    words.extend(word.map(|word| (line, word)));
    script.command(words);
    Ok(script)
}

/// Rejects expansions of commands and of words: they may have quotes that do not belong to the file.
fn expansion(c: char, mut rest: impl Iterator<Item = char>, line: usize) -> Result<(), String> {
    let refuse = || Err(format!("line {line}: the result of this expansion is unknown"));
    match (c, rest.next()) {
        ('`', _) | ('$', Some('(' | '\'' | '"')) => refuse(),
        ('$', Some('{')) if rest.find(|c| !in_name(*c)) != Some('}') => refuse(),
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
