//! Rules, and the calls of anchors, with their lists expanded as pfctl does (expand_rule in sbin/pfctl/parse.y).

use super::address::{Compared, Operand, Operator, Pool, Ports, Side};
use super::lex::{MOST, Read};
use super::names;
use super::operands::{self, Words, binary, pool, unary};
use super::print::written;
use super::rule::{Action, Conditions, Keep, On, Origin, Owner, RouteKind, Rule, RuleKind};
use crate::error::quoted;
use crate::net::{Direction, Family};

const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const TCP: u8 = 6;

#[derive(Clone, Copy, Default)]
pub(super) struct Defaults {
    pub if_bound: bool,
    pub keep: Option<Keep>,
    pub output: bool,
}

/// Sets what one member of a list says.
type Setter = Box<dyn Fn(&mut Conditions)>;

/// The lists of a statement, in the order in which they are expanded: the last one changes fastest.
const LISTS: [&str; 10] = ["on", "proto", "icmp-type", "from", "to", "from port", "to port", "os", "user", "group"];

/// What a statement has besides its other conditions.
#[derive(Default)]
struct Said {
    /// Those of [`LISTS`] that are given, before they are expanded; the last one of a name counts, an empty one stands for anything.
    lists: Vec<(&'static str, Vec<Setter>)>,
    flags: bool,
    /// State options are given: then those of `set state-defaults` do not apply.
    options: bool,
    /// `if-bound` or `floating`, if one of them is given.
    bound: Option<bool>,
    /// The ports of the new destination are `a:*`.
    open_ports: bool,
    binat_to: bool,
}

impl Said {
    fn list<T: Clone + 'static>(
        &mut self, name: &'static str, members: Vec<T>, set: impl Fn(&mut Conditions, T) + Copy + 'static,
    ) {
        let setter = |member: T| -> Setter { Box::new(move |when| set(when, member.clone())) };
        self.lists.push((name, members.into_iter().map(setter).collect()));
    }

