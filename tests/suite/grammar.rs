//! The grammar: what each spec means, the message for each mistake, and that nothing panics.

use kport::error::Kind;
use kport::net::{Family, Place, PortRange, Protocol};
use kport::spec::{HostPorts, Mapping, Spec, parse};
use proptest::prelude::*;

/// Text, and the same with every field: place, host ports, jail ports and protocol of each mapping.
const GOOD: &[(&str, &str)] = &[
    // the table of Kleene's "Publishing ports"
    ("8080", "8080:8080/tcp"),
    ("8080:80", "8080:80/tcp"),
    ("em1:8080:80", "em1:8080:80/tcp"),
    ("8080:80/udp", "8080:80/udp"),
    ("8080:80/tcp 8080:80/udp", "8080:80/tcp 8080:80/udp"),
    ("em0:8080:80 em1:8080:80", "em0:8080:80/tcp em1:8080:80/tcp"),
    // protocols
    ("53:53/udp,tcp", "53:53/tcp 53:53/udp"),
    ("9/sctp", "9:9/sctp"),
    ("1/tcp,udp,sctp", "1:1/tcp 1:1/udp 1:1/sctp"),
    // ranges
    ("8000-8010", "8000-8010:8000-8010/tcp"),
    ("8000-8010:9000-9010", "8000-8010:9000-9010/tcp"),
    ("8000-8010:9000", "8000-8010:9000-9010/tcp"),
    ("7-7:8", "7:8/tcp"),
    ("1-65535", "1-65535:1-65535/tcp"),
    ("65535", "65535:65535/tcp"),
    // places
    ("em0.10:1:2", "em0.10:1:2/tcp"),
    ("wan:1:2/udp", "wan:1:2/udp"),
    ("vm-public:1:2", "vm-public:1:2/tcp"),
    ("192.0.2.7:1:2", "192.0.2.7:1:2/tcp"),
    ("[2001:db8::1]:1:2", "[2001:db8::1]:1:2/tcp"),
    ("[2001:DB8:0:0::1]:1:2", "[2001:db8::1]:1:2/tcp"),
    ("127.0.0.1:1:2", "127.0.0.1:1:2/tcp"),
    ("*:1:2", "*:1:2/tcp"),
    // a free port
    ("auto:80", "auto:80/tcp"),
    ("em0:auto:80-90", "em0:auto:80-90/tcp"),
    ("auto:8080:80", "auto:8080:80/tcp"),
    ("auto:auto:80", "auto:auto:80/tcp"),
    // white space
    (" \t8080\n8081  ", "8080:8080/tcp 8081:8081/tcp"),
];

