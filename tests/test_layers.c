/* SPDX-License-Identifier: MIT */
/*
 * The linear layer in every shape that its kernels treat apart, against loops in double; and the promise about bits:
 * the same training gives the same bits for any number of threads and on every vector level.
 */
#include "kernels.h"
#include "support.h"
#include "tern_models.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- shapes ---- */

typedef struct {
    int n, in, out, act;
    tn_real *x, *w, *b, *gy;
    double *dz;
} linear;

static double activate(int act, double z) {
    switch (act) {
    case TN_ACT_RELU:
        return z > 0 ? z : 0;
    case TN_ACT_TANH:
        return tanh(z);
    case TN_ACT_SIGMOID:
        return 1 / (1 + exp(-z));
    case TN_ACT_GELU:
        return z * 0.5 * (1 + erf(z * sqrt(0.5)));
    default:
        return z;
    }
}

static double slope(int act, double z) {
    double y = activate(act, z);
    switch (act) {
    case TN_ACT_RELU:
        return z > 0;
    case TN_ACT_TANH:
        return 1 - y * y;
    case TN_ACT_SIGMOID:
        return y * (1 - y);
    case TN_ACT_GELU:
        return 0.5 * (1 + erf(z * sqrt(0.5))) + z * exp(-z * z / 2) / sqrt(6.283185307179586);
    default:
        return 1;
    }
}

static tn_real *draw(uint64_t seed, double scale, size_t n) {
    double *u = malloc(n * sizeof *u);
    tn_real *x = malloc(n * sizeof *x);
    golden_uniform(seed, scale, n, u);
    for (size_t i = 0; i < n; i++) x[i] = (tn_real)u[i];
    free(u);
    return x;
}

static void near(const linear *l, const char *what, const tn_real *got, int i, double want, double size) {
    double tol = (sizeof(tn_real) == 8 ? 1e-14 : 3e-7) * (size + 1);
    if (fabs((double)got[i] - want) <= tol) return;
    fail_msg("(%d, %d) -> %d, activation %d: %s[%d] is %.9g, not %.9g", l->n, l->in, l->out, l->act, what, i,
             (double)got[i], want);
}

/* Element (i, j) of a sum of k products a[i * ai + p * ap] b[j * bj + p * bp], with the sum of their magnitudes. */
static double dot(int k, const double *a, const tn_real *b, ptrdiff_t ap, ptrdiff_t bp, double *size) {
    double sum = 0;
    *size = 0;
    for (int p = 0; p < k; p++) {
        double v = a[p * ap] * (double)b[p * bp];
        sum += v, *size += fabs(v);
    }
    return sum;
}

static void check_forward(linear *l, const tn_t *y) {
    double *row = malloc((size_t)l->in * sizeof *row), size;
    for (int r = 0; r < l->n; r++) {
        for (int k = 0; k < l->in; k++) row[k] = (double)l->x[r * l->in + k];
        for (int o = 0; o < l->out; o++) {
            double z =
                dot(l->in, row, l->w + (ptrdiff_t)o * l->in, 1, 1, &size) + (l->b ? (double)l->b[o] : 0);
            int at = r * l->out + o;
            near(l, "y", y->x, at, activate(l->act, z), size);
            /* where rounding decides on which side of 0 z is, the library's choice holds */
            double at_kink = l->act == TN_ACT_RELU ? (y->x[at] > 0) : slope(l->act, z);
            l->dz[at] = (double)l->gy[at] * at_kink;
        }
    }
    free(row);
}

static void check_gradients(const linear *l, tn_t *const g[]) {
    double size;
    for (int r = 0; r < l->n; r++)
        for (int k = 0; k < l->in; k++) {
            double want = dot(l->out, l->dz + r * l->out, l->w + k, 1, l->in, &size);
            near(l, "dx", g[0]->x, r * l->in + k, want, size * (l->act ? 10 : 1));
        }
    for (int o = 0; o < l->out; o++) {
        double sum = 0, total = 0;
        for (int k = 0; k < l->in; k++) {
            double want = dot(l->n, l->dz + o, l->x + k, l->out, l->in, &size);
            near(l, "dw", g[1]->x, o * l->in + k, want, size * (l->act ? 10 : 1));
        }
        for (int r = 0; r < l->n; r++) sum += l->dz[r * l->out + o], total += fabs(l->dz[r * l->out + o]);
        if (l->b) near(l, "db", g[2]->x, o, sum, total * (l->act ? 10 : 1));
    }
}

