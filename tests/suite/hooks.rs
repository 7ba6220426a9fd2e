//! What hooks tell of their jail, and the hooks in configuration files.

use kport::error::{Kind, Result};
use kport::host::Fixed;
use kport::managers::{self, Caller, Environment, ExecStatement, Identity, Root};

fn host() -> Fixed {
    r#"{ "jails": [ { "jid": 2, "name": "web" }, { "jid": 3, "name": "gone", "dying": true } ] }"#.parse().unwrap()
}

fn find_with(
    variables: &[(&str, &str)], state: Option<Identity>, given: (Option<&str>, Option<i32>),
) -> Result<Caller> {
    let environment =
        |name: &str| variables.iter().find(|variable| variable.0 == name).map(|variable| variable.1.to_owned());
    Caller::find(&Environment(&environment), state, given, &host())
}

fn find(variables: &[(&str, &str)]) -> Result<Caller> {
    find_with(variables, None, (None, None))
}

fn caller(jail: &str, jid: Option<i32>, addresses: &[&str], calls_after_failure: Option<&'static str>) -> Caller {
    let addresses = addresses.iter().map(|a| a.to_string()).collect();
    Caller { jail: jail.parse().unwrap(), jid, addresses, calls_after_failure }
}

#[test]
fn every_manager_is_understood() {
    assert_eq!(find(&[("JNAME", "web"), ("JID", "2"), ("JPATH", "/")]), Ok(caller("web", Some(2), &[], None)));
    assert_eq!(find(&[("JNAME", "web")]), Ok(caller("web", None, &[], None)));
    assert_eq!(find(&[("JID", "2")]), Ok(caller("web", Some(2), &[], None)));
    let pot = [
        ("_POT_NAME", "www"),
        ("_POT_JID", "7"),
        ("_POT_IP", "10.192.0.3"),
        ("_POT_IP_0", "10.192.0.3"),
        ("_POT_IP_1", "fd00::3"),
    ];
    assert_eq!(find(&pot), Ok(caller("www", Some(7), &["10.192.0.3", "fd00::3"], None)));
    let cbsd = [("jname", "jail1"), ("ipv4_first", "10.0.0.5/24"), ("ipv6_first", ""), ("nic_address", "0")];
    assert_eq!(find(&cbsd), Ok(caller("jail1", None, &["10.0.0.5"], Some("CBSD"))));
    assert_eq!(find(&[("jname", "jail1"), ("ipv4_first", "DHCP")]), Ok(caller("jail1", None, &[], Some("CBSD"))));
}

#[test]
fn a_state_replaces_the_environment() {
    let state = Identity { name: Some("c0ffee".to_owned()), jid: Some(9), ..Identity::by("the OCI state") };
    let variables = [("JNAME", "web")];
    for variables in [&[][..], &variables] {
        let found = find_with(variables, Some(state.clone()), (None, None));
        assert_eq!(found, Ok(caller("c0ffee", Some(9), &[], None)));
    }
    assert!(find_with(&[], Some(state), (Some("web"), None)).unwrap_err().message().contains("the OCI state"));
}

#[test]
fn a_disagreement_names_both_sides() {
    let fails = |variables: &[(&str, &str)], given, words: &[&str]| {
        let error = find_with(variables, None, given).unwrap_err();
        assert!(words.iter().all(|word| error.message().contains(word)), "{error}");
    };
    fails(&[("JNAME", "web")], (Some("db"), None), &["JNAME", "\"web\"", "command line", "\"db\""]);
    fails(&[("JNAME", "web"), ("JID", "2")], (None, Some(3)), &["jid 2", "jid 3"]);
    fails(&[("JNAME", "web"), ("_POT_NAME", "www")], (None, None), &["_POT_NAME", "\"www\"", "JNAME", "\"web\""]);
    fails(&[("JNAME", "web"), ("JID", "two")], (None, None), &["JID", "two"]);
    fails(&[("JNAME", "web"), ("JID", "-1")], (None, None), &["JID", "-1"]);
    fails(&[], (None, None), &["finds no jail", "JNAME", "_POT_NAME", "jname", "name the jail"]);
    fails(&[("JNAME", "")], (None, None), &["finds no jail"]);
    fails(&[("JID", "77")], (None, None), &["no jail 77"]);
    assert_eq!(
        find_with(&[("JNAME", "web"), ("JID", "2")], None, (Some("web"), Some(2))),
        Ok(caller("web", Some(2), &[], None))
    );
    assert_eq!(find_with(&[], None, (Some("ioc-web"), None)), Ok(caller("ioc-web", None, &[], None)));
}

