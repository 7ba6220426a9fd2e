#!/bin/sh
# Jail managers by their own scripts, with the lines of their pages in docs/managers. KPORT_MANAGERS is a directory with a checkout of
# each, by its name; one that is not there is skipped, and so are those that KPORT_MANAGER does not name. See README.md.
# backends: native pfctl

docs=$here/../../docs/managers
if [ -z "${KPORT_MANAGERS-}" ] || [ ! -d "$docs" ]; then
	skip "KPORT_MANAGERS is not set, or docs/managers is missing"
	exit 0
fi

place=$(mktemp -d /tmp/kport-managers.XXXXXX) || exit 2
# what is mounted there is never removed, only unmounted
managers_restore() {
	local jail
	for jail in $(jls name | new_of jails); do jail -R "$jail" 2>/dev/null; done
	mount -p | awk -v place="$place/" 'index($2, place) == 1 { print $2 }' | sort -r | while read -r point; do umount -f "$point"; done
	! mount -p | grep -q "$place/" || { not_ok "$place is unmounted"; return; }
	[ ! -f "$place/user" ] || pw userdel "$(cat "$place/user")"
	# shellcheck disable=SC2046 # words
	[ ! -f "$place/made" ] || rm -rf $(cat "$place/made")
	rm -rf "$place"
}
trap 'managers_restore; host_restore' EXIT
# made PATH...: outside of $place, to be removed; what was there before stays
made() {
	local path
	for path; do [ -e "$path" ] || echo "$path" >>"$place/made"; done
}

# kport as the lines of the pages have it, with the backend
cat >"$place/kport" <<END
#!/bin/sh
KPORT_BACKEND=$BACKEND exec $KPORT "\$@"
END
chmod 755 "$place/kport"

# page NAME N: the Nth example of a page
page() {
	awk -v n="$2" '/^```/ { inside = !inside; if (inside) count++; next } inside && count == n' "$docs/$1.md" |
		sed "s|/usr/local/bin/kport|$place/kport|g"
}

# tree DIRECTORY: what the network of a jail and its server need, and an /etc/rc that sets what rc.conf(5) says
tree() {
	local program
	mkdir -p "$1/bin" "$1/sbin" "$1/usr/bin" "$1/usr/sbin" "$1/usr/lib" "$1/lib" "$1/libexec" "$1/etc" "$1/dev" "$1/proc" "$1/root" \
		"$1/var/run" "$1/var/log" "$1/var/cache" "$1/home" "$1/usr/local"
	mkdir "$1/tmp" "$1/var/tmp"
	chmod 1777 "$1/tmp" "$1/var/tmp"
	for program in /bin/sh /bin/sleep /bin/hostname /bin/realpath /bin/cat /bin/freebsd-version /sbin/ifconfig /sbin/route /sbin/sysctl \
		/bin/pkill /usr/bin/true /usr/bin/env /sbin/mount /sbin/umount; do
		[ ! -x $program ] || copy_in "$1" $program
	done
	copy_in "$1" "$PEER" /bin/peer
	cp /libexec/ld-elf.so.1 "$1/libexec/"
	cp /etc/passwd /etc/master.passwd /etc/pwd.db /etc/spwd.db /etc/group /etc/login.conf /etc/hosts "$1/etc/"
	cat >"$1/etc/rc" <<'END'
#!/bin/sh
export PATH=/sbin:/bin:/usr/sbin:/usr/bin
[ ! -r /etc/rc.conf ] || . /etc/rc.conf
ifconfig lo0 inet 127.0.0.1/8 2>/dev/null
for interface in $(ifconfig -l); do
	eval "words=\${ifconfig_$interface-}"
	[ -z "$words" ] || ifconfig "$interface" $words up
done
[ -z "${defaultrouter-}" ] || route -q add default "$defaultrouter"
# what rc(8) takes
sleep 1
peer serve "$(hostname -s)" tcp,80-89 udp,80-89 >/dev/null
END
	# a command that stays, for a jail that ends with it
	printf 'sh /etc/rc\nsleep 86400\n' >"$1/etc/task"
	echo 'exit 0' >"$1/etc/rc.shutdown"
	: >"$1/etc/rc.conf"
	: >"$1/etc/crontab"
}
# copy_in DIRECTORY PROGRAM [AS]: with the libraries that it needs
copy_in() {
	local library
	cp "$2" "$1${3:-$2}"
	for library in $(ldd -f '%p\n' "$2" 2>/dev/null | grep '^/'); do
		[ -e "$1$library" ] || { mkdir -p "$1$(dirname "$library")" && cp "$library" "$1$library"; }
	done
}

# the manager's output is shown with a failure
ran() {
	last="(none; $*)"
	st=0
	"$@" >"$WORK/err" 2>&1 </dev/null || st=$?
}
# runs STATUS COMMAND...
runs() {
	local expected
	expected=$1
	shift
	ran "$@"
	is "$* is status $expected" "$expected" "$st"
}
# printed TEXT: by the last of them
printed() {
	if grep -qF -- "$1" "$WORK/err"; then
		ok "and prints \"$1\""
	else
		not_ok "$last: expected \"$1\", got $(line "$(tail -n 3 "$WORK/err")")"
	fi
}
running() { jls -j "$1" jid >/dev/null 2>&1 && echo yes || echo no; }
published() { "$KPORT" list --json "$1" 2>/dev/null | grep -c '"jail"'; }
# until COMMAND...: for a minute
until_true() {
	local turns
	turns=0
	until "$@" >/dev/null 2>&1 || [ $turns -ge 120 ]; do
		sleep 0.5
		turns=$((turns + 1))
	done
}
gone() { ! jls -j "$1" jid >/dev/null 2>&1; }

host_network
system_path=$PATH
for manager in ${KPORT_MANAGER:-pot nomad cbsd}; do
	case $manager in
	nomad) source=$KPORT_MANAGERS/pot ;;
	*) source=$KPORT_MANAGERS/$manager ;;
	esac
	if [ ! -d "$source" ]; then
		skip "$manager is not in KPORT_MANAGERS"
		continue
	fi
	note "$manager"
	# shellcheck source=/dev/null
	. "$here/managers/$manager.sh"
	PATH=$system_path
	is "$manager leaves nothing in pf" "" "$(anchors)"
	is "nor a record" "" "$(records)"
done
