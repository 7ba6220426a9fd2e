//! Makes what is published what the lines say: each jail in a transaction of its own.

use std::collections::BTreeSet;

use super::{Conf, running};
use crate::error::{Kind, Result};
use crate::host::Host;
use crate::name::JailName;
use crate::publisher::{Outcome, Publisher, Recorded, Request};

/// The jails that are followed: those with a record, those that run and have a line, and the targets that are not jails.
///
/// # Errors
///
/// Those of the host.
pub fn jails(conf: Option<&Conf>, host: &dyn Host, recorded: &[Recorded]) -> Result<BTreeSet<JailName>> {
    let mut all: BTreeSet<JailName> = recorded.iter().map(|record| record.jail.clone()).collect();
    let Some(conf) = conf else { return Ok(all) };
    all.extend(running(host)?.into_iter().filter(|name| conf.of(name).next().is_some()));
    all.extend(conf.not_jails().into_iter().cloned());
    Ok(all)
}

/// Follows each of the jails with its lines, and reports each result, in any order. Without `conf`, with the lines that are
/// recorded. Ports may move from one jail to another, or be exchanged: a jail whose ports another one still has comes again
/// after that one.
pub fn apply(
    publisher: &Publisher<'_>,
    conf: Option<&Conf>,
    recorded: &[Recorded],
    jails: &BTreeSet<JailName>,
    told: &mut dyn FnMut(&JailName, Result<Outcome>),
) {
    let lines = |jail: &JailName| conf.map(|conf| conf.requests(jail));
    let mut left: Vec<&JailName> = jails.iter().collect();
    for last in [false, true] {
        let mut refused = vec![];
        for jail in left {
            match publisher.follow(jail, lines(jail).as_deref()) {
                Err(error) if !last && error.kind() == Kind::Conflict => refused.push(jail),
                result => told(jail, result),
            }
        }
        // an exchange: first all of them give up what they are not to have
        for jail in &refused {
            let had = recorded.iter().filter(|record| record.jail == **jail).flat_map(|record| &record.requests);
            let had: Vec<&Request> = had.filter(|request| request.configured).collect();
            let mut stays = lines(jail).unwrap_or_default();
            stays.retain(|request| had.iter().any(|known| known.is_same(request)));
            if stays.len() < had.len() {
                // what is wrong is reported by the next pass
                _ = publisher.follow(jail, Some(&stays));
            }
        }
        left = refused;
    }
}
