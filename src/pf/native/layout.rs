//! The structs of pf(4) with the layout of FreeBSD 14 and 15 on LP64, and their constants.
//!
//! Sizes and offsets are those of sys/net/pfvar.h and sys/netpfil/pf/pf.h of 15.1, printed by a compiler on a running
//! system, and asserted below; 14 has the same text. Fields that kport neither sets nor reads (the kernel's pointers and counters,
//! skip steps, queues, scrub options) are there for their place only, several in one, and stay zero.

#![allow(missing_docs, reason = "the names are those of sys/net/pfvar.h and sys/netpfil/pf/pf.h")]

use std::mem::{offset_of, size_of};
use std::net::IpAddr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::net::Interface;

pub const MAXPATHLEN: usize = 1024; // MAXPATHLEN, sys/syslimits.h
pub const NAME_SIZE: usize = 64; // PF_RULE_LABEL_SIZE, PF_TAG_NAME_SIZE, PF_ANCHOR_NAME_SIZE, PF_QNAME_SIZE
pub const TABLE_NAME_SIZE: usize = 32; // PF_TABLE_NAME_SIZE

pub const AF_INET: u8 = 2;
pub const AF_INET6: u8 = 28; // AF_INET6 of FreeBSD

pub const PF_PASS: u8 = 0;
pub const PF_DROP: u8 = 1;
pub const PF_SCRUB: u8 = 2;
pub const PF_NOSCRUB: u8 = 3;
pub const PF_NAT: u8 = 4;
pub const PF_NONAT: u8 = 5;
pub const PF_BINAT: u8 = 6;
pub const PF_NOBINAT: u8 = 7;
pub const PF_RDR: u8 = 8;
pub const PF_NORDR: u8 = 9;
pub const PF_MATCH: u8 = 12;
pub const PF_REPLYTO: u8 = 4; // `reply-to`, in the field `rt`
pub const PF_RT: u8 = 14; // the pool of route-to (netlink)

pub const PF_RULESET_FILTER: i32 = 1;
pub const PF_RULESET_NAT: i32 = 2;
pub const PF_RULESET_BINAT: i32 = 3;
pub const PF_RULESET_RDR: i32 = 4;

pub const PF_ADDR_ADDRMASK: u8 = 0; // an address and a mask
pub const PF_ADDR_NOROUTE: u8 = 1;
pub const PF_ADDR_DYNIFTL: u8 = 2; // the addresses of an interface
pub const PF_ADDR_TABLE: u8 = 3;
pub const PF_ADDR_URPFFAILED: u8 = 4;
pub const PF_ADDR_RANGE: u8 = 5; // the first address, and the last in place of the mask
pub const PF_ADDR_NONE: u8 = 6; // the address of an interface alone in a pool (15 only)
pub const PFI_AFLAG_NETWORK: u8 = 1; // `(em0:network)`
pub const PFI_AFLAG_BROADCAST: u8 = 2; // `(em0:broadcast)`
pub const PFI_AFLAG_PEER: u8 = 4; // `(em0:peer)`
pub const PFI_AFLAG_NOALIAS: u8 = 8; // `(em0:0)`

pub const PF_CHANGE_ADD_TAIL: u32 = 2; // the action of DIOCCHANGERULE: a new last rule
pub const PF_CHANGE_ADD_BEFORE: u32 = 3; // a new rule before the one with this number
pub const PF_CHANGE_REMOVE: u32 = 5; // without the one with this number

pub const PF_OP_IRG: u8 = 1; // `><`
pub const PF_OP_EQ: u8 = 2; // `=`
pub const PF_OP_NE: u8 = 3; // `!=`
pub const PF_OP_LT: u8 = 4; // `<`
pub const PF_OP_LE: u8 = 5; // `<=`
pub const PF_OP_GT: u8 = 6; // `>`
pub const PF_OP_GE: u8 = 7; // `>=`
pub const PF_OP_XRG: u8 = 8; // `<>`
pub const PF_OP_RRG: u8 = 9; // `:`

