//! `kport setup`: prints or writes the lines that pf.conf(5), rc.conf(5) and sysctl.conf(5) need.
//!
//! sysrc(8), FreeBSD's tool for rc.conf, writes in place, one variable at a time, and cannot undo its changes. Here all files change
//! or none does, and each added line has a mark.

mod marks;
mod plan;
mod replace;
mod settings;
mod shell;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::child;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::host::Host;
use crate::net::{Family, is_link_local6};
use crate::pf::pfctl::is_without_device;
use crate::readiness::{self, MainRuleset, Surroundings};
use crate::{pfconf, proof};

use super::args::{Global, SetupArgs};
use super::{output, session};
use plan::{Ground, Plan, Turned};
use replace::{Change, Checker, ConfFile, replace};
use settings::{Format, Later, SYSCTL, Variable, WAN};

/// rc.conf(5), unless another is given.
const RC_CONF: &str = "/etc/rc.conf";
/// sysctl.conf(5), unless another is given.
const SYSCTL_CONF: &str = "/etc/sysctl.conf";
/// sh(1), which checks rc.conf(5).
const SH: &str = "/bin/sh";
/// Variables that rc(8) sets when it has loaded pf, in the directory of sysctl.conf: load_kld() of rc.subr(8). sysctl.conf is read
/// before pf is loaded, when they do not exist, and again after pf is enabled, which is too late.
const OF_PF: &str = "sysctl.kld.d/pf.conf";

/// Whether pf filters on the members of bridges (if_bridge(4)).
const PFIL_MEMBER: &str = "net.link.bridge.pfil_member";

/// `kport setup`
pub fn run(global: &Global, args: &SetupArgs) -> Result<()> {
    let mut said = String::new();
    let deadline = Deadline::after(global.timeout);
    let done = session::host(global).and_then(|host| {
        let setup = Setup { args, global, pfctl: &global.pfctl, host: &*host, deadline };
        if args.check { setup.check(&mut said) } else { setup.run(&mut said) }
    });
    // what was written is reported, even if a later step failed
    output::print(&said)?;
    done
}

struct Setup<'a> {
    args: &'a SetupArgs,
    global: &'a Global,
    pfctl: &'a Path,
    host: &'a dyn Host,
    deadline: Deadline,
}

/// A file, and its plan.
struct Part<'a> {
    checker: Option<Checker<'a>>,
    conf: ConfFile,
    /// Whether it is written.
    ours: bool,
    /// The text to print about it.
    shown: String,
    by_hand: Vec<String>,
    /// Whether pfctl(8) loads it: pf.conf, and what it includes.
    loads: bool,
    /// Its new contents.
    made: Vec<u8>,
}

impl Part<'_> {
    /// What the file is to have; `None` if kport has created it and nothing else is in it.
    fn contents(&self, undo: bool) -> Option<&[u8]> {
        (!undo || !self.made.is_empty() || !marks::has_file(&self.conf.text)).then_some(&self.made)
    }
}

/// The new contents of a file with kport's lines.
fn with_lines(conf: &ConfFile, made: Vec<u8>) -> Vec<u8> {
    if conf.exists() { made } else { marks::with_file(made) }
}

