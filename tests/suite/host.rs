//! The facts of a host: those of the one that runs the tests, against what the standard library does on it, and those from a file.

use std::io::{self, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use ipnet::IpNet;
use kport::error::Kind;
use kport::host::{Fixed, Gateway, Host, HostInterface, Interfaces, Jail, Listener, System, Watch};
use kport::net::{Family, PerFamily, Protocol};

#[test]
fn loopback_and_the_gateways_are_among_the_interfaces() {
    let all = System.interfaces().unwrap();
    let localhost: IpNet = "127.0.0.1/8".parse().unwrap();
    let lo = all.iter().find(|interface| interface.addresses.contains(&localhost)).unwrap();
    assert!(lo.up && lo.name.as_str().starts_with("lo"), "{lo:?}");
    if cfg!(target_os = "freebsd") {
        assert_eq!(lo.groups, ["lo".parse().unwrap()]);
    }
    for family in Family::ALL {
        if let Some(gateway) = System.gateway(family).unwrap() {
            assert!(all.iter().any(|interface| interface.name == gateway), "{gateway}");
        }
    }
}

#[test]
fn sockets_that_wait_are_listeners() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    // not a port that the kernel chooses
    let udp = (2000..10000).find_map(|port| UdpSocket::bind(("0.0.0.0", port)).ok()).unwrap();
    let asking = UdpSocket::bind("0.0.0.0:0").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(("127.0.0.1", udp.local_addr().unwrap().port())).unwrap();
    let found = System.listeners().unwrap();
    let inet = |protocol, address: Option<&str>, port| {
        let address = address.map(|text| text.parse().unwrap());
        found.contains(&Listener { protocol, families: PerFamily::only(Family::Inet), address, port })
    };
    assert!(inet(Protocol::Tcp, Some("127.0.0.1"), tcp.local_addr().unwrap().port()), "{found:?}");
    assert!(inet(Protocol::Udp, None, udp.local_addr().unwrap().port()), "{found:?}");
    assert!(!inet(Protocol::Udp, None, asking.local_addr().unwrap().port()), "{found:?}");
    assert!(!inet(Protocol::Udp, Some("127.0.0.1"), client.local_addr().unwrap().port()), "{found:?}");
}

#[test]
fn a_socket_has_its_process() {
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = udp.local_addr().unwrap().port();
    let holders = System.udp_holders(port).unwrap();
    let own = i32::try_from(std::process::id()).unwrap();
    assert!(holders.iter().any(|process| process.pid == own && process.jid == 0), "{holders:?}");
    let arguments: Vec<String> = std::env::args().collect();
    assert!(holders.iter().any(|process| process.arguments == arguments), "{holders:?}");
    drop(udp);
    assert!(System.udp_holders(port).unwrap().iter().all(|process| process.pid != own));
}

#[test]
fn sysctls() {
    #[cfg(target_os = "freebsd")]
    assert!(matches!(System.sysctl("net.inet.ip.forwarding"), Ok(Some(0 | 1))));
    assert_eq!(System.sysctl("net.kport.unknown").unwrap(), None);
    assert_eq!(System.sysctl("net.inet.ip.forwarding\0").unwrap(), None);
}

#[test]
fn the_boot_does_not_change() {
    let id = System.boot_id().unwrap();
    assert!(id.len() >= 16 && !id.contains(char::is_whitespace), "{id}");
    assert_eq!(id, System.boot_id().unwrap());
    let before = System.uptime().unwrap();
    assert!(before > 0 && System.uptime().unwrap() >= before);
}

#[test]
fn jails_that_are_not_there() {
    for name in ["", "no such jail", "nul\0", "0", "-1", "999999"] {
        assert_eq!(System.jail(name).unwrap(), None, "{name:?}");
    }
    #[cfg(target_os = "freebsd")]
    for jail in System.jails().unwrap().jails {
        assert_eq!(System.jail(&jail.jid.to_string()).unwrap().map(|again| again.name), Some(jail.name));
    }
}

/// It must not look as if all jails were gone.
#[cfg(target_os = "linux")]
#[test]
fn linux_has_no_jails() {
    assert_eq!(System.jail("web").unwrap(), None);
    assert_eq!(System.jails().unwrap_err().kind(), Kind::Unsupported);
}

// ---- from a file

#[test]
fn a_host_goes_to_json_and_back() {
    let host = Fixed {
        gateway: PerFamily { inet: None, inet6: Some("em1".parse().unwrap()) },
        interfaces: vec![HostInterface {
            name: "bridge0".parse().unwrap(),
            groups: vec!["bridge".parse().unwrap()],
            addresses: vec!["fd00::1/64".parse().unwrap()],
            up: true,
            fib: 1,
            point_to_point: true,
        }],
        jails: vec![Jail {
            jid: 7,
            name: "flat".to_owned(),
            path: "/jails/flat".to_owned(),
            vnet: false,
            stack: 0,
            fib: 2,
            inherits: PerFamily::only(Family::Inet6),
            addresses: vec!["10.9.0.2".parse().unwrap()],
            dying: true,
        }],
        gateways: vec![Gateway {
            interface: "em1".parse().unwrap(),
            address: "fe80::1".parse().unwrap(),
            fib: 1,
            default: true,
        }],
        ..Fixed::default()
    };
    let json = serde_json::to_string(&host).unwrap();
    assert_eq!(json.parse::<Fixed>().unwrap(), host);
    assert_eq!(host.jail("7").unwrap(), host.jail("flat").unwrap());
    assert_eq!(host.jail("07").unwrap(), None);
    assert_eq!(host.gateway(Family::Inet).unwrap(), None);
}

