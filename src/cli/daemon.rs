//! `kport watch`: keeps what is published true, until it is ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Error, Result, printable};
use crate::host;
use crate::watch::{Watcher, What};

use super::args::Global;
use super::hook;
use super::output::{complain, raw};
use super::session::session;

/// The longest time without a look at the signals: one that comes just before a wait does not end it.
const WAIT: Duration = Duration::from_secs(2);

/// `kport watch`. What is published stays when it ends.
pub fn run(global: &Global, json: bool) -> Result<()> {
    let (ends, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    for (signal, set) in [(SIGTERM, &ends), (SIGINT, &ends), (SIGHUP, &reads)] {
        flag::register(signal, Arc::clone(set)).map_err(|error| Error::io("handle signals", &error))?;
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
        match report.what {
            What::Failed => hook::log(&line),
            _ => hook::notice(&line),
        }
        let line = if json { report.json() } else { printable(&line).into_owned() };
        if !global.quiet && !raw(format!("{line}\n").as_bytes())? {
            return Ok(());
        }
    }
    Ok(())
}
