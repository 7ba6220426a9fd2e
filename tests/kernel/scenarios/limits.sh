#!/bin/sh
# The limits of pf: kport reads them from the kernel's zones, and names the one that is reached.
# backends: native pfctl

network
gives 0 publish web 8080:80
asks outside tcp,192.0.2.1,8080=web
for limit in states:pf_states src-nodes:pf_source_nodes table-entries:pf_table_entries anchors:pf_anchors; do
	name=${limit%:*} zone=vm.uma.${limit#*:}
	hard=$(pfctl -sm 2>/dev/null | awk -v name="$name" '$1 == name { print $NF }')
	# 14 has no limit of anchors, and 0 is none
	case $hard in
	'' | 0) note "pf has no limit of $name" ;;
	*) is "the limit of $name is that of its zone" "$hard" "$(sysctl -n "$zone.limit.max_items")" ;;
	esac
done

# fewer states than there are
echo 'set limit states 1' | pfctl -q -O -f - 2>/dev/null
gives 0 publish web 8081:81
says 'set limit states'
k doctor
says 'its limit is 1'
echo 'set limit states 100000' | pfctl -q -O -f - 2>/dev/null
k doctor
is "and is content again" 0 "$(grep -c 'problem  limits' "$WORK/out")"
# the next jails would find no anchor
if sysctl -n vm.uma.pf_anchors.limit.max_items >/dev/null 2>&1; then
	before=$(pfctl -sm 2>/dev/null | awk '$1 == "anchors" { print $NF }')
	number=0
	while [ $number -lt 12 ]; do
		echo pass | pfctl -q -a limits/$number -f -
		number=$((number + 1))
	done
	echo "set limit anchors $(($(sysctl -n vm.uma.pf_anchors.stats.current) + 1))" | pfctl -q -O -f -
	gives 0 publish web 8080:80 8082:82
	says 'set limit anchors'
	echo "set limit anchors $before" | pfctl -q -O -f -
	gives 0 publish web 8080:80
	is "and does not say so below it" 0 "$(grep -c 'set limit' "$WORK/err")"
	while [ $number -gt 0 ]; do
		number=$((number - 1))
		pfctl -q -a limits/$number -F rules
	done
fi

gives 0 unpublish web
