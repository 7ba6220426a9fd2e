//! The command line.

use std::ffi::OsString;
use std::net::{AddrParseError, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{self, Error, Kind};
use crate::managers::{self, Exports};
use crate::name::JailName;
use crate::net::{Interface, Place, PortRange};
use crate::options::Given;
use crate::publisher::Request;
use crate::spec::{self, Spec};
use crate::trace::{IpProtocol, Release};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::flags::{self, PublishFlags, RuleFlags, heading};

/// The help of SPEC.
const SPEC: &str = "[WHERE:]HOST-PORT[:JAIL-PORT][/PROTOCOL]: 8080:80, em1:53:53/udp; see kport help spec";

/// The exit status for wrong usage: EX_USAGE of sysexits(3).
pub const USAGE: u8 = 64;

/// Publish ports of FreeBSD jails through pf(4).
#[derive(Debug, Parser)]
#[command(name = "kport", version, disable_help_subcommand = true)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Whether an invalid command line is that of a stop hook, which must not fail. `has_stopped` reads the state of the container
/// that `oci-hook` is called for.
pub fn is_stop(line: &[OsString], has_stopped: impl FnOnce() -> bool) -> bool {
    let all = Cli::command();
    let mut words = line.iter().filter_map(|word| word.to_str());
    // another command may have the word as an argument
    match words.find(|word| all.find_subcommand(word).is_some()) {
        Some("unpublish") => line.iter().any(|word| word == "--hook"),
        Some("oci-hook") => has_stopped(),
        _ => false,
    }
}

/// Reads a command line.
pub fn parse(line: &[OsString]) -> Result<Cli, clap::Error> {
    let matched = alone(line).and_then(|command| command.try_get_matches_from(line).ok());
    let read = matched.and_then(|matches| Cli::from_arg_matches(&matches).ok());
    read.map_or_else(|| Cli::try_parse_from(line), Ok)
}

/// The help of a command, or of all; an error for an unknown one.
pub fn help(word: Option<&str>) -> Option<clap::Error> {
    Cli::try_parse_from(["kport"].into_iter().chain(word).chain(["--help"])).err()
}

/// The command of the line without the others, if it is one that hooks call: clap(3) makes the options of all commands that it has,
/// and that takes longer than most calls of pf. What this refuses is read by [`Cli`], which also says why.
fn alone(line: &[OsString]) -> Option<clap::Command> {
    let command = |word: &OsString| {
        let (name, arguments): (_, fn(clap::Command) -> clap::Command) = match word.to_str()? {
            "publish" => ("publish", PublishArgs::augment_args),
            "unpublish" => ("unpublish", UnpublishArgs::augment_args),
            "apply" => ("apply", ApplyArgs::augment_args),
            "list" => ("list", ListArgs::augment_args),
            _ => return None,
        };
        Some(arguments(clap::Command::new(name)))
    };
    let command = line.iter().skip(1).find_map(command)?;
    let kport = clap::Command::new("kport").version("").disable_help_flag(true).disable_version_flag(true);
    Some(Global::augment_args(kport).subcommand(command))
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = heading::ALL)]
pub struct Global {
    /// How to drive pf: auto, native (/dev/pf), pfctl or sim (redirects nothing) [default: auto]
    #[arg(long, global = true, value_name = "NAME")]
    pub backend: Option<crate::session::Backend>,
    /// The directory of the lock and the records [default: /var/run/kport]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// The pfctl(8) to run
    #[arg(long, global = true, value_name = "PROGRAM", default_value = crate::pf::pfctl::PROGRAM)]
    pub pfctl: PathBuf,
    /// The kport.conf(5) [default: /usr/local/etc/kport.conf]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Use the host that this JSON file describes (changes need --backend sim)
    #[arg(long, global = true, value_name = "FILE")]
    pub host: Option<PathBuf>,
    /// The maximum time that a command may take
    #[arg(long, global = true, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub timeout: Duration,
    /// Report each step, and pfctl(8)'s input and output; twice: also the host
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Print errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version)]
    pub version: Option<bool>,
    /// Print the options of a command
    #[arg(short, long, global = true, action = ArgAction::Help)]
    pub help: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check specs, and print them with every field
    Parse {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[arg(required = true, value_name = "SPEC", help = SPEC)]
        specs: Vec<String>,
    },
    /// Print the rules that would be loaded, as pf.conf(5) text; change nothing
    #[command(mut_arg("jail", |arg| arg.required(true)), mut_arg("specs", |arg| arg.required(true)))]
    Rules(RequestArgs),
    /// Publish all ports of a jail, or none; they replace those published before
    Publish(PublishArgs),
    /// Remove the ports of a jail, if it has any, and end their connections
    Unpublish(UnpublishArgs),
    /// Make what is published what kport.conf and the running jails say
    // what pf lost is loaded, and what jails that are gone left is removed: these were verbs in previews of 0.1.0
    #[command(aliases = ["restore", "gc"])]
    Apply(ApplyArgs),
    /// Keep what is published true while jails come, go and change; for rc.d and daemon(8)
    Watch {
        /// Print a JSON document for each report, one a line
        #[arg(long)]
        json: bool,
    },
    /// Check kport.conf: its lines, conflicts between jails, what the host lacks
    Check {
        /// The file [default: that of --config]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Show what is published, and whether pf has it
    List(ListArgs),
    /// Print a packet's path through pf, rule by rule; status 5 if it does not arrive
    Trace(Question),
    /// Check the possible causes of a dead port, and print what fixes them
    Doctor(DoctorArgs),
    /// Run as a hook of an OCI runtime: publish the ports in the annotations
    #[command(alias = "kport-oci-hook")]
    OciHook(OciHookArgs),
    /// Run as a CNI plugin, in place of portmap: for podman, see kport-cni(8)
    Cni,
    /// Print the lines that pf.conf, rc.conf, sysctl.conf need; --write adds them
    Setup(SetupArgs),
    /// Print the ports that another jail manager has published, as commands of kport
    Import(ImportArgs),
    /// Print OpenMetrics text: the traffic of each mapping, and whether it is live
    Metrics,
    /// Print the completions for a shell
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Show a command's options; kport help spec: port specs; kport help pf: pf.conf
    Help {
        /// A command, or one of the topics spec and pf
        #[arg(value_name = "COMMAND|spec|pf")]
        word: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct OciHookArgs {
    /// Ports of the host that a container may have: those that need no privilege
    #[arg(long, value_name = "LOW-HIGH", default_value = "1024-65535")]
    pub allow_ports: Vec<PortRange>,
    /// A place that a container may name: em1, 192.0.2.7 or "*" [default: none]
    #[arg(long, value_name = "PLACE")]
    pub allow_place: Vec<Place>,
}

#[derive(Debug, Args)]
#[command(mut_arg("jail", |arg| arg.required_unless_present("hook")))]
#[command(mut_arg("specs", |arg| arg.required_unless_present_any(["hook", "kleene"]).conflicts_with("kleene")))]
pub struct PublishArgs {
    #[command(flatten)]
    pub request: RequestArgs,
    #[command(flatten)]
    pub options: PublishFlags,
    /// Kleene's records in place of SPEC: a JSON file, or - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "hook", help_heading = heading::PORTS)]
    pub kleene: Option<PathBuf>,
    /// Run as a hook: the manager names the jail, and JAIL may be omitted; without SPEC, publish the jail's lines of kport.conf
    #[arg(long, help_heading = heading::HOOK)]
    pub hook: bool,
    /// The jid, so that a late stop hook of an earlier start cannot undo this
    #[arg(long, value_name = "JID", help_heading = heading::HOOK)]
    pub jid: Option<i32>,
    /// The state of a container of an OCI runtime, which names the jail: a JSON file, or - for standard input
    #[arg(long, value_name = "FILE", requires = "hook", help_heading = heading::HOOK)]
    pub state: Option<PathBuf>,
    /// Check the ports and pf, and change nothing; the jail need not exist yet (exec.prepare)
    #[arg(long, help_heading = heading::HOOK, conflicts_with = "json")]
    pub dry_run: bool,
    /// Print one JSON document: what is published, and which ports were chosen
    #[arg(long, help_heading = heading::OUTPUT)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct UnpublishArgs {
    /// The jail's name, as for publish: web
    #[arg(value_name = "JAIL", required_unless_present = "hook")]
    pub jail: Option<JailName>,
    /// Only these ports, as they were published: 8080:80 [default: all ports of the jail]
    #[arg(value_name = "SPEC")]
    pub specs: Vec<String>,
    /// Only the ports that were published for this jid
    #[arg(long, value_name = "JID", help_heading = heading::HOOK)]
    pub jid: Option<i32>,
    /// Run as a hook: a failure is reported, also to syslogd(8), and the status is 0
    #[arg(long, help_heading = heading::HOOK)]
    pub hook: bool,
    /// The state of a container of an OCI runtime, which names the jail: a JSON file, or - for standard input
    #[arg(long, value_name = "FILE", requires = "hook", help_heading = heading::HOOK)]
    pub state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Print the difference as commands, and change nothing
    #[arg(long, conflicts_with = "json")]
    pub dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Only these jails [default: all]
    #[arg(value_name = "JAIL")]
    pub jails: Vec<JailName>,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only this jail: web [default: all]
    #[arg(value_name = "JAIL")]
    pub jail: Option<JailName>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Print the traffic per second of each mapping, until interrupted
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
    /// The time between two tables of --watch
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval, requires = "watch")]
    pub interval: Duration,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Create a jail, publish, connect, unpublish (FreeBSD: as root; else simulated)
    #[arg(long, conflicts_with = "json")]
    pub self_test: bool,
    /// Use this pf.conf(5) as the main ruleset, instead of the loaded one
    #[arg(long, value_name = "FILE", conflicts_with = "self_test")]
    pub pf_conf: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct SetupArgs {
    /// Add the lines to all files, or to none; keep copies, and check the files with pfctl(8) and sh(1)
    #[arg(long, conflicts_with = "undo")]
    pub write: bool,
    /// Remove the lines that --write has added
    #[arg(long)]
    pub undo: bool,
    /// Judge the pf.conf that is there; status 5 if published ports open or change what they must not
    #[arg(long, conflicts_with_all = ["write", "undo", "load"])]
    pub check: bool,
    /// Load pf.conf afterwards, and set the missing sysctl(8) variables; does not enable pf
    #[arg(long)]
    pub load: bool,
    /// Also the lines that --host-access of publish needs
    #[arg(long)]
    pub host_access: bool,
    /// The pf.conf(5)
    #[arg(long, value_name = "FILE", default_value = "/etc/pf.conf")]
    pub pf_conf: PathBuf,
    /// The rc.conf(5) [default: /etc/rc.conf on FreeBSD]
    #[arg(long, value_name = "FILE")]
    pub rc_conf: Option<PathBuf>,
    /// The sysctl.conf(5), with sysctl.kld.d/pf.conf in its directory [default: /etc/sysctl.conf on FreeBSD]
    #[arg(long, value_name = "FILE")]
    pub sysctl_conf: Option<PathBuf>,
    /// The sysctl(8) to run
    #[arg(long, value_name = "PROGRAM", default_value = "/sbin/sysctl")]
    pub sysctl: PathBuf,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Print lines of kport.conf instead of commands
    #[arg(long = "lines", conflicts_with = "publish")]
    pub lines: bool,
    /// Publish the ports, with one transaction for each jail, instead of printing
    #[arg(long)]
    pub publish: bool,
    /// The jail [default: from the path or the file]
    #[arg(short, long, value_name = "JAIL")]
    pub jail: Option<JailName>,
    /// The manager of the files
    #[arg(value_name = "MANAGER", value_parser = exports())]
    pub manager: Exports,
    /// Files of the manager; - for standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// The packet to trace, and the ruleset.
#[derive(Debug, Args)]
pub struct Question {
    /// The interface on which the packet arrives [default: that of the route to SRC]
    // `--from` in previews of 0.1.0
    #[arg(long, alias = "from", value_name = "IF")]
    pub on: Option<Interface>,
    /// Evaluate like the pf of this release [default: that of this kernel, or 15]
    #[arg(long, value_name = "14|15", value_parser = release)]
    pub release: Option<Release>,
    /// Use this pf.conf(5) as the main ruleset, instead of the loaded one
    #[arg(long, value_name = "FILE")]
    pub pf_conf: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// tcp, udp, sctp, icmp or icmp6
    #[arg(value_name = "PROTO", value_parser = protocol)]
    pub protocol: IpProtocol,
    /// The source: 192.0.2.100, 192.0.2.100:40000, [2001:db8::7]:40000, or a jail
    #[arg(value_name = "SRC")]
    pub source: String,
    /// The destination: 192.0.2.1:8080 or [2001:db8::1]:8080; for ICMP only the address
    #[arg(value_name = "DST", value_parser = endpoint)]
    pub destination: Endpoint,
    /// The type of an ICMP packet, as named in pf.conf(5) [default: echoreq]
    #[arg(long, value_name = "TYPE")]
    pub icmp_type: Option<String>,
}

fn protocol(text: &str) -> Result<IpProtocol, &'static str> {
    let is_traced = |p: &IpProtocol| p.with_ports().is_some() || [IpProtocol::ICMP, IpProtocol::ICMP6].contains(p);
    text.parse().ok().filter(is_traced).ok_or("there are tcp, udp, sctp, icmp, icmp6")
}

/// An address, and whether it has a port: ICMP has none.
pub type Endpoint = (SocketAddr, bool);

pub fn endpoint(text: &str) -> Result<Endpoint, AddrParseError> {
    let with_port = text.parse().map(|at| (at, true));
    with_port.or_else(|_| text.parse().map(|address| (SocketAddr::new(address, 0), false)))
}

fn release(text: &str) -> Result<Release, String> {
    let known = [Release::V14, Release::V15].into_iter().find(|release| release.number().to_string() == text);
    known.ok_or_else(|| "14 or 15".to_owned())
}

/// What to publish.
#[derive(Clone, Debug, Args)]
pub struct RequestArgs {
    /// The jail's name, as jls(8) prints it: web
    // a hook may omit it, and clap takes the first SPEC as JAIL then
    #[arg(value_name = "JAIL")]
    pub jail: Option<JailName>,
    #[arg(value_name = "SPEC", help = SPEC)]
    pub specs: Vec<String>,
    #[command(flatten)]
    pub options: RuleFlags,
    /// An address of the jail, the preferred one first [default: from the kernel]
    #[arg(short, long = "address", value_name = "ADDRESS", help_heading = heading::JAIL)]
    pub addresses: Vec<String>,
}

impl RequestArgs {
    pub fn request(&self) -> error::Result<Request> {
        self.request_for(spec::parse(&self.specs.join(" "))?)
    }

    pub fn request_for(&self, spec: Spec) -> error::Result<Request> {
        let jail = self.jail.clone().ok_or_else(|| Error::new(Kind::Argument, "name the jail"))?;
        let mut request = Request::new(jail, spec);
        flags::set(&mut request, "address", &Given::List(self.addresses.clone()))?;
        self.options.set(&mut request)?;
        Ok(request)
    }
}

impl Cli {
    /// The flags that take a value: `--rate`, `-a`.
    pub fn flags_with_values() -> Vec<String> {
        let mut all = Cli::command();
        // copies the global flags to the commands
        all.build();
        let arguments = all.get_subcommands().flat_map(clap::Command::get_arguments);
        let mut flags = vec![];
        for arg in arguments.filter(|arg| arg.get_action().takes_values()) {
            let long = arg.get_long().into_iter().chain(arg.get_all_aliases().unwrap_or_default());
            flags.extend(arg.get_short().map(|short| format!("-{short}")));
            flags.extend(long.map(|long| format!("--{long}")));
        }
        flags
    }
}

/// The managers that publish ports by themselves, by name.
fn exports() -> impl TypedValueParser<Value = Exports> {
    let known = || managers::ALL.into_iter().filter_map(|manager| Some((manager.name, manager.exports?)));
    let words = known().map(|(name, exports)| PossibleValue::new(name).help(exports.files));
    PossibleValuesParser::new(words).try_map(move |word| {
        known().find(|(name, _)| *name == word).map(|(_, exports)| exports).ok_or("unknown manager")
    })
}

fn interval(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("must be greater than 0".to_owned()),
        interval => Ok(interval),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}
