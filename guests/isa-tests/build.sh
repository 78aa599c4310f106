#!/bin/sh
# Builds the tests. `cargo xtask guests` compares the committed ones with what this makes.
set -eu
cd "$(dirname "$0")"
compiler=${CC:-riscv64-unknown-elf-gcc}
version=$($compiler -dumpfullversion)
build() {
    $compiler -march=rv64gc_zicsr_zifencei -mabi=lp64d -mcmodel=medany -nostdlib -static -s -Wl,--build-id=none \
        -Wl,-z,max-page-size=4096 -Wl,--no-warn-rwx-segments -Wl,--no-relax -T link.ld "$1" -o "$2"
}
for test in *.S; do
    build "$test" "${test%.S}.elf"
done
echo "$version" > compiler-version
