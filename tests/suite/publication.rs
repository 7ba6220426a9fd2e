//! Publications: the targets of redirects, what pf supports, what others may not overlap.

use std::net::{IpAddr, Ipv4Addr};

use kport::error::Kind;
use kport::name::JailName;
use kport::options::Options;
use kport::publication::{Publication, Targets, redirects};

#[test]
fn a_record_without_the_newer_options_is_read() {
    let old = r#"{"jail":"web","redirects":[],"options":{"reach":["bridge"]}}"#;
    let read: Publication = serde_json::from_str(old).unwrap();
    assert_eq!(read.options, Options { reach: vec!["bridge".parse().unwrap()], ..Options::default() });
}

#[test]
fn a_loopback_address_of_a_jail() {
    let jail: JailName = "old".parse().unwrap();
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
    let choose = |given: &[&str], own: &[&str]| Targets::choose_of(&jail, &addresses(given), &addresses(own));
    assert_eq!(choose(&["127.0.1.1"], &["127.0.1.1"]).unwrap().inet, Some(Ipv4Addr::new(127, 0, 1, 1)));
    assert_eq!(choose(&["127.0.0.1", "127.9.0.1"], &["127.0.0.1", "127.9.0.1"]).unwrap().inet.unwrap().octets()[1], 9);
    for (given, own, why) in [
        (&["127.0.1.1"][..], &[][..], "127.0.1.1 is a loopback address that is not the jail's own (ip4.addr)"),
        (&["127.0.1.1"], &["127.0.1.2"], "not the jail's own"),
        (&["127.0.0.1"], &["127.0.0.1"], "127.0.0.1 is a loopback address, which is the host's own"),
        (&["::1"], &["::1"], "::1 is a loopback address, which is the host's own"),
    ] {
        let error = choose(given, own).unwrap_err();
        assert_eq!(error.kind(), Kind::Argument);
        assert!(error.message().contains(why) && error.message().contains("outside of 127.0.0.0/8"), "{error}");
        assert!(!error.message().contains("-a"), "{error}");
    }
    for embedded in ["64:ff9b::a00:2", "::ffff:10.0.0.2"] {
        let error = choose(&[embedded], &[]).unwrap_err();
        assert!(error.message().contains("give the IPv4 address 10.0.0.2"), "{error}");
    }
    // an address of another kind has another reason
    let error = choose(&["169.254.0.1"], &["169.254.0.1"]).unwrap_err();
    assert!(error.message().ends_with("not routed; give the jail another address"), "{error}");
    assert_eq!(choose(&[], &[]).unwrap_err().kind(), Kind::Unavailable);
}

#[test]
fn the_ports_of_sctp_stay() {
    let jail: JailName = "web".parse().unwrap();
    let targets = Targets::choose(&jail, &["10.0.0.2".parse().unwrap()]).unwrap();
    let publish = |spec: &str| {
        let redirects = redirects(&jail, &spec.parse().unwrap(), &targets, |_| "em0".parse())?;
        Publication::new(jail.clone(), redirects, Options::default(), |_| Ok(None))
    };
    for spec in ["80/sctp", "80:80/sctp", "em0:7000-7010:7000/sctp", "8080:80 80:80/sctp"] {
        publish(spec).unwrap_or_else(|error| panic!("{spec}: {error}"));
    }
    for spec in ["8080:80/sctp", "8080:80/tcp,sctp", "em0:7000-7010:7001/sctp"] {
        assert_eq!(publish(spec).unwrap_err().kind(), Kind::Unsupported, "{spec}");
    }
    assert_eq!(
        publish("8080:80/sctp").unwrap_err().message(),
        "sctp 8080 on em0 -> 10.0.0.2:80: pf does not change the ports of sctp, so this would lead to port 8080 of the jail; \
         publish 80:80/sctp, or let the service listen on 8080"
    );
}

#[test]
fn host_access_answers_for_loopback() {
    let jail: JailName = "web".parse().unwrap();
    let targets = Targets::choose(&jail, &["10.0.0.2".parse().unwrap()]).unwrap();
    let redirects = redirects(&jail, &"em0:8080:80".parse().unwrap(), &targets, |_| "em0".parse()).unwrap();
    let options = Options { host_access: true, ..Options::default() };
    let publication = Publication::new(jail, redirects, options, |_| Ok(None)).unwrap();
    let places: Vec<String> = publication.claims().iter().map(|claim| claim.place.to_string()).collect();
    assert_eq!(places, ["em0", "127.0.0.1"]);
}
