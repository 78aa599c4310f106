#!/bin/sh
# Builds the embedded guest. `cargo xtask guests` compares the committed one with what this makes.
set -eu
cd "$(dirname "$0")"
compiler=${CC:-riscv64-unknown-elf-gcc}
version=$($compiler -dumpfullversion)
build() {
    $compiler -march=rv64imac_zicsr_zifencei -mabi=lp64 -mcmodel=medany -O2 -ffreestanding -nostdlib -static \
        -fno-builtin -fno-stack-protector -Wall -Wextra -Wl,--build-id=none -Wl,-z,max-page-size=4096 -Wl,--no-warn-rwx-segments -s \
        -T link.ld start.S lib.c virtio.c devices.c service.c main.c -o "$1"
}
build tiny.elf
echo "$version" > compiler-version
