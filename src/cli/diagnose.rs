//! `kport doctor`: why a published port could be dead.

use std::path::Path;

use kport::doctor::{self, Level, self_test};
use kport::error::{Error, Kind, Result};
use kport::pf::Firewall;

use super::args::{DoctorArgs, Global};
use super::output::{Shown, complain, document, print};
use super::session::session;
use super::show;

/// `kport doctor`
pub fn run(global: &Global, args: &DoctorArgs) -> Result<()> {
    if args.self_test { self_test(global) } else { doctor(global, args) }
}

/// Warnings may be what the admin wants, so that only problems make the exit status.
fn doctor(global: &Global, args: &DoctorArgs) -> Result<()> {
    let session = session(global)?;
    let with_conf;
    let firewall: &dyn Firewall = match &args.pf_conf {
        Some(file) => {
            with_conf = kport::pf::WithConf::new(kport::pfconf::Conf::of_file(file)?, &*session.firewall);
            &with_conf
        }
        None => &*session.firewall,
    };
    let root = (!session.host.is_played()).then_some(Path::new("/"));
    let findings = doctor::examine(&*session.host, firewall, session.store(), root);
    let problems = findings.iter().filter(|f| f.level == Level::Problem).count();
    print(&if args.json {
        document(&show::findings_json(&findings))
    } else {
        show::findings(findings.iter().filter(|f| !global.quiet || f.level > Level::Ok))
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
    if !session.firewall.redirects_packets() {
        complain(&kport::pf::files::NOTICE);
    }
    print(&show::steps(&steps))?;
    match steps.iter().filter(|step| step.result.is_err()).count() {
        0 => Ok(()),
        n => Err(Error::new(Kind::Unavailable, format!("self-test: {n} of {} steps failed", steps.len()))),
    }
}
