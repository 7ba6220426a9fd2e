#!/bin/sh
# Forty jails publish at once, while another program loads rules of its own without a pause; and unpublish at once.
# backends: native pfctl

host_network
CROWD=40
number=1
while [ $number -le $CROWD ]; do
	shared c$number 10.9.1.$number
	serve c$number tcp,80
	number=$((number + 1))
done

echo 'pass in quick inet proto tcp from any to 198.18.0.1 port 80' >"$WORK/busy.rules"
: >"$WORK/busy"
(
	while [ -e "$WORK/busy" ]; do pfctl -q -a busy/one -f "$WORK/busy.rules"; done >"$WORK/busy.err" 2>&1
) &
busy=$!

# at_once VERB: forty kport at once; how many failed, and what they said
at_once() {
	processes='' number=1
	while [ $number -le $CROWD ]; do
		(
			case $1 in
			publish) "$KPORT" -v publish --timeout 900 c$number $((20000 + number)):80 ;;
			unpublish) "$KPORT" -v unpublish --timeout 900 c$number ;;
			esac >"$WORK/crowd.$number" 2>&1
			echo $? >"$WORK/status.$number"
		) &
		processes="$processes $!"
		number=$((number + 1))
	done
	# shellcheck disable=SC2086 # words
	wait $processes
	for file in "$WORK"/status.*; do
		[ "$(cat "$file")" = 0 ] || tail -n 1 "$WORK/crowd.${file##*.}"
	done
}

is "$CROWD publish at once" "" "$(at_once publish)"
set --
number=1
while [ $number -le $CROWD ]; do
	set -- "$@" "tcp,192.0.2.1,$((20000 + number))=c$number@192.0.2.100"
	number=$((number + 1))
done
asks outside "$@"
is "anchors" $CROWD "$(anchors | wc -l | tr -d ' ')"
is "$CROWD unpublish at once" "" "$(at_once unpublish)"
rm "$WORK/busy"
wait $busy
is "nothing of kport is left in pf" "" "$(anchors)"
asks outside tcp,192.0.2.1,20001=- tcp,192.0.2.1,20040=-