#[test]
fn mistakes_in_a_file_are_reported() {
    for (json, word) in [
        (r#"{ "gatway": {} }"#, "gatway"),
        (r#"{ "interfaces": [ { "name": "em 0", "up": true } ] }"#, "em 0"),
        (r#"{ "jails": [ { "name": "web" } ] }"#, "jid"),
    ] {
        let error = json.parse::<Fixed>().unwrap_err();
        assert_eq!(error.kind(), Kind::Argument);
        assert!(error.message().contains(word), "{error}");
    }
}

// ---- lookups in its interfaces

fn interface(name: &str, groups: &[&str], addresses: &[&str]) -> HostInterface {
    let groups = groups.iter().map(|group| group.parse().unwrap()).collect();
    HostInterface::up(name.parse().unwrap(), groups, addresses.iter().map(|a| a.parse().unwrap()).collect())
}

#[test]
fn places() {
    let host = [
        interface("em0", &["egress"], &["192.0.2.1/24", "192.0.2.7/32", "2001:db8::1/64"]),
        interface("em1", &[], &["198.51.100.1/24"]),
        interface("bridge0", &["bridge"], &["10.0.0.1/24"]),
    ];
    let interfaces = Interfaces(&host);
    for (a, b, overlap) in [
        ("em0", "em0", true),
        ("em0", "em1", false),
        ("em0", "*", true),
        ("192.0.2.7", "em0", true),
        ("192.0.2.7", "egress", true),
        ("192.0.2.7", "em1", false),
        ("192.0.2.7", "192.0.2.1", false),
        ("egress", "em0", true),
        ("egress", "bridge", false),
        ("wg7", "em0", false),
        ("wg7", "wg7", true),
    ] {
        let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
        assert_eq!(interfaces.overlap(a, b), overlap, "{a} {b}");
        assert_eq!(interfaces.overlap(b, a), overlap, "{b} {a}");
    }
}

#[test]
fn the_interface_that_leads_to_a_jail() {
    let mut host = [
        interface("em0", &[], &["192.0.2.1/24"]),
        interface("bridge0", &[], &["10.0.0.1/8"]),
        interface("bridge1", &[], &["10.1.0.1/24", "fd00::1/64"]),
    ];
    let found = |host: &[HostInterface], address: &str| Interfaces(host).leads_to(address.parse().unwrap());
    assert_eq!(found(&host, "10.0.0.2").unwrap(), Some(host[1].name));
    assert_eq!(found(&host, "10.1.0.2").unwrap(), Some(host[2].name));
    assert_eq!(found(&host, "fd00::2").unwrap(), Some(host[2].name));
    assert_eq!(found(&host, "192.0.2.1").unwrap(), None);
    assert_eq!(found(&host, "198.51.100.1").unwrap_err().kind(), Kind::Unavailable);
    host[2].up = false;
    assert_eq!(found(&host, "10.1.0.2").unwrap(), Some(host[1].name));
    assert_eq!(found(&host, "fd00::2").unwrap(), Some(host[2].name));
    assert_eq!(found(&host, "10.1.0.1").unwrap(), None);
}

// ---- events

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn many_messages_are_one_change() {
    let (here, there) = UnixDatagram::pair().unwrap();
    let watch = Watch::new(here.into());
    assert!(!watch.wait(Duration::ZERO).unwrap());
    // longer than what is read of it
    for size in [1, 100, 5000] {
        there.send(&vec![7; size]).unwrap();
    }
    assert!(watch.wait(LONG).unwrap());
    assert!(!watch.wait(Duration::ZERO).unwrap());
}

/// A flood of messages does not block the call.
#[test]
fn a_flood() {
    let (here, there) = UnixStream::pair().unwrap();
    there.set_nonblocking(true).unwrap();
    let watch = Watch::new(here.into());
    let flood = std::thread::spawn(move || {
        let written = |there: &UnixStream| match (&mut &*there).write(&[0; 512]) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        while written(&there) {}
    });
    assert!(watch.wait(LONG).unwrap() && watch.wait(LONG).unwrap());
    drop(watch);
    flood.join().unwrap();
}

#[test]
fn an_error_is_permanent() {
    let (here, there) = UnixStream::pair().unwrap();
    let watch = Watch::new(here.into());
    drop(there);
    assert!(watch.wait(LONG).is_err() && watch.wait(LONG).is_err());
}

#[cfg(target_os = "linux")]
mod linux {
    use kport::host::linux::{ephemeral, listener};

    use super::*;

    #[test]
    fn families_of_a_socket() {
        let any6 = listener(Protocol::Tcp, "[::]:80".parse().unwrap());
        assert_eq!((any6.families, any6.address), (PerFamily { inet: true, inet6: true }, None));
        let mapped = listener(Protocol::Tcp, "[::ffff:192.0.2.1]:80".parse().unwrap());
        assert_eq!(
            (mapped.families, mapped.address),
            (PerFamily::only(Family::Inet), Some("192.0.2.1".parse().unwrap()))
        );
    }

    #[test]
    fn ports_that_the_kernel_chooses_from() {
        assert_eq!(ephemeral("1024\t65000\n"), 1024..=65000);
        assert_eq!(ephemeral(""), 32768..=60999);
    }
}
