#!/usr/bin/env bash
# Checks that Debian's U-Boot (package u-boot-qemu) runs unpatched, in S-mode under the machine's own SBI and in M-mode as
# firmware, reads a kernel from a disk, and, in S-mode, starts it with `booti`, with the device tree that it was given.
#
#   tests/foreign/u-boot.sh POLLUX U-BOOT-FOLDER KERNEL
#
# POLLUX is the program, U-BOOT-FOLDER has qemu-riscv64/ and qemu-riscv64_smode/ (usr/lib/u-boot of the package), KERNEL is
# an uncompressed Linux Image for riscv64 (boot/vmlinux-* of Debian's linux-image package). Needs mkfs.ext4. Nothing of
# these is in the repository.
set -euo pipefail
[ $# = 3 ] || { sed -n '2,/^set/{/^#/p}' "$0"; exit 2; }
pollux=$1 folder=$2 kernel=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export POLLUX_RUN_DIR=$work

mkdir "$work/root"
cp "$kernel" "$work/root/Image"
truncate -s 128M "$work/disk.img"
mkfs.ext4 -q -d "$work/root" "$work/disk.img"

# Waits until the console says `$1`, then types `$2`.
say() {
    for _ in $(seq 1 600); do
        if grep -aq "$1" "$log"; then
            printf '%s\n' "$2" >&3
            return
        fi
        kill -0 "$vm" 2>/dev/null || break
        sleep 0.2
    done
    echo "FAILED: $name never said '$1':"
    tail -n 20 "$log"
    exit 1
}

check() {
    name=$1 last=$2 log=$work/$1.log
    shift 2
    mkfifo "$work/$name.in"
    "$pollux" run --name "$name" --memory 512M --disk "$work/disk.img" --on-reset stop "$@" \
        <"$work/$name.in" >"$log" 2>"$log.err" &
    vm=$!
    exec 3>"$work/$name.in"
    say "Hit any key" ""
    say "=> " "virtio scan; ext4load virtio 0 0x88000000 /Image"
    say "bytes read" 'fdt addr $fdtcontroladdr; fdt print /chosen; echo tree-$?'
    say "tree-0" "$last"
    if [ "$name" = s-mode ]; then
        say "Linux version" ""
    fi
    # U-Boot resets; the kernel finds no root to its taste, panics, and reboots: either way the VM ends.
    for _ in $(seq 1 600); do
        kill -0 "$vm" 2>/dev/null || break
        sleep 0.2
    done
    exec 3>&-
    kill "$vm" 2>/dev/null && { echo "FAILED: $name does not end:"; tail -n 20 "$log"; exit 1; }
    wait "$vm" && status=0 || status=$?
    [ "$status" = 73 ] || { echo "FAILED: $name ended with status $status:"; tail -n 20 "$log"; exit 1; }
    echo "$name: $(grep -a -m 1 'U-Boot 20' "$log" | tr -d '\r'); $(grep -a -m 1 -o 'Linux version [^ ]*' "$log" || echo "no kernel asked for")"
}

check s-mode 'setenv bootargs earlycon=sbi console=ttyS0 panic=1; booti 0x88000000 - $fdtcontroladdr' \
    --kernel "$folder/qemu-riscv64_smode/uboot.elf"
# In M-mode it is its own firmware, and a kernel that wants an SBI cannot follow it.
check m-mode reset --bios "$folder/qemu-riscv64/uboot.elf"
