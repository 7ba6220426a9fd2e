//! The generic netlink family `pfctl` of FreeBSD 15, which returns what DIOCGETRULENV and DIOCGETADDR do not: `received-on`,
//! `max-pkt-rate`, `max-pkt-size`, and the addresses of nat-to, af-to and route-to. And which takes rules with af-to, for which
//! the struct of DIOCADDRULE has no room.
//!
//! A rule is converted to the form of DIOCGETRULENV, so that one decoder serves both. The numbers are those of
//! sys/netpfil/pf/pf_nl.h; releases only add to them.

use super::layout::text;
use super::nv::{List, Malformed, Value, malformed};

/// NLA_TYPE_MASK
const TYPE_MASK: u16 = 0x3fff;
/// A command of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Adds a rule, with the contents of the buffer of addresses.
    AddRule = 5,
    Rule = 7,
    /// Adds an address to the buffer.
    AddAddr = 20,
    /// How many addresses a pool of a rule has.
    Addrs = 21,
    /// One of them.
    Addr = 22,
}

impl Command {
    /// Its name in sys/netpfil/pf/pf_nl.h.
    pub fn name(self) -> &'static str {
        match self {
            Command::AddRule => "PFNL_CMD_ADDRULE",
            Command::Rule => "PFNL_CMD_GETRULE",
            Command::AddAddr => "PFNL_CMD_ADD_ADDR",
            Command::Addrs => "PFNL_CMD_GET_ADDRS",
            Command::Addr => "PFNL_CMD_GET_ADDR",
        }
    }
}

