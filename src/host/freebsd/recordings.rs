//! What a FreeBSD 15.1 answered, and what its own tools printed of the same moment: for the tests of whoever reads such answers.

pub const ROUTE_INET: &[u8] = include_bytes!("../../../tests/host/route-inet.bin");
pub const ROUTE_INET6: &[u8] = include_bytes!("../../../tests/host/route-inet6.bin");
pub const IFLISTL: &[u8] = include_bytes!("../../../tests/host/iflistl.bin");
pub const TCP_PCBLIST: &[u8] = include_bytes!("../../../tests/host/tcp-pcblist.bin");
pub const UDP_PCBLIST: &[u8] = include_bytes!("../../../tests/host/udp-pcblist.bin");
pub const BOOTTIME: &[u8] = include_bytes!("../../../tests/host/boottime.bin");

pub const NETSTAT_RN: &str = include_str!("../../../tests/host/netstat-rn.txt");
pub const NETSTAT_AN: &str = include_str!("../../../tests/host/netstat-an.txt");
pub const IFCONFIG_A: &str = include_str!("../../../tests/host/ifconfig-a.txt");
pub const JLS: &str = include_str!("../../../tests/host/jls.txt");
