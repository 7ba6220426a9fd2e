#!/bin/sh
# lib.sh - what scenarios are made of. run.sh reads it, then the scenario; see README.md.

export KPORT_BACKEND=$BACKEND
NAME=$SCENARIO/$BACKEND
failures=0
umask 022
cd "$WORK" || exit 2
# a connection that was to stay, and did not, has nobody who reads
trap '' PIPE

# ---------------------------------------------------------------- checks

ok() {
	printf 'ok %s: %s\n' "$NAME" "$1"
	echo ok >>"$RESULTS"
}

# not_ok TEXT: fails, and prints what an engineer needs, for the first three of a scenario
not_ok() {
	printf 'not ok %s: %s\n' "$NAME" "$1"
	echo not >>"$RESULTS"
	failures=$((failures + 1))
	[ $failures -gt 3 ] || details | sed 's/^/#   /'
}

skip() {
	printf 'skip %s: %s\n' "$NAME" "$1"
	echo skip >>"$RESULTS"
}

note() {
	printf 'note %s: %s\n' "$NAME" "$1"
}

# is TEXT EXPECTED GOT
is() {
	if [ "$2" = "$3" ]; then
		ok "$1"
	else
		not_ok "$1: expected $(line "$2"), got $(line "$3")"
	fi
}

# a text on one line
line() {
	[ -n "$1" ] || set -- nothing
	printf '%s' "$1" | tr '\n' '|'
}

details() {
	if [ -s "$WORK/err" ]; then
		echo "the last kport: $last"
		tail -n 60 "$WORK/err"
	fi
	all_rules
	"$KPORT" -q list 2>&1
}

# ---------------------------------------------------------------- kport

last=
# k ARGUMENT...: kport; its status is $st, its output is in out, and what it says with -v in err
k() {
	last=$*
	st=0
	"$KPORT" -v "$@" >"$WORK/out" 2>"$WORK/err" </dev/null || st=$?
}

# gives STATUS ARGUMENT...: kport has this status
gives() {
	local expected
	expected=$1
	shift
	k "$@"
	is "kport $* is status $expected" "$expected" "$st"
}

# says TEXT: so did the last kport, on either output
says() {
	if grep -qF -- "$1" "$WORK/out" "$WORK/err"; then
		ok "and says \"$1\""
	else
		not_ok "kport $last: expected \"$1\", got $(line "$(tail -n 2 "$WORK/err")")"
	fi
}

# Every rule that pf has, with the anchors; and what kport has written down. Of a refusal nothing of it may change.
all_rules() {
	local anchor rules
	pfctl -sn -P 2>/dev/null
	pfctl -sr -P 2>/dev/null
	# one that is empty may outlive its last call, by the rules that the kernel has still to free
	for anchor in $(pfctl -v -sA 2>/dev/null); do
		rules=$(pfctl -a "$anchor" -sn -P 2>/dev/null; pfctl -a "$anchor" -sr -P 2>/dev/null)
		[ -z "$rules" ] || printf '[%s]\n%s\n' "$anchor" "$rules"
	done
}
records() {
	# pf-*, loaded, calls and summaries are a memory that may go at any time; locks are held, not kept; claims are links
	(
		cd /var/run/kport 2>/dev/null || exit
		find . -type f ! -name 'pf-*' ! -path './loaded/*' ! -path './calls/*' ! -name summaries ! -name '*lock*' |
			sort | xargs cksum
		find . -type l | sort
	)
}
everything() {
	all_rules
	records
}

# the redirects of a jail, by pfctl
redirects() { pfctl -a "kport/$1" -sn -P 2>/dev/null | grep '^rdr'; }
anchors() {
	local anchor
	# an anchor that was called is there, empty, until pf has purged the rule that called it (pf_purge_unlinked_rules)
	for anchor in $(pfctl -a kport -sA 2>/dev/null | tr -d ' ' | grep '^kport/' | grep -v '^kport/+calls'); do
		if [ -n "$(pfctl -a "$anchor" -sn 2>/dev/null; pfctl -a "$anchor" -sr 2>/dev/null)" ]; then echo "$anchor"; fi
	done
}

# ---------------------------------------------------------------- packets

# on WHO COMMAND...: in a jail, or on the host
on() {
	local who
	who=$1
	shift
	if [ "$who" = host ]; then "$@"; else jexec "$who" "$@"; fi
}

