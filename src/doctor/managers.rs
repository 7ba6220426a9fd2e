//! What jail managers do that keeps published ports from working: hooks that name another jail or are discarded, and whoever
//! loads a main ruleset of its own.
//!
//! Only what is written in files is looked at, each read once, and nothing is run. Where jail(8) would expand a variable, kport
//! does not guess.

use std::fs;
use std::path::{Path, PathBuf};

use super::evidence::Evidence;
use super::hooks::{self, Statement};
use super::{Checked, Finding, Level, problem, warning};
use crate::error::quoted;

/// No file of hooks is longer.
const MAX_FILE: u64 = 1024 * 1024;

/// Who rewrites the main ruleset, for a host where it has lost kport's lines.
pub(super) fn rewriters(root: &Path) -> Vec<Finding> {
    let mut found = vec![];
    let lacks = |path: &Path| read(&root.join(path)).is_some_and(|text| !text.contains("kport/*"));
    let lines =
        |path: &Path| format!("kport's lines belong there as well: kport setup --pf-conf {} --write", path.display());
    // ioc_start.py: pfctl -f
    let iocage = Path::new("tmp/iocage_nat_pf.conf");
    if lacks(iocage) {
        found.push(warning(
            format!("iocage has made /{}: a jail with nat=1 replaces the main ruleset by it", iocage.display()),
            "iocage set nat=0 JAIL, with the nat rule in /etc/pf.conf, then: service pf reload",
        ));
    }
    let cbsd = setting(root, "etc/rc.conf", "cbsd_workdir").unwrap_or_else(|| "/usr/jails".to_owned());
    let cbsd = Path::new(cbsd.trim_start_matches('/')).join("etc/pf.conf");
    if lacks(&cbsd) {
        let path = Path::new("/").join(&cbsd);
        found.push(warning(
            format!("cbsd expose and cbsd naton load {} as the main ruleset", path.display()),
            lines(&path),
        ));
    }
    let kleene = "usr/local/etc/kleened/config.yaml";
    if let Some(template) = setting(root, kleene, "pf_config_template_path")
        && lacks(Path::new(template.trim_start_matches('/')))
    {
        found.push(warning(
            format!("Kleene makes the main ruleset from {template}, which does not call kport's anchors"),
            lines(Path::new(&template)),
        ));
    }
    let pot = Path::new("usr/local/etc/pot/pot.conf");
    if root.join(pot).exists() && lacks(Path::new("etc/pf.conf")) {
        found.push(warning(
            "pot loads /etc/pf.conf again where its own anchors are missing from the main ruleset, and that file does not call \
             kport's anchors",
            lines(Path::new("/etc/pf.conf")),
        ));
    }
    found
}

/// Hooks that call kport for another jail, and those that discard another hook or are discarded.
pub(super) fn hooks(evidence: &Evidence<'_>) -> Checked {
    let Some(root) = &evidence.root else { return Ok(Some(vec![])) };
    let mut found = vec![];
    for (path, kind) in files(root) {
        let Some(text) = read(&path) else { continue };
        let shown = Path::new("/").join(path.strip_prefix(root).unwrap_or(&path));
        let statements = match &kind {
            FileKind::JailConf => hooks::jail_conf(&text),
            FileKind::Template(jail) => hooks::template(&text, jail),
        };
        found.extend(other_jails(&shown, &statements));
        found.extend(discarded(&shown, &statements));
    }
    Ok(Some(found))
}

enum FileKind {
    /// jail.conf(5)
    JailConf,
    /// AppJail's, of one jail: `exec.poststart: "..."`, `+:` to append.
    Template(String),
}

/// The files in which jails have hooks: jail(8)'s, Bastille's, AppJail's.
fn files(root: &Path) -> Vec<(PathBuf, FileKind)> {
    let mut all = vec![(root.join("etc/jail.conf"), FileKind::JailConf)];
    let mut confs = children(&root.join("etc/jail.conf.d"));
    confs.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    all.extend(confs.into_iter().map(|path| (path, FileKind::JailConf)));
    let bastille = setting(root, "usr/local/etc/bastille/bastille.conf", "bastille_prefix");
    let bastille = bastille.unwrap_or_else(|| "/usr/local/bastille".to_owned());
    for jail in children(&root.join(bastille.trim_start_matches('/')).join("jails")) {
        all.push((jail.join("jail.conf"), FileKind::JailConf));
    }
    for jail in children(&root.join("usr/local/appjail/jails")) {
        let name = jail.file_name().unwrap_or_default().to_string_lossy().into_owned();
        all.push((jail.join("conf/template.conf"), FileKind::Template(name)));
    }
    all
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    all.sort();
    all
}

/// The text of a regular file that can be read; a jail may have made anything else.
fn read(path: &Path) -> Option<String> {
    let about = fs::metadata(path).ok()?;
    if !about.is_file() || about.len() > MAX_FILE {
        return None;
    }
    Some(String::from_utf8_lossy(&fs::read(path).ok()?).into_owned())
}

/// `name="value"` or `name: value` in a file.
fn setting(root: &Path, path: &str, name: &str) -> Option<String> {
    let text = read(&root.join(path))?;
    let value = text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix(name)?.trim_start();
        rest.strip_prefix(['=', ':']).map(str::trim)
    })?;
    // what the shell would have to make up is not known
    let value = value.split(" #").next()?.trim().trim_matches(['"', '\'']);
    (value.starts_with('/') && !value.contains('$')).then(|| value.to_owned())
}

fn other_jails(path: &Path, statements: &[Statement]) -> Vec<Finding> {
    let mut found = vec![];
    for statement in statements {
        for named in statement.values.iter().filter_map(|value| hooks::jail_of(value)) {
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
                "let the hook say which jail it is: --hook in place of the name",
            ));
        }
    }
    found
}

/// A statement without `+` discards those before it (jail.conf(5)).
fn discarded(path: &Path, statements: &[Statement]) -> Vec<Finding> {
    let mut found = vec![];
    for (at, later) in statements.iter().enumerate().filter(|(_, statement)| !statement.appends) {
        // of the same jail, or of every one
        let before = statements[..at].iter().filter(|earlier| {
            earlier.parameter == later.parameter && (earlier.jail == later.jail || earlier.jail.is_none())
        });
        for earlier in before.filter(|earlier| earlier.calls_kport() || later.calls_kport()) {
            // one call of kport in the place of another is a jail with ports of its own
            if earlier.calls_kport() && later.calls_kport() {
                continue;
            }
            let lost = if earlier.calls_kport() { "kport's hook" } else { "the hook" };
            // what is said of every jail may be meant otherwise for one
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
