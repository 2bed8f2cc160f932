#!/bin/sh
# Optimizers from files: the example trains, is part of the run's identity and resumes after a kill; what is not made for
# this tern is refused before anything of it runs. $1: the program. CC compiles.
set -eu
tern=$(cd "$(dirname "$1")" && pwd -P)/$(basename "$1")
root=${TERN_SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd -P)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
sanitize=${TERN_SANITIZE:+-fsanitize=$TERN_SANITIZE}

fail() {
    echo "plugin: $*" >&2
    exit 1
}

# compile SOURCE OUT [FLAG...]: a plug-in
compile() {
    source=$1 out=$2
    shift 2
    # shellcheck disable=SC2086 # none or one flag
    ${CC:-cc} -std=c17 -O2 -ffp-contract=off -Wall -Wextra -Werror -shared -fPIC $sanitize -I"$root/lib" "$@" "$source" \
        -o "$out" || fail "$source does not compile"
}

# refused TEXT OPTIMIZER: tern train ends with exit code 2 and says so
refused() {
    code=0
    "$tern" train $data --optimizer "$2" --out refused >out.txt 2>&1 || code=$?
    [ $code -eq 2 ] || fail "$2: exit code $code, not 2: $(cat out.txt)"
    grep -q "$1" out.txt || fail "$2: no '$1' in: $(cat out.txt)"
    [ ! -e ran ] || fail "$2: its constructor ran"
}

data="--data synthetic:n=400,test=50 --val-size 100 --epochs 2 --batch 32 --threads 1 --quiet"
mkdir there
compile "$root/apps/examples/plugin/signum.c" there/signum.so

# ---- It trains, and the record of the run has its full path and its hash, not its folder, in the id ---------

# shellcheck disable=SC2086
"$tern" train $data --optimizer ./there/signum.so:lr=2e-3+ema:decay=0.9 --group '*.bias=./there/signum.so:lr=1e-2' \
    --out a >out.txt || fail "does not train"
grep -q "\"optimizer\": \"$work/there/signum.so:lr=0.002,.*+ema:decay=0.9" a/config.json || fail "$(cat a/config.json)"
grep -q "\"\*.bias=$work/there/signum.so:lr=1e-2\"" a/config.json || fail "$(cat a/config.json)"
grep -q '"plugin_hash": "[0-9a-f]*"' a/config.json || fail "no hash: $(cat a/config.json)"
mkdir elsewhere
cp there/signum.so elsewhere
# shellcheck disable=SC2086
(cd elsewhere && "$tern" train $data --optimizer signum.so:lr=2e-3+ema:decay=0.9 --group '*.bias=./signum.so:lr=1e-2' \
    --out ../b >/dev/null) || fail "does not train without a slash"
[ "$(grep '"id"' a/config.json)" = "$(grep '"id"' b/config.json)" ] || fail "the id depends on the folder"
cmp a/resume.safetensors b/resume.safetensors || fail "another folder, another state"

# ---- Killed and resumed, from another folder; not with another file -----------------------------------------

# shellcheck disable=SC2086
set -- $data --optimizer ./there/signum.so:lr=2e-3+lookahead:k=3 --checkpoint-every 1
"$tern" train "$@" --out whole >/dev/null
"$tern" train "$@" --max-steps 7 --out part >/dev/null 2>&1 || true
(cd elsewhere && "$tern" train --resume ../part --quiet >/dev/null) || fail "does not resume"
cmp whole/resume.safetensors part/resume.safetensors || fail "resumed, and not the same"
"$tern" train "$@" --max-steps 7 --out part --force >/dev/null 2>&1 || true
sed 's/m\[i\] > 0 ? 1/m[i] > 0 ? 2/' "$root/apps/examples/plugin/signum.c" >changed.c
compile changed.c there/signum.so
if "$tern" train --resume part --quiet >out.txt 2>&1; then fail "resumed with another plug-in"; fi
grep -q 'loaded from a file that has changed' out.txt || fail "$(cat out.txt)"

# ---- A wrapper, and the functions of the program -------------------------------------------------------------

cat >clamp.c <<'END'
#include <tern.h>
typedef struct { double most; } options;
static const tn_opt rows[] = {TN_OPT_REAL(options, most, 0.05, 0, 10, 0, "largest weight"), TN_OPT_END};
static int check(void *hp, uint64_t given, tn_err *e) {
    (void)given;
    return ((options *)hp)->most == 7 ? tn_fail(e, "clamp: seven is %g too many", ((options *)hp)->most) : 0;
}
static void update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const tn_real most = (tn_real)((const options *)hp)->most;
    (void)k;
    for (size_t i = lo; i < hi; i++) p->w[i] = p->w[i] > most ? most : p->w[i] < -most ? -most : p->w[i];
}
static const tn_optim_def clamp = {.abi = TN_ABI, .size = sizeof(tn_optim_def), .name = "clamp", .summary = "", .source = "",
    .hp_size = sizeof(options), .hp = rows, .scope = TN_ELEMENT, .check = check, .update = update, .wraps = 1};
TN_OPTIM_PLUGIN(clamp)
END
compile clamp.c clamp.so
# shellcheck disable=SC2086
"$tern" train $data --optimizer adamw:lr=1e-2+./clamp.so:most=0.01 --model logistic --json --out clamp >out.txt ||
    fail "a wrapper from a file does not train"
