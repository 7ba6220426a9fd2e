//! Names for numbers: protocols, services, ICMP types and codes, types of service, tcp flags; the keywords of pf.conf(5).

use std::collections::HashMap;

/// The number of a name, or a number as it is.
fn named(table: &[(&str, u8)], text: &str) -> Option<u8> {
    let found = table.iter().find(|(name, _)| *name == text);
    found.map(|(_, number)| *number).or_else(|| text.parse().ok())
}

/// The first name of a number, or the number.
fn name_of(table: &[(&str, u8)], number: u8) -> String {
    let found = table.iter().find(|(_, other)| *other == number);
    found.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// The entries of protocols(5) that are common on a firewall.
#[rustfmt::skip]
const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", 1), ("igmp", 2), ("ipencap", 4), ("tcp", 6), ("egp", 8), ("igp", 9), ("udp", 17), ("rdp", 27),
    ("dccp", 33), ("ipv6", 41), ("ipv6-route", 43), ("ipv6-frag", 44), ("rsvp", 46), ("gre", 47), ("esp", 50),
    ("ah", 51), ("mobile", 55), ("ipv6-icmp", 58), ("icmp6", 58), ("ipv6-nonxt", 59), ("ipv6-opts", 60), ("eigrp", 88),
    ("ospf", 89), ("etherip", 97), ("pim", 103), ("ipcomp", 108), ("carp", 112), ("vrrp", 112), ("l2tp", 115),
    ("sctp", 132), ("udplite", 136), ("pfsync", 240),
];

pub fn protocol(text: &str) -> Option<u8> {
    named(PROTOCOLS, text).filter(|number| *number > 0)
}

pub fn protocol_name(number: u8) -> String {
    name_of(PROTOCOLS, number)
}

/// A number, also in hexadecimal (atoul in parse.y).
pub fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The services of a text of services(5), with their other names; of several ports of a name the first.
pub fn services(text: &str) -> HashMap<String, u16> {
    let mut all = HashMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let name = words.next();
        let Some(port) = words.next().and_then(|port| port.split('/').next()?.parse().ok()) else { continue };
        name.into_iter().chain(words).for_each(|name| _ = all.entry(name.to_owned()).or_insert(port));
    }
    all
}

/// icmp_type and icmp6_type of sbin/pfctl/pfctl_parser.c.
#[rustfmt::skip]
const ICMP_TYPES: &[(&str, u8)] = &[
    ("echoreq", 8), ("echorep", 0), ("unreach", 3), ("squench", 4), ("redir", 5), ("althost", 6), ("routeradv", 9),
    ("routersol", 10), ("timex", 11), ("paramprob", 12), ("timereq", 13), ("timerep", 14), ("inforeq", 15),
    ("inforep", 16), ("maskreq", 17), ("maskrep", 18), ("trace", 30), ("dataconv", 31), ("mobredir", 32),
    ("ipv6-where", 33), ("ipv6-here", 34), ("mobregreq", 35), ("mobregrep", 36), ("skip", 39), ("photuris", 40),
];
#[rustfmt::skip]
const ICMP6_TYPES: &[(&str, u8)] = &[
    ("unreach", 1), ("toobig", 2), ("timex", 3), ("paramprob", 4), ("echoreq", 128), ("echorep", 129),
    ("groupqry", 130), ("listqry", 130), ("grouprep", 131), ("listenrep", 131), ("groupterm", 132), ("listendone", 132),
    ("routersol", 133), ("routeradv", 134), ("neighbrsol", 135), ("neighbradv", 136), ("redir", 137),
    ("routrrenum", 138), ("wrureq", 139), ("wrurep", 140), ("fqdnreq", 139), ("fqdnrep", 140), ("niqry", 139),
    ("nirep", 140), ("mtraceresp", 200), ("mtrace", 201), ("listenrepv2", 143),
];

/// icmp_code and icmp6_code: a name, its type, its code.
#[rustfmt::skip]
const ICMP_CODES: &[(&str, u8, u8)] = &[
    ("net-unr", 3, 0), ("host-unr", 3, 1), ("proto-unr", 3, 2), ("port-unr", 3, 3), ("needfrag", 3, 4),
    ("srcfail", 3, 5), ("net-unk", 3, 6), ("host-unk", 3, 7), ("isolate", 3, 8), ("net-prohib", 3, 9),
    ("host-prohib", 3, 10), ("net-tos", 3, 11), ("host-tos", 3, 12), ("filter-prohib", 3, 13), ("host-preced", 3, 14),
    ("cutoff-preced", 3, 15), ("redir-net", 5, 0), ("redir-host", 5, 1), ("redir-tos-net", 5, 2),
    ("redir-tos-host", 5, 3), ("normal-adv", 9, 0), ("common-adv", 9, 16), ("transit", 11, 0), ("reassemb", 11, 1),
    ("badhead", 12, 0), ("optmiss", 12, 1), ("badlen", 12, 2), ("unknown-ind", 40, 1), ("auth-fail", 40, 2),
    ("decrypt-fail", 40, 3),
];
#[rustfmt::skip]
const ICMP6_CODES: &[(&str, u8, u8)] = &[
    ("noroute-unr", 1, 0), ("admin-unr", 1, 1), ("notnbr-unr", 1, 2), ("beyond-unr", 1, 2), ("addr-unr", 1, 3),
    ("port-unr", 1, 4), ("transit", 3, 0), ("reassemb", 3, 1), ("badhead", 4, 0), ("nxthdr", 4, 1),
    ("redironlink", 137, 0), ("redirrouter", 137, 1),
];

