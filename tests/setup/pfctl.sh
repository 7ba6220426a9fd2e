#!/bin/sh
# Stands in for pfctl(8) in tests/suite/setup.rs: says what it was called with in a file beside the pf.conf, and refuses the
# pf.conf where there is a file "refuse".
for file; do :; done
dir=$(dirname "$file")
printf "%s\n" "$*" >>"$dir/log"
if [ -e "$dir/refuse" ]; then
	echo "pf.conf:3: syntax error" >&2
	exit 1
fi
