#!/bin/sh
# tern conformance: the built-in optimizers pass; one that is wrong fails, with the mistake behind it; refusals; JSON.
set -u
tern=$(cd "$(dirname "$1")" && pwd -P)/$(basename "$1")
here=$(cd "$(dirname "$0")" && pwd -P)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
out=$work/out
failed=0

fail() {
    echo "conformance: $*" >&2
    failed=1
}

# run EXIT-CODE arguments: output to $out
run() {
    want=$1
    shift
    "$tern" conformance "$@" >"$out" 2>&1
    got=$?
    [ $got = "$want" ] || fail "$*: exit code $got instead of $want: $(tail -3 "$out")"
}
holds() {
    tr '\n' ' ' <"$out" | tr -s ' ' | grep -q -- "$1" || fail "no '$1' in: $(tail -5 "$out")"
}

run 0
holds "in float"
holds " 0 failed"
[ "$(grep -c ' ok$' "$out")" -ge 130 ] || fail "fewer than 130 cases"
for family in "$here"/golden/optim/*.json; do
    grep -q "^$(basename "$family" .json)/every_step .* ok$" "$out" || fail "$family was not judged"
done
awk 'length > 80 && !/^  \// { exit 1 }' "$out" || fail "a line is longer than 80 columns"

run 0 --optimizer adamw
holds " 0 failed"
grep -q "^adam/" "$out" && fail "--optimizer adamw: the vectors of adam"
run 1 --optimizer adaml2 --as adamw --failures
holds "decay goes through the moments"
holds " left out"
grep -q " ok$" "$out" && fail "--failures shows what passes"
run 1 --optimizer adamw --as adaml2
holds "is: decay beside the step"
run 1 --optimizer adam:eps=1e-5
holds "failures is: another default of epsilon: 1e-5"
# what no mistake makes is put down to none, though steps that are too small look alike
run 1 --optimizer adamax:eps=1e-3
grep -q "rule is ignored\|inside the root" "$out" && fail "adamax with another eps: $(cat "$out")"
holds "no known mistake makes these numbers"
run 1 --optimizer sgd --as adam
run 1 --optimizer adam:eps=1e-5 --json
grep -q '"verdict": "FAILED"' "$out" && grep -q '"mistake": "another default of epsilon: 1e-5"' "$out" || fail "no verdict in JSON"

run 2 --optimizer adamx
holds "did you mean"
run 2 --as adamq
holds "did you mean"
run 2 --vectors /nowhere
holds "no such folder"
run 2 --vectors "$here/golden/optim/cases"
holds "no files of vectors"
run 1 --vectors "$here/golden/schedules"
holds "not a file of optimizer vectors"

# What the plug-ins below share: two reals a weight.
cat >"$work/two_slots.h" <<'C'
#include <math.h>
#include <tern.h>
static int slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    size_t n = 1;
    (void)hp;
    for (int i = 0; i < nd; i++) n *= (size_t)dim[i];
    out[0] = (tn_slot){"first", n, 0}, out[1] = (tn_slot){"second", n, 0};
    return 2;
}
C

# A plug-in: adamw written plainly, right and with each of four mistakes (-DEPS_INSIDE, ...).
cat >"$work/plug.c" <<'C'
#include "two_slots.h"
typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
} options;
static const tn_opt rows[] = {TN_OPT_REAL(options, lr, 1e-3, 0, 1e6, 0, "learning rate"),
                              TN_OPT_REAL(options, beta1, 0.9, 0, 1, TN_OPEN_MAX, "of m"),
                              TN_OPT_REAL(options, beta2, 0.999, 0, 1, TN_OPEN_MAX, "of v"),
                              TN_OPT_REAL(options, eps, 1e-8, 0, 1, 0, "beside the root"),
                              TN_OPT_REAL(options, weight_decay, 1e-2, 0, 1e6, 0, "lambda"), TN_OPT_END};
static void update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const options *o = hp;
    const double lr = o->lr * k->lr_mul;
    double decay = p->flags & TN_NO_DECAY ? 0 : lr * o->weight_decay * k->wd_mul, t = (double)k->t;
#ifdef BIASES
    decay = lr * o->weight_decay * k->wd_mul;
#endif
#ifdef PER_TENSOR
    static long calls;
    if (k->t == 1 && p->index == 0) calls = 0;
    t = (double)++calls;
#endif
    for (size_t i = lo; i < hi; i++) {
        const double g = (double)p->g[i], w = (double)p->w[i];
        const double m = o->beta1 * (double)p->slot[0][i] + (1 - o->beta1) * g;
        const double v = o->beta2 * (double)p->slot[1][i] + (1 - o->beta2) * g * g;
        p->slot[0][i] = (tn_real)m, p->slot[1][i] = (tn_real)v;
        const double mh = m / (1 - pow(o->beta1, t)), vh = v / (1 - pow(o->beta2, t));
#ifdef EPS_INSIDE
        p->w[i] = (tn_real)(w - decay * w - lr * mh / sqrt(vh + o->eps));
#elif defined AFTER
        p->w[i] = (tn_real)((w - lr * mh / (sqrt(vh) + o->eps)) * (1 - decay));
#else
        p->w[i] = (tn_real)(w - decay * w - lr * mh / (sqrt(vh) + o->eps));
#endif
    }
}
static const tn_optim_def plug = {.abi = TN_ABI, .size = sizeof(tn_optim_def), .name = "plug", .summary = "", .source = "",
                                  .hp_size = sizeof(options), .hp = rows, .scope = TN_TENSOR, .slots = slots, .update = update};
TN_OPTIM_PLUGIN(plug)
C
plug() { # MISTAKE: ./MISTAKE.so
    # shellcheck disable=SC2086 # none or one flag
    ${CC:-cc} -std=c17 -O2 -shared -fPIC ${TERN_SANITIZE:+-fsanitize=$TERN_SANITIZE} -I"$here/../lib" "-D$1" "$work/plug.c" \
        -o "$work/$1.so" -lm || fail "the plug-in does not compile"
}
plug RIGHT
run 2 --optimizer "$work/RIGHT.so"
holds "no vectors for 'plug'"
run 0 --optimizer "$work/RIGHT.so" --as adamw
holds " 0 failed, .* left out"
while read -r name mistake; do
    plug "$name"
    run 1 --optimizer "$work/$name.so" --as adamw
    holds "failures is: $mistake"
done <<'END'
EPS_INSIDE epsilon inside the root
PER_TENSOR step counter advanced once a tensor
AFTER decay applied after the step
BIASES biases decayed
END

# The same for rules that are not of adam's family: lion, adamax and adadelta.
cat >"$work/rule.c" <<'C'
#include "two_slots.h"
typedef struct {
    double lr, beta1, beta2, rho, eps, weight_decay;
} options;
static const tn_opt rows[] = {TN_OPT_REAL(options, lr, LR, 0, 1e6, 0, "learning rate"),
#ifdef ADADELTA
                              TN_OPT_REAL(options, rho, 0.9, 0, 1, TN_OPEN_MAX, "of both"),
#else
                              TN_OPT_REAL(options, beta1, 0.9, 0, 1, TN_OPEN_MAX, "first"),
                              TN_OPT_REAL(options, beta2, BETA2, 0, 1, TN_OPEN_MAX, "second"),
#endif
#ifndef LION
                              TN_OPT_REAL(options, eps, EPS, 0, 1, 0, "epsilon"),
#endif
                              TN_OPT_REAL(options, weight_decay, DECAY, 0, 1e6, 0, "lambda"), TN_OPT_END};
static void update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const options *o = hp;
    const double lr = o->lr * k->lr_mul;
    double lambda = p->flags & TN_NO_DECAY ? 0 : o->weight_decay * k->wd_mul, t = (double)k->t;
#ifdef BIASES
    lambda = o->weight_decay * k->wd_mul;
#endif
#ifdef PER_TENSOR
    static long calls;
    if (k->t == 1 && p->index == 0) calls = 0;
    t = (double)++calls;
#endif
    for (size_t i = lo; i < hi; i++) {
        double g = (double)p->g[i], w = (double)p->w[i], a = (double)p->slot[0][i], b = (double)p->slot[1][i], u;
#if defined LION && !defined MOMENTS
        const double c = o->beta1 * a + (1 - o->beta1) * g;
        a = o->beta2 * a + (1 - o->beta2) * g;
        u = (c > 0) - (c < 0);
#ifdef AFTER
        p->w[i] = (tn_real)((w - lr * u) * (1 - lr * lambda));
#else
        p->w[i] = (tn_real)(w - lr * lambda * w - lr * u);
#endif
#else
        g += lambda * w;
#ifdef LION
        const double c = o->beta1 * a + (1 - o->beta1) * g;
        a = o->beta2 * a + (1 - o->beta2) * g;
        u = (c > 0) - (c < 0);
#elif defined ADAMAX
        a = o->beta1 * a + (1 - o->beta1) * g;
        b = fmax(o->beta2 * b, fabs(g) + o->eps);
#ifdef UNCORRECTED
        t = INFINITY;
#endif
        u = a / (1 - pow(o->beta1, t)) / b;
#else
        a = o->rho * a + (1 - o->rho) * g * g;
#ifdef EPS_OUTSIDE
        u = (sqrt(b) + o->eps) / (sqrt(a) + o->eps) * g;
#else
        u = sqrt(b + o->eps) / sqrt(a + o->eps) * g;
#endif
        b = o->rho * b + (1 - o->rho) * u * u;
#endif
#ifdef UPHILL
        u = -u;
#endif
        p->w[i] = (tn_real)(w - lr * u);
#endif
        p->slot[0][i] = (tn_real)a, p->slot[1][i] = (tn_real)b;
    }
    (void)t;
}
static const tn_optim_def rule = {.abi = TN_ABI, .size = sizeof(tn_optim_def), .name = "rule", .summary = "", .source = "",
                                  .hp_size = sizeof(options), .hp = rows, .scope = TN_TENSOR, .slots = slots, .update = update};
TN_OPTIM_PLUGIN(rule)
C
while read -r family name mistake; do
    case $family in
    lion) flags="-DLION -DLR=1e-4 -DBETA2=0.99 -DDECAY=1e-3" ;;
    adamax) flags="-DADAMAX -DLR=2e-3 -DBETA2=0.999 -DEPS=1e-8 -DDECAY=0" ;;
    adadelta) flags="-DADADELTA -DLR=1 -DEPS=1e-6 -DDECAY=0" ;;
    esac
    # shellcheck disable=SC2086 # several flags
    ${CC:-cc} -std=c17 -O2 -shared -fPIC ${TERN_SANITIZE:+-fsanitize=$TERN_SANITIZE} -I"$here/../lib" $flags "-D$name" \
        "$work/rule.c" -o "$work/rule.so" -lm || fail "the rule does not compile"
    if [ "$name" = RIGHT ]; then
        run 0 --optimizer "$work/rule.so" --as "$family"
        holds " 0 failed"
    else
        run 1 --optimizer "$work/rule.so" --as "$family"
        holds "failures is: $mistake"
    fi
done <<'END'
lion RIGHT
lion BIASES biases decayed
lion AFTER decay applied after the step
lion MOMENTS decay goes through the moments
adamax RIGHT
adamax PER_TENSOR step counter advanced once a tensor
adamax UNCORRECTED missing bias correction
adadelta RIGHT
adadelta EPS_OUTSIDE epsilon outside the root
adadelta UPHILL wrong sign of the step
END

# The adapter judges what it holds itself, a step without a mistake and steps with one, by the same vectors.
if command -v python3 >/dev/null 2>&1; then
    python3 - "$here/golden/optim" >"$out" 2>&1 <<'PY' || fail "adapter.py: $(tail -5 "$out")"
import io
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import adapter

def judge(bad, family):
    text = io.StringIO()
    failures = adapter.judge(lambda case, tensors: adapter.plain(case, tensors, bad), [family], out=text)
    return failures, text.getvalue()

for family in ("sgd", "adam", "adaml2", "adamw"):
    failures, text = judge(None, family)
    assert failures == 0 and " 0 failed" in text, text
for bad in adapter.MISTAKES:
    family = "sgd" if bad in ("momentum", "nesterov", "first_damped") else "adaml2" if bad == "decay_beside" else "adamw"
    failures, text = judge(bad, family)
    assert failures > 0 and text.split("failures is:\n    ")[-1].startswith(adapter.MISTAKES[bad] + "\n"), (bad, text)
PY
fi

[ $failed = 0 ] && echo "conformance: all right"
exit $failed
