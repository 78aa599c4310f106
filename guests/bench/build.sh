#!/bin/sh
# Builds the benchmark. `cargo xtask guests` compares the committed one with what this makes.
set -eu
cd "$(dirname "$0")"
compiler=${CC:-riscv64-unknown-elf-gcc}
version=$($compiler -dumpfullversion)
build() {
    $compiler -march=rv64gc -mabi=lp64d -mcmodel=medany -O2 -ffreestanding -nostdlib -static -fno-builtin \
        -fno-stack-protector -fno-tree-loop-distribute-patterns -Wall -Wextra -Wl,--build-id=none \
        -Wl,-z,max-page-size=4096 -Wl,--no-warn-rwx-segments -s -T link.ld start.S bench.c -o "$1"
}
build bench.elf
echo "$version" > compiler-version
