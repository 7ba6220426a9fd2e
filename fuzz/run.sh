#!/bin/sh
# run.sh SECONDS [TARGET]: fuzzes each target, or one, for this time. If it crashes, it fails and leaves the input in fuzz/artifacts.
# run.sh --keep TARGET: adds inputs of the last runs that increase coverage to the committed corpus.
#
# Stable Rust has no sanitizers, but it has LLVM's coverage pass, which is all that libFuzzer needs. `--target` is given so that
# build scripts are not instrumented.
set -eu
cd "$(dirname "$0")"
host=$(rustc -vV | sed -n 's/^host: //p')
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
RUSTFLAGS=$(echo $coverage) cargo build --release --target "$host"
bin=${CARGO_TARGET_DIR:-target}/$host/release

if [ "${1-}" = --keep ]; then
	mkdir -p "corpus/$2" "found/$2"
	"$bin/$2" -set_cover_merge=1 -use_counters=0 "corpus/$2" "found/$2"
	exit
fi
seconds=${1:?usage: run.sh SECONDS [TARGET]}
mkdir -p artifacts
for target in ${2:-spec abi pf_conf kleene cni oci}; do
	mkdir -p "found/$target" "corpus/$target"
	words=''
	if [ "$target" = spec ]; then words=-dict=spec.dict; fi
	# new inputs go to the first directory; the committed corpus does not change
	"$bin/$target" "found/$target" "corpus/$target" -max_total_time="$seconds" -timeout=10 -max_len=2048 \
		-print_final_stats=1 -artifact_prefix="artifacts/$target-" ${words:+"$words"}
done