impl<'a> Setup<'a> {
    /// Writes the files; adds the output to `said`.
    fn run(&self, said: &mut String) -> Result<()> {
        let parts = self.parts()?;
        let changed = |part: &&Part<'_>| part.ours && part.made != part.conf.text;
        if self.args.undo {
            for part in parts.iter().filter(|part| part.ours && part.made == part.conf.text) {
                _ = writeln!(said, "{}: has no line of kport setup", part.conf.path.display());
            }
        } else {
            for part in &parts {
                let path = part.conf.path.display();
                let other = if part.ours {
                    ""
                } else {
                    " (of FreeBSD; --write does not change it on this system unless it is named)"
                };
                _ = write!(said, "{path}:{other}\n{}", part.shown);
            }
            // what is to be loaded is checked by loading it
            if parts[0].conf.exists() && !changed(&&parts[0]) && !self.args.load {
                self.check_loads(&parts[0].conf.path)?;
            }
            if !self.args.write {
                let values = self.missing_values()?;
                // the files count at the next boot
                let mut now = vec![];
                if parts[0].made == parts[0].conf.text && !self.is_loaded() {
                    now.push(format!("pfctl -f {}", self.args.pf_conf.display()));
                }
                if !values.is_empty() {
                    now.push(format!("sysctl {}", values.join(" ")));
                }
                if !now.is_empty() {
                    _ = writeln!(said, "now:\n  {}", now.join("\n  "));
                }
                if !self.args.host_access {
                    said.push_str("for publish --host-access, run kport setup --host-access\n");
                }
                return Ok(());
            }
            let by_hand: Vec<String> = parts
                .iter()
                .filter(|part| part.ours && !part.by_hand.is_empty())
                .map(|part| format!("{}: {}", part.conf.path.display(), part.by_hand.join("; ")))
                .collect();
            if !by_hand.is_empty() {
                let why = format!(
                    "no file was changed, since not all can be written: {}; add these lines by hand, and run it again",
                    by_hand.join("; ")
                );
                return Err(Error::new(Kind::Unavailable, why));
            }
        }
        let changes: Vec<Change<'_>> = parts
            .iter()
            .filter(changed)
            .map(|part| Change { checker: part.checker, conf: &part.conf, text: part.contents(self.args.undo) })
            .collect();
        *said += &replace(&changes, self.deadline, &|change, new| check(change, new, self.deadline))?;
        self.load(parts.iter().filter(changed).any(|part| part.loads), said)
    }

    /// Fails if pfctl(8) rejects a file that has kport's lines.
    fn check_loads(&self, path: &Path) -> Result<()> {
        match child::output_of(self.pfctl, &["-n", "-f"], Some(path), self.deadline)? {
            Some(Err(why)) if !is_without_device(&why) => {
                let what = format!("pfctl -n -f {}: {why}; correct that first; nothing was changed", path.display());
                Err(Error::new(Kind::Unavailable, what))
            }
            _ => Ok(()),
        }
    }

    /// Judges the pf.conf that is there.
    fn check(&self, said: &mut String) -> Result<()> {
        let conf = ConfFile::read(&self.args.pf_conf)?;
        let path = conf.path.display();
        let missing = readiness::missing(&conf.path, &conf.text);
        if !missing.is_empty() {
            let why = format!("{path} does not have {}; run kport setup", missing.join(" and "));
            return Err(Error::new(Kind::Unavailable, why));
        }
        let checked = plan::check(&Ground { host: self.host, name: &conf.path }, &conf.text)?;
        let plan::Checked { proof, no_quick, better } = &checked;
        _ = write!(said, "{path}:\n{}", plan::shown(proof, no_quick.as_deref(), better.as_deref()));
        for wildcard in readiness::wildcards(&conf.path, &conf.text) {
            let readiness::Wildcard { file, line, .. } = wildcard;
            _ = writeln!(
                said,
                "  note: {file}: line {line} calls \"kport/*\", so each new connection is compared with the rules of every jail: kport setup"
            );
        }
        match proof.failures().count() {
            0 => Ok(()),
            1 => Err(Error::new(Kind::Unavailable, format!("{path}: one of the three sentences fails"))),
            n => Err(Error::new(Kind::Unavailable, format!("{path}: {n} of the three sentences fail"))),
        }
    }

    /// The files, each with its plan.
    fn parts(&self) -> Result<Vec<Part<'a>>> {
        let conf = ConfFile::read(&self.args.pf_conf)?;
        let mut plan = match self.args.undo {
            true => Plan::default(),
            false => plan::plan(&Ground { host: self.host, name: &conf.path }, &conf.text)?,
        };
        if plan.proof.is_some() {
            plan.notes.extend(self.neighbours(&conf, &plan)?);
        }
        let made = if self.args.undo { plan::undone(&conf.text) } else { with_lines(&conf, plan.applied(&conf.text)) };
        let mut parts = vec![Part {
            checker: Some((self.pfctl, &["-n", "-f"])),
            conf,
            ours: true,
            shown: plan.to_string(),
            by_hand: plan.by_hand,
            loads: true,
            made,
        }];
        parts.extend(self.included(&parts[0].conf)?);

