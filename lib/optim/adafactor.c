/* SPDX-License-Identifier: MIT */
/*
 * Adafactor (Shazeer and Stern, arXiv:1804.04235), as torch.optim.Adafactor: the average of squared gradients of a matrix is
 * kept as its row and column means; of more dimensions the last two are the matrix, of one all elements are kept. No first
 * average.
 *
 *   b    = 1 - t^beta2_decay
 *   R    = b R + (1 - b) mean of g^2 over each row,  C likewise over each column
 *   V    = R C / max(mean R, eps1)               one dimension: V = b V + (1 - b) g^2
 *   u    = g / sqrt(max(V, eps1^2))
 *   a    = max(eps2, rms(w)) min(lr_t, 1 / sqrt(t))
 *   w    = (w - lr_t lambda w) - a / max(1, rms(u) / d) u
 */
#include "optim.h"

typedef struct {
    double lr, beta2_decay, eps1, eps2, d, weight_decay;
} adafactor_hp;

#ifdef TN_DOUBLE
#define EPSILON DBL_EPSILON
#define LEAST   DBL_MIN
#else
#define EPSILON FLT_EPSILON
#define LEAST   ((double)FLT_MIN)
#endif

static const tn_opt adafactor_opts[] = {
    TN_OPT_LR(adafactor_hp, 1e-2),
    TN_OPT_REAL(adafactor_hp, beta2_decay, -0.8, -10, 0, 0,
                "a gradient enters the averages times t to this power"),
    TN_OPT_REAL(adafactor_hp, eps1, EPSILON, 0, 1, TN_OPEN_MIN, "least root of an average of squares"),
    TN_OPT_REAL(adafactor_hp, eps2, 1e-3, 0, 1e6, 0, "least size of a tensor that its step is measured by"),
    TN_OPT_REAL(adafactor_hp, d, 1, 1, 1e6, 0, "a step of a larger root mean square is made that small"),
    TN_OPT_REAL(adafactor_hp, weight_decay, 0, 0, 1e6, 0, "lambda of the decay beside the step"),
    TN_OPT_END};

enum { ROWS, COLS, ALL = 0 };

static size_t rows_of(int nd, const int *dim) {
    return tn_elements(nd - 1, dim); /* of all matrices together */
}

static int adafactor_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    const size_t n = tn_elements(nd, dim);
    (void)hp;
    if (nd < 2) {
        out[ALL] = (tn_slot){"variance", n, 0};
        return 1;
    }
    out[ROWS] = (tn_slot){"row_var", rows_of(nd, dim), 0};
    out[COLS] = (tn_slot){"col_var", n / (size_t)dim[nd - 2], 0};
    return 2;
}

/* Sums of the columns of one matrix. */
static size_t adafactor_scratch(const void *hp, int nd, const int *dim) {
    (void)hp;
    return nd < 2 ? 0 : (size_t)dim[nd - 1] * sizeof(double);
}

static double adafactor_shrink(const void *hp, const tn_tick *k) {
    const adafactor_hp *h = hp;
    return h->lr * k->lr_mul * h->weight_decay * k->wd_mul;
}

/* As vflush: no average stays subnormal. */
static tn_real mixed(tn_real old, double now, double take) {
    const double x = (1 - take) * (double)old + take * now;
    return x < LEAST ? 0 : (tn_real)x;
}

/* Both averages of one matrix. */
static void average(const tn_real *g, size_t rows, size_t cols, double take, tn_real *row, tn_real *col,
                    double *sum) {
    memset(sum, 0, cols * sizeof *sum);
    for (size_t i = 0; i < rows; i++) {
        double lane[TN_LANES] = {0};
        size_t j = 0;
        for (; j + TN_LANES <= cols; j += TN_LANES)
            for (size_t l = 0; l < TN_LANES; l++) {
                const double square = (double)g[i * cols + j + l] * (double)g[i * cols + j + l];
                lane[l] += square, sum[j + l] += square;
            }
        for (size_t l = 0; j + l < cols; l++) {
            const double square = (double)g[i * cols + j + l] * (double)g[i * cols + j + l];
            lane[l] += square, sum[j + l] += square;
        }
        row[i] = mixed(row[i], tn_add_lanes(lane) / (double)cols, take);
    }
    for (size_t j = 0; j < cols; j++) col[j] = mixed(col[j], sum[j] / (double)rows, take);
}

