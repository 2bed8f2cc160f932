/* SPDX-License-Identifier: MIT */
/*
 * An optimizer as a plug-in: Signum (Bernstein et al., ICML 2018, arXiv:1802.04434), a step of one size along the sign of
 * momentum.
 *
 *   m = beta m + (1 - beta) g
 *   w = (w - lr_t lambda w) - lr_t sign(m)
 *
 *   cc -O3 -ffp-contract=off -shared -fPIC signum.c -o signum.so $(pkg-config --cflags tern)
 *   tern train --optimizer ./signum.so:lr=1e-3,weight_decay=0.1
 */
#include <math.h>
#include <tern.h>

typedef struct {
    double lr, beta, weight_decay;
} options;

static const tn_opt rows[] = {
    TN_OPT_REAL(options, lr, 1e-3, 0, 1e6, 0, "learning rate"),
    TN_OPT_REAL(options, beta, 0.9, 0, 1, TN_OPEN_MAX, "decay of the average of gradients"),
    TN_OPT_REAL(options, weight_decay, 0, 0, 1e6, 0, "lambda of the decay beside the step"), TN_OPT_END};

static int slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    size_t n = 1;
    (void)hp;
    for (int i = 0; i < nd; i++) n *= (size_t)dim[i];
    out[0] = (tn_slot){"m", n, 0};
    return 1;
}

static double shrink(const void *hp, const tn_tick *k) {
    const options *o = hp;
    return o->lr * k->lr_mul * o->weight_decay * k->wd_mul;
}

/* One fused multiply-add after the other, rounded once each: the same bits wherever it is compiled. NaN stays NaN. */
static tn_real madd(tn_real a, tn_real b, tn_real c) {
    return sizeof(tn_real) == 4 ? (tn_real)fmaf((float)a, (float)b, (float)c) : (tn_real)fma(a, b, c);
}

static void update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const options *o = hp;
    const tn_real lr = (tn_real)(o->lr * k->lr_mul), beta = (tn_real)o->beta, take = (tn_real)(1 - o->beta);
    const tn_real decay = p->flags & TN_NO_DECAY ? 0 : (tn_real)shrink(hp, k);
    tn_real *m = p->slot[0];
    for (size_t i = lo; i < hi; i++) {
        m[i] = madd(beta, m[i], take * p->g[i]);
        const tn_real sign = m[i] > 0 ? 1 : m[i] < 0 ? -1 : m[i];
        p->w[i] = madd(-lr, sign, madd(-decay, p->w[i], p->w[i]));
    }
}

static const tn_optim_def signum = {.abi = TN_ABI,
                                    .size = sizeof(tn_optim_def),
                                    .name = "signum",
                                    .summary = "steps along the sign of momentum",
                                    .source = "Bernstein et al., ICML 2018, arXiv:1802.04434",
                                    .hp_size = sizeof(options),
                                    .hp = rows,
                                    .scope = TN_ELEMENT,
                                    .slots = slots,
                                    .update = update,
                                    .shrink = shrink};
TN_OPTIM_PLUGIN(signum)
