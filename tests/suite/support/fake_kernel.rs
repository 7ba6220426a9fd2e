//! A kernel for tests: it answers like pf_ioctl.c of FreeBSD 15.1, checks everything that the real one checks (tickets,
//! order, types of keys, what must be zero), and can fail any call with any errno.
//!
//! It reads the structs by the offsets that a compiler printed on FreeBSD, not by the library's own types, so that a
//! field at a wrong offset is found.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use ipnet::IpNet;
use kport::pf::native::kernel::{Call, Failure, Kernel, Nv};
use kport::pf::native::layout::PfiocTransE;
use kport::pf::native::netlink::{Attributes, Command, attributes};
use kport::pf::native::nv::{List, Malformed, Value};
use zerocopy::IntoBytes;

use super::offsets::{self as at, kif, pooladdr, ruleset, table, trans};

pub use at::rule::RULE;

/// A rule as it was passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// struct pfioc_rule
    pub bytes: Vec<u8>,
    /// struct pfioc_pooladdr, one for each redirect address; of a filter rule with route-to those of that
    pub pool: Vec<Vec<u8>>,
    /// of a rule with af-to: the address of the source as netlink has it, the attributes of the pool
    pub nat: Option<(Vec<u8>, Vec<u8>)>,
    /// the anchor that it calls
    pub anchor_call: String,
    /// evaluations, packets in and out, bytes in and out, states
    pub counters: [u64; 6],
}

/// A state, with what the tests need of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// the label of its rule
    pub label: String,
    /// where it was created
    pub on: &'static str,
    /// IPPROTO_*
    pub protocol: u8,
    pub from: IpAddr,
    /// its destination before the redirect
    pub to: IpAddr,
    pub port: u16,
    /// what a redirect has replaced that with
    pub redirected: Option<IpAddr>,
}

impl State {
    /// A connection to a port of the host that was redirected.
    pub fn new(label: &str, protocol: u8, port: u16) -> State {
        State {
            label: label.to_owned(),
            on: "em0",
            protocol,
            from: [192, 0, 2, 100].into(),
            to: [192, 0, 2, 1].into(),
            port,
            redirected: Some([10, 0, 0, 2].into()),
        }
    }
}

#[derive(Default)]
struct Set {
    active: Vec<Stored>,
    active_ticket: u32,
    inactive: Vec<Stored>,
    inactive_ticket: u32,
    open: bool,
    /// a transaction has begun once (pf_begin_rules allocates the tree)
    begun: bool,
}

/// net.fibs
const FIBS: i32 = 2;

#[derive(Default)]
struct Pf {
    anchors: BTreeMap<String, BTreeMap<i32, Set>>,
    pool: Vec<Vec<u8>>,
    pool_ticket: u32,
    running: bool,
    /// a random number of each attach
    hostid: u32,
    /// a number that stands for the checksum of the main ruleset
    checksum: u64,
    /// time_second and time_uptime, which tick at different moments, in halves of a second; each status is one of them later
    clocks: [u64; 2],
    /// the inbound halves
    states: Vec<State>,
    out_of_tags: bool,
    /// the source of af-to, added by netlink
    source: Option<Vec<u8>>,
    /// the active tables by anchor and name, with struct pfr_addr for each address
    tables: BTreeMap<(String, String), Vec<[u8; 20]>>,
    /// `set syncookies always`
    syncookies: bool,
    /// a kernel without DIOCCHANGERULE
    no_change_rule: bool,
    /// rules about Ethernet frames
    ether_rules: u64,
    /// whether there is no netlink family, and a rule has one pool
    is_14: bool,
    /// net.pf.request_maxcount
    most: usize,
    /// interfaces and groups: the name, whether it is a group, PFI_IFLAG_*
    interfaces: Vec<(String, bool, u32)>,
    /// struct pfi_kif has another size
    other_kif: bool,
    /// the number of calls
    calls: usize,
    /// the names of the calls, if requested
    log: Option<Vec<&'static str>>,
    /// fail this call with that errno
    fail: Option<(usize, i32)>,
    /// the process is killed before this call
    kill: Option<usize>,
    /// fail this number of calls of this name with that errno
    refuse: Option<(&'static str, usize, i32)>,
    /// fail every call that changes something with this errno
    read_only: Option<i32>,
    /// additional bytes of the status
    padding: usize,
}

/// The kernel.
#[derive(Default)]
pub struct Fake {
    state: RefCell<Pf>,
    /// how often the descriptor was checked
    pub renewals: Cell<usize>,
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}

/// A rule about every packet, with this action.
pub fn blank(action: u8) -> Stored {
    let mut bytes = vec![0; at::rule::SIZE];
    bytes[RULE + at::ACTION] = action;
    // no routing table
    bytes[RULE + at::RTABLEID..RULE + at::RTABLEID + 4].fill(0xff);
    Stored { bytes, pool: vec![], nat: None, anchor_call: String::new(), counters: [0; 6] }
}

pub fn text_at(bytes: &[u8], at: usize, size: usize) -> String {
    let field = &bytes[at..at + size];
    let end = field.iter().position(|b| *b == 0).expect("a string must end with a NUL");
    assert!(field[end..].iter().all(|b| *b == 0), "garbage after a string");
    String::from_utf8(field[..end].to_vec()).unwrap()
}

/// pf_get_ruleset_number
fn ruleset_number(action: u8) -> i32 {
    match action {
        0 | 1 | 12 => 1,
        4 | 5 => 2,
        6 | 7 => 3,
        8 | 9 => 4,
        2 | 3 => 0,
        _ => panic!("action {action}"),
    }
}

impl Fake {
    /// A running pf whose main ruleset calls kport's anchors.
    pub fn new() -> Fake {
        let fake = Fake::default();
        {
            let mut state = fake.state.borrow_mut();
            state.running = true;
            state.hostid = 0x1234_5678;
            state.most = 65_535;
            state.interfaces = vec![("all".to_owned(), true, 1)];
            state.anchors.insert(String::new(), BTreeMap::new());
        }
        for action in [4, 8, 0] {
            fake.call_anchor(action, "kport");
        }
        fake
    }

    /// Adds an anchor rule to the main ruleset.
    pub fn call_anchor(&self, action: u8, call: &str) {
        self.hold("", Stored { anchor_call: call.to_owned(), ..blank(action) });
        // pf_kanchor_setup creates what is called
        let path = call.trim_start_matches('/').trim_end_matches("/*").to_owned();
        self.state.borrow_mut().anchors.entry(path).or_default();
    }

    /// Adds a rule to an anchor's active ruleset, as another program would.
    pub fn hold(&self, anchor: &str, stored: Stored) {
        let number = ruleset_number(stored.bytes[RULE + at::ACTION]);
        let mut state = self.state.borrow_mut();
        let mut parent = anchor;
        while let Some((above, _)) = parent.rsplit_once('/') {
            state.anchors.entry(above.to_owned()).or_default();
            parent = above;
        }
        let set = state.anchors.entry(anchor.to_owned()).or_default().entry(number).or_default();
        set.active.push(stored);
        set.inactive_ticket += 1;
        set.active_ticket = set.inactive_ticket;
        if anchor.is_empty() {
            state.checksum_main();
        }
    }

    /// `pfctl -f`: another last rule in the main ruleset.
    pub fn reload_main(&self, stored: Stored) {
        let number = ruleset_number(stored.bytes[RULE + at::ACTION]);
        let mut state = self.state.borrow_mut();
        let set = state.anchors.get_mut("").unwrap().get_mut(&number).unwrap();
        *set.active.last_mut().unwrap() = stored;
        set.inactive_ticket += 1;
        set.active_ticket = set.inactive_ticket;
        state.checksum_main();
    }

    /// A load of one ruleset of an anchor by another program.
    pub fn set_rules(&self, anchor: &str, number: i32, rules: Vec<Stored>) {
        let mut state = self.state.borrow_mut();
        let set = state.anchors.get_mut(anchor).unwrap().get_mut(&number).unwrap();
        set.active = rules;
        set.inactive_ticket += 1;
        set.active_ticket = set.inactive_ticket;
    }

    /// The rules of a ruleset.
    pub fn active(&self, anchor: &str, number: i32) -> Vec<Stored> {
        let state = self.state.borrow();
        state.anchors.get(anchor).and_then(|sets| sets.get(&number)).map(|set| set.active.clone()).unwrap_or_default()
    }

    pub fn exists(&self, anchor: &str) -> bool {
        self.state.borrow().anchors.contains_key(anchor)
    }

