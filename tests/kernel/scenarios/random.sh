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
function spec(   place, from, to, length_, protocol) {
	place = one("||||wan0:|wan1:|uplinks:|inner1:|192.0.2.1:|192.0.2.7:|[2001:db8::1]:|*:|0.0.0.0:|[::]:")
	protocol = one("||/udp|/tcp,udp")
	from = host_port()
	if (chance(0.3)) {
		length_ = 1 + int(rand() * 6)
		return place from "-" (from + length_) ":" (9000 + int(rand() * 4)) protocol
	}
	to = 80 + int(rand() * 10)
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
	if (six) return who == "outside" ? "2001:db8::100" : who == "uplink" ? "2001:db8:1::100" : who == "web" ? "fd00::2" : who == "app" ? "fd00::3" : "fd01::2"
	return who == "outside" ? "192.0.2.100" : who == "uplink" ? "203.0.113.100" : who == "web" ? "10.0.0.2" : who == "app" ? "10.0.0.3" : "10.1.0.2"
}
function ask(   who, to, port, from, six) {
	who = one("outside|outside|outside|uplink|uplink|other|other|app|web|host")
	six = chance(0.3)
	if (six) to = one("2001:db8::1|2001:db8::1|2001:db8:1::1|fd00::1|fd01::1|fd00::2|fd00::3")
	else to = one("192.0.2.1|192.0.2.1|192.0.2.1|192.0.2.7|203.0.113.1|203.0.113.1|10.0.0.1|10.1.0.1|10.0.0.2|10.0.0.3|10.1.0.2|10.9.0.2")
	if (who == "host") {
		if (!six && chance(0.3)) to = "127.0.0.1"
		from = to
		if (to == "10.0.0.2" || to == "10.0.0.3") from = "10.0.0.1"
		if (to == "10.1.0.2") from = "10.1.0.1"
		if (to == "fd00::2" || to == "fd00::3") from = "fd00::1"
	} else
		from = source(who, six)
	if (to ~ /^(10\.0\.0\.[23]|10\.1\.0\.2|10\.9\.0\.2|fd00::[23])$/ && chance(0.8)) port = chance(0.5) ? 80 + int(rand() * 10) : 9000 + int(rand() * 10)
	else port = host_port()
	print "ask", who, one("tcp|tcp|udp") "," to "," port "," from
}
BEGIN {
	srand(seed)
	while (done < packets) {
		if (chance(0.3)) print "main", "pass out quick on wan0"
		if (chance(0.2)) print "main", "block in quick on wan1 inet proto udp"
		if (chance(0.2)) print "main", "block return in on wan0 inet proto tcp"
		if (chance(0.2)) print "main", "pass in quick on inner1 inet proto tcp"
		if (chance(0.2)) print "main", "antispoof for wan0"
		if (chance(0.2)) print "main", "pass in on wan0 inet proto udp"
		if (chance(0.5)) print "main", "pass quick on lo0 no state"
		for (jail = 0; jail < 4; jail++)
			if (chance(0.6)) {
				printf "publish %s%s", one("web|app|other|flat"), options()
				for (n = 1 + int(rand() * 3); n > 0; n--) printf " %s", spec()
				printf "\n"
			}
		for (n = 0; n < 8 && done < packets; n++) { ask(); done++ }
		print "end"
	}
}' >"$WORK/plan"

# one packet, and what trace says of it
packet() {
	to=${2%,*} source=${2##*,}
	protocol=${to%%,*} to=${to#*,}
	port=${to##*,} to=${to%,*}
	case $to in *:*) to="[$to]" ;; esac
	got=$(on "$1" "$PEER" ask -t "$PATIENCE" "$2" 2>&1)
	got=${got#* }
	case $got in
	refused | nothing | error*) got=nobody ;;
	*) got=${got%% *} ;;
	esac
	k trace "$protocol" "$source" "$to:$port"
	case $st in
	0) traced=$(sed -n 's/^ *delivered to jail \([a-z]*\) .*/\1/p' "$WORK/out" | head -n 1) ;;
	5) traced=nobody ;;
	8) traced=depends ;;
	*) traced="status $st" ;;
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
