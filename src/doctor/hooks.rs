//! Settings of jail managers that prevent published ports from working: hooks that name another jail or are discarded, and
//! main rulesets that a manager loads without kport's lines.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Checked, Evidence, Finding, Level, ManagerFiles, problem, warning};
use crate::error::{Problem, quoted};
use crate::managers::{self, ExecStatement, Root};

/// The managers that load a main ruleset of their own, for a host whose main ruleset has lost kport's lines.
pub(super) fn rewriters(root: &Path) -> Vec<Finding> {
    let root = Root::new(root);
    let problems = managers::ALL.iter().filter_map(|manager| (manager.replaces_ruleset)(&root));
    problems.map(|Problem { seen, remedy }| warning(seen, remedy)).collect()
}

/// Hooks that call kport for another jail, in the wrong hook or without its path; those that discard another hook or are
/// discarded; and a publish without an unpublish.
pub(super) fn hooks(evidence: &Evidence<'_>) -> Checked {
    let Some(ManagerFiles { root, with_values, .. }) = evidence.files else { return Ok(Some(vec![])) };
    let root = Root::new(root);
    let mut found = vec![];
    for file in managers::ALL.iter().flat_map(|manager| (manager.hook_files)(&root)) {
        found.extend(file.statements.iter().flat_map(|statement| of_statement(statement, with_values)));
        found.extend(discarded(&file.statements));
        found.extend(never_unpublished(&file.statements));
    }
    Ok(Some(found))
}

/// `/etc/jail.conf line 3: exec.poststart`
fn position(statement: &ExecStatement) -> String {
    format!("{} line {}: {}", statement.path.display(), statement.line, statement.parameter)
}

fn whose(statement: &ExecStatement) -> String {
    statement.jail.as_ref().map_or_else(|| "every jail".to_owned(), |jail| format!("jail {}", quoted(jail)))
}

fn of_statement(statement: &ExecStatement, with_values: &[String]) -> Vec<Finding> {
    let (mut found, position) = (vec![], position(statement));
    for call in calls_of(statement) {
        if let Some(named) = call.jail(with_values).filter(|named| statement.jail.as_deref() != Some(named)) {
            let every = if statement.jail.is_none() { " of this file" } else { "" };
            let (whose, named) = (whose(statement), quoted(named));
            found.push(problem(
                format!("{position} of {whose}{every} calls kport for jail {named}"),
                "let the hook give the name of the jail: use --hook instead of the name",
            ));
        }
        if call.by_path {
            let why = "calls kport without its path, and rc(8) runs without /usr/local/bin in PATH: it fails at boot";
            found.push(problem(format!("{position} {why}"), "write /usr/local/bin/kport"));
        }
        let why = match (&*statement.parameter, call.publishes) {
            ("exec.start" | "exec.command" | "exec.stop", _) => {
                "it runs in the jail, which cannot change the pf of the host"
            }
            ("exec.prepare" | "exec.prestart" | "exec.created", true) => "it runs before the jail has its addresses",
            (parameter, true) if STOPS.contains(&parameter) => "it runs when the jail stops",
            _ => continue,
        };
        let (does, right) = match call.publishes {
            true => ("publishes", "publish in exec.poststart"),
            false => ("unpublishes", "unpublish in exec.prestop and exec.poststop"),
        };
        found.push(problem(format!("{position} {does}, and {why}"), right));
    }
    found
}

/// The hooks of a jail that stops.
const STOPS: [&str; 3] = ["exec.prestop", "exec.poststop", "exec.release"];

