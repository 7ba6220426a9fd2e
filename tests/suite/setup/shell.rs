//! The assignments of an rc.conf(5).

use kport::cli::setup::shell::read;

fn values(text: &str) -> Vec<(usize, String, Option<String>)> {
    read(text).unwrap().assignments.into_iter().map(|a| (a.line, a.name, a.value)).collect()
}

#[test]
fn assignments() {
    let text = "# rc.conf\nhostname=\"a b\"  # x=1\n\npf_enable=YES; b='c'\\''d' e=\"\\\"\\x\"\nlist=\"one\n two\"\nf=\"$g\"\nh=#\n";
    let is = |line, name: &str, value: &str| (line, name.to_owned(), Some(value.to_owned()));
    assert_eq!(
        values(text),
        [
            is(2, "hostname", "a b"),
            is(4, "pf_enable", "YES"),
            is(4, "b", "c'd"),
            is(4, "e", "\"\\x"),
            is(6, "list", "one\n two"),
            (7, "f".to_owned(), None),
            is(8, "h", "#"),
        ]
    );
    assert_eq!(read(text).unwrap().other, None);
    // joined lines, and one that does not end
    assert_eq!(values("a=b\\\nc\nd=e"), [is(2, "a", "bc"), is(3, "d", "e")]);
    assert_eq!(values("a=${b}\n"), [(1, "a".to_owned(), None)]);
}

#[test]
fn what_is_no_assignment() {
    for (text, line, word) in [
        (". /etc/rc.conf.site\na=b\n", 1, "."),
        ("a=b\nif [ -e /x ]; then\n a=c\nfi\n", 4, "fi"),
        ("export a=b\n", 1, "export"),
        ("a=b true\n", 1, "true"),
        ("a+=b\n", 1, "a+=b"),
        ("f() {\n a=b\n}\n", 3, "}"),
        ("'a'=b\n", 1, "a=b"),
        ("a=b && exit\n", 1, "&&"),
    ] {
        assert_eq!(read(text).unwrap().other, Some((line, word.to_owned())), "{text}");
    }
}

#[test]
fn what_cannot_be_read() {
    for (text, why) in [
        ("a=\"b\nc=d\n", "line 1: a quote is not closed"),
        ("a=b\nc='d\n", "line 2: a quote is not closed"),
        ("a=$(b)\n", "line 1"),
        ("\na=\"`b`\"\n", "line 2"),
        ("a=${b:-\"c\"}\n", "line 1"),
        ("cat <<E\n", "here-document"),
        ("a=b \\\n", "backslash"),
        ("a=b\\", "backslash"),
    ] {
        assert!(read(text).is_err_and(|said| said.contains(why)), "{text}: {:?}", read(text).err());
    }
}