# asks WHO QUESTION=ANSWER...: questions of peer.c, at the same time. An answer is NAME[:PORT][@SOURCE]: the jail that answers, its
# port, and the source that it saw; `-` if nobody may answer.
asks() {
	local asker pair questions question answer asked got
	asker=$1
	shift
	questions=
	for pair; do
		case $pair in
		*=-) questions="$questions ${pair%%=*}" ;;
		*) questions="$questions +${pair%%=*}" ;;
		esac
	done
	# shellcheck disable=SC2086 # words
	on "$asker" "$PEER" ask -t "$PATIENCE" $questions >"$WORK/answers" 2>"$WORK/peer.err"
	exec 3<"$WORK/answers"
	for pair; do
		question=${pair%%=*} answer=${pair#*=}
		read -r asked got <&3 || got="nothing from peer: $(cat "$WORK/peer.err")"
		compare "$answer" "$got" "$asker asks $question"
	done
	exec 3<&-
}

# compare EXPECTED GOT TEXT
compare() {
	local fits=yes who=${1%%@*} rest=$2
	case $2 in
	refused | nothing* | error*) [ "$1" = - ] || fits=no ;;
	*)
		# NAME SOURCE SOURCE-PORT PORT
		case $1 in *@*) rest=${2#* } && [ "${rest%% *}" = "${1#*@}" ] || fits=no ;; esac
		case $who in *:*) [ "${2##* }" = "${who#*:}" ] || fits=no ;; esac
		[ "${2%% *}" = "${who%%:*}" ] || fits=no
		;;
	esac
	if [ $fits = no ]; then
		not_ok "$3: expected $1, got $2"
	elif [ "$1" = - ]; then
		ok "$3: nobody answers"
	else
		ok "$3: $1 answers"
	fi
}

# held WHO QUESTION: opens a connection that stays; `lives` and `died` ask over it. Several by NAME: held WHO QUESTION NAME
held() {
	local key text
	key=${3:-one}
	mkfifo "$WORK/in.$key"
	: >"$WORK/held.$key"
	if [ "$1" = host ]; then
		"$PEER" hold -t "$PATIENCE" "$2" <"$WORK/in.$key" >"$WORK/held.$key" 2>&1 &
	else
		jexec "$1" "$PEER" hold -t "$PATIENCE" "$2" <"$WORK/in.$key" >"$WORK/held.$key" 2>&1 &
	fi
	# open as long as this shell is
	case $key in
	one) exec 4>"$WORK/in.$key" ;;
	two) exec 5>"$WORK/in.$key" ;;
	three) exec 6>"$WORK/in.$key" ;;
	esac
	text=$(said "$key" 1)
	case $text in
	*' '*' '*) ok "$1 connects to $2 and stays" ;;
	*) not_ok "$1 connects to $2 and stays: expected an answer, got $(line "$text")" ;;
	esac
}

# said KEY N: the Nth line, awaited
said() {
	local turns
	turns=0
	while [ "$(wc -l <"$WORK/held.$1")" -lt "$2" ] && [ $turns -lt 600 ]; do
		sleep 0.1
		turns=$((turns + 1))
	done
	sed -n "$2p" "$WORK/held.$1"
}

# over KEY LINE: asks over a held connection
over() {
	local lines
	lines=$(($(wc -l <"$WORK/held.$1") + 1))
	case $1 in
	one) echo "$2" >&4 2>/dev/null ;;
	two) echo "$2" >&5 2>/dev/null ;;
	three) echo "$2" >&6 2>/dev/null ;;
	esac
	said "$1" "$lines"
}
# lives TEXT [KEY], died TEXT [KEY]
lives() { is "$1: the connection${2:+ $2} lives" alive "$(over "${2:-one}" +)"; }
died() { is "$1: the connection${2:+ $2} is dead" dead "$(over "${2:-one}" -)"; }
let_go() {
	exec 4>&- 5>&- 6>&-
	rm -f "$WORK"/in.* "$WORK"/held.*
}

# ---------------------------------------------------------------- the network

# As in docs/who-can-reach-what.md: `outside` behind wan0, the gateway interface; `uplink` behind wan1; web and app on inner0, other
# on inner1, each with a stack of its own; flat on the host's stack. They serve the ports of PORTS, flat 80 to 89.
PORTS='tcp,80-89 tcp,8080 tcp,9000-9010 udp,53 udp,80-89 udp,8080 udp,9000-9010'

# epair HOST-END JAIL: a cable between the host and a jail; the jail's end is $far
epair() {
	near=$(ifconfig epair create) || return 1
	far=${near%a}b
	if [ "$1" != - ]; then
		ifconfig "$near" name "$1" >/dev/null
		near=$1
	fi
	ifconfig "$near" up
	ifconfig "$far" vnet "$2"
}

