//! `kport setup`: prints or writes the lines that pf.conf(5), rc.conf(5) and sysctl.conf(5) need.
//!
//! sysrc(8), FreeBSD's tool for rc.conf, writes in place, one variable at a time, and cannot undo its changes. Here all files change
//! or none does, and each added line has a mark.

pub mod marks;
pub mod plan;
pub mod replace;
pub mod settings;
pub mod shell;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use crate::deadline::Deadline;
use crate::error::{Error, Result, error};
use crate::host::Host;
use crate::net::Family;
use crate::pf::pfctl::is_without_device;
use crate::{child, pfconf, readiness};

use super::args::{Global, SetupArgs};
use super::{any_session, host, output};
use plan::{Ground, Plan};
use replace::{Change, ConfFile, replace};
use settings::{Format, SYSCTL, Variable, WAN};

const RC_CONF: &str = "/etc/rc.conf";
const SYSCTL_CONF: &str = "/etc/sysctl.conf";
/// It checks rc.conf(5).
const SH: &str = "/bin/sh";
/// Variables that rc(8) sets when it has loaded pf, in the directory of sysctl.conf: load_kld() of rc.subr(8). sysctl.conf is read
/// before pf is loaded, when they do not exist, and again after pf is enabled, which is too late.
const OF_PF: &str = "sysctl.kld.d/pf.conf";

/// Whether pf filters on the members of bridges (if_bridge(4)).
const PFIL_MEMBER: &str = "net.link.bridge.pfil_member";

pub fn run(global: &Global, args: &SetupArgs) -> Result<()> {
    let mut said = String::new();
    let deadline = Deadline::after(global.timeout);
    let done = host(global).and_then(|host| {
        let setup = Setup { args, global, host: &*host, deadline };
        if args.check { setup.check(&mut said) } else { setup.run(&mut said) }
    });
    // what was written is reported, even if a later step failed
    output::print(&said)?;
    done
}

struct Setup<'a> {
    args: &'a SetupArgs,
    global: &'a Global,
    host: &'a dyn Host,
    deadline: Deadline,
}

impl<'a> Setup<'a> {
    /// Writes the files; adds the output to `said`.
    fn run(&self, said: &mut String) -> Result<()> {
        let parts = self.parts()?;
        if self.args.undo {
            for part in parts.iter().filter(|part| !part.conf.foreign && !part.is_one()) {
                _ = writeln!(said, "{}: has no line of kport setup", part.path());
            }
        } else {
            for part in &parts {
                let other = match part.conf.foreign {
                    false => "",
                    true => " (of FreeBSD; --write does not change it on this system unless it is named)",
                };
                _ = write!(said, "{}:{other}\n{}", part.path(), part.shown);
            }
            // what is to be loaded is checked by loading it
            let pf_conf = &parts[0];
            if pf_conf.conf.exists
                && !pf_conf.is_one()
                && !self.args.load
                && let Some(Err(why)) = self.pfctl(&["-n", "-f"], Some(&pf_conf.conf.path))?
                && !is_without_device(&why)
            {
                let path = pf_conf.path();
                return Err(error!(Unavailable, "pfctl -n -f {path}: {why}; correct that first; nothing was changed"));
            }
            if !self.args.write {
                return self.load(pf_conf, false, said);
            }
            let by_hand: Vec<String> = parts
                .iter()
                .filter(|part| !part.conf.foreign && !part.by_hand.is_empty())
                .map(|part| format!("{}: {}", part.path(), part.by_hand.join("; ")))
                .collect();
            if !by_hand.is_empty() {
                return Err(error!(
                    Unavailable,
                    "no file was changed, since not all can be written: {}; add these lines by hand, and run it again",
                    by_hand.join("; ")
                ));
            }
        }
        let changes: Vec<&Change<'_>> = parts.iter().filter(|part| part.is_one()).collect();
        *said += &replace(&changes, self.deadline)?;
        self.load(&parts[0], changes.iter().any(|part| part.loads), said)
    }

