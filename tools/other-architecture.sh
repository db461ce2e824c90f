#!/usr/bin/env bash
# Builds the tests that pin bits and printed traces for another processor and
# runs them under its emulator:
#
#     tools/other-architecture.sh [TARGET] [TEST...]
#
# TARGET is aarch64-unknown-linux-gnu unless said otherwise. It takes the
# target's std (`rustup target add TARGET`), a linker and an emulator (Debian:
# `apt-get install gcc-aarch64-linux-gnu qemu-user`); where one is absent
# the script says so and ends as if it had passed. Where rustup reaches no
# server, Debian's own compiler does as well:
#
#     FROM_DEBIAN=some/empty/folder tools/other-architecture.sh
#
# unpacks it there from Debian's packages, without installing anything.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:-aarch64-unknown-linux-gnu}
shift || true
tests=("$@")
[ "${#tests[@]}" -gt 0 ] || tests=(golden traces edges accuracy engines laws)
processor=${target%%-*}
skip() { echo "skipped: $*"; exit 0; }

if [ -n "${FROM_DEBIAN:-}" ]; then
    case $target in
        aarch64-unknown-linux-gnu) debian=arm64 ;;
        i686-unknown-linux-gnu) debian=i386 ;;
        riscv64gc-unknown-linux-gnu) debian=riscv64 ;;
        *) skip "this script does not know Debian's name for $target" ;;
    esac
    if [ ! -x "$FROM_DEBIAN/rustc" ]; then
        command -v apt-get >/dev/null || skip "FROM_DEBIAN needs apt-get"
        dpkg --print-foreign-architectures | grep -qx "$debian" ||
            skip "first, as root: dpkg --add-architecture $debian && apt-get update"
        mkdir -p "$FROM_DEBIAN"
        library=$(apt-cache depends libstd-rust-web-dev | sed -n 's/.*Depends: \(libstd-rust-web-[0-9.]*\)$/\1/p')
        llvm=$(apt-cache depends "$library" | sed -n 's/.*Depends: \(libllvm[0-9]*\)$/\1/p')
        (
            cd "$FROM_DEBIAN"
            apt-get download rustc-web "$library" "$llvm" libstd-rust-web-dev "libstd-rust-web-dev:$debian"
            for package in *.deb; do dpkg-deb -x "$package" .; rm "$package"; done
            printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$PWD/usr/lib/x86_64-linux-gnu" "$PWD/usr/bin/rustc" >rustc
            chmod +x rustc
        )
    fi
    RUSTC=$(realpath "$FROM_DEBIAN/rustc")
    export RUSTC
fi

sysroot=$("${RUSTC:-rustc}" --print sysroot)
compgen -G "$sysroot/lib/rustlib/$target/lib/libstd-*.rlib" >/dev/null ||
    skip "no std for $target (rustup target add $target)"
variable=$(tr 'a-z-' 'A-Z_' <<<"$target")

case $processor in
    i686)
        # An x86-64 machine runs these itself.
        linker=cc
        export "CARGO_TARGET_${variable}_RUSTFLAGS=-Clink-arg=-m32"
        echo 'int main(void) { return 0; }' | cc -m32 -x c -o /dev/null - 2>/dev/null ||
            skip "cc makes no 32-bit programs (apt-get install gcc-multilib)"
        ;;
    *)
        emulator=qemu-${processor/riscv64gc/riscv64}
        gnu=${processor/riscv64gc/riscv64}-linux-gnu
        linker=$gnu-gcc
        command -v "$emulator" >/dev/null || skip "$emulator is not installed (apt-get install qemu-user)"
        command -v "$linker" >/dev/null || skip "$linker is not installed (apt-get install gcc-$gnu)"
        export "CARGO_TARGET_${variable}_RUNNER=$emulator -L /usr/$gnu"
        ;;
esac
export "CARGO_TARGET_${variable}_LINKER=$linker"

export INSTA_UPDATE=no INSTA_FORCE_PASS=0
options=()
for test in "${tests[@]}"; do options+=(--test "$test"); done
"${RUSTC:-rustc}" --version
cargo test --release --target "$target" -p ad-core "${options[@]}"
