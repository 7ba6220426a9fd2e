//! `kport doctor`: the possible causes of a dead port.

use std::path::Path;

use crate::doctor::{self, Level, ManagerFiles, self_test};
use crate::error::{Error, Kind, Result};
use crate::pf::Firewall;

use super::args::{Cli, DoctorArgs, Global};
use super::output::{self, Shown, complain, document, print};
use super::session::{session, with_conf};

/// `kport doctor`
pub fn run(global: &Global, args: &DoctorArgs) -> Result<()> {
    if args.self_test { self_test(global) } else { doctor(global, args) }
}

/// Warnings may be intended by the administrator, so only problems set the exit status.
fn doctor(global: &Global, args: &DoctorArgs) -> Result<()> {
    let session = session(global)?;
    let with_conf = with_conf(&session, args.pf_conf.as_deref())?;
    let firewall = with_conf.as_ref().map_or(&*session.firewall, |conf| conf as &dyn Firewall);
    let with_values = Cli::flags_with_values();
    let files = ManagerFiles { root: Path::new("/"), with_values: &with_values, pfctl: &global.pfctl };
    let files = (!session.host.is_played()).then_some(files);
    let findings = doctor::examine(&*session.host, firewall, session.store(), files);
    let problems = findings.iter().filter(|f| f.level == Level::Problem).count();
    print(&if args.json {
        document(&output::findings_json(&findings))
    } else {
        output::lines(findings.iter().filter(|f| !global.quiet || f.level > Level::Ok))
    })?;
    match problems {
        0 => Ok(()),
        1 => Err(Error::new(Kind::Unavailable, "one problem was found")),
        n => Err(Error::new(Kind::Unavailable, format!("{n} problems were found"))),
    }
}

fn self_test(global: &Global) -> Result<()> {
    let session = session(global)?;
    let (store, observer) = (session.store()?, Shown::new(global.verbose));
    let steps = self_test::run(&*session.host, &*session.firewall, store.dir(), &observer)?;
    session.notice().iter().for_each(|notice| complain(notice));
    print(&output::steps(&steps))?;
    match steps.iter().filter(|step| step.result.is_err()).count() {
        0 => Ok(()),
        n => Err(Error::new(Kind::Unavailable, format!("self-test: {n} of {} steps failed", steps.len()))),
    }
}
