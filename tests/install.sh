#!/bin/sh
# Installs into an empty folder, moves it, and uses it as a stranger would: find_package and pkg-config, float and
# double, shared and static; two of the examples, from the sources that are installed; and the installed program.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=${TERN_BUILD_DIR:-$root/build}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
quiet() {
    "$@" >"$work/log" 2>&1 || {
        echo "install: failed: $*" >&2
        cat "$work/log" >&2
        exit 1
    }
}

quiet "${CMAKE:-cmake}" --install "$build" --prefix "$work/first"
mv "$work/first" "$work/prefix" # nothing may depend on where it was
prefix=$work/prefix
sanitize=${TERN_SANITIZE:+-fsanitize=$TERN_SANITIZE}

for file in bin/tern include/tern.h include/tern64.h include/tern_models.h include/tern_data.h include/tern_stats.h \
    share/tern/mnist/train-images-idx3-ubyte.gz share/doc/tern/examples/mlp_mnist.c; do
    [ -f "$prefix/$file" ] || { echo "install: $file was not installed" >&2; exit 1; }
done
quiet "$prefix/bin/tern" --version
examples=$prefix/share/doc/tern/examples
mnist=$prefix/share/tern/mnist

mkdir "$work/consumer"
cat >"$work/consumer/main.c" <<'END'
/* d/dx sum(x^2) = 2 x, and a parameter or two by way of a model. */
#include <tern.h>
#include <tern_data.h>
#include <tern_models.h>
#include <tern_stats.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    tn_err e;
    tn_tape *tape = tn_tape_new(&e);
    tn_model *model = tn_model_new("mlp:hidden=4", &(tn_model_shape){1, {3}, 2}, 1, &e);
    if (!tape || !model) return fprintf(stderr, "%s\n", e.msg), 1;
    tn_t *x = tn_leaf(tape, (tn_real[]){1, 2, 3}, 1, (int[]){3}), *g;
    tn_grad(tn_sum(tn_square(x)), NULL, 1, &x, &g, 0);
    int good = g->x[0] == 2 && g->x[2] == 6 && tn_params_total(model->params) == 3 * 4 + 4 + 4 * 2 + 2
               && strcmp(tn_version(), TN_VERSION) == 0;
    tn_model_free(model);
    tn_tape_free(tape);
    printf("%s, %d bytes a number: %s\n", tn_version(), (int)sizeof(tn_real), good ? "good" : "WRONG");
    return !good;
}
END
cat >"$work/consumer/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.22)
project(consumer C)
find_package(tern 0.1 REQUIRED)
foreach(library tern tern_static tern64 tern64_static)
    add_executable(use_${library} main.c)
    target_link_libraries(use_${library} PRIVATE tern::${library})
    if(library MATCHES "64")
        target_compile_definitions(use_${library} PRIVATE TN_DOUBLE)
    endif()
endforeach()
add_executable(own_parts "${EXAMPLES}/own_parts.c")
target_link_libraries(own_parts PRIVATE tern::tern m)
END
quiet "${CMAKE:-cmake}" -S "$work/consumer" -B "$work/consumer/build" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="${CC:-cc}" \
    -DCMAKE_C_FLAGS="$sanitize" -DEXAMPLES="$examples"
quiet "${CMAKE:-cmake}" --build "$work/consumer/build"
for library in tern tern_static tern64 tern64_static; do
    quiet "$work/consumer/build/use_$library"
    echo "find_package $library: $(cat "$work/log")"
done
quiet "$work/consumer/build/own_parts" "$mnist"
echo "find_package own_parts: $(tail -n 1 "$work/log")"

if ! command -v pkg-config >/dev/null 2>&1; then
    echo "no pkg-config here: that half was not tested"
    exit 0
fi
libdir=$(dirname "$(find "$prefix" -name pkgconfig)")
export PKG_CONFIG_PATH="$libdir/pkgconfig:${PKG_CONFIG_PATH:-}" LD_LIBRARY_PATH="$libdir:${LD_LIBRARY_PATH:-}"
for library in tern tern64; do
    define=
    [ $library = tern64 ] && define=-DTN_DOUBLE
    # shellcheck disable=SC2046,SC2086
    quiet ${CC:-cc} $sanitize $define "$work/consumer/main.c" -o "$work/shared" $(pkg-config --cflags --libs $library)
    quiet "$work/shared"
    echo "pkg-config $library: $(cat "$work/log")"
    # The static library alone, with what pkg-config --static adds.
    mkdir "$work/$library"
    cp "$libdir/lib$library.a" "$work/$library"
    # shellcheck disable=SC2046,SC2086
    quiet ${CC:-cc} $sanitize $define "$work/consumer/main.c" -o "$work/static" "-L$work/$library" -Wl,-Bstatic "-l$library" \
        -Wl,-Bdynamic $(pkg-config --static --cflags --libs $library | sed "s/-l$library //")
    quiet "$work/static"
    echo "pkg-config --static $library: $(cat "$work/log")"
done
# shellcheck disable=SC2046,SC2086
quiet ${CC:-cc} $sanitize "$examples/mlp_mnist.c" -o "$work/mlp_mnist" $(pkg-config --cflags --libs tern)
quiet "$work/mlp_mnist" "$mnist"
echo "pkg-config mlp_mnist: $(tail -n 1 "$work/log")"
