//! The flags of `publish` and `rules` that are options of a request: a row each, from which the parser, the help and the
//! values by name are derived. The library checks the values.

use crate::error::Result;
use crate::options::{Given, Takes};
use crate::publisher::Request;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// The headings of `publish --help`, the most common options first.
pub mod heading {
    pub const PORTS: &str = "Ports";
    pub const WHO: &str = "Who may connect";
    pub const LIMITS: &str = "Limits";
    pub const JAIL: &str = "Where the jail is";
    pub const HOOK: &str = "As a hook";
    pub const OUTPUT: &str = "Output";
    pub const ALL: &str = "All commands";
}
use heading::{JAIL, LIMITS, PORTS, WHO};

/// The heading of a flag; the name of its option; the word for its value, empty for a flag without one; its help.
type Row = (&'static str, &'static str, &'static str, &'static str);

const RULES: &[Row] = &[
    (PORTS, "gateway", "IF", "For specs without a place [default: the interface of the default route]"),
    (PORTS, "family", "FAMILY", "Only these: inet, inet6, or inet,inet6 [default: those that the jail has]"),
    (WHO, "sources", "SOURCE", "Let in only this network, address or pf table: 192.0.2.0/24, \"<name>\""),
    (WHO, "reach", "IF", "Let in hosts on this interface or group [default: bridge, epair, lo]"),
    (WHO, "hairpin", "", "Let the hosts of the reach list also use the port at the host's address"),
    (WHO, "host-access", "", "Let the host use the port, also at 127.0.0.1 and ::1 (net.pf.filter_local=1)"),
    (WHO, "masquerade", "", "Let the jail answer every client through the host: it sees the host's address"),
    (WHO, "af-to", "", "Let IPv6 clients in if the jail has only an IPv4 address (FreeBSD 15)"),
    (WHO, "no-quick", "", "Do not use quick: later rules can still block the traffic"),
    (WHO, "log", "", "Log the first packet of each connection to pflog0"),
    (WHO, "reply-to", "ROUTER", "Answer on an interface without the default route through this router, or none"),
    (LIMITS, "max-connections", "N", "Maximum number of connections of a mapping at once"),
    (LIMITS, "max-connections-per-source", "N", "Maximum number of these from one address"),
    (LIMITS, "rate", "N/SECONDS", "Maximum number of new connections from one address (tcp)"),
];

/// The flags of publish only.
const PUBLISH: &[Row] = &[
    (PORTS, "add", "", "Add to the published ports; the options apply to the added ones"),
    (PORTS, "auto-range", "LOW-HIGH", "The host ports from which auto chooses [default: 49152-65535]"),
    (PORTS, "force", "", "Publish even if a socket of the host or another tool's redirect has the port"),
    (PORTS, "allow-inert", "", "Publish even if pf does not evaluate the rules at present"),
    (JAIL, "no-jail", "", "The name is not that of a jail, but of a guest or host with the address -a"),
    (JAIL, "trust", "NETWORK", "Believe the jail an address of this network, such as the LAN's (DHCP)"),
    (JAIL, "wait", "SECONDS", "Wait until the jail has an address (DHCP, SLAAC); added to --timeout"),
];

pub type RuleFlags = Flags<false>;
pub type PublishFlags = Flags<true>;

/// The options that are given, by name.
#[derive(Clone, Debug)]
pub struct Flags<const ACT: bool>(Vec<(&'static str, Given)>);

impl<const ACT: bool> Flags<ACT> {
    const ROWS: &'static [Row] = if ACT { PUBLISH } else { RULES };

    pub fn iter(&self) -> impl Iterator<Item = &(&'static str, Given)> {
        self.0.iter()
    }

    pub fn set(&self, request: &mut Request) -> Result<()> {
        self.iter().try_for_each(|(name, given)| set(request, name, given))
    }
}

pub fn set(request: &mut Request, name: &str, given: &Given) -> Result<()> {
    request.set(name, given).map_err(|error| error.context(format_args!("--{name}")))
}

fn takes(name: &str) -> Takes {
    // a test checks that there is such an option
    Request::takes(name).unwrap_or(Takes::Word)
}

fn arg(&(heading, name, value, help): &Row) -> Arg {
    let arg = Arg::new(name).long(name).help(help).help_heading(heading);
    let (action, given): (_, fn(String) -> Given) = match takes(name) {
        Takes::Flag => return arg.action(ArgAction::SetTrue),
        Takes::Number | Takes::Word => (ArgAction::Set, Given::Text),
        Takes::Words => (ArgAction::Append, |text| Given::List(vec![text])),
    };
    arg.value_name(value)
        .action(action)
        .value_parser(move |text: &str| Request::check(name, &given(text.to_owned())).map(|()| text.to_owned()))
}

fn given(name: &str, matches: &ArgMatches) -> Option<Given> {
    match takes(name) {
        Takes::Flag => matches.get_flag(name).then_some(Given::Flag(true)),
        Takes::Number | Takes::Word => matches.get_one::<String>(name).cloned().map(Given::Text),
        Takes::Words => matches.get_many::<String>(name).map(|texts| Given::List(texts.cloned().collect())),
    }
}

impl<const ACT: bool> Args for Flags<ACT> {
    fn augment_args(command: Command) -> Command {
        command.args(Self::ROWS.iter().map(|row| match row.1 {
            // the name in previews of 0.1.0
            "sources" => arg(row).alias("from"),
            _ => arg(row),
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const ACT: bool> FromArgMatches for Flags<ACT> {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        Ok(Flags(Self::ROWS.iter().filter_map(|(_, name, ..)| Some((*name, given(name, matches)?))).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