#[test]
fn a_start_that_failed_publishes_nothing() {
    let cbsd = Some("CBSD");
    assert_eq!(caller("web", None, &[], cbsd).check_started(&host()), Ok(()));
    for name in ["db", "gone"] {
        assert_eq!(caller(name, None, &[], cbsd).check_started(&host()).unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(caller(name, None, &[], None).check_started(&host()), Ok(()));
    }
}

/// The hooks of jail(8) on a host with these files.
fn hooks(files: &[(&str, &str)]) -> Vec<ExecStatement> {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let jail = managers::ALL.iter().find(|manager| manager.name == "jail").unwrap();
    (jail.hook_files)(&Root::new(dir.path())).into_iter().flat_map(|file| file.statements).collect()
}

#[test]
fn jail_conf_as_people_write_it() {
    let text = "\
# exec.poststart = \"kport publish no\";
exec.start = \"/bin/sh /etc/rc\"; // and so on
path = \"/jails/$name\"; /* exec.stop = \"x\";
*/
exec.poststart = '/usr/local/bin/kport publish --hook 8080:80';
* { exec.prestop = \"kport unpublish web\"; }
\"web\" {
	host.hostname = ${name}.example;
	exec.poststart += \"a, \\\"b\\\"\", \"kport publish db 80\";
}
www { name = \"web\"; exec.clean; exec.poststop = \"kport unpublish web\"; }
.include \"/etc/jail.conf.d/*.conf\";
";
    let found = hooks(&[("etc/jail.conf", text), ("etc/jail.conf.d/db.conf", "exec.stop = \"x\";")]);
    let shown: Vec<String> =
        found.iter().map(|s| format!("{} {:?} {} {} {:?}", s.line, s.jail, s.parameter, s.appends, s.values)).collect();
    assert_eq!(
        shown,
        [
            "2 None exec.start false [\"/bin/sh /etc/rc\"]",
            "5 None exec.poststart false [\"/usr/local/bin/kport publish --hook 8080:80\"]",
            "6 None exec.prestop false [\"kport unpublish web\"]",
            "9 Some(\"web\") exec.poststart true [\"a, \\\"b\\\"\", \"kport publish db 80\"]",
            "11 Some(\"web\") exec.poststop false [\"kport unpublish web\"]",
            // of the file that is included
            "1 None exec.stop false [\"x\"]",
        ]
    );
}

#[test]
fn patterns_of_includes() {
    for (pattern, found) in [
        ("/a/*.conf", &["/a/x.conf", "/a/y.conf"][..]),
        ("/*/x.conf", &["/a/x.conf", "/b/x.conf"]),
        ("/a/?.c*f", &["/a/x.conf", "/a/y.conf"]),
        ("/a/x.conf", &["/a/x.conf"]),
        // of the directory of the file
        ("jails/*.conf", &["/etc/jails/z.conf"]),
        ("/none/*", &[]),
        ("/a/**z**", &[]),
    ] {
        let main = format!(".include \"{pattern}\";");
        let hook = "exec.stop = \"x\";";
        let files = ["a/x.conf", "a/y.conf", "a/.z.conf", "b/x.conf.old", "b/x.conf", "etc/jails/z.conf"];
        let files: Vec<(&str, &str)> =
            files.into_iter().map(|file| (file, hook)).chain([("etc/jail.conf", &*main)]).collect();
        let read: Vec<String> = hooks(&files).iter().map(|hook| hook.path.display().to_string()).collect();
        assert_eq!(read, found, "{pattern}");
    }
}

proptest::proptest! {
    /// Any text is read to its end without a panic, and no line number exceeds it.
    #[test]
    fn anything_is_read(text in ".*", parts in proptest::collection::vec(proptest::sample::select(vec![
        "exec.poststart", "=", "+=", ";", "{", "}", "\"", "'", "#", "//", "/*", "*/", "$", "${", "kport publish", "\\", "\n", ",",
    ]), 0..40)) {
        for text in [text, parts.join("")] {
            proptest::prop_assert!(hooks(&[("etc/jail.conf", &text)]).iter().all(|found| (1..=text.split('\n').count()).contains(&found.line)));
        }
    }
}
