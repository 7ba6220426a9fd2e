//! Publish, unpublish, list, restore, gc: each one transaction over the records, the host and the firewall.
//!
//! A transaction has two sides. The `Survey` reads: facts of the host and of pf, and what other jails have published. The `Writer`
//! changes pf and the records, whose lock it holds. Publishing enters each phase once: `resolve` (from the request to redirects) and
//! `check` (who else has the ports) by the survey, then `change` by the writer (record, load, verify, end states, settle; on an error
//! it undoes the change).

mod addresses;
mod apply;
mod change;
mod list;
mod request;
mod resolve;
mod states;
mod survey;
mod writer;

use crate::deadline::Deadline;
use crate::error::{Result, error};
use crate::host::{Host, Jail};
pub use crate::pf::Counters;
use crate::pf::Firewall;
use crate::publication::Redirect;
use crate::store::{Record, Store};

use change::{Verification, change, verify};
use resolve::{check, resolve};
use survey::Survey;
pub(crate) use survey::gateway;
use writer::Writer;

pub use addresses::GRACE;
pub(crate) use addresses::NOBODY;
pub use apply::Recorded;
pub use list::{Listed, Liveness};
pub use request::{AUTO_RANGE, Request};
#[doc(hidden)]
pub use resolve::rules;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub use {
    addresses::{Pace, for_address},
    states::shut_out,
};

/// The phases of a transaction, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Take the host-wide lock.
    Lock,
    /// Read from the host: the jail's addresses, the gateway interface.
    Resolve,
    /// Look for conflicts.
    Check,
    /// Record what is to be published.
    Record,
    /// Change the anchor.
    Load,
    /// Check that pf evaluates the rules.
    Verify,
    /// End the states of what is no longer published.
    Kill,
    /// Record that pf has it.
    Settle,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Phase; 8] = {
        use Phase::{Check, Kill, Load, Lock, Record, Resolve, Settle, Verify};
        [Lock, Resolve, Check, Record, Load, Verify, Kill, Settle]
    };

    /// Its name.
    pub const fn name(self) -> &'static str {
        ["lock", "resolve", "check", "record", "load", "verify", "kill", "settle"][self as usize]
    }
}

/// Observes a transaction: `kport -v`, and the tests that make each phase fail.
pub trait Observer {
    /// Called before a phase. An error makes the transaction fail in this phase; it is undone like any other error.
    fn phase(&self, _phase: Phase) -> Result<()> {
        Ok(())
    }

    /// What a publish waits for, when that begins and when it changes.
    fn waiting(&self, _why: &str) {}

    /// A detail, for `kport -vv`.
    fn detail(&self, _text: &str) {}
}

/// The observer that does nothing.
#[derive(Clone, Copy, Debug)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// What a change did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether pf was changed.
    pub changed: bool,
    /// What is published now.
    pub redirects: Vec<Redirect>,
    /// How many states were ended.
    pub killed: u64,
    /// Notes for the caller, one line each.
    pub notes: Vec<String>,
}

/// Publishes on one host, through one firewall, with one state directory.
///
/// Every method fails with `Kind::Permission` if the caller may not change pf or the state directory, with `Kind::Busy`
/// if the lock or pf stayed busy until the deadline, with `Kind::System` if a system call or pfctl(8) failed, and with
/// `Kind::Internal` on a defect of kport. The other kinds are listed with each method. The text of an error ends with the
/// notes.
pub struct Publisher<'a> {
    host: &'a dyn Host,
    firewall: &'a dyn Firewall,
    store: Store,
    deadline: Deadline,
    observer: &'a dyn Observer,
}