# a jail with a stack of its own, without an interface
stack() {
	jail -c name="$1" host.hostname="$1" path=/ vnet persist children.max=4 allow.raw_sockets >/dev/null
	jexec "$1" ifconfig lo0 inet 127.0.0.1/8 up
}

# strangers JAIL HOST-END NETWORK4 NETWORK6: a network of people outside, the host .1 and the jail .100. The host's end leaves
# the group epair, which is in the default reach list.
strangers() {
	stack "$1"
	epair "$2" "$1"
	ifconfig "$2" -group epair
	ifconfig "$2" inet "$3.1/24"
	ifconfig "$2" inet6 "$4::1/64" no_dad
	jexec "$1" ifconfig "$far" inet "$3.100/24" up
	jexec "$1" ifconfig "$far" inet6 "$4::100/64" no_dad
	jexec "$1" route -q add default "$3.1"
	jexec "$1" route -q -6 add default "$4::1"
}

# bridge NAME NETWORK4 NETWORK6: the host is .1 there
bridge() {
	ifconfig "$(ifconfig bridge create)" name "$1" >/dev/null
	ifconfig "$1" inet "$2.1/24" up
	ifconfig "$1" inet6 "$3::1/64" no_dad
}

# inside JAIL BRIDGE NETWORK4 NETWORK6 HOST: a jail behind a bridge; `-` for a family that it has not
inside() {
	jls -j "$1" jid >/dev/null 2>&1 || stack "$1"
	epair - "$1"
	ifconfig "$2" addm "$near"
	if [ "$3" != - ]; then
		jexec "$1" ifconfig "$far" inet "$3.$5/24" up
		jexec "$1" route -q add default "$3.1" 2>/dev/null
	fi
	if [ "$4" != - ]; then
		jexec "$1" ifconfig "$far" inet6 "$4::$5/64" no_dad up
		jexec "$1" route -q -6 add default "$4::1" 2>/dev/null
	fi
}

# shared NAME ADDRESS: a jail on the host's stack, its address on lo1 or what it is called
shared() {
	[ -n "${loop-}" ] || loop=$(ifconfig lo create)
	ifconfig "$loop" inet "$2/32" alias up
	jail -c name="$1" host.hostname="$1" path=/ ip4.addr="$2" ip6=disable persist >/dev/null
}

