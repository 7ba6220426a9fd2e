#!/bin/sh
# What is refused leaves pf and the record as they were, names who is in the way, and what to do.
# backends: native pfctl

network
gives 0 publish web 8080:80 5353:53/udp
serve host tcp,2222,192.0.2.1 tcp,2223,0.0.0.0 udp,2224,192.0.2.1

# refused STATUS TEXT ARGUMENT...: so it is, TEXT is said, and nothing has changed
refused() {
	expected=$1 text=$2
	shift 2
	everything >"$WORK/untouched"
	gives "$expected" "$@"
	[ -z "$text" ] || says "$text"
	everything >"$WORK/touched"
	is "and changes nothing" "" "$(diff "$WORK/untouched" "$WORK/touched")"
}

# another jail
refused 3 web publish app 8080:81
refused 3 web publish app 8081:81 8080:82
refused 3 web publish app '*:8080:80'
refused 3 web publish app 192.0.2.7:8080:80
gives 0 publish app wan1:8080:80
gives 0 unpublish app
asks outside tcp,192.0.2.1,8080=web

# the host: it must not be locked out
refused 3 2222 publish app 2222:80
refused 3 2223 publish app wan1:2223:80
refused 3 2224 publish app 2224:80/udp
gives 0 publish app 192.0.2.7:2222:80
gives 0 publish --force app 2222:80
asks outside tcp,192.0.2.1,2222=app
gives 0 unpublish app
asks outside tcp,192.0.2.7,2222=-

# another tool, in the main ruleset and in an anchor of its own
TOOLS="$TRANSLATION"
TRANSLATION='rdr on wan0 inet proto tcp from any to 192.0.2.1 port 7001 -> 10.0.0.3 port 80
rdr-anchor "tool/*"
'$TOOLS
main_rules
echo 'rdr pass on wan0 inet proto tcp from any to 192.0.2.1 port 7002 -> 10.0.0.3 port 80' | pfctl -q -a tool/app -f -
refused 3 7001 publish app 7001:80
refused 3 7002 publish app 7002-7010:9000
TRANSLATION=$TOOLS
main_rules
pfctl -q -a tool/app -F nat

# pf does not evaluate the rules
pfctl -q -d
refused 5 'pf is disabled' publish app 7003:80
gives 0 publish --allow-inert app 7003:80
pfctl -q -e
asks outside tcp,192.0.2.1,7003=app
gives 0 unpublish app
pfctl -q -f - <<'END'
block log all
pass quick inet6 proto ipv6-icmp
END
refused 5 anchor publish app 7003:80
main_rules
forwarding 0
refused 5 forward publish app 7003:80
forwarding 1

# words
refused 2 '' publish app 8080:80:80:80
refused 1 '' publish app -a 10.0.0.3 --gateway nosuch0 198.51.100.7:7004:80
refused 64 '' publish

# a jail whose address nobody knows, and one that has the host's
stack bare
refused 5 '' publish bare 7005:80
refused 1 '' publish app -a 192.0.2.1 7005:80

# a set that cannot be had leaves the one before in force
refused 3 web publish app 7006:80 7007:81 8080:82
gives 0 publish app 7006:80
refused 3 web publish app 7006:81 8080:82
asks outside tcp,192.0.2.1,7006=app:80 tcp,192.0.2.1,8080=web

# pfctl(8) that fails: what it loads in one run is not there in part
cat >"$WORK/pfctl" <<'END'
#!/bin/sh
for argument; do
	[ "$argument" != -f ] || { cat >/dev/null; echo "pfctl: DIOCXCOMMIT: Input/output error" >&2; exit 1; }
done
exec /sbin/pfctl "$@"
END
chmod 755 "$WORK/pfctl"
if [ "$BACKEND" = pfctl ]; then
	refused 7 'Input/output error' publish app --pfctl "$WORK/pfctl" 7008:80
	asks outside tcp,192.0.2.1,7006=app:80
fi

# the lock is another's for longer than we wait
lockf -k /var/run/kport/lock sleep 30 &
locked=$!
sleep 1
refused 6 '' publish --timeout 2 app 7009:80
pkill -P $locked 2>/dev/null
kill $locked 2>/dev/null
wait $locked 2>/dev/null

gives 0 unpublish app
gives 0 unpublish web
is "nothing of kport is left in pf" "" "$(anchors)"