    /// Whether a transaction with rules was left open.
    pub fn left_open(&self, anchor: &str) -> bool {
        let state = self.state.borrow();
        state.anchors.get(anchor).is_some_and(|sets| sets.values().any(|set| set.open || !set.inactive.is_empty()))
    }

    pub fn set_running(&self, running: bool) {
        self.state.borrow_mut().running = running;
    }

    /// The interfaces and groups that pf knows: the name, whether it is a group, whether it is skipped.
    pub fn set_interfaces(&self, interfaces: &[(&str, bool, bool)]) {
        let one =
            |(name, group, skip): &(&str, bool, bool)| ((*name).to_owned(), *group, if *skip { 0x0101 } else { 1 });
        self.state.borrow_mut().interfaces = interfaces.iter().map(one).collect();
    }

    /// A kernel with another struct pfi_kif.
    pub fn set_other_kif(&self) {
        self.state.borrow_mut().other_kif = true;
    }

    /// `kldunload pf; kldload pf`, as far as the status shows it, or `set hostid` in pf.conf.
    pub fn set_hostid(&self, hostid: u32) {
        self.state.borrow_mut().hostid = hostid;
    }

    /// DIOCCHANGERULE: the last rule of a ruleset is replaced, and only the active ticket counts it.
    pub fn change_rule(&self, anchor: &str, stored: Stored) {
        let number = ruleset_number(stored.bytes[RULE + at::ACTION]);
        let mut state = self.state.borrow_mut();
        let set = state.anchors.get_mut(anchor).unwrap().get_mut(&number).unwrap();
        *set.active.last_mut().unwrap() = stored;
        set.active_ticket += 1;
    }

    /// Makes the status longer by this number of bytes.
    pub fn set_padding(&self, padding: usize) {
        self.state.borrow_mut().padding = padding;
    }

    pub fn set_counters(&self, anchor: &str, number: i32, counters: [u64; 6]) {
        let mut state = self.state.borrow_mut();
        for stored in &mut state.anchors.get_mut(anchor).unwrap().get_mut(&number).unwrap().active {
            stored.counters = counters;
        }
    }

    /// Adds states.
    pub fn set_states(&self, states: &[State]) {
        self.state.borrow_mut().states.extend_from_slice(states);
    }

    /// The remaining states.
    pub fn states(&self) -> Vec<State> {
        self.state.borrow().states.clone()
    }

    /// A kernel without a netlink family of pf's.
    pub fn set_14(&self) {
        self.state.borrow_mut().is_14 = true;
    }

    /// A kernel without DIOCCHANGERULE.
    pub fn refuse_change_rule(&self) {
        self.state.borrow_mut().no_change_rule = true;
    }

    pub fn set_syncookies(&self, always: bool) {
        self.state.borrow_mut().syncookies = always;
    }

    pub fn set_ether_rules(&self, rules: u64) {
        self.state.borrow_mut().ether_rules = rules;
    }

    /// An active table of an anchor: networks, with `!` in front of those that are excepted.
    pub fn set_table(&self, anchor: &str, name: &str, networks: &[&str]) {
        let one = |text: &&str| {
            let (not, text) = text.strip_prefix('!').map_or((0, *text), |text| (1, text));
            let network: ipnet::IpNet = text.parse().unwrap();
            let mut entry = [0; 20];
            match network.addr() {
                std::net::IpAddr::V4(v4) => entry[..4].copy_from_slice(&v4.octets()),
                std::net::IpAddr::V6(v6) => entry[..16].copy_from_slice(&v6.octets()),
            }
            (entry[16], entry[17]) = (if network.addr().is_ipv4() { 2 } else { 28 }, network.prefix_len());
            entry[18] = not;
            entry
        };
        let key = (anchor.to_owned(), name.to_owned());
        self.state.borrow_mut().tables.insert(key, networks.iter().map(one).collect());
    }

    /// `sysctl net.pf.request_maxcount`
    pub fn set_most(&self, most: usize) {
        self.state.borrow_mut().most = most;
    }

    /// Each of the 50000 numbers of tags is in use.
    pub fn use_every_tag(&self) {
        self.state.borrow_mut().out_of_tags = true;
    }

    /// Fails the call with this number, counted from 0, once.
    pub fn fail(&self, call: usize, errno: i32) {
        let mut state = self.state.borrow_mut();
        state.fail = Some((call, errno));
        state.calls = 0;
    }

    /// Kills the process before the call with this number, counted from 0, or not any more: it unwinds.
    pub fn kill_at(&self, call: Option<usize>) {
        let mut state = self.state.borrow_mut();
        state.kill = call;
        state.calls = 0;
    }

    /// Fails this number of calls of this name.
    pub fn refuse(&self, name: &'static str, times: usize, errno: i32) {
        self.state.borrow_mut().refuse = Some((name, times, errno));
    }

    /// Fails every call that changes something with this errno.
    pub fn refuse_changes(&self, errno: Option<i32>) {
        self.state.borrow_mut().read_only = errno;
    }

    /// Whether the call of [`Fake::fail`] was made.
    pub fn failed(&self) -> bool {
        let state = self.state.borrow();
        state.fail.is_some_and(|(at, _)| state.calls > at)
    }

    pub fn heal(&self) {
        let mut state = self.state.borrow_mut();
        state.fail = None;
        state.refuse = None;
        state.calls = 0;
    }

    /// The names of the calls that `act` makes.
    pub fn calls_of(&self, act: impl FnOnce()) -> Vec<&'static str> {
        self.state.borrow_mut().log = Some(vec![]);
        act();
        self.state.borrow_mut().log.take().unwrap()
    }
}

impl Fake {
    /// What happens to a call of this name before it is served.
    fn admit(&self, name: &'static str) -> Result<(), Failure> {
        let mut state = self.state.borrow_mut();
        let number = state.calls;
        state.calls += 1;
        if let Some(log) = &mut state.log {
            log.push(name);
        }
        if let Some(at) = state.kill
            && number >= at
        {
            // what is dropped now may call, too
            if std::thread::panicking() {
                return Err(Failure::new(name, libc::EIO));
            }
            drop(state);
            std::panic::resume_unwind(Box::new("killed"));
        }
        if let Some((at, errno)) = state.fail
            && at == number
        {
            return Err(Failure::new(name, errno));
        }
        if let Some((refused, times, errno)) = &mut state.refuse
            && *refused == name
            && *times > 0
        {
            *times -= 1;
            return Err(Failure::new(name, *errno));
        }
        if let Some(errno) = state.read_only
            && !(name.starts_with("DIOCGET") || name == "DIOCRGETADDRS" || name.starts_with("PFNL_CMD_GET"))
        {
            return Err(Failure::new(name, errno));
        }
        Ok(())
    }
}

impl Kernel for Fake {
    fn renew(&self) -> Result<(), Failure> {
        self.renewals.set(self.renewals.get() + 1);
        Ok(())
    }

    fn call(&self, call: Call<'_>) -> Result<(), Failure> {
        let name = call.name();
        self.admit(name)?;
        self.state.borrow_mut().serve(call).map_err(|errno| Failure::new(name, errno))
    }

    fn ask(&self, command: Command, request: &Attributes) -> Result<Vec<u8>, Failure> {
        let name = command.name();
        if self.state.borrow().is_14 {
            return Err(Failure::new(name, libc::EOPNOTSUPP));
        }
        self.admit(name)?;
        let changed = self.state.borrow_mut().add_by_netlink(command, request);
        if let Some(changed) = changed {
            return changed.map(|()| vec![]).map_err(|errno| Failure::new(name, errno));
        }
        let answer = self.state.borrow().answer(command, request).map_err(|errno| Failure::new(name, errno))?;
        Ok(answer.as_bytes().to_vec())
    }
}

/// The path that a call leads to (pf_kanchor_setup).
fn resolve(caller: &str, call: &str) -> String {
    let call = call.trim_end_matches("/*");
    let Some(relative) = (!call.starts_with('/')).then_some(call) else {
        return call.trim_start_matches('/').to_owned();
    };
    let (mut base, mut rest) = (caller, relative);
    while let Some(above) = rest.strip_prefix("../") {
        base = base.rsplit_once('/').map_or("", |(parent, _)| parent);
        rest = above;
    }
    if base.is_empty() { rest.to_owned() } else { format!("{base}/{rest}") }
}

/// PFRULE_AFTO
const AFTO: u32 = 0x0020_0000;

type Served = Result<(), i32>;

impl Pf {
    /// pf_setup_pfsync_matching, at each load of a main ruleset.
    fn checksum_main(&mut self) {
        let mut hasher = DefaultHasher::new();
        for set in self.anchors[""].values() {
            set.active.iter().for_each(|stored| (&stored.bytes, &stored.anchor_call).hash(&mut hasher));
        }
        self.checksum = hasher.finish();
    }

