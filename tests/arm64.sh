#!/bin/sh
# The recorded bits (test_bits.c) on 64-bit ARM: the library and the models are cross-compiled with the levels neon and
# plain and run under qemu-user. A static program, so it needs the cross compiler (Debian/Ubuntu: gcc-aarch64-linux-gnu)
# and the emulator (qemu-user) alone, no ARM library. Skipped where one of them is missing.
#
# OpenBLAS is left out: its functions are replaced by some that end the program, and test_bits never calls them. What
# reads and writes files (zlib, jansson) is left out, too. The whole suite runs with the preset arm64, which takes the
# libraries as well.
set -eu
cd "${TERN_SOURCE_DIR:-$(dirname "$0")/..}"

skip() {
    echo "arm64: skipped: $1"
    exit 77
}
CROSS=${AARCH64_CC:-aarch64-linux-gnu-gcc}
command -v "$CROSS" >/dev/null 2>&1 || skip "no $CROSS (Debian/Ubuntu: gcc-aarch64-linux-gnu)"
qemu=
for name in qemu-aarch64 qemu-aarch64-static; do
    if command -v $name >/dev/null 2>&1; then qemu=$name; fi
done
[ -n "$qemu" ] || skip "no qemu-aarch64 (Debian/Ubuntu: qemu-user)"
[ -z "${TERN_SANITIZE:-}" ] || skip "sanitizers do not run under the emulator"

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/obj" "$dir/include"

cat >"$dir/include/cblas.h" <<'END'
/* In place of OpenBLAS: enough to compile lib/gemm.c. */
enum { CblasRowMajor, CblasNoTrans, CblasTrans };
typedef int CBLAS_TRANSPOSE;
void cblas_sgemm(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
void openblas_set_num_threads(int);
int openblas_get_num_threads(void);
char *openblas_get_corename(void);
END
cat >"$dir/cblas.c" <<'END'
#include <cblas.h>
#include <stdlib.h>
void cblas_sgemm(int a, int b, int c, int d, int e, int f, float g, const float *h, int i, const float *j, int k,
                 float l, float *m, int n) {
    (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h, (void)i, (void)j, (void)k, (void)l, (void)m,
        (void)n;
    abort();
}
void openblas_set_num_threads(int n) { (void)n; }
int openblas_get_num_threads(void) { return 1; }
char *openblas_get_corename(void) { return "none"; }
END

flags="-std=c17 -O3 -fexceptions -ffp-contract=off -fno-math-errno -D_POSIX_C_SOURCE=200809L -D_XOPEN_SOURCE=700
    -I$dir/include -Ilib -Ilib/kernels -Imodels -Idata -Itests"
jobs="$dir/jobs"
# one line a file: output, source, flags of its own
for source in lib/*.c lib/layers/*.c lib/kernels/dispatch.c models/*.c data/data.c data/batch.c \
    data/augment.c data/sha256.c tests/test_bits.c "$dir/cblas.c"; do
    if grep -Eq '^#include <(jansson|zlib)\.h>|^#include "safetensors\.h"' "$source"; then continue; fi
    echo "$dir/obj/$(echo "${source#"$dir/"}" | tr / _).o $source"
done >"$jobs"
for source in lib/kernels/*.c lib/optim/*.c; do # once a level, as CMakeLists.txt does
    case $source in */dispatch.c) continue ;; esac
    for level in NEON PLAIN; do
        echo "$dir/obj/${level}_$(echo "$source" | tr / _).o $source -DTN_LEVEL_$level"
    done
done >>"$jobs"
export CROSS flags
# shellcheck disable=SC2016  # the inner shell expands them
xargs -P "$(getconf _NPROCESSORS_ONLN)" -I LINE sh -c 'set -- LINE; out=$1; shift; exec $CROSS $flags -c -o "$out" "$@"' \
    <"$jobs"

test=$dir/obj/tests_test_bits.c.o
for o in "$dir"/obj/*.o; do
    if [ "$o" != "$test" ]; then echo "$o"; fi
done | xargs "${AARCH64_AR:-aarch64-linux-gnu-ar}" rc "$dir/libtern.a"
# shellcheck disable=SC2086  # flags are words
$CROSS $flags -static -pthread -o "$dir/test_bits" "$test" "$dir/libtern.a" -lm
$qemu "$dir/test_bits" --brief