/// Jails that publish and have no hook that unpublishes when they stop, one finding each.
fn never_unpublished(statements: &[ExecStatement]) -> Vec<Finding> {
    let stops = |statement: &&ExecStatement| {
        STOPS.contains(&&*statement.parameter) && calls_of(statement).any(|call| !call.publishes)
    };
    let mut seen = BTreeSet::new();
    let mut found = vec![];
    for statement in statements.iter().filter(|statement| calls_of(statement).any(|call| call.publishes)) {
        // one that is in no jail's block may be for a single jail
        let covers =
            |stop: &ExecStatement| stop.jail.is_none() || statement.jail.is_none() || stop.jail == statement.jail;
        if seen.insert(&statement.jail) && !statements.iter().filter(stops).any(covers) {
            let (position, whose) = (position(statement), whose(statement));
            found.push(warning(
                format!(
                    "{position} of {whose} publishes, and no hook unpublishes: the ports stay when the jail has stopped"
                ),
                "add to exec.prestop and exec.poststop: /usr/local/bin/kport unpublish --hook",
            ));
        }
    }
    found
}

/// A statement without `+` discards those before it (jail.conf(5)).
fn discarded(statements: &[ExecStatement]) -> Vec<Finding> {
    let mut found = vec![];
    for (at, later) in statements.iter().enumerate().filter(|(_, statement)| !statement.appends) {
        // of the same jail, or of all jails
        let before = statements[..at].iter().filter(|earlier| {
            earlier.parameter == later.parameter && (earlier.jail == later.jail || earlier.jail.is_none())
        });
        // a call of kport that replaces another is a jail with ports of its own
        for earlier in before.filter(|earlier| calls_kport(earlier) != calls_kport(later)) {
            let lost = if calls_kport(earlier) { "kport's hook" } else { "the hook" };
            // a jail may be meant to differ from a statement about all jails
            let level = if earlier.jail == later.jail { Level::Problem } else { Level::Warning };
            let finding = problem(
                format!(
                    "{} without + discards {lost} of {}line {}",
                    position(later),
                    if later.path == earlier.path { String::new() } else { format!("{} ", earlier.path.display()) },
                    earlier.line
                ),
                format!("write += in line {} (in AppJail's templates +:)", later.line),
            );
            found.push(Finding { level, ..finding });
        }
    }
    found
}

/// A call of `kport publish` or `kport unpublish` in a command.
struct Call<'a> {
    /// Whether it publishes.
    publishes: bool,
    /// Whether the program is found by PATH.
    by_path: bool,
    /// The words after `publish` or `unpublish`.
    words: Vec<&'a str>,
}

/// The calls of kport in a command of sh(1).
fn calls(command: &str) -> Vec<Call<'_>> {
    let mut found = vec![];
    let mut sets_path = false;
    for simple in command.split([';', '&', '|']) {
        let words: Vec<&str> = simple.split_ascii_whitespace().map(|word| word.trim_matches(['"', '\''])).collect();
        sets_path |= words.iter().any(|word| word.starts_with("PATH="));
        let program = words.iter().position(|word| *word == "kport" || word.ends_with("/kport"));
        let Some((program, words)) = program.and_then(|at| words[at..].split_first()) else { continue };
        let Some(verb) = words.iter().position(|word| matches!(*word, "publish" | "unpublish")) else { continue };
        let by_path = *program == "kport" && !sets_path;
        found.push(Call { publishes: words[verb] == "publish", by_path, words: words[verb + 1..].to_vec() });
    }
    found
}

fn calls_of(statement: &ExecStatement) -> impl Iterator<Item = Call<'_>> {
    statement.values.iter().flat_map(|value| calls(value))
}

fn calls_kport(statement: &ExecStatement) -> bool {
    calls_of(statement).next().is_some()
}

impl<'a> Call<'a> {
    /// The jail that it is for, if its name is given literally, without expansion by a shell or jail(8). `with_values` are
    /// the flags of the helper that take a value.
    fn jail(&self, with_values: &[String]) -> Option<&'a str> {
        let is_value = |at: usize| at > 0 && with_values.iter().any(|flag| *flag == self.words[at - 1]);
        let mut words = self.words.iter().enumerate();
        let (_, name) = words.find(|(at, word)| !word.starts_with('-') && !is_value(*at))?;
        (!self.words.contains(&"--hook") && !name.contains(['$', '`', '%'])).then_some(*name)
    }
}
