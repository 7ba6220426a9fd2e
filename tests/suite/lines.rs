//! kport.conf(5): the words of a line, the jails that it is for, the files, and what `kport check` finds.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use kport::conf::{self, Conf, Line};
use kport::error::Kind;
use kport::host::Fixed;

fn one(text: &str) -> Line {
    let conf = Conf::parse("kport.conf", text).unwrap();
    assert_eq!(conf.lines.len(), 1, "{text}");
    conf.lines[0].clone()
}

#[test]
fn a_line_is_what_publish_takes() {
    let line = one(
        "# comment\nweb 8080:80 --sources 192.0.2.0/24 8443:443/tcp,udp --sources=<friends> --no-quick -a 10.0.0.2\n",
    );
    assert_eq!(line.to_string(), "kport.conf:2");
    let request = line.request(&"web".parse().unwrap());
    assert_eq!(request.spec.to_string(), "8080:80/tcp 8443:443/tcp 8443:443/udp");
    assert_eq!(request.options.sources.len(), 2);
    assert!(!request.options.quick && request.configured && !request.add);
    assert_eq!(request.addresses, ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]);
    let quoted = one("\"a b\" \"*:80:80\" 81");
    assert_eq!(quoted.request(quoted.jail().unwrap()).spec.to_string(), "*:80:80/tcp 81:81/tcp");
}

#[test]
fn a_pattern_is_for_every_jail_with_a_match() {
    let line = one("/^ci-/ auto:22");
    let is_of = |name: &str| line.is_of(&name.parse().unwrap());
    assert!(is_of("ci-1") && is_of("ci-") && !is_of("web") && !is_of("a.ci-1"));
    assert_eq!(line.request(&"ci-7".parse().unwrap()).jail.as_str(), "ci-7");
    assert!(one("\"/^(a|b c)$/\" 80").is_of(&"b c".parse().unwrap()));
}

#[test]
fn a_mistake_has_its_line_and_its_offset() {
    for (text, at, word) in [
        ("web", "at byte 3", "ports are missing"),
        ("web 8080:80 80:x", "at byte 15", "expected a port"),
        ("web  \"*:80:x\"", "at byte 11", "expected a port"),
        ("/^ci-/", "at byte 6", "ports are missing"),
        ("/^ci- 80", "at byte 0", "ends with /"),
        ("/(/ 80", "at byte 1", "(\""),
        ("// 80", "at byte 0", "1 to 1024 bytes"),
        ("web 80 --sorces x", "at byte 7", "no option \"sorces\""),
        ("web 80 --sources", "at byte 7", "needs a value"),
        ("web 80 --sources x", "at byte 7", "--sources: source \"x\""),
        ("web 80 --log=1", "at byte 7", "takes no value"),
        ("web 80 --rate 1/2 --rate 1/3", "at byte 18", "given twice"),
        ("web 80 --add", "at byte 7", "omit --add"),
        ("web 80 -x", "at byte 7", "no option"),
        ("8080:80", "at byte 0", "name of the jail comes first"),
        ("/x/ 80 --no-jail -a 10.0.0.9", "at byte 0", "a pattern is for jails"),
        ("web 80 --hook", "at byte 7", "no option"),
        ("web 80 --jid 3", "at byte 7", "no option"),
        ("jéil\u{a0}80:x", "at byte 10", "expected a port"),
    ] {
        let error = Conf::parse("kport.conf", &format!("# first\n{text}\n")).unwrap_err();
        let message = error.message();
        assert!(
            message.starts_with("kport.conf:2: ") && message.contains(at) && message.contains(word),
            "{text}: {message}"
        );
    }
}

proptest::proptest! {
    /// Any text is read or refused, with the line.
    #[test]
    fn any_text(text in "([a-z/^(\"# -]|8080:80|--log|--rate|1/2|\n){0,40}") {
        if let Err(error) = Conf::parse("FILE", &text) {
            proptest::prop_assert!(error.message().starts_with("FILE:"), "{}", error);
        }
    }
}

