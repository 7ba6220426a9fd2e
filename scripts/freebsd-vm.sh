#!/usr/bin/env bash
# freebsd-vm.sh - run tests/kernel in a virtual machine, on Linux
#
#   scripts/freebsd-vm.sh IMAGE [SCENARIO...]
#
# IMAGE is a disk of FreeBSD 14 or 15 for amd64, as the project publishes them (VM-IMAGES, CI-IMAGES; unpack the .xz): qcow2 or raw,
# with a root who needs no password. It is not written to. What `PROFILE=release scripts/freebsd-build.sh` (or without PROFILE) has
# built goes in by a second disk, which holds a tar(5) archive; the output comes by the serial console. The status is that of
# tests/kernel/run.sh.
#
# CI images put the console on the serial line themselves. In the others the script sets it at the prompt of loader(8).
#
# Settings (environment):
#   KPORT_VM_BUILT     where kport, libkport.so and peer are; default: target/freebsd/x86_64-unknown-freebsd, release or debug
#   KPORT_VM_MEMORY    MB, 2048
#   KPORT_VM_CPUS      2
#   KPORT_VM_ACCEL     kvm if there is /dev/kvm, else tcg, which emulates
#   KPORT_VM_CPU       its model: host, or max where it is emulated
#   KPORT_VM_BOOT      seconds until login, 900 (an emulated machine takes some minutes)
#   KPORT_VM_LIMIT     seconds for the suite, 14400
#   KPORT_VM_QEMU      more arguments of qemu-system-x86_64, as words of a shell: -kernel and -append for a disk without loader(8)
#   KPORT_VM_LOG       the whole console goes here, too
#   KPORT_MANAGERS     what the scenario managers runs
#   KPORT_BEFORE       an earlier kport for FreeBSD, for the scenario upgrade
#   KPORT_BEFORE_LINES, KPORT_BACKENDS, KPORT_PATIENCE, KPORT_SEED, KPORT_RANDOM, KPORT_KILLS, KPORT_LIMIT: see tests/kernel/run.sh
set -euo pipefail
cd "$(dirname "$0")/.."

