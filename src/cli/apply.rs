//! What is published follows kport.conf(5): `kport apply`, `kport check`, `kport watch`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::conf::{self, Conf};
use crate::error::{Error, Kind, Result, printable};
use crate::host;
use crate::name::JailName;
use crate::publisher::{Liveness, Outcome, Publisher, Recorded};
use crate::session::Session;
use crate::watch::{Watcher, What};

use super::args::{ApplyArgs, Global};
use super::output::{self, complain, document, print, raw, word};
use super::{any_session, hook, session, with_publisher};

pub fn apply(global: &Global, args: &ApplyArgs) -> Result<()> {
    with_publisher(global, |session, publisher| {
        let conf = Conf::read(global.config.as_deref());
        let recorded = publisher.recorded()?;
        let jails = match args.jails.is_empty() {
            true => conf::jails(conf.as_ref().ok(), &*session.host, &recorded)?,
            false => args.jails.iter().cloned().collect(),
        };
        if args.dry_run {
            let conf = conf?;
            return print(&difference(session, publisher, &conf, &recorded, &jails, args.jails.is_empty())?);
        }
        // on a system without jails, for trying kport, none is gone
        let gc = args.jails.is_empty().then(|| publisher.gc());
        let gc = gc.filter(|gc| !gc.as_ref().is_err_and(|error| error.kind() == Kind::Unsupported));
        let followed = conf::apply(publisher, conf.as_ref().ok(), &recorded, &jails).into_iter();
        let followed = followed.map(|(jail, result)| result.map_err(|error| error.context(jail.mention())));
        let mut all = Outcome::default();
        // without the lines, the rest is done anyway
        let mut errors: Vec<Error> = conf.as_ref().err().cloned().into_iter().collect();
        for result in gc.into_iter().chain(followed) {
            match result {
                Ok(outcome) => {
                    all.changed |= outcome.changed;
                    all.killed += outcome.killed;
                    all.redirects.extend(outcome.redirects);
                    all.notes.extend(outcome.notes);
                }
                Err(error) => errors.push(error),
            }
        }
        output::outcome(session, &all, global.quiet);
        if args.json {
            print(&document(&output::outcome_json(&all)))?;
        }
        Error::all(errors)
    })
}

/// What apply would do, as commands; for `all` also what belongs to no jail.
fn difference(
    session: &Session, publisher: &Publisher<'_>, conf: &Conf, recorded: &[Recorded], jails: &BTreeSet<JailName>,
    all: bool,
) -> Result<String> {
    let mut text = String::new();
    for jail in jails {
        let record = recorded.iter().find(|record| record.jail == *jail);
        if record.is_some_and(|record| record.gone) {
            _ = writeln!(text, "kport unpublish {}", word(jail.as_str()));
        }
        let running = session.host.running(jail.as_str())?.is_some();
        let not_gone = record.iter().filter(|record| !record.gone);
        let had = conf::configured(not_gone.flat_map(|record| &record.requests));
        if !running && had.is_empty() && !conf.not_jails().contains(jail) {
            continue;
        }
        let wanted = conf.requests(jail);
        let mappings = || wanted.iter().flat_map(|request| request.spec.mappings());
        let gone = had.iter().flat_map(|r| r.spec.mappings()).filter(|old| !mappings().any(|new| new == *old));
        let gone: Vec<String> = gone.map(|mapping| word(&mapping.to_string())).collect();
        if !gone.is_empty() {
            _ = writeln!(text, "kport unpublish {} {}", word(jail.as_str()), gone.join(" "));
        }
        for (line, request) in conf.of(jail).zip(&wanted) {
            if !had.iter().any(|old| conf::is_of_line(old, request)) {
                let words: Vec<String> = line.words.iter().map(|text| word(text)).collect();
                _ = writeln!(text, "kport publish --add {} {}", word(jail.as_str()), words.join(" "));
            }
        }
    }
    for listed in publisher.list(None)? {
        match (listed.liveness, &listed.jail) {
            (Liveness::Missing, Some(jail)) if !listed.redirects.is_empty() && jails.contains(jail) => {
                _ = writeln!(text, "kport apply {}", word(jail.as_str()));
            }
            (Liveness::Stale, _) if all => {
                let name = listed.anchor.child().parse().ok().filter(|name| listed.anchor.is_of(name));
                let unpublish = |name: JailName| format!("kport unpublish {}\n", word(name.as_str()));
                // a long name is a digest there
                text += &name.map_or("kport apply\n".to_owned(), unpublish);
            }
            _ => {}
        }
    }
    Ok(text)
}

pub fn check(global: &Global, file: Option<&Path>) -> Result<()> {
    let conf = Conf::read(file.or(global.config.as_deref()))?;
    let session = any_session(global)?;
    let mut wrong = conf::check(&conf, &*session.host)?;
    for line in &conf.lines {
        for source in line.sources() {
            // whoever may not read pf can check the rest
            if let crate::options::Source::Table(table) = source
                && let Ok(false) = session.firewall.has_table(table)
            {
                let why = format!("pf has no table <{table}>, so no traffic would be passed");
                wrong.push(Error::new(Kind::Unavailable, why).context(line));
            }
        }
    }
    let Some(last) = wrong.pop() else { return Ok(()) };
    wrong.iter().for_each(|error| complain(error));
    Err(last)
}

/// The longest time without a look at the signals: one that comes just before a wait does not end it.
const WAIT: Duration = Duration::from_secs(2);

/// `kport watch`. What is published stays when it ends.
pub fn watch(global: &Global, json: bool) -> Result<()> {
    let (ends, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    for (signal, set) in [(SIGTERM, &ends), (SIGINT, &ends), (SIGHUP, &reads)] {
        signal_hook::flag::register(signal, Arc::clone(set)).map_err(|error| Error::io("handle signals", &error))?;
    }
    // a mistake in the arguments is an error now, and not a failure that is tried again
    session(global)?.notice().iter().for_each(|notice| complain(notice));
    let settings = global.clone();
    let open = Box::new(move || session(&settings));
    let mut watcher = Watcher::new(open, host::events()?, Box::new(Instant::now), global.config.clone());
    while !ends.load(Ordering::Relaxed) {
        if reads.swap(false, Ordering::Relaxed) {
            watcher.reload();
        }
        let Some(report) = watcher.step(WAIT)? else { continue };
        let line = report.to_string();
        hook::log(if report.what == What::Failed { hook::LOG_ERR } else { hook::LOG_NOTICE }, &line);
        let line = if json { report.json() } else { printable(&line).into_owned() };
        if !global.quiet && !raw(format!("{line}\n").as_bytes())? {
            return Ok(());
        }
    }
    Ok(())
}
