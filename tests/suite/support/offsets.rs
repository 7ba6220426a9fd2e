//! Where the fields of struct pf_rule are, by the names of the kernel (sys/netpfil/pf/pf.h), as a compiler printed them on FreeBSD
//! for amd64. They are not taken from the library's own types, so that a field in a wrong place shows.

/// struct pf_rule_addr of the source, and of the destination.
pub const SRC: usize = 0;
pub const DST: usize = 56;
/// Where the last one ends.
pub const DST_END: usize = 112;

/// In struct pf_rule_addr, and in its struct pf_addr_wrap, which comes first.
pub const ADDR: usize = 0;
pub const MASK: usize = 16;
pub const TYPE: usize = 40;
pub const IFLAGS: usize = 41;
/// The size of struct pf_addr_wrap.
pub const WRAP: usize = 48;
pub const PORT: usize = 48;
pub const LAST_PORT: usize = 50;
pub const NEG: usize = 52;
pub const PORT_OP: usize = 53;

pub const LABEL: usize = 176;
pub const IFNAME: usize = 240;
pub const TAGNAME: usize = 384;
pub const MATCH_TAGNAME: usize = 448;
pub const OVERLOAD_TBLNAME: usize = 512;
/// Of source-hash.
pub const POOL_KEY: usize = 584;
/// Of the redirect addresses: the first port and the last one, 2 bytes each.
pub const PROXY_PORT: usize = 620;
pub const LAST_PROXY_PORT: usize = 622;
pub const POOL_OPTS: usize = 624;
pub const OS_FINGERPRINT: usize = 696;
pub const RTABLEID: usize = 700;
/// Of the time-outs: adaptive.start, adaptive.end, src.track.
pub const ADAPTIVE_START: usize = 768;
pub const ADAPTIVE_END: usize = 772;
pub const SRC_NODE: usize = 776;
pub const MAX_STATES: usize = 784;
pub const MAX_SRC_NODES: usize = 788;
pub const MAX_SRC_STATES: usize = 792;
pub const MAX_SRC_CONN: usize = 796;
/// The number of connections, and the seconds.
pub const MAX_SRC_CONN_RATE: usize = 800;
pub const MAX_SRC_CONN_SECONDS: usize = 804;
pub const PROB: usize = 824;
pub const RETURN_ICMP: usize = 864;
/// struct pf_rule_uid and struct pf_rule_gid: two numbers, then the operator.
pub const UID: usize = 876;
pub const GID: usize = 888;
pub const RULE_FLAG: usize = 900;
pub const ACTION: usize = 904;
pub const DIRECTION: usize = 905;
pub const LOG: usize = 906;
pub const LOGIF: usize = 907;
pub const QUICK: usize = 908;
pub const IFNOT: usize = 909;
pub const MATCH_TAG_NOT: usize = 910;
pub const NATPASS: usize = 911;
pub const KEEP_STATE: usize = 912;
pub const AF: usize = 913;
pub const PROTO: usize = 914;
pub const ICMP_TYPE: usize = 915;
pub const ICMP_CODE: usize = 916;
pub const FLAGS: usize = 917;
pub const FLAGSET: usize = 918;
pub const RT: usize = 921;
pub const TOS: usize = 923;
pub const PRIO: usize = 928;
pub const DIVERT_ADDR: usize = 932;
pub const DIVERT_PORT: usize = 948;

/// struct pfioc_rule
pub mod rule {
    pub const TICKET: usize = 4;
    pub const POOL_TICKET: usize = 8;
    pub const NR: usize = 12;
    pub const ANCHOR: usize = 16;
    pub const ANCHOR_CALL: usize = 1040;
    pub const RULE: usize = 2064;
    pub const SIZE: usize = 3040;
}

/// struct pfioc_pooladdr
pub mod pooladdr {
    pub const TICKET: usize = 4;
    pub const NR: usize = 8;
    pub const R_NUM: usize = 12;
    pub const R_ACTION: usize = 16;
    pub const AF: usize = 18;
    pub const ANCHOR: usize = 19;
    pub const ADDR: usize = 1048;
    pub const IFNAME: usize = 1112;
    pub const SIZE: usize = 1136;
}

/// struct pfioc_trans_e
pub mod trans {
    pub const RS_NUM: usize = 0;
    pub const ANCHOR: usize = 4;
    pub const TICKET: usize = 1028;
}

/// struct pfioc_ruleset
pub mod ruleset {
    pub const NR: usize = 0;
    pub const PATH: usize = 4;
    pub const NAME: usize = 1028;
    pub const SIZE: usize = 1092;
}

/// struct pfioc_table, and the size of struct pfr_addr
pub mod table {
    pub const ANCHOR: usize = 0;
    pub const NAME: usize = 1024;
    pub const TABLE_FLAGS: usize = 1056;
    pub const ESIZE: usize = 1072;
    pub const ENTRIES: usize = 1076;
    pub const SIZE: usize = 1104;
    pub const ADDRESS: usize = 20;
}

/// struct pfi_kif
pub mod kif {
    pub const FLAGS: usize = 172;
    pub const GROUP: usize = 184;
    pub const SIZE: usize = 216;
}

/// The sizes of the names.
pub const MAXPATHLEN: usize = 1024;
pub const IFNAMSIZ: usize = 16;
pub const TAG_NAME_SIZE: usize = 64;
pub const LABEL_SIZE: usize = 64;
pub const TABLE_NAME_SIZE: usize = 32;