    fn serve(&mut self, call: Call<'_>) -> Served {
        match call {
            Call::XBegin(rulesets) => self.begin(rulesets),
            Call::XCommit(rulesets) => self.commit(rulesets),
            Call::XRollback(rulesets) => self.rollback(rulesets),
            Call::BeginAddrs(address) => {
                self.pool.clear();
                self.pool_ticket += 1;
                put_u32(address.as_mut_bytes(), pooladdr::TICKET, self.pool_ticket);
                Ok(())
            }
            Call::AddAddr(address) => self.add_addr(address.as_bytes()),
            Call::AddRule(rule) => self.add_rule(rule.as_bytes()),
            Call::ChangeRule(rule) => self.change_rule(rule.as_bytes()),
            Call::GetRules(rule) => self.get_rules(rule.as_mut_bytes()),
            Call::GetRule(nv) => self.get_rule(nv),
            Call::GetAddrs(address) => {
                let count = self.pooled(address.as_bytes())?.len();
                put_u32(address.as_mut_bytes(), pooladdr::NR, count as u32);
                Ok(())
            }
            Call::GetAddr(address) => {
                let pool = self.pooled(address.as_bytes())?;
                let one = pool.get(u32_at(address.as_bytes(), pooladdr::NR) as usize).ok_or(libc::EBUSY)?;
                address.as_mut_bytes()[pooladdr::AF] = one[pooladdr::AF];
                for (from, size) in [(pooladdr::ADDR, at::WRAP), (pooladdr::IFNAME, at::IFNAMSIZ)] {
                    address.as_mut_bytes()[from..from + size].copy_from_slice(&one[from..from + size]);
                }
                Ok(())
            }
            Call::GetRulesets(ruleset) => {
                let count = self.children(&text_at(ruleset.as_bytes(), ruleset::PATH, at::MAXPATHLEN))?.len();
                put_u32(ruleset.as_mut_bytes(), ruleset::NR, count as u32);
                Ok(())
            }
            Call::GetRuleset(ruleset) => {
                let bytes = ruleset.as_mut_bytes();
                let children = self.children(&text_at(bytes, ruleset::PATH, at::MAXPATHLEN))?;
                let name = children.get(u32_at(bytes, ruleset::NR) as usize).ok_or(libc::EBUSY)?;
                bytes[ruleset::NAME..ruleset::SIZE].fill(0);
                bytes[ruleset::NAME..ruleset::NAME + name.len()].copy_from_slice(name.as_bytes());
                Ok(())
            }
            Call::GetStatus(nv) => {
                let counters = List::new()
                    .with("counters", Value::Numbers(vec![1, 2]))
                    .with("names", Value::Strings(vec!["match".to_owned(), "bad-offset".to_owned()]));
                // pf_getstatus: time_second - (time_uptime - since)
                let [second, uptime] = &mut self.clocks;
                (*second, *uptime) = (*second + 1, *uptime + 1);
                let since = 1_800_000_000 + second.div_ceil(2) - *uptime / 2;
                let checksum = [self.checksum.to_ne_bytes(); 2].concat();
                let status = List::new()
                    .with("padding", Value::Binary(vec![7; self.padding]))
                    .with("running", Value::Bool(self.running))
                    .with("since", Value::Number(since))
                    .with("hostid", Value::Number(u64::from(self.hostid)))
                    .with("chksum", Value::Binary(checksum))
                    .with("counters", Value::List(counters))
                    .with("ifname", Value::String(String::new()));
                reply(nv, &status)
            }
            Call::GetLimit(limit) if limit.index == 4 && !self.is_14 => Ok(()),
            Call::GetLimit(_) => Err(libc::EINVAL),
            Call::KillStates(nv) => self.kill(nv),
            Call::GetStates(room, count) => {
                *count = self.states.len();
                if room.is_empty() {
                    return Ok(());
                }
                assert!(room.len() > *count);
                for (into, state) in room.iter_mut().zip(&self.states) {
                    into.version = 20_230_404;
                    (into.af, into.proto) = (if state.to.is_ipv4() { 2 } else { 28 }, state.protocol);
                    let bytes = |address: IpAddr| match address {
                        IpAddr::V4(v4) => {
                            let mut bytes = [0; 16];
                            bytes[..4].copy_from_slice(&v4.octets());
                            bytes
                        }
                        IpAddr::V6(v6) => v6.octets(),
                    };
                    into.keys[0].addr = [bytes(state.from), bytes(state.to)];
                    into.keys[0].port = [40_000_u16.to_be(), state.port.to_be()];
                    into.keys[1] = into.keys[0];
                    if let Some(target) = state.redirected {
                        into.keys[1].addr[1] = bytes(target);
                        into.keys[1].port[1] = 80_u16.to_be();
                    }
                }
                Ok(())
            }
            Call::GetTable(table, room) => self.get_table(table.as_mut_bytes(), room.as_mut_bytes()),
            Call::GetSyncookies(nv) => {
                let adaptive = List::new().with("adaptive", Value::Bool(false));
                reply(nv, &adaptive.with("enabled", Value::Bool(self.syncookies)))
            }
            Call::GetEtherRules(nv) => {
                let request = List::decode(&nv.buffer[..nv.length], &[]).map_err(|_| libc::EBADMSG)?;
                assert_eq!(request.string("anchor"), Ok(""));
                reply(nv, &List::new().with("ticket", Value::Number(1)).with("nr", Value::Number(self.ether_rules)))
            }
            Call::GetInterfaces(room, count) => self.get_interfaces(room.as_mut_bytes(), count),
        }
    }

    /// DIOCRGETADDRS: with room for fewer addresses than there are, only their number is given.
    fn get_table(&self, bytes: &mut [u8], room: &mut [u8]) -> Served {
        assert_eq!(bytes.len(), table::SIZE);
        zero(bytes, &[(table::TABLE_FLAGS, table::ESIZE), (table::ENTRIES, table::SIZE)]);
        if room.len() / table::ADDRESS > self.most {
            return Err(libc::EINVAL);
        }
        let key = (text_at(bytes, table::ANCHOR, at::MAXPATHLEN), text_at(bytes, table::NAME, at::TABLE_NAME_SIZE));
        let held = self.tables.get(&key).ok_or(libc::ESRCH)?;
        if held.len() <= room.len() / table::ADDRESS {
            for (into, entry) in room.chunks_mut(table::ADDRESS).zip(held) {
                into.copy_from_slice(entry);
            }
        }
        put_u32(bytes, table::ENTRIES, held.len() as u32);
        Ok(())
    }

    /// DIOCIGETIFACES (pfi_get_ifaces): as many as the buffer can hold, and the number is one more.
    fn get_interfaces(&self, bytes: &mut [u8], count: &mut usize) -> Served {
        if self.other_kif {
            return Err(libc::ENODEV);
        }
        let room = bytes.len() / kif::SIZE;
        assert_eq!(bytes.len(), kif::SIZE * room);
        bytes.fill(0);
        for (kif, (name, group, flags)) in bytes.chunks_mut(kif::SIZE).zip(&self.interfaces) {
            kif[..name.len()].copy_from_slice(name.as_bytes());
            put_u32(kif, kif::FLAGS, *flags);
            kif[kif::GROUP..kif::GROUP + 8].copy_from_slice(&if *group { 0xfeed_c0de_u64 } else { 0 }.to_ne_bytes());
        }
        *count = self.interfaces.len().min(room + 1);
        Ok(())
    }

    fn begin(&mut self, rulesets: &mut [PfiocTransE]) -> Served {
        for element in rulesets {
            let bytes = element.as_mut_bytes();
            let number = u32_at(bytes, trans::RS_NUM) as i32;
            let anchor = text_at(bytes, trans::ANCHOR, at::MAXPATHLEN);
            assert!((0..5).contains(&number), "ruleset {number}");
            assert!(anchor.split('/').all(|name| !name.is_empty() && name.len() < 64), "anchor {anchor}");
            let mut parent = anchor.as_str();
            while let Some((above, _)) = parent.rsplit_once('/') {
                self.anchors.entry(above.to_owned()).or_default();
                parent = above;
            }
            let set = self.anchors.entry(anchor).or_default().entry(number).or_default();
            set.inactive.clear();
            set.inactive_ticket += 1;
            set.open = true;
            set.begun = true;
            put_u32(bytes, trans::TICKET, set.inactive_ticket);
        }
        Ok(())
    }

