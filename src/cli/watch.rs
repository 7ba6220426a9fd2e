//! `kport list --watch`: prints a table at intervals, until interrupted.

use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::name::JailName;
use crate::publisher::Listed;

use super::args::Global;
use super::output::{Shown, redraw};
use super::session::session;
use super::{show, traffic};

/// Prints the traffic of each mapping once per interval, until the reader is gone. SIGINT has its default action.
pub fn run(global: &Global, jail: Option<&JailName>, interval: Duration) -> Result<()> {
    let mut before = sample(global, jail)?;
    if let Some(jail) = jail.filter(|_| before.1.is_empty()) {
        return Err(Error::new(Kind::Argument, format!("{} has published nothing", jail.mention())));
    }
    loop {
        thread::sleep(interval);
        let after = sample(global, jail)?;
        if !redraw(&show::table(&traffic::rates(&before.1, &after.1, after.0 - before.0)))? {
            return Ok(());
        }
        before = after;
    }
}

/// Takes one sample. The time-out is that of one sample, so each opens a session.
fn sample(global: &Global, jail: Option<&JailName>) -> Result<(Instant, Vec<Listed>)> {
    let session = session(global)?;
    let observer = Shown::new(global.verbose);
    let list = session.publisher(&observer)?.list_with_counters(jail)?;
    Ok((Instant::now(), list))
}