pub const PF_POOL_TYPEMASK: u8 = 0x0f;
pub const PF_POOL_STICKYADDR: u8 = 0x20;
pub const PF_POOL_ENDPI: u8 = 0x40; // `endpoint-independent`
pub const PF_POOL_IPV6NH: u8 = 0x80; // `prefer-ipv6-nexthop`
pub const PF_POOL_ROUNDROBIN: u8 = 4;
/// PF_NAT_PROXY_PORT_LOW and PF_NAT_PROXY_PORT_HIGH of pfctl_parser.h: the ports of translated sources
pub const PF_NAT_PROXY_PORT: [u16; 2] = [50001, 65535];
pub const PF_STATE_NORMAL: u8 = 1; // `keep state`
pub const PF_STATE_SYNPROXY: u32 = 3;
pub const PF_PRIO_ZERO: u8 = 0xff; // `prio 0`
pub const TH_SYN: u8 = 0x02;
pub const TH_SYN_ACK: u8 = 0x12; // TH_SYN and TH_ACK
pub const PF_LIMIT_ANCHORS: i32 = 4; // 15 only
pub const PF_IN: u8 = 1; // packets in
pub const PF_OUT: u8 = 2; // packets out
pub const PF_LOG: u8 = 1; // `log`, to pflog0
pub const PFRULE_SRCTRACK: u32 = 0x20; // sources are counted
pub const PFRULE_RULESRCTRACK: u32 = 0x40; // `source-track rule`
pub const PFRULE_FRAGMENT: u64 = 0x02; // `fragment`
pub const PFRULE_IFBOUND: u64 = 0x0001_0000; // `if-bound`
pub const PFRULE_AFTO: u64 = 0x0020_0000; // `af-to`
/// Every PFRULE_* of 14 and 15; those that are not above control how a packet is rejected, scrubbed, or counted.
pub const KNOWN_FLAGS: u64 = 0x002f_3bff;
pub const PFTM_ADAPTIVE_START: usize = 16; // index of `adaptive.start` in the timeouts
pub const PFTM_ADAPTIVE_END: usize = 17; // index of `adaptive.end` in the timeouts
pub const PFTM_SRC_NODE: usize = 18; // index of `src.track` in the timeouts

/// `text` in a field of the kernel's, padded with NULs. Every string for such a field is limited by its type (name.rs,
/// net.rs) or comes from such a field; the last byte is always NUL.
pub fn field<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    let length = text.len().min(N - 1);
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
    field
}

/// The contents of a field of the kernel's; what is not UTF-8 is replaced.
pub fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// struct pf_addr_wrap
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PfAddrWrap {
    /// the address; or the name of the interface; or the first half of the name of a table
    pub addr: [u8; Interface::SIZE],
    pub mask: [u8; 16], // the mask; or the second half
    pub p: u64,         // union p, a pointer of the kernel's
    pub kind: u8,
    pub iflags: u8,
    pub pad: [u8; 6],
}

/// struct pf_rule_addr
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PfRuleAddr {
    pub addr: PfAddrWrap,
    pub port: [U16; 2], // the ports, in network byte order
    pub neg: u8,
    pub port_op: u8,
    pub pad: [u8; 2],
}

/// struct pf_pool
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PfPool {
    pub list: [u64; 7], // list, cur, key, counter
    pub tblidx: i32,
    pub proxy_port: [u16; 2], // the ports, in host byte order
    pub opts: u8,
    pub pad: [u8; 7],
}