    fn set(&mut self, element: &PfiocTransE) -> Option<&mut Set> {
        let bytes = element.as_bytes();
        let anchor = text_at(bytes, trans::ANCHOR, at::MAXPATHLEN);
        let ticket = u32_at(bytes, trans::TICKET);
        let set = self.anchors.get_mut(&anchor)?.get_mut(&(u32_at(bytes, trans::RS_NUM) as i32))?;
        (set.open && set.inactive_ticket == ticket).then_some(set)
    }

    fn commit(&mut self, rulesets: &[PfiocTransE]) -> Served {
        for element in rulesets {
            self.set(element).ok_or(libc::EBUSY)?;
        }
        for element in rulesets {
            let set = self.set(element).expect("checked above");
            set.active = std::mem::take(&mut set.inactive);
            set.active_ticket = set.inactive_ticket;
            set.open = false;
        }
        for element in rulesets {
            self.collect(&text_at(element.as_bytes(), trans::ANCHOR, at::MAXPATHLEN));
        }
        self.collect_uncalled();
        Ok(())
    }

    /// pf_remove_if_empty_kruleset: an anchor is removed with its last rule, and so are its parents unless a rule calls
    /// them.
    fn collect(&mut self, anchor: &str) {
        let called = self.called();
        let mut anchor = anchor;
        while !anchor.is_empty() {
            let below = format!("{anchor}/");
            let kept = called.iter().any(|path| path == anchor)
                || self.anchors.keys().any(|path| path.starts_with(&below))
                || self.anchors.get(anchor).is_some_and(|sets| {
                    sets.values().any(|set| set.open || !set.active.is_empty() || !set.inactive.is_empty())
                });
            if kept {
                return;
            }
            self.anchors.remove(anchor);
            anchor = anchor.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
    }

    /// What is called by any rule, also of an inactive ruleset (refcnt of struct pf_kanchor).
    fn called(&self) -> Vec<String> {
        let of = |(caller, sets): (&String, &BTreeMap<i32, Set>)| {
            let rules: Vec<&Stored> = sets.values().flat_map(|set| set.active.iter().chain(&set.inactive)).collect();
            let calls = rules.into_iter().filter(|stored| !stored.anchor_call.is_empty());
            calls.map(|stored| resolve(caller, &stored.anchor_call)).collect::<Vec<_>>()
        };
        self.anchors.iter().flat_map(of).collect()
    }

    /// An empty anchor that was called and is not called any more is removed when the rule is freed (pf_free_rule,
    /// pf_kanchor_remove).
    fn collect_uncalled(&mut self) {
        let all: Vec<String> = self.anchors.keys().cloned().collect();
        all.iter().rev().for_each(|anchor| self.collect(anchor));
    }

    fn rollback(&mut self, rulesets: &[PfiocTransE]) -> Served {
        for element in rulesets {
            if let Some(set) = self.set(element) {
                set.inactive.clear();
                set.open = false;
            }
        }
        Ok(())
    }

    fn add_addr(&mut self, bytes: &[u8]) -> Served {
        assert_eq!(bytes.len(), pooladdr::SIZE);
        if u32_at(bytes, pooladdr::TICKET) != self.pool_ticket {
            return Err(libc::EBUSY);
        }
        let family = bytes[pooladdr::AF];
        let end = pooladdr::ADDR + at::WRAP;
        check_address(&bytes[pooladdr::ADDR..end]);
        let name = text_at(bytes, pooladdr::IFNAME, at::IFNAMSIZ);
        // an interface alone has neither family nor address
        assert!([2, 28].contains(&family) || family == 0 && !name.is_empty(), "family {family} of an address");
        let used = [pooladdr::TICKET, pooladdr::NR, pooladdr::AF, pooladdr::ANCHOR, pooladdr::ADDR];
        let [ticket, nr, af, anchor, address] = used;
        let after = pooladdr::IFNAME + at::IFNAMSIZ;
        zero(bytes, &[(0, ticket), (nr, af), (anchor, address), (end, pooladdr::IFNAME), (after, pooladdr::SIZE)]);
        self.pool.push(bytes.to_vec());
        Ok(())
    }

    fn add_rule(&mut self, bytes: &[u8]) -> Served {
        assert_eq!(bytes.len(), at::rule::SIZE);
        let rule = &bytes[RULE..];
        // pf_rule_to_krule, then pf_ioctl_addrule
        let icmp = u16::from_ne_bytes([rule[at::RETURN_ICMP], rule[at::RETURN_ICMP + 1]]);
        if rule[at::SRC + at::TYPE] > 5 || rule[at::DST + at::TYPE] > 5 || icmp >> 8 > 40 {
            return Err(libc::EINVAL);
        }
        check_rule(bytes);
        let call = text_at(bytes, at::rule::ANCHOR_CALL, at::MAXPATHLEN);
        let anchor = &bytes[at::rule::ANCHOR..at::rule::ANCHOR_CALL];
        let end = anchor.iter().position(|byte| *byte == 0).expect("an anchor must end with a NUL");
        let anchor = std::str::from_utf8(&anchor[..end]).unwrap();
        let sets = self.anchors.get_mut(anchor).ok_or(libc::EINVAL)?;
        let set = sets.get_mut(&ruleset_number(rule[at::ACTION])).ok_or(libc::EINVAL)?;
        let tickets = (u32_at(bytes, at::rule::TICKET), u32_at(bytes, at::rule::POOL_TICKET));
        if tickets != (set.inactive_ticket, self.pool_ticket) {
            return Err(libc::EBUSY);
        }
        if !set.begun {
            return Err(libc::EINVAL);
        }
        if self.out_of_tags && [at::TAGNAME, at::MATCH_TAGNAME].iter().any(|tag| rule[*tag] != 0) {
            return Err(libc::EBUSY);
        }
        if ([4, 8].contains(&rule[at::ACTION]) && call.is_empty() || rule[at::RT] > 1) && self.pool.is_empty() {
            return Err(libc::EINVAL);
        }
        if rule[at::RT] != 0 && rule[at::DIRECTION] == 0 {
            return Err(libc::EINVAL);
        }
        if u32_at(rule, at::RTABLEID) as i32 >= FIBS {
            return Err(libc::EBUSY);
        }
        let mut bytes = bytes.to_vec();
        // tickets differ between transactions and are not part of the rule
        bytes[at::rule::TICKET..at::rule::NR].fill(0);
        let pool = std::mem::take(&mut self.pool)
            .into_iter()
            .map(|mut address| {
                address[pooladdr::TICKET..pooladdr::NR].fill(0);
                address
            })
            .collect();
        let path = (!call.is_empty()).then(|| resolve(anchor, &call));
        let stored = Stored { bytes, pool, nat: None, anchor_call: call, counters: [0; 6] };
        if set.inactive.contains(&stored) {
            return Err(libc::EEXIST);
        }
        set.inactive.push(stored);
        self.create(path);
        Ok(())
    }

    /// pf_kanchor_setup creates what is called.
    fn create(&mut self, path: Option<String>) {
        let mut path = path.as_deref();
        while let Some(anchor) = path {
            self.anchors.entry(anchor.to_owned()).or_default();
            path = anchor.rsplit_once('/').map(|(parent, _)| parent);
        }
    }

    /// DIOCCHANGERULE.
    fn change_rule(&mut self, bytes: &[u8]) -> Served {
        const TAIL: u32 = 2;
        const BEFORE: u32 = 3;
        const REMOVE: u32 = 5;
        if self.no_change_rule {
            return Err(libc::ENODEV);
        }
        let action = u32_at(bytes, 0);
        assert!([TAIL, BEFORE, REMOVE].contains(&action), "action {action}");
        if action != REMOVE && u32_at(bytes, at::rule::POOL_TICKET) != self.pool_ticket {
            return Err(libc::EBUSY);
        }
        let anchor = text_at(bytes, at::rule::ANCHOR, at::MAXPATHLEN);
        let call = text_at(bytes, at::rule::ANCHOR_CALL, at::MAXPATHLEN);
        let number = ruleset_number(bytes[RULE + at::ACTION]);
        let set = self.anchors.get_mut(&anchor).ok_or(libc::EINVAL)?.entry(number).or_default();
        if u32_at(bytes, at::rule::TICKET) != set.active_ticket {
            return Err(libc::EINVAL);
        }
        let at = u32_at(bytes, at::rule::NR) as usize;
        let mut path = None;
        if action == REMOVE {
            if at >= set.active.len() {
                return Err(libc::EINVAL);
            }
            set.active.remove(at);
        } else {
            assert!(!call.is_empty() && self.pool.is_empty(), "kport changes calls only");
            path = Some(resolve(&anchor, &call));
            let mut bytes = bytes.to_vec();
            bytes[..at::rule::ANCHOR].fill(0);
            check_rule(&bytes);
            let stored = Stored { bytes, pool: vec![], nat: None, anchor_call: call, counters: [0; 6] };
            if set.active.contains(&stored) {
                return Err(libc::EEXIST);
            }
            let at = if action == TAIL { set.active.len() } else { at };
            if action == BEFORE && at >= set.active.len() {
                return Err(libc::EINVAL);
            }
            set.active.insert(at, stored);
        }
        set.active_ticket += 1;
        self.create(path);
        self.collect(&anchor);
        self.collect_uncalled();
        Ok(())
    }

    fn get_rules(&mut self, bytes: &mut [u8]) -> Served {
        let anchor = text_at(bytes, at::rule::ANCHOR, at::MAXPATHLEN);
        let number = ruleset_number(bytes[RULE + at::ACTION]);
        let sets = self.anchors.get(&anchor).ok_or(libc::EINVAL)?;
        let (count, ticket) = sets.get(&number).map_or((0, 0), |set| (set.active.len() as u32, set.active_ticket));
        put_u32(bytes, at::rule::NR, count);
        put_u32(bytes, at::rule::TICKET, ticket);
        Ok(())
    }

    fn get_rule(&mut self, nv: &mut Nv) -> Served {
        let request = List::decode(&nv.buffer[..nv.length], &[]).map_err(|_| libc::EBADMSG)?;
        let anchor = request.string("anchor").map_err(|_| libc::EBADMSG)?;
        let number = |name| request.number(name).map_err(|_| libc::EBADMSG);
        let (action, ticket, nr) = (number("ruleset")?, number("ticket")?, number("nr")?);
        let stored = self.rule_at(anchor, action as u8, ticket as u32, nr as u32)?;
        let answer = List::new()
            .with("nr", Value::Number(nr))
            .with("rule", Value::List(as_nvlist(stored, nr)))
            .with("anchor_call", Value::String(stored.anchor_call.clone()));
        reply(nv, &answer)
    }

    /// pf_get_kpool, for DIOCGETADDRS: the pool of 14, and of 15 the one that is not route-to's.
    fn pooled(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, i32> {
        let anchor = &bytes[pooladdr::ANCHOR..pooladdr::ANCHOR + at::MAXPATHLEN];
        let end = anchor.iter().position(|byte| *byte == 0).expect("an anchor must end with a NUL");
        let anchor = std::str::from_utf8(&anchor[..end]).unwrap();
        let (ticket, nr) = (u32_at(bytes, pooladdr::TICKET), u32_at(bytes, pooladdr::R_NUM));
        let stored = self.rule_at(anchor, bytes[pooladdr::R_ACTION], ticket, nr).map_err(|_| libc::EBUSY)?;
        Ok(if self.is_14 || stored.bytes[RULE + at::RT] == 0 { stored.pool.clone() } else { vec![] })
    }

    /// A rule of an active ruleset.
    fn rule_at(&self, anchor: &str, action: u8, ticket: u32, nr: u32) -> Result<&Stored, i32> {
        let sets = self.anchors.get(anchor).ok_or(libc::ENOENT)?;
        let set = sets.get(&ruleset_number(action)).ok_or(libc::EBUSY)?;
        if ticket != set.active_ticket {
            return Err(libc::EBUSY);
        }
        set.active.get(nr as usize).ok_or(libc::EBUSY)
    }

    /// PFNL_CMD_ADD_ADDR of the source of af-to, and PFNL_CMD_ADDRULE (sys/netpfil/pf/pf_nl.c); `None` for another command.
    fn add_by_netlink(&mut self, command: Command, request: &Attributes) -> Option<Served> {
        let get = |from: &[u8], kind: u16| {
            let found = attributes(from).unwrap().into_iter().find(|(found, _)| *found == kind);
            found.map(|(_, value)| value.to_vec())
        };
        let one = |kind| get(request.as_bytes(), kind).expect("an attribute that pfctl(8) sends");
        let number = |kind| u32::from_le_bytes(one(kind).try_into().unwrap());
        if command == Command::AddAddr {
            assert_eq!((number(10), one(7)), (4, vec![2]), "a source of IPv4");
            if number(2) != self.pool_ticket {
                return Some(Err(libc::EBUSY));
            }
            self.source = Some(get(&one(9), 1).unwrap());
            return Some(Ok(()));
        }
        if command != Command::AddRule {
            return None;
        }
        let mut bytes = vec![0; at::rule::SIZE];
        let anchor = one(3);
        bytes[at::rule::ANCHOR..at::rule::ANCHOR + anchor.len()].copy_from_slice(&anchor);
        put_u32(&mut bytes, at::rule::TICKET, number(1));
        put_u32(&mut bytes, at::rule::POOL_TICKET, number(2));
        assert_eq!(one(4), [0], "without it the kernel dereferences a null pointer");
        let rule = one(5);
        let mut put = |from: &[u8], kinds: &[(u16, usize, usize)], base: usize| {
            for (kind, at, size) in kinds {
                let value = get(from, *kind).unwrap_or_else(|| panic!("attribute {kind}"));
                assert!(value.len() <= *size, "attribute {kind}");
                bytes[RULE + base + at..RULE + base + at + value.len()].copy_from_slice(&value);
            }
        };
        for (kind, side) in [(1, at::SRC), (2, at::DST)] {
            let from = get(&rule, kind).unwrap();
            let ports = [(2, at::PORT, 2), (3, at::LAST_PORT, 2), (4, at::NEG, 1), (5, at::PORT_OP, 1)];
            put(&from, &ports, side);
            let wrap = [(1, at::ADDR, 16), (2, at::MASK, 16), (5, at::TYPE, 1), (6, at::IFLAGS, 1)];
            put(&get(&from, 1).unwrap(), &wrap, side);
        }
        put(&get(&rule, 4).unwrap(), &[(1, at::LABEL, at::LABEL_SIZE)], 0);
        let pool = [(4, at::PROXY_PORT, 2), (5, at::LAST_PROXY_PORT, 2), (6, at::POOL_OPTS, 1)];
        put(&get(&rule, 11).unwrap(), &pool, 0);
        let numbers = [
            (5, at::IFNAME, at::IFNAMSIZ),
            (13, at::RTABLEID, 4),
            (15, at::MAX_STATES, 4),
            (17, at::MAX_SRC_STATES, 4),
            (18, at::MAX_SRC_CONN_RATE, 4),
            (19, at::MAX_SRC_CONN_SECONDS, 4),
            (33, at::RULE_FLAG, 4),
            (34, at::ACTION, 1),
            (35, at::DIRECTION, 1),
            (36, at::LOG, 1),
            (38, at::QUICK, 1),
            (42, at::KEEP_STATE, 1),
            (43, at::AF, 1),
            (44, at::PROTO, 1),
            (47, at::FLAGS, 1),
            (48, at::FLAGSET, 1),
            (74, at::MAX_SRC_CONN, 4),
        ];
        put(&rule, &numbers, 0);
        let timeouts = get(&rule, 14).unwrap();
        for (n, (_, value)) in attributes(&timeouts).unwrap().into_iter().enumerate() {
            let at = RULE + at::ADAPTIVE_START + 4 * n - 4 * 16;
            bytes[at..at + 4].copy_from_slice(value);
        }
        // pf_rule_checkaf; and pf_get_transaddr_af panics without a source
        let flags = u32_at(&bytes, RULE + at::RULE_FLAG);
        assert_eq!((flags & AFTO, bytes[RULE + at::AF], get(&rule, 76)), (AFTO, 28, Some(vec![2])));
        put_u32(&mut bytes, RULE + at::RULE_FLAG, flags & !AFTO);
        let source = self.source.take().expect("the kernel would panic");
        let served = self.add_rule(&bytes);
        if served.is_ok() {
            let text = text_at(&bytes, at::rule::ANCHOR, at::MAXPATHLEN);
            let stored = self.anchors.get_mut(&text).unwrap().get_mut(&1).unwrap().inactive.last_mut().unwrap();
            put_u32(&mut stored.bytes, RULE + at::RULE_FLAG, flags);
            stored.nat = Some((source, get(&rule, 75).unwrap()));
        }
        Some(served)
    }

    /// A request of the netlink family (sys/netpfil/pf/pf_nl.c).
    fn answer(&self, command: Command, request: &Attributes) -> Result<Attributes, i32> {
        let given = attributes(request.as_bytes()).unwrap();
        let get =
            |kind: u16| given.iter().find(|(found, _)| *found == kind).expect("an attribute that pfctl(8) sends").1;
        let number = |kind| u32::from_le_bytes(get(kind).try_into().unwrap());
        let text = |kind| text_at(get(kind), 0, get(kind).len());
        if command == Command::Rule {
            let stored = self.rule_at(&text(1), get(2)[0], number(4), number(3))?;
            let list = as_nvlist(stored, u64::from(number(3)));
            let rule = match &stored.nat {
                Some((_, pool)) => {
                    let mape = Attributes::default().with(1, &[0]).with(2, &[0]).with(3, &[0, 0]);
                    let more = Attributes::default().with(1, &[0; 16]).with(7, mape.as_bytes());
                    Attributes::default().with(75, &[pool, more.as_bytes()].concat()).with(76, &[2])
                }
                None => Attributes::default(),
            };
            // of two attributes the first one counts
            let rest = as_attributes(&list, RULE_ATTRIBUTES);
            let rule = attributes(rest.as_bytes())
                .unwrap()
                .into_iter()
                .fold(rule, |made, (kind, value)| made.with(kind, value));
            return Ok(rule.text(72, &stored.anchor_call));
        }
        let stored = self.rule_at(&text(8), get(5)[0], number(2), number(4)).map_err(|_| libc::EBUSY)?;
        // PF_RT for route-to, PF_RDR for all others; what is handed over by struct has no pool of nat-to
        let which = if stored.bytes[RULE + at::RT] == 0 { 8 } else { 14 };
        assert!([4, 8, 14].contains(&number(10)), "PF_AA_WHICH");
        if let (4, Some((source, _))) = (number(10), &stored.nat) {
            return Ok(match command {
                Command::Addrs => Attributes::default().number(3, 1),
                _ => {
                    // 15 has no address of an interface
                    let named = attributes(source).unwrap().into_iter().find(|(kind, _)| *kind == 1).unwrap().1;
                    let wrap = Attributes::default().with(1, &[0; 16]).with(2, &[0xff; 16]).with(3, named);
                    let wrap = wrap.text(4, "").with(5, &[2]).with(6, &[0]);
                    let pooled = Attributes::default().with(1, wrap.as_bytes()).text(2, "");
                    Attributes::default().with(7, &[2]).with(9, pooled.as_bytes())
                }
            });
        }
        let pool = if number(10) == which { stored.pool.as_slice() } else { &[] };
        if command == Command::Addrs {
            return Ok(Attributes::default().number(3, pool.len() as u32));
        }
        let one = pool.get(number(3) as usize).ok_or(libc::EBUSY)?;
        let wrap = as_attributes(&wrap_as_nvlist(&one[pooladdr::ADDR..pooladdr::ADDR + at::WRAP]), ADDRESS_ATTRIBUTES);
        let pooled =
            Attributes::default().with(1, wrap.as_bytes()).text(2, &text_at(one, pooladdr::IFNAME, at::IFNAMSIZ));
        Ok(Attributes::default().with(7, &one[pooladdr::AF..=pooladdr::AF]).with(9, pooled.as_bytes()))
    }

    fn children(&self, anchor: &str) -> Result<Vec<String>, i32> {
        if !self.anchors.contains_key(anchor) {
            return Err(libc::ENOENT);
        }
        let prefix = if anchor.is_empty() { String::new() } else { format!("{anchor}/") };
        let children = self.anchors.keys().filter_map(|path| path.strip_prefix(&prefix));
        Ok(children.filter(|name| !name.is_empty() && !name.contains('/')).map(str::to_owned).collect())
    }

    /// pf_nvstate_kill_to_kstate_kill, then pf_killstates_row.
    fn kill(&mut self, nv: &mut Nv) -> Served {
        struct Side {
            family: Option<u64>,
            network: Option<IpNet>,
            except: bool,
            op: u64,
            ports: [u16; 2],
        }
        let request = List::decode(&nv.buffer[..nv.length], &[]).map_err(|_| libc::EBADMSG)?;
        let family = request.number("af").map_err(|_| libc::EINVAL)?;
        let side = |side: &str| {
            let side = request.list(side)?;
            let wrap = side.list("addr")?;
            assert_eq!((wrap.number("type")?, wrap.number("iflags")?), (0, 0));
            let except = side.number("neg")? != 0;
            let bytes = |part: &str| -> Result<[u8; 16], Malformed> {
                Ok(wrap.list(part)?.binary("addr")?.try_into().expect("sixteen bytes"))
            };
            let address = |bytes: [u8; 16]| match family {
                2 => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
                28 => IpAddr::from(bytes),
                _ => panic!("an address without a family"),
            };
            let mask = bytes("mask")?;
            let network = match mask {
                [0, ..] => None,
                mask => Some(IpNet::with_netmask(address(bytes("addr")?), address(mask)).expect("a network")),
            };
            // in network order
            let ports = [0, 1].map(|at| u16::from_be(side.numbers("port").unwrap()[at] as u16));
            assert!(!except || network.is_some());
            Ok(Side { family: Some(family).filter(|af| *af != 0), network, except, op: side.number("port_op")?, ports })
        };
        let checked = || {
            let cmp = request.list("cmp")?;
            for name in ["id", "creatorid", "direction"] {
                cmp.number(name)?;
            }
            request.bool("kill_match")?;
            let (label, on) = (request.string("label")?.to_owned(), request.string("ifname")?.to_owned());
            Ok((label, on, request.number("proto")?, side("src")?, side("dst")?))
        };
        let (label, on, protocol, from, to) = checked().map_err(|_: Malformed| libc::EINVAL)?;
        if label.len() >= 64 || on.len() >= 16 {
            return Err(libc::EINVAL);
        }
        // the kernel of 14 does not look for it
        let nat = !self.is_14 && request.bool("nat") == Ok(true);
        assert!(!label.is_empty() || to.network.is_some(), "this matches the states of others");
        assert_eq!((from.op, from.ports), (0, [0, 0]), "any source port");
        let before = self.states.len();
        self.states.retain(|state| {
            let (address, port) = match state.redirected.filter(|_| nat) {
                Some(target) => (target, 80),
                None => (state.to, state.port),
            };
            let in_ports = match to.op {
                0 => true,
                2 => port == to.ports[0],
                9 => (to.ports[0]..=to.ports[1]).contains(&port),
                op => panic!("port_op {op}"),
            };
            let of_family = |side: &Side, address: IpAddr| {
                side.family.is_none_or(|af| (af == 2) == address.is_ipv4())
                    && side.network.is_none_or(|network| network.contains(&address) != side.except)
            };
            !((label.is_empty() || state.label == label)
                && (on.is_empty() || state.on == on)
                && [0, u64::from(state.protocol)].contains(&protocol)
                && of_family(&from, state.from)
                && of_family(&to, address)
                && in_ports)
        });
        let killed = before - self.states.len();
        reply(nv, &List::new().with("killed", Value::Number(killed as u64)))
    }
}

fn reply(nv: &mut Nv, answer: &List) -> Served {
    let bytes = answer.encode();
    if !nv.buffer.is_empty() {
        if nv.buffer.len() < bytes.len() {
            return Err(libc::ENOSPC);
        }
        nv.buffer[..bytes.len()].copy_from_slice(&bytes);
    }
    nv.length = bytes.len();
    Ok(())
}

fn zero(bytes: &[u8], ranges: &[(usize, usize)]) {
    for (from, to) in ranges {
        assert!(bytes[*from..*to].iter().all(|byte| *byte == 0), "bytes {from} to {to} are not zero");
    }
}

/// pf_check_rule_addr, and errors that would harm the kernel.
fn check_address(wrap: &[u8]) {
    zero(wrap, &[(32, at::TYPE), (42, at::WRAP)]);
    match wrap[at::TYPE] {
        0 => assert_eq!(wrap[at::IFLAGS], 0, "flags of an address"),
        2 => {
            assert!(wrap[at::ADDR] != 0 && wrap[at::IFNAMSIZ - 1] == 0, "a name of an interface");
            // another mask would turn the addresses into networks
            assert_eq!(wrap[at::MASK..at::MASK + 16], [0xff; 16], "mask of an interface's address");
        }
        3 => assert!(wrap[at::ADDR] != 0 && wrap[at::TABLE_NAME_SIZE - 1] == 0, "a name of a table"),
        other => panic!("address type {other}"),
    }
}

/// Everything that must be zero or in range in a rule of kport.
fn check_rule(bytes: &[u8]) {
    let rule = &bytes[RULE..];
    for side in [at::SRC, at::DST] {
        check_address(&rule[side..side + at::WRAP]);
    }
    zero(bytes, &[(0, at::rule::TICKET), (at::rule::NR, at::rule::ANCHOR)]);
    let is_call = bytes[at::rule::ANCHOR_CALL] != 0;
    // pointers, counters, and what kport never sets
    zero(
        rule,
        &[
            (at::SRC + at::PORT_OP + 1, at::DST),
            (at::DST + at::NEG, at::DST + at::PORT_OP),
            (at::DST + at::PORT_OP + 1, at::LABEL),
            (at::IFNAME + at::IFNAMSIZ, at::TAGNAME),
            (at::OVERLOAD_TBLNAME + at::TABLE_NAME_SIZE, at::PROXY_PORT),
            (at::POOL_OPTS + 1, at::RTABLEID),
            (at::RTABLEID + 4, at::ADAPTIVE_START),
            (at::SRC_NODE + 4, at::MAX_STATES),
            (at::MAX_SRC_NODES, at::MAX_SRC_STATES),
            (at::MAX_SRC_CONN_SECONDS + 4, at::RULE_FLAG),
            (at::LOGIF, at::QUICK),
            (at::IFNOT, at::KEEP_STATE),
            (at::ICMP_TYPE, at::FLAGS),
            (at::FLAGSET + 1, at::RT),
            (at::RT + 1, rule.len()),
        ],
    );
    // reply-to, of pass rules only; a source is negated if it is the network of an interface
    assert!([0, 4].contains(&rule[at::RT]) && (rule[at::ACTION] == 0 || rule[at::RT] == 0), "rt {}", rule[at::RT]);
    assert!(rule[at::ACTION] == 0 || u32_at(rule, at::RTABLEID) as i32 == -1, "rtableid");
    assert!(rule[at::SRC + at::NEG] == 0 || (rule[at::SRC + at::TYPE], rule[at::SRC + at::IFLAGS]) == (2, 1), "neg");
    // a call for ports is for both families
    assert!([2, 28].contains(&rule[at::AF]) || is_call && rule[at::AF] == 0, "family {}", rule[at::AF]);
    for (at, size) in [
        (at::LABEL, at::LABEL_SIZE),
        (at::IFNAME, at::IFNAMSIZ),
        (at::TAGNAME, at::TAG_NAME_SIZE),
        (at::MATCH_TAGNAME, at::TAG_NAME_SIZE),
        (at::OVERLOAD_TBLNAME, at::TABLE_NAME_SIZE),
    ] {
        assert_eq!(rule[at + size - 1], 0, "a string at {at} does not end with a NUL");
    }
    if rule[at::ACTION] == 0 {
        check_limits(rule);
        assert!(
            rule[at::DIRECTION] <= 2 && rule[at::LOG] <= 1 && rule[at::QUICK] <= 1,
            "direction, log, quick: {:?}",
            &rule[at::DIRECTION..=at::QUICK]
        );
    } else {
        // timeouts and limits, rule_flag, direction, log and quick are for filter rules
        zero(
            rule,
            &[
                (at::ADAPTIVE_START, at::MAX_SRC_CONN_SECONDS + 4),
                (at::RULE_FLAG, at::ACTION),
                (at::DIRECTION, at::IFNOT),
            ],
        );
    }
    let port = |at: usize| u16::from_be_bytes([rule[at], rule[at + 1]]);
    let (first, last) = (port(at::DST + at::PORT), port(at::DST + at::LAST_PORT));
    match rule[at::DST + at::PORT_OP] {
        // a call for an address has none
        0 if is_call => assert!(rule[at::PROTO] == 0 && (first, last) == (0, 0) && rule[at::AF] != 0),
        2 => assert!(first > 0 && last == 0),
        9 => assert!(first < last),
        other => panic!("port_op {other}"),
    }
}

/// What pfctl(8) computes from the options of `keep state`: rules of pfrule in sbin/pfctl/parse.y.
fn check_limits(rule: &[u8]) {
    let [adaptive_start, adaptive_end, src_node] =
        [at::ADAPTIVE_START, at::ADAPTIVE_END, at::SRC_NODE].map(|at| u32_at(rule, at));
    let [max, max_src_states, max_src_conn] =
        [at::MAX_STATES, at::MAX_SRC_STATES, at::MAX_SRC_CONN].map(|at| u32_at(rule, at));
    let [rate, seconds] = [at::MAX_SRC_CONN_RATE, at::MAX_SRC_CONN_SECONDS].map(|at| u32_at(rule, at));
    assert_eq!((adaptive_start, adaptive_end), (max / 10 * 6, (max / 10).wrapping_mul(12)), "adaptive timeouts");
    assert_eq!(rate == 0, seconds == 0, "a rate of {rate}/{seconds}");
    assert!(rate <= u32::MAX / 1000, "PF_THRESHOLD_MAX");
    assert_eq!(src_node, seconds, "sources are forgotten before their rate is");
    // PFRULE_SRCTRACK and PFRULE_RULESRCTRACK
    let tracked = max_src_states != 0 || max_src_conn != 0 || rate != 0;
    assert_eq!(u32_at(rule, at::RULE_FLAG), if tracked { 0x60 } else { 0 }, "rule_flag");
    // pf counts connections only if it sees handshakes
    assert!(rule[at::PROTO] == 6 || (max_src_conn, rate) == (0, 0), "tcp only");
}

/// pf_addr_wrap_to_nvaddr_wrap
fn wrap_as_nvlist(wrap: &[u8]) -> List {
    let number = |value: u8| Value::Number(u64::from(value));
    let blob = |from: usize| Value::List(List::new().with("addr", Value::Binary(wrap[from..from + 16].to_vec())));
    let mut list = List::new().with("type", number(wrap[at::TYPE])).with("iflags", number(wrap[at::IFLAGS]));
    match wrap[at::TYPE] {
        2 => {
            list.add("ifname", Value::String(text_at(wrap, at::ADDR, at::IFNAMSIZ)));
            list.add("dyncnt", Value::Number(1));
        }
        3 => {
            list.add("tblname", Value::String(text_at(wrap, at::ADDR, at::TABLE_NAME_SIZE)));
            list.add("tblcnt", Value::Number(0));
        }
        _ => {}
    }
    list.with("addr", blob(at::ADDR)).with("mask", blob(at::MASK))
}

/// pf_krule_to_nvrule, without what decides nothing.
pub fn as_nvlist(stored: &Stored, nr: u64) -> List {
    let rule = &stored.bytes[RULE..];
    let number = |value: u8| Value::Number(u64::from(value));
    let native = |at: usize| u64::from(u16::from_ne_bytes([rule[at], rule[at + 1]]));
    let word = |at: usize| u64::from(u32_at(rule, at));
    let side = |side: usize| {
        Value::List(
            List::new()
                .with("addr", Value::List(wrap_as_nvlist(&rule[side..side + at::WRAP])))
                .with("port", Value::Numbers(vec![native(side + at::PORT), native(side + at::LAST_PORT)]))
                .with("neg", number(rule[side + at::NEG]))
                .with("port_op", number(rule[side + at::PORT_OP])),
        )
    };
    let owner = |at: usize| {
        let ids = Value::Numbers(vec![word(at), word(at + 4)]);
        Value::List(List::new().with("uid", ids).with("op", number(rule[at + 8])))
    };
    let mape = List::new().with("offset", number(0)).with("psidlen", number(0)).with("psid", Value::Number(0));
    let pool = List::new()
        .with("key", Value::Binary(rule[at::POOL_KEY..at::POOL_KEY + 16].to_vec()))
        .with("tblidx", Value::Number(0))
        .with("proxy_port", Value::Numbers(vec![native(at::PROXY_PORT), native(at::LAST_PROXY_PORT)]))
        .with("opts", number(rule[at::POOL_OPTS]))
        .with("mape", Value::List(mape));
    let divert = List::new()
        .with(
            "addr",
            Value::List(List::new().with("addr", Value::Binary(rule[at::DIVERT_ADDR..at::DIVERT_PORT].to_vec()))),
        )
        .with("port", Value::Number(native(at::DIVERT_PORT)));
    let label = text_at(rule, at::LABEL, at::LABEL_SIZE);
    let mut labels = vec![String::new(); 5];
    labels[0].clone_from(&label);
    let [evaluations, packets_in, packets_out, bytes_in, bytes_out, states] = stored.counters;
    let mut list = List::new()
        .with("nr", Value::Number(nr))
        .with("src", side(at::SRC))
        .with("dst", side(at::DST))
        .with("skip", Value::Numbers(vec![u64::MAX; 8]))
        .with("labels", Value::Strings(labels))
        .with("label", Value::String(label))
        .with("rpool", Value::List(pool))
        .with("evaluations", Value::Number(evaluations))
        .with("packets", Value::Numbers(vec![packets_in, packets_out]))
        .with("bytes", Value::Numbers(vec![bytes_in, bytes_out]))
        .with("states_tot", Value::Number(states))
        .with("rtableid", Value::Number(i64::from(u32_at(rule, at::RTABLEID) as i32) as u64))
        .with("uid", owner(at::UID))
        .with("gid", owner(at::GID))
        .with("divert", Value::List(divert));
    for (name, at, size) in [
        ("ifname", at::IFNAME, at::IFNAMSIZ),
        ("tagname", at::TAGNAME, at::TAG_NAME_SIZE),
        ("match_tagname", at::MATCH_TAGNAME, at::TAG_NAME_SIZE),
        ("overload_tblname", at::OVERLOAD_TBLNAME, at::TABLE_NAME_SIZE),
    ] {
        list.add(name, Value::String(text_at(rule, at, size)));
    }
    for (name, at) in [
        ("os_fingerprint", at::OS_FINGERPRINT),
        ("max_states", at::MAX_STATES),
        ("max_src_nodes", at::MAX_SRC_NODES),
        ("max_src_states", at::MAX_SRC_STATES),
        ("max_src_conn", at::MAX_SRC_CONN),
        ("max_src_conn_rate.limit", at::MAX_SRC_CONN_RATE),
        ("max_src_conn_rate.seconds", at::MAX_SRC_CONN_SECONDS),
        ("prob", at::PROB),
        ("rule_flag", at::RULE_FLAG),
    ] {
        list.add(name, Value::Number(word(at)));
    }
    for (name, at) in [
        ("action", at::ACTION),
        ("direction", at::DIRECTION),
        ("log", at::LOG),
        ("quick", at::QUICK),
        ("ifnot", at::IFNOT),
        ("match_tag_not", at::MATCH_TAG_NOT),
        ("natpass", at::NATPASS),
        ("keep_state", at::KEEP_STATE),
        ("af", at::AF),
        ("proto", at::PROTO),
        ("type", at::ICMP_TYPE),
        ("code", at::ICMP_CODE),
        ("flags", at::FLAGS),
        ("flagset", at::FLAGSET),
        ("rt", at::RT),
        ("tos", at::TOS),
        ("prio", at::PRIO),
    ] {
        list.add(name, number(rule[at]));
    }
    list
}

/// How long a number of the netlink form is, and what else a value can be.
enum Form {
    Number(usize),
    /// the member of an array with this number, of so many bytes
    Item(usize, usize),
    Text,
    Bytes,
    /// the bytes in a list of their own
    Blob,
    Texts,
    List(&'static [(u16, &'static str, Form)]),
}

