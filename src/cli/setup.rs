//! `kport setup`: what pf.conf(5), rc.conf(5) and sysctl.conf(5) need, said or written.
//!
//! sysrc(8) is FreeBSD's word for a line in rc.conf. It writes in place and one variable at a time, and what it changed it does not
//! know later. Here all files change together or none does, and each line that was added is known by its mark.

mod marks;
mod plan;
mod replace;
mod settings;
mod shell;

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Kind, Result};
use crate::host::Host;
use crate::net::Family;
use crate::pf::pfctl::is_without_device;

use super::args::{Global, SetupArgs};
use super::{output, session};
use replace::{Change, Checker, Conf, replace};
use settings::{Format, Later, SYSCTL, Setting, WAN};

/// rc.conf(5), unless another is given.
const RC_CONF: &str = "/etc/rc.conf";
/// sysctl.conf(5), unless another is given.
const SYSCTL_CONF: &str = "/etc/sysctl.conf";
/// sh(1), which checks rc.conf(5).
const SH: &str = "/bin/sh";
/// What is set when rc(8) has loaded pf, beside sysctl.conf: load_kld() of rc.subr(8). By sysctl.conf it would be set before
/// pf is loaded, which is nothing, and once more when pf is enabled, which is too late.
const OF_PF: &str = "sysctl.kld.d/pf.conf";

/// `kport setup`
pub fn run(global: &Global, args: &SetupArgs) -> Result<()> {
    let mut said = String::new();
    let done = session::host(global).and_then(|host| Setup { args, pfctl: &global.pfctl, host: &*host }.run(&mut said));
    // what was written is said, also where something failed later
    output::print(&said)?;
    done
}

struct Setup<'a> {
    args: &'a SetupArgs,
    pfctl: &'a Path,
    host: &'a dyn Host,
}

/// A file, and what comes of it.
struct Part<'a> {
    checker: Option<Checker<'a>>,
    conf: Conf,
    /// Whether it is written at all.
    ours: bool,
    /// What there is to say of it.
    shown: String,
    by_hand: Vec<String>,
    /// What it is to hold.
    made: Vec<u8>,
}

