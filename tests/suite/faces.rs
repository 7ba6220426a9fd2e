//! One suite, two faces: the C functions do what the Rust API does, with the same numbers and the same texts.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::mem::{MaybeUninit, offset_of};
use std::num::NonZeroU32;
use std::path::Path;
use std::{fs, ptr};

use kport::error::{Error, Kind};
use kport::ffi;
use kport::name::JailName;
use kport::net::{Family, PortRange};
use kport::options::{Given, Limits, Options};
use kport::publication::{self, Redirect};
use kport::publisher::{self, Listed, Liveness, Outcome, Publisher, Request, Unobserved};
use kport::rule::{self, Rate};
use kport::session::{Backend, Session, Settings};
use kport::spec::{self};
use tempfile::TempDir;

/// Why a call failed, for both faces.
#[derive(Debug, PartialEq)]
struct Fault {
    status: i32,
    message: String,
    errno: i32,
    offset: Option<usize>,
}

type Answer<T> = Result<T, Fault>;

/// The options of a call. `None` and zero: the default.
#[derive(Clone, Copy, Debug, Default)]
struct Asked<'a> {
    addresses: Option<&'a str>,
    gateway: Option<&'a str>,
    reach: Option<&'a str>,
    sources: Option<&'a str>,
    reply_to: Option<&'a str>,
    trust: Option<&'a str>,
    families: Option<&'a str>,
    flags: u32,
    max: u32,
    max_per_source: u32,
    rate: (u32, u32),
    jid: i32,
    auto: (u16, u16),
}

const WEB: Asked<'_> = Asked {
    addresses: Some("10.0.0.2"),
    gateway: Some("em0"),
    reach: None,
    sources: None,
    reply_to: None,
    trust: None,
    families: None,
    flags: 0,
    max: 0,
    max_per_source: 0,
    rate: (0, 0),
    jid: 0,
    auto: (0, 0),
};

/// A row of a list.
#[derive(Debug, PartialEq)]
struct Line {
    jail: Option<String>,
    anchor: Option<String>,
    jid: i32,
    state: i32,
    redirect: Option<(String, u16, String, u16, u16, u8, u8)>,
}

/// What a change did.
#[derive(Debug, PartialEq)]
struct Did {
    changed: bool,
    ended: u64,
    /// What is published now, and of which jail, if the call was for one.
    rows: Vec<Line>,
    notes: Vec<String>,
}

/// The notice of the simulator.
const NOTICE: &str = "simulator: the rules are kept in files, no packet is redirected";

