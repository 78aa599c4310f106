#!/bin/sh
# Builds the workloads of `pollux bench`. `build.sh --check` compares the result with
# the committed one instead of replacing it.
set -eu
cd "$(dirname "$0")"
compiler=${CC:-riscv64-unknown-elf-gcc}
version=$($compiler -dumpfullversion)
build() {
    $compiler -march=rv64gc -mabi=lp64d -mcmodel=medany -O2 -ffreestanding -nostdlib -static -fno-builtin \
        -fno-stack-protector -fno-tree-loop-distribute-patterns -ffp-contract=off -fno-math-errno -Wall -Wextra \
        -Wl,--build-id=none -Wl,-z,max-page-size=4096 -s workloads.c -o "$1"
}
if [ "${1:-}" != --check ]; then
    build workloads.elf
    echo "$version" > compiler-version
    exit 0
fi
out=$(mktemp)
trap 'rm -f "$out"' EXIT
build "$out"
if [ "$version" != "$(cat compiler-version)" ]; then
    echo "workloads: built by gcc $(cat compiler-version), this host has $version: it builds, bytes are not compared"
elif cmp "$out" workloads.elf; then
    echo "workloads.elf is what its source makes"
else
    echo "workloads.elf is not what its source makes: run guests/workloads/build.sh" >&2
    exit 1
fi
