#!/usr/bin/env bash
# Compares CasADi, JAX and ADOL-C with derivatives written by hand, on one thread: see README.md beside this file.
set -euo pipefail

# The versions this was last checked with.
casadi=casadi==3.8.2
jax=jax==0.10.2
numpy=numpy==2.4.6

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
mkdir -p "${CARGO_TARGET_DIR:-target}"
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
build=$target/peers
venv=$target/peers-venv
rows=$target/peers.csv
mkdir -p "$build"
failed=()

# One thread, on one core where the system lets us choose it.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 JAX_PLATFORMS=cpu
export XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
pin=()
if command -v taskset >/dev/null && [ -r /proc/self/status ]; then
    core=$(sed -n 's/^Cpus_allowed_list:.*[^0-9]\([0-9]*\)$/\1/p' /proc/self/status)
    pin=(taskset -c "$core")
fi

skip() { echo "skipped $1: $2" >&2; }

# Appends the rows that a peer prints; it ends with another status than 0 when a derivative is wrong.
compare() {
    local peer=$1
    shift
    ${pin[@]+"${pin[@]}"} "$@" >>"$rows" || failed+=("$peer")
}

if ! command -v gcc >/dev/null; then
    skip "all peers" "the derivatives written by hand need gcc"
    exit 0
fi
echo "peer,task,ns,by_hand_ns" >"$rows"
gcc --version | head -n 1 >&2
gcc -O3 -std=gnu11 -Wall -Wextra -fPIC -shared -o "$build/libhand.so" "$here/hand.c" "$here/casadi_loop.c" -lm

if ! command -v python3 >/dev/null; then
    skip "casadi, jax" "there is no python3"
elif ! { [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1; } &&
    ! python3 -m venv --clear "$venv" >"$build/venv.log" 2>&1; then
    skip "casadi, jax" "no virtual environment could be made (on Debian: apt-get install python3-venv)"
else
    for peer in casadi jax; do
        if "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$numpy" "${!peer}" \
            >"$build/pip.log" 2>&1; then
            compare "$peer" "$venv/bin/python" "$here/peers.py" "$peer" "$build/libhand.so" "$build/$peer"
        else
            skip "$peer" "pip could not install $numpy ${!peer}: $(tail -n 1 "$build/pip.log")"
        fi
    done
fi

if ! command -v g++ >/dev/null; then
    skip adolc "there is no g++"
elif ! echo '#include <adolc/adolc.h>' | g++ -x c++ -E - >/dev/null 2>&1; then
    skip adolc "there is no adolc/adolc.h (on Debian: apt-get install libadolc-dev)"
else
    command -v dpkg-query >/dev/null && dpkg-query -W -f 'adolc ${Version}\n' libadolc-dev >&2 2>/dev/null || true
    gcc -O3 -std=gnu11 -c -o "$build/hand.o" "$here/hand.c"
    g++ -O3 -std=c++17 -Wall -Wextra -o "$build/adolc" "$here/adolc.cpp" "$build/hand.o" -ladolc
    # A directory of its own: a tape that outgrew its buffers would be written to files there.
    mkdir -p "$build/tapes"
    compare adolc env -C "$build/tapes" "$build/adolc"
fi

awk -F, '
    NR == 1 { next }
    !($1 in peer) { peer[$1]; peers[++p] = $1 }
    !($2 in task) { task[$2]; tasks[++t] = $2 }
    { ratio[$1, $2] = $3 / $4; hand[$2] = hand[$2] == "" || $4 < hand[$2] ? $4 : hand[$2] }
    END {
        if (!p) { print "no peer could be run"; exit }
        print "times the derivative written by hand (its own time, the least of the runs, in the last column)"
        printf "%-8s", "task"
        for (i = 1; i <= p; i++) printf "%12s", peers[i]
        printf "%14s\n", "by hand, ns"
        for (j = 1; j <= t; j++) {
            printf "%-8s", tasks[j]
            for (i = 1; i <= p; i++) {
                r = ratio[peers[i], tasks[j]]
                printf (r == "" ? "%12s" : r < 10 ? "%12.2f" : "%12.0f"), r == "" ? "-" : r
            }
            printf "%14.0f\n", hand[tasks[j]]
        }
    }' "$rows"
echo "rows written to $rows" >&2

if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
