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
gives 0 unpublish web