awk '/"weight_norm"/ {gsub(/[^0-9.e-]/, "", $2); norm = $2} END {exit !(norm > 0 && norm <= 0.01 * sqrt(7840) + 1e-6)}' \
    out.txt || fail "weights are not clamped: $(grep weight_norm out.txt)"
refused 'clamp: seven is 7 too many' adamw+./clamp.so:most=7
refused 'clamp is a wrapper' ./clamp.so
refused 'signum is an optimizer, no wrapper' adamw+there/signum.so

sed 's/return 1;$/return 99;/' "$root/apps/examples/plugin/signum.c" >many.c
compile many.c many.so
refused 'asks for 99 slots; the most is 6' ./many.so
sed 's/(tn_slot){"m"/(tn_slot){NULL/' "$root/apps/examples/plugin/signum.c" >nameless.c
compile nameless.c nameless.so
refused 'slot 0 of .* has no name' ./nameless.so

# ---- Definitions that are none: the message names the file, the slot or option, and what is wrong ------------

# odd TEXT SED: the example with that change
odd() {
    sed "$2" "$root/apps/examples/plugin/signum.c" >odd.c
    ! cmp -s odd.c "$root/apps/examples/plugin/signum.c" || fail "nothing to change for: $2"
    compile odd.c odd.so
    refused "$1" ./odd.so
}
odd 'odd.so: optimizer signum: slot m of .*weight has 1 numbers; must be ' 's/(tn_slot){"m", [^}]*}/(tn_slot){"m", 1, 0}/'
odd 'odd.so: optimizer signum: slot 0 of .* has an empty name' 's/(tn_slot){"m"/(tn_slot){""/'
odd 'odd.so: optimizer signum: slots 0 and 1 of .* are both named m' \
    's/^\( *\)out\[0\] = \(.*\);$/\1out[0] = out[1] = \2;/; s/return 1;$/return 2;/'
odd 'odd.so: optimizer signum: unknown scope 7; must be TN_ELEMENT' 's/\.scope = TN_ELEMENT/.scope = (tn_scope)7/'
odd 'odd.so: optimizer signum: hp_size is 0 and there are options' 's/\.hp_size = sizeof([a-z_]*)/.hp_size = 0/'
odd 'odd.so: optimizer signum: option [a-z_0-9]* ends at byte [0-9]*, beyond hp_size 8' \
    's/\.hp_size = sizeof([a-z_]*)/.hp_size = 8/'
odd 'odd.so: the definition has no name' 's/\.name = "signum"/.name = ""/'
odd 'odd.so: optimizer signum: two options are named lr' 's/TN_OPT_END/TN_OPT_REAL(options, lr, 1e-3, 0, 1, 0, ""), TN_OPT_END/'

# ---- What is refused, unloaded -------------------------------------------------------------------------------

cat >bad.c <<'END'
#include <tern.h>
#include <stdio.h>
__attribute__((constructor)) static void run(void) { fclose(fopen("ran", "w")); }
#ifdef MARK
const tn_plugin_mark tn_plugin_own_mark = MARK;
#endif
END
mark() {
    echo "-DMARK={TN_PLUGIN_MAGIC,\"9.9.9\",$1,sizeof(tn_real),$2,sizeof(tn_opt_tensor),sizeof(tn_tick)}"
}
compile bad.c none.so
compile bad.c newer.so "$(mark 'TN_ABI+1' 'sizeof(tn_optim_def)')"
compile bad.c larger.so "$(mark TN_ABI 'sizeof(tn_optim_def)+8')"
compile bad.c double.so -DTN_DOUBLE "$(mark TN_ABI 'sizeof(tn_optim_def)')"
refused 'lacks the mark' ./none.so:lr=1
refused 'was compiled for tern 9.9.9, this is ' ./newer.so:lr=1
refused 'was compiled for tern 9.9.9, this is ' ./larger.so:lr=1
refused 'was compiled for double, this tern computes in float' ./double.so:lr=1
compile "$root/apps/examples/plugin/signum.c" double.so -DTN_DOUBLE
refused 'was compiled for double' ./double.so:lr=1
compile bad.c right.so "$(mark TN_ABI 'sizeof(tn_optim_def)')"
if "$tern" train --data synthetic:n=100,test=50 --val-size 0 --optimizer ./right.so --out refused >out.txt 2>&1; then
    fail "a plug-in without a definition is taken"
fi
grep -q 'cannot be loaded' out.txt || fail "$(cat out.txt)"
[ -e ran ] || fail "the constructor of the test does not work: it proves nothing"
rm ran
head -c 1000 there/signum.so >cut.so
refused 'lacks the mark' ./cut.so
: >empty.so
refused 'no shared object' ./empty.so
echo hello >text.so
refused 'no shared object' text.so
refused 'No such file' ./missing.so:lr=1
refused 'is no file' "$work/there"
mkfifo pipe.so
refused 'is no file' ./pipe.so
refused 'cannot read' "$work/there/"x.dylib
${CC:-cc} -c -I"$root/lib" bad.c -o object.so
refused 'is an object file or a program' ./object.so
refused 'lacks the mark' "$tern"
cat there/signum.so newer.so >both.so
refused 'was compiled for tern 9.9.9' ./both.so
echo 'plugin: done'
