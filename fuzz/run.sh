#!/usr/bin/env bash
# Fuzzes each target for so many seconds, or for so many executions:
#
#     fuzz/run.sh                     10 seconds each, what the gate does
#     fuzz/run.sh 3600                an hour each
#     fuzz/run.sh 10000000x tape      ten million executions of one target
#
# Needs cargo-fuzz (cargo install cargo-fuzz). RUSTC_BOOTSTRAP lets a stable compiler instrument the code. What is found
# lies in fuzz/artifacts, and is tried again by `cargo fuzz run TARGET FILE`.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "skipped: cargo-fuzz is not installed (cargo install cargo-fuzz)"
    exit 0
fi
amount=${1:-10}
case $amount in
    *x) limit=-runs=${amount%x} ;;
    *) limit=-max_total_time=$amount ;;
esac
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(tape parts programs checkpoint data)

export RUSTC_BOOTSTRAP=1
host=$(rustc -vV | sed -n 's/^host: //p')
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target"
    seeds=()
    [ ! -d "fuzz/seeds/$target" ] || seeds=("fuzz/seeds/$target")
    [ "$target" != tape ] || seeds+=(crates/ad-core/tests/golden)
    # Few bytes draw next to nothing: long inputs are tried from the start.
    control=()
    [ "$target" != parts ] || control=(-len_control=0)
    echo "-- $target"
    log=$(mktemp)
    if ! cargo fuzz run --target "$host" "$target" "fuzz/corpus/$target" "${seeds[@]+"${seeds[@]}"}" -- \
        "$limit" "${control[@]+"${control[@]}"}" -max_len=10000 -print_final_stats=1 >"$log" 2>&1; then
        tail -n 40 "$log"
        exit 1
    fi
    grep -E '^(Done|stat::(average_exec|peak_rss))' "$log"
    rm -f "$log"
done
