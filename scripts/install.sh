#!/bin/sh
# Installs what "cargo build --release" has built: the shared library under its versioned name, the static library, the
# header, kport.pc, the manual pages, the helper, its completions for bash, fish and zsh, and the schemas of its JSON documents; for
# FreeBSD also the scripts for rc(8) and periodic(8). "cargo cinstall" of cargo-c installs the first four. With --uninstall and the same options, the files are
# removed.
#
#	cargo build --release && scripts/install.sh --prefix=/usr/local
#
# On FreeBSD "cargo rustc --release --bin kport -- -C target-feature=+crt-static", after that build, makes a helper without shared
# libraries, which starts in half the time.
#
# The options are those of autoconf's configure. DESTDIR in the environment is put before every path, but not into any file.
#
# The helper and the shared library are installed without symbols and line tables, since every hook maps the helper. The files
# in target/release keep them: keep that directory to read a backtrace or a core (addr2line -e, lldb -c).
# STRIP in the environment names the strip(1) to run, such as llvm-strip for files of another machine; empty: nothing is stripped.
set -eu
cd "$(dirname "$0")/.."

usage() {
	cat >&2 <<'END'
usage: [DESTDIR=DIR] [STRIP=PROGRAM] install.sh [--prefix=DIR] [--libdir=DIR] [--includedir=DIR]
           [--pkgconfigdir=DIR] [--mandir=DIR] [--bindir=DIR] [--datadir=DIR]
           [--sysconfdir=DIR] [--from=DIR] [--uninstall]
END
	exit 64
}

prefix=/usr/local libdir='' includedir='' pkgconfigdir='' mandir='' bindir='' datadir='' sysconfdir='' uninstall=''
from=${CARGO_TARGET_DIR:-target}/release
while [ $# -gt 0 ]; do
	case $1 in
	--uninstall) uninstall=1; shift; continue ;;
	--*=*) name=${1%%=*} value=${1#*=} ;;
	--*) [ $# -gt 1 ] || usage; name=$1 value=$2; shift ;;
	*) usage ;;
	esac
	shift
	case $name in
	--prefix) prefix=$value ;;
	--libdir) libdir=$value ;;
	--includedir) includedir=$value ;;
	--pkgconfigdir) pkgconfigdir=$value ;;
	--mandir) mandir=$value ;;
	--bindir) bindir=$value ;;
	--datadir) datadir=$value ;;
	--sysconfdir) sysconfdir=$value ;; # of rc.d and periodic
	--from) from=$value ;; # where cargo put the files
	*) usage ;;
	esac
done
: "${libdir:=$prefix/lib}" "${includedir:=$prefix/include}" "${mandir:=$prefix/share/man}" "${bindir:=$prefix/bin}"
: "${datadir:=$prefix/share}"
# cargo puts what it builds for another system into a directory with the name of its target
target=$(basename "$(dirname "$from")")
case $target in *-*-*) ;; *) target='' ;; esac
case ${target:-$(uname -s)} in
FreeBSD | *-freebsd) # the directories of ports(7)
	: "${pkgconfigdir:=$prefix/libdata/pkgconfig}" "${sysconfdir:=$prefix/etc}" ;;
*) : "${pkgconfigdir:=$libdir/pkgconfig}" ;;
esac

version=$(sed -n 's/^#define KPORT_VERSION "\(.*\)"$/\1/p' include/kport.h)
case $version in
0.*) abi=${version%.*} ;; # before 1.0, each minor version has its own ABI
*) abi=${version%%.*} ;;
esac

# SHELL:FILE of each completion, below datadir, where FreeBSD's ports and most other systems put it
completions='bash:bash-completion/completions/kport fish:fish/vendor_completions.d/kport.fish zsh:zsh/site-functions/_kport'

