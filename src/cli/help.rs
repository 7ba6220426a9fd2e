//! `kport help spec`, `kport help pf`: topics that concern several commands.

/// The text of a topic.
pub fn topic(word: &str) -> Option<&'static str> {
    match word {
        "spec" => Some(SPEC),
        "pf" => Some(PF),
        _ => None,
    }
}

const SPEC: &str = "\
A spec maps a port of the host to a port of the jail:

  8080                      tcp port 8080 of the gateway interface, to port 8080 in the jail
  8080:80                   to port 80 in the jail
  em1:8080:80               of interface em1; may be an interface group
  8080:80/udp               with another protocol: tcp, udp or sctp
  53:53/tcp,udp             with several protocols
  auto:80                   a free host port; publish and list print it
  em1:auto:80               a free host port of em1
  8000-8010:9000            a range, to 9000-9010; 8080-8090:80 is to 80-90
  192.0.2.7:8080:80         of one address of the host
  [2001:db8::7]:8080:80     of one IPv6 address, in brackets
  *:8080:80                 of every address of the host
  0.0.0.0:8080:80           of every IPv4 address
  [::]:8080:80              of every IPv6 address

In a shell, quote * and [ ]: '*:8080:80'. The grammar:

  specs     = spec *( white-space spec )
  spec      = [ where \":\" ] hostports [ \":\" jailports ] [ \"/\" protocol *( \",\" protocol ) ]
                                ; with `where`, jailports is required
  where     = interface / ipv4 / \"[\" ipv6 \"]\" / \"*\"
  hostports = port [ \"-\" port ] / \"auto\"
  jailports = port [ \"-\" port ] ; as many as hostports, or one port: the first of as many
  port      = 1..65535, decimal digits only, no sign, no leading zero
  protocol  = \"tcp\" / \"udp\" / \"sctp\"

auto needs jailports. kport parse SPEC... checks specs, and prints them with every field.
";

const PF: &str = "\
kport loads the rules of each jail into an anchor, kport/JAIL, and never changes the main ruleset. The main ruleset must call
the anchors, with three lines of pf.conf(5):

  nat-anchor \"kport\"
  rdr-anchor \"kport\"
  anchor \"kport\"

The first two belong to the translation rules: after the other nat and rdr rules, and before the first filter rule. The first
translation rule that matches a packet wins, so the rules before them take precedence.

The third belongs to the filter rules: after the rules that block without quick, since the last rule that matches wins, and
before any quick rule that would block the traffic, since the first quick rule that matches wins.

  kport setup           prints the lines that pf.conf and rc.conf need, with their places; --write adds them
  kport doctor          checks that pf evaluates the anchors, and the other causes of a dead port
  kport rules JAIL ...  prints the rules that would be loaded into an anchor
  pfctl -a kport/JAIL -s rules
                        prints the filter rules that pf has there; -s nat: the translation rules

pfctl -f replaces the main ruleset, including the three lines, and keeps the anchors. After a flush of the anchors, kport apply
loads their rules again.
";
