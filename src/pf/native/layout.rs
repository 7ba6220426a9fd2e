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

pub const PF_OP_EQ: u8 = 2; // `=`
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

/// The address in a struct pf_addr, of IPv4 or of IPv6.
pub fn ip(octets: [u8; 16], is_v4: bool) -> IpAddr {
    match octets {
        [a, b, c, d, ..] if is_v4 => IpAddr::from([a, b, c, d]),
        _ => IpAddr::from(octets),
    }
}

pub const PF_STATE_VERSION: u64 = 20_230_404; // The version of struct pf_state_export in 14 and 15.

pub const PFIK_GROUP: u64 = 0xfeed_c0de; // The value for a group's pointer (pf_kkif_to_kif in sys/netpfil/pf/pf_if.c).
pub const PFI_IFLAG_SKIP: u32 = 0x0100; // `set skip on`

/// Structs with their size, and with the offset of each field before its name.
macro_rules! structs {
    ($($(#[$what:meta])* $name:ident: $size:literal { $($(#[$about:meta])* $offset:literal $field:ident: $type:ty,)* })*) => {$(
        $(#[$what])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        pub struct $name {
            $($(#[$about])* pub $field: $type,)*
        }
        const _: () = assert!(size_of::<$name>() == $size);
        $(const _: () = assert!(offset_of!($name, $field) == $offset);)*
    )*};
}

structs! {
    /// struct pf_addr_wrap
    PfAddrWrap: 48 {
        /// the address; or the name of the interface; or the first half of the name of a table
        0 addr: [u8; Interface::SIZE],
        16 mask: [u8; 16], // the mask; or the second half
        32 p: u64, // union p, a pointer of the kernel's
        40 kind: u8,
        41 iflags: u8,
        42 pad: [u8; 6],
    }

    /// struct pf_rule_addr
    PfRuleAddr: 56 {
        0 addr: PfAddrWrap,
        48 port: [U16; 2], // the ports, in network byte order
        52 neg: u8,
        53 port_op: u8,
        54 pad: [u8; 2],
    }

    /// struct pf_pool
    PfPool: 72 {
        0 list: [u64; 7], // list, cur, key, counter
        56 tblidx: i32,
        60 proxy_port: [u16; 2], // the ports, in host byte order
        64 opts: u8,
        65 pad: [u8; 7],
    }

    /// struct pf_rule
    PfRule: 976 {
        0 src: PfRuleAddr,
        56 dst: PfRuleAddr,
        112 skip: [u64; 8],
        176 label: [u8; NAME_SIZE],
        240 ifname: [u8; Interface::SIZE],
        256 queues: [[u8; NAME_SIZE]; 2], // qname, pqname
        384 tagname: [u8; NAME_SIZE],
        448 match_tagname: [u8; NAME_SIZE],
        512 overload: [u64; 6], // overload_tblname, entries
        560 rpool: PfPool,
        632 counters: [u64; 8], // evaluations to overload_tbl
        696 os_fingerprint: u32,
        700 rtableid: i32,
        704 timeout: [u32; 20],
        784 max_states: u32,
        788 max_src_nodes: u32,
        792 max_src_states: u32,
        796 max_src_conn: u32,
        800 max_src_conn_rate: [u32; 2], // limit, seconds
        808 numbers: [u64; 7], // qid to src_nodes
        864 return_icmp: u16,
        866 tags: [u16; 5], // return_icmp6 to scrub_flags
        876 owners: [u32; 6], // uid, gid
        900 rule_flag: u32,
        904 action: u8,
        905 direction: u8,
        906 log: u8,
        907 logif: u8,
        908 quick: u8,
        909 nots: [u8; 3], // ifnot, match_tag_not, natpass
        912 keep_state: u8,
        913 af: u8,
        914 proto: u8,
        915 icmp: [u8; 2],
        917 flags: u8,
        918 flagset: u8,
        919 options: [u8; 2], // min_ttl, allow_opts
        921 rt: u8,
        922 rest: [u8; 30], // return_ttl to divert
        952 u_states: [u64; 3],
    }

    /// struct pfioc_rule
    PfiocRule: 3040 {
        0 action: u32, // what to do with the rule (DIOCCHANGERULE)
        4 ticket: u32, // the ticket of the ruleset
        8 pool_ticket: u32, // the ticket of the redirect addresses
        12 nr: u32, // the number of rules (DIOCGETRULES)
        16 anchor: [u8; MAXPATHLEN],
        /// the anchor that the rule calls; always NUL-terminated here, since DIOCADDRULE does not check that
        1040 anchor_call: [u8; MAXPATHLEN],
        2064 rule: PfRule,
    }

    /// struct pfioc_pooladdr, with struct pf_pooladdr in it
    PfiocPooladdr: 1136 {
        0 action: u32, // what to do with the address (DIOCCHANGEADDR)
        4 ticket: u32, // the ticket of the redirect addresses
        8 nr: u32, // the number of addresses (DIOCGETADDRS)
        12 r_num: u32, // the number of the rule (DIOCGETADDRS)
        16 r_action: u8, // the action of the rule (DIOCGETADDRS)
        17 r_last: u8, // (DIOCGETADDRS)
        18 af: u8,
        19 anchor: [u8; MAXPATHLEN], // the anchor (DIOCGETADDRS)
        1043 pad: [u8; 5],
        1048 addr: PfAddrWrap,
        1096 entries: [u64; 2],
        1112 ifname: [u8; Interface::SIZE], // the interface (route-to)
        1128 kif: u64,
    }

    /// struct pfioc_trans; here and below, arrays of others are pointers of kport's, set by ioctl.rs
    PfiocTrans: 16 {
        0 size: i32,
        4 esize: i32,
        8 array: u64,
    }

    /// struct pfioc_nv
    PfiocNv: 24 {
        0 data: u64,
        8 len: u64,
        16 size: u64,
    }

    /// struct pfioc_states_v2
    PfiocStates: 24 {
        0 len: i32,
        4 pad: [u8; 4],
        8 version: u64,
        16 states: u64,
    }

    /// struct pfioc_iface
    PfiocIface: 40 {
        0 name: [u8; 16],
        16 buffer: u64,
        24 esize: i32,
        28 size: i32,
        32 nzero: i32,
        36 flags: i32,
    }

    /// struct pfioc_trans_e: one ruleset of a transaction
    PfiocTransE: 1032 {
        0 rs_num: i32,
        4 anchor: [u8; MAXPATHLEN],
        1028 ticket: u32, // filled in by DIOCXBEGIN
    }

    /// struct pfioc_ruleset: an anchor's children
    PfiocRuleset: 1092 {
        0 nr: u32, // how many (DIOCGETRULESETS), or which (DIOCGETRULESET)
        4 path: [u8; MAXPATHLEN],
        1028 name: [u8; NAME_SIZE],
    }

    /// struct pfioc_limit
    PfiocLimit: 8 {
        0 index: i32,
        4 limit: u32, // 0 is none
    }

    /// struct pfioc_table, with struct pfr_table in it
    PfiocTable: 1104 {
        0 anchor: [u8; MAXPATHLEN], // the anchor; empty for the main ruleset
        1024 name: [u8; TABLE_NAME_SIZE],
        1056 flags: [u32; 2], // table_flags, fback
        1064 buffer: u64, // room for the answer
        1072 esize: i32, // the size of an element of the answer
        1076 size: i32, // the number of elements that fit, then the number that exist
        1080 counts: [i32; 6], // of other calls
    }

    /// struct pfi_kif: an interface or a group, as pf knows it
    PfiKif: 216 {
        0 name: [u8; 16],
        16 counters: [u64; 19], // the kernel's tree, packets, bytes
        168 tzero: u32,
        172 flags: u32,
        176 ifp: u64, // nothing (pf_kkif_to_kif in sys/netpfil/pf/pf_if.c)
        184 group: u64, // PFIK_GROUP for a group, else 0
        192 rest: [u64; 3], // rulerefs, dynaddrs
    }

    /// struct pf_state_export: a state of the table, without what kport does not read.
    PfStateExport: 384 {
        0 version: u64, // PF_STATE_VERSION
        8 id: u64,
        16 ifname: [u8; 16],
        32 orig_ifname: [u8; 16],
        48 keys: [PfStateKeyExport; 2], // on the wire, and on the host's side of a redirect or nat
        120 peers: [u8; 144],
        264 af: u8,
        265 proto: u8,
        266 rest: [u8; 118],
    }

    /// struct pf_state_key_export; the ports are in network order.
    PfStateKeyExport: 36 {
        0 addr: [[u8; 16]; 2],
        32 port: [u16; 2],
    }

    /// struct pfr_addr: an address of a table
    PfrAddr: 20 {
        0 addr: [u8; 16],
        16 af: u8,
        17 net: u8, // the length of its prefix
        18 not: u8,
        19 fback: u8,
    }
}

impl PfAddrWrap {
    /// The name of a table, in place of the address and the mask.
    pub fn set_table(&mut self, name: &str) {
        let name: [u8; TABLE_NAME_SIZE] = field(name);
        self.addr.copy_from_slice(&name[..16]);
        self.mask.copy_from_slice(&name[16..]);
    }
}
