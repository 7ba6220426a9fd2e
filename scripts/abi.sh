#!/bin/sh
# abi.sh check: is the C ABI still the one in abi/kport.abi.xml?
# abi.sh bless: it has changed on purpose; say so in CHANGELOG.md.
#
# abidw(1) reads debugging information. That of the Rust library names every type that the compiler and the standard library
# keep to themselves, and differs with each version of them. So the header is compiled by the C compiler, its prototypes
# turned into functions that do nothing: what a C program is built against, and nothing else. That the real library exports
# these functions and that the header is the one of src/ffi.rs is what tests/suite/abi.rs and tests/suite/header.rs are for.
set -eu
cd "$(dirname "$0")/.."
baseline=abi/kport.abi.xml
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

sed '/^ \*/!s/);$/) { __builtin_trap(); }/' include/kport.h >"$work/kport.c"
# no function names the enums: their numbers are in int32_t
cat >>"$work/kport.c" <<'END'
enum kport_status kport_statuses;
enum kport_state kport_states;
END
soname=libkport.so.$(sed -n 's/^#define KPORT_VERSION_MAJOR 0$/0./p' include/kport.h)
case $soname in
*.0.) soname=$soname$(sed -n 's/^#define KPORT_VERSION_MINOR //p' include/kport.h) ;;
*) soname=$soname$(sed -n 's/^#define KPORT_VERSION_MAJOR //p' include/kport.h) ;;
esac
(cd "$work" && ${CC:-cc} -std=c99 -g -fPIC -shared -nostdlib -Wl,-soname,"$soname" kport.c -o libkport.so)
abidw --no-corpus-path --no-comp-dir-path --no-show-locs --no-architecture --out-file "$work/now.xml" "$work/libkport.so"

case ${1-} in
check)
	if ! abidiff "$baseline" "$work/now.xml"; then
		echo "the C ABI has changed; where that is meant: scripts/abi.sh bless, and a line in CHANGELOG.md" >&2
		exit 1
	fi
	;;
bless)
	mkdir -p abi
	cp "$work/now.xml" "$baseline"
	;;
*)
	echo "usage: abi.sh check | bless" >&2
	exit 64
	;;
esac