trait Face {
    fn state_dir(&self) -> &Path;
    /// The spec with every field.
    fn parse(&self, text: &str) -> Answer<String>;
    fn publish(&self, jail: &str, specs: &str, asked: Asked<'_>) -> Answer<Did>;
    fn unpublish(&self, jail: &str, asked: Asked<'_>) -> Answer<Did>;
    fn unpublish_some(&self, jail: &str, specs: &str, asked: Asked<'_>) -> Answer<Did>;
    fn list(&self, jail: Option<&str>) -> Answer<Vec<Line>>;
    /// The rules, as text.
    fn rules(&self, jail: &str, specs: &str, asked: Asked<'_>) -> Answer<String>;
    fn restore(&self) -> Answer<Did>;
    fn gc(&self) -> Answer<Did>;
}

/// The Rust API.
struct Rust(TempDir);

impl Rust {
    fn session(&self) -> Session {
        let settings = Settings { backend: Backend::Sim, state_dir: Some(self.0.path().into()), ..Settings::default() };
        Session::new(&settings, Box::new(kport::host::System)).unwrap()
    }

    fn change(
        &self, jail: Option<&JailName>, act: impl FnOnce(&Publisher<'_>) -> Result<Outcome, Error>,
    ) -> Answer<Did> {
        let session = self.session();
        let outcome = session.publisher(&Unobserved).and_then(|publisher| act(&publisher)).map_err(fault)?;
        let notice = outcome.changed.then(|| NOTICE.to_owned());
        Ok(Did {
            changed: outcome.changed,
            ended: outcome.killed,
            rows: outcome
                .redirects
                .iter()
                .map(|r| Line {
                    jail: jail.map(|jail| jail.to_string()),
                    anchor: jail.map(|jail| jail.anchor().to_string()),
                    jid: 0,
                    state: 1,
                    redirect: Some(fields(r)),
                })
                .collect(),
            notes: notice.into_iter().chain(outcome.notes).collect(),
        })
    }
}

fn fault(error: Error) -> Fault {
    let error = error.in_words(|setting| Some(setting.in_c().to_owned()));
    Fault {
        status: error.kind().number(),
        message: error.message().to_owned(),
        errno: error.errno().unwrap_or(0),
        offset: error.offset(),
    }
}

fn words<T: std::str::FromStr<Err = Error>>(text: &str) -> Result<Vec<T>, Error> {
    text.split_whitespace().map(str::parse).collect()
}

fn request(jail: &str, specs: &str, asked: Asked<'_>) -> Result<Request, Error> {
    let mut request = Request::new(jail.parse()?, spec::parse(specs)?);
    let default = Options::default();
    if let Some(text) = asked.addresses {
        let address = |word| publication::address(&request.jail, word);
        request.addresses = text.split_whitespace().map(address).collect::<Result<_, _>>()?;
    }
    if let Some(text) = asked.trust {
        request.set("trust", &Given::Text(text.to_owned()))?;
    }
    request.gateway = asked.gateway.map(str::parse).transpose()?;
    request.jid = (asked.jid != 0).then_some(asked.jid);
    request.add = asked.flags & ffi::KPORT_ADD != 0;
    if asked.auto != (0, 0) {
        request.auto_range = PortRange::new(asked.auto.0, asked.auto.1).unwrap();
    }
    request.force = asked.flags & ffi::KPORT_FORCE != 0;
    request.allow_inert = asked.flags & ffi::KPORT_ALLOW_INERT != 0;
    request.options = Options {
        af_to: asked.flags & ffi::KPORT_AF_TO != 0,
        reach: asked.reach.map(words).transpose()?.unwrap_or(default.reach),
        sources: asked.sources.map(words).transpose()?.unwrap_or(default.sources),
        limits: Limits {
            connections: NonZeroU32::new(asked.max),
            connections_per_source: NonZeroU32::new(asked.max_per_source),
            rate: if asked.rate == (0, 0) { None } else { Some(Rate::new(asked.rate.0, asked.rate.1)?) },
        },
        reply_to: asked.reply_to.map(|text| match text {
            "none" => vec![],
            routers => routers.split(',').map(|router| router.parse().unwrap()).collect(),
        }),
        hairpin: asked.flags & ffi::KPORT_HAIRPIN != 0,
        host_access: asked.flags & ffi::KPORT_HOST_ACCESS != 0,
        masquerade: asked.flags & ffi::KPORT_MASQUERADE != 0,
        families: vec![],
        log: asked.flags & ffi::KPORT_LOG != 0,
        quick: asked.flags & ffi::KPORT_NO_QUICK == 0,
    };
    if let Some(text) = asked.families {
        request.set("family", &Given::Text(text.to_owned()))?;
    }
    Ok(request)
}

fn fields(r: &Redirect) -> (String, u16, String, u16, u16, u8, u8) {
    let family = if r.family() == Family::Inet { 4 } else { 6 };
    let (place, target) = (r.place.to_string(), r.target.to_string());
    (place, r.host.first(), target, r.jail.first(), r.host.count(), r.protocol.number(), family)
}

fn lines(listed: Vec<Listed>) -> Vec<Line> {
    let mut lines = vec![];
    for jail in listed {
        let line = |redirect| Line {
            jail: jail.jail.as_ref().map(|jail| jail.to_string()),
            anchor: Some(jail.anchor.path().to_owned()),
            jid: jail.jid.unwrap_or(0),
            state: match jail.liveness {
                Liveness::Inert => 4,
                Liveness::Live => 1,
                Liveness::Missing => 2,
                Liveness::Stale => 3,
            },
            redirect,
        };
        if jail.redirects.is_empty() {
            lines.push(line(None));
        }
        lines.extend(jail.redirects.iter().map(|(r, _)| line(Some(fields(r)))));
    }
    lines
}

impl Face for Rust {
    fn state_dir(&self) -> &Path {
        self.0.path()
    }

    fn parse(&self, text: &str) -> Answer<String> {
        spec::parse(text).map(|spec| spec.to_string()).map_err(fault)
    }

    fn publish(&self, jail: &str, specs: &str, asked: Asked<'_>) -> Answer<Did> {
        let request = request(jail, specs, asked).map_err(fault)?;
        self.change(Some(&request.jail), |publisher| publisher.publish(&request))
    }

    fn unpublish(&self, jail: &str, asked: Asked<'_>) -> Answer<Did> {
        let jail = jail.parse().map_err(fault)?;
        self.change(Some(&jail), |publisher| publisher.unpublish(&jail, (asked.jid != 0).then_some(asked.jid)))
    }

    fn unpublish_some(&self, jail: &str, specs: &str, asked: Asked<'_>) -> Answer<Did> {
        let (jail, spec) = (jail.parse().map_err(fault)?, spec::parse(specs).map_err(fault)?);
        self.change(Some(&jail), |publisher| {
            publisher.unpublish_some(&jail, (asked.jid != 0).then_some(asked.jid), &spec)
        })
    }

    fn list(&self, jail: Option<&str>) -> Answer<Vec<Line>> {
        let jail = jail.map(str::parse).transpose().map_err(fault)?;
        let session = self.session();
        session.publisher(&Unobserved).and_then(|publisher| publisher.list(jail.as_ref())).map(lines).map_err(fault)
    }

    fn rules(&self, jail: &str, specs: &str, asked: Asked<'_>) -> Answer<String> {
        let request = request(jail, specs, asked).map_err(fault)?;
        publisher::rules(&kport::host::System, &request).map(|rules| rule::text(&rules)).map_err(fault)
    }

    fn restore(&self) -> Answer<Did> {
        self.change(None, |publisher| publisher.restore())
    }

    fn gc(&self) -> Answer<Did> {
        self.change(None, |publisher| publisher.gc())
    }
}

/// The C functions.
struct C(TempDir);

type Slot<T> = MaybeUninit<Option<Box<T>>>;

/// The strings that an options struct points to.
struct Texts(Vec<CString>);

impl Texts {
    fn put(&mut self, text: Option<&str>) -> *const c_char {
        let Some(text) = text else { return ptr::null() };
        self.0.push(CString::new(text).unwrap());
        self.0.last().unwrap().as_ptr()
    }
}

fn own(text: *const c_char) -> Option<String> {
    // SAFETY: NULL, or a text of an object that is still there.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned())
}

impl C {
    /// A call that changes something, and what it did. `call` gets options, texts and err.
    fn change(
        &self, asked: Asked<'_>,
        call: impl FnOnce(*const ffi::kport_options, &mut Texts, &mut Slot<ffi::kport_error>) -> ffi::kport_status,
    ) -> Answer<Did> {
        let mut outcome = ptr::without_provenance_mut(1);
        let answer = self.call_into(asked, &raw mut outcome, |options, texts| {
            let mut err = Slot::uninit();
            let status = call(options, texts, &mut err);
            answer(status, err)
        });
        // SAFETY: NULL, or a new object of ours.
        let outcome = (!outcome.is_null()).then(|| unsafe { Box::from_raw(outcome) });
        assert_eq!(outcome.is_some(), answer.is_ok());
        answer?;
        let o = outcome.as_deref();
        let did = Did {
            changed: ffi::kport_outcome_changed(o) == 1,
            ended: ffi::kport_outcome_ended(o),
            rows: entries(ffi::kport_outcome_len(o), |i, entry, size| {
                // SAFETY: the entry has that size.
                unsafe { ffi::kport_outcome_get(o, i, entry, size) }
            }),
            notes: (0..ffi::kport_outcome_notes(o)).map(|i| own(ffi::kport_outcome_note(o, i)).unwrap()).collect(),
        };
        ffi::kport_outcome_free(outcome);
        Ok(did)
    }

    fn call<T>(&self, asked: Asked<'_>, act: impl FnOnce(*const ffi::kport_options, &mut Texts) -> T) -> T {
        self.call_into(asked, ptr::null_mut(), act)
    }

    fn call_into<T>(
        &self, asked: Asked<'_>, outcome: *mut *mut ffi::kport_outcome,
        act: impl FnOnce(*const ffi::kport_options, &mut Texts) -> T,
    ) -> T {
        let mut texts = Texts(vec![]);
        let options = ffi::kport_options {
            size: size_of::<ffi::kport_options>(),
            backend: texts.put(Some("sim")),
            state_dir: texts.put(self.0.path().to_str()),
            addresses: texts.put(asked.addresses),
            gateway: texts.put(asked.gateway),
            reach: texts.put(asked.reach),
            sources: texts.put(asked.sources),
            trust: texts.put(asked.trust),
            families: texts.put(asked.families),
            outcome,
            timeout_ms: 0,
            flags: asked.flags,
            max_connections: asked.max,
            max_connections_per_source: asked.max_per_source,
            rate_connections: asked.rate.0,
            rate_seconds: asked.rate.1,
            jid: asked.jid,
            auto_first: asked.auto.0,
            auto_last: asked.auto.1,
            wait_ms: 0,
            reserved: 0,
            reply_to: texts.put(asked.reply_to),
        };
        act(&raw const options, &mut texts)
    }
}

fn answer(status: ffi::kport_status, err: Slot<ffi::kport_error>) -> Answer<()> {
    // SAFETY: every call writes it.
    let error = unsafe { err.assume_init() };
    let e = error.as_deref();
    assert_eq!(ffi::kport_error_status(e) as i32, status as i32);
    if status as i32 == 0 {
        assert!(error.is_none());
        return Ok(());
    }
    let fault = Fault {
        status: status as i32,
        message: own(ffi::kport_error_message(e)).unwrap(),
        errno: ffi::kport_error_errno(e),
        offset: Some(ffi::kport_error_offset(e)).filter(|offset| *offset != usize::MAX),
    };
    ffi::kport_error_free(error);
    Err(fault)
}

fn c_parse(text: &str) -> Answer<Box<ffi::kport_spec>> {
    let text = CString::new(text).unwrap();
    let (mut out, mut err) = (Slot::uninit(), Slot::uninit());
    // SAFETY: a NUL-terminated text.
    let status = unsafe { ffi::kport_parse(text.as_ptr(), Some(&mut out), Some(&mut err)) };
    // SAFETY: the call writes it.
    let spec = unsafe { out.assume_init() };
    assert_eq!(spec.is_some(), status as i32 == 0);
    answer(status, err).map(|()| spec.unwrap())
}

impl Face for C {
    fn state_dir(&self) -> &Path {
        self.0.path()
    }

    fn parse(&self, text: &str) -> Answer<String> {
        let spec = c_parse(text)?;
        let text = own(ffi::kport_spec_text(Some(&spec))).unwrap();
        ffi::kport_spec_free(Some(spec));
        Ok(text)
    }

    fn publish(&self, jail: &str, specs: &str, asked: Asked<'_>) -> Answer<Did> {
        let spec = c_parse(specs)?;
        self.change(asked, |options, texts, err| {
            // SAFETY: the texts live as long as this call.
            unsafe { ffi::kport_publish(texts.put(Some(jail)), Some(&spec), options, Some(err)) }
        })
    }

    fn unpublish(&self, jail: &str, asked: Asked<'_>) -> Answer<Did> {
        self.change(asked, |options, texts, err| {
            // SAFETY: as above.
            unsafe { ffi::kport_unpublish(texts.put(Some(jail)), options, Some(err)) }
        })
    }

    fn unpublish_some(&self, jail: &str, specs: &str, asked: Asked<'_>) -> Answer<Did> {
        let spec = c_parse(specs)?;
        self.change(asked, |options, texts, err| {
            // SAFETY: as above.
            unsafe { ffi::kport_unpublish_some(texts.put(Some(jail)), Some(&spec), options, Some(err)) }
        })
    }

    fn rules(&self, jail: &str, specs: &str, asked: Asked<'_>) -> Answer<String> {
        let spec = c_parse(specs)?;
        self.call(asked, |options, texts| {
            let (mut out, mut err) = (Slot::uninit(), Slot::uninit());
            let jail = texts.put(Some(jail));
            // SAFETY: as above.
            let status = unsafe { ffi::kport_rules(jail, Some(&spec), options, Some(&mut out), Some(&mut err)) };
            // SAFETY: the call writes it.
            let ruleset = unsafe { out.assume_init() };
            assert_eq!(ruleset.is_some(), status as i32 == 0);
            answer(status, err)?;
            let text = own(ffi::kport_ruleset_text(ruleset.as_deref())).unwrap();
            ffi::kport_ruleset_free(ruleset);
            Ok(text)
        })
    }

    fn list(&self, jail: Option<&str>) -> Answer<Vec<Line>> {
        self.call(Asked::default(), |options, texts| {
            let (mut out, mut err) = (Slot::uninit(), Slot::uninit());
            // SAFETY: as above.
            let status = unsafe { ffi::kport_list(texts.put(jail), options, Some(&mut out), Some(&mut err)) };
            // SAFETY: the call writes it.
            let listing = unsafe { out.assume_init() };
            answer(status, err)?;
            let lines = entries(ffi::kport_listing_len(listing.as_deref()), |i, entry, size| {
                // SAFETY: the entry has that size.
                unsafe { ffi::kport_listing_get(listing.as_deref(), i, entry, size) }
            });
            ffi::kport_listing_free(listing);
            Ok(lines)
        })
    }

    fn restore(&self) -> Answer<Did> {
        // SAFETY: as above.
        self.change(Asked::default(), |options, _, err| unsafe { ffi::kport_restore(options, Some(err)) })
    }

    fn gc(&self) -> Answer<Did> {
        // SAFETY: as above.
        self.change(Asked::default(), |options, _, err| unsafe { ffi::kport_gc(options, Some(err)) })
    }
}

/// The rows of a listing or outcome, which `get` fills in.
fn entries(count: usize, get: impl Fn(usize, *mut ffi::kport_entry, usize) -> ffi::kport_status) -> Vec<Line> {
    let line = |i| {
        let mut entry = MaybeUninit::<ffi::kport_entry>::uninit();
        assert_eq!(get(i, entry.as_mut_ptr(), size_of::<ffi::kport_entry>()) as i32, 0);
        // SAFETY: it is filled in if the call succeeds.
        let entry = unsafe { entry.assume_init() };
        Line {
            jail: own(entry.jail),
            anchor: own(entry.anchor),
            jid: entry.jid,
            state: entry.state,
            redirect: (entry.count != 0).then(|| {
                let (place, address) = (own(entry.place).unwrap(), own(entry.address).unwrap());
                let (host, jail, count) = (entry.host_port, entry.jail_port, entry.count);
                (place, host, address, jail, count, entry.protocol, entry.family)
            }),
        }
    };
    (0..count).map(line).collect()
}

macro_rules! through_both {
    ($($name:ident)*) => {
        mod rust { $(#[test] fn $name() { super::$name(&super::Rust(tempfile::tempdir().unwrap())); })* }
        mod c { $(#[test] fn $name() { super::$name(&super::C(tempfile::tempdir().unwrap())); })* }
    };
}

through_both! {
    a_spec_is_written_out
    a_bad_spec_has_an_offset
    publish_list_unpublish
    publishing_again_changes_nothing
    publishing_replaces
    publishing_adds_and_some_are_unpublished
    auto_is_a_port_of_the_range
    a_port_of_another_jail_is_a_conflict_and_nothing_changes
    a_change_returns_what_it_did
    what_does_not_fail_but_concerns_the_administrator_is_a_note
    rules_are_made_and_nothing_is_touched
    a_late_stop_leaves_the_next_start_alone
    what_pf_lost_is_missing_and_is_restored
    an_anchor_without_record_is_stale_and_is_collected
    bad_options_are_refused
    a_jail_on_the_hosts_network_is_unsupported
    a_state_directory_that_is_not_a_directory
}

fn a_spec_is_written_out(face: &dyn Face) {
    assert_eq!(face.parse("8080").unwrap(), "8080:8080/tcp");
    assert_eq!(face.parse(" em0:8080:80/udp,tcp  *:1-3:1 ").unwrap(), "em0:8080:80/tcp em0:8080:80/udp *:1-3:1-3/tcp");
}

fn a_bad_spec_has_an_offset(face: &dyn Face) {
    for (text, offset) in [("", 0), ("8080 443:", 9), ("70000", 0), ("8080:80/TCP", 8), ("8080;reboot", 4)] {
        let fault = face.parse(text).unwrap_err();
        assert_eq!((fault.status, fault.errno), (2, 0), "{text}: {fault:?}");
        assert_eq!(fault.offset, Some(offset), "{text}: {fault:?}");
    }
}

fn redirect(line: &Line) -> (&str, u16, &str, u16, u16) {
    let (place, host, address, jail, count, ..) = line.redirect.as_ref().unwrap();
    (place, *host, address, *jail, *count)
}

fn publish_list_unpublish(face: &dyn Face) {
    let asked = Asked { addresses: Some("10.0.0.2 fd00::2"), jid: 7, ..WEB };
    face.publish("web", "8080:80/udp em1:9000-9004:100", asked).unwrap();
    let lines = face.list(Some("web")).unwrap();
    let shown: Vec<_> = lines.iter().map(redirect).collect();
    assert_eq!(
        shown,
        [
            ("em0", 8080, "10.0.0.2", 80, 1),
            ("em0", 8080, "fd00::2", 80, 1),
            ("em1", 9000, "10.0.0.2", 100, 5),
            ("em1", 9000, "fd00::2", 100, 5)
        ]
    );
    let first = &lines[0];
    assert_eq!(
        (first.jail.as_deref(), first.anchor.as_deref(), first.jid, first.state),
        (Some("web"), Some("kport/web"), 7, 1)
    );
    assert_eq!((lines[1].redirect.as_ref().unwrap().5, lines[1].redirect.as_ref().unwrap().6), (17, 6));
    assert_eq!(face.list(Some("db")).unwrap(), []);
    face.unpublish("web", Asked::default()).unwrap();
    assert_eq!(face.list(None).unwrap(), []);
    face.unpublish("web", Asked::default()).unwrap();
}

fn publishing_again_changes_nothing(face: &dyn Face) {
    face.publish("web", "8080:80", WEB).unwrap();
    let before = files(face.state_dir());
    face.publish("web", "8080:80", WEB).unwrap();
    assert_eq!(files(face.state_dir()), before);
}

fn publishing_replaces(face: &dyn Face) {
    face.publish("web", "8080:80 8443:443", WEB).unwrap();
    face.publish("web", "9090:90", WEB).unwrap();
    let lines = face.list(None).unwrap();
    assert_eq!(lines.iter().map(redirect).collect::<Vec<_>>(), [("em0", 9090, "10.0.0.2", 90, 1)]);
    face.publish("db", "8080:5432", WEB).unwrap();
}

fn publishing_adds_and_some_are_unpublished(face: &dyn Face) {
    let add = Asked { flags: ffi::KPORT_ADD, ..WEB };
    face.publish("web", "8080:80", WEB).unwrap();
    face.publish("web", "8443:443 9090:90", add).unwrap();
    let ports =
        |face: &dyn Face| -> Vec<u16> { face.list(None).unwrap().iter().map(|line| redirect(line).1).collect() };
    assert_eq!(ports(face), [8080, 8443, 9090]);
    face.unpublish_some("web", "em0:8443:443", WEB).unwrap();
    assert_eq!(ports(face), [8080, 9090]);
    face.unpublish_some("web", "em0:8443:443", WEB).unwrap();
    face.unpublish_some("web", "em0:8080:80 em0:9090:90", WEB).unwrap();
    assert_eq!(face.list(None).unwrap(), []);
    assert_eq!(face.unpublish_some("web", "443:", WEB).unwrap_err().status, 2);
}

fn auto_is_a_port_of_the_range(face: &dyn Face) {
    let asked = Asked { auto: (61000, 61001), flags: ffi::KPORT_ADD, ..WEB };
    face.publish("web", "auto:80", asked).unwrap();
    face.publish("db", "auto:80", asked).unwrap();
    let mut ports: Vec<u16> = face.list(None).unwrap().iter().map(|line| redirect(line).1).collect();
    ports.sort();
    assert_eq!(ports, [61000, 61001]);
    let fault = face.publish("api", "auto:80", asked).unwrap_err();
    assert!(fault.message.contains("61000"), "{fault:?}");
}

fn a_port_of_another_jail_is_a_conflict_and_nothing_changes(face: &dyn Face) {
    face.publish("web", "8080:80", WEB).unwrap();
    face.publish("db", "5432", WEB).unwrap();
    let before = files(face.state_dir());
    let forced = Asked { flags: ffi::KPORT_FORCE, ..WEB };
    for asked in [WEB, forced] {
        let fault = face.publish("db", "9000 *:8000-8100:1000", asked).unwrap_err();
        assert_eq!((fault.status, fault.offset), (3, None));
        assert!(fault.message.contains("web") && fault.message.contains("8080"), "{fault:?}");
    }
    assert_eq!(files(face.state_dir()), before);
}

fn a_change_returns_what_it_did(face: &dyn Face) {
    let asked = Asked { auto: (61000, 61000), ..WEB };
    let did = face.publish("web", "auto:80/udp", asked).unwrap();
    assert_eq!((did.changed, did.ended, &did.notes[..]), (true, 0, &[NOTICE.to_owned()][..]));
    let row = &did.rows[0];
    assert_eq!(
        (row.jail.as_deref(), row.anchor.as_deref(), row.jid, row.state),
        (Some("web"), Some("kport/web"), 0, 1)
    );
    assert_eq!(row.redirect, Some(("em0".to_owned(), 61000, "10.0.0.2".to_owned(), 80, 1, 17, 4)));
    // nothing needs to be done
    let again = face.publish("web", "auto:80/udp", asked).unwrap();
    assert_eq!(again, Did { changed: false, notes: vec![], ..did });
    let restored = face.restore().unwrap();
    assert!(!restored.changed && restored.rows.len() == 1, "{restored:?}");
    assert_eq!((&restored.rows[0].jail, &restored.rows[0].anchor), (&None, &None));
    let did = face.unpublish("web", Asked::default()).unwrap();
    assert_eq!((did.changed, did.rows), (true, vec![]));
    assert!(!face.unpublish("web", Asked::default()).unwrap().changed);
}

fn what_does_not_fail_but_concerns_the_administrator_is_a_note(face: &dyn Face) {
    face.publish("web", "8080:80", WEB).unwrap();
    let did = face.unpublish_some("web", "443:443", WEB).unwrap();
    assert_eq!(did.notes, ["jail \"web\" has not published 443:443/tcp"]);
    // a conflict that was forced: with a socket of this machine
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let specs = format!("*:{port}:80");
    assert_eq!(face.publish("db", &specs, WEB).unwrap_err().status, 3);
    let did = face.publish("db", &specs, Asked { flags: ffi::KPORT_FORCE, ..WEB }).unwrap();
    let forced = did.notes.iter().find(|note| note.starts_with("forced: ")).unwrap_or_else(|| panic!("{did:?}"));
    assert!(forced.contains(&port.to_string()), "{forced}");
    // a record that was damaged
    fs::write(face.state_dir().join("jails/web.json"), "{").unwrap();
    let did = face.unpublish("web", Asked::default()).unwrap();
    assert!(did.notes.iter().any(|note| note.contains("kept as ")), "{did:?}");
}

fn rules_are_made_and_nothing_is_touched(face: &dyn Face) {
    let asked = Asked { sources: Some("192.0.2.0/24"), flags: ffi::KPORT_LOG, ..WEB };
    let text = face.rules("web", "8080:80", asked).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(text.ends_with('\n') && lines[0].starts_with("rdr on \"em0\" inet proto tcp from 192.0.2.0/24 "), "{text}");
    assert!(lines[1].starts_with("pass in log quick inet proto tcp from any to 10.0.0.2 port 80 tagged "), "{text}");
    assert_eq!(files(face.state_dir()), BTreeMap::new());
    for (status, specs, asked) in [
        (8, "auto:80", WEB),
        (8, "8080:80", Asked { addresses: Some("inherit"), ..WEB }),
        (5, "8080:80", Asked { addresses: None, ..WEB }),
        (1, "8080:80", Asked { reach: Some(""), flags: ffi::KPORT_HAIRPIN, ..WEB }),
        (2, "8080:", WEB),
    ] {
        assert_eq!(face.rules("web", specs, asked).unwrap_err().status, status, "{specs} {asked:?}");
    }
}

fn a_late_stop_leaves_the_next_start_alone(face: &dyn Face) {
    face.publish("web", "8080:80", Asked { jid: 8, ..WEB }).unwrap();
    face.unpublish("web", Asked { jid: 7, ..WEB }).unwrap();
    assert_eq!(face.list(None).unwrap().len(), 1);
    face.unpublish("web", Asked { jid: 8, ..WEB }).unwrap();
    assert_eq!(face.list(None).unwrap().len(), 0);
}

fn what_pf_lost_is_missing_and_is_restored(face: &dyn Face) {
    face.publish("web", "8080:80", WEB).unwrap();
    fs::remove_file(face.state_dir().join("sim/web.json")).unwrap();
    assert_eq!(face.list(None).unwrap()[0].state, 2);
    face.restore().unwrap();
    assert_eq!(face.list(None).unwrap()[0].state, 1);
}

fn an_anchor_without_record_is_stale_and_is_collected(face: &dyn Face) {
    face.publish("web", "8080:80", WEB).unwrap();
    fs::remove_file(face.state_dir().join("jails/web.json")).unwrap();
    let lines = face.list(None).unwrap();
    assert_eq!(lines.len(), 1);
    assert_eq!((&lines[0].jail, lines[0].state, &lines[0].redirect), (&None, 3, &None));
    if cfg!(target_os = "freebsd") {
        face.gc().unwrap();
        assert_eq!(face.list(None).unwrap(), []);
    } else {
        // it is unknown which jails are gone
        assert_eq!(face.gc().unwrap_err().status, 8);
        assert_eq!(face.list(None).unwrap(), lines);
    }
}

fn bad_options_are_refused(face: &dyn Face) {
    let bad = [
        (1, Asked { addresses: Some("10.0.0.2.3"), ..WEB }),
        (1, Asked { addresses: Some("127.0.0.1"), ..WEB }),
        (1, Asked { gateway: Some("em0 em1"), ..WEB }),
        (1, Asked { reach: Some("bridge } pass quick all {"), ..WEB }),
        (1, Asked { sources: Some("192.0.2.1/24"), ..WEB }),
        (1, Asked { sources: Some("<bad"), ..WEB }),
        (1, Asked { reply_to: Some("0.0.0.0"), ..WEB }),
        (1, Asked { reply_to: Some("192.0.2.254,192.0.2.253"), ..WEB }),
        (1, Asked { trust: Some("192.168.1.0"), ..WEB }),
        (1, Asked { trust: Some("192.168.1.50/24"), ..WEB }),
        (1, Asked { families: Some("inet4"), ..WEB }),
        (1, Asked { rate: (5, 0), ..WEB }),
        (1, Asked { rate: (0, 5), ..WEB }),
        (1, Asked { reach: Some(""), flags: ffi::KPORT_HAIRPIN, ..WEB }),
    ];
    for (i, (status, asked)) in bad.into_iter().enumerate() {
        let fault = face.publish("web", "8080:80", asked).expect_err(&format!("number {i}"));
        assert_eq!(fault.status, status, "number {i}: {fault:?}");
    }
    assert_eq!(face.publish("", "8080:80", WEB).unwrap_err().status, 1);
    assert_eq!(face.unpublish("", WEB).unwrap_err().status, 1);
    assert_eq!(face.list(None).unwrap(), []);
}

fn a_jail_on_the_hosts_network_is_unsupported(face: &dyn Face) {
    let fault = face.publish("web", "8080:80", Asked { addresses: Some("inherit"), ..WEB }).unwrap_err();
    assert_eq!(fault.status, 8);
    assert!(fault.message.contains("host's network"), "{fault:?}");
}

fn a_state_directory_that_is_not_a_directory(face: &dyn Face) {
    let dir = face.state_dir();
    fs::remove_dir_all(dir).unwrap();
    fs::write(dir, "").unwrap();
    for fault in [face.publish("web", "8080:80", WEB), face.gc()]
        .map(Result::unwrap_err)
        .into_iter()
        .chain([face.list(None).unwrap_err()])
    {
        assert!([4, 7].contains(&fault.status), "{fault:?}");
        assert!(fault.message.contains(dir.to_str().unwrap()), "{fault:?}");
    }
    fs::remove_file(dir).unwrap();
    fs::create_dir(dir).unwrap();
}

/// Every file under a directory, and its contents.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.ends_with("lock") {
            // an entry is a link that leads nowhere
            let text = if path.is_symlink() { vec![] } else { fs::read(&path).unwrap() };
            found.insert(path.display().to_string(), text);
        }
    }
    found
}

#[test]
fn c_names_the_field_and_the_byte() {
    let c = C(tempfile::tempdir().unwrap());
    for (asked, said, offset) in [
        (
            Asked { sources: Some("192.0.2.0/24  em0"), ..WEB },
            "options->sources at byte 14: source \"em0\": ",
            Some(14),
        ),
        (
            Asked { addresses: Some("10.0.0.2 10.0.0"), ..WEB },
            "options->addresses at byte 9: \"10.0.0\" is not ",
            Some(9),
        ),
        (Asked { sources: Some(" "), ..WEB }, "options->sources: an empty list ", None),
        (Asked { reply_to: Some(" "), ..WEB }, "options->reply_to: an empty list", None),
        (Asked { gateway: Some("em0 em1"), ..WEB }, "options->gateway: interface \"em0 em1\": ", None),
        (Asked { rate: (5, 0), ..WEB }, "options->rate_connections and rate_seconds: rate \"5/0\" ", None),
        (Asked { auto: (9, 8), ..WEB }, "options->auto_first and auto_last: \"9-8\" is not ", None),
    ] {
        let fault = c.publish("web", "8080:80", asked).unwrap_err();
        assert!(fault.message.starts_with(said), "{fault:?}");
        assert_eq!((fault.status, fault.offset), (1, offset), "{fault:?}");
    }
}

#[test]
fn both_faces_load_the_same_rules_and_return_the_same_texts() {
    let (rust, c) = (Rust(tempfile::tempdir().unwrap()), C(tempfile::tempdir().unwrap()));
    let flag = |flags| Asked { flags, ..WEB };
    let requests = [
        WEB,
        flag(ffi::KPORT_LOG),
        flag(ffi::KPORT_NO_QUICK),
        flag(ffi::KPORT_LOG | ffi::KPORT_NO_QUICK | ffi::KPORT_FORCE | ffi::KPORT_ALLOW_INERT),
        // the interfaces of the machine decide: rules or an error, but the same
        flag(ffi::KPORT_HAIRPIN),
        flag(ffi::KPORT_HOST_ACCESS),
        Asked { reach: Some(""), ..WEB },
        Asked { reach: Some("vmpublic wg0"), ..WEB },
        Asked { sources: Some("192.0.2.0/24 2001:db8::1 <trusted>"), ..WEB },
        Asked { max: 100, max_per_source: 10, rate: (15, 5), ..WEB },
        Asked { gateway: Some("igb0"), addresses: Some("fd00::2 10.0.0.2 10.0.0.3"), ..WEB },
        Asked { gateway: None, ..WEB },
        Asked { addresses: None, ..WEB },
        Asked { reply_to: Some("none"), ..WEB },
        flag(ffi::KPORT_MASQUERADE),
        Asked { families: Some("inet"), addresses: Some("fd00::2 10.0.0.2"), ..WEB },
        Asked { families: Some("inet inet6"), addresses: Some("fd00::2 10.0.0.2"), ..WEB },
        Asked { families: Some("inet inet6"), ..WEB },
    ];
    let mut rules = Vec::new();
    for (i, asked) in requests.into_iter().enumerate() {
        let answers = [&rust as &dyn Face, &c].map(|face| face.publish("web", "8080:80 8443:443", asked));
        assert_eq!(answers[0], answers[1]);
        assert!(answers[0].is_ok() || [4, 5, 11, 12, 14, 17].contains(&i), "asked {i}: {answers:?}");
        let loaded = [&rust as &dyn Face, &c].map(|face| fs::read(face.state_dir().join("sim/web.json")).unwrap());
        assert_eq!(loaded[0], loaded[1]);
        assert_eq!(rust.list(None), c.list(None));
        rules.push(loaded[0].clone());
    }
    // each of these options has made a difference
    for (i, one) in rules.iter().enumerate().take(11).filter(|(i, _)| ![3, 4, 5].contains(i)) {
        assert!(rules[..i].iter().all(|other| other != one), "asked {i} changed nothing");
    }
}

#[test]
fn statuses_are_the_kinds() {
    assert_eq!(ffi::kport_status::KPORT_OK as i32, 0);
    for kind in Kind::ALL {
        assert_eq!(ffi::kport_status::from(kind) as i32, kind.number());
        assert_eq!(own(ffi::kport_status_text(kind.number())).as_deref(), Some(kind.text()));
    }
}

/// A program of the first release: what follows its struct is not read.
#[test]
fn a_shorter_struct_is_extended_by_zeros() {
    let c = C(tempfile::tempdir().unwrap());
    for (size, status) in [(size_of::<ffi::kport_options>(), 1), (offset_of!(ffi::kport_options, reply_to), 0)] {
        let status_of = c.call(Asked { trust: Some("x"), ..WEB }, |options, _| {
            // SAFETY: options of this function, with valid strings.
            unsafe {
                let options = ffi::kport_options { size, ..*options };
                ffi::kport_unpublish(c"web".as_ptr(), &raw const options, None)
            }
        });
        assert_eq!(status_of as i32, status);
    }
}

#[test]
fn a_struct_of_any_later_version_is_filled_up_to_a_size() {
    let spec = c_parse("8080:80").unwrap();
    let mut out = [1_u8; 4097];
    for (size, status) in [(4097, 1), (4096, 0)] {
        // SAFETY: it has room for that size.
        let got = unsafe { ffi::kport_spec_get(Some(&spec), 0, out.as_mut_ptr().cast(), size) };
        assert_eq!((got as i32, out[4095]), (status, u8::from(status == 1)));
    }
}

#[test]
fn every_option_has_a_field() {
    let mut raw = ffi::kport_options::default();
    let texts = [&mut raw.addresses, &mut raw.gateway, &mut raw.reach, &mut raw.sources, &mut raw.reply_to];
    texts.into_iter().chain([&mut raw.trust, &mut raw.families]).for_each(|text| *text = c"1".as_ptr());
    let numbers = [&mut raw.max_connections, &mut raw.max_connections_per_source, &mut raw.rate_connections];
    numbers.into_iter().chain([&mut raw.wait_ms]).for_each(|number| *number = 1);
    (raw.auto_first, raw.flags) = (1, u32::MAX);
    // SAFETY: the strings are NUL-terminated or NULL.
    let fields = unsafe { ffi::input::fields(&raw) }.unwrap();
    let mut names: Vec<&str> = fields.iter().map(|field| field.1.strip_prefix("no-").unwrap_or(field.1)).collect();
    let mut expected: Vec<&str> = Request::names().map(|(name, _)| name).collect();
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected);
}