    fn check(&self, said: &mut String) -> Result<()> {
        let conf = ConfFile::read(&self.args.pf_conf)?;
        let path = conf.path.display();
        let missing = readiness::missing(&conf.path, &conf.text);
        if !missing.is_empty() {
            return Err(error!(Unavailable, "{path} does not have {}; run kport setup", missing.join(" and ")));
        }
        let checked = plan::check(&Ground { host: self.host, name: &conf.path }, &conf.text)?;
        _ = write!(said, "{path}:\n{checked}");
        for readiness::Wildcard { file, line, .. } in readiness::wildcards(&conf.path, &conf.text) {
            _ = writeln!(
                said,
                "  note: {file}: line {line} calls \"kport/*\", so each new connection is compared with the rules of every jail: kport setup"
            );
        }
        match checked.proof.failures().count() {
            0 => Ok(()),
            1 => Err(error!(Unavailable, "{path}: one of the three sentences fails")),
            n => Err(error!(Unavailable, "{path}: {n} of the three sentences fail")),
        }
    }

    /// The files, each with its plan; pf.conf is the first.
    fn parts(&self) -> Result<Vec<Change<'a>>> {
        let conf = ConfFile::read(&self.args.pf_conf)?;
        let included = self.included(&conf)?;
        let mut parts = vec![self.pf_conf(conf)?];
        parts.extend(included);
        parts.push(self.rc_conf()?);
        parts.extend(self.sysctl_conf()?);
        Ok(parts)
    }

    fn pf_conf(&self, conf: ConfFile) -> Result<Change<'a>> {
        let mut plan = Plan::default();
        let made = if self.args.undo {
            plan::undone(&conf.text)
        } else {
            plan = plan::plan(&Ground { host: self.host, name: &conf.path }, &conf.text);
            std::mem::take(&mut plan.text)
        };
        let (shown, text) = (plan.to_string(), self.contents(&conf, made));
        let (checker, by_hand) = (Some((&*self.global.pfctl, &["-n", "-f"][..])), plan.by_hand);
        Ok(Change { conf, text, checker, shown, by_hand, loads: true })
    }

    /// The new contents of a file with kport's lines, or without them: `None` if kport has created it and nothing else is in it.
    fn contents(&self, conf: &ConfFile, made: Vec<u8>) -> Option<Vec<u8>> {
        match self.args.undo {
            true => (!made.is_empty() || !marks::has_file(&conf.text)).then_some(made),
            false if conf.exists => Some(made),
            false => Some(marks::with_file(&made)),
        }
    }

    /// Whether publish needs IPv6 forwarding: a jail gets an address of each family of its network.
    fn has_inet6(&self) -> Result<bool> {
        let usable = |net: &ipnet::IpNet| matches!(net.addr(), IpAddr::V6(v6) if !v6.is_loopback() && !v6.is_unicast_link_local());
        let network = self.host.interfaces()?.iter().flat_map(|interface| &interface.addresses).any(usable);
        Ok(network || self.host.gateway(Family::Inet6)?.is_some())
    }

    /// The plan for a file of variables; `beside` are files in its directory that are read after it, with the variables that they
    /// are read for.
    fn settings(
        &self, format: Format, conf: ConfFile, wanted: &[Variable], beside: &[(&str, &'static [&'static str])],
    ) -> Result<Change<'a>> {
        let mut later = vec![];
        for (name, only) in beside {
            let path = conf.path.with_file_name(name);
            // rc.conf.d/NAME may be a directory
            if path.exists() && !path.is_dir() {
                later.push((ConfFile::read(&path)?, *only));
            }
        }
        let plan = settings::plan(format, &conf.shown(), wanted, &later);
        let made = if self.args.undo { settings::undone(format, &conf.text) } else { plan.applied(&conf.text) };
        let checker = matches!(format, Format::Rc).then_some((Path::new(SH), &["-n"][..]));
        let (shown, text) = (plan.to_string(), self.contents(&conf, made));
        Ok(Change { conf, text, checker, shown, by_hand: plan.by_hand, loads: false })
    }

    /// The files that pf.conf includes, and that have calls by wildcard, or had them before an earlier setup.
    fn included(&self, main: &ConfFile) -> Result<Vec<Change<'a>>> {
        let outline = pfconf::Outline::of_file(&main.path, &main.text);
        let wildcards = readiness::wildcards(&main.path, &main.text);
        let name = main.path.display().to_string();
        let others: BTreeSet<&str> =
            outline.statements.iter().map(|of| &*of.origin.file).filter(|file| *file != name).collect();
        let mut parts = vec![];
        for file in others {
            let conf = ConfFile::read(Path::new(file))?;
            let (text, shown) = match self.args.undo {
                true => (marks::turned_back(&conf.text), String::new()),
                false => plan::turned(file, &conf.text, &wildcards),
            };
            // there is nothing to say of the others
            if text != conf.text || !shown.is_empty() {
                parts.push(Change { conf, text: Some(text), shown, loads: true, ..Change::default() });
            }
        }
        Ok(parts)
    }

    fn rc_conf(&self) -> Result<Change<'a>> {
        let conf = ConfFile::given(self.args.rc_conf.as_deref(), Path::new(RC_CONF))?;
        let text = conf.shown().into_owned();
        let value = |name: &str| settings::value(Format::Rc, &text, name);
        let mut wanted = vec![("pf_enable", "YES".to_owned()), ("gateway_enable", "YES".to_owned())];
        if self.has_inet6()? {
            wanted.push(("ipv6_gateway_enable", "YES".to_owned()));
        }
        if let Some(gateway) = self.host.gateway(Family::Inet6)? {
            let variable = format!("ifconfig_{}_ipv6", gateway.as_str().replace(['.', '-'], "_"));
            let advertised = value(&variable).is_some_and(|value| value.contains("accept_rtadv"));
            // a router accepts a default route from advertisements (nd6_ra_input() of netinet6/nd6_rtr.c) only on this interface
            if advertised && value(WAN).is_none_or(|wan| wan.is_empty() || wan.eq_ignore_ascii_case("no")) {
                wanted.push((WAN, gateway.to_string()));
            }
        }
        let later: [(_, &[_]); 3] = [
            ("rc.conf.local", &[]),
            ("rc.conf.d/pf", &["pf_enable"]),
            ("rc.conf.d/routing", &["gateway_enable", "ipv6_gateway_enable"]),
        ];
        let mut part = self.settings(Format::Rc, conf, &wanted, &later)?;
        if let Some(rules) = value("pf_rules").filter(|rules| Path::new(rules) != self.args.pf_conf) {
            _ = writeln!(part.shown, "  note: pf_rules is {rules:?}, which rc(8) loads: kport setup --pf-conf {rules}");
        }
        for other in readiness::other_firewalls(value) {
            _ = writeln!(part.shown, "  note: {other}");
        }
        Ok(part)
    }

    /// rc.conf(5) enables forwarding; a line of sysctl.conf(5) that disables it would win.
    fn sysctl_conf(&self) -> Result<Vec<Change<'a>>> {
        let conf = ConfFile::given(self.args.sysctl_conf.as_deref(), Path::new(SYSCTL_CONF))?;
        let text = conf.shown().into_owned();
        let value = |name: &str| settings::value(Format::Sysctl, &text, name);
        let mut wanted = vec![];
        for (name, required) in SYSCTL {
            let is_missing = match name {
                "net.pf.filter_local" => true,
                PFIL_MEMBER if self.host.sysctl(name)?.is_some_and(|now| now != 0) => true,
                _ => value(name).is_some(),
            };
            if is_missing && self.needs(name)? {
                wanted.push((name, required.to_owned()));
            }
        }
        let (of_pf, foreign) = (conf.path.with_file_name(OF_PF), conf.foreign);
        let mut parts = vec![self.settings(Format::Sysctl, conf, &wanted, &[("sysctl.conf.local", &[])])?];
        if !self.args.host_access && value(PFIL_MEMBER).is_some_and(|value| value != "0") {
            let why = "pf filters on members of bridges, where --hairpin and --host-access do not work";
            _ = writeln!(parts[0].shown, "  note: {PFIL_MEMBER} is not 0: {why}");
        }
        if self.args.host_access || self.args.undo {
            let of_pf = ConfFile::given((!foreign).then_some(&*of_pf), &of_pf)?;
            let wanted = [("net.pf.filter_local", "1".to_owned())];
            parts.push(self.settings(Format::Sysctl, of_pf, &wanted, &[])?);
        }
        Ok(parts)
    }

    /// Whether published ports need one of [`SYSCTL`].
    fn needs(&self, name: &str) -> Result<bool> {
        match name {
            "net.inet.ip.forwarding" => Ok(true),
            "net.inet6.ip6.forwarding" => self.has_inet6(),
            _ => Ok(self.args.host_access),
        }
    }

    fn missing_values(&self) -> Result<Vec<String>> {
        let mut missing = vec![];
        for (name, value) in SYSCTL {
            if self.needs(name)? && self.host.sysctl(name)?.is_some_and(|now| now.to_string() != value) {
                missing.push(format!("{name}={value}"));
            }
        }
        Ok(missing)
    }

    /// Whether the loaded main ruleset calls kport's anchors; false if that is unknown.
    fn is_loaded(&self) -> bool {
        let status = any_session(self.global).and_then(|session| session.firewall.status());
        status.is_ok_and(|status| status.nat_anchor && status.rdr_anchor && status.anchor)
    }

    fn pfctl(&self, arguments: &[&str], file: Option<&Path>) -> Result<Option<std::result::Result<String, String>>> {
        child::output_of(&self.global.pfctl, arguments, file, self.deadline)
    }

    /// Loads the rules and sets the variables, or prints the commands for it.
    fn load(&self, pf_conf: &Change<'_>, rules_changed: bool, said: &mut String) -> Result<()> {
        let path = pf_conf.path();
        let values = if self.args.undo { vec![] } else { self.missing_values()? };
        let is_missing =
            |program: &Path, to: &str| Err(error!(Unavailable, "there is no {} to {to} with", program.display()));
        if !(self.args.load && (self.args.write || self.args.undo)) {
            if rules_changed || !pf_conf.is_one() && self.is_loaded() == self.args.undo {
                _ = writeln!(said, "  not loaded: pfctl -f {path}");
            }
            if !values.is_empty() {
                _ = writeln!(said, "  not set: sysctl {}", values.join(" "));
            }
        } else {
            match self.pfctl(&["-f"], Some(&pf_conf.conf.path))? {
                None => return is_missing(&self.global.pfctl, "load it"),
                Some(Ok(_)) => _ = writeln!(said, "{path}: loaded"),
                Some(Err(why)) => {
                    // without pf.ko there is no device
                    let start = match is_without_device(&why) {
                        true => "; start pf, which loads it: service pf onestart",
                        false => "",
                    };
                    let error = error!(Unavailable, "pfctl -f {path}: {why}{start}");
                    let level = readiness::securelevel(self.host, true)?;
                    return Err(level.into_iter().fold(error, Error::and));
                }
            }
            for value in &values {
                match child::output_of(&self.args.sysctl, &[value], None, self.deadline)? {
                    None => return is_missing(&self.args.sysctl, &format!("set {value}")),
                    Some(Ok(_)) => _ = writeln!(said, "{value}: set"),
                    Some(Err(why)) => return Err(error!(Unavailable, "sysctl {value}: {why}")),
                }
            }
            if !matches!(self.pfctl(&["-s", "info"], None)?, Some(Ok(info)) if info.contains("Status: Enabled")) {
                // the administrator decides when, and may be connected over the network
                said.push_str("  pf is not enabled, and evaluates no packet: service pf onestart\n");
            }
        }
        if values.iter().any(|value| value.starts_with("net.pf.filter_local")) {
            said.push_str(
                "  net.pf.filter_local takes effect when pf is enabled: service pf restart (ends connections)\n",
            );
        }
        Ok(())
    }
}