static void check_linear(tn_tape *t, int n, int in, int out, int act, int bias) {
    linear l = {n,
                in,
                out,
                act,
                draw(1, 1, (size_t)n * (size_t)in),
                draw(2, 2 / sqrt(in), (size_t)in * (size_t)out),
                bias ? draw(3, 1, (size_t)out) : NULL,
                draw(4, 1, (size_t)n * (size_t)out),
                malloc((size_t)n * (size_t)out * sizeof(double))};
    tn_tape_reset(t);
    tn_t *x[] = {tn_leaf(t, l.x, 2, (int[]){n, in}), tn_leaf(t, l.w, 2, (int[]){out, in}), NULL}, *g[3];
    if (bias) x[2] = tn_leaf(t, l.b, 1, &out);
    tn_t *y = tn_linear_act(x[0], x[1], x[2], (tn_act)act);
    check_forward(&l, y);
    tn_grad(y, tn_input(t, l.gy, 2, (int[]){n, out}), 2 + bias, x, g, 0);
    check_gradients(&l, g);
    free(l.x), free(l.w), free(l.b), free(l.gy), free(l.dz);
}

static void shapes(void **state) {
    (void)state;
    static const int ns[] = {1, 2, 3, 7, 8, 17, 33, 100}, ins[] = {1, 2, 5, 16, 33, 257},
                     outs[] = {1, 2, 10, 16, 31, 33, 257};
    tn_tape *t = tn_tape_new(NULL);
    int k = 0;
    for (int a = 0; a < 8; a++)
        for (int b = 0; b < 6; b++)
            for (int c = 0; c < 7; c++, k++) check_linear(t, ns[a], ins[b], outs[c], k % 5, k % 3 > 0);
    check_linear(t, 128, 300, 200, TN_ACT_RELU, 1); /* cut into several chunks of work */
    check_linear(t, 130, 257, 65, TN_ACT_TANH, 1);
    tn_tape_free(t);
}

/* A parameter's packed form follows its weights; a tensor that is no parameter gives the same bits. */
static void packed_forms(void **state) {
    (void)state;
    enum { N = 9, IN = 37, OUT = 21 };
    tn_tape *t = tn_tape_new(NULL);
    tn_params *s = tn_params_new();
    tn_linear l = tn_linear_new(s, "fc", IN, OUT, 1);
    assert_int_equal(tn_params_seal(s, 1, NULL), 0);
    tn_real *x = draw(1, 1, N * IN);
    for (int round = 0; round < 3; round++) {
        tn_tape_reset(t);
        tn_t *in = tn_leaf(t, x, 2, (int[]){N, IN}), *w = tn_leaf(t, l.weight->w, 2, l.weight->dim), *g, *h;
        tn_t *y = tn_linear_fwd(&l, in, TN_ACT_NONE),
             *z = tn_linear_act(in, w, tn_use(t, l.bias), TN_ACT_NONE);
        assert_true(same_bits(y->x, z->x, y->len));
        tn_grad(y, NULL, 1, &in, &g, 0), tn_grad(z, NULL, 1, &in, &h, 0);
        assert_true(same_bits(g->x, h->x, g->len));
        for (size_t i = 0; i < l.weight->len; i++) l.weight->w[i] *= (tn_real)-1.5;
        tn_params_touch(s);
    }
    free(x);
    tn_params_free(s);
    tn_tape_free(t);
}

/* Which factor is packed forward depends on the number of threads, see better_turned() in fused_linear.c: no bit may. */
static void either_way_round(void **state) {
    (void)state;
    static const int shape[][3] = {
        {40, 37, 21}, {16, 300, 257}, {33, 450, 132}, {331, 33, 30}, {64, 64, 257}};
    tn_tape *t = tn_tape_new(NULL);
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        const int n = shape[i][0], in = shape[i][1], out = shape[i][2];
        tn_real *x = draw(1, 1, (size_t)(n * in)), *w = draw(2, 1, (size_t)(in * out)),
                *b = draw(3, 1, (size_t)out);
        for (int relu = 0; relu < 2; relu++) {
            tn_act act = relu ? TN_ACT_RELU : TN_ACT_NONE;
            tn_tape_reset(t);
            tn_t *src[] = {tn_leaf(t, x, 2, (int[]){n, in}), tn_leaf(t, w, 2, (int[]){out, in}),
                           relu ? tn_leaf(t, b, 1, &out) : NULL};
            tn_set_threads(1);
            tn_t *one = tn_linear_act(src[0], src[1], src[2], act);
            for (int threads = 2; threads <= 4; threads++) {
                tn_set_threads(threads);
                tn_t *more = tn_linear_act(src[0], src[1], src[2], act);
                if (!same_bits(one->x, more->x, one->len))
                    fail_msg("%d %d %d: %d threads", n, in, out, threads);
            }
        }
        free(x), free(w), free(b);
    }
    tn_set_threads(0);
    tn_tape_free(t);
}

