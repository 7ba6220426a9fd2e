#!/bin/sh
# make.sh KPORT VERSION - makes tests/upgrade/VERSION/state and list.json: what a kport of that version leaves in its state
# directory, for the tests of the versions after it. KPORT is a build of that version, on Linux; strace(1) kills it where a
# publication is to be left half done. VERSION/host.json is written by hand.
#
# At a release, this is run once with it, and what it makes is never made again.
set -eu
kport=$1
here=$(cd "$(dirname "$0")" && pwd)/$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
: >conf
export KPORT_STATE_DIR="$work/state" KPORT_BACKEND=sim

has() { "$kport" publish --help | grep -q -- "$1"; }
config=''
! "$kport" --help | grep -q -- --config || config="--config $work/conf"
# shellcheck disable=SC2086 # words
k() { "$kport" -q --host "$here/host.json" $config "$@"; }
# killed rename|unlink N ARGUMENT...: SIGKILL in place of the Nth time that a file is replaced, or removed
killed() {
	calls=rename,renameat,renameat2
	[ "$1" = rename ] || calls=unlink,unlinkat
	at=$2
	shift 2
	# shellcheck disable=SC2086 # words
	if strace -f -o "$work/strace" -e trace=$calls -e inject=$calls:signal=SIGKILL:when="$at" "$kport" -q \
		--host "$here/host.json" $config "$@" 2>/dev/null; then
		echo "make.sh: $* was not killed" >&2
		exit 1
	fi
	grep -q 'killed by SIGKILL' "$work/strace"
}

k publish web 8080:80 8443:443/tcp,udp 9899/sctp
k publish db -a 10.0.0.3 --sources 192.0.2.0/24 --sources '<trusted>' --max-connections 10 --max-connections-per-source 5 \
	--rate 15/5 5432
k publish --add db 5433
k publish app --auto-range 50000-50010 8000-8010:9000 em1:9000-9001:9000/udp auto:80 20000-22999:20000
k publish flat 192.0.2.7:81:80
k publish mail --hairpin --host-access --log --no-quick --reach bridge '*:25:25' 192.0.2.1:143:143 '[2001:db8::1]:587:587'
k publish --add mail --reach bridge 465
k publish 'a name/with $signs' 7000
k publish gone 7070
# a jail that the host does not have
k publish coming -a 10.0.0.20 7020

# the record is there, and pf has nothing of it; the same with what was there before; and what unpublish has left
killed rename 2 publish cut-first 7001
k publish cut-change 7002 7003
killed rename 2 publish cut-change 7003 7004
k publish cut-unpublish 7005
killed unlink 2 unpublish cut-unpublish

printf '%s' '{"cniVersion":"1.0.0","name":"podman","type":"portmap","capabilities":{"portMappings":true},"runtimeConfig":
	{"portMappings":[{"hostPort":7014,"containerPort":80,"protocol":"tcp"}]},"prevResult":{"cniVersion":"1.0.0",
	"interfaces":[{"name":"eth0","sandbox":"pod"}],"ips":[{"address":"10.0.0.14/24","interface":0}]}}' |
	CNI_COMMAND=ADD CNI_CONTAINERID=c0ffee CNI_NETNS=/var/run/netns/pod CNI_IFNAME=eth0 CNI_PATH=/usr/local/libexec/cni \
		"$kport" --host "$here/host.json" cni >/dev/null

if has --masquerade; then
	k publish lan --trust 192.0.2.0/24 --masquerade --family inet 7015:80
	k publish four --af-to --reply-to 198.51.100.254 em1:7016:80
	k publish --no-jail guest -a 10.0.0.40 7040:22
	# lines of the file, which the file may change later
	echo 'lines 7017:80 auto:81 --sources 192.0.2.0/24' >conf
	k apply lines
fi

k list --json >list.json
# one line for each file: f, its path, its bytes (the locks have lines, the others none); l, its path, where it leads. The names of
# claims cannot be names in a package.
(
	cd state
	find . -mindepth 1 | LC_ALL=C sort | while read -r path; do
		path=${path#./}
		if [ -L "$path" ]; then
			printf 'l\t%s\t%s\n' "$path" "$(readlink "$path")"
		elif [ -f "$path" ]; then
			printf 'f\t%s\t%s\n' "$path" "$(awk '{ printf "%s%s", (NR > 1 ? "\\n" : ""), $0 }' "$path")"
		fi
	done
) >state.txt
mv list.json "$here/list.json"
mv state.txt "$here/state"
