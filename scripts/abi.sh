#!/bin/sh
# abi.sh check: compares the C ABI with abi/kport.abi.xml.
# abi.sh bless: updates abi/kport.abi.xml after an intended change; add a line to CHANGELOG.md.
#
# abidw(1) reads debugging information. That of the Rust library has private types of the compiler and the standard library,
# and differs with their versions. So this compiles the header alone, with each prototype turned into an empty function.
# tests/suite/abi.rs checks that the library exports these functions, tests/suite/header.rs that src/ffi.rs generates the header.
set -eu
cd "$(dirname "$0")/.."
baseline=abi/kport.abi.xml
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

sed '/^ \*/!s/);$/) { __builtin_trap(); }/' include/kport.h >"$work/kport.c"
# no function uses the enums: their values are passed as int32_t
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
		echo "the C ABI has changed; if this is intended, run scripts/abi.sh bless and add a line to CHANGELOG.md" >&2
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