    /// `any`, `{ a, ! b } port { 80, 443 }`
    fn side(
        &mut self, [list, ports]: [&'static str; 2], words: &mut Words<'_>, of: fn(&mut Conditions) -> &mut Side,
    ) -> Read<()> {
        let mut addresses = if words.peek() == "port" { vec![] } else { words.list(&mut operands::side)? };
        // any in a list is equal to any alone
        if addresses.iter().any(|(_, operand)| *operand == Operand::Any) {
            addresses.clear();
        }
        let all = if words.take("port") { words.list(&mut operands::ports)? } else { vec![] };
        self.list(list, addresses, move |when, (not, address)| {
            let side = of(when);
            (side.not, side.address) = (not, address);
        });
        self.list(ports, all, move |when, ports| of(when).ports = Some(ports));
        Ok(())
    }
}

pub(super) fn rules(mut words: Words<'_>, origin: &Origin, defaults: &Defaults) -> Read<Vec<Rule>> {
    let no = words.take("no");
    let first = words.next()?;
    let word = first.bare();
    let calls = [RuleKind::Nat, RuleKind::Rdr, RuleKind::Binat];
    let mut action = match calls.into_iter().find(|kind| kind.call() == word && !no) {
        Some(kind) => Action::Call(kind, words.strings()?),
        None => action(word).ok_or_else(|| format!("{} is not known", quoted(first.shown())))?,
    };
    match &mut action {
        Action::Translate { pool, pass, .. } => {
            *pass = words.take("pass");
            if no && *pass {
                return Err(format!("no {word} has no pass"));
            }
            *pool = pool.take().filter(|_| !no);
        }
        _ if no => return Err(format!("no {word} is not known")),
        Action::Block if matches!(words.peek(), "drop" | "return" | "return-rst" | "return-icmp" | "return-icmp6") => {
            words.next()?;
            words.skip_brackets()?;
        }
        _ => {}
    }
    conditions(words, Rule::new(origin.clone(), action), defaults)
}

/// The action of a rule, by its first word; a translation gets its pool with `->`.
fn action(word: &str) -> Option<Action> {
    let translation = |kind| Action::Translate { kind, pool: Some(Pool::default()), pass: false };
    Some(match word {
        "pass" => Action::Pass,
        "match" => Action::Match,
        "block" => Action::Block,
        "nat" => translation(RuleKind::Nat),
        "rdr" => translation(RuleKind::Rdr),
        "binat" => translation(RuleKind::Binat),
        _ => return None,
    })
}

/// The rule of a line of which only the action is known; `None` if not even that is.
pub(super) fn unknown(line: &str) -> Option<Rule> {
    let (first, rest) = line.trim().split_once(char::is_whitespace)?;
    let mut rule = Rule::new(Origin { text: line.trim().into(), ..Origin::default() }, action(first)?);
    rule.when.unknown = Some(rest.to_owned());
    Some(rule)
}

/// The last of the ports `first:*`, as many as the rule matches (apply_rdr_ports).
fn last_port(first: u16, to: Option<Ports>) -> Read<u16> {
    let Some(Compared { operator, a, b }) = to else { return Ok(0) };
    match operator {
        // pf counts from the rule's port, so there must be one
        Operator::Equal => Ok(0),
        Operator::Range | Operator::Between | Operator::Outside => {
            let last = first.checked_add(b - a).ok_or_else(|| format!("ports {first}:* end after 65535"))?;
            // a single port has no last one
            Ok(if last == first { 0 } else { last })
        }
        _ => Err(format!("ports {first}:* need one port or a range in to")),
    }
}

/// The rules of a statement, after its first words.
pub(super) fn conditions(mut words: Words<'_>, mut rule: Rule, defaults: &Defaults) -> Read<Vec<Rule>> {
    let mut said = Said::default();
    rule.effects.keep = Some(Keep::default());
    while !words.is_empty() {
        let before = words.0;
        if let Err(why) = condition(&mut rule, &mut said, &mut words) {
            // pfctl of another release may know it; its effect on a packet is unknown
            if !defaults.output {
                return Err(why);
            }
            let leads_to = before.iter().skip(1).position(|token| token.bare() == "->");
            let (unknown, rest) = before.split_at(leads_to.map_or(before.len(), |at| at + 1));
            let earlier = rule.when.unknown.iter().map(|earlier| format!("{earlier} ")).collect::<String>();
            rule.when.unknown = Some(earlier + &written(unknown));
            words = Words(rest);
        }
    }
    if let Action::Translate { pool: Some(pool), .. } = &rule.action
        && pool.addresses.is_empty()
        && rule.when.unknown.is_none()
    {
        if !defaults.output {
            return Err("expected ->".into());
        }
        rule.when.unknown = Some("->".to_owned());
    }
    rule.effects.keep = rule.effects.keep.filter(|_| rule.action == Action::Pass);
    // the output of pfctl has it explicitly, but kport's own text and files do not
    if rule.effects.keep.is_some() && !said.flags && !rule.when.fragment {
        rule.when.flags = Some((names::flags("S").unwrap_or(0), names::flags("SA").unwrap_or(0)));
    }
    if let Some(keep) = &mut rule.effects.keep {
        match defaults.keep {
            Some(set) if !said.options => *keep = Keep { synproxy: keep.synproxy, ..set },
            _ => keep.if_bound = said.bound.unwrap_or(defaults.if_bound),
        }
    }
    expand(rule, &said)
}

fn fits(action: &Action, word: &str) -> bool {
    #[rustfmt::skip]
    const STATES_AND_TARGETS: &[&str] = &[
        "no", "keep", "modulate", "synproxy", "nat-to", "rdr-to", "binat-to", "af-to", "route-to", "reply-to", "dup-to",
        "divert-to", "once",
    ];
    const OF_TRANSLATION: &[&str] =
        &["on", "inet", "inet6", "proto", "from", "to", "all", "os", "log", "tag", "tagged", "!", "rtable", "->"];
    match action {
        Action::Translate { .. } => OF_TRANSLATION.contains(&word),
        Action::Call(RuleKind::Filter, _) => !STATES_AND_TARGETS.contains(&word),
        Action::Call(..) => OF_TRANSLATION.contains(&word),
        Action::Match => word != "af-to",
        Action::Pass | Action::Block => true,
    }
}

fn condition(rule: &mut Rule, said: &mut Said, words: &mut Words<'_>) -> Read<()> {
    if !fits(&rule.action, words.peek()) {
        return Err(format!("{} in such a rule is not known", words.shown()));
    }
    let when = &mut rule.when;
    let effects = &mut rule.effects;
    match words.next()?.bare() {
        "in" => when.direction = Some(Direction::In),
        "out" => when.direction = Some(Direction::Out),
        "quick" => rule.quick = true,
        "once" => rule.once = true,
        "log" => {
            rule.log = true;
            words.skip_brackets()?;
        }
        "all" | "allow-opts" | "fastroute" | "divert-reply" => {}
        "on" => said.list("on", words.list(&mut operands::on)?, |when, on| when.on = Some(on)),
        "inet" => when.family = Some(Family::Inet),
        "inet6" => when.family = Some(Family::Inet6),
        "proto" => {
            let protocols = words.list(&mut |words| {
                let name = words.text()?;
                names::protocol(name)
                    .ok_or_else(|| format!("protocol {} is not among those of protocols(5)", quoted(name)))
            })?;
            said.list("proto", protocols, |when, protocol| when.protocol = Some(protocol));
        }
        "from" => said.side(["from", "from port"], words, |when| &mut when.from)?,
        "to" => said.side(["to", "to port"], words, |when| &mut when.to)?,
        "os" => {
            let names = words.list(&mut |words| words.text().map(str::to_owned))?;
            said.list("os", names, |when, os| when.os = Some(os));
        }
        "route-to" => effects.route = Some((RouteKind::Packets, route(when, words)?)),
        "reply-to" => effects.route = Some((RouteKind::Replies, route(when, words)?)),
        "dup-to" => effects.route = Some((RouteKind::Copies, route(when, words)?)),
        "user" => said.list("user", words.list(&mut owner)?, |when, user| when.user = Some(user)),
        "group" => said.list("group", words.list(&mut owner)?, |when, group| when.group = Some(group)),
        "flags" => {
            said.flags = true;
            when.flags = flags(words)?;
        }
        word @ ("icmp-type" | "icmp6-type") => {
            let types = words.list(&mut |words| icmp(words, word == "icmp6-type"))?;
            said.list("icmp-type", types, |when, icmp| when.icmp = Some(icmp));
        }
        "tos" => when.tos = Some(words.read("is not a tos", names::tos)?).filter(|tos| *tos > 0),
        "prio" => when.prio = Some(words.number()?),
        "probability" => {
            let is_number = |text: &str| text.strip_suffix('%').unwrap_or(text).parse::<f64>().is_ok();
            let read = |text: &str| is_number(text).then(|| text.to_owned());
            when.probability = Some(words.read("is not a probability", read)?);
        }
        "fragment" => when.fragment = true,
        "max-pkt-rate" => when.max_pkt_rate = Some(rate(words)?),
        "max-pkt-size" => effects.max_pkt_size = words.number()?,
        "label" => rule.labels.push(words.text()?.to_owned()),
        "ridentifier" => _ = words.text()?,
        "queue" | "dnpipe" | "dnqueue" => words.skip_value()?,
        "scrub" => words.skip_brackets()?,
        "set" => {
            if words.peek() != "(" {
                words.next()?;
            }
            words.skip_value()?;
        }
        "tag" => rule.tag = Some(words.strings()?),
        "tagged" => when.tagged = Some((false, words.strings()?)),
        "received-on" => when.received_on = Some(operands::on(words)?),
        "!" => match words.next()?.bare() {
            "tagged" => when.tagged = Some((true, words.strings()?)),
            "received-on" => when.received_on = Some(On { not: true, ..operands::on(words)? }),
            word => return Err(format!("! {word} is not known")),
        },
        "rtable" => effects.rtable = Some(words.number()?),
        "divert-to" => {
            let first = words.text()?;
            let port = if words.take("port") { words.text()? } else { first };
            effects.divert = Some(port.parse().map_err(|_| format!("port {} is not a number", quoted(port)))?);
        }
        "->" => {
            let Action::Translate { kind, pool: Some(leads_to), .. } = &mut rule.action else {
                return Err("there is no -> in such a rule".into());
            };
            let (pool, open) = pool(words, *kind)?;
            words.end()?;
            (*leads_to, said.open_ports) = (pool, open);
        }
        "nat-to" => effects.nat_to = Some(pool(words, RuleKind::Nat)?.0),
        "rdr-to" => {
            let (pool, open) = pool(words, RuleKind::Rdr)?;
            (effects.rdr_to, said.open_ports) = (Some(pool), open);
        }
        "binat-to" => {
            let (pool, _) = pool(words, RuleKind::Nat)?;
            effects.nat_to = Some(Pool { static_port: true, ports: (0, 0), ..pool });
            said.binat_to = true;
        }
        "af-to" => {
            let family = match words.next()?.bare() {
                "inet" => Family::Inet,
                "inet6" => Family::Inet6,
                word => return Err(format!("{} is not an address family", quoted(word))),
            };
            words.expect("from")?;
            let (source, _) = pool(words, RuleKind::Nat)?;
            let target = if words.take("to") { Some(pool(words, RuleKind::Rdr)?.0) } else { None };
            effects.af_to = Some((family, source, target));
        }
        "no" => {
            words.expect("state")?;
            effects.keep = None;
        }
        word @ ("keep" | "modulate" | "synproxy") => {
            words.expect("state")?;
            let mut keep = Keep { synproxy: word == "synproxy", ..Keep::default() };
            if words.take("(") {
                said.options = true;
                said.bound = state_options(words, &mut keep, true)?;
            }
            effects.keep = Some(keep);
        }
        "" => return Err("a string in quotes is not expected".into()),
        word => return Err(format!("{} is not known", quoted(word))),
    }
    Ok(())
}

fn route(when: &mut Conditions, words: &mut Words<'_>) -> Read<Pool> {
    let pool = operands::route(words)?;
    if when.family.is_none() && !pool.prefer_ipv6_nexthop {
        when.family = pool.family();
    }
    Ok(pool)
}

/// The state options, up to the bracket or to the end; whether the state is bound to its interface, if that is given.
pub(super) fn state_options(words: &mut Words<'_>, keep: &mut Keep, bracketed: bool) -> Read<Option<bool>> {
    let mut bound = None;
    while !(words.is_empty() || bracketed && words.peek() == ")") {
        if words.take(",") {
            continue;
        }
        let word = words.next()?.bare();
        // filter_opts of parse.y refuses 0, but for max
        let positive = |number: u32| match number {
            0 if word != "max" => Err(format!("{word} must be above 0")),
            _ => Ok(number),
        };
        if let Some(at) = Keep::LIMITS.iter().position(|limit| *limit == word) {
            keep.limits[at] = positive(words.number()?)?;
            continue;
        }
        match word {
            "max-src-conn-rate" => {
                keep.max_src_conn_rate = rate(words)?;
                let (connections, seconds) = keep.max_src_conn_rate;
                positive(connections.min(seconds))?;
            }
            "overload" => {
                operands::table(words)?;
                if words.take("flush") {
                    words.take("global");
                }
            }
            "source-track" => {
                if !words.take("rule") {
                    words.take("global");
                }
            }
            "if-bound" => bound = Some(true),
            "floating" => bound = Some(false),
            "no-sync" | "sloppy" | "pflow" | "allow-related" => {}
            word if word.contains('.') => _ = words.number::<u32>()?,
            word => return Err(format!("state option {} is not known", quoted(word))),
        }
    }
    if bracketed {
        words.expect(")")?;
    }
    Ok(bound)
}

fn rate(words: &mut Words<'_>) -> Read<(u32, u32)> {
    let count = words.number()?;
    words.expect("/")?;
    Ok((count, words.number()?))
}

fn flags(words: &mut Words<'_>) -> Read<Option<(u16, u16)>> {
    if words.take("any") {
        return Ok(None);
    }
    let bits = |words: &mut Words<'_>| words.read("are not tcp flags", names::flags);
    let set = if words.peek() == "/" { 0 } else { bits(words)? };
    words.expect("/")?;
    Ok(Some((set, bits(words)?)))
}

fn icmp(words: &mut Words<'_>, inet6: bool) -> Read<(u8, Option<u8>)> {
    let kind = words.read("is not an ICMP type", |text| names::icmp_type(text, inet6))?;
    let code = |text: &str| names::icmp_code(kind, text, inet6);
    let code = if words.take("code") { Some(words.read("is not a code of it", code)?) } else { None };
    Ok((kind, code))
}

/// `80`, `= 80`, `>= 1000`, `1 >< 9`, `unknown`, a name.
fn owner(words: &mut Words<'_>) -> Read<Owner> {
    let operator = unary(words);
    let text = words.text()?;
    let one = operator.unwrap_or(Operator::Equal);
    let Ok(a) = text.parse() else {
        if text == "unknown" && !matches!(one, Operator::Equal | Operator::NotEqual) {
            return Err("unknown is compared with = and != only".into());
        }
        return Ok(Owner { operator: one, a: text.to_owned(), b: String::new() });
    };
    match (operator, binary(words)) {
        (None, Some(operator)) => Ok(Owner::number(Compared { operator, a, b: words.number()? })),
        (Some(_), Some(_)) => Err("two operators for one number".into()),
        (_, None) => Ok(Owner::number(Compared { operator: one, a, b: 0 })),
    }
}

/// Every combination of the members of its lists. Those that match no packet are omitted.
fn expand(rule: Rule, said: &Said) -> Read<Vec<Rule>> {
    let given = |name: &&str| said.lists.iter().rfind(|(given, _)| given == name).map(|(_, list)| list);
    let lists = || LISTS.iter().filter_map(given).filter(|list| !list.is_empty());
    if lists().fold(1_usize, |product, list| product.saturating_mul(list.len())) > MOST {
        return Err(format!("its lists expand to more than {MOST} rules"));
    }
    let mut made = vec![rule];
    for list in lists() {
        let with = |(rule, set): (&Rule, &Setter)| {
            let mut rule = rule.clone();
            set(&mut rule.when);
            rule
        };
        made = made.iter().flat_map(|rule| list.iter().map(move |set| (rule, set))).map(with).collect();
    }
    // a translation without a family has that of its addresses (natrule in parse.y)
    if let Action::Translate { pool: Some(pool), .. } = &made[0].action {
        let of = |side: fn(&Conditions) -> &Side| made.iter().find_map(|rule| side(&rule.when).address.family());
        let of_sides = || of(|when| &when.from).or_else(|| of(|when| &when.to));
        let family = made[0].when.family.or_else(of_sides).or_else(|| pool.family());
        made.iter_mut().for_each(|rule| rule.when.family = family);
    }
    made.retain_mut(|Rule { when, .. }| {
        let all = [when.family, when.from.address.family(), when.to.address.family()];
        let mut families = all.into_iter().flatten();
        when.family = families.next();
        families.all(|family| Some(family) == when.family)
    });
    for rule in &mut made {
        finish(rule, said)?;
    }
    if made.iter().any(|rule| rule.when.icmp.is_some() && !matches!(rule.when.protocol, Some(ICMP | ICMP6))) {
        return Err("an icmp-type needs proto icmp, an icmp6-type proto icmp6".into());
    }
    if made.is_empty() {
        return Err("it matches no packet: its addresses are of different families".into());
    }
    if said.binat_to {
        let needs = "binat-to needs one address of the same family in from and after it, (em0:0) of an interface, and no direction";
        let both: Option<Vec<[Rule; 2]>> = made.into_iter().map(both_ways).collect();
        made = both.ok_or(needs)?.into_iter().flatten().collect();
    }
    Ok(made)
}

fn finish(rule: &mut Rule, said: &Said) -> Read<()> {
    let tcp = rule.when.protocol.is_none_or(|protocol| protocol == TCP);
    if !tcp {
        rule.when.flags = None;
        if let Some(keep) = &mut rule.effects.keep {
            keep.synproxy = false;
        }
    }
    let target = match &mut rule.action {
        Action::Translate { pool, .. } => pool.as_mut(),
        _ => rule.effects.rdr_to.as_mut(),
    };
    if let Some(pool) = target.filter(|_| said.open_ports) {
        pool.ports.1 = last_port(pool.ports.0, rule.when.to.ports)?;
    }
    if rule.effects.af_to.is_none() {
        let mut pools = [&rule.effects.nat_to, &rule.effects.rdr_to].into_iter().flatten();
        rule.when.family = rule.when.family.or_else(|| pools.find_map(Pool::family));
    }
    if let Some(tag) = &rule.tag {
        rule.tag = Some(with_values(tag, &rule.when)?);
    }
    if let Some((not, tag)) = &rule.when.tagged {
        rule.when.tagged = Some((*not, with_values(tag, &rule.when)?));
    }
    Ok(())
}

/// pfctl replaces macros in tags as well as in labels (expand_label in parse.y). Its output does not have these names; a tag
/// that would still have one cannot be written.
fn with_values(tag: &str, when: &Conditions) -> Read<String> {
    if !tag.contains('$') {
        return Ok(tag.to_owned());
    }
    let address = |side: &Side| super::print::negated(side.not, &side.address);
    // expand_label_port omits ranges
    let ports = |side: &Side| match side.ports {
        None | Some(Compared { operator: Operator::Range, .. }) => String::new(),
        Some(Compared { operator: Operator::Equal, a, .. }) => a.to_string(),
        Some(ports) => super::print::compared(&ports).replace(' ', ""),
    };
    let values = [
        ("$if", when.on.as_ref().map_or_else(|| "any".to_owned(), |on| on.name.clone())),
        ("$srcaddr", address(&when.from)),
        ("$dstaddr", address(&when.to)),
        ("$srcport", ports(&when.from)),
        ("$dstport", ports(&when.to)),
        ("$proto", when.protocol.map_or_else(|| "ip".to_owned(), names::protocol_name)),
    ];
    let made = values.iter().fold(tag.to_owned(), |made, (name, value)| made.replace(name, value));
    match values.iter().map(|(name, _)| *name).chain(["$nr"]).find(|name| made.contains(name)) {
        Some(name) => Err(format!("tag {} has {name} in the end", quoted(tag))),
        None => Ok(made),
    }
}

/// `binat-to`: the rule for outgoing packets, and the one for incoming packets to the translated address; `None` unless it has one
/// address on each side.
fn both_ways(mut out: Rule) -> Option<[Rule; 2]> {
    let inside = out.when.from.address.clone();
    let outside = out.effects.nat_to.as_ref()?.operands().next()?.clone();
    let is_one =
        |operand: &Operand| matches!(operand, Operand::Network(_) | Operand::Interface(_)) && !operand.is_several();
    let mut families = [out.when.family, inside.family(), outside.family()].into_iter().flatten();
    let first = families.next();
    if !is_one(&inside)
        || !is_one(&outside)
        || families.any(|other| Some(other) != first)
        || out.when.direction.is_some()
    {
        return None;
    }
    let mut back = out.clone();
    out.when.direction = Some(Direction::Out);
    back.when.direction = Some(Direction::In);
    back.effects.nat_to = None;
    back.effects.rdr_to = Some(Pool { addresses: vec![inside.into()], ..Pool::default() });
    back.when.from = out.when.to.clone();
    back.when.to = Side { not: false, address: outside, ports: out.when.from.ports };
    Some([out, back])
}