if [ "$uninstall" ]; then
	rm -f "${DESTDIR-}$libdir/libkport.so.$version" "${DESTDIR-}$libdir/libkport.so.$abi" "${DESTDIR-}$libdir/libkport.so" \
		"${DESTDIR-}$libdir/libkport.a" "${DESTDIR-}$includedir/kport.h" "${DESTDIR-}$mandir/man3/kport.3" \
		"${DESTDIR-}$mandir/man5/kport.conf.5" \
		"${DESTDIR-}$mandir/man8/kport.8" "${DESTDIR-}$mandir/man8/kport-cni.8" "${DESTDIR-}$bindir/kport" \
		"${DESTDIR-}$pkgconfigdir/kport.pc"
	[ -z "$sysconfdir" ] || rm -f "${DESTDIR-}$sysconfdir/rc.d/kport" "${DESTDIR-}$sysconfdir/periodic/daily/410.kport-apply"
	for completion in $completions; do rm -f "${DESTDIR-}$datadir/${completion#*:}"; done
	for schema in schema/*.json; do rm -f "${DESTDIR-}$datadir/kport/$schema"; done
	rmdir "${DESTDIR-}$datadir/kport/schema" "${DESTDIR-}$datadir/kport" 2>/dev/null || :
	exit
fi

for file in libkport.so libkport.a kport; do
	if [ ! -f "$from/$file" ]; then
		echo "install.sh: $from/$file is missing; run cargo build --release first" >&2
		exit 1
	fi
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

: "${STRIP=strip}"
for file in libkport.so kport; do
	[ "$STRIP" ] && "$STRIP" -o "$work/$file" "$from/$file" 2>/dev/null && continue
	[ -z "$STRIP" ] || echo "install.sh: $STRIP cannot strip $from/$file; it is installed with its symbols" >&2
	cp "$from/$file" "$work/$file"
done

# The libraries that the static library needs depend on the system and the compiler, so ask the compiler. Rust's standard
# library needs all of them, so an empty static library needs the same. Without a compiler, on a machine that did not build the files,
# kport.pc is for the shared library alone.
private=$(: | "${RUSTC:-rustc}" --crate-name empty --crate-type staticlib ${target:+--target "$target"} --print native-static-libs -o "$work/empty.a" - 2>&1 |
	sed -n 's/^note: native-static-libs: //p')
if [ -z "$private" ] && command -v "${RUSTC:-rustc}" >/dev/null; then
	echo "install.sh: rustc does not print the libraries that a static library needs" >&2
	exit 1
fi
[ "$private" ] || echo "install.sh: there is no rustc; kport.pc has no libraries for static linking" >&2

put() { # mode file directory [name]
	install -d "${DESTDIR-}$3"
	install -m "$1" "$2" "${DESTDIR-}$3/${4:-$(basename "$2")}"
}
put 755 "$work/libkport.so" "$libdir" "libkport.so.$version"
ln -sf "libkport.so.$version" "${DESTDIR-}$libdir/libkport.so.$abi"
ln -sf "libkport.so.$abi" "${DESTDIR-}$libdir/libkport.so"
put 644 "$from/libkport.a" "$libdir"
put 644 include/kport.h "$includedir"
put 644 man/kport.3 "$mandir/man3"
put 644 man/kport.8 "$mandir/man8"
put 644 man/kport-cni.8 "$mandir/man8"
put 644 man/kport.conf.5 "$mandir/man5"
put 755 "$work/kport" "$bindir"
sed -e "s|@prefix@|$prefix|" -e "s|@libdir@|$libdir|" -e "s|@includedir@|$includedir|" -e "s|@version@|$version|" \
	-e "s|@private@|$private|" kport.pc.in >"$work/kport.pc"
put 644 "$work/kport.pc" "$pkgconfigdir"
for schema in schema/*.json; do put 644 "$schema" "$datadir/kport/schema"; done

if [ "$sysconfdir" ]; then
	for script in rc.d/kport periodic/daily/410.kport-apply; do
		sed "s|%%PREFIX%%/bin|$bindir|" "packaging/freebsd/files/${script##*/}.in" >"$work/script"
		put 755 "$work/script" "$sysconfdir/${script%/*}" "${script##*/}"
	done
fi

# a helper that was built for another machine does not run here
if "$from/kport" --version >/dev/null 2>&1; then
	for completion in $completions; do
		name=${completion#*:}
		"$from/kport" completions "${completion%%:*}" >"$work/completion"
		put 644 "$work/completion" "$datadir/${name%/*}" "${name##*/}"
	done
else
	echo "install.sh: $from/kport does not run here; no completions were installed" >&2
fi