impl<'a> Publisher<'a> {
    /// Host and firewall are parameters, so that tests can use any. Waiting for the lock ends at `deadline`, and so does
    /// every loop over what is published.
    #[doc(hidden)]
    pub fn new(
        host: &'a dyn Host, firewall: &'a dyn Firewall, store: Store, deadline: Deadline, observer: &'a dyn Observer,
    ) -> Publisher<'a> {
        Publisher { host, firewall, store, deadline, observer }
    }

    /// Publishes all ports of a jail, or none. They replace the ports that the jail had published, unless the request adds to
    /// them. Publishing the same ports again changes nothing and succeeds.
    ///
    /// On an error pf and the record are unchanged; if that was impossible, the message says so, and the next call corrects
    /// it.
    ///
    /// # Errors
    ///
    /// `Kind::Conflict` if one of the ports is in use, or no port is free for `auto`; `Kind::Unavailable` if pf would not
    /// evaluate the rules, or the jail's address or the gateway interface is unknown; `Kind::Unsupported` if the jail is on
    /// the host's network, or an option cannot be used with a protocol; `Kind::Argument` for an address that cannot be the
    /// target of a redirect, and for options that contradict each other.
    pub fn publish(&self, request: &Request) -> Result<Outcome> {
        self.publish_all(std::slice::from_ref(request))
    }

    /// Publishes several requests of one jail, each with its own options, in one transaction: all of it or nothing. The first
    /// request decides whether that replaces what the jail had published; the others add to it. A conflict is overridden, and
    /// rules without effect are published, only if each request allows it.
    ///
    /// # Errors
    ///
    /// As for [`Publisher::publish`]; `Kind::Argument` if there is no request, and for requests of several jails.
    pub fn publish_all(&self, requests: &[Request]) -> Result<Outcome> {
        let Some(Request { jail, no_jail, .. }) = requests.first() else {
            return Err(error!(Argument, "there is nothing to publish; unpublish the jail instead"));
        };
        if let Some(other) = requests.iter().find(|request| request.jail != *jail) {
            let (one, other) = (jail.mention(), other.jail.mention());
            return Err(error!(Argument, "{one} and {other} are two jails: publish each by itself"));
        }
        requests.iter().try_for_each(|request| addresses::check_no_jail(request, *no_jail))?;
        self.wait(requests)?;
        self.run(requests, |writer| {
            let survey = writer.survey;
            let old = writer.record(&jail.anchor())?;
            let (new, kept) = resolve(survey, requests, old.as_ref())?;
            check(survey, requests, old.as_ref(), kept, &new)?;
            let requested = request::after(kept, requests);
            change(writer, old.as_ref(), Record { requested, ..new }, Verification::of(requests, true))
        })
    }

    /// Checks a request like [`Publisher::publish`], and changes nothing. The jail need not exist yet; without its address, the ports
    /// are checked in each family in which the host has a network of jails. What it finds free may be in use later.
    ///
    /// # Errors
    ///
    /// As for [`Publisher::publish`].
    pub fn dry_run(&self, request: &Request) -> Result<Outcome> {
        self.run(std::slice::from_ref(request), |writer| {
            let survey = writer.survey;
            // a restart gives the jid of the earlier start
            let mut request = Request { jid: None, ..request.clone() };
            if request.addresses.is_empty() && self.host.running(request.jail.as_str())?.is_none() {
                request.addresses = addresses::expected(survey, &request)?;
            }
            let old = survey.readable(&request.jail);
            let requests = std::slice::from_ref(&request);
            let (new, kept) = resolve(survey, requests, old.as_ref())?;
            check(survey, requests, old.as_ref(), kept, &new)?;
            let wanted = crate::rules::of_all(&new.publications);
            verify(survey, &new, &wanted, self.firewall.status()?, Verification::of(requests, false))
        })
    }

    /// Waits until the jail has the addresses that the requests wait for. Other processes have the lock meanwhile.
    fn wait(&self, requests: &[Request]) -> Result<()> {
        for request in requests {
            let is_complete = |jail: Option<&Jail>| addresses::are_complete(&Survey::new(self)?, request, jail);
            addresses::for_address(self.host, request, self.deadline, self.observer, &is_complete, &addresses::PACE)?;
        }
        Ok(())
    }

    /// A transaction, in which the jail of these requests is asked for its addresses.
    fn run(&self, requests: &[Request], act: impl FnOnce(&mut Writer<'_>) -> Result<()>) -> Result<Outcome> {
        let survey = Survey::new(self)?;
        survey.ask(requests);
        let mut writer = Writer::begin(&survey)?;
        let result = act(&mut writer);
        writer.finish(result)
    }
}
