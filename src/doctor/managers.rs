//! Settings of jail managers that prevent published ports from working: hooks that name another jail or are discarded, and
//! main rulesets that a manager loads without kport's lines.

use std::path::Path;

use super::evidence::Evidence;
use super::hooks;
use super::{Checked, Finding, Level, ManagerFiles, problem, warning};
use crate::error::{Problem, quoted};
use crate::managers::{self, Root, Statement};

/// The managers that load a main ruleset of their own, for a host whose main ruleset has lost kport's lines.
pub(super) fn rewriters(root: &Path) -> Vec<Finding> {
    let root = Root::new(root);
    let problems = managers::ALL.iter().filter_map(|manager| manager.replaces_ruleset(&root));
    problems.map(|Problem { seen, remedy }| warning(seen, remedy)).collect()
}

/// Hooks that call kport for another jail, and those that discard another hook or are discarded.
pub(super) fn hooks(evidence: &Evidence<'_>) -> Checked {
    let Some(ManagerFiles { root, with_values }) = evidence.files else { return Ok(Some(vec![])) };
    let root = Root::new(root);
    let mut found = vec![];
    for file in managers::ALL.iter().flat_map(|manager| manager.hook_files(&root)) {
        found.extend(other_jails(&file.path, &file.statements, with_values));
        found.extend(discarded(&file.path, &file.statements));
    }
    Ok(Some(found))
}

fn other_jails(path: &Path, statements: &[Statement], with_values: &[String]) -> Vec<Finding> {
    let mut found = vec![];
    for statement in statements {
        for named in statement.values.iter().filter_map(|value| hooks::jail_of(value, with_values)) {
            let (whose, every) = match &statement.jail {
                Some(jail) if jail == named => continue,
                Some(jail) => (format!("jail {}", quoted(jail)), ""),
                None => ("every jail".to_owned(), " of this file"),
            };
            found.push(problem(
                format!(
                    "{} line {}: {} of {whose}{every} calls kport for jail {}",
                    path.display(),
                    statement.line,
                    statement.parameter,
                    quoted(named)
                ),
                "let the hook give the name of the jail: use --hook instead of the name",
            ));
        }
    }
    found
}

/// A statement without `+` discards those before it (jail.conf(5)).
fn discarded(path: &Path, statements: &[Statement]) -> Vec<Finding> {
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
                    "{} line {}: {} without + discards {lost} of line {}",
                    path.display(),
                    later.line,
                    later.parameter,
                    earlier.line
                ),
                format!("write += in line {} (in AppJail's templates +:)", later.line),
            );
            found.push(Finding { level, ..finding });
        }
    }
    found
}
