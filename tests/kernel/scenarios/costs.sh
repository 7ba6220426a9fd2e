#!/bin/sh
# What it costs, as a multiple of one run of pfctl(8) in the same boot. Notes; only what is far off fails.
# backends: native pfctl

network
# the median of five, in ms
median() { sort -n | sed -n 3p; }
five() {
	for turn in 1 2 3 4 5; do
		out=$("$PEER" run "$@")
		echo "${out%% *}"
	done | median
}

echo 'pass in quick inet proto tcp from any to 198.18.0.1 port 80' >"$WORK/rule"
unit=$(five pfctl -q -a costs/one -f "$WORK/rule")
pfctl -q -a costs/one -F rules
[ "$unit" -gt 0 ] || unit=1
note "a run of pfctl: $unit ms"
# ratio MS: to one decimal
ratio() { echo "$1 $unit" | awk '{ printf "%.1f", $1 / $2 }'; }
# at_most LIMIT TEXT MS
at_most() {
	note "$2: $3 ms, $(ratio "$3") runs of pfctl"
	is "$2 costs at most $1 runs of pfctl" yes "$([ "$3" -le $(($1 * unit)) ] && echo yes || echo "no: $(ratio "$3")")"
}

at_most 5 "kport --version" "$(five "$KPORT" --version)"
fresh=$(for turn in 1 2 3 4 5; do
	out=$("$PEER" run "$KPORT" publish web "808$turn:80")
	echo "${out%% *}"
done | median)
at_most 15 "publish one, by the helper" "$fresh"
at_most 15 "publish the same" "$(five "$KPORT" publish web 8085:80)"
at_most 10 "list" "$(five "$KPORT" list)"
away=$(for turn in 1 2 3 4 5; do
	"$KPORT" -q publish web 8080:80
	out=$("$PEER" run "$KPORT" unpublish web)
	echo "${out%% *}"
done | median)
at_most 15 "unpublish" "$away"

# how often pfctl(8) is run
cat >"$WORK/pfctl" <<END
#!/bin/sh
echo "\$*" >>"$WORK/runs"
exec /sbin/pfctl "\$@"
END
chmod 755 "$WORK/pfctl"
# runs_of TEXT LIMIT ARGUMENT...: LIMIT is that of the backend pfctl; native runs none
runs_of() {
	text=$1 limit=$2
	shift 2
	[ "$BACKEND" = pfctl ] || limit=0
	: >"$WORK/runs"
	k "$@" --pfctl "$WORK/pfctl"
	runs=$(wc -l <"$WORK/runs" | tr -d ' ')
	note "$text runs pfctl $runs times"
	is "$text runs pfctl at most $limit times" yes "$([ "$runs" -le "$limit" ] && echo yes || echo "no: $runs")"
}
# the last one lists the states, since ports are added
runs_of publish 5 publish web 8080:80
runs_of "publish the same" 2 publish web 8080:80
runs_of list 3 list
runs_of doctor 5 doctor
runs_of trace 30 trace tcp 192.0.2.100 192.0.2.1:8080
runs_of unpublish 3 unpublish web

if [ -n "$BENCH" ] && [ -x "$BENCH" ]; then
	rounds=3 jails=100
	[ "$BACKEND" = native ] || rounds=1 jails=10
	LD_LIBRARY_PATH=$KPORT_LIB "$BENCH" -b "$BACKEND" -i wan0 -n $rounds -j $jails >"$WORK/bench.out" 2>&1
	is "benches/kernel.c is status 0" 0 $?
	while read -r text; do [ -z "$text" ] || note "$text"; done <"$WORK/bench.out"
else
	skip "no compiler, and no KPORT_BENCH: benches/kernel.c"
fi
