#!/usr/bin/env bash
# freebsd-cross.sh - check, lint and build kport (or any Rust crate) for FreeBSD on Debian 12, using nothing but
# apt (bookworm-security), PyPI and crates.io. freebsd-build.sh calls it for all that CI checks.
#
#   freebsd-cross.sh check  DIR [cargo args]   cargo check  for the target (cheap: no linker, no zig)
#   freebsd-cross.sh clippy DIR [cargo args]   cargo clippy for the target (cheap as well)
#   freebsd-cross.sh build  DIR [cargo args]   cargo build  for the target (cdylib, staticlib, rlib, bin)
#   freebsd-cross.sh test   DIR [cargo args]   cargo test --no-run: builds the test programs, runs nothing
#   freebsd-cross.sh cargo  DIR SUBCOMMAND ... any other cargo subcommand, with --target already set
#   freebsd-cross.sh cc     ARGS...            C compiler and linker for the target (clang + lld)
#   freebsd-cross.sh verify FILE...            checks that an ELF file fits the FreeBSD base system
#   freebsd-cross.sh env                       prints the environment (for `eval` or for other build tools)
#   freebsd-cross.sh setup  check|clippy|build installs and builds what that command needs
#
# How: Debian's rustc-web, cargo-web and rust-web-src are a compiler with the source of its library. The script
# compiles `std` for the target once, into a private sysroot under $FREEBSD_CROSS_HOME. After that it runs
# stable `cargo --target` with a rustc wrapper that adds `--sysroot`. RUSTC_BOOTSTRAP is set only while std
# is built, so build scripts of dependencies do not mistake the compiler for a nightly.
# Linking: PyPI's `ziglang` holds clang, lld, FreeBSD's headers, the sources of its crt*.o and the symbol
# lists (with versions) of its libc family. From them the script makes a FreeBSD sysroot; libraries that
# zig does not have (libgcc_s, libkvm, libprocstat, libmemstat, libdevstat, libjail) are added as stubs.
#
# It does not change rustup, ~/.cargo/config.toml, the crate's own target/debug and target/release, and the
# sources. It adds: apt packages (as root), $FREEBSD_CROSS_HOME, and <target dir>/freebsd*/.
#
# Settings (environment):
#   FREEBSD_CROSS_TARGET   x86_64-unknown-freebsd (default) or aarch64-unknown-freebsd
#   FREEBSD_CROSS_RELEASE  oldest FreeBSD the result must run on: 14.0 (default)
#   FREEBSD_CROSS_HOME     default ~/.cache/freebsd-cross
#   FREEBSD_CROSS_ZIG      version of the ziglang package: 0.17.1 (default)
#   FREEBSD_CROSS_JOBS     cargo -j, default nproc
#   CARGO_TARGET_DIR       if set, used unchanged
set -euo pipefail

RECIPE=2   # raise it if sysroots are made differently
TARGET=${FREEBSD_CROSS_TARGET:-x86_64-unknown-freebsd}
RELEASE=${FREEBSD_CROSS_RELEASE:-14.0}
ROOT=${FREEBSD_CROSS_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/freebsd-cross}
ZIGV=${FREEBSD_CROSS_ZIG:-0.17.1}
JOBS=${FREEBSD_CROSS_JOBS:-$(nproc)}
RUSTC=/usr/bin/rustc CARGO=/usr/bin/cargo

