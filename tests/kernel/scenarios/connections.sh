#!/bin/sh
# What a new connection costs while others publish ports, as a multiple of its cost without kport: one to a port that nobody has
# published, and one to a published port. Notes; only what is far off fails. The ratios are exact where the clock of the machine counts
# instructions (QEMU's -icount).
# backends: native

network
# each stack limits the refusals that it sends
limit=$(sysctl -n net.inet.icmp.icmplim)
sysctl -q net.inet.icmp.icmplim=0 >/dev/null
jexec web sysctl -q net.inet.icmp.icmplim=0 >/dev/null

# scan PORTS: the ms of a connection to each of these ports, all of which are refused
scan() {
	out=$("$PEER" run jexec outside nc -nz -w 2 192.0.2.1 "$1")
	echo "${out%% *}"
}
# calls ANCHOR: pf.conf calls it and passes everything
calls() { printf 'nat-anchor "%s"\nrdr-anchor "%s"\nanchor "%s"\npass all\n' "$1" "$1" "$1" | pfctl -q -f -; }
ratio() { echo "$1 $none" | awk '{ printf "%.2f", $1 / $2 }'; }

echo 'pass all' | pfctl -q -f -
scan 20000-20999 >/dev/null
none=$(scan 20000-20999)
[ "$none" -gt 0 ] || none=1
note "1,000 connections without kport: $none ms"
calls kport
gives 0 publish web 40000-40999:1000
jails=1
for all in 1 10 100; do
	while [ $jails -lt $all ]; do
		"$KPORT" -q publish --no-jail "other$jails" -a "10.0.0.$((100 + jails))" $((30000 + jails)):80 || not_ok "publish $jails"
		jails=$((jails + 1))
	done
	for anchor in kport 'kport/*'; do
		calls "$anchor"
		unrelated=$(scan 20000-20999)
		note "$all published, \"$anchor\": not published $(ratio "$unrelated"), published $(ratio "$(scan 40000-40999)")"
		[ "$anchor" != kport ] || tree=$unrelated
	done
done
is "100 published cost an unrelated connection less than half of it" yes "$([ $((2 * tree)) -lt $((3 * none)) ] && echo yes || ratio "$tree")"
k apply
k unpublish web
jails=1
while [ $jails -lt 100 ]; do
	"$KPORT" -q unpublish "other$jails"
	jails=$((jails + 1))
done
sysctl -q net.inet.icmp.icmplim="$limit" >/dev/null
