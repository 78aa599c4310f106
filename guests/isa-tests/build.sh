#!/bin/sh
# Builds the tests. `build.sh --check` compares the results with the committed ones instead of replacing them.
set -eu
cd "$(dirname "$0")"
compiler=${CC:-riscv64-unknown-elf-gcc}
version=$($compiler -dumpfullversion)
build() {
    $compiler -march=rv64gc_zicsr_zifencei -mabi=lp64d -mcmodel=medany -nostdlib -static -s -Wl,--build-id=none \
        -Wl,-z,max-page-size=4096 -Wl,--no-warn-rwx-segments -Wl,--no-relax -T link.ld "$1" -o "$2"
}
if [ "${1:-}" != --check ]; then
    for test in *.S; do
        build "$test" "${test%.S}.elf"
    done
    echo "$version" > compiler-version
    exit 0
fi
out=$(mktemp)
trap 'rm -f "$out"' EXIT
for test in *.S; do
    build "$test" "$out"
    if [ "$version" != "$(cat compiler-version)" ]; then
        echo "isa-tests: built by gcc $(cat compiler-version), this host has $version: $test builds, bytes are not compared"
    else
        cmp "$out" "${test%.S}.elf" || { echo "${test%.S}.elf is not what its source makes: run build.sh" >&2; exit 1; }
    fi
done
echo "isa-tests: checked"
