#!/bin/sh
# Writes Makefile.crates from Cargo.lock, as "make cargo-crates" of the ports tree does; with --distinfo DIR distinfo as well, from the
# archives in DIR and below it.
set -eu
cd "$(dirname "$0")"
lock=../../Cargo.lock

# crates: NAME VERSION CHECKSUM of each that comes from the registry
crates() {
	awk -F '"' '
		/^\[\[package\]\]/ { name = version = "" }
		/^name = / { name = $2 }
		/^version = / { version = $2 }
		/^checksum = / { print name, version, $2 }
	' "$lock"
}

{
	echo "# Made by crates.sh from Cargo.lock."
	crates | awk '
		{ line[NR] = $1 "-" $2 }
		END { for (i = 1; i <= NR; i++) printf "%s\t%s%s\n", i == 1 ? "CARGO_CRATES=" : "\t", line[i], i < NR ? " \\" : "" }
	'
} >Makefile.crates

[ "${1-}" = --distinfo ] || exit 0
archives=$2
{
	echo "TIMESTAMP = ${SOURCE_DATE_EPOCH:-$(date +%s)}"
	crates | while read -r name version sum; do
		file=$(find "$archives" -name "$name-$version.crate" | head -n 1)
		if [ -z "$file" ]; then
			echo "crates.sh: $name-$version.crate is not below $archives; cargo fetch" >&2
			exit 1
		fi
		if [ "$(sha256sum "$file" 2>/dev/null | cut -d ' ' -f 1 || sha256 -q "$file")" != "$sum" ]; then
			echo "crates.sh: $file has not the sum of Cargo.lock" >&2
			exit 1
		fi
		echo "SHA256 (rust/crates/$name-$version.crate) = $sum"
		echo "SIZE (rust/crates/$name-$version.crate) = $(wc -c <"$file" | tr -d ' ')"
	done
} >distinfo.new
mv distinfo.new distinfo
