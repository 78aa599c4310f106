#!/bin/sh
# Makes harness.elf, the bare-metal half of the instruction oracle (tests/oracle).
set -eu
riscv64-unknown-elf-gcc -march=rv64gc -mabi=lp64d -nostdlib -static -s \
    -Wl,-Ttext=0x80000000 -Wl,--build-id=none -Wl,-n harness.S -o harness.elf
riscv64-unknown-elf-gcc -dumpfullversion > compiler-version
