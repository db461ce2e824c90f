#!/usr/bin/env bash
# Counts instructions a row, which no noise of the machine disturbs, and compares
# them with the committed benches/instructions.txt: more than 5 % above it fails.
#
#   benches/instructions.sh            compare
#   benches/instructions.sh --update   write the file anew
#
# Each piece runs N and 2N times; the difference holds neither start nor warm-up.
# Counts depend on the compiler's version, so update the file with the compiler.
# valgrind knows no AVX-512 and reports a processor without it; all pieces here
# are scalar, so what it counts is what runs.
set -euo pipefail
cd "$(dirname "$0")"
reference=instructions.txt
tolerance=5

if valgrind --version >/dev/null 2>&1; then
    tool=callgrind
elif perf stat -e instructions:u true >/dev/null 2>&1; then
    tool=perf
else
    echo "skipped: neither valgrind nor a working perf is installed"
    exit 0
fi

cargo build --quiet --release -p ad-bench --no-default-features --bin instructions
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
binary=$target/release/instructions
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

instructions() {
    case $tool in
    callgrind)
        valgrind --tool=callgrind --callgrind-out-file="$scratch/out" "$binary" "$1" "$2" 2>"$scratch/log" ||
            { cat "$scratch/log" >&2; return 1; }
        sed -n 's/^totals: \([0-9]*\).*/\1/p' "$scratch/out"
        ;;
    perf)
        perf stat -x, -e instructions:u -o "$scratch/out" "$binary" "$1" "$2"
        sed -n 's/^\([0-9]*\),.*/\1/p' "$scratch/out"
        ;;
    esac
}

"$binary" | while read -r piece rows; do
    # About 10⁵ rows a run: seconds under valgrind.
    times=$((100000 / rows + 1))
    once=$(instructions "$piece" $times)
    twice=$(instructions "$piece" $((2 * times)))
    awk -v name="$piece" -v d=$((twice - once)) -v n=$((times * rows)) 'BEGIN { printf "%s %.2f\n", name, d / n }'
done >"$scratch/now"

if [ "${1:-}" = --update ]; then
    { echo "# Instructions a row, written by benches/instructions.sh --update ($tool)."; cat "$scratch/now"; } >$reference
    cat $reference
    exit 0
fi
[ -f $reference ] || { echo "$reference is missing: write it by $0 --update" >&2; exit 1; }
awk -v tolerance=$tolerance '
    /^#/ { next }
    FNR == NR { before[$1] = $2; next }
    {
        if (!($1 in before)) { printf "%-12s %8.2f  new: add it by --update\n", $1, $2; grew = 1; next }
        change = 100 * ($2 / before[$1] - 1)
        verdict = change > tolerance ? "GREW" : change < -tolerance ? "shrank: --update keeps it" : "same"
        if (change > tolerance) grew = 1
        printf "%-12s %8.2f  before %8.2f  %+6.1f %%  %s\n", $1, $2, before[$1], change, verdict
    }
    END { exit grew }
' $reference "$scratch/now"