pub fn icmp_type(text: &str, inet6: bool) -> Option<u8> {
    named(if inet6 { ICMP6_TYPES } else { ICMP_TYPES }, text)
}

pub fn icmp_type_name(number: u8, inet6: bool) -> String {
    name_of(if inet6 { ICMP6_TYPES } else { ICMP_TYPES }, number)
}

pub fn icmp_code(of: u8, text: &str, inet6: bool) -> Option<u8> {
    let table = if inet6 { ICMP6_CODES } else { ICMP_CODES };
    let named = table.iter().find(|(name, kind, _)| *kind == of && *name == text);
    named.map(|(_, _, code)| *code).or_else(|| text.parse().ok())
}

/// map_tos of parse.y: DSCP code points and the older names.
pub fn tos(text: &str) -> Option<u8> {
    #[rustfmt::skip]
    const NAMES: &[(&str, u8)] = &[
        ("af11", 0x28), ("af12", 0x30), ("af13", 0x38), ("af21", 0x48), ("af22", 0x50), ("af23", 0x58), ("af31", 0x68),
        ("af32", 0x70), ("af33", 0x78), ("af41", 0x88), ("af42", 0x90), ("af43", 0x98), ("critical", 0xa0), ("cs0", 0),
        ("cs1", 0x20), ("cs2", 0x40), ("cs3", 0x60), ("cs4", 0x80), ("cs5", 0xa0), ("cs6", 0xc0), ("cs7", 0xe0),
        ("ef", 0xb8), ("inetcontrol", 0xc0), ("lowdelay", 0x10), ("netcontrol", 0xe0), ("reliability", 0x04),
        ("throughput", 0x08), ("va", 0xb0),
    ];
    let named = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, value)| *value);
    let hexadecimal = || u8::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    named.or_else(hexadecimal).or_else(|| text.parse().ok())
}

/// The letters of `flags`, in the order of their bits.
const FLAGS: &str = "FSRPAUEWe";

/// `S`, `SA`, `FSRPAUEW`: the bits of tcp flags. No letters are all flags (parse_flags).
pub fn flags(text: &str) -> Option<u16> {
    let bits = text.chars().try_fold(0, |bits, letter| FLAGS.find(letter).map(|bit| bits | 1_u16 << bit))?;
    Some(if bits == 0 { 0x1ff } else { bits })
}

pub fn flag_letters(bits: u16) -> String {
    FLAGS.chars().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, letter)| letter).collect()
}

/// The words that are not strings (lookup in parse.y).
#[rustfmt::skip]
pub const KEYWORDS: &[&str] = &[
    "af-to", "all", "allow-opts", "allow-related", "altq", "anchor", "antispoof", "any", "bandwidth", "binat",
    "binat-anchor", "binat-to", "bitmask", "block", "block-policy", "bridge-to", "buckets", "cbq", "code", "codelq",
    "debug", "divert-reply", "divert-to", "dnpipe", "dnqueue", "drop", "dup-to", "endpoint-independent", "ether",
    "fail-policy", "fairq", "fastroute", "file", "fingerprints", "flags", "floating", "flush", "for", "fragment",
    "from", "global", "group", "hfsc", "hogs", "hostid", "icmp-type", "icmp6-type", "if-bound", "in", "include", "inet",
    "inet6", "interval", "keep", "keepcounters", "l3", "label", "limit", "linkshare", "load", "log", "loginterface",
    "map-e-portset", "match", "matches", "max", "max-mss", "max-pkt-rate", "max-pkt-size", "max-src-conn",
    "max-src-conn-rate", "max-src-nodes", "max-src-states", "min-ttl", "modulate", "nat", "nat-anchor", "nat-to", "no",
    "no-df", "no-route", "no-sync", "on", "once", "optimization", "os", "out", "overload", "pass", "pflow", "port",
    "prefer-ipv6-nexthop", "prio", "priority", "priq", "probability", "proto", "qlimit", "queue", "quick", "random",
    "random-id", "rdr", "rdr-anchor", "rdr-to", "realtime", "reassemble", "received-on", "reply-to", "require-order",
    "return", "return-icmp", "return-icmp6", "return-rst", "ridentifier", "round-robin", "route", "route-to", "rtable",
    "rule", "ruleset-optimization", "scrub", "set", "set-tos", "skip", "sloppy", "source-hash", "source-track", "state",
    "state-defaults", "state-policy", "static-port", "sticky-address", "syncookies", "synproxy", "table", "tag",
    "tagged", "target", "tbrsize", "timeout", "to", "tos", "ttl", "upperlimit", "urpf-failed", "user",
];

pub fn is_keyword(word: &str) -> bool {
    KEYWORDS.binary_search(&word).is_ok()
}
