#!/bin/sh
# lib/tern64.h renames every symbol of the double build, so that one program can link both builds.
#
#   sh tests/names64.sh                  a test: is the header what it should be? (TERN_BUILD_DIR names the build)
#   sh tests/names64.sh --write [BUILD]  writes it anew from the headers and the libtern64.a in BUILD
set -eu
cd "$(dirname "$0")/.."

write=0
if [ "${1:-}" = --write ]; then
    write=1
    TERN_BUILD_DIR=${2:-${TERN_BUILD_DIR:-build}}
fi
library=${TERN_BUILD_DIR:-build}/libtern64.a
[ -f "$library" ] || { echo "names64: no $library: build first, or name the build directory" >&2; exit 1; }

public() {
    sed -n 's/^TN_API [^(]*[ *]\(tn_[A-Za-z0-9_]*\)(.*/\1/p' lib/tern.h models/tern_models.h data/tern_data.h
}
# All global symbols, under the names they have in the sources. Kernels carry the name of their level already.
internal() {
    nm -g "$library" 2>/dev/null | awk 'NF == 3 && $2 ~ /[A-Z]/ && $2 != "U" {print $3}' | sed 's/^_tn/tn/' |
        sed -n 's/^tn64_/tn_/; /^tn_k_/d; /^tn_/p'
}

new=$(mktemp)
trap 'rm -f "$new"' EXIT
{
    cat <<'END'
/* SPDX-License-Identifier: MIT */
/*
 * Names of the double build: tern.h includes this file when TN_DOUBLE is defined. One line for every symbol that
 * the linker sees, public or not. Written by tests/names64.sh --write; tests check that nothing is missing.
 */
#ifndef TERN64_H
#define TERN64_H
/* clang-format off */
END
    { public; internal; } | LC_ALL=C sort -u | sed 's/^tn_\(.*\)/#define tn_\1 tn64_\1/'
    echo '#endif'
} >"$new"

if [ $write = 1 ]; then
    cmp -s "$new" lib/tern64.h || cat "$new" >lib/tern64.h
    echo "lib/tern64.h: $(grep -c '^#define tn_' lib/tern64.h) names"
elif ! diff lib/tern64.h "$new"; then
    echo "names64: lib/tern64.h is out of date (lines above: < has, > should have);" \
        "run sh tests/names64.sh --write BUILD, then build again" >&2
    exit 1
fi
