#!/bin/sh
# Builds the workloads of `pollux bench`. `cargo xtask guests` compares the committed one with what this makes.
set -eu
cd "$(dirname "$0")"
compiler=${CC:-riscv64-unknown-elf-gcc}
version=$($compiler -dumpfullversion)
build() {
    $compiler -march=rv64gc -mabi=lp64d -mcmodel=medany -O2 -ffreestanding -nostdlib -static -fno-builtin \
        -fno-stack-protector -fno-tree-loop-distribute-patterns -ffp-contract=off -fno-math-errno -Wall -Wextra \
        -Wl,--build-id=none -Wl,-z,max-page-size=4096 -s workloads.c -lgcc -o "$1"
}
build workloads.elf
echo "$version" > compiler-version
