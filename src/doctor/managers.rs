//! Settings of jail managers that prevent published ports from working: hooks that name another jail or are discarded, and
//! main rulesets that a manager loads without kport's lines.

use std::collections::BTreeSet;
use std::path::Path;

use super::evidence::Evidence;
use super::hooks;
use super::{Checked, Finding, Level, ManagerFiles, problem, warning};
use crate::error::{Problem, quoted};
use crate::managers::{self, ExecStatement, Root};

/// The managers that load a main ruleset of their own, for a host whose main ruleset has lost kport's lines.
pub(super) fn rewriters(root: &Path) -> Vec<Finding> {
    let root = Root::new(root);
    let problems = managers::ALL.iter().filter_map(|manager| manager.replaces_ruleset(&root));
    problems.map(|Problem { seen, remedy }| warning(seen, remedy)).collect()
}

/// Hooks that call kport for another jail, in the wrong hook or without its path; those that discard another hook or are
/// discarded; and a publish without an unpublish.
pub(super) fn hooks(evidence: &Evidence<'_>) -> Checked {
    let Some(ManagerFiles { root, with_values, .. }) = evidence.files else { return Ok(Some(vec![])) };
    let root = Root::new(root);
    let mut found = vec![];
    for file in managers::ALL.iter().flat_map(|manager| manager.hook_files(&root)) {
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
    let mut found = vec![];
    for call in statement.values.iter().flat_map(|value| hooks::calls(value)) {
        if let Some(named) = call.jail(with_values).filter(|named| statement.jail.as_deref() != Some(named)) {
            let every = if statement.jail.is_none() { " of this file" } else { "" };
            found.push(problem(
                format!(
                    "{} of {}{every} calls kport for jail {}",
                    position(statement),
                    whose(statement),
                    quoted(named)
                ),
                "let the hook give the name of the jail: use --hook instead of the name",
            ));
        }
        if call.by_path {
            found.push(problem(
                format!(
                    "{} calls kport without its path, and rc(8) runs without /usr/local/bin in PATH: it fails at boot",
                    position(statement)
                ),
                "write /usr/local/bin/kport",
            ));
        }
        if let Some(why) = wrong_hook(&statement.parameter, call.publishes) {
            let (does, right) = match call.publishes {
                true => ("publishes", "publish in exec.poststart"),
                false => ("unpublishes", "unpublish in exec.prestop and exec.poststop"),
            };
            found.push(problem(format!("{} {does}, and {why}", position(statement)), right));
        }
    }
    found
}

/// Why a hook of jail(8) is not the one in which kport is called.
fn wrong_hook(parameter: &str, publishes: bool) -> Option<&'static str> {
    match parameter {
        "exec.start" | "exec.command" | "exec.stop" => {
            Some("it runs in the jail, which cannot change the pf of the host")
        }
        "exec.prepare" | "exec.prestart" | "exec.created" if publishes => {
            Some("it runs before the jail has its addresses")
        }
        "exec.prestop" | "exec.poststop" | "exec.release" if publishes => Some("it runs when the jail stops"),
        _ => None,
    }
}

/// Jails that publish and have no hook that unpublishes when they stop, one finding each.
fn never_unpublished(statements: &[ExecStatement]) -> Vec<Finding> {
    let calls = |statement: &ExecStatement, publishes| {
        statement.values.iter().flat_map(|value| hooks::calls(value)).any(|call| call.publishes == publishes)
    };
    let stops = |statement: &ExecStatement| {
        matches!(statement.parameter.as_str(), "exec.prestop" | "exec.poststop" | "exec.release")
            && calls(statement, false)
    };
    let mut seen = BTreeSet::new();
    let mut found = vec![];
    for statement in statements.iter().filter(|statement| calls(statement, true)) {
        // one that is in no jail's block may be for a single jail
        let covers =
            |stop: &&ExecStatement| stop.jail.is_none() || statement.jail.is_none() || stop.jail == statement.jail;
        if seen.insert(&statement.jail) && statements.iter().filter(|other| stops(other)).all(|stop| !covers(&stop)) {
            found.push(warning(
                format!(
                    "{} of {} publishes, and no hook unpublishes: the ports stay when the jail has stopped",
                    position(statement),
                    whose(statement)
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
        for earlier in before.filter(|earlier| hooks::calls_kport(earlier) || hooks::calls_kport(later)) {
            // a call of kport that replaces another is a jail with ports of its own
            if hooks::calls_kport(earlier) && hooks::calls_kport(later) {
                continue;
            }
            let lost = if hooks::calls_kport(earlier) { "kport's hook" } else { "the hook" };
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