/// Attributes to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// These and one more; what does not fit into an attribute's length is omitted.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Attributes {
        if let Ok(length) = u16::try_from(value.len() + 4) {
            self.0.extend_from_slice(&length.to_le_bytes());
            self.0.extend_from_slice(&kind.to_le_bytes());
            self.0.extend_from_slice(value);
            self.0.resize(self.0.len().next_multiple_of(4), 0);
        }
        self
    }

    #[must_use]
    pub fn text(self, kind: u16, text: &str) -> Attributes {
        self.with(kind, &[text.as_bytes(), &[0]].concat())
    }

    #[must_use]
    pub fn number(self, kind: u16, number: u32) -> Attributes {
        self.with(kind, &number.to_le_bytes())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The attributes of a message, or of an attribute that holds others, in order.
pub fn attributes(mut bytes: &[u8]) -> Result<Vec<(u16, &[u8])>, Malformed> {
    let mut found = vec![];
    while let [l0, l1, k0, k1, ..] = *bytes {
        let length = usize::from(u16::from_le_bytes([l0, l1]));
        let Some(value) = bytes.get(4..length) else {
            return malformed(format!("an attribute of {length} bytes, {} left", bytes.len()));
        };
        found.push((u16::from_le_bytes([k0, k1]) & TYPE_MASK, value));
        // the padding of the last one may be missing
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    if bytes.is_empty() { Ok(found) } else { malformed(format!("{} bytes after the last attribute", bytes.len())) }
}

/// The form of an attribute in DIOCGETRULENV.
enum Form {
    Number,
    /// One of several attributes that are one array there.
    Item,
    Text,
    Bytes,
    /// An address, which is a list with the one key `addr` there.
    Address,
    Texts,
    List(&'static [Attribute]),
}

type Attribute = (u16, &'static str, Form);

const ADDRESS: &[Attribute] = &[
    (1, "addr", Form::Address),
    (2, "mask", Form::Address),
    (3, "ifname", Form::Text),
    (4, "tblname", Form::Text),
    (5, "type", Form::Number),
    (6, "iflags", Form::Number),
];
const SIDE: &[Attribute] = &[
    (1, "addr", Form::List(ADDRESS)),
    (2, "port", Form::Item),
    (3, "port", Form::Item),
    (4, "neg", Form::Number),
    (5, "port_op", Form::Number),
];
const MAPE: &[Attribute] = &[(1, "offset", Form::Number), (2, "psidlen", Form::Number), (3, "psid", Form::Number)];
const POOL: &[Attribute] = &[
    (1, "key", Form::Bytes),
    (4, "proxy_port", Form::Item),
    (5, "proxy_port", Form::Item),
    (6, "opts", Form::Number),
    (7, "mape", Form::List(MAPE)),
];
const OWNER: &[Attribute] = &[(1, "uid", Form::Item), (2, "uid", Form::Item), (3, "op", Form::Number)];
const THRESHOLD: &[Attribute] = &[(1, "limit", Form::Number), (2, "seconds", Form::Number)];
/// PF_RT_*: what a [decoder](super::decode) needs.
const RULE: &[Attribute] = &[
    (1, "src", Form::List(SIDE)),
    (2, "dst", Form::List(SIDE)),
    (4, "labels", Form::Texts),
    (5, "ifname", Form::Text),
    (8, "tagname", Form::Text),
    (9, "match_tagname", Form::Text),
    (11, "rpool", Form::List(POOL)),
    (12, "os_fingerprint", Form::Number),
    (13, "rtableid", Form::Number),
    (15, "max_states", Form::Number),
    (16, "max_src_nodes", Form::Number),
    (17, "max_src_states", Form::Number),
    (18, "max_src_conn_rate.limit", Form::Number),
    (19, "max_src_conn_rate.seconds", Form::Number),
    (24, "prob", Form::Number),
    (31, "uid", Form::List(OWNER)),
    (32, "gid", Form::List(OWNER)),
    (33, "rule_flag", Form::Number),
    (34, "action", Form::Number),
    (35, "direction", Form::Number),
    (36, "log", Form::Number),
    (38, "quick", Form::Number),
    (39, "ifnot", Form::Number),
    (40, "match_tag_not", Form::Number),
    (41, "natpass", Form::Number),
    (42, "keep_state", Form::Number),
    (43, "af", Form::Number),
    (44, "proto", Form::Number),
    // of 16 bits; 45 and 46 truncate them to 8
    (84, "type", Form::Number),
    (45, "type", Form::Number),
    (85, "code", Form::Number),
    (46, "code", Form::Number),
    (47, "flags", Form::Number),
    (48, "flagset", Form::Number),
    (51, "rt", Form::Number),
    (53, "tos", Form::Number),
    (58, "prio", Form::Number),
    (62, "divert_port", Form::Number),
    (72, "anchor_call", Form::Text),
    (73, "rcv_ifname", Form::Text),
    (74, "max_src_conn", Form::Number),
    (75, "nat", Form::List(POOL)),
    (76, "naf", Form::Number),
    (77, "route", Form::List(POOL)),
    (78, "rcv_ifnot", Form::Number),
    (82, "pktrate", Form::List(THRESHOLD)),
    (83, "max_pkt_size", Form::Number),
];
/// PF_RT_CODE_2, the last number of 15.1.
const LAST: u16 = 85;

/// A rule in the form of [`read::rule`](super::read::rule). The attributes that a later release adds are put into the key `unknown`.
pub fn rule(reply: &[u8]) -> Result<List, Malformed> {
    let all = attributes(reply)?;
    let mut rule = list(&all, RULE)?;
    let later = all.iter().filter(|(kind, value)| *kind > LAST && value.iter().any(|byte| *byte != 0));
    let later: Vec<String> = later.map(|(kind, _)| format!("netlink attribute {kind}")).collect();
    if !later.is_empty() {
        rule.add("unknown", Value::String(later.join(", ")));
    }
    Ok(rule)
}

/// CTRL_ATTR_FAMILY_ID of a reply to CTRL_CMD_GETFAMILY.
pub fn family(reply: &[u8]) -> Result<u16, Malformed> {
    let id = list(&attributes(reply)?, &[(1, "id", Form::Number)])?.number("id")?;
    u16::try_from(id).or_else(|_| malformed(format!("family {id}")))
}

/// PF_AA_NR of a reply to [`Command::Addrs`].
pub fn count(reply: &[u8]) -> Result<u32, Malformed> {
    let count = list(&attributes(reply)?, &[(3, "nr", Form::Number)])?.number("nr")?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// A reply to [`Command::Addr`]: the family, the interface, and the address in the form of DIOCGETRULENV.
pub fn pool_address(reply: &[u8]) -> Result<List, Malformed> {
    const POOLED: &[Attribute] = &[(1, "addr", Form::List(ADDRESS)), (2, "ifname", Form::Text)];
    list(&attributes(reply)?, &[(7, "af", Form::Number), (9, "addr", Form::List(POOLED))])
}

fn list(all: &[(u16, &[u8])], table: &[Attribute]) -> Result<List, Malformed> {
    let mut made = List::new();
    let mut items: Vec<(&str, Vec<u64>)> = vec![];
    for (kind, name, form) in table {
        let Some((_, value)) = all.iter().find(|(found, _)| found == kind) else { continue };
        // of two attributes for one key the first is preferred
        _ = match form {
            Form::Number => made.add(name, Value::Number(number(value)?)),
            Form::Text => made.add(name, Value::String(text(value))),
            Form::Bytes => made.add(name, Value::Binary(value.to_vec())),
            Form::Address => made.add(name, Value::List(List::new().with("addr", Value::Binary(value.to_vec())))),
            Form::List(table) => made.add(name, Value::List(list(&attributes(value)?, table)?)),
            Form::Texts => {
                made.add(name, Value::Strings(attributes(value)?.into_iter().map(|(_, one)| text(one)).collect()))
            }
            Form::Item => {
                let number = number(value)?;
                match items.iter_mut().find(|(known, _)| known == name) {
                    Some((_, numbers)) => numbers.push(number),
                    None => items.push((name, vec![number])),
                }
                true
            }
        };
    }
    for (name, numbers) in items {
        made.add(name, Value::Numbers(numbers));
    }
    Ok(made)
}

fn number(value: &[u8]) -> Result<u64, Malformed> {
    match value.len() {
        1 | 2 | 4 | 8 => Ok(value.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))),
        other => malformed(format!("a number of {other} bytes")),
    }
}
