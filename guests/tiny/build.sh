#!/bin/sh
# Builds the embedded guest. `build.sh --check` compares the result with the committed one instead of replacing it.
set -eu
cd "$(dirname "$0")"
compiler=${CC:-riscv64-unknown-elf-gcc}
version=$($compiler -dumpfullversion)
build() {
    $compiler -march=rv64imac_zicsr_zifencei -mabi=lp64 -mcmodel=medany -O2 -ffreestanding -nostdlib -static \
        -fno-builtin -fno-stack-protector -Wall -Wextra -Wl,--build-id=none -Wl,-z,max-page-size=4096 -Wl,--no-warn-rwx-segments -s \
        -T link.ld start.S lib.c virtio.c devices.c service.c main.c -o "$1"
}
if [ "${1:-}" = --check ]; then
    if [ "$version" != "$(cat compiler-version)" ]; then
        echo "tiny: built by gcc $(cat compiler-version), this host has $version: it builds, bytes are not compared"
        out=$(mktemp)
        build "$out"
        rm -f "$out"
        exit 0
    fi
    out=$(mktemp)
    build "$out"
    cmp "$out" tiny.elf || { echo "tiny.elf is not what its source makes: run guests/tiny/build.sh" >&2; rm -f "$out"; exit 1; }
    rm -f "$out"
    echo "tiny.elf is what its source makes"
else
    build tiny.elf
    echo "$version" > compiler-version
    ls -l tiny.elf
fi