/* Small layers, whose passes are cut by threads: all gradients have the bits of one thread. */
static void small_back(void **state) {
    (void)state;
    static const int shape[][3] = {{128, 400, 120}, {32, 400, 120}, {67, 120, 84},
                                   {329, 84, 10},   {16, 513, 61},  {265, 40, 27},
                                   {170, 30, 57},   {1100, 250, 1}, {128, 128, 10} /* one thread */};
    tn_tape *t = tn_tape_new(NULL);
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        for (int act = TN_ACT_NONE; act <= TN_ACT_RELU; act++) {
            const int n = shape[i][0], in = shape[i][1], out = shape[i][2];
            tn_real *x = draw(1, 1, (size_t)(n * in)), *w = draw(2, 1, (size_t)(in * out)),
                    *b = draw(3, 1, (size_t)out), *g = draw(4, 1, (size_t)(n * out));
            tn_tape_reset(t);
            tn_t *src[] = {tn_leaf(t, x, 2, (int[]){n, in}), tn_leaf(t, w, 2, (int[]){out, in}),
                           tn_leaf(t, b, 1, &out)},
                 *gy = tn_input(t, g, 2, (int[]){n, out}), *one[3], *more[3];
            for (int threads = 1; threads <= 5; threads++) {
                tn_set_threads(threads);
                tn_t *y = tn_linear_act(src[0], src[1], src[2], (tn_act)act);
                tn_grad(y, gy, 3, src, threads == 1 ? one : more, 0);
                for (int k = 0; k < 3 && threads > 1; k++)
                    if (!same_bits(one[k]->x, more[k]->x, one[k]->len))
                        fail_msg("%d %d %d: gradient %d, %d threads", n, in, out, k, threads);
            }
            free(x), free(w), free(b), free(g);
        }
    tn_set_threads(0);
    tn_tape_free(t);
}

/* Both gradients of x x' go to one buffer: by 4 threads the bits of one, near the gradient of the primitives. */
static void of_itself(void **state) {
    (void)state;
    enum { N = 192, TIMES = 40 };
    tn_tape *t = tn_tape_new(NULL);
    tn_real *xs = draw(4, 1, N * N);
    tn_t *x = tn_leaf(t, xs, 2, (int[]){N, N}), *one, *more, *graph;
    tn_set_threads(1);
    tn_t *y = tn_linear_act(x, x, NULL, TN_ACT_RELU);
    tn_grad(y, NULL, 1, &x, &one, 0);
    tn_grad(y, NULL, 1, &x, &graph, 1);
    for (size_t i = 0; i < one->len; i++)
        assert_true(fabs((double)(one->x[i] - graph->x[i])) <= 1e-3 * (1 + fabs((double)graph->x[i])));
    tn_set_threads(4);
    for (int k = 0; k < TIMES; k++) {
        tn_grad(y, NULL, 1, &x, &more, 0);
        if (!same_bits(one->x, more->x, one->len)) fail_msg("4 threads, time %d", k);
    }
    tn_set_threads(0);
    tn_tape_free(t);
    free(xs);
}

/* ---- bits: float alone; the double build's products are OpenBLAS's, which promises nothing ---- */

#ifndef TN_DOUBLE
typedef struct {
    uint64_t digest[8];
} bits; /* one a model */
static const char *const models[] = {"mlp:hidden=160/96", "mlp:hidden=96,activation=gelu,layer_norm=on",
                                     "mlp:hidden=70,activation=tanh,dropout=0.3",
                                     "mlp:hidden=65/33,activation=sigmoid", "logistic"};
enum { MODELS = sizeof models / sizeof *models, BATCH = 96, PIXELS = 210, SETTINGS = 8 };

typedef struct {
    tn_model *model;
    tn_real *image;
    int label[BATCH];
} sample;

