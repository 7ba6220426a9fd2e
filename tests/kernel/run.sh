#!/bin/sh
# run.sh - kport on a FreeBSD kernel: does the packet arrive?
#
#	sh tests/kernel/run.sh [SCENARIO...]		default: all of tests/kernel/scenarios
#
# For FreeBSD 14 or 15, as root, in a virtual machine. It creates its own network (jails, epairs, bridges), uses pf(4), and needs
# nothing from outside. What it changes (interfaces, jails, pf, sysctls, files in /etc, /var/run/kport) is restored after each
# scenario, and compared; kernel modules stay loaded. See README.md.
#
# Each check prints a line, `ok NAME: ...` or `not ok NAME: ...`; the last line is `N passed, N failed, N skipped`. The status is 0 if
# no check failed.
#
#	KPORT		the helper			command -v kport
#	KPORT_PEER	peer.c, ready made		built by cc(1) if there is one
#	KPORT_LIB	the directory of libkport.so	../lib of the helper's
#	KPORT_INCLUDE	the directory of kport.h	../include of the helper's
#	KPORT_EXAMPLE	c-examples/publish.c, ready made	built by cc(1) with KPORT_LIB, or skipped
#	KPORT_BENCH	benches/kernel.c, ready made	likewise
#	KPORT_BACKENDS	of those that a scenario names	native pfctl
#	KPORT_PATIENCE	milliseconds until "nothing"	4000 (ten times as long if an answer is expected)
#	KPORT_LIMIT	seconds that a scenario may take	1800
#	KPORT_JAILS	of connections.sh		1 10 100
#	KPORT_MANAGERS, KPORT_MANAGER	of managers.sh
#	KPORT_BEFORE	an earlier kport, for upgrade.sh; KPORT_BEFORE_LINES	kport/*, if its pf.conf has these lines
#	KPORT_SEED, KPORT_RANDOM, KPORT_KILLS	of random.sh and kills.sh
#	KPORT_SECURELEVEL	of securelevel.sh: the machine is to be booted again
set -u

here=$(cd "$(dirname "$0")" && pwd) || exit 2
die() { printf 'run.sh: %s\n' "$*" >&2; exit 2; }

# one scenario by one backend, in a process of its own
if [ "${1-}" = --one ]; then
	SCENARIO=$2 BACKEND=$3
	. "$here/lib.sh"
	host_save
	trap 'host_restore' EXIT
	trap 'not_ok "ended by a signal"; exit 1' INT TERM HUP
	# shellcheck source=/dev/null
	. "$here/scenarios/$SCENARIO.sh"
	exit 0
fi

[ "$(uname -s)" = FreeBSD ] || die "this is not FreeBSD"
[ "$(id -u)" = 0 ] || die "run it as root"
[ "$(sysctl -n security.jail.jailed)" = 0 ] || die "run it on the host, not in a jail"
[ "$(sysctl -n kern.features.vimage 2>/dev/null)" = 1 ] || die "the kernel has no VIMAGE"
KPORT=${KPORT:-$(command -v kport)} || die "no kport: install it, or set KPORT"
[ -x "$KPORT" ] || die "$KPORT cannot be run"
unset KPORT_BACKEND KPORT_STATE_DIR
WORK=$(mktemp -d /tmp/kport-kernel.XXXXXX) || exit 2
trap 'rm -rf "$WORK"' EXIT
trap 'exit 1' INT TERM HUP
prefix=$(dirname "$(dirname "$KPORT")")
KPORT_LIB=${KPORT_LIB:-$prefix/lib} KPORT_INCLUDE=${KPORT_INCLUDE:-$prefix/include}
PATIENCE=${KPORT_PATIENCE:-4000} RESULTS=$WORK/results
compiler=$(command -v cc)

# build SOURCE PROGRAM [ARGUMENT...]: fails if there is no compiler
build() {
	source=$1 program=$2
	shift 2
	[ -n "$compiler" ] && [ -f "$source" ] && "$compiler" -O1 -o "$program" "$source" "$@" >"$WORK/cc.log" 2>&1
}

PEER=${KPORT_PEER:-}
if [ -z "$PEER" ]; then
	PEER=$WORK/peer
	build "$here/peer.c" "$PEER" || die "no compiler, or it failed: build peer.c elsewhere, and set KPORT_PEER"
fi
[ -x "$PEER" ] || die "$PEER cannot be run"
EXAMPLE=${KPORT_EXAMPLE:-} BENCH=${KPORT_BENCH:-}
if [ -f "$KPORT_LIB/libkport.so" ] && [ -f "$KPORT_INCLUDE/kport.h" ]; then
	[ -n "$EXAMPLE" ] || ! build "$here/../../c-examples/publish.c" "$WORK/example" "-I$KPORT_INCLUDE" "-L$KPORT_LIB" -lkport ||
		EXAMPLE=$WORK/example
	[ -n "$BENCH" ] || ! build "$here/../../benches/kernel.c" "$WORK/bench" "-I$KPORT_INCLUDE" "-L$KPORT_LIB" -lkport ||
		BENCH=$WORK/bench
fi
export KPORT KPORT_LIB PEER EXAMPLE BENCH WORK RESULTS PATIENCE

# before the first look at the host: modules are not taken out again
for module in pf pflog if_epair if_bridge; do
	kldload -n "$module" 2>/dev/null || kldstat -q -m "$module" || die "no module $module"
done

if [ $# -eq 0 ]; then
	for file in "$here"/scenarios/*.sh; do
		name=${file##*/}
		set -- "$@" "${name%.sh}"
	done
fi
for name; do
	[ -f "$here/scenarios/$name.sh" ] || die "there is no scenario $name"
done

echo "$(uname -srm), $("$KPORT" --version)"
: >"$RESULTS"
for name; do
	for backend in $(sed -n 's/^# backends: //p' "$here/scenarios/$name.sh"); do
		case " ${KPORT_BACKENDS:-native pfctl} " in *" $backend "*) ;; *) continue ;; esac
		began=$(date +%s)
		timeout -k 120 "${KPORT_LIMIT:-1800}" sh "$here/run.sh" --one "$name" "$backend"
		status=$?
		if [ $status != 0 ]; then
			echo "not ok $name/$backend: it ended with status $status"
			echo not >>"$RESULTS"
		fi
		echo "note $name/$backend: $(($(date +%s) - began)) s"
	done
done

of() { grep -c "^$1\$" "$RESULTS"; }
failed=$(of not)
printf '%s passed, %s failed, %s skipped\n' "$(of ok)" "$failed" "$(of skip)"
[ "$failed" = 0 ] && [ "$(of ok)" != 0 ]