say() { printf 'freebsd-cross: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
usage() { sed -n '5,14s/^# \{0,1\}//p' "$0" >&2; exit 2; }

case $TARGET in
x86_64-unknown-freebsd)  ARCH=x86_64  CSU=amd64   EMU=elf_x86_64_fbsd ;;
aarch64-unknown-freebsd) ARCH=aarch64 CSU=aarch64 EMU=aarch64elf ;;
*) die "unknown FREEBSD_CROSS_TARGET $TARGET" ;;
esac
[[ $RELEASE =~ ^1[4-9]\.[0-9]$ ]] || die "FREEBSD_CROSS_RELEASE must look like 14.0, not $RELEASE"
# the lowest __FreeBSD_version of release X.Y
case $RELEASE in
14.0) OSREL=1400097 ;; 15.0) OSREL=1500068 ;;
*) OSREL=$(( ${RELEASE%.*} * 100000 + ${RELEASE#*.} * 1000 )) ;;
esac

mkdir -p "$ROOT"
lock() { exec 9>"$ROOT/lock.$1"; flock 9; }   # one at a time, until `unlock` or the end of the process
unlock() { exec 9>&-; }

# ---------------------------------------------------------------- Debian packages
need_apt() {
	local p miss=()
	for p; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || miss+=("$p")
	done
	[ ${#miss[@]} -eq 0 ] && return
	local sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
	say "apt-get install ${miss[*]}"
	{ $sudo apt-get update -qq &&
	  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${miss[@]}"; } \
		>"$ROOT/apt.log" 2>&1 || { tail -20 "$ROOT/apt.log" >&2; die "apt-get failed"; }
}

need_rust() {
	need_apt rustc-web cargo-web rust-web-src "$@"
	local v; v=$($RUSTC -vV)
	RUSTV=$(sed -n 's/^release: //p' <<<"$v")
	KEY=$RUSTV-$(sed -n 's/^commit-hash: \(.........\).*/\1/p' <<<"$v")-r$RECIPE
	HOST=$(sed -n 's/^host: //p' <<<"$v")
	LIBSRC=$($RUSTC --print sysroot)/lib/rustlib/src/rust/library
	[ -f "$LIBSRC/Cargo.lock" ] || die "no library source at $LIBSRC (rust-web-src of another version?)"
}

# Debian's cargo, without the environment of rustup or of a cargo that called this script.
clean() {
	env -u RUSTC -u RUSTDOC -u RUSTC_WRAPPER -u RUSTC_WORKSPACE_WRAPPER -u RUSTUP_TOOLCHAIN -u RUSTC_BOOTSTRAP \
	    -u CARGO -u CARGO_BUILD_TARGET -u SYSROOT PATH="/usr/bin:/bin:$PATH" "$@"
}
# For std, also without the caller's flags and profile settings.
cleanstd() {
	local v u=()
	for v in $(compgen -e | grep -E '^(CARGO_(PROFILE|BUILD|TARGET|UNSTABLE)_|(CARGO_ENCODED_)?RUSTFLAGS$)'); do u+=(-u "$v"); done
	clean env "${u[@]}" "$@"
}

# ---------------------------------------------------------------- std for the target
# kind "meta": *.rmeta only, for check and clippy. kind "full": *.rlib, optimised, for build and test.
need_std() {
	local kind=$1; SYS=$ROOT/std-$KEY/$kind
	local dst=$SYS/lib/rustlib/$TARGET/lib
	if [ ! -e "$dst/.done" ]; then
		lock std
		if [ ! -e "$dst/.done" ]; then
			say "compiling std $RUSTV for $TARGET ($kind), once"
			local t0=$SECONDS tmp=$ROOT/tmp.std log=$ROOT/std-$kind-$TARGET.log ext
			rm -rf "$tmp" "$dst"; mkdir -p "$tmp/src" "$dst"
			ln -sfn "$($RUSTC --print sysroot)/lib/rustlib/$HOST" "$SYS/lib/rustlib/$HOST"
			if [ $kind = meta ]; then
				ext=rmeta
				cleanstd RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zforce-unstable-if-unmarked \
				    __CARGO_DEFAULT_LIB_METADATA=freebsdcross CARGO_TARGET_DIR="$tmp/t" \
				    $CARGO check -j "$JOBS" --release --locked --target "$TARGET" \
				    --manifest-path "$LIBSRC/sysroot/Cargo.toml" >"$log" 2>&1 ||
				    { tail -30 "$log" >&2; die "std did not compile, see $log"; }
			else
				ext=rlib
				# profile: as in the standard library's own workspace (library/Cargo.toml)
				cat >"$tmp/Cargo.toml" <<-'E'
					cargo-features = ["profile-rustflags"]
					[package]
					name = "stdseed"
					version = "0.0.0"
					edition = "2021"
					[workspace]
					[profile.release.package.compiler_builtins]
					codegen-units = 10000
					[profile.release.package.panic_abort]
					rustflags = ["-Cpanic=abort"]
				E
				echo '#![no_std]' >"$tmp/src/lib.rs"
				(cd "$tmp" && cleanstd RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Cembed-bitcode=yes CARGO_TARGET_DIR="$tmp/t" \
				    $CARGO build -j "$JOBS" --release --target "$TARGET" \
				    -Z build-std=std,panic_unwind,panic_abort,proc_macro,test \
				    -Z build-std-features=backtrace,panic-unwind) >"$log" 2>&1 ||
				    { tail -30 "$log" >&2; die "std did not compile, see $log"; }
			fi
			rm -f "$tmp/t/$TARGET"/release/deps/lib{stdseed,sysroot}-*
			cp "$tmp/t/$TARGET/release/deps/"*.$ext "$dst/"
			rm -rf "$tmp"
			mkdir -p "$SYS/bin"
			local tool
			for tool in rustc rustdoc; do
				printf '#!/bin/sh\nexec /usr/bin/%s --sysroot "%s" "$@"\n' $tool "$SYS" >"$SYS/bin/$tool"
				chmod +x "$SYS/bin/$tool"
			done
			touch "$dst/.done"
			say "std done in $((SECONDS - t0)) s"
		fi
		unlock
	fi
}

# ---------------------------------------------------------------- C compiler, linker, FreeBSD sysroot
need_zig() {
	ZIGDIR=$ROOT/zig-$ZIGV ZIG=$ROOT/zig-$ZIGV/ziglang/zig
	[ -e "$ZIGDIR/.done" ] && return
	lock zig
	if [ ! -e "$ZIGDIR/.done" ]; then
		say "pip install ziglang==$ZIGV"
		python3 -m pip --version >/dev/null 2>&1 || need_apt python3-pip
		rm -rf "$ZIGDIR"
		python3 -m pip install -q --disable-pip-version-check --no-compile --no-deps \
		    --target "$ZIGDIR" "ziglang==$ZIGV" >"$ROOT/pip.log" 2>&1 || { cat "$ROOT/pip.log" >&2; die "pip failed"; }
		"$ZIG" version >/dev/null
		touch "$ZIGDIR/.done"
	fi
	unlock
}

# Exported symbols of the base libraries that zig has no stubs for (those that the libc crate or its users
# may link). One line for each library version: "name soname version symbols", "-" for an unversioned library;
# NAME=SIZE is a data object. Sonames and versions as in FreeBSD 14 and 15.
stub_table() {
	cat <<'T'
gcc_s libgcc_s.so.1 GCC_3.0 _Unwind_DeleteException _Unwind_Find_FDE _Unwind_ForcedUnwind _Unwind_GetDataRelBase _Unwind_GetGR _Unwind_GetIP _Unwind_GetLanguageSpecificData _Unwind_GetRegionStart _Unwind_GetTextRelBase _Unwind_RaiseException _Unwind_Resume _Unwind_SetGR _Unwind_SetIP __deregister_frame __register_frame
gcc_s libgcc_s.so.1 GCC_3.3 _Unwind_Backtrace _Unwind_FindEnclosingFunction _Unwind_GetCFA _Unwind_Resume_or_Rethrow
gcc_s libgcc_s.so.1 GCC_3.3.1 __gcc_personality_v0
gcc_s libgcc_s.so.1 GCC_4.2.0 _Unwind_GetIPInfo
kvm libkvm.so.7 - kvm_close kvm_counter_u64_fetch kvm_dpcpu_setcpu kvm_getargv kvm_getcptime kvm_getenvv kvm_geterr kvm_getfiles kvm_getloadavg kvm_getmaxcpu kvm_getncpus kvm_getpcpu kvm_getprocs kvm_getswapinfo kvm_kerndisp kvm_native kvm_nlist kvm_nlist2 kvm_open kvm_open2 kvm_openfiles kvm_read kvm_read2 kvm_read_zpcpu kvm_write
memstat libmemstat.so.3 - memstat_get_name memstat_mtl_alloc memstat_mtl_find memstat_mtl_first memstat_mtl_free memstat_mtl_geterror memstat_mtl_next memstat_strerror memstat_sysctl_all memstat_sysctl_malloc memstat_sysctl_uma
procstat libprocstat.so.1 FBSD_1.2 procstat_close procstat_freefiles procstat_freeprocs procstat_get_pipe_info procstat_getfiles procstat_getprocs procstat_open_kvm procstat_open_sysctl
procstat libprocstat.so.1 FBSD_1.3 procstat_freeargv procstat_freeauxv procstat_freeenvv procstat_freegroups procstat_freekstack procstat_freevmmap procstat_getargv procstat_getauxv procstat_getenvv procstat_getgroups procstat_getkstack procstat_getosrel procstat_getpathname procstat_getrlimit procstat_getumask procstat_getvmmap procstat_open_core
procstat libprocstat.so.1 FBSD_1.5 procstat_freeptlwpinfo procstat_getptlwpinfo procstat_get_sem_info procstat_get_shm_info procstat_get_socket_info
procstat libprocstat.so.1 FBSD_1.6 procstat_get_pts_info procstat_get_vnode_info
devstat libdevstat.so.7 - devstat_buildmatch devstat_checkversion devstat_compute_statistics devstat_getdevs devstat_getgeneration devstat_getnumdevs devstat_getversion devstat_selectdevs
jail libjail.so.1 - jail_errmsg=1024 jail_getid jail_getname jail_getv jail_setv jailparam_all jailparam_export jailparam_free jailparam_get jailparam_import jailparam_import_raw jailparam_init jailparam_set
T
}

need_sysroot() {
	need_zig
	SR=$ROOT/sysroot-$ARCH-$RELEASE-zig$ZIGV-r$RECIPE
	CC=$SR/bin/$TARGET-cc
	[ -e "$SR/.done" ] && return
	lock sysroot
	[ -e "$SR/.done" ] && { unlock; return; }
	say "making a FreeBSD $RELEASE $ARCH sysroot, once"
	local t0=$SECONDS log=$ROOT/sysroot-$ARCH.log
	rm -rf "$SR"
	# (not `_make_sysroot || ...`, which would disable its `set -e`)
	local rc; set +e; _make_sysroot >"$log" 2>&1; rc=$?; set -e
	[ $rc = 0 ] || { tail -30 "$log" >&2; die "sysroot failed, see $log"; }
	touch "$SR/.done"
	unlock
	say "sysroot done in $((SECONDS - t0)) s"
}

_make_sysroot() (
	set -euxo pipefail
	local zl=$ZIGDIR/ziglang/lib lib=$SR/usr/lib w=$SR/work f d ver name so s
	mkdir -p "$lib" "$SR/usr/include" "$SR/bin" "$w"
	export ZIG_GLOBAL_CACHE_DIR=$w/zig ZIG_LOCAL_CACHE_DIR=$w/zig
	# 1. headers: FreeBSD's generic ones, then the architecture's over them
	cp -a "$zl/libc/include/generic-freebsd/." "$SR/usr/include/"
	for d in "$zl/libc/include/$ARCH"-freebsd*; do cp -a "$d/." "$SR/usr/include/"; done
	# zig's copy of sys/param.h leaves __FreeBSD_version to the compiler's command line
	chmod u+w "$SR/usr/include/sys/param.h"
	sed -i "0,/^#define[[:space:]]*BSD4_4/s//#ifndef __FreeBSD_version\n#define __FreeBSD_version $OSREL\n#endif\n&/" "$SR/usr/include/sys/param.h"
	grep -q "__FreeBSD_version $OSREL" "$SR/usr/include/sys/param.h"
	# 2. stubs of the libc family with the symbol versions of that release, made by zig
	echo 'int x;' >"$w/x.c"
	"$ZIG" cc -target "$ARCH-freebsd.$RELEASE" -shared -fPIC -o "$w/x.so" "$w/x.c"
	while read -r s; do
		f=${s##*/}; cp "$s" "$lib/$f"; ln -sf "$f" "$lib/${f%.so.*}.so"
	done < <(find "$w/zig/o" -name 'lib*.so.[0-9]*')
	for f in libc libm libthr librt libdl libutil libexecinfo; do [ -e "$lib/$f.so" ]; done
	if [ -e "$lib/libsys.so.7" ]; then  # since 15.0 the system calls are in libsys, which FreeBSD's libc.so names
		rm "$lib/libc.so"; echo 'INPUT(libc.so.7 AS_NEEDED(libsys.so.7))' >"$lib/libc.so"
	fi
	ln -sf libthr.so.3 "$lib/libpthread.so"
	s=$(find "$w/zig/o" -name libcompiler_rt.a | head -1); [ -n "$s" ]
	cp "$s" "$lib/libcompiler_rt.a"
	# clang puts -lgcc before -lc: a linker script that names libc first, so that memcpy and the others are libc's
	echo 'INPUT(-lc -lcompiler_rt)' >"$lib/libgcc.a"
	# 3. the compiler driver: the clang and lld of zig, without zig's own front end
	cat >"$SR/bin/ld.lld" <<-E
		#!/bin/sh
		exec "$ZIG" ld.lld "\$@"
	E
	cat >"$CC" <<-E
		#!/bin/sh
		exec "$ZIG" clang --target=$ARCH-unknown-freebsd${RELEASE} --sysroot="$SR" -resource-dir "$zl" --ld-path="$SR/bin/ld.lld" -Wno-unused-command-line-argument "\$@"
	E
	cat >"$SR/bin/$TARGET-ar" <<-E
		#!/bin/sh
		exec "$ZIG" ar "\$@"
	E
	chmod +x "$SR/bin/"*
	# 4. crt objects from FreeBSD's sources as zig ships them, laid out as in FreeBSD's /usr/lib
	local c=$zl/libc/freebsd/lib/csu
	local cf=(-O2 -fno-omit-frame-pointer -DSTRIP_FBSDID "-D__FreeBSD_version=$OSREL" -I"$c/$CSU" -I"$c/common" -I"$zl/libc/freebsd/lib/libc/include")
	for s in crtbrand feature_note ignore_init_note; do "$CC" "${cf[@]}" -DLOCORE -c -o "$w/$s.o" "$c/common/$s.S"; done
	"$CC" "${cf[@]}" -c -o "$w/crt1_c.o" "$c/$CSU/crt1_c.c"
	"$CC" "${cf[@]}" -fPIC -DPIC -c -o "$w/Scrt1_c.o" "$c/$CSU/crt1_c.c"
	"$CC" "${cf[@]}" -c -o "$w/crt1_s.o" "$c/$CSU/crt1_s.S"
	"$CC" "${cf[@]}" -fPIC -DPIC -c -o "$w/Scrt1_s.o" "$c/$CSU/crt1_s.S"
	"$CC" "${cf[@]}" -c -o "$lib/crtbegin.o" "$c/common/crtbegin.c"; cp "$lib/crtbegin.o" "$lib/crtbeginT.o"
	"$CC" "${cf[@]}" -DSHARED -fPIC -c -o "$lib/crtbeginS.o" "$c/common/crtbegin.c"
	: >"$w/empty.c"; "$CC" -c -o "$w/empty.o" "$w/empty.c"
	for s in crtend crtendS crtn; do cp "$w/empty.o" "$lib/$s.o"; done
	cp "$w/crtbrand.o" "$lib/crti.o"   # FreeBSD's crti.o brings the ABI note to every object too
	for s in "" S; do
		"$ZIG" ld.lld -r -o "$lib/${s}crt1.o" "$w/${s}crt1_c.o" "$w/${s}crt1_s.o" "$w/crtbrand.o" "$w/feature_note.o" "$w/ignore_init_note.o"
	done
	# 5. the stubs that zig lacks
	for name in $(stub_table | cut -d' ' -f1 | uniq); do
		f=$w/stub_$name; so=$(stub_table | awk -v n="$name" '$1 == n { print $2; exit }')
		stub_table | awk -v n="$name" -v S="$f.S" -v M="$f.map" '
			$1 == n {
				if ($3 != "-") print $3 " { global:" >M
				for (i = 4; i <= NF; i++) {
					size = ""; s = $i
					if (k = index(s, "=")) { size = substr(s, k + 1); s = substr(s, 1, k - 1) }
					if (size) printf ".data\n.globl %s\n.type %s,%%object\n.size %s,%s\n%s: .zero %s\n", s, s, s, size, s, size >S
					else printf ".text\n.globl %s\n.type %s,%%function\n.size %s,4\n%s: .zero 4\n", s, s, s, s >S
					if ($3 != "-") print "  " s ";" >M
				}
				if ($3 != "-") { print "}" (prev ? " " prev : "") ";" >M; prev = $3 }
			}
			END { print ".section .note.GNU-stack,\"\",%progbits" >S }'
		"$CC" -c -o "$f.o" "$f.S"
		ver=(); if [ -s "$f.map" ]; then ver=(--version-script="$f.map"); fi
		"$ZIG" ld.lld -m "$EMU" -shared -soname "$so" "${ver[@]}" -o "$lib/$so" "$f.o"
		ln -sf "$so" "$lib/lib$name.so"
	done
	# 6. try it
	printf '#include <stdio.h>\n#include <sys/param.h>\nint main(void){return printf("%%d\\n",__FreeBSD_version)<0;}\n' >"$w/t.c"
	"$CC" -fPIE -pie -o "$w/t" "$w/t.c"; "$CC" -o "$w/t2" "$w/t.c"; "$CC" -shared -fPIC -o "$w/t.so" "$w/x.c"
	rm -rf "$w"
)

# Both halves of what `build` needs, at the same time: std compiles mostly on one core.
need_build() {
	need_rust
	need_sysroot & local pid=$!
	need_std full
	wait $pid || die "no sysroot"
	need_sysroot
}

# ---------------------------------------------------------------- the crate
crate_dir() {
	[ -f "$1/Cargo.toml" ] || die "no Cargo.toml in $1"
	DIR=$(cd "$1" && pwd)
}

# kind selects the target directory: meta and full are different std builds and must not share artifacts
cargo_env() {
	local kind=$1 up=${TARGET//-/_}
	ENV=(RUSTC="$SYS/bin/rustc" RUSTDOC="$SYS/bin/rustdoc" CARGO="$CARGO" SYSROOT="$SYS" PATH="/usr/bin:/bin:$PATH")
	if [ -n "${CC:-}" ]; then
		ENV+=("CARGO_TARGET_$(tr a-z A-Z <<<"$up")_LINKER=$CC" "CC_$up=$CC" "AR_$up=$SR/bin/$TARGET-ar")
	fi
	[ "$DIR" = / ] && return
	local td=${CARGO_TARGET_DIR:-} root
	if [ -z "$td" ]; then
		root=$(cd "$DIR" && clean $CARGO locate-project --workspace --message-format plain)
		td=$(dirname "$root")/target/freebsd; if [ "$kind" = meta ]; then td+=-check; fi
		ENV+=(CARGO_TARGET_DIR="$td")
	fi
	# cargo does not notice that std was rebuilt (another recipe), which makes the old artifacts useless
	local stamp=$td/$TARGET/.freebsd-cross
	if [ -f "$stamp" ] && [ "$(cat "$stamp")" != "$KEY" ]; then rm -rf "${td:?}/$TARGET"; fi
	mkdir -p "$td/$TARGET"; echo "$KEY" >"$stamp"
}

run_cargo() { (cd "$DIR" && clean "${ENV[@]}" "$@"); }

verify() {
	need_apt binutils
	local f rc=0 r bad
	for f; do
		bad=()
		r=$(LC_ALL=C readelf -hldVnW --dyn-syms "$f" 2>/dev/null) || { say "$f: not ELF"; rc=1; continue; }
		grep -Eq 'OS/ABI: +UNIX - FreeBSD' <<<"$r" || grep -q 'NT_VERSION' <<<"$r" || bad+=("neither a FreeBSD OSABI nor an ABI note")
		if grep -q ' INTERP ' <<<"$r"; then
			grep -q '/libexec/ld-elf.so.1' <<<"$r" || bad+=("interpreter is not /libexec/ld-elf.so.1")
			grep -q 'NT_VERSION' <<<"$r" || bad+=("program without an ABI note (NT_VERSION)")
		fi
		grep -q 'GLIBC' <<<"$r" && bad+=("asks for GLIBC symbols")
		local n
		while read -r n; do
			case $n in
			libc.so.7|libthr.so.3|libm.so.5|libgcc_s.so.1|librt.so.1|libexecinfo.so.1|libdl.so.1|libkvm.so.7|libprocstat.so.1|libmemstat.so.3|libdevstat.so.7|libjail.so.1) ;;
			libutil.so.9) bad+=("needs libutil.so.9, which FreeBSD 15 does not have (it has libutil.so.10)") ;;
			libutil.so.10|libsys.so.7) [ "${RELEASE%.*}" -ge 15 ] || bad+=("needs $n, which FreeBSD 14 does not have") ;;
			*) say "$f: note: needs $n, which is not in this script's list of base libraries" ;;
			esac
		done < <(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' <<<"$r")
		local vs; vs=$(grep -oE 'FBSD(private)?_[0-9.]+' <<<"$r" | sort -uV | tr '\n' ' ')
		local max; max=$(tr ' ' '\n' <<<"$vs" | grep -E '^FBSD_' | sort -V | tail -1 || true)
		case ${RELEASE%.*} in 14) [[ -z $max || $(printf '%s\n' "$max" FBSD_1.7 | sort -V | tail -1) = FBSD_1.7 ]] || bad+=("$max is newer than FreeBSD 14") ;; esac
		local need; need=$(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' <<<"$r" | tr '\n' ' ')
		if [ ${#bad[@]} -gt 0 ]; then
			rc=1; printf '%s: BAD: %s\n' "$f" "$(IFS=';'; echo "${bad[*]}")"
		else
			printf '%s: ok: needs %s| versions %s\n' "$f" "$need" "$vs"
		fi
	done
	return $rc
}

cmd=${1:-}; [ -n "$cmd" ] || usage; shift
case $cmd in
check|clippy)
	[ $# -ge 1 ] || usage
	crate_dir "$1"; shift
	if [ $cmd = clippy ]; then need_rust rust-web-clippy; else need_rust; fi
	need_std meta
	if compgen -G "$ROOT/sysroot-$ARCH-$RELEASE-zig$ZIGV-r$RECIPE/.done" >/dev/null; then need_sysroot; fi  # for C code in build scripts
	cargo_env meta
	if [ $cmd = check ]; then
		run_cargo $CARGO check -j "$JOBS" --target "$TARGET" "$@"
	else
		run_cargo /usr/bin/cargo-clippy clippy -j "$JOBS" --target "$TARGET" "$@"
	fi ;;
build|test)
	[ $# -ge 1 ] || usage
	crate_dir "$1"; shift
	need_build
	cargo_env full
	if [ $cmd = build ]; then
		run_cargo $CARGO build -j "$JOBS" --target "$TARGET" "$@"
	else
		run_cargo $CARGO test --no-run -j "$JOBS" --target "$TARGET" "$@"
	fi ;;
cargo)
	[ $# -ge 2 ] || usage
	crate_dir "$1"; shift
	need_build; cargo_env full
	run_cargo CARGO_BUILD_TARGET="$TARGET" $CARGO "$@" ;;
cc) need_sysroot; exec "$CC" "$@" ;;
verify) [ $# -ge 1 ] || usage; verify "$@" ;;
env)
	need_build; DIR=/; cargo_env full
	for e in "${ENV[@]}"; do printf 'export %s=%q\n' "${e%%=*}" "${e#*=}"; done ;;
setup)
	case ${1:-build} in
	check) need_rust; need_std meta ;;
	clippy) need_rust rust-web-clippy; need_std meta ;;
	build) need_build ;;
	*) usage ;;
	esac ;;
*) usage ;;
esac