        let (conf, ours) = file_of(self.args.rc_conf.as_deref(), RC_CONF)?;
        let later = [
            read_later(&conf.path, "rc.conf.local", &[])?,
            read_later(&conf.path, "rc.conf.d/pf", &["pf_enable"])?,
            read_later(&conf.path, "rc.conf.d/routing", &["gateway_enable", "ipv6_gateway_enable"])?,
        ];
        let wanted = self.rc_conf(&conf.shown())?;
        let mut part = self.settings(Format::Rc, conf, ours, &wanted, later.into_iter().flatten().collect());
        let rules = settings::value(Format::Rc, &part.conf.shown(), "pf_rules");
        if let Some(rules) = rules.filter(|rules| Path::new(rules) != self.args.pf_conf) {
            _ = writeln!(part.shown, "  note: pf_rules is {rules:?}, which rc(8) loads: kport setup --pf-conf {rules}");
        }
        for other in readiness::other_firewalls(|name| settings::value(Format::Rc, &part.conf.shown(), name)) {
            _ = writeln!(part.shown, "  note: {other}");
        }
        parts.push(part);

        let (conf, ours) = file_of(self.args.sysctl_conf.as_deref(), SYSCTL_CONF)?;
        let of_pf = if ours {
            ConfFile::read(&conf.path.with_file_name(OF_PF))?
        } else {
            ConfFile::none(conf.path.with_file_name(OF_PF))
        };
        let later = read_later(&conf.path, "sysctl.conf.local", &[])?.into_iter().collect();
        let wanted = self.sysctl_conf(&conf.shown())?;
        let member = settings::value(Format::Sysctl, &conf.shown(), PFIL_MEMBER);
        let mut part = self.settings(Format::Sysctl, conf, ours, &wanted, later);
        if !self.args.host_access && member.is_some_and(|value| value != "0") {
            let why = "pf filters on members of bridges, where --hairpin and --host-access do not work";
            _ = writeln!(part.shown, "  note: {PFIL_MEMBER} is not 0: {why}");
        }
        parts.push(part);
        if self.args.host_access || self.args.undo {
            let wanted = [Variable::new("net.pf.filter_local", "1")];
            parts.push(self.settings(Format::Sysctl, of_pf, ours, &wanted, vec![]));
        }
        Ok(parts)
    }

    /// Rules that block IPv6 neighbour discovery, of which publish will have a note.
    fn neighbours(&self, conf: &ConfFile, plan: &Plan) -> Result<Vec<String>> {
        let Some(proof) = &plan.proof else { return Ok(vec![]) };
        let of_inet6 = proof.reached.iter().map(|(entrance, _)| entrance).filter(|e| e.family() == Family::Inet6);
        let publications: Vec<_> =
            of_inet6.map(|entrance| proof::publication(entrance, true)).collect::<Result<_>>()?;
        if publications.is_empty() {
            return Ok(vec![]);
        }
        let interfaces = self.host.interfaces()?;
        let main = pfconf::Conf::of_named(&conf.path, &plan.applied(&conf.text))?;
        let main = Arc::new(main);
        let around = Surroundings { host: self.host, interfaces: interfaces.into() };
        let main = MainRuleset::new(around, None, || Ok(vec![(String::new(), main.clone())]))?;
        let problems = readiness::neighbour_discovery(&main, &publications)?;
        Ok(problems.iter().map(ToString::to_string).collect())
    }

    /// Whether publish needs IPv6 forwarding: a jail gets an address of each family of its network.
    fn has_inet6(&self) -> Result<bool> {
        let usable = |network: &ipnet::IpNet| match network.addr() {
            IpAddr::V6(v6) => !v6.is_loopback() && !is_link_local6(v6),
            IpAddr::V4(_) => false,
        };
        let network = self.host.interfaces()?.iter().flat_map(|interface| &interface.addresses).any(usable);
        Ok(network || self.host.gateway(Family::Inet6)?.is_some())
    }

    fn settings(&self, format: Format, conf: ConfFile, ours: bool, wanted: &[Variable], later: Vec<Later>) -> Part<'a> {
        let plan = settings::plan(format, &conf.shown(), wanted, &later);
        let made = match self.args.undo {
            true => settings::undone(format, &conf.text),
            false => with_lines(&conf, plan.applied(&conf.text)),
        };
        let checker: Option<Checker<'a>> = match format {
            Format::Rc => Some((Path::new(SH), &["-n"])),
            Format::Sysctl => None,
        };
        Part { checker, conf, ours, shown: plan.to_string(), by_hand: plan.by_hand, loads: false, made }
    }

    /// The files that pf.conf includes, and that have calls by wildcard, or had them before an earlier setup.
    fn included(&self, main: &ConfFile) -> Result<Vec<Part<'a>>> {
        let outline = pfconf::Outline::of_file(&main.path, &main.text);
        let wildcards = readiness::wildcards(&main.path, &main.text);
        let name = main.path.display().to_string();
        let others: BTreeSet<&str> =
            outline.statements.iter().map(|of| &*of.file).filter(|file| *file != name).collect();
        let mut parts = vec![];
        for file in others {
            let conf = ConfFile::read(Path::new(file))?;
            let (shown, made) = match Turned::new(file, &conf.text, &wildcards) {
                _ if self.args.undo => (String::new(), marks::turned_back(&conf.text)),
                None => continue,
                Some(Ok(turned)) => (turned.to_string(), turned.text),
                Some(Err(why)) => (format!("  note: {why}\n"), conf.text.clone()),
            };
            // an undo has nothing to say of a file that setup did not change
            if !(self.args.undo && made == conf.text) {
                parts.push(Part { checker: None, conf, ours: true, shown, by_hand: vec![], loads: true, made });
            }
        }
        Ok(parts)
    }

    /// The plan for rc.conf(5).
    fn rc_conf(&self, text: &str) -> Result<Vec<Variable>> {
        let mut wanted = vec![Variable::new("pf_enable", "YES"), Variable::new("gateway_enable", "YES")];
        if !self.has_inet6()? {
            return Ok(wanted);
        }
        wanted.push(Variable::new("ipv6_gateway_enable", "YES"));
        let Some(gateway) = self.host.gateway(Family::Inet6)? else { return Ok(wanted) };
        let value = |name: &str| settings::value(Format::Rc, text, name).unwrap_or_default();
        let advertised = value(&format!("ifconfig_{}_ipv6", gateway.as_str().replace(['.', '-'], "_")));
        if advertised.contains("accept_rtadv") && matches!(value(WAN).to_ascii_lowercase().as_str(), "" | "no") {
            // a router accepts a default route from advertisements (nd6_ra_input() of netinet6/nd6_rtr.c) only on this interface
            wanted.push(Variable::new(WAN, gateway.as_str()));
        }
        Ok(wanted)
    }

    /// The plan for sysctl.conf(5). rc.conf(5) enables forwarding; a line here that disables it would win.
    fn sysctl_conf(&self, text: &str) -> Result<Vec<Variable>> {
        let mut wanted = vec![];
        for (name, value) in SYSCTL {
            let is_there = settings::value(Format::Sysctl, text, name).is_some();
            let needs = match name {
                "net.pf.filter_local" => self.args.host_access,
                PFIL_MEMBER => {
                    self.args.host_access && (is_there || self.host.sysctl(name)?.is_some_and(|now| now != 0))
                }
                "net.inet6.ip6.forwarding" => is_there && self.has_inet6()?,
                _ => is_there,
            };
            if needs {
                wanted.push(Variable::new(name, value));
            }
        }
        Ok(wanted)
    }

    /// The values that are not set in the kernel.
    fn missing_values(&self) -> Result<Vec<String>> {
        let mut missing = vec![];
        for (name, value) in SYSCTL {
            let needs = match name {
                "net.inet.ip.forwarding" => self.host.gateway(Family::Inet)?.is_some(),
                "net.inet6.ip6.forwarding" => self.has_inet6()?,
                _ => self.args.host_access,
            };
            if needs && self.host.sysctl(name)?.is_some_and(|now| now.to_string() != value) {
                missing.push(format!("{name}={value}"));
            }
        }
        Ok(missing)
    }

    /// Whether the loaded main ruleset calls kport's anchors; false if that is unknown.
    fn is_loaded(&self) -> bool {
        let status = session::any_session(self.global).and_then(|session| session.firewall.status());
        status.is_ok_and(|status| status.nat_anchor && status.rdr_anchor && status.anchor)
    }

    /// Loads the rules and sets the variables, or prints the commands for it.
    fn load(&self, rules_changed: bool, said: &mut String) -> Result<()> {
        let path = fs::canonicalize(&self.args.pf_conf).unwrap_or_else(|_| self.args.pf_conf.clone());
        let path = path.display();
        let values = if self.args.undo { vec![] } else { self.missing_values()? };
        if !self.args.load {
            if rules_changed || self.is_loaded() == self.args.undo {
                _ = writeln!(said, "  not loaded: pfctl -f {path}");
            }
            if !values.is_empty() {
                _ = writeln!(said, "  not set: sysctl {}", values.join(" "));
            }
        } else {
            match child::output_of(self.pfctl, &["-f"], Some(&self.args.pf_conf), self.deadline)? {
                None => {
                    let why = format!("there is no {} to load it with", self.pfctl.display());
                    return Err(Error::new(Kind::Unavailable, why));
                }
                Some(Ok(_)) => _ = writeln!(said, "{path}: loaded"),
                Some(Err(why)) => {
                    // without pf.ko there is no device
                    let start =
                        if is_without_device(&why) { "; start pf, which loads it: service pf onestart" } else { "" };
                    let error = Error::new(Kind::Unavailable, format!("pfctl -f {path}: {why}{start}"));
                    let level = readiness::securelevel(self.host, true)?;
                    return Err(level.into_iter().fold(error, Error::and));
                }
            }
            for value in &values {
                match child::output_of(&self.args.sysctl, &[value], None, self.deadline)? {
                    Some(Ok(_)) => _ = writeln!(said, "{value}: set"),
                    Some(Err(why)) => return Err(Error::new(Kind::Unavailable, format!("sysctl {value}: {why}"))),
                    None => {
                        let why = format!("there is no {} to set {value} with", self.args.sysctl.display());
                        return Err(Error::new(Kind::Unavailable, why));
                    }
                }
            }
            let info = child::output_of(self.pfctl, &["-s", "info"], None, self.deadline)?;
            if !matches!(info, Some(Ok(info)) if info.contains("Status: Enabled")) {
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

/// Checks a new file that is to replace another: a remark for the output, or the error.
fn check(change: &Change<'_>, new: &Path, deadline: Deadline) -> Result<String> {
    let Some((program, arguments)) = change.checker else { return Ok(String::new()) };
    match child::output_of(program, arguments, Some(new), deadline)? {
        None => Ok(format!(", not checked: there is no {}", program.display())),
        Some(Ok(_)) => Ok(", checked".to_owned()),
        Some(Err(said)) => {
            let was = match child::output_of(program, arguments, Some(&change.conf.path), deadline)? {
                Some(Err(_)) => "it also rejects the present file; correct that first",
                _ => "nothing was changed",
            };
            let name = program.file_name().unwrap_or_default().display();
            let why = format!("{name} {} rejects it: {said}; {was}", arguments.join(" "));
            Err(Error::new(Kind::Unavailable, why))
        }
    }
}

/// The given file, or FreeBSD's; on other systems FreeBSD's is neither read nor written.
fn file_of(named: Option<&Path>, default: &str) -> Result<(ConfFile, bool)> {
    match named {
        Some(path) => Ok((ConfFile::read(path)?, true)),
        None if cfg!(target_os = "freebsd") => Ok((ConfFile::read(Path::new(default))?, true)),
        None => Ok((ConfFile::none(PathBuf::from(default)), false)),
    }
}

/// A file in the directory of another that is read after it, if there is one.
fn read_later(path: &Path, name: &str, only: &'static [&'static str]) -> Result<Option<Later>> {
    let path = path.with_file_name(name);
    // rc.conf.d/NAME may be a directory
    if !path.exists() || path.is_dir() {
        return Ok(None);
    }
    let conf = ConfFile::read(&path)?;
    Ok(Some(Later { path: path.display().to_string(), text: conf.shown().into_owned(), only }))
}