impl<'a> Setup<'a> {
    /// Does it; what there is to say goes into `said`.
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
                let other =
                    if part.ours { "" } else { " (of FreeBSD; --write leaves it alone here unless it is named)" };
                _ = write!(said, "{path}:{other}\n{}", part.shown);
            }
            if !self.args.write {
                let values = self.missing_values()?;
                if !values.is_empty() {
                    _ = writeln!(said, "now:\n  sysctl {}", values.join(" "));
                }
                if !self.args.host_access {
                    said.push_str("--host-access of a publication needs more: kport setup --host-access\n");
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
                    "every file was left as it is, since not all can be written: {}; put the lines there by hand, then again",
                    by_hand.join("; ")
                );
                return Err(Error::new(Kind::Unavailable, why));
            }
        }
        let changes: Vec<Change<'_>> = parts
            .iter()
            .filter(changed)
            .map(|part| Change { checker: part.checker, conf: &part.conf, text: &part.made })
            .collect();
        *said += &replace(&changes, &check)?;
        self.load(said)
    }

    /// The files, and what each needs.
    fn parts(&self) -> Result<Vec<Part<'a>>> {
        let conf = Conf::read(&self.args.pf_conf)?;
        let plan = plan::plan(&conf.text);
        let made = if self.args.undo { plan::undone(&conf.text) } else { plan.applied(&conf.text) };
        let mut parts = vec![Part {
            checker: Some((self.pfctl, &["-n", "-f"])),
            conf,
            ours: true,
            shown: plan.to_string(),
            by_hand: plan.by_hand,
            made,
        }];

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
        parts.push(part);

        let (conf, ours) = file_of(self.args.sysctl_conf.as_deref(), SYSCTL_CONF)?;
        let of_pf = if ours {
            Conf::read(&conf.path.with_file_name(OF_PF))?
        } else {
            Conf::none(conf.path.with_file_name(OF_PF))
        };
        let later = read_later(&conf.path, "sysctl.conf.local", &[])?.into_iter().collect();
        let wanted = self.sysctl_conf(&conf.shown())?;
        parts.push(self.settings(Format::Sysctl, conf, ours, &wanted, later));
        if self.args.host_access || self.args.undo {
            let wanted = [Setting::new("net.pf.filter_local", "1")];
            parts.push(self.settings(Format::Sysctl, of_pf, ours, &wanted, vec![]));
        }
        Ok(parts)
    }

    fn settings(&self, format: Format, conf: Conf, ours: bool, wanted: &[Setting], later: Vec<Later>) -> Part<'a> {
        let plan = settings::plan(format, &conf.shown(), wanted, &later);
        let made = if self.args.undo { settings::undone(format, &conf.text) } else { plan.applied(&conf.text) };
        let checker: Option<Checker<'a>> = match format {
            Format::Rc => Some((Path::new(SH), &["-n"])),
            Format::Sysctl => None,
        };
        Part { checker, conf, ours, shown: plan.to_string(), by_hand: plan.by_hand, made }
    }

    /// What rc.conf(5) needs.
    fn rc_conf(&self, text: &str) -> Result<Vec<Setting>> {
        let mut wanted = vec![Setting::new("pf_enable", "YES"), Setting::new("gateway_enable", "YES")];
        let Some(gateway) = self.host.gateway(Family::Inet6)? else { return Ok(wanted) };
        wanted.push(Setting::new("ipv6_gateway_enable", "YES"));
        let value = |name: &str| settings::value(Format::Rc, text, name).unwrap_or_default();
        let advertised = value(&format!("ifconfig_{}_ipv6", gateway.as_str().replace(['.', '-'], "_")));
        if advertised.contains("accept_rtadv") && matches!(value(WAN).to_ascii_lowercase().as_str(), "" | "no") {
            // a router takes no default route from advertisements (nd6_ra_input() of netinet6/nd6_rtr.c), but from there
            wanted.push(Setting::new(WAN, gateway.as_str()));
        }
        Ok(wanted)
    }

    /// What sysctl.conf(5) needs. That packets are forwarded says rc.conf(5); a line here that says otherwise would win.
    fn sysctl_conf(&self, text: &str) -> Result<Vec<Setting>> {
        let mut wanted = vec![];
        for (name, value) in SYSCTL {
            let is_there = settings::value(Format::Sysctl, text, name).is_some();
            let needs = match name {
                "net.pf.filter_local" => self.args.host_access,
                "net.link.bridge.pfil_member" => {
                    self.args.host_access && (is_there || self.host.sysctl(name)?.is_some_and(|now| now != 0))
                }
                "net.inet6.ip6.forwarding" => is_there && self.host.gateway(Family::Inet6)?.is_some(),
                _ => is_there,
            };
            if needs {
                wanted.push(Setting::new(name, value));
            }
        }
        Ok(wanted)
    }

    /// The values that the kernel does not have.
    fn missing_values(&self) -> Result<Vec<String>> {
        let mut missing = vec![];
        for (name, value) in SYSCTL {
            let needs = match name {
                "net.inet.ip.forwarding" => self.host.gateway(Family::Inet)?.is_some(),
                "net.inet6.ip6.forwarding" => self.host.gateway(Family::Inet6)?.is_some(),
                _ => self.args.host_access,
            };
            if needs && self.host.sysctl(name)?.is_some_and(|now| now.to_string() != value) {
                missing.push(format!("{name}={value}"));
            }
        }
        Ok(missing)
    }

    /// Makes it count now, or says what does.
    fn load(&self, said: &mut String) -> Result<()> {
        let path = fs::canonicalize(&self.args.pf_conf).unwrap_or_else(|_| self.args.pf_conf.clone());
        let path = path.display();
        let values = if self.args.undo { vec![] } else { self.missing_values()? };
        if !self.args.load {
            _ = writeln!(said, "  not loaded: pfctl -f {path}");
            if !values.is_empty() {
                _ = writeln!(said, "  not set: sysctl {}", values.join(" "));
            }
        } else {
            match output_of(self.pfctl, &["-f"], Some(&self.args.pf_conf))? {
                None => {
                    let why = format!("there is no {} to load it with", self.pfctl.display());
                    return Err(Error::new(Kind::Unavailable, why));
                }
                Some(Ok(_)) => _ = writeln!(said, "{path}: loaded"),
                Some(Err(why)) => {
                    // without pf.ko there is no device
                    let start =
                        if is_without_device(&why) { "; start pf, which loads it: service pf onestart" } else { "" };
                    return Err(Error::new(Kind::Unavailable, format!("pfctl -f {path}: {why}{start}")));
                }
            }
            for value in &values {
                match output_of(&self.args.sysctl, &[value], None)? {
                    Some(Ok(_)) => _ = writeln!(said, "{value}: set"),
                    Some(Err(why)) => return Err(Error::new(Kind::Unavailable, format!("sysctl {value}: {why}"))),
                    None => {
                        let why = format!("there is no {} to set {value} with", self.args.sysctl.display());
                        return Err(Error::new(Kind::Unavailable, why));
                    }
                }
            }
            let info = output_of(self.pfctl, &["-s", "info"], None)?;
            if !matches!(info, Some(Ok(info)) if info.contains("Status: Enabled")) {
                // it is the admin's to say when, who may be here over the network
                said.push_str("  pf is not enabled, and looks at no packet: service pf onestart\n");
            }
        }
        if values.iter().any(|value| value.starts_with("net.pf.filter_local")) {
            said.push_str("  net.pf.filter_local counts when pf is enabled: service pf restart (connections end)\n");
        }
        Ok(())
    }
}