/// struct pf_rule
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PfRule {
    pub src: PfRuleAddr,
    pub dst: PfRuleAddr,
    pub skip: [u64; 8],
    pub label: [u8; NAME_SIZE],
    pub ifname: [u8; Interface::SIZE],
    pub queues: [[u8; NAME_SIZE]; 2], // qname, pqname
    pub tagname: [u8; NAME_SIZE],
    pub match_tagname: [u8; NAME_SIZE],
    pub overload: [u64; 6], // overload_tblname, entries
    pub rpool: PfPool,
    pub counters: [u64; 8], // evaluations to overload_tbl
    pub os_fingerprint: u32,
    pub rtableid: i32,
    pub timeout: [u32; 20],
    pub max_states: u32,
    pub max_src_nodes: u32,
    pub max_src_states: u32,
    pub max_src_conn: u32,
    pub max_src_conn_rate: [u32; 2], // limit, seconds
    pub numbers: [u64; 7],           // qid to src_nodes
    pub return_icmp: u16,
    pub tags: [u16; 5],   // return_icmp6 to scrub_flags
    pub owners: [u32; 6], // uid, gid
    pub rule_flag: u32,
    pub action: u8,
    pub direction: u8,
    pub log: u8,
    pub logif: u8,
    pub quick: u8,
    pub nots: [u8; 3], // ifnot, match_tag_not, natpass
    pub keep_state: u8,
    pub af: u8,
    pub proto: u8,
    pub icmp: [u8; 2],
    pub flags: u8,
    pub flagset: u8,
    pub options: [u8; 2], // min_ttl, allow_opts
    pub rt: u8,
    pub rest: [u8; 30], // return_ttl to divert
    pub u_states: [u64; 3],
}

/// struct pfioc_rule
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PfiocRule {
    pub action: u32,      // what to do with the rule (DIOCCHANGERULE)
    pub ticket: u32,      // the ticket of the ruleset
    pub pool_ticket: u32, // the ticket of the redirect addresses
    pub nr: u32,          // the number of rules (DIOCGETRULES)
    pub anchor: [u8; MAXPATHLEN],
    /// the anchor that the rule calls; always NUL-terminated here, since DIOCADDRULE does not check that
    pub anchor_call: [u8; MAXPATHLEN],
    pub rule: PfRule,
}

/// struct pfioc_pooladdr, with struct pf_pooladdr in it
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PfiocPooladdr {
    pub action: u32,  // what to do with the address (DIOCCHANGEADDR)
    pub ticket: u32,  // the ticket of the redirect addresses
    pub nr: u32,      // the number of addresses (DIOCGETADDRS)
    pub r_num: u32,   // the number of the rule (DIOCGETADDRS)
    pub r_action: u8, // the action of the rule (DIOCGETADDRS)
    pub r_last: u8,   // (DIOCGETADDRS)
    pub af: u8,
    pub anchor: [u8; MAXPATHLEN], // the anchor (DIOCGETADDRS)
    pub pad: [u8; 5],
    pub addr: PfAddrWrap,
    pub entries: [u64; 2],
    pub ifname: [u8; Interface::SIZE], // the interface (route-to)
    pub kif: u64,
}

/// struct pfioc_trans_e: one ruleset of a transaction
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PfiocTransE {
    pub rs_num: i32,
    pub anchor: [u8; MAXPATHLEN],
    pub ticket: u32, // filled in by DIOCXBEGIN
}

/// struct pfioc_ruleset: an anchor's children
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PfiocRuleset {
    pub nr: u32, // how many (DIOCGETRULESETS), or which (DIOCGETRULESET)
    pub path: [u8; MAXPATHLEN],
    pub name: [u8; NAME_SIZE],
}

/// struct pfioc_limit
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PfiocLimit {
    pub index: i32,
    pub limit: u32, // 0 is none
}

/// struct pfioc_table, with struct pfr_table in it
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PfiocTable {
    pub anchor: [u8; MAXPATHLEN], // the anchor; empty for the main ruleset
    pub name: [u8; TABLE_NAME_SIZE],
    pub flags: [u32; 2],  // table_flags, fback
    pub buffer: u64,      // a pointer to room for the answer, set by ioctl.rs
    pub esize: i32,       // the size of an element of the answer
    pub size: i32,        // the number of elements that fit, then the number that exist
    pub counts: [i32; 6], // of other calls
}

/// struct pfi_kif: an interface or a group, as pf knows it
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PfiKif {
    pub name: [u8; 16],
    pub counters: [u64; 19], // the kernel's tree, packets, bytes
    pub tzero: u32,
    pub flags: u32,
    pub ifp: u64,       // nothing (pf_kkif_to_kif in sys/netpfil/pf/pf_if.c)
    pub group: u64,     // PFIK_GROUP for a group, else 0
    pub rest: [u64; 3], // rulerefs, dynaddrs
}

