//! The lines that rc.conf(5) and sysctl.conf(5) need.

use kport::cli::setup::replace::ConfFile;
use kport::cli::setup::settings::{Additions, Format, Later, Variable, plan, undone};

fn wanted() -> Vec<Variable> {
    ["pf_enable", "gateway_enable"].map(|name| (name, "YES".to_owned())).into()
}

fn rc(text: &str) -> Additions {
    plan(Format::Rc, text, &wanted(), &[])
}

const BOTH: [&str; 2] = ["pf_enable=\"YES\"", "gateway_enable=\"YES\""];

#[test]
fn an_rc_conf_gets_what_it_lacks() {
    for text in ["", "hostname=a\n", "pf_enable=\"NO\"\n", "#pf_enable=YES\n"] {
        let plan = rc(text);
        assert_eq!(plan.lines, BOTH, "{text}");
        let once = plan.applied(text.as_bytes());
        let shown = std::str::from_utf8(&once).unwrap();
        assert_eq!(rc(shown), Additions { notes: vec![], ..Additions::default() }, "{shown}");
        assert_eq!(undone(Format::Rc, &once), text.as_bytes());
    }
    assert_eq!(rc("pf_enable=NO\n").notes, ["line 1: pf_enable is \"NO\"; the last line wins"]);
    assert_eq!(rc("pf_enable=yes gateway_enable='On'\n"), Additions::default());
    assert_eq!(rc("pf_enable=YES\npf_enable=NO\n").lines, BOTH);
    // bytes that are not UTF-8, and a last line without a newline
    let text = b"# caf\xe9\na=\"\xff\"";
    let once = rc(&String::from_utf8_lossy(text)).applied(text);
    assert!(once.starts_with(text) && once.ends_with(b"\ngateway_enable=\"YES\" # kport setup\n"), "{once:?}");
    assert_eq!(rc(&String::from_utf8_lossy(&once)), Additions::default());
    assert_eq!(undone(Format::Rc, &once), text);
}

#[test]
fn what_is_changed_afterwards_is_not_undone() {
    let theirs =
        b"pf_enable=\"NO\" # kport setup\nother=\"YES\" # kport setup\n ipv6_cpe_wanif=\"em0\" # kport setup\n";
    assert_eq!(undone(Format::Rc, theirs), theirs);
    assert_eq!(
        undone(Format::Rc, b"ipv6_cpe_wanif=\"em0\" # kport setup\nipv6_cpe_wanif=\"em0\"\n"),
        b"ipv6_cpe_wanif=\"em0\"\n"
    );
}

#[test]
fn an_rc_conf_that_is_a_program() {
    let by_hand = rc("a=b\nif x; then\npf_enable=YES\nfi\n");
    assert_eq!(by_hand.lines, BOTH);
    assert!(by_hand.by_hand[0].starts_with("line 4: \"fi\" is not an assignment"), "{by_hand:?}");
    let shown = by_hand.to_string();
    assert!(shown.contains("by hand:\n    pf_enable=\"YES\"\n"), "{shown}");
    assert_eq!(rc(". /x\npf_enable=YES\ngateway_enable=YES\n"), Additions::default());
    assert_eq!(rc("x=$(date)\n").by_hand, ["line 1: the result of this expansion is unknown"]);
    assert_eq!(rc("pf_enable=$x\ngateway_enable=YES\n").lines, ["pf_enable=\"YES\""]);
    assert!(!rc("pf_enable=$x\ngateway_enable=YES\n").by_hand.is_empty());
}

#[test]
fn a_file_that_is_read_later_wins() {
    let file = |text: &str| ConfFile { path: "rc.conf.local".into(), text: text.into(), ..ConfFile::default() };
    let later = |text: &str, only| -> [Later; 1] { [(file(text), only)] };
    let of = |text, only| plan(Format::Rc, "", &wanted(), &later(text, only));
    assert_eq!(of("pf_enable=YES\n", &[]).lines, [BOTH[1]]);
    let no = of("x=y\npf_enable=NO\n", &["pf_enable"]);
    assert_eq!(no.by_hand, ["rc.conf.local line 2: pf_enable is \"NO\", which wins; change it to pf_enable=\"YES\""]);
    assert_eq!(of("pf_enable=NO\n", &["gateway_enable"]).lines, BOTH);
    assert_eq!(of("x=`y`\n", &[]).lines, BOTH);
}

#[test]
fn sysctl_conf() {
    let settings = [("net.pf.filter_local", "1".to_owned())];
    let of = |text: &str| plan(Format::Sysctl, text, &settings, &[]);
    for text in ["", "# net.pf.filter_local=1\n", "net.pf.filter_local=1\nnet.pf.filter_local: 0 # no\n", "nonsense\n"]
    {
        let made = of(text).applied(text.as_bytes());
        let shown = std::str::from_utf8(&made).unwrap();
        assert!(shown.ends_with("net.pf.filter_local=1 # kport setup\n"), "{shown}");
        assert_eq!(of(shown), Additions::default());
        assert_eq!(undone(Format::Sysctl, &made), text.as_bytes());
    }
    for text in ["net.pf.filter_local=1\n", " net.pf.filter_local : \"1\"  # yes\n"] {
        assert_eq!(of(text), Additions::default(), "{text}");
    }
}
