#!/bin/sh
# Builds the benchmark. `build.sh --check` compares the result with the committed one instead of replacing it.
set -eu
cd "$(dirname "$0")"
compiler=${CC:-riscv64-unknown-elf-gcc}
version=$($compiler -dumpfullversion)
build() {
    $compiler -march=rv64gc -mabi=lp64d -mcmodel=medany -O2 -ffreestanding -nostdlib -static -fno-builtin \
        -fno-stack-protector -fno-tree-loop-distribute-patterns -Wall -Wextra -Wl,--build-id=none \
        -Wl,-z,max-page-size=4096 -Wl,--no-warn-rwx-segments -s -T link.ld start.S bench.c -o "$1"
}
if [ "${1:-}" != --check ]; then
    build bench.elf
    echo "$version" > compiler-version
    exit 0
fi
out=$(mktemp)
trap 'rm -f "$out"' EXIT
build "$out"
if [ "$version" != "$(cat compiler-version)" ]; then
    echo "bench: built by gcc $(cat compiler-version), this host has $version: it builds, bytes are not compared"
elif cmp "$out" bench.elf; then
    echo "bench.elf is what its source makes"
else
    echo "bench.elf is not what its source makes: run guests/bench/build.sh" >&2
    exit 1
fi
