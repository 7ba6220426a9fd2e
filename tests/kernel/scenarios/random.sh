#!/bin/sh
# Random publications and packets: who answers is who `kport trace` says. KPORT_SEED: which ones, KPORT_RANDOM: how many packets.
# backends: native

network
ifconfig wan0 group uplinks
ifconfig wan1 group uplinks
SEED=${KPORT_SEED:-$(date +%s)} PACKETS=${KPORT_RANDOM:-48}
note "seed $SEED, $PACKETS packets"
# host access counts from when pf is enabled
pfctl -q -d
set_sysctl net.pf.filter_local=1
pfctl -q -e

# A plan: lines `main LINE`, `publish JAIL ARGUMENT...`, `ask WHO QUESTION`, `end`
awk -v seed="$SEED" -v packets="$PACKETS" '
function one(list,   all, n) { n = split(list, all, "|"); return all[1 + int(rand() * n)] }
function chance(p) { return rand() < p }
function host_port() { return 7000 + int(rand() * 24) }
function address(jail, six) {
	if (six) return jail == "web" ? "fd00::2" : jail == "app" ? "fd00::3" : "fd01::2"
	return jail == "web" ? "10.0.0.2" : jail == "app" ? "10.0.0.3" : jail == "flat" ? "10.9.0.2" : "10.1.0.2"
}
# a spec, which is remembered: to what is published most packets are sent
function spec(jail,   place, from, to, length_, protocol) {
	place = one("||||wan0:|wan1:|uplinks:|inner1:|192.0.2.1:|192.0.2.7:|[2001:db8::1]:|*:|0.0.0.0:|[::]:")
	protocol = one("||/udp|/tcp,udp")
	from = host_port()
	known_jail[known] = jail
	known_place[known] = substr(place, 1, length(place) - 1)
	known_protocol[known] = protocol == "/udp" ? "udp" : protocol == "" ? "tcp" : one("tcp|udp")
	if (jail != "flat" && chance(0.3)) {
		length_ = 1 + int(rand() * 6)
		to = 9000 + int(rand() * 4)
		n_th = int(rand() * (length_ + 1))
		known_from[known] = from + n_th
		known_to[known++] = to + n_th
		return place from "-" (from + length_) ":" to protocol
	}
	to = 80 + int(rand() * 10)
	known_from[known] = from
	known_to[known++] = to
	return place from ":" to protocol
}
function options(   text) {
	text = ""
	if (chance(0.25)) text = text " --hairpin"
	if (chance(0.2)) text = text " --host-access"
	if (chance(0.2)) text = text " --sources " one("192.0.2.0/24|192.0.2.100|203.0.113.0/24|10.1.0.0/24|2001:db8::/64|0.0.0.0/0")
	if (chance(0.2)) text = text " --reach " one("inner0|inner1|bridge|epair|wan1")
	if (chance(0.15)) text = text " --no-quick"
	if (chance(0.1)) text = text " --max-connections 100"
	return text
}
function source(who, six) {
	if (six) return who == "outside" ? "2001:db8::100" : who == "uplink" ? "2001:db8:1::100" : address(who, 1)
	return who == "outside" ? "192.0.2.100" : who == "uplink" ? "203.0.113.100" : address(who, 0)
}
function ask(   who, to, port, from, six, aimed, protocol, at_jail) {
	who = one("outside|outside|outside|uplink|uplink|other|other|app|web|host")
	six = chance(0.3)
	aimed = known && chance(0.8) ? int(rand() * known) : -1
	at_jail = chance(aimed < 0 ? 0.4 : 0.25)
	if (six) to = one("2001:db8::1|2001:db8::1|2001:db8:1::1|fd00::1|fd01::1")
	else to = one("192.0.2.1|192.0.2.1|192.0.2.1|192.0.2.7|203.0.113.1|203.0.113.1|10.0.0.1|10.1.0.1")
	if (aimed >= 0 && chance(0.7)) {
		if (known_place[aimed] ~ /^([0-9]+\.|\[2)/ && known_place[aimed] != "0.0.0.0") {
			to = known_place[aimed]
			gsub(/[][]/, "", to)
			six = to ~ /:/
		} else if (known_place[aimed] == "wan1" || (who == "uplink" && known_place[aimed] !~ /^$|wan0/))
			to = six ? "2001:db8:1::1" : "203.0.113.1"
		else to = six ? "2001:db8::1" : "192.0.2.1"
	}
	if (at_jail) to = address(aimed < 0 ? one("web|app|other|flat") : known_jail[aimed], six)
	if (who == "host") {
		if (!six && !at_jail && chance(0.3)) to = "127.0.0.1"
		from = to
		if (to == "10.0.0.2" || to == "10.0.0.3") from = "10.0.0.1"
		if (to == "10.1.0.2") from = "10.1.0.1"
		if (to == "fd00::2" || to == "fd00::3") from = "fd00::1"
		if (to == "fd01::2") from = "fd01::1"
	} else
		from = source(who, six)
	if (aimed >= 0) port = at_jail ? known_to[aimed] : known_from[aimed]
	else port = at_jail ? 80 + int(rand() * 10) : host_port()
	protocol = aimed >= 0 && chance(0.9) ? known_protocol[aimed] : one("tcp|udp")
	print "ask", who, protocol "," to "," port "," from
}
BEGIN {
	srand(seed)
	split("web app other flat", jails, " ")
	while (done < packets) {
		if (chance(0.3)) print "main", "pass out quick on wan0"
		if (chance(0.2)) print "main", "block in quick on wan1 inet proto udp"
		if (chance(0.2)) print "main", "block return in on wan0 inet proto tcp"
		if (chance(0.2)) print "main", "pass in quick on inner1 inet proto tcp"
		if (chance(0.2)) print "main", "antispoof for wan0"
		if (chance(0.2)) print "main", "pass in on wan0 inet proto udp"
		if (chance(0.5)) print "main", "pass quick on lo0 no state"
		known = 0
		for (jail = 1; jail <= 4; jail++)
			if (chance(0.7)) {
				printf "publish %s%s", jails[jail], options()
				for (n = 1 + int(rand() * 3); n > 0; n--) printf " %s", spec(jails[jail])
				printf "\n"
			}
		for (n = 0; n < 8 && done < packets; n++) { ask(); done++ }
		print "end"
	}
}' >"$WORK/plan"

# one packet, and the answer of trace
packet() {
	to=${2%,*} source=${2##*,}
	protocol=${to%%,*} to=${to#*,}
	port=${to##*,} to=${to%,*}
	case $to in *:*) to="[$to]" ;; esac
	k trace "$protocol" "$source" "$to:$port"
	case $st in
	0) traced=$(sed -n 's/^ *delivered to jail \([a-z]*\) .*/\1/p' "$WORK/out" | head -n 1) ;;
	5) traced=nobody ;;
	8) traced=depends ;;
	*) traced="status $st" ;;
	esac
	expected=
	[ "$st" != 0 ] || expected=+
	got=$(on "$1" "$PEER" ask -t "$PATIENCE" "$expected$2" 2>&1)
	got=${got#* }
	case $got in
	refused | nothing | error*) got=nobody ;;
	*) got=${got%% *} ;;
	esac
	total=$((total + 1))
	if [ "$traced" = "$got" ]; then
		ok "packet $total of seed $SEED: $1 $2: $got answers, and trace says so"
	else
		failures=9
		not_ok "packet $total of seed $SEED: $1 $2: expected as trace says $traced, got $got"
		{
			echo "pf.conf:"
			cat "$WORK/pf.conf"
			cat "$WORK/published"
			all_rules
			cat "$WORK/out" "$WORK/err"
		} | sed 's/^/#   /'
	fi
}

total=0
: >"$WORK/main"
: >"$WORK/published"
: >"$WORK/asks"
while read -r verb rest; do
	case $verb in
	main) echo "$rest" >>"$WORK/main" ;;
	publish) echo "$rest" >>"$WORK/published" ;;
	ask) echo "$rest" >>"$WORK/asks" ;;
	end)
		set --
		while read -r text; do set -- "$@" "$text"; done <"$WORK/main"
		main_rules "$@"
		set -f
		while read -r arguments; do
			# shellcheck disable=SC2086 # words
			k publish $arguments
			case $st in
			# done; a port that is taken; no family is left of its sources or place; a place that takes it nowhere
			0 | 1 | 3 | 5) note "publish $arguments: status $st" ;;
			*) not_ok "publish $arguments: status $st" ;;
			esac
		done <"$WORK/published"
		set +f
		while read -r who asked; do packet "$who" "$asked"; done <"$WORK/asks"
		for jail in web app other flat; do k unpublish $jail; done
		: >"$WORK/main"
		: >"$WORK/published"
		: >"$WORK/asks"
		;;
	esac
done <"$WORK/plan"
is "nothing of kport is left in pf" "" "$(anchors)"