/// The address in a struct pf_addr, of IPv4 or of IPv6.
pub fn ip(octets: [u8; 16], is_v4: bool) -> IpAddr {
    match octets {
        [a, b, c, d, ..] if is_v4 => IpAddr::from([a, b, c, d]),
        _ => IpAddr::from(octets),
    }
}

/// struct pf_state_export: a state of the table, without what kport does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PfStateExport {
    pub version: u64, // PF_STATE_VERSION
    pub id: u64,
    pub ifname: [u8; 16],
    pub orig_ifname: [u8; 16],
    pub keys: [PfStateKeyExport; 2], // on the wire, and on the host's side of a redirect or nat
    pub peers: [u8; 144],
    pub af: u8,
    pub proto: u8,
    pub rest: [u8; 118],
}

/// struct pf_state_key_export; the ports are in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PfStateKeyExport {
    pub addr: [[u8; 16]; 2],
    pub port: [u16; 2],
}

pub const PF_STATE_VERSION: u64 = 20_230_404; // The version of struct pf_state_export in 14 and 15.

pub const PFIK_GROUP: u64 = 0xfeed_c0de; // The value for a group's pointer (pf_kkif_to_kif in sys/netpfil/pf/pf_if.c).
pub const PFI_IFLAG_SKIP: u32 = 0x0100; // `set skip on`

/// struct pfr_addr: an address of a table
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PfrAddr {
    pub addr: [u8; 16],
    pub af: u8,
    pub net: u8, // the length of its prefix
    pub not: u8,
    pub fback: u8,
}

macro_rules! offsets {
    ($($type:ty: $size:literal { $($($field:ident).+ $offset:literal),* $(,)? })*) => {$(
        const _: () = assert!(size_of::<$type>() == $size);
        $(const _: () = assert!(offset_of!($type, $($field).+) == $offset);)*
    )*};
}

offsets! {
    PfAddrWrap: 48 { addr 0, mask 16, p 32, kind 40, iflags 41 }
    PfRuleAddr: 56 { addr 0, port 48, neg 52, port_op 53 }
    PfPool: 72 { tblidx 56, proxy_port 60, opts 64 }
    PfRule: 976 {
        src 0, dst 56, skip 112, label 176, ifname 240, queues 256, tagname 384, match_tagname 448, overload 512, rpool 560,
        rpool.proxy_port 620, rpool.opts 624, counters 632, os_fingerprint 696, rtableid 700, timeout 704, max_states 784,
        max_src_nodes 788, max_src_states 792, max_src_conn 796, max_src_conn_rate 800, numbers 808, return_icmp 864,
        tags 866, owners 876, rule_flag 900, action 904, direction 905, log 906, logif 907, quick 908, nots 909,
        keep_state 912, af 913, proto 914, icmp 915, flags 917, flagset 918, options 919, rt 921, rest 922, u_states 952,
    }
    PfiocRule: 3040 { action 0, ticket 4, pool_ticket 8, nr 12, anchor 16, anchor_call 1040, rule 2064, rule.action 2968 }
    PfiocPooladdr: 1136 {
        action 0, ticket 4, nr 8, r_num 12, r_action 16, r_last 17, af 18, anchor 19, addr 1048, entries 1096,
        ifname 1112, kif 1128,
    }
    PfiocTransE: 1032 { rs_num 0, anchor 4, ticket 1028 }
    PfiocRuleset: 1092 { nr 0, path 4, name 1028 }
    PfiocLimit: 8 { index 0, limit 4 }
    PfiKif: 216 { name 0, counters 16, tzero 168, flags 172, ifp 176, group 184, rest 192 }
    PfStateKeyExport: 36 { addr 0, port 32 }
    PfStateExport: 384 { id 8, ifname 16, orig_ifname 32, keys 48, peers 120, af 264, proto 265, rest 266 }
    PfrAddr: 20 { addr 0, af 16, net 17, not 18, fback 19 }
    PfiocTable: 1104 { anchor 0, name 1024, flags 1056, buffer 1064, esize 1072, size 1076, counts 1080 }
}
