use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use super::super::recordings::JLS;
use super::*;

const NONE: PerFamily<bool> = PerFamily { inet: false, inet6: false };

#[test]
fn addresses_of_a_jail() {
    let found = addresses(&[10, 9, 0, 2, 10, 9, 0, 3], &Ipv6Addr::LOCALHOST.octets()).unwrap();
    assert_eq!(found, ["10.9.0.2", "10.9.0.3", "::1"].map(|a| a.parse::<IpAddr>().unwrap()));
    assert!(addresses(&[10, 9, 0], &[]).is_err());
    assert!(addresses(&[], &[0; 17]).is_err());
}

#[test]
fn a_jail_inherits_the_host_s_addresses() {
    // as printed by jls(8): four with vnet=new ip4=inherit ip6=inherit, one with ip4.addr=10.9.0.2
    let mut seen = Vec::new();
    for line in JLS.lines() {
        let parameters: BTreeMap<&str, &str> = line.split(' ').filter_map(|word| word.split_once('=')).collect();
        let jailsys = |name| ["disable", "new", "inherit"].iter().position(|word| *word == parameters[name]);
        let jailsys = |name| jailsys(name).map(|number| number as i32);
        let own: Vec<IpAddr> = parameters["ip4.addr"].parse().into_iter().collect();
        let vnet = parameters["vnet"] == "new";
        seen.push((vnet, inherits(vnet, PerFamily { inet: jailsys("ip4"), inet6: jailsys("ip6") }, &own)));
    }
    assert_eq!(seen, [(true, NONE), (true, NONE), (true, NONE), (true, NONE), (false, NONE)]);

    let inherit = Some(JAIL_SYS_INHERIT);
    let jailsys = |inet, inet6| PerFamily { inet, inet6 };
    assert_eq!(inherits(false, jailsys(inherit, inherit), &[]), PerFamily { inet: true, inet6: true });
    assert_eq!(inherits(false, jailsys(inherit, Some(0)), &[]), PerFamily::only(Family::Inet));
    // a kernel without IPv6
    assert_eq!(inherits(false, jailsys(inherit, None), &[]), PerFamily::only(Family::Inet));
    // a jail in flat that inherits the addresses of flat
    assert_eq!(
        inherits(false, jailsys(inherit, inherit), &["10.9.0.2".parse().unwrap()]),
        PerFamily::only(Family::Inet6)
    );
}

/// A jail of jail_get(2): jid, name, parent, vnet, ip4, its IPv4 addresses.
#[derive(Clone)]
struct Recorded {
    jid: i32,
    name: &'static [u8],
    parent: i32,
    vnet: i32,
    addresses: Vec<[u8; 4]>,
}

impl Recorded {
    fn new(jid: i32, name: &'static [u8]) -> Recorded {
        Recorded { jid, name, parent: 0, vnet: 0, addresses: vec![] }
    }
}

/// kern_jail_get() of kern/kern_jail.c, as far as it matters here.
fn kernel(jails: Vec<Recorded>) -> impl Fn(&mut Vec<Parameter>) -> Result<Option<i32>> {
    move |parameters| {
        let (key, value) = parameters[0].clone();
        let number = || i32::from_ne_bytes(value.as_slice().try_into().unwrap());
        let found = match key.to_str().unwrap() {
            "jid" => jails.iter().find(|jail| jail.jid == number()),
            "lastjid" => jails.iter().find(|jail| jail.jid > number()),
            "name" => jails.iter().find(|jail| [jail.name, &[0]].concat() == value),
            other => panic!("{other}"),
        };
        let Some(jail) = found else { return Ok(None) };
        for (name, value) in parameters.iter_mut().skip(1) {
            let told = match name.to_str().unwrap() {
                "name" => [jail.name, &[0]].concat(),
                "path" => [b"/jails/", jail.name, &[0]].concat(),
                "parent" => jail.parent.to_ne_bytes().to_vec(),
                "dying" => 0_i32.to_ne_bytes().to_vec(),
                "vnet" => jail.vnet.to_ne_bytes().to_vec(),
                "ip4" => JAIL_SYS_INHERIT.to_ne_bytes().to_vec(),
                "ip4.addr" => jail.addresses.concat(),
                other => panic!("a kernel without {other}"),
            };
            if told.len() > value.len() {
                return Err(Error::new(Kind::System, "jail_get: Invalid argument"));
            }
            *value = told;
        }
        Ok(Some(jail.jid))
    }
}

const FEATURES: Features = Features { families: PerFamily { inet: true, inet6: false }, vimage: true };

#[test]
fn jails_in_jails() {
    let kernel = kernel(vec![
        Recorded { vnet: JAIL_SYS_NEW, ..Recorded::new(1, b"web") },
        Recorded { parent: 1, ..Recorded::new(2, b"web.in") },
        Recorded { addresses: vec![[10, 9, 0, 2]], ..Recorded::new(5, b"flat") },
        Recorded::new(6, b"hosty"),
    ]);
    let found = all(&kernel, FEATURES).unwrap();
    assert_eq!(found.skipped, []);
    let seen: Vec<_> =
        found.jails.iter().map(|jail| (jail.jid, jail.name.as_str(), jail.vnet, jail.inherits)).collect();
    let inherits = PerFamily::only(Family::Inet);
    assert_eq!(
        seen,
        [(1, "web", true, NONE), (2, "web.in", true, NONE), (5, "flat", false, NONE), (6, "hosty", false, inherits)]
    );
    assert_eq!(found.jails.iter().map(|jail| jail.stack).collect::<Vec<_>>(), [1, 1, 0, 0]);
    assert_eq!(found.jails[0].path, "/jails/web");
    assert_eq!(found.jails[2].addresses, ["10.9.0.2".parse::<IpAddr>().unwrap()]);
    for name in ["flat", "5"] {
        assert_eq!(named(&kernel, FEATURES, name).unwrap().as_ref(), Some(&found.jails[2]));
    }
    for name in ["", "05", "-1", "7", "fla", "flat\0"] {
        assert_eq!(named(&kernel, FEATURES, name).unwrap(), None, "{name:?}");
    }
}

#[test]
fn a_jail_that_cannot_be_read_does_not_hide_others() {
    let too_many = vec![[10, 0, 0, 1]; MOST_ADDRESSES + 1];
    let jails = kernel(vec![
        Recorded::new(1, b"a"),
        Recorded::new(2, b"a.\xff\x1b"),
        Recorded { addresses: too_many, ..Recorded::new(3, b"many") },
        Recorded::new(4, b"d"),
    ]);
    let found = all(&jails, FEATURES).unwrap();
    assert_eq!(found.jails.iter().map(|jail| jail.jid).collect::<Vec<_>>(), [1, 4]);
    let skipped: Vec<_> =
        found.skipped.iter().map(|jail| (jail.jid, jail.name.as_deref(), jail.why.as_str())).collect();
    assert_eq!(
        skipped,
        [
            (2, None, r#"the name of jail 2, "a.\xff\x1b", is not UTF-8: rename it"#),
            (3, Some("many"), "jail_get: Invalid argument"),
        ]
    );
    // a lookup of that jail reports the error
    assert_eq!(named(&jails, FEATURES, "2").unwrap_err().kind(), Kind::Unsupported);
    assert!(named(&jails, FEATURES, "d").unwrap().is_some());
}

#[test]
fn a_kernel_that_refuses_is_an_error() {
    let refused = |_: &mut Vec<Parameter>| Err(Error::new(Kind::Permission, "jail_get: Operation not permitted"));
    assert_eq!(all(&refused, FEATURES).unwrap_err().kind(), Kind::Permission);
}
