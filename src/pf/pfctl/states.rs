//! The list of states, as pfctl(8) prints it.

use std::net::IpAddr;

use crate::name::Label;
use crate::pf::States;

/// A state that was created by a packet that came in.
pub(super) struct Incoming {
    protocol: String,
    /// Where it was created, if pfctl(8) has printed that.
    on: Option<String>,
    /// The destination on the wire.
    to: (IpAddr, u16),
    /// What a rule has replaced it with.
    target: Option<IpAddr>,
    from: IpAddr,
    /// For `-k key` (pfctl_key_kill_states in sbin/pfctl/pfctl.c).
    pub(super) key: String,
}

impl Incoming {
    /// Reads the next line: a state, or something about the last one, which may be none of these.
    pub(super) fn line(found: &mut Vec<Option<Incoming>>, line: &str) {
        match (line.strip_prefix("   origif: "), found.last_mut()) {
            (Some(on), Some(Some(last))) => last.on = Some(on.trim().to_owned()),
            _ if line.starts_with(' ') => {}
            _ => found.push(Incoming::read(line)),
        }
    }

    /// Reads `all udp 192.0.2.1:53 <- 192.0.2.100:40000       MULTIPLE:SINGLE`, or with a redirect `all tcp 10.0.0.2:80
    /// (192.0.2.1:8080) <- ...` (print_state in sbin/pfctl/pf_print_state.c). Not one whose source was replaced.
    fn read(line: &str) -> Option<Incoming> {
        let mut words = line.split_whitespace().peekable();
        let [on, protocol, mut to] = [(); 3].map(|()| words.next().unwrap_or_default());
        let host = |text: &str| -> Option<(IpAddr, u16)> {
            let (address, port) = text.strip_suffix(']').map_or(text.rsplit_once(':'), |text| text.split_once('['))?;
            Some((address.parse().ok()?, port.parse().ok()?))
        };
        let mut target = None;
        if let Some(before) = words.next_if(|word| word.starts_with('(')) {
            target = Some(host(to)?.0);
            to = before.strip_prefix('(')?.strip_suffix(')')?;
        }
        let ["<-", from] = [(); 2].map(|()| words.next().unwrap_or_default()) else { return None };
        let key = format!("{protocol} {to} <- {from}");
        let plain = !words.next()?.starts_with('(');
        // bound to an interface, or floating
        let on = Some(on).filter(|on| *on != "all").map(str::to_owned);
        let protocol = protocol.to_owned();
        plain.then_some(Incoming { protocol, on, to: host(to)?, target, from: host(from)?.0, key })
    }

    /// Whether it is one of `states`, as far as pfctl(8) prints it.
    pub(super) fn is_of(&self, states: &States) -> bool {
        let (address, port) = self.to;
        (states.jail.is_some() || self.target.is_none())
            && states.ports.is_none_or(|(protocol, ports)| self.protocol == protocol.name() && ports.contains(port))
            && states.to.is_none_or(|to| to.contain(address))
            && states.from.is_none_or(|from| from.contain(self.from))
            && states.on.is_none_or(|on| self.on.as_ref().is_none_or(|own| own == on.as_str()))
            && states.at.contains(&self.target.unwrap_or(address))
    }
}

/// The label that all of `states` have and no others, as far as a backend that labels mappings has loaded their rules.
pub(super) fn label(states: &States) -> Option<&Label> {
    let is_part = states.on.is_some() || states.from.is_some();
    states.mapping.as_ref().or(states.jail.as_ref()).filter(|_| !is_part)
}
