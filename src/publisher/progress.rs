//! How far a transaction is, and whether there is time to continue.

use std::fmt::Arguments;

use super::{Observer, Phase};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result, Setting};

/// The observer, and the deadline.
#[derive(Clone, Copy)]
pub(super) struct Progress<'a> {
    observer: &'a dyn Observer,
    pub(super) deadline: Deadline,
}

impl<'a> Progress<'a> {
    pub(super) fn new(observer: &'a dyn Observer, deadline: Deadline) -> Progress<'a> {
        Progress { observer, deadline }
    }

    /// Before a phase; the observer's error is that of the phase.
    pub(super) fn phase(self, phase: Phase) -> Result<()> {
        self.observer.phase(phase)
    }

    pub(super) fn detail(self, text: &str) {
        self.observer.detail(text);
    }

    /// Fails when the time is up: for loops before anything is changed.
    pub(super) fn in_time(self) -> Result<()> {
        if !self.deadline.passed() {
            return Ok(());
        }
        Err(Error::new(Kind::Busy, "the time is up, and nothing was changed; try again")
            .remedy("give more time with", Setting::Timeout))
    }

    /// For loops over anchors that change one by one: when the time is up, the error that ends the loop. `of` is what was
    /// done until then, `again` the command that does the rest.
    pub(super) fn cut_short(self, of: Arguments<'_>, again: &str) -> Option<Error> {
        self.deadline.passed().then(|| {
            let why = format!("the time is up after {of}; the others are unchanged: {again} again");
            Error::new(Kind::Busy, why).remedy("give more time with", Setting::Timeout)
        })
    }
}