/// enum pf_addr_type_t of sys/netpfil/pf/pf_nl.h
const ADDRESS_ATTRIBUTES: &[(u16, &str, Form)] = &[
    (1, "addr", Form::Blob),
    (2, "mask", Form::Blob),
    (3, "ifname", Form::Text),
    (4, "tblname", Form::Text),
    (5, "type", Form::Number(1)),
    (6, "iflags", Form::Number(1)),
];
const SIDE_ATTRIBUTES: &[(u16, &str, Form)] = &[
    (1, "addr", Form::List(ADDRESS_ATTRIBUTES)),
    (2, "port", Form::Item(0, 2)),
    (3, "port", Form::Item(1, 2)),
    (4, "neg", Form::Number(1)),
    (5, "port_op", Form::Number(1)),
];
const POOL_ATTRIBUTES: &[(u16, &str, Form)] = &[
    (1, "key", Form::Bytes),
    (3, "tblidx", Form::Number(4)),
    (4, "proxy_port", Form::Item(0, 2)),
    (5, "proxy_port", Form::Item(1, 2)),
    (6, "opts", Form::Number(1)),
    (
        7,
        "mape",
        Form::List(&[(1, "offset", Form::Number(1)), (2, "psidlen", Form::Number(1)), (3, "psid", Form::Number(2))]),
    ),
];
const OWNER_ATTRIBUTES: &[(u16, &str, Form)] =
    &[(1, "uid", Form::Item(0, 4)), (2, "uid", Form::Item(1, 4)), (3, "op", Form::Number(1))];