#[test]
fn blanks_comments_and_quotes() {
    for (text, jail, words) in [
        ("web\t8080:80 #x", "web", &["8080:80"][..]),
        (" a#b \"80\" \"\" # \"", "a#b", &["80", ""]),
        ("\"c d#\" 80", "c d#", &["80"]),
        ("jéil\u{a0}80", "jéil", &["80"]),
    ] {
        let line = one(text);
        assert_eq!(
            (line.jail().unwrap().as_str(), &line.words[..]),
            (jail, &words.iter().map(|w| w.to_string()).collect::<Vec<_>>()[..])
        );
    }
    assert!(Conf::parse("f", "\n  \n  # web 8080\n").unwrap().lines.is_empty());
    for (text, at) in [("web \"a", 4), ("web \"a\"b", 7), ("web a\"b\"", 5), ("é\u{a0}a\"", 5)] {
        let error = Conf::parse("f", text).unwrap_err();
        assert_eq!(error.offset(), Some(at), "{error}");
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn the_file_and_then_the_directory_in_order() {
    let top = tempfile::tempdir().unwrap();
    let file = top.path().join("kport.conf");
    assert_eq!(Conf::read(Some(&file)).unwrap_err().kind(), Kind::Argument);
    fs::write(&file, "a 1").unwrap();
    let dir = top.path().join("kport.conf.d");
    fs::create_dir(&dir).unwrap();
    for name in ["b.conf", "a.conf", "note.txt", ".c.conf"] {
        fs::write(dir.join(name), format!("{name} 1")).unwrap();
    }
    let conf = Conf::read(Some(&file)).unwrap();
    let jails: Vec<_> = conf.lines.iter().map(|line| line.jail().unwrap().as_str()).collect();
    assert_eq!(jails, ["a", "a.conf", "b.conf"]);
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let top = tempfile::tempdir().unwrap();
    let file = top.path().join("kport.conf");
    fs::write(&file, "").unwrap();
    let dir = top.path().join("kport.conf.d");
    fs::create_dir(&dir).unwrap();
    let inner = dir.join("x.conf");
    fs::write(&inner, "").unwrap();
    assert!(Conf::read(Some(&file)).is_ok());
    for path in [&file, &dir, &inner, &top.path().to_owned()] {
        let before = fs::metadata(path).unwrap().mode();
        for open in [0o020, 0o002] {
            mode(path, before | open);
            let error = Conf::read(Some(&file)).unwrap_err();
            assert_eq!(error.kind(), Kind::Permission, "{path:?}");
            assert!(error.message().contains("chmod go-w"), "{error}");
        }
        mode(path, before);
    }
    let link = top.path().join("link.conf");
    symlink(&file, &link).unwrap();
    assert_eq!(Conf::read(Some(&link)).unwrap_err().kind(), Kind::Permission);
    // neither a pipe nor a directory is a file
    assert_eq!(Conf::read(Some(top.path())).unwrap_err().kind(), Kind::Permission);
    fs::write(&inner, b"\xff").unwrap();
    assert!(Conf::read(Some(&file)).unwrap_err().message().contains("x.conf is not UTF-8"));
}

fn host() -> Fixed {
    r#"{
        "gateway": { "inet": "em0" },
        "interfaces": [ { "name": "em0", "up": true, "addresses": [ "192.0.2.1/24" ] },
                        { "name": "em1", "groups": [ "wan" ], "up": true, "addresses": [ "198.51.100.1/24" ] } ],
        "jails": [ { "jid": 1, "name": "ci-1" }, { "jid": 2, "name": "ci-2" }, { "jid": 3, "name": "x", "dying": true } ]
    }"#
    .parse()
    .unwrap()
}

fn checked(text: &str, host: &Fixed) -> Vec<String> {
    let conf = Conf::parse("k", text).unwrap();
    conf::check(&conf, host).unwrap().iter().map(|error| error.message().to_owned()).collect()
}

#[track_caller]
fn found(text: &str, words: &[&str]) {
    let found = checked(text, &host());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(words.iter().all(|word| found[0].contains(word)), "{found:?}");
}

#[test]
fn nothing_is_wrong() {
    let fine = "web 8080:80 53:53/udp,tcp em1:8080:80\nweb 8081:81 --log\ndb 8082:80 wan:8080:80/udp\n/^ci-/ auto:22\n";
    assert_eq!(checked(fine, &host()), [""; 0]);
    assert_eq!(checked("", &host()), [""; 0]);
}

#[test]
fn ports_that_two_jails_would_have() {
    found("web 8080:80\n\ndb *:8080-8081:80\n", &["k:", "k:1", "k:3", "jail \"web\"", "jail \"db\""]);
    found("web wan:80:80\ndb em1:80:80\n", &["k:2", "80 on "]);
    found("web 8080:80\nweb em0:8080:81\n", &["k:2", "the same jail", "k:1"]);
    // by a pattern, of two jails that run
    found("/^ci-/ 8022:22\n", &["k:1", "\"ci-1\"", "\"ci-2\""]);
    assert_eq!(checked("/^x$/ 8022:22\n/^y/ 8022:22", &host()), [""; 0]);
}

#[test]
fn what_the_host_lacks() {
    found("web em7:80:80", &["k:1: ", "no interface or interface group em7"]);
    found("web 192.0.2.99:80:80", &["k:1: ", "not an address of this host"]);
    assert_eq!(checked("web 192.0.2.99:80:80 --force", &host()), [""; 0]);
    let away = Fixed { gateway: Default::default(), ..host() };
    assert!(checked("web 80", &away)[0].contains("no default route"));
    assert_eq!(checked("web 80 --gateway em1", &away), [""; 0]);
}

#[test]
fn what_publish_would_refuse_whatever_the_host_is() {
    found("web 53:53/udp --rate 1/2", &["k:1: "]);
    found("web lo0:80:80", &["k:1: ", "only the host itself"]);
    found("web 80 -a 127.0.0.1", &["k:1: ", "loopback"]);
}