/// A new file for the place of another: a word about it, or what is wrong with it.
fn check(change: &Change<'_>, new: &Path) -> Result<String> {
    let Some((program, arguments)) = change.checker else { return Ok(String::new()) };
    match output_of(program, arguments, Some(new))? {
        None => Ok(format!(", not checked: there is no {}", program.display())),
        Some(Ok(_)) => Ok(", checked".to_owned()),
        Some(Err(said)) => {
            let was = match output_of(program, arguments, Some(&change.conf.path))? {
                Some(Err(_)) => "it refuses the file as it is, too: correct that first",
                _ => "nothing was changed",
            };
            let name = program.file_name().unwrap_or_default().display();
            let why = format!("{name} {} refuses it: {said}; {was}", arguments.join(" "));
            Err(Error::new(Kind::Unavailable, why))
        }
    }
}

/// Runs a program, on a file where there is one: nothing where there is no such program, and what it said.
fn output_of(
    program: &Path,
    arguments: &[&str],
    file: Option<&Path>,
) -> Result<Option<std::result::Result<String, String>>> {
    let mut command = Command::new(program);
    command.args(arguments).args(file).env_clear().env("LC_ALL", "C").stdin(Stdio::null());
    match command.output() {
        Ok(output) if output.status.success() => Ok(Some(Ok(String::from_utf8_lossy(&output.stdout).into_owned()))),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = said.lines().take(3).collect();
            Ok(Some(Err(lines.join("; "))))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format_args!("run {}", program.display()), &error)),
    }
}

/// A file that is named, or FreeBSD's; elsewhere FreeBSD's is neither read nor written.
fn file_of(named: Option<&Path>, default: &str) -> Result<(Conf, bool)> {
    match named {
        Some(path) => Ok((Conf::read(path)?, true)),
        None if cfg!(target_os = "freebsd") => Ok((Conf::read(Path::new(default))?, true)),
        None => Ok((Conf::none(PathBuf::from(default)), false)),
    }
}

/// A file beside another that is read behind it, where there is one.
fn read_later(path: &Path, name: &str, only: &'static [&'static str]) -> Result<Option<Later>> {
    let path = path.with_file_name(name);
    match fs::read(&path) {
        Ok(text) => {
            let text = String::from_utf8_lossy(&text).into_owned();
            Ok(Some(Later { path: path.display().to_string(), text, only }))
        }
        // rc.conf.d/NAME may be a directory
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(Error::io(format_args!("read {}", path.display()), &error)),
    }
}