/// enum pf_rule_type_t
const RULE_ATTRIBUTES: &[(u16, &str, Form)] = &[
    (1, "src", Form::List(SIDE_ATTRIBUTES)),
    (2, "dst", Form::List(SIDE_ATTRIBUTES)),
    (4, "labels", Form::Texts),
    (5, "ifname", Form::Text),
    (8, "tagname", Form::Text),
    (9, "match_tagname", Form::Text),
    (10, "overload_tblname", Form::Text),
    (11, "rpool", Form::List(POOL_ATTRIBUTES)),
    (75, "rpool", Form::List(POOL_ATTRIBUTES)),
    (77, "rpool", Form::List(POOL_ATTRIBUTES)),
    (12, "os_fingerprint", Form::Number(4)),
    (13, "rtableid", Form::Number(4)),
    (15, "max_states", Form::Number(4)),
    (16, "max_src_nodes", Form::Number(4)),
    (17, "max_src_states", Form::Number(4)),
    (74, "max_src_conn", Form::Number(4)),
    (18, "max_src_conn_rate.limit", Form::Number(4)),
    (19, "max_src_conn_rate.seconds", Form::Number(4)),
    (23, "nr", Form::Number(4)),
    (24, "prob", Form::Number(4)),
    (31, "uid", Form::List(OWNER_ATTRIBUTES)),
    (32, "gid", Form::List(OWNER_ATTRIBUTES)),
    (33, "rule_flag", Form::Number(4)),
    (34, "action", Form::Number(1)),
    (35, "direction", Form::Number(1)),
    (36, "log", Form::Number(1)),
    (38, "quick", Form::Number(1)),
    (39, "ifnot", Form::Number(1)),
    (40, "match_tag_not", Form::Number(1)),
    (41, "natpass", Form::Number(1)),
    (42, "keep_state", Form::Number(1)),
    (43, "af", Form::Number(1)),
    (44, "proto", Form::Number(1)),
    (45, "type", Form::Number(1)),
    (46, "code", Form::Number(1)),
    (84, "type", Form::Number(2)),
    (85, "code", Form::Number(2)),
    (47, "flags", Form::Number(1)),
    (48, "flagset", Form::Number(1)),
    (51, "rt", Form::Number(1)),
    (53, "tos", Form::Number(1)),
    (58, "prio", Form::Number(1)),
    (70, "states_tot", Form::Number(8)),
];