/// Text, offset, and what the message must contain.
const BAD: &[(&str, usize, &str)] = &[
    // pot, iocage, Bastille
    ("tcp:80:8080", 0, "comes last: 80:8080/tcp, or, if the jail's port was first as in pot: 8080:80/tcp"),
    ("udp:53:53", 0, "the protocol comes last: 53:53/udp"),
    ("TCP:80", 0, "the protocol comes last: 80/tcp"),
    ("8080 sctp:7:7", 5, "the protocol comes last: 7:7/sctp"),
    ("tcp(80:8080)", 0, "the jail's port after the host's: 8080:80/tcp"),
    ("tcp/udp(53)", 0, "53/tcp,udp"),
    ("udp 8080 80", 0, "the protocol comes last: 8080:80/udp"),
    ("8080:80 tcp", 8, "the protocol comes last: 8080:80/tcp"),
    ("tcp", 0, "the protocol comes last: 8080:80/tcp"),
    ("8080/tcp:80/tcp", 8, "the protocol comes last: 8080:80/tcp"),
    // Docker, podman
    ("localhost:8080:80", 0, "host access, is written 127.0.0.1: 127.0.0.1:8080:80"),
    ("Localhost:8080:80/udp", 0, "127.0.0.1:8080:80/udp"),
    ("localhost:8000-8010:9000-9010", 0, "127.0.0.1:8000-8010:9000-9010"),
    ("ip6-localhost:53", 0, "[::1]:53:53"),
    ("localhost:8080:99999", 0, "127.0.0.1:8080:8080"),
    ("127.0.0.1::80", 10, "auto is a free one: 127.0.0.1:auto:80"),
    ("0.0.0.0::80/udp", 8, "auto is a free one: 0.0.0.0:auto:80/udp"),
    ("[::]::80", 5, "auto is a free one: [::]:auto:80"),
    ("*::80-90", 2, "auto is a free one: *:auto:80-90"),
    (":80", 0, "auto is a free one: auto:80"),
    (":80/udp", 0, "auto is a free one: auto:80/udp"),
    ("em0::", 4, "auto is a free one: em0:auto:80"),
    ("80,443", 2, "separated by white space"),
    // pf, Bastille's rdr.conf
    ("49152:65535:49152:65535", 11, "a range has a dash: 49152-65535:49152-65535"),
    ("8000:8010:9000:9010/udp", 9, "a range has a dash: 8000-8010:9000-9010/udp"),
    ("8000:8010:9000:*", 9, "a range has a dash: 8000-8010:9000"),
    ("8000:8010:9000", 9, "*: em0:8080:80; a range has a dash: 8000-8010:9000"),
    ("em0:8000:8010:9000:9010", 13, "a range has a dash: em0:8000-8010:9000-9010"),
    ("[::]:8000:8010:9000:9010/tcp,udp", 14, "a range has a dash: [::]:8000-8010:9000-9010/tcp,udp"),
    ("all:8080:80", 0, "every address of the host is written *: *:8080:80"),
    ("any:80", 0, "every address of the host is written *: *:80:80"),
    ("inet6:8080:80", 0, "[::]:8080:80"),
    ("ipv4:8080:80", 0, "0.0.0.0:8080:80"),
    ("dual:8080:80", 0, "*:8080:80"),
    ("egress:8080:80/udp", 0, "the gateway interface is the default: 8080:80/udp"),
    ("ext_if:8080:80", 0, "the gateway interface is the default: 8080:80"),
    ("", 0, "expected a port spec"),
    ("  ", 2, "expected a port spec"),
    ("443:", 4, "jail port missing"),
    ("443:/tcp", 4, "jail port missing"),
    ("em0:80", 6, "an interface needs host and jail port: em0:80:80"),
    ("em0", 3, "an interface needs host and jail port: em0:8080:80"),
    ("192.0.2.1:80", 12, "an address needs host and jail port: 192.0.2.1:80:80"),
    ("*:80", 4, "* needs host and jail port: *:80:80"),
    ("em0::80", 4, "host port missing"),
    (":80", 0, "host port missing"),
    ("80/TCP", 3, "protocols are lower case: tcp"),
    ("80/Udp", 3, "protocols are lower case: udp"),
    ("80/icmp", 3, "expected tcp, udp or sctp"),
    ("80/", 3, "protocol missing"),
    ("80/tcp,", 7, "protocol missing"),
    ("80/tcp,tcp", 7, "tcp is given twice"),
    ("80/tcp/udp", 6, "write several protocols as tcp,udp"),
    ("8080:080", 5, "no leading zeros: 80"),
    ("080", 0, "no leading zeros: 80"),
    ("0", 0, "ports are 1 to 65535; auto is a free port: auto:80"),
    ("00", 0, "ports are 1 to 65535"),
    ("65536", 0, "ports are 1 to 65535"),
    ("99999999999999999999", 0, "ports are 1 to 65535"),
    ("8080:65536", 5, "ports are 1 to 65535"),
    ("+80", 0, "expected a port"),
    ("80:-80", 3, "ports have no sign"),
    ("80-", 3, "expected the last port of the range"),
    ("90-80", 0, "write 80-90"),
    ("1-3:5-6", 4, "1-3 is 3 ports, 5-6 is 2; give as many, or the first one"),
    ("80:90-91", 3, "80 is 1 ports, 90-91 is 2"),
    ("65000-65010:65530", 12, "11 ports from 65530 on would end above 65535"),
    ("80:80:80", 5, "the first of three fields is an interface"),
    ("em0:80:80:80", 9, "at most three fields"),
    ("8080:http", 5, "ports are numbers"),
    ("2001:db8::1:80:80", 0, "must be in brackets"),
    ("::1:80:80", 0, "must be in brackets"),
    ("fe80::1:80:80", 0, "must be in brackets"),
    ("[2001:db8::1:80:80", 0, "the closing ] is missing"),
    ("[192.0.2.1]:80:80", 1, "expected an IPv6 address"),
    ("[fe80::1%em0]:80:80", 8, "a zone is not part of an address"),
    ("[fe80::1]:80:80", 0, "link-local"),
    ("224.0.0.1:80:80", 0, "multicast"),
    ("192.0.2.256:80:80", 0, "expected an IPv4 address"),
    ("192.0.02.1:80:80", 0, "expected an IPv4 address"),
    ("abcdefghijklmnop:80:80", 0, "at most 15 bytes"),
    ("self:80:80", 0, "every address of the host is written *"),
    ("em0:network:80:80", 4, "ports are numbers"),
    ("em0;reboot:80:80", 3, "letters, digits, _, . and - only"),
    ("\"em0\":80:80", 0, "expected a port"),
    ("em0\":80:80", 3, "letters, digits, _, . and - only"),
    ("８０", 0, "expected a port"),
    ("80 443:", 7, "jail port missing"),
    ("80,81", 2, "expected white space or the end"),
    ("80x", 2, "expected white space or the end"),
    ("80\0", 2, "expected white space or the end"),
    ("auto", 4, "auto needs one: auto:80"),
    ("*80", 1, "needs host and jail port"),
];

