#!/bin/sh
# doctor: its self-test, a sound host, and what it says of one that is not.
# backends: native pfctl

host_network
gives 0 doctor --self-test
grep -E '^(ok|not ok|problem|warning)' "$WORK/out" | while read -r text; do note "$text"; done
is "the self-test leaves no jail" "outside uplink" "$(jls name | new_of jails | tr '\n' ' ' | sed 's/ $//')"
is "nor an anchor" "" "$(anchors)"

inside web inner0 10.0.0 fd00 2
serve web
gives 0 publish web 8080:80
gives 0 doctor
asks outside tcp,192.0.2.1,8080=web
pfctl -q -d
gives 5 doctor
pfctl -q -e
forwarding 0
gives 5 doctor
forwarding 1
printf '%s\n' 'block log all' | pfctl -q -f -
gives 5 doctor
main_rules
gives 0 doctor
gives 0 unpublish web
