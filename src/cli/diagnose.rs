//! `kport doctor`: the possible causes of a dead port.

use std::path::Path;

use crate::doctor::{self, Level, ManagerFiles, self_test};
use crate::error::{Error, Kind, Result};
use crate::pf::Firewall;

use super::args::{Cli, DoctorArgs, Global};
use super::output::{Shown, complain, document, print};
use super::session::session;
use super::show;

/// `kport doctor`
pub fn run(global: &Global, args: &DoctorArgs) -> Result<()> {
    if args.self_test { self_test(global) } else { doctor(global, args) }
}

/// Warnings may be intended by the administrator, so only problems set the exit status.
fn doctor(global: &Global, args: &DoctorArgs) -> Result<()> {
    let session = session(global)?;
    let with_conf;
    let firewall: &dyn Firewall = match &args.pf_conf {
        Some(file) => {
            with_conf = crate::pf::WithConf::new(crate::pfconf::Conf::of_file(file)?, &*session.firewall);
            &with_conf
        }
        None => &*session.firewall,
    };
    let with_values = Cli::flags_with_values();
    let files = ManagerFiles { root: Path::new("/"), with_values: &with_values, pfctl: &global.pfctl };
    let findings =
        doctor::examine(&*session.host, firewall, session.store(), (!session.host.is_played()).then_some(files));
    let problems = findings.iter().filter(|f| f.level == Level::Problem).count();
    print(&if args.json {
        document(&show::findings_json(&findings))
    } else {
        show::lines(findings.iter().filter(|f| !global.quiet || f.level > Level::Ok))
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
    print(&show::steps(&steps))?;
    match steps.iter().filter(|step| step.result.is_err()).count() {
        0 => Ok(()),
        n => Err(Error::new(Kind::Unavailable, format!("self-test: {n} of {} steps failed", steps.len()))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::host::Fixed;
    use crate::pf::files::Sim;
    use crate::store::Store;

    use super::*;

    #[test]
    fn the_jail_that_a_hook_names_is_not_the_value_of_a_flag() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        for flags in [
            "--kleene records.json",
            "-a 10.0.0.2 --from 192.0.2.7",
            "--hairpin -vv --jid 7 --no-quick",
            "--rate=5/10 --add --wait 5",
        ] {
            for (jail, level) in [("web", Level::Ok), ("db", Level::Problem)] {
                let hook = format!(
                    "web {{ exec.poststart = \"/x/kport publish {flags} {jail} 8080\";\nexec.poststop = \"/x/kport unpublish --hook\"; }}\n"
                );
                fs::write(dir.path().join("etc/jail.conf"), hook).unwrap();
                let (host, firewall) = (Fixed::default(), Sim::new(dir.path()));
                let with_values = Cli::flags_with_values();
                let files =
                    ManagerFiles { root: dir.path(), with_values: &with_values, pfctl: Path::new("/nonexistent") };
                let store = Store::open(&dir.path().join("state"));
                let found = doctor::examine(&host, &firewall, store, Some(files));
                let hooks: Vec<_> = found.iter().filter(|finding| finding.id == "hooks").collect();
                assert_eq!((hooks.len(), hooks[0].level), (1, level), "{hooks:?}");
            }
        }
    }
}