die() { printf 'freebsd-vm: %s\n' "$*" >&2; exit 2; }
[ $# -ge 1 ] || { sed -n '4,5s/^# *//p' "$0" >&2; exit 64; }
image=$1
shift
[ -f "$image" ] || die "there is no $image"
command -v qemu-system-x86_64 >/dev/null || die "no qemu-system-x86_64 (Debian: qemu-system-x86)"
for scenario; do
	[ -f "tests/kernel/scenarios/$scenario.sh" ] || die "there is no scenario $scenario"
done

built=${KPORT_VM_BUILT:-}
for folder in release debug; do
	if [ -z "$built" ] && [ -x "target/freebsd/x86_64-unknown-freebsd/$folder/peer" ]; then
		built=target/freebsd/x86_64-unknown-freebsd/$folder
	fi
done
if [ -z "$built" ] || [ ! -x "$built/kport" ] || [ ! -x "$built/peer" ]; then
	die "build it first: PROFILE=release scripts/freebsd-build.sh x86_64-unknown-freebsd"
fi

work=$(mktemp -d)
machine=''
finish() {
	[ -z "$machine" ] || kill "$machine" 2>/dev/null || true
	rm -rf "$work"
}
trap finish EXIT

# ---------------------------------------------------------------- the second disk
disk=$work/disk
mkdir -p "$disk/bin" "$disk/lib"
cp "$built/kport" "$disk/bin/"
for pair in peer:peer example-publish:example example-kernel:bench; do
	[ ! -f "$built/${pair%%:*}" ] || cp "$built/${pair%%:*}" "$disk/bin/${pair#*:}"
done
if [ -f "$built/libkport.so" ]; then
	cp "$built/libkport.so" "$disk/lib/"
	soname=$(grep -aoE 'libkport\.so(\.[0-9]+)+' "$built/libkport.so" | head -n 1)
	ln -s libkport.so "$disk/lib/$soname"
fi
# without the names of its own lines it is a fifth of the size
if command -v llvm-strip >/dev/null; then llvm-strip "$disk"/bin/* "$disk/lib/libkport.so" 2>/dev/null || true; fi
mkdir -p "$disk/kport/packaging/freebsd" "$disk/kport/scripts"
mkdir "$disk/kport/tests"
cp -R tests/kernel "$disk/kport/tests/"
cp -R docs include man schema kport.pc.in "$disk/kport/"
cp scripts/install.sh "$disk/kport/scripts/"
[ -z "${KPORT_MANAGERS:-}" ] || cp -R "$KPORT_MANAGERS" "$disk/managers"
[ -z "${KPORT_BEFORE:-}" ] || cp "$KPORT_BEFORE" "$disk/bin/before"
cp -R packaging/freebsd/files "$disk/kport/packaging/freebsd/"
{
	echo 'cd /tmp/kport-vm || exit 2'
	echo 'export KPORT=$PWD/bin/kport KPORT_PEER=$PWD/bin/peer KPORT_LIB=$PWD/lib'
	echo '[ ! -x bin/example ] || export KPORT_EXAMPLE=$PWD/bin/example'
	echo '[ ! -x bin/bench ] || export KPORT_BENCH=$PWD/bin/bench'
	echo '[ ! -d managers ] || export KPORT_MANAGERS=$PWD/managers'
	echo '[ ! -x bin/before ] || export KPORT_BEFORE=$PWD/bin/before'
	for name in KPORT_BEFORE_LINES KPORT_BACKENDS KPORT_PATIENCE KPORT_SEED KPORT_RANDOM KPORT_KILLS KPORT_LIMIT; do
		[ -z "${!name:-}" ] || printf 'export %s=%q\n' "$name" "${!name}"
	done
	printf 'sh kport/tests/kernel/run.sh %s\n' "$*"
	# it is the last line, and the status of it is 0
	echo 'echo "kport-vm: status $?"'
} >"$disk/go.sh"
tar -C "$disk" -cf "$work/disk.tar" .
# whole blocks, or the end of it cannot be read
truncate -s %1M "$work/disk.tar"

# ---------------------------------------------------------------- the machine
format=raw
[ "$(head -c 3 "$image" | tr -d '\0')" != QFI ] || format=qcow2
accelerator=${KPORT_VM_ACCEL:-}
if [ -z "$accelerator" ]; then
	accelerator=tcg
	[ ! -w /dev/kvm ] || accelerator=kvm
fi
model=max
[ "$accelerator" != kvm ] || model=host
declare -a more
eval "more=(${KPORT_VM_QEMU:-})"
mkfifo "$work/in" "$work/out"
qemu-system-x86_64 -accel "$accelerator" -cpu "${KPORT_VM_CPU:-$model}" -smp "${KPORT_VM_CPUS:-2}" -m "${KPORT_VM_MEMORY:-2048}" \
	-no-reboot -nographic -monitor none -nic none -device virtio-rng-pci \
	-drive "file=$image,format=$format,if=virtio,snapshot=on,cache=unsafe" \
	-drive "file=$work/disk.tar,format=raw,if=virtio,readonly=on" \
	"${more[@]}" -serial stdio <"$work/in" >"$work/out" 2>"$work/qemu.err" &
machine=$!
exec 3>"$work/in" 4<"$work/out"
log=${KPORT_VM_LOG:-$work/log}
: >"$log"

send() { printf '%s\r' "$1" >&3; }

# await SECONDS WORD...: reads the console until it has one of the words, which is then $found. A prompt has no end of line, so what was
# read is kept until then.
seen=''
await() {
	local end=$((SECONDS + $1)) part word
	shift
	while :; do
		for word; do
			if [[ $seen == *"$word"* ]]; then
				found=$word seen=${seen#*"$word"}
				return
			fi
		done
		[ $SECONDS -lt $end ] || die "no $* on the console; the end of it: $(tail -c 400 "$log")"
		part=''
		# a part of a line, too: read(1) keeps what came before the time was over
		if ! IFS= read -r -t 1 -N 1024 -u 4 part && [ -z "$part" ] && ! kill -0 "$machine" 2>/dev/null; then
			die "the machine is gone: $(tail -n 3 "$work/qemu.err") $(tail -c 400 "$log")"
		fi
		printf '%s' "$part" >>"$log"
		seen+=$part
	done
}

boot=${KPORT_VM_BOOT:-900}
await "$boot" 'login:' 'Autoboot in' 'Welcome to FreeBSD'
if [ "$found" != login: ]; then
	# the menu of loader(8): 3 is its prompt
	printf 3 >&3
	await 60 'OK'
	send 'set console=comconsole'
	send 'set boot_serial=YES'
	send 'boot'
	await "$boot" 'login:'
fi
send root
await 120 '# '
# one line, as a shell that starts may throw away what was typed before; poweroff also if it fails
unpack='mkdir -p /tmp/kport-vm && tar -xf /dev/vtbd1 -C /tmp/kport-vm'
send "stty -echo -opost; $unpack && sh /tmp/kport-vm/go.sh || echo 'kport-vm: 'status 2; poweroff"

# every line as it comes, until the last
limit=$((SECONDS + ${KPORT_VM_LIMIT:-14400}))
status=''
while [ -z "$status" ]; do
	[ $SECONDS -lt $limit ] || die "the suite is not done after ${KPORT_VM_LIMIT:-14400} s"
	line=''
	if ! IFS= read -r -t 60 -u 4 line; then
		kill -0 "$machine" 2>/dev/null || die "the machine is gone: $(tail -c 400 "$log")"
		seen+=$line
		continue
	fi
	line=$seen$line seen=''
	line=${line//$'\r'/}
	printf '%s\n' "$line" >>"$log"
	case $line in
	*'stty -echo'*) ;;
	*'kport-vm: status '*) status=${line##*status } ;;
	*) printf '%s\n' "$line" ;;
	esac
done
for _ in $(seq 60); do
	kill -0 "$machine" 2>/dev/null || break
	sleep 1
done
exit "$status"