static tn_t *sample_loss(void *arg, tn_tape *t, int micro, double *weight) {
    sample *s = arg;
    int n = BATCH / 2, lo = micro * n;
    *weight = n;
    tn_t *x = tn_input(t, s->image + lo * PIXELS, 3, (int[]){n, 14, 15});
    return tn_cross_entropy(tn_forward(s->model, x), s->label + lo, &(tn_ce_options){.label_smoothing = 0.1});
}

static uint64_t train(const char *spec) {
    sample s = {.image = draw(5, 1, BATCH * PIXELS)};
    tn_tape *t = tn_tape_new(NULL);
    s.model = tn_model_new(spec, &(tn_model_shape){2, {14, 15}, 10}, 4, NULL);
    tn_optim *optim = tn_optim_new(s.model->params, "adamw:lr=0.01,weight_decay=0.1", NULL);
    tn_stepper *stepper = tn_stepper_new(s.model->params, optim, &(tn_step_options){2, 1, 0}, NULL);
    uint64_t hash = 1469598103934665603u;
    for (int i = 0; i < BATCH; i++) s.label[i] = i * 7 % 10;
    for (int i = 1; i <= 3; i++) {
        tn_tick tick = tn_tick_at(i, 3, NULL, NULL);
        tn_step_result r;
        tick.seed = 3;
        if (tn_stepper_run(stepper, t, sample_loss, &s, &tick, &r)) hash = 0;
        for (size_t k = 0; k < sizeof r.loss; k++)
            hash = (hash ^ ((unsigned char *)&r.loss)[k]) * 1099511628211u;
    }
    size_t len;
    const unsigned char *w = (const unsigned char *)tn_params_flat(s.model->params, &len);
    for (size_t k = 0; k < len * sizeof(tn_real); k++) hash = (hash ^ w[k]) * 1099511628211u;
    tn_stepper_free(stepper), tn_optim_free(optim), tn_model_free(s.model), tn_tape_free(t);
    free(s.image);
    return hash;
}

static struct {
    const char *level;
    int threads;
    bits got;
    int there;
} setting[SETTINGS];
static int settings;

/* In a process of its own, before this one has chosen its level. */
static void measure(const char *level, int threads) {
    int fd[2], status;
    bits b = {{0}};
    setting[settings].level = level, setting[settings].threads = threads;
    if (pipe(fd)) abort();
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        tn_err e;
        setenv("TERN_SIMD", level, 1);
        if (!tn_simd(&e) || tn_gemm_backend("own", &e)) _exit(3); /* this machine lacks the level */
        tn_set_threads(threads);
        for (int i = 0; i < MODELS; i++) b.digest[i] = train(models[i]);
        _exit(write(fd[1], &b, sizeof b) == sizeof b ? 0 : 1);
    }
    close(fd[1]);
    setting[settings].there = read(fd[0], &setting[settings].got, sizeof b) == sizeof b;
    close(fd[0]);
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 3) return;
    settings++;
}

static void measure_all(void) {
    static const char *const levels[] = {"avx2", "avx512", "neon"};
    measure("plain", 1), measure("plain", 4);
    for (int i = 0; i < 3; i++)
        for (int threads = 1; threads <= 4 && settings < SETTINGS; threads *= 2) measure(levels[i], threads);
}

static void same_bits_everywhere(void **state) {
    (void)state;
    assert_true(settings >= 2);
    for (int s = 0; s < settings; s++) {
        print_message("%s, %d threads: %016llx\n", setting[s].level, setting[s].threads,
                      (unsigned long long)setting[s].got.digest[0]);
        assert_true(setting[s].there);
        for (int m = 0; m < MODELS; m++)
            if (setting[s].got.digest[m] != setting[0].got.digest[m] || !setting[s].got.digest[m])
                fail_msg("%s: other bits with %s, %d threads", models[m], setting[s].level,
                         setting[s].threads);
    }
    for (int m = 1; m < MODELS; m++) assert_true(setting[0].got.digest[m] != setting[0].got.digest[0]);
}
#endif

int main(void) {
#ifndef TN_DOUBLE
    measure_all();
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes),
        cmocka_unit_test(packed_forms),
        cmocka_unit_test(either_way_round),
        cmocka_unit_test(small_back),
        cmocka_unit_test(of_itself),
#ifndef TN_DOUBLE
        cmocka_unit_test(same_bits_everywhere),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
