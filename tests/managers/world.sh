# A host that is played, for the scripts that play jail managers beside this file: sourced by them, with WORLD (a directory) and
# KPORT (the program) in the environment. Its jails are the files of $WORLD/jails, named as the jail, with number and address.
# shellcheck shell=sh
set -u

# What rc(8) and service(8) have: /usr/local is not in it.
# shellcheck disable=SC2034 # for the scripts that source this
RC_PATH=/sbin:/bin:/usr/sbin:/usr/bin

mkdir -p "$WORLD/jails"
if [ ! -e "$WORLD/kport" ]; then
	cat >"$WORLD/kport.new" <<END
#!/bin/sh
KPORT_BACKEND=sim KPORT_STATE_DIR=$WORLD/state exec $KPORT --host $WORLD/host.json "\$@"
END
	chmod 755 "$WORLD/kport.new"
	mv "$WORLD/kport.new" "$WORLD/kport"
fi

# host_json: what the host says of its jails
host_json() {
	jails='' addresses=''
	for jail in "$WORLD"/jails/*; do
		[ -e "$jail" ] || continue
		read -r jid address <"$jail"
		name=$(basename "$jail")
		jails="$jails${jails:+,}{\"jid\":$jid,\"name\":\"$name\",\"vnet\":true}"
		[ -z "$address" ] || addresses="$addresses${addresses:+,}\"$name\":[\"$address\"]"
	done
	cat >"$WORLD/host.new" <<END
{ "gateway": { "inet": "em0" },
  "interfaces": [
    { "name": "em0", "up": true, "addresses": ["192.0.2.1/24"] },
    { "name": "bridge0", "groups": ["bridge"], "up": true, "addresses": ["10.0.0.1/24"] },
    { "name": "lo0", "groups": ["lo"], "up": true, "addresses": ["127.0.0.1/8"] } ],
  "jails": [$jails], "vnet_addresses": {$addresses},
  "sysctls": { "net.inet.ip.forwarding": 1 }, "boot_id": "played" }
END
	mv "$WORLD/host.new" "$WORLD/host.json"
}

# jail_up NAME ADDRESS: prints its number, which is never used again
jail_up() {
	last=$(cat "$WORLD/last" 2>/dev/null || echo 0)
	echo $((last + 1)) >"$WORLD/last"
	echo "$((last + 1)) $2" >"$WORLD/jails/$1"
	host_json
	echo $((last + 1))
}

# jail_down NAME
jail_down() {
	rm -f "$WORLD/jails/$1"
	host_json
}

# jid NAME: its number; nothing where it does not run
jid() {
	[ ! -e "$WORLD/jails/$1" ] || cut -d ' ' -f 1 "$WORLD/jails/$1"
}

# here COMMAND: with kport of this host in place of the installed one
here() {
	printf '%s\n' "$1" | sed "s|/usr/local/bin/kport|$WORLD/kport|g"
}

# hook COMMAND VARIABLE=VALUE...: through a shell, with these variables and nothing else; its status
hook() {
	command=$(here "$1")
	shift
	env -i "$@" /bin/sh -c "$command" </dev/null
}

[ -e "$WORLD/host.json" ] || host_json
