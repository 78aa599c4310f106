#!/bin/sh
# Builds the guest that reboots. `cargo xtask guests` compares the committed one with what this makes.
set -eu
cd "$(dirname "$0")"
compiler=${CC:-riscv64-unknown-elf-gcc}
version=$($compiler -dumpfullversion)
build() {
    $compiler -march=rv64imac_zicsr_zifencei -mabi=lp64 -mcmodel=medany -O2 -ffreestanding -nostdlib -static \
        -fno-builtin -fno-stack-protector -Wall -Wextra -Wl,--build-id=none -Wl,-z,max-page-size=4096 -Wl,--no-warn-rwx-segments -s \
        -T ../tiny/link.ld ../tiny/start.S ../tiny/lib.c ../tiny/virtio.c ../tiny/devices.c main.c -o "$1"
}
build reboot.elf
echo "$version" > compiler-version
