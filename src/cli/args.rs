//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::managers::{self, Exports};
use crate::name::JailName;
use crate::net::{Interface, Protocol};
use crate::session::Backend;
use crate::trace::{IpProtocol, Release};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use super::flags::{PublishFlags, RuleFlags, heading};
use super::{help, hook};

/// What a SPEC is, in a line.
const SPEC: &str = "[WHERE:]HOST-PORT[:JAIL-PORT][/PROTOCOL]: 8080:80, em1:53:53/udp; see kport help spec";

/// The exit status for wrong usage: EX_USAGE of sysexits(3).
pub const USAGE: u8 = 64;

/// Publish ports of FreeBSD jails through pf(4).
#[derive(Debug, Parser)]
#[command(name = "kport", version, disable_help_subcommand = true)]
#[command(disable_help_flag = true, arg = help_flag(), disable_version_flag = true, arg = version_flag())]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// clap's own, among the other options of all commands.
fn help_flag() -> Arg {
    let flag = Arg::new("help").short('h').long("help").action(ArgAction::Help).global(true);
    flag.help("Print the options of a command").help_heading(heading::ALL).display_order(usize::MAX)
}

fn version_flag() -> Arg {
    let flag = Arg::new("version").short('V').long("version").action(ArgAction::Version);
    flag.help("Print the version").help_heading(heading::ALL)
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = heading::ALL)]
pub struct Global {
    /// How to drive pf: auto, native (/dev/pf), pfctl or sim (redirects nothing) [default: auto]
    #[arg(long, global = true, value_name = "NAME")]
    pub backend: Option<Backend>,
    /// Where the lock and the record are [default: /var/run/kport]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// The pfctl(8) to run
    #[arg(long, global = true, value_name = "PROGRAM", default_value = crate::pf::pfctl::PROGRAM)]
    pub pfctl: PathBuf,
    /// Play the host that this JSON file describes (changes need the backend sim)
    #[arg(long, global = true, value_name = "FILE")]
    pub host: Option<PathBuf>,
    /// How long a command may take
    #[arg(long, global = true, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub timeout: Duration,
    /// Say what is done, and what pfctl(8) is given and answers; twice: the host, too
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check port specs and print them written out
    Parse(ParseArgs),
    /// Print the rules that would be loaded, as pf.conf(5) text; touch nothing
    Rules(RequestArgs),
    /// Publish a jail's ports: all of them or none, in place of what it had published
    Publish(PublishArgs),
    /// Remove a jail's ports from pf and end their connections; nothing published is fine
    Unpublish(UnpublishArgs),
    /// What is published, and whether pf has it
    List(ListArgs),
    /// Print a packet's way through pf, rule by rule; status 5 if it does not arrive
    Trace(Question),
    /// Load again what a flush of kport's anchors lost
    Restore(JsonArgs),
    /// Say why a published port could be dead, and what fixes it
    Doctor(DoctorArgs),
    /// Called by an OCI runtime: do what a container's annotations say
    #[command(alias = "kport-oci-hook")]
    OciHook,
    /// Answer as a CNI plugin, in the place of portmap: for podman, see kport-cni(8)
    Cni,
    /// Say which lines pf.conf, rc.conf and sysctl.conf need; --write puts them there
    Setup(SetupArgs),
    /// Print what another jail manager has published as kport's commands
    Import(ImportArgs),
    /// Drop what belongs to jails that are gone
    Gc(JsonArgs),
    /// Print OpenMetrics text: what each mapping has carried, and whether it is live
    Metrics,
    /// Print the completions of a shell
    Completions {
        /// Which one
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Show a command's options; kport help spec: port specs; kport help pf: pf.conf
    Help {
        /// A command, or one of the topics spec and pf
        #[arg(value_name = "COMMAND|spec|pf")]
        word: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct ParseArgs {
    /// One JSON document
    #[arg(long)]
    pub json: bool,
    #[arg(required = true, value_name = "SPEC", help = SPEC)]
    pub specs: Vec<String>,
}

#[derive(Debug, Args)]
pub struct PublishArgs {
    #[command(flatten)]
    pub request: RequestArgs,
    #[command(flatten)]
    pub options: PublishFlags,
    /// Kleene's records in place of SPEC: a JSON file, or - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "hook", help_heading = heading::PORTS)]
    pub kleene: Option<PathBuf>,
    /// Called as a hook: the manager says which jail, and JAIL may be left out
    #[arg(long, help_heading = heading::HOOK)]
    pub hook: bool,
    /// The jail's number, so that a late stop hook of an earlier start cannot undo this
    #[arg(long, value_name = "JID", help_heading = heading::HOOK)]
    pub jid: Option<i32>,
    /// One JSON document: what is published, and which ports were chosen
    #[arg(long, help_heading = heading::OUTPUT)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct UnpublishArgs {
    /// The jail's name, as for publish: web
    #[arg(value_name = "JAIL", required_unless_present = "hook")]
    pub jail: Option<JailName>,
    /// Only these ports, as they were published: 8080:80 [default: all of the jail's]
    #[arg(value_name = "SPEC")]
    pub specs: Vec<String>,
    /// Only what the start of the jail with this number has published
    #[arg(long, value_name = "JID", help_heading = heading::HOOK)]
    pub jid: Option<i32>,
    /// Called as a hook: a failure is reported, to syslogd(8) too, with status 0
    #[arg(long, help_heading = heading::HOOK)]
    pub hook: bool,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only this jail: web [default: all]
    #[arg(value_name = "JAIL")]
    pub jail: Option<JailName>,
    /// One JSON document
    #[arg(long)]
    pub json: bool,
    /// Show what each mapping carries in a second, until it is interrupted
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
    /// How long --watch counts for each table
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval, requires = "watch")]
    pub interval: Duration,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// One JSON document
    #[arg(long)]
    pub json: bool,
    /// Make a jail, publish, connect, unpublish (FreeBSD: as root; else simulated)
    #[arg(long, conflicts_with = "json")]
    pub self_test: bool,
    /// Take this pf.conf(5) for the main ruleset, not what pf has
    #[arg(long, value_name = "FILE", conflicts_with = "self_test")]
    pub pf_conf: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct SetupArgs {
    /// Put the lines into the files, all or none, with copies beside them, checked by pfctl(8) and sh(1)
    #[arg(long, conflicts_with = "undo")]
    pub write: bool,
    /// Take the lines of --write out again
    #[arg(long)]
    pub undo: bool,
    /// Load pf.conf afterwards, and set what sysctl(8) lacks; pf is not enabled by it
    #[arg(long)]
    pub load: bool,
    /// Also what a publication with --host-access needs
    #[arg(long)]
    pub host_access: bool,
    /// The pf.conf(5)
    #[arg(long, value_name = "FILE", default_value = "/etc/pf.conf")]
    pub pf_conf: PathBuf,
    /// The rc.conf(5) [default: /etc/rc.conf on FreeBSD]
    #[arg(long, value_name = "FILE")]
    pub rc_conf: Option<PathBuf>,
    /// The sysctl.conf(5), and beside it sysctl.kld.d/pf.conf [default: /etc/sysctl.conf on FreeBSD]
    #[arg(long, value_name = "FILE")]
    pub sysctl_conf: Option<PathBuf>,
    /// The sysctl(8) to run
    #[arg(long, value_name = "PROGRAM", default_value = "/sbin/sysctl")]
    pub sysctl: PathBuf,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Publish them, each jail's in one transaction, instead of printing
    #[arg(long)]
    pub publish: bool,
    /// The jail [default: the one that the path or the file names]
    #[arg(short, long, value_name = "JAIL")]
    pub jail: Option<JailName>,
    /// Whose files they are
    #[arg(value_name = "MANAGER", value_parser = exports())]
    pub manager: Exports,
    /// Its files; - for standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// The arguments of a command that has no others.
#[derive(Debug, Args)]
pub struct JsonArgs {
    /// One JSON document
    #[arg(long)]
    pub json: bool,
}

/// Which packet to trace, and where.
#[derive(Debug, Args)]
pub struct Question {
    /// The interface that the packet comes in on [default: the one that leads to SRC]
    // `--from` in previews of 0.1.0
    #[arg(long, alias = "from", value_name = "IF")]
    pub on: Option<Interface>,
    /// Whose pf it is, 14 or 15 [default: this kernel's, or 15]
    #[arg(long, value_name = "14|15", value_parser = release)]
    pub release: Option<Release>,
    /// Take this pf.conf(5) for the main ruleset, not what pf has
    #[arg(long, value_name = "FILE")]
    pub pf_conf: Option<PathBuf>,
    /// One JSON document
    #[arg(long)]
    pub json: bool,
    /// tcp, udp, sctp, icmp or icmp6
    #[arg(value_name = "PROTO", value_parser = protocol)]
    pub protocol: IpProtocol,
    /// Who sends it: 192.0.2.100, 192.0.2.100:40000, [2001:db8::7]:40000, or a jail
    #[arg(value_name = "SRC")]
    pub source: String,
    /// Where it goes: 192.0.2.1:8080 or [2001:db8::1]:8080; of ICMP the address alone
    #[arg(value_name = "DST", value_parser = destination)]
    pub destination: Destination,
    /// The type of an ICMP packet, by the names of pf.conf(5) [default: echoreq]
    #[arg(long, value_name = "TYPE")]
    pub icmp_type: Option<String>,
}

fn protocol(text: &str) -> Result<IpProtocol, String> {
    let named = Protocol::ALL.into_iter().find(|protocol| protocol.name() == text).map(IpProtocol::from);
    let icmp = [("icmp", IpProtocol::ICMP), ("icmp6", IpProtocol::ICMP6), ("ipv6-icmp", IpProtocol::ICMP6)];
    let known = named.or_else(|| icmp.into_iter().find(|(name, _)| *name == text).map(|(_, protocol)| protocol));
    known.ok_or_else(|| format!("there are {}, icmp, icmp6", Protocol::ALL.map(|protocol| protocol.name()).join(", ")))
}

/// Where a packet goes; ICMP has no ports.
#[derive(Clone, Copy, Debug)]
pub enum Destination {
    /// An address with a port.
    Port(SocketAddr),
    /// An address.
    Address(IpAddr),
}

fn destination(text: &str) -> Result<Destination, String> {
    let with_port = text.parse().map(Destination::Port);
    with_port.or_else(|_| text.parse().map(Destination::Address)).map_err(|error| error.to_string())
}

fn release(text: &str) -> Result<Release, String> {
    let known = [Release::V14, Release::V15].into_iter().find(|release| release.number().to_string() == text);
    known.ok_or_else(|| "14 or 15".to_owned())
}

/// What to publish.
#[derive(Clone, Debug, Args)]
pub struct RequestArgs {
    /// The jail's name, as jls(8) prints it: web
    #[arg(value_name = "JAIL")]
    pub jail: JailName,
    // needed, but clap counts the first one as JAIL if that is left out: see `Cli::checked`
    #[arg(value_name = "SPEC", help = SPEC)]
    pub specs: Vec<String>,
    #[command(flatten)]
    pub options: RuleFlags,
    /// An address of the jail, the preferred one first [default: from the kernel]
    #[arg(short, long = "address", value_name = "ADDRESS", help_heading = heading::JAIL)]
    pub addresses: Vec<String>,
}

impl RequestArgs {
    /// Every word that is no option.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.jail.as_str()).chain(self.specs.iter().map(String::as_str))
    }
}

impl Cli {
    /// The flags after which a value stands: `--rate`, `-a`.
    pub fn flags_with_values() -> Vec<String> {
        let mut all = Cli::command();
        // global flags are handed down to the commands
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

    /// What clap cannot say: one spec is needed at least, also if a hook leaves the jail out; help has topics of its own.
    pub fn checked(self) -> Result<Cli, clap::Error> {
        if let Command::Help { word } = &self.command {
            return match word.as_deref() {
                Some(word) if help::topic(word).is_some() => Ok(self),
                // clap's own answer, also to what is no command
                Some(word) => Cli::try_parse_from(["kport", word, "--help"]),
                None => Cli::try_parse_from(["kport", "--help"]),
            };
        }
        let complete = match &self.command {
            Command::Publish(args) if args.hook => !hook::words(args.request.words()).1.is_empty(),
            Command::Publish(PublishArgs { request, kleene: Some(_), .. }) => request.specs.is_empty(),
            Command::Publish(PublishArgs { request, .. }) | Command::Rules(request) => !request.specs.is_empty(),
            _ => true,
        };
        if complete {
            return Ok(self);
        }
        let (kind, text) = match &self.command {
            Command::Publish(PublishArgs { kleene: Some(_), .. }) => {
                (ErrorKind::ArgumentConflict, "with --kleene the ports are in the file: leave SPEC out")
            }
            _ => {
                let text = "the following required arguments were not provided:\n  <SPEC>...";
                (ErrorKind::MissingRequiredArgument, text)
            }
        };
        Err(Cli::command().error(kind, text))
    }
}

/// The managers that publish ports by themselves, by their words.
fn exports() -> impl TypedValueParser<Value = Exports> {
    let known = || managers::ALL.into_iter().filter_map(|manager| Some((manager.name(), manager.exports()?)));
    let words = known().map(|(name, exports)| PossibleValue::new(name).help(exports.files));
    PossibleValuesParser::new(words).try_map(move |word| {
        known().find(|(name, _)| *name == word).map(|(_, exports)| exports).ok_or("unknown manager")
    })
}

fn interval(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("it has to be longer than 0".to_owned()),
        interval => Ok(interval),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}
