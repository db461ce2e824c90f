#!/usr/bin/env bash
# The tests under AddressSanitizer, and the main job under valgrind.
#
#     tools/sanitizers.sh            both
#     tools/sanitizers.sh address    the tests of both libraries, or what follows: address -p ad-core --test engines
#     tools/sanitizers.sh valgrind   the quickstart, in debug
#
# The workspace does nothing unsafe; what is looked at here is what it stands
# on: the standard library, fearless_simd's vector code, smallvec, the test tools.
# RUSTC_BOOTSTRAP lets a stable compiler take the option, for these runs alone.
set -euo pipefail
cd "$(dirname "$0")/.."
export INSTA_UPDATE=no INSTA_FORCE_PASS=0
target=$(rustc -vV | sed -n 's/^host: //p')

address() {
    compgen -G "$(rustc --print sysroot)/lib/rustlib/$target/lib/*asan*" >/dev/null ||
        { echo "skipped: rustc has no AddressSanitizer for $target"; return; }
    local options=("$@")
    [ "${#options[@]}" -gt 0 ] || options=(-p ad-core -p ad-optim --lib --tests)
    # A target directory of its own: --target keeps procedural macros as they are.
    # Memory that cannot be had is an error of ours, so the allocator has to say so.
    ASAN_OPTIONS="allocator_may_return_null=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}" \
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/address" \
        cargo test --target "$target" "${options[@]}"
}

memcheck() {
    command -v valgrind >/dev/null || { echo "skipped: valgrind is not installed"; return; }
    cargo build -p ad-optim --example quickstart
    valgrind --quiet --error-exitcode=1 --leak-check=full --show-leak-kinds=definite,indirect --errors-for-leak-kinds=definite,indirect \
        "${CARGO_TARGET_DIR:-target}/debug/examples/quickstart" >/dev/null
    echo "valgrind: the quickstart has no error and leaks nothing"
}

case ${1:-both} in
    both) address; memcheck ;;
    address) shift; address "$@" ;;
    valgrind) memcheck ;;
    *) echo "address, valgrind, or nothing for both"; exit 2 ;;
esac