/* u of n weights from i on; factor and variance: V is their product. */
static inline __attribute__((always_inline)) V direction(const tn_real *g, const tn_real *variance,
                                                         tn_real factor, tn_real least, size_t i, size_t n) {
    const V v = vset1(factor) * vget(variance + i, n);
    return vover_root(vget(g + i, n), vsqrt(vmax(vset1(least), v))); /* this way round NaN gets through */
}

TN_STEP measure(const tn_real *g, const tn_real *variance, tn_real factor, tn_real least, double *lane,
                size_t i, size_t n) {
    vadd_squares(lane, direction(g, variance, factor, least, i, n), i, n);
}

TN_STEP move(tn_real *w, const tn_real *g, const tn_real *variance, tn_real factor, tn_real least,
             tn_real rate, tn_real shrink, size_t i, size_t n) {
    const V u = direction(g, variance, factor, least, i, n);
    vput(w + i, n, vfma(vset1(-rate), u, vshrunk(vget(w + i, n), shrink)));
}

TN_STEP measure_weights(const tn_real *w, double *lane, size_t i, size_t n) {
    vadd_squares(lane, vget(w + i, n), i, n);
}

typedef struct {
    size_t matrices, rows, cols; /* one dimension: 1, 1, n */
    tn_real least, rate, shrink;
} job;

static double mean_row(const tn_real *row, size_t rows, double eps1) {
    double sum = 0;
    for (size_t i = 0; i < rows; i++) sum += (double)row[i];
    return sum / (double)rows < eps1 ? eps1 : sum / (double)rows;
}

/* Over all rows: the squares of u to lane, or, with lane NULL, the step. */
static void each_row(const job *j, const tn_opt_tensor *p, double eps1, double *lane) {
    for (size_t b = 0; b < j->matrices; b++) {
        const tn_real *row = p->nd < 2 ? NULL : p->slot[ROWS] + b * j->rows;
        const tn_real *variance = p->nd < 2 ? p->slot[ALL] : p->slot[COLS] + b * j->cols;
        const double mean = row ? mean_row(row, j->rows, eps1) : 1;
        for (size_t i = 0; i < j->rows; i++) {
            const size_t at = (b * j->rows + i) * j->cols;
            const tn_real factor = row ? (tn_real)((double)row[i] / mean) : 1;
            if (lane)
                TN_EACH_VECTOR(0, j->cols, measure, p->g + at, variance, factor, j->least, lane);
            else
                TN_EACH_VECTOR(0, j->cols, move, p->w + at, p->g + at, variance, factor, j->least, j->rate,
                               j->shrink);
        }
    }
}