#[test]
fn good_specs() {
    for (text, canonical) in GOOD {
        let spec = parse(text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        assert_eq!(spec.to_string(), *canonical, "{text:?}");
        assert_eq!(parse(canonical).unwrap(), spec, "{text:?}");
    }
}

#[test]
fn bad_specs() {
    for (text, offset, hint) in BAD {
        let error = parse(text).expect_err(text);
        assert_eq!(error.kind(), Kind::Spec, "{text:?}");
        assert!(error.message().contains(hint), "{text:?}: {error}");
        assert_eq!(error.offset(), Some(*offset), "{text:?}: {error}");
        assert!(error.message().starts_with(&format!("at byte {offset}: found ")), "{text:?}: {error}");
    }
}

#[test]
fn an_address_without_brackets_gets_a_hint_wherever_the_parser_stops() {
    for (text, bare) in [
        ("2001:db8::1", true),
        ("fe80::1:8080:80", true),
        ("1:2:3:4:5:6:7:8", true),
        (":::80", true),
        ("8080:80/tcp::::", true),
        ("8080 em0::80:", true),
        ("/::::", false),
        ("1.2.3.4::80:", false),
        ("em0:1:2:3", false),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.message().contains("must be in brackets"), bare, "{error}");
    }
}

#[test]
fn what_a_mapping_holds() {
    let spec = parse("em1:8080-8081:80/udp").unwrap();
    let wanted = Mapping {
        place: Some(Place::Interface("em1".parse().unwrap())),
        host: HostPorts::Fixed(PortRange::new(8080, 8081).unwrap()),
        jail: PortRange::new(80, 81).unwrap(),
        protocol: Protocol::Udp,
    };
    assert_eq!(spec.mappings(), [wanted]);
    assert_eq!(parse("8080").unwrap().mappings()[0].place, None);
}

#[test]
fn a_text_without_end_is_refused() {
    let text = "8080 ".repeat(kport::spec::MAX_TEXT / 5 + 1);
    assert_eq!(parse(&text).unwrap_err().kind(), Kind::Spec);
}

fn range() -> impl Strategy<Value = PortRange> {
    (1..=u16::MAX, 0..200u16).prop_map(|(first, more)| PortRange::new(first, first.saturating_add(more)).unwrap())
}

fn place() -> impl Strategy<Value = Option<Place>> {
    let name = "[a-zA-Z][a-zA-Z0-9_.-]{0,14}".prop_filter("a word", |n| parse(&format!("{n}:1:1")).is_ok());
    prop_oneof![
        Just(None),
        Just(Some(Place::Any)),
        (0..2usize).prop_map(|family| Some(Place::AnyOf(Family::ALL[family]))),
        name.prop_map(|n| Some(n.parse::<Place>().unwrap())),
        any::<std::net::IpAddr>().prop_filter_map("no address of a host", |a| Place::address(a).ok().map(Some)),
    ]
}

fn mapping() -> impl Strategy<Value = Mapping> {
    (place(), range(), 1..=u16::MAX, 0..3usize, any::<bool>()).prop_filter_map(
        "the jail's ports end above 65535",
        |(place, range, jail, protocol, auto)| {
            let host = if auto { HostPorts::Auto } else { HostPorts::Fixed(range) };
            let jail = PortRange::starting_at(jail, range.count())?;
            Some(Mapping { place, host, jail, protocol: Protocol::ALL[protocol] })
        },
    )
}

proptest! {
    #[test]
    fn text_and_back(mappings in prop::collection::vec(mapping(), 1..8)) {
        let text = mappings.iter().map(Mapping::to_string).collect::<Vec<_>>().join(" ");
        let spec: Spec = parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        prop_assert_eq!(spec.mappings(), &mappings[..]);
        prop_assert_eq!(spec.to_string(), text);
    }

    #[test]
    fn no_text_panics(text in "\\PC*") {
        check(&text)?;
    }

    #[test]
    fn no_near_miss_panics(text in "[a-z0-9:./,*\\[\\]\\- %é\u{0}-]{0,40}") {
        check(&text)?;
    }
}

proptest! {
    /// The hint for a word of another tool ends with a spec.
    #[test]
    fn the_spec_that_was_meant_is_one(
        word in prop::sample::select(vec!["tcp", "UDP", "sctp", "localhost", "any", "self", "inet6", "egress", "1.2.3.4:", ""]),
        rest in prop::sample::select(vec![":", "(", " ", "/"]),
        fields in prop::collection::vec(prop_oneof![Just(String::new()), "[0-9]{1,5}(-[0-9]{1,5})?", Just("*".to_owned())], 0..5),
        end in prop::sample::select(vec!["", "/udp", "/tcp,udp", ")", "/icmp"]),
    ) {
        let text = format!("{word}{rest}{}{end}", fields.join(":"));
        let Err(error) = parse(&text) else { return Ok(()) };
        let said = error.message();
        for mark in ["comes last: ", "is written", "is the default: ", "free one: ", "has a dash: ", "as in pot: "] {
            if said.contains(mark) {
                let meant = said.rsplit(": ").next().unwrap();
                prop_assert!(parse(meant).is_ok(), "{}: {}", text, said);
            }
        }
    }
}

fn check(text: &str) -> std::result::Result<(), TestCaseError> {
    match parse(text) {
        Ok(spec) => prop_assert_eq!(parse(&spec.to_string()).unwrap(), spec),
        Err(error) => {
            let offset = error.offset().unwrap();
            prop_assert!(text.is_char_boundary(offset) && offset <= text.len());
            prop_assert!(!error.message().contains(char::is_control));
        }
    }
    Ok(())
}