/// What pf_nl.c makes of the rule that pf_nv.c has made this of.
fn as_attributes(list: &List, table: &[(u16, &str, Form)]) -> Attributes {
    let mut made = Attributes::default();
    for (kind, name, form) in table {
        let bytes = match form {
            _ if list.get(name).is_none() => continue,
            Form::Number(size) => list.number(name).unwrap().to_le_bytes()[..*size].to_vec(),
            Form::Item(at, size) => list.numbers(name).unwrap()[*at].to_le_bytes()[..*size].to_vec(),
            Form::Text => [list.string(name).unwrap().as_bytes(), &[0]].concat(),
            Form::Bytes => list.binary(name).unwrap().to_vec(),
            Form::Blob => list.list(name).unwrap().binary("addr").unwrap().to_vec(),
            Form::List(table) => as_attributes(list.list(name).unwrap(), table).as_bytes().to_vec(),
            Form::Texts => {
                let texts = list.strings(name).unwrap().iter().take_while(|text| !text.is_empty());
                texts.fold(Attributes::default(), |made, text| made.text(1, text)).as_bytes().to_vec()
            }
        };
        made = made.with(*kind, &bytes);
    }
    // PF_RT_TIMEOUT, whose members have its own number; PF_RT_DIVERT_PORT; PF_RT_RCV_IFNAME, PF_RT_MAX_PKT_SIZE and what else a
    // struct has no room for
    if let Ok(divert) = list.list("divert") {
        let port = divert.number("port").unwrap().to_le_bytes();
        let timeouts = (0..25).fold(Attributes::default(), |made, _| made.number(14, 0));
        made = made.with(14, timeouts.as_bytes()).with(62, &port[..2]).text(73, "").with(78, &[0]);
        made = made.with(82, Attributes::default().number(1, 0).number(2, 0).as_bytes()).with(83, &[0, 0]);
    }
    made
}
