//! `kport help spec`, `kport help pf`: what belongs to no single command.

/// The text of a topic.
pub fn topic(word: &str) -> Option<&'static str> {
    match word {
        "spec" => Some(SPEC),
        "pf" => Some(PF),
        _ => None,
    }
}

const SPEC: &str = "\
A spec says which port of the host leads to which port of the jail:

  8080                      tcp port 8080 of the gateway interface, to port 8080 in the jail
  8080:80                   the same, to port 80
  em1:8080:80               of interface em1; a group of interfaces works, too
  8080:80/udp               another protocol: tcp, udp or sctp
  53:53/tcp,udp             several of them
  auto:80                   a free host port; publish and list say which
  em1:auto:80               a free host port of em1
  8000-8010:9000            a range, to 9000-9010
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

auto needs jailports. kport parse SPEC... checks specs and prints them written out.
";

const PF: &str = "\
kport keeps the rules of each jail in an anchor of its own, kport/JAIL, and never changes the main ruleset. That has to call
the anchors, by three lines of pf.conf(5):

  nat-anchor \"kport/*\"
  rdr-anchor \"kport/*\"
  anchor \"kport/*\"

The first two stand among the translation rules, behind the nat and rdr rules that are there and before every filter rule:
the first translation rule that matches a packet decides, so what stands before them goes first.

The third stands among the filter rules: behind those that block without quick, since the last rule that matches decides,
and before every quick rule that would block the traffic, since such a rule ends the matter.

  kport setup           says which line of pf.conf goes where, and what rc.conf needs; --write puts them there
  kport doctor          says whether pf evaluates them, and what else keeps a port from working
  kport rules JAIL ...  prints what would be loaded into an anchor
  pfctl -a kport/JAIL -s rules
                        what pf has there; -s nat: its translation rules

Rules that are loaded with pfctl -f take the place of the main ruleset, the three lines with it, and leave the anchors; after
a flush of these, kport restore loads them again.
";
