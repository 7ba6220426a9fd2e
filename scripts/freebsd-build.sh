#!/usr/bin/env bash
# freebsd-build.sh - build and check kport for FreeBSD on another system
#
#   scripts/freebsd-build.sh [TARGET...]    without an argument: x86_64-unknown-freebsd aarch64-unknown-freebsd
#
# For each target, this compares kport's struct layouts with FreeBSD's headers, runs clippy with warnings as errors, links the
# shared library, the static library, the helper and the C examples, and checks every ELF file (interpreter, needed libraries,
# symbol versions that FreeBSD 14 has). Nothing is run. The tests are linked for amd64 only: clippy compiles them for both, and
# they need no libraries that the helper does not need.
#
# PROFILE=release builds what is shipped; dev, the default, is faster. The results are in target/freebsd/TARGET.
# freebsd-cross.sh installs the tools at the first run.
set -euo pipefail
cd "$(dirname "$0")/.."
unset CARGO_TARGET_DIR
cross=scripts/freebsd-cross.sh
profile=${PROFILE:-dev}
folder=$profile; [ "$profile" != dev ] || folder=debug   # the name of cargo
# the libraries of rustc --print native-static-libs for FreeBSD; the linker keeps those that are used
system_libraries=('-Wl,--as-needed' -lexecinfo -lthr -lgcc_s -lm -lrt -lkvm -lmemstat -lprocstat -ldevstat -lutil)
[ $# -gt 0 ] || set -- x86_64-unknown-freebsd aarch64-unknown-freebsd
shopt -s nullglob

for target; do
	export FREEBSD_CROSS_TARGET=$target
	out=target/freebsd/$target/$folder
	step() { printf '== %s: %s\n' "$target" "$*"; }

	step layouts
	$cross cc -Wall -Werror -fsyntax-only tests/host/layout.c

	step clippy
	$cross clippy . --quiet --lib --bins --tests -- -D warnings
	# as it is shipped: the tests switch on the feature internals, which hides what is dead
	$cross clippy . --quiet --lib --bins -- -D warnings

	step "libraries and helper"
	$cross build . --quiet --profile "$profile" --lib --bins
	elf=("$out/libkport.so" "$out/kport")

	step "static library"
	# the whole archive without undefined symbols: a C program can link it whichever functions it calls
	$cross cc -shared -o "$out/libkport-static.so" -Wl,-z,defs \
		-Wl,--whole-archive "$out/libkport.a" -Wl,--no-whole-archive "${system_libraries[@]}"
	elf+=("$out/libkport-static.so")

	if [ "$target" = x86_64-unknown-freebsd ]; then
		step tests
		messages=$($cross test . --quiet --profile "$profile" --message-format=json)
		mapfile -t tests < <(grep -o '"executable":"[^"]*/deps/[^"]*"' <<<"$messages" | cut -d'"' -f4)
		[ ${#tests[@]} -gt 0 ]
		elf+=("${tests[@]}")
	fi

	for example in c-examples/*.c benches/kernel.c; do
		# this one needs Erlang's headers
		[ "$example" != c-examples/kport_nif.c ] || continue
		step "$example"
		program=$out/example-$(basename "$example" .c)
		$cross cc -std=c99 -Wall -Wextra -Werror -Iinclude -o "$program" "$example" "$out/libkport.so"
		elf+=("$program")
	done

	step tests/kernel/peer.c
	# without libkport, which jails do not have
	$cross cc -std=c99 -Wall -Wextra -Werror -o "$out/peer" tests/kernel/peer.c
	elf+=("$out/peer")

	step "ELF files"
	$cross verify "${elf[@]}"
done