static void adafactor_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const adafactor_hp *h = hp;
    const double lr = h->lr * k->lr_mul, take = tn_exact_pow((double)k->t, h->beta2_decay), n = (double)p->n;
    double lane[TN_LANES] = {0};
    job j = {.matrices = 1,
             .rows = 1,
             .cols = p->n,
             .least = (tn_real)(h->eps1 * h->eps1),
             .shrink = p->flags & TN_NO_DECAY ? 0 : (tn_real)adafactor_shrink(hp, k)};
    (void)lo, (void)hi;
    if (p->nd > 1) {
        j.rows = (size_t)p->dim[p->nd - 2], j.cols = (size_t)p->dim[p->nd - 1];
        j.matrices = p->n / (j.rows * j.cols);
        for (size_t b = 0; b < j.matrices; b++)
            average(p->g + b * j.rows * j.cols, j.rows, j.cols, take, p->slot[ROWS] + b * j.rows,
                    p->slot[COLS] + b * j.cols, p->scratch);
    } else {
        for (size_t i = 0; i < p->n; i++)
            p->slot[ALL][i] = mixed(p->slot[ALL][i], (double)p->g[i] * (double)p->g[i], take);
    }
    TN_EACH_VECTOR(0, p->n, measure_weights, p->w, lane);
    const double size = sqrt(tn_add_lanes(lane) / n);
    memset(lane, 0, sizeof lane);
    each_row(&j, p, h->eps1, lane);
    const double clip = sqrt(tn_add_lanes(lane) / n) / h->d;
    j.rate = (tn_real)((size < h->eps2 ? h->eps2 : size) * fmin(lr, 1 / sqrt((double)k->t))
                       / (clip < 1 ? 1 : clip));
    each_row(&j, p, h->eps1, NULL);
}

/* ---- tern explain: one weight, a matrix of 1 x 1 ---- */

static int has_decay(const void *hp) {
    return ((const adafactor_hp *)hp)->weight_decay != 0;
}
TN_VALUE(share) {
    return tn_exact_pow((double)k->t, ((const adafactor_hp *)hp)->beta2_decay);
}
TN_VALUE(variance) {
    const double row = (double)p->slot[ROWS][0], col = (double)p->slot[COLS][0];
    return row * col / fmax(row, ((const adafactor_hp *)hp)->eps1);
}
TN_VALUE(scaled) {
    const double eps1 = ((const adafactor_hp *)hp)->eps1;
    return (double)old->g[0] / sqrt(fmax(variance(hp, k, old, p), eps1 * eps1));
}
TN_VALUE(size_of_step) {
    const adafactor_hp *h = hp;
    return fmax(h->eps2, fabs((double)old->w[0])) * fmin(h->lr * k->lr_mul, 1 / sqrt((double)k->t));
}
TN_VALUE(adaptive_part) {
    const double u = scaled(hp, k, old, p), d = ((const adafactor_hp *)hp)->d;
    return -size_of_step(hp, k, old, p) / fmax(1, fabs(u) / d) * u;
}
TN_VALUE(decay_value) {
    return tn_shrunk_by(adafactor_shrink(hp, k), old);
}
static const tn_explain adafactor_explain[] = {
    {"1-b", "t^beta2_decay, what a gradient counts in the averages", share, 0, NULL},
    {"row_var", "b row_var + (1-b) mean of g^2 over the row", NULL, 0, NULL},
    {"col_var", "b col_var + (1-b) mean of g^2 over the column", NULL, 0, NULL},
    {"V", "row_var col_var / max(mean row_var, eps1)", variance, 0, NULL},
    {"u", "g / sqrt(max(V, eps1^2))", scaled, 0, NULL},
    {"a", "max(eps2, rms w) min(lr_t, 1 / sqrt(t))", size_of_step, 0, NULL},
    {"adaptive part", "-a / max(1, rms u / d) u", adaptive_part, 1, NULL},
    {"decay part", "-lr_t lambda w", decay_value, 1, has_decay},
    TN_EXPLAIN_END};

const tn_optim_def TN_OPTIM_DEF(adafactor) = {
    .abi = TN_ABI,
    .size = sizeof(tn_optim_def),
    .name = "adafactor",
    .summary = "squares kept as means of rows and columns: hardly any state",
    .source = "Shazeer and Stern, arXiv:1804.04235; torch.optim.Adafactor",
    .hp_size = sizeof(adafactor_hp),
    .hp = adafactor_opts,
    .scope = TN_TENSOR,
    .slots = adafactor_slots,
    .scratch = adafactor_scratch,
    .update = adafactor_update,
    .shrink = adafactor_shrink,
    .explain = adafactor_explain};
