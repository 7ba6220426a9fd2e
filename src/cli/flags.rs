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

struct Row {
    name: &'static str,
    /// The word for its value in the help; empty for a flag without one.
    value: &'static str,
    heading: &'static str,
    help: &'static str,
}

const fn row(heading: &'static str, name: &'static str, value: &'static str, help: &'static str) -> Row {
    Row { name, value, heading, help }
}

/// The flags that determine the rules.
const RULES: &[Row] = &[
    row(PORTS, "gateway", "IF", "For specs without a place [default: the interface of the default route]"),
    row(PORTS, "family", "FAMILY", "Only these: inet, inet6, or inet,inet6 [default: those that the jail has]"),
    row(WHO, "sources", "SOURCE", "Let in only this network, address or pf table: 192.0.2.0/24, \"<name>\""),
    row(WHO, "reach", "IF", "Let in hosts on this interface or group [default: bridge, epair, lo]"),
    row(WHO, "hairpin", "", "Let the hosts of the reach list also use the port at the host's address"),
    row(WHO, "host-access", "", "Let the host use the port, also at 127.0.0.1 and ::1 (net.pf.filter_local=1)"),
    row(WHO, "masquerade", "", "Let the jail answer every client through the host: it sees the host's address"),
    row(WHO, "af-to", "", "Let IPv6 clients in if the jail has only an IPv4 address (FreeBSD 15)"),
    row(WHO, "no-quick", "", "Do not use quick: later rules can still block the traffic"),
    row(WHO, "log", "", "Log the first packet of each connection to pflog0"),
    row(WHO, "reply-to", "ROUTER", "Answer on an interface without the default route through this router, or none"),
    row(LIMITS, "max-connections", "N", "Maximum number of connections of a mapping at once"),
    row(LIMITS, "max-connections-per-source", "N", "Maximum number of these from one address"),
    row(LIMITS, "rate", "N/SECONDS", "Maximum number of new connections from one address (tcp)"),
];

/// The flags of publish only.
const PUBLISH: &[Row] = &[
    row(PORTS, "add", "", "Add to the published ports; the options apply to the added ones"),
    row(PORTS, "auto-range", "LOW-HIGH", "The host ports from which auto chooses [default: 49152-65535]"),
    row(PORTS, "force", "", "Publish even if a socket of the host or another tool's redirect has the port"),
    row(PORTS, "allow-inert", "", "Publish even if pf does not evaluate the rules at present"),
    row(JAIL, "no-jail", "", "The name is not that of a jail, but of a guest or host with the address -a"),
    row(JAIL, "trust", "NETWORK", "Believe the jail an address of this network, such as the LAN's (DHCP)"),
    row(JAIL, "wait", "SECONDS", "Wait until the jail has an address (DHCP, SLAAC); added to --timeout"),
];

/// The flags that `rules` and `publish` have.
pub type RuleFlags = Flags<false>;
/// The flags that only `publish` has.
pub type PublishFlags = Flags<true>;

/// The options that are given, by name.
#[derive(Clone, Debug)]
pub struct Flags<const ACT: bool>(Vec<(&'static str, Given)>);

impl<const ACT: bool> Flags<ACT> {
    const ROWS: &'static [Row] = if ACT { PUBLISH } else { RULES };

    pub fn iter(&self) -> impl Iterator<Item = &(&'static str, Given)> {
        self.0.iter()
    }

    /// Sets the options of a request.
    pub fn set(&self, request: &mut Request) -> Result<()> {
        self.iter().try_for_each(|(name, given)| set(request, name, given))
    }
}

/// Sets the option of a flag.
pub fn set(request: &mut Request, name: &str, given: &Given) -> Result<()> {
    request.set(name, given).map_err(|error| error.context(format_args!("--{name}")))
}

impl Row {
    fn takes(&self) -> Takes {
        // the test below checks that there is such an option
        Request::takes(self.name).unwrap_or(Takes::Word)
    }

    fn arg(&self) -> Arg {
        let name = self.name;
        let arg = Arg::new(name).long(name).help(self.help).help_heading(self.heading);
        let action = match self.takes() {
            Takes::Flag => return arg.action(ArgAction::SetTrue),
            Takes::Number | Takes::Word => ArgAction::Set,
            Takes::Words => ArgAction::Append,
        };
        let given = match action {
            ArgAction::Append => |text: String| Given::List(vec![text]),
            _ => Given::Text,
        };
        arg.value_name(self.value).action(action).value_parser(move |text: &str| {
            let given = given(text.to_owned());
            Request::check(name, &given).map(|()| text.to_owned())
        })
    }

    fn given(&self, matches: &ArgMatches) -> Option<(&'static str, Given)> {
        let given = match self.takes() {
            Takes::Flag => matches.get_flag(self.name).then_some(Given::Flag(true)),
            Takes::Number | Takes::Word => matches.get_one::<String>(self.name).cloned().map(Given::Text),
            Takes::Words => matches.get_many::<String>(self.name).map(|texts| Given::List(texts.cloned().collect())),
        };
        given.map(|given| (self.name, given))
    }
}

impl<const ACT: bool> Args for Flags<ACT> {
    fn augment_args(command: Command) -> Command {
        command.args(Self::ROWS.iter().map(|row| match row.name {
            // the name in previews of 0.1.0
            "sources" => row.arg().alias("from"),
            _ => row.arg(),
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const ACT: bool> FromArgMatches for Flags<ACT> {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        Ok(Flags(Self::ROWS.iter().filter_map(|row| row.given(matches)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `--address` is a separate flag: a hook and Kleene's records also have addresses.
    #[test]
    fn every_option_has_a_flag() {
        let flags: Vec<&str> = RULES.iter().chain(PUBLISH).map(|row| row.name).collect();
        for (name, takes) in Request::names().filter(|(name, _)| *name != "address") {
            let opposite = format!("no-{name}");
            assert!(flags.contains(&name) || takes == Takes::Flag && flags.contains(&opposite.as_str()), "{name}");
        }
        for row in RULES.iter().chain(PUBLISH) {
            let takes = Request::takes(row.name).unwrap_or_else(|| panic!("{} is not an option", row.name));
            assert_eq!(takes == Takes::Flag, row.value.is_empty(), "{}", row.name);
        }
    }
}