# serve JAIL [LISTEN...]
serve() {
	local server
	server=$1
	shift
	# shellcheck disable=SC2086 # words
	[ $# -gt 0 ] || set -- $PORTS
	on "$server" "$PEER" serve "$server" "$@" >"$WORK/server" || not_ok "peer serves in $server"
	cat "$WORK/server" >>"$WORK/servers"
}
# those of the host, which no jail's end takes along
stop_servers() {
	[ -f "$WORK/servers" ] || return 0
	# shellcheck disable=SC2046 # words
	kill $(cat "$WORK/servers") 2>/dev/null
	rm -f "$WORK/servers"
}

# What pf.conf(5) needs to call kport, and the rest of it
lines() {
	TRANSLATION="nat-anchor \"$1\"
rdr-anchor \"$1\""
	FILTER="anchor \"$1\""
}
lines kport

# shellcheck disable=SC2120 # scenarios give lines
# main_rules [LINE...]: block all, kport's lines, and these before the filter's
main_rules() {
	printf '%s\n' "$TRANSLATION" 'block log all' 'pass quick inet6 proto ipv6-icmp' "$@" "$FILTER" >"$WORK/pf.conf"
	pfctl -q -f "$WORK/pf.conf"
}

set_sysctl() { sysctl -q "$@" >/dev/null; }
forwarding() { set_sysctl net.inet.ip.forwarding="$1" net.inet6.ip6.forwarding="$1"; }

default_routes() {
	route -q delete default 2>/dev/null
	route -q -6 delete default 2>/dev/null
	route -q add default 192.0.2.100
	route -q -6 add default 2001:db8::100
}

# the host, its two uplinks and its bridges, without a jail that publishes
host_network() {
	strangers outside wan0 192.0.2 2001:db8
	strangers uplink wan1 203.0.113 2001:db8:1
	ifconfig wan0 inet 192.0.2.7/32 alias
	bridge inner0 10.0.0 fd00
	bridge inner1 10.1.0 fd01
	default_routes
	forwarding 1
	set_sysctl net.link.bridge.pfil_member=0
	main_rules
	pfctl -q -e 2>/dev/null
}

# all of it
network() {
	host_network
	inside web inner0 10.0.0 fd00 2
	inside app inner0 10.0.0 fd00 3
	inside other inner1 10.1.0 fd01 2
	shared flat 10.9.0.2
	for jail in web app other; do serve $jail; done
	# what listens in flat is in the way of `*`
	serve flat tcp,80-89 udp,80-89
}

# ---------------------------------------------------------------- the host, before and after

FILES='/etc/pf.conf /etc/rc.conf /etc/sysctl.conf /etc/jail.conf /etc/sysctl.kld.d'
SYSCTLS='net.inet.ip.forwarding net.inet6.ip6.forwarding net.link.bridge.pfil_member net.link.bridge.pfil_bridge
net.pf.filter_local net.inet6.ip6.dad_count'

host_look() {
	local name
	# `status` and flags of hardware come and go
	ifconfig -a | grep -E '^[a-z]|inet|groups' | sed 's/ flags=.*//'
	jls name
	netstat -rn | grep '^default'
	pfctl -si 2>/dev/null | sed -n 's/^\(Status: [A-Za-z]*\).*/\1/p'
	all_rules
	pfctl -sT 2>/dev/null
	for name in $SYSCTLS; do sysctl "$name" 2>/dev/null; done
	# shellcheck disable=SC2086 # words
	find $FILES -type f -exec cksum {} + 2>/dev/null | sort
	find /var/run/kport -ls 2>/dev/null | awk '{ print $3, $NF }' | sort
}

host_save() {
	local name file
	mkdir "$WORK/saved"
	host_look >"$WORK/before"
	ifconfig -l | tr ' ' '\n' | sort >"$WORK/saved/interfaces"
	jls name | sort >"$WORK/saved/jails"
	for name in $SYSCTLS; do sysctl -e "$name" 2>/dev/null; done >"$WORK/saved/sysctls"
	route -n get default 2>/dev/null | sed -n 's/^ *gateway: //p' >"$WORK/saved/gateway"
	route -n get -inet6 default 2>/dev/null | sed -n 's/^ *gateway: //p' >"$WORK/saved/gateway6"
	pfctl -si 2>/dev/null | grep -q '^Status: Enabled' && : >"$WORK/saved/pf_enabled"
	{
		pfctl -sn
		pfctl -sr
	} 2>/dev/null >"$WORK/main.rules"
	for file in $FILES; do
		[ ! -e "$file" ] || cp -Rp "$file" "$WORK/saved/"
	done
	[ ! -d /var/run/kport ] || mv /var/run/kport "$WORK/saved/kport"
	for name in outside uplink far web app other flat; do
		! jls -j $name jid >/dev/null 2>&1 || { not_ok "this host has a jail $name"; exit 2; }
	done
}

# those of a list that were not there before
new_of() { sort | comm -13 "$WORK/saved/$1" -; }

host_restore() {
	local turns left interface jail gateway anchor file
	trap '' INT TERM HUP
	let_go
	stop_servers
	for jail in $(jls name | new_of jails); do jail -R "$jail" 2>/dev/null; done
	# a stack goes some time after its jail, and gives its interfaces back
	turns=0
	while left=$(ifconfig -l | tr ' ' '\n' | new_of interfaces) && [ -n "$left" ] && [ $turns -lt 50 ]; do
		for interface in $left; do ifconfig "$interface" destroy 2>/dev/null; done
		sleep 0.2
		turns=$((turns + 1))
	done
	route -q delete default 2>/dev/null
	route -q -6 delete default 2>/dev/null
	read -r gateway <"$WORK/saved/gateway" && route -q add default "$gateway"
	read -r gateway <"$WORK/saved/gateway6" && route -q -6 add default "$gateway"
	pfctl -q -d 2>/dev/null
	pfctl -q -F all 2>/dev/null
	# what is empty and not called is gone, the inner ones first
	for anchor in $(pfctl -v -sA 2>/dev/null | sort -r); do
		pfctl -q -a "$anchor" -F Tables 2>/dev/null
		pfctl -q -a "$anchor" -f /dev/null 2>/dev/null
	done
	[ ! -s "$WORK/main.rules" ] || pfctl -q -f "$WORK/main.rules"
	xargs -n 1 sysctl -q <"$WORK/saved/sysctls" >/dev/null 2>&1
	[ ! -f "$WORK/saved/pf_enabled" ] || pfctl -q -e
	for file in $FILES; do
		rm -rf "$file" "$file".kport*
		[ ! -e "$WORK/saved/${file##*/}" ] || cp -Rp "$WORK/saved/${file##*/}" "$file"
	done
	rm -rf /var/run/kport
	[ ! -d "$WORK/saved/kport" ] || mv "$WORK/saved/kport" /var/run/kport
	host_look >"$WORK/after"
	is "the host is left as it was" "" "$(diff "$WORK/before" "$WORK/after")"
	rm -rf "$WORK/saved" "$WORK/main.rules" "$WORK/err"
}
