//! The assignments of an rc.conf(5), a script of sh(1), as far as they are known without running it.

use regex_lite::Regex;

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

/// What a script is made of; a comment begins where a word may begin.
const TOKENS: &str = r#"(?s)[ \t\n;]#[^\n]*|\\.|'[^']*'|"(?:\\.|[^"\\])*"|\$\{\w+\}|\$[({'"]|<<|[A-Za-z_]\w*=|."#;
/// What a string in double quotes is made of.
const IN_QUOTES: &str = r"(?s)\\.|\$\{\w+\}|\$[({]|.";

fn tokens<'a>(expression: &str, text: &'a str) -> Vec<&'a str> {
    Regex::new(expression).iter().flat_map(|tokens| tokens.find_iter(text)).map(|token| token.as_str()).collect()
}

/// They may have quotes that do not belong to the file.
const EXPANSIONS: [&str; 5] = ["`", "$(", "${", "$'", "$\""];

/// Reads a file. An error says why its commands cannot be separated from quoted text.
pub fn read(text: &str) -> Result<Script, String> {
    let mut script = Script::default();
    // those of the command, and what the last one is made of
    let (mut words, mut word) = (vec![], vec![]);
    let mut next = 0;
    // a comment on the first line comes after something, and the last command ends
    let text = format!("\n{text}");
    let mut all = tokens(TOKENS, &text);
    if all.last().is_some_and(|last| ["\\", "\\\n"].contains(last)) {
        return Err(format!("line {}: the backslash at its end joins the next line to it", text.lines().count() - 1));
    }
    all.push("\n");
    for token in all {
        let line = next;
        next += token.matches('\n').count();
        let refuse = |why| Err(format!("line {line}: {why}"));
        match token {
            "\\\n" => {}
            blank if blank.starts_with([' ', '\t', '\n', ';']) => {
                if !word.is_empty() {
                    words.push((line, std::mem::take(&mut word)));
                }
                if blank.starts_with(['\n', ';']) {
                    script.command(std::mem::take(&mut words));
                }
            }
            "'" | "\"" => return refuse("a quote is not closed"),
            "<<" => return refuse("it has a here-document"),
            _ if has_expansion(token) => return refuse("the result of this expansion is unknown"),
            _ => {
                if "(){}|&<>".contains(token) {
                    script.other = Some((line, token.to_owned()));
                }
                word.push(token);
            }
        }
    }
    Ok(script)
}

fn has_expansion(token: &str) -> bool {
    let pieces = if token.starts_with('"') { tokens(IN_QUOTES, token) } else { vec![token] };
    pieces.iter().any(|piece| EXPANSIONS.contains(piece))
}

/// A word without its quotes, and whether sh(1) makes a part of it.
fn unquoted(word: &[&str]) -> (String, bool) {
    let (mut text, mut made_by_sh) = (String::new(), false);
    for token in word {
        match token.as_bytes() {
            [b'\'', inner @ .., b'\''] => text += &token[1..=inner.len()],
            [b'"', inner @ .., b'"'] => {
                for piece in tokens(IN_QUOTES, &token[1..=inner.len()]) {
                    made_by_sh |= piece.starts_with('$');
                    text += match piece {
                        "\\\n" => "",
                        "\\$" | "\\`" | "\\\"" | "\\\\" => &piece[1..],
                        _ => piece,
                    };
                }
            }
            [b'\\', ..] => text += &token[1..],
            _ => {
                made_by_sh |= token.starts_with(['$', '~']);
                text += token;
            }
        }
    }
    (text, made_by_sh)
}

impl Script {
    fn command(&mut self, words: Vec<(usize, Vec<&str>)>) {
        let name = |word: &[&str]| word[0].strip_suffix('=').filter(|name| !name.is_empty()).map(str::to_owned);
        // an assignment before a command applies only to that command
        match words.iter().find(|(_, word)| name(word).is_none()) {
            Some((line, word)) => self.other = Some((*line, unquoted(word).0)),
            None => self.assignments.extend(words.iter().filter_map(|(line, word)| {
                let (value, made_by_sh) = unquoted(&word[1..]);
                Some(Assignment { line: *line, name: name(word)?, value: Some(value).filter(|_| !made_by_sh) })
            })),
        }
    }

    pub fn last(&self, name: &str) -> Option<&Assignment> {
        self.assignments.iter().rfind(|assignment| assignment.name == name)
    }
}
