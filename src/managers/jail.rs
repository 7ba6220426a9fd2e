//! jail(8) and jail.conf(5), whose form files of other managers have, too.

use std::path::{Path, PathBuf};

use regex_lite::Regex;

use super::{Environment, Identity, Manager, Root};
use crate::error::Result;

/// The variable with the jail's name.
const NAME: &str = "JNAME";

pub(super) const JAIL: Manager = Manager { variable: Some(NAME), identity, hook_files, ..Manager::named("jail") };

/// `JNAME`, and `JID` in all hooks except prestart (run_command() of usr.sbin/jail/command.c; seen on 15.1). Bastille and AppJail
/// use the hooks of jail(8), and iocage sets both for its poststart.
fn identity(environment: &Environment<'_>) -> Result<Option<Identity>> {
    let (name, jid) = (environment.get(NAME), environment.jid("JID")?);
    let by = Identity::by("jail(8)'s JNAME");
    Ok((name.is_some() || jid.is_some()).then_some(Identity { name, jid, ..by }))
}

fn hook_files(root: &Root<'_>) -> Vec<HookFile> {
    let main = HookFile::jail_conf(root, Path::new("/etc/jail.conf"));
    let included = main.as_ref().map(|main| main.includes.clone()).unwrap_or_default();
    let mut paths = root.children("/etc/jail.conf.d");
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf") && !included.contains(path));
    main.into_iter().chain(paths.iter().filter_map(|path| HookFile::jail_conf(root, path))).collect()
}

/// The deepest include that is read.
const DEEPEST: usize = 8;

/// A file with hooks of jails, with the files that it includes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookFile {
    /// The statements about hooks, in the order of evaluation.
    pub statements: Vec<ExecStatement>,
    /// The files that it includes.
    pub includes: Vec<PathBuf>,
}

impl HookFile {
    /// A file of jail.conf(5), if it can be read.
    pub(super) fn jail_conf(root: &Root<'_>, path: &Path) -> Option<HookFile> {
        let mut file = HookFile { statements: vec![], includes: vec![] };
        file.read(root, path, 0)?;
        Some(file)
    }

    /// The hooks of a file, with those of the files that it includes in their place.
    fn read(&mut self, root: &Root<'_>, path: &Path, depth: usize) -> Option<()> {
        for statement in jail_conf(path, &root.text(path)?) {
            if statement.parameter != INCLUDE {
                self.statements.push(statement);
                continue;
            }
            // a relative path is one of the directory of the file (usr.sbin/jail/config.c)
            let base = path.parent().unwrap_or(Path::new("/"));
            for included in statement.values.iter().flat_map(|pattern| root.matching(&base.join(pattern))) {
                if depth < DEEPEST && !self.includes.contains(&included) {
                    self.includes.push(included.clone());
                    self.read(root, &included, depth + 1);
                }
            }
        }
        Some(())
    }
}

/// One statement about a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecStatement {
    /// Its file.
    pub path: PathBuf,
    /// The line on which it begins, from 1.
    pub line: usize,
    /// Its jail; `None` outside of any jail's block, and for `*`.
    pub jail: Option<String>,
    /// `exec.poststart`
    pub parameter: String,
    /// Whether it adds to the statements before it: `+=`.
    pub appends: bool,
    /// The commands, without their quotes.
    pub values: Vec<String>,
}

/// The word of a statement that includes files.
const INCLUDE: &str = ".include";

/// What jail.conf(5) text is made of: comments, strings, variables, the ends of statements and blocks, and single characters.
const TOKENS: &str = r#"(?s)#[^\n]*|//[^\n]*|/\*.*?(?:\*/|\z)|"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?|\$\{[^}]*\}?|."#;

/// The hooks of jail.conf(5) text. A jail's parameter `name` overrides that of the block, if it has no variable.
fn jail_conf(path: &Path, text: &str) -> Vec<ExecStatement> {
    let mut found = vec![];
    let mut block: Option<String> = None;
    let mut names: Vec<(Option<String>, String)> = vec![];
    let (mut line, mut start) = (1, 1);
    let mut statement = String::new();
    for token in Regex::new(TOKENS).iter().flat_map(|tokens| tokens.find_iter(text)) {
        let at = line;
        line += token.as_str().matches('\n').count();
        match token.as_str() {
            comment if comment.starts_with(['#', '/']) && comment != "/" => {}
            "{" => {
                let name = statement.trim().trim_matches(['"', '\'']);
                block = Some(name.to_owned()).filter(|name| name != "*");
                statement.clear();
            }
            "}" => {
                block = None;
                statement.clear();
            }
            ";" => {
                let made = std::mem::take(&mut statement);
                let made = match made.trim().strip_prefix(INCLUDE) {
                    Some(pattern) => Some((INCLUDE.to_owned(), false, list(pattern))),
                    None => parameter(&made, '='),
                };
                let Some((parameter, appends, values)) = made else { continue };
                let (path, jail) = (path.to_owned(), block.clone());
                if parameter == "name" {
                    names.extend(values.into_iter().map(|name| (jail.clone(), name)));
                } else if parameter == INCLUDE || parameter.starts_with("exec.") {
                    found.push(ExecStatement { path, line: start, jail, parameter, appends, values });
                }
            }
            blank if statement.is_empty() && blank.trim().is_empty() => {}
            part => {
                if statement.is_empty() {
                    start = at;
                }
                statement.push_str(part);
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

/// `exec.poststart += "a", "b"`: the name, whether it adds to the statements before it, and the values. AppJail writes `+:`.
pub(super) fn parameter(statement: &str, sign: char) -> Option<(String, bool, Vec<String>)> {
    let (head, value) = statement.split_once(sign)?;
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
