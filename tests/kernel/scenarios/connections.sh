#!/bin/sh
# What a new connection costs while others publish ports, as a multiple of its cost without kport: one to a port that nobody has
# published, and one to a published port. Notes; only what is far off fails. The ratios are exact where the clock of the machine counts
# instructions (QEMU's -icount). KPORT_JAILS: how many publish, 1, 10 and 100 by default.
# backends: native

network
# each stack limits the refusals that it sends
limit=$(sysctl -n net.inet.icmp.icmplim)
for who in host web; do on $who sysctl -q net.inet.icmp.icmplim=0 >/dev/null || not_ok "no limit of refusals in $who"; done
# an anchor for each jail; 14 has no limit
anchors=$(pfctl -sm 2>/dev/null | awk '$1 == "anchors" { print $NF }')
[ -z "$anchors" ] || echo 'set limit anchors 4000' | pfctl -q -O -f -
ifconfig inner0 inet 10.64.0.1/16 alias

# scan FIRST: the ms of 960 connections to these ports and those after them, all of which are refused
scan() {
	out=$("$PEER" run jexec outside nc -nz -w 2 192.0.2.1 "$1-$(($1 + 959))")
	echo "${out%% *}"
}
# calls ANCHOR: pf.conf calls it and passes everything
calls() { printf 'nat-anchor "%s"\nrdr-anchor "%s"\nanchor "%s"\npass all\n' "$1" "$1" "$1" | pfctl -q -f -; }
ratio() { echo "$1 $none" | awk '{ printf "%.2f", $1 / $2 }'; }
# publish JAILS: web's ports among those of others
publish() {
	awk -v jails="$1" 'BEGIN {
		print "web 40000-40959:1000"
		for (i = 1; i < jails; i++)
			printf "other%d %d:80 --no-jail -a 10.64.%d.%d\n", i, 35000 + 4 * i, i / 200, 2 + i % 200
	}' >"$WORK/kport.conf"
	gives 0 --config "$WORK/kport.conf" --timeout 900 apply
}

echo 'pass all' | pfctl -q -f -
scan 20000 >/dev/null
none=$(scan 20000)
[ "$none" -gt 0 ] || none=1
note "960 connections without kport: $none ms"
for jails in ${KPORT_JAILS:-1 10 100}; do
	calls kport
	publish "$jails"
	note "$(pfctl -v -sA 2>/dev/null | wc -l | tr -d ' ') anchors"
	for anchor in kport 'kport/*'; do
		calls "$anchor"
		unrelated=$(scan 20000)
		note "$jails published, \"$anchor\": not published $(ratio "$unrelated"), published $(ratio "$(scan 40000)")"
		[ "$anchor" != kport ] || tree=$unrelated
	done
done
is "they cost an unrelated connection less than half of it" yes "$([ $((2 * tree)) -lt $((3 * none)) ] && echo yes || ratio "$tree")"
calls kport
: >"$WORK/kport.conf"
gives 0 --config "$WORK/kport.conf" --timeout 900 apply
[ -z "$anchors" ] || echo "set limit anchors $anchors" | pfctl -q -O -f -
sysctl -q net.inet.icmp.icmplim="$limit" >/dev/null
