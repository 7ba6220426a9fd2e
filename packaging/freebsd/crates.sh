#!/bin/sh
# Writes Makefile.crates from Cargo.lock, like "make cargo-crates" of the ports tree. With --distinfo DIR, also writes distinfo
# from the archives in and below DIR.
set -eu
cd "$(dirname "$0")"
lock=../../Cargo.lock

# prints NAME VERSION CHECKSUM of each crate from the registry
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
			echo "crates.sh: $name-$version.crate is not below $archives; run cargo fetch" >&2
			exit 1
		fi
		if [ "$(sha256sum "$file" 2>/dev/null | cut -d ' ' -f 1 || sha256 -q "$file")" != "$sum" ]; then
			echo "crates.sh: $file does not have the checksum in Cargo.lock" >&2
			exit 1
		fi
		echo "SHA256 (rust/crates/$name-$version.crate) = $sum"
		echo "SIZE (rust/crates/$name-$version.crate) = $(wc -c <"$file" | tr -d ' ')"
	done
} >distinfo.new
mv distinfo.new distinfo
