//! Waits until a jail has an address that can be published: DHCP, SLAAC, a manager that sets it while its hooks run.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::addresses::reported;
use super::{Observer, Request};
use crate::error::{Kind, Result};
use crate::host::Host;
use crate::publication::Targets;

/// How often the host is asked. The system does not tell: a routing socket (route(4)) gets the messages of the network stack
/// that it was opened in (V_route_cb of sys/net/rtsock.c), and the jails that come to their address late have one of their own;
/// that a jail is made is told nowhere. Asking is one child process for such a jail, a millisecond.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Comes back when the jail has an address, at once where one is given or no waiting was asked for.
///
/// # Errors
///
/// Why there is none yet, after `request.wait` or at the deadline, and at once what no waiting changes.
pub(super) fn for_address(
    host: &dyn Host,
    request: &Request,
    deadline: Instant,
    observer: &dyn Observer,
) -> Result<()> {
    if request.wait.is_zero() || !request.addresses.is_empty() {
        return Ok(());
    }
    let start = Instant::now();
    let end = start.checked_add(request.wait).unwrap_or(deadline).min(deadline);
    loop {
        let error = match found(host, request, end) {
            Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Argument) => error,
            other => return other,
        };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let waited = (end - start).as_secs_f64();
            return Err(error.and(format_args!("waited {waited:.0} s for it")));
        }
        observer.detail(&format!("waiting: {error}"));
        sleep(left.min(POLL_INTERVAL));
    }
}

fn found(host: &dyn Host, request: &Request, end: Instant) -> Result<()> {
    let jail = host.jail(request.jail.as_str())?.filter(|jail| !jail.dying);
    Targets::choose(&request.jail, &reported(host, &request.jail, jail.as_ref(), end)?).map(|_| ())
}
