/* SPDX-License-Identifier: MIT */
/* The tape: memory, marks, leaves and bindings, gradients in all their forms, and what happens when memory is short. */
#include "catch.h"
#include "tape.h"
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
    tn_tape *tape;
    tn_params *params;
    tn_linear fc1, fc2;
} net;

enum { ROWS = 5, IN = 6, HIDDEN = 7, OUT = 3 };
static const int label[ROWS] = {0, 2, 1, 1, 0};

static net net_new(void) {
    net m = {tn_tape_new(NULL), tn_params_new(), {0}, {0}};
    assert_true(m.tape && m.params);
    m.fc1 = tn_linear_new(m.params, "fc1", IN, HIDDEN, 1);
    m.fc2 = tn_linear_new(m.params, "fc2", HIDDEN, OUT, 1);
    assert_int_equal(tn_params_seal(m.params, 7, NULL), 0);
    return m;
}

static void net_free(net *m) {
    tn_params_free(m->params);
    tn_tape_free(m->tape);
}

static tn_t *pixels(tn_tape *t) {
    tn_t *x = tn_full(t, 0, 2, (int[]){ROWS, IN});
    for (int i = 0; i < ROWS * IN; i++) x->x[i] = (tn_real)((i * 7 % 11) / 11.0 - 0.4);
    return x;
}

static tn_t *net_loss(const net *m) {
    tn_t *h = tn_linear_fwd(&m->fc1, pixels(m->tape), TN_ACT_TANH);
    return tn_cross_entropy(tn_linear_fwd(&m->fc2, h, TN_ACT_NONE), label, NULL);
}

static tn_t *vector(tn_tape *t, int n, const double *v) {
    tn_t *x = tn_leaf(t, (tn_real[64]){0}, 1, &n);
    for (int i = 0; i < n; i++) x->x[i] = (tn_real)v[i];
    return x;
}

static void near_all(const tn_real *got, const double *want, int n) {
    for (int i = 0; i < n; i++) assert_near((double)got[i], want[i], sizeof(tn_real) == 8 ? 1e-13 : 1e-5);
}

/* ---- memory ---- */

static void warm_steps_allocate_nothing(void **state) {
    (void)state;
    net m = net_new();
    long warm = 0;
    size_t bytes = 0;
    for (int step = 0; step < 20; step++) {
        tn_tape_reset(m.tape);
        tn_t *loss = net_loss(&m), *g[4], *w[4];
        tn_backward(loss, m.params, 0);
        for (int i = 0; i < 4; i++) w[i] = tn_use(m.tape, tn_params_at(m.params, i));
        tn_grad(loss, NULL, 4, w, g, 1);
        tn_t *sum = tn_sum(tn_square(g[0]));
        for (int i = 1; i < 4; i++) sum = tn_add(sum, tn_sum(tn_square(g[i])));
        tn_backward(sum, m.params, TN_ACCUMULATE);
        for (int i = 0; i < 50; i++) tn_full(m.tape, i, 1, (int[]){10000}); /* more than one block */
        if (step == 2) warm = tn_tape_allocations(m.tape), bytes = tn_tape_bytes(m.tape);
        if (step > 2) assert_int_equal(tn_tape_allocations(m.tape), warm);
        if (step > 2) assert_int_equal(tn_tape_bytes(m.tape), bytes);
    }
    assert_true(warm > 0 && bytes > 50 * 10000 * sizeof(tn_real));
    net_free(&m);
}

static void marks(void **state) {
    (void)state;
    tn_tape *t = tn_tape_new(NULL);
    tn_t *x = vector(t, 3, (double[]){1, 2, 3}), *g;
    tn_place outer = tn_mark(t);
    const tn_real *first = tn_square(x)->x;
    tn_rewind(t, outer);
    assert_ptr_equal(tn_scale(x, 5)->x - first, 0); /* the same memory again */
    tn_rewind(t, outer);
    for (int i = 0; i < 200; i++) { /* an inner loop that outgrows the block */
        tn_place inner = tn_mark(t);
        tn_t *y = tn_square(x);
        for (int k = 0; k < 30; k++) y = tn_add(y, tn_full(t, 1, 1, (int[]){3}));
        tn_grad(y, NULL, 1, &x, &g, 0);
        near_all(g->x, (double[]){2, 4, 6}, 3);
        tn_full(t, 0, 2, (int[]){100, 300});
        tn_rewind(t, inner);
        assert_null(tn_tape_at(t, inner.node));
    }
    assert_ptr_equal(tn_tape_at(t, 0), x);
    near_all(x->x, (double[]){1, 2, 3}, 3);
    tn_place later = (tn_square(x), tn_mark(t));
    tn_rewind(t, outer);
    assert_panics(t, tn_rewind(t, later), "tn_rewind", "newer", "");
    tn_tape_free(t);
}

static void gradients_do_not_outlive_a_pool(void **state) {
    (void)state;
    tn_tape *t = tn_tape_new(NULL);
    for (int n = 1; n < 300; n += 7) { /* all size classes that small tensors meet */
        tn_tape_reset(t);
        tn_t *leaf = tn_leaf(t, tn_full(t, 0.5, 1, &n)->x, 1, &n), *y = leaf, *g;
        for (int k = 0; k < 6; k++) y = tn_add(tn_mul(y, leaf), leaf);
        tn_grad(y, NULL, 1, &leaf, &g, 0);
        /* y0 = x, y' = y x + x: the sum of x^i for i = 1 ... 7 */
        double want = 0;
        for (int i = 1; i <= 7; i++) want += i * pow(0.5, i - 1);
        for (int i = 0; i < n; i++) assert_near((double)g->x[i], want, 1e-6);
    }
    tn_tape_free(t);
}

/* ---- gradients ---- */

static void intermediate_and_repeated(void **state) {
    (void)state;
    tn_tape *t = tn_tape_new(NULL);
    for (int graph = 0; graph < 2; graph++) {
        tn_tape_reset(t);
        tn_t *x = vector(t, 2, (double[]){2, 3}), *h = tn_square(x), *y = tn_mul(h, x),
             *other = vector(t, 2, (double[]){1, 1});
        tn_t *wrt[] = {x, h, y, h, other, x}, *g[6];
        tn_grad(y, NULL, 6, wrt, g, graph);
        near_all(g[0]->x, (double[]){12, 27}, 2); /* 3 x^2 */
        near_all(g[1]->x, (double[]){2, 3}, 2);   /* x */
        near_all(g[2]->x, (double[]){1, 1}, 2);
        near_all(g[3]->x, (double[]){2, 3}, 2);
        near_all(g[4]->x, (double[]){0, 0}, 2);
        near_all(g[5]->x, (double[]){12, 27}, 2);
        assert_int_equal(g[0]->needs, graph);
        tn_grad(y, tn_input(t, (tn_real[]){10, -1}, 1, (int[]){2}), 1, wrt, g, graph);
        near_all(g[0]->x, (double[]){120, -27}, 2);
        tn_grad(h, NULL, 1, &y, g, graph); /* y comes after h */
        near_all(g[0]->x, (double[]){0, 0}, 2);
        tn_grad(y, NULL, 0, NULL, NULL, graph);
    }
    tn_t *x = vector(t, 2, (double[]){2, 3}), *y = tn_square(x), *in = tn_input(t, x->x, 1, (int[]){2}), *g;
    tn_t *stopped = tn_mul(tn_stop(y), x);
    tn_grad(stopped, NULL, 1, &x, &g, 0);
    near_all(g->x, (double[]){4, 9}, 2);
    tn_grad(tn_square(y), NULL, 1, &x, &g, 1);
    tn_grad(g, NULL, 1, &x, &g, 1);
    tn_grad(g, NULL, 1, &x, &g, 1);
    near_all(g->x, (double[]){48, 72}, 2); /* third derivative of x^4 */
    assert_panics(t, tn_grad(y, NULL, 1, &in, &g, 0), "tn_grad", "needs no gradient", "");
    x = vector(t, 2, (double[]){2, 3}), y = tn_square(x);
    assert_panics(t, tn_grad(y, tn_const(t, 1), 1, &x, &g, 0), "tn_grad", "gy", "");
    x = vector(t, 2, (double[]){2, 3}), y = tn_square(x), tn_record(t, 0);
    assert_panics(t, tn_grad(y, NULL, 1, &x, &g, 1), "create_graph", "recording", "");
    assert_int_equal(tn_record(t, 1), 0);
    tn_tape_free(t);
}

static void fused_with_one_tensor_twice(void **state) {
    (void)state;
    tn_tape *t = tn_tape_new(NULL);
    const double v[] = {0.5, -1, 2, 0.25, 1, -0.75, 1.5, 0.1, -0.3};
    double want[9];
    for (int act = TN_ACT_NONE; act <= TN_ACT_GELU; act++)
        for (int graph = 0; graph < 2; graph++) {
            tn_tape_reset(t);
            tn_t *x = tn_reshape(vector(t, 9, v), 2, (int[]){3, 3}), *g, *q;
            x = tn_leaf(t, x->x, 2, (int[]){3, 3});
            tn_t *y = tn_matmul(x, x, 0, 1);
            y = act == TN_ACT_RELU      ? tn_relu(y)
                : act == TN_ACT_TANH    ? tn_tanh(y)
                : act == TN_ACT_SIGMOID ? tn_sigmoid(y)
                : act == TN_ACT_GELU    ? tn_gelu(y)
                                        : y;
            tn_grad(tn_square(y), NULL, 1, &x, &g, 1), tn_grad(tn_square(g), NULL, 1, &x, &q, 0);
            for (int i = 0; i < 9; i++) want[i] = (double)g->x[i];
            tn_t *fused = tn_linear_act(x, x, NULL, (tn_act)act);
            double second[9];
            for (int i = 0; i < 9; i++) second[i] = (double)q->x[i];
            tn_grad(tn_square(fused), NULL, 1, &x, &g, graph);
            for (int i = 0; i < 9; i++)
                assert_true(fabs((double)g->x[i] - want[i]) < 1e-5 * (1 + fabs(want[i])));
            if (!graph) continue;
            tn_grad(tn_square(g), NULL, 1, &x, &q, 0);
            for (int i = 0; i < 9; i++)
                assert_true(fabs((double)q->x[i] - second[i]) < 1e-4 * (1 + fabs(second[i])));
        }
    tn_tape_free(t);
}

/* A bwd may write its sources in any order: 2 a + 3 b, the last one first. */
static void backwards_bwd(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    for (int s = 1; s >= 0; s--)
        for (size_t i = 0; (need >> s & 1) && i < y->len; i++)
            gx[s][i] = (tn_real)(2 + s) * gy[i] + (add >> s & 1 ? gx[s][i] : 0);
}
static tn_t *backwards_expand(tn_t *y) {
    tn_t *a = tn_scale(y->src[0], 2);
    return tn_add(a, tn_scale(y->src[1], 3));
}
static const tn_op backwards = {.name = "backwards", .expand = backwards_expand, .bwd = backwards_bwd};

static void fused_writes_in_any_order(void **state) {
    (void)state;
    tn_tape *t = tn_tape_new(NULL);
    tn_t *x = vector(t, 2, (double[]){1, -1}), *y = tn_new(t, 1, (int[]){2}), *g;
    for (int i = 0; i < 2; i++) y->x[i] = 5 * x->x[i];
    tn_result(&backwards, y, 2, (tn_t *[]){x, x}, NULL, 0);
    for (int graph = 0; graph < 2; graph++) {
        tn_grad(y, NULL, 1, &x, &g, graph);
        near_all(g->x, (double[]){5, 5}, 2);
        tn_grad(tn_add(y, tn_scale(x, 7)), NULL, 1, &x, &g, graph);
        near_all(g->x, (double[]){12, 12}, 2);
    }
    tn_tape_free(t);
}

static void sweep_adds(void **state) {
    (void)state;
    tn_tape *t = tn_tape_new(NULL);
    tn_t *x = vector(t, 2, (double[]){2, 3}), *z = vector(t, 2, (double[]){5, 5}),
         *y = tn_mul(tn_square(x), x);
    tn_real into[2] = {100, 200}, untouched[2] = {7, 8};
    tn_target target[] = {{x, into, 1, 0}, {z, untouched, 1, 0}};
    int places = tn_mark(t).node;
    tn_sweep(y, NULL, 2, target);
    near_all(into, (double[]){112, 227}, 2);
    near_all(untouched, (double[]){7, 8}, 2);
    target[0].add = 0, target[1].add = 0;
    tn_sweep(y, (tn_real[]){2, 1}, 2, target);
    near_all(into, (double[]){24, 27}, 2);
    near_all(untouched, (double[]){7, 8}, 2);
    assert_int_equal(target[0].reached, 1);
    assert_int_equal(target[1].reached, 0);
    assert_int_equal(tn_mark(t).node, places);
    tn_tape_free(t);
}

/* ---- parameters on a tape ---- */

static void two_losses_and_tying(void **state) {
    (void)state;
    net m = net_new();
    size_t len;
    tn_real *g = tn_params_flat_grad(m.params, &len), *a = calloc(len, sizeof *a),
            *b = calloc(len, sizeof *b);
    tn_t *loss = net_loss(&m), *penalty = tn_l2_penalty(m.tape, m.params, 0.1);
    double value = tn_backward(loss, m.params, 0);
    assert_near(value, tn_value(loss), 0);
    memcpy(a, g, len * sizeof *g);
    tn_backward(penalty, m.params, 0);
    memcpy(b, g, len * sizeof *g);
    for (size_t i = 0; i < m.fc1.weight->len; i++)
        assert_near((double)m.fc1.weight->g[i], 0.1 * (double)m.fc1.weight->w[i], 1e-6);
    for (size_t i = 0; i < m.fc1.bias->len; i++)
        assert_true(m.fc1.bias->g[i] == 0); /* zeros where nothing leads */
    tn_backward(loss, m.params, TN_ACCUMULATE);
    for (size_t i = 0; i < len; i++) assert_true(fabs((double)(g[i] - a[i] - b[i])) < 1e-6);
    tn_backward(tn_add(loss, penalty), m.params, 0);
    for (size_t i = 0; i < len; i++) assert_true(fabs((double)(g[i] - a[i] - b[i])) < 1e-6);
    /* tied: one leaf, and the gradient of w in w + 2 w is 3 */
    tn_t *w = tn_use(m.tape, m.fc1.weight);
    assert_ptr_equal(w, tn_use(m.tape, m.fc1.weight));
    tn_backward(tn_sum(tn_add(w, tn_scale(tn_use(m.tape, m.fc1.weight), 2))), m.params, 0);
    for (size_t i = 0; i < m.fc1.weight->len; i++) assert_true(m.fc1.weight->g[i] == 3);
    free(a), free(b);
    net_free(&m);
}

static void bindings(void **state) {
    (void)state;
    net m = net_new();
    tn_param *p = m.fc1.bias;
    tn_t *leaf = tn_use(m.tape, p), *fast = tn_scale(leaf, 2);
    assert_null(tn_bind(m.tape, p, fast));
    assert_ptr_equal(tn_use(m.tape, p), fast);
    tn_place place = tn_mark(m.tape);
    tn_t *faster = tn_scale(fast, 3);
    assert_ptr_equal(tn_bind(m.tape, p, faster), fast);
    tn_backward(tn_sum(tn_use(m.tape, p)), m.params, 0); /* the leaf behind both */
    for (size_t i = 0; i < p->len; i++) assert_true(p->g[i] == 6);
    tn_rewind(m.tape, place); /* a binding to what is gone is gone */
    assert_ptr_equal(tn_use(m.tape, p), leaf);
    assert_null(tn_bind(m.tape, p, fast));
    place = tn_mark(m.tape);
    tn_scale(fast, 3);
    tn_rewind(m.tape, place); /* one to what stays, stays */
    assert_ptr_equal(tn_use(m.tape, p), fast);
    assert_ptr_equal(tn_bind(m.tape, p, NULL), fast);
    assert_ptr_equal(tn_use(m.tape, p), leaf);
    tn_bind(m.tape, p, fast);
    tn_tape_reset(m.tape);
    assert_ptr_equal(tn_use(m.tape, p)->param, p);
    tn_place start = tn_mark(m.tape); /* a leaf that was rewound is made anew */
    tn_use(m.tape, m.fc2.bias);
    tn_rewind(m.tape, start);
    tn_full(m.tape, 1, 1, (int[]){OUT});
    leaf = tn_use(m.tape, m.fc2.bias);
    assert_ptr_equal(leaf->param, m.fc2.bias);
    assert_ptr_equal(leaf->x, m.fc2.bias->w);
    tn_rewind(m.tape, start);
    tn_use(m.tape, m.fc2.bias);
    tn_rewind(m.tape, start); /* another tensor in the leaf's place is not the parameter */
    tn_t *stranger = tn_leaf(m.tape, (tn_real[OUT]){1, 2, 3}, 1, (int[]){OUT});
    m.fc2.bias->g[0] = 5;
    tn_backward(tn_sum(stranger), m.params, TN_ACCUMULATE);
    assert_true(m.fc2.bias->g[0] == 5);
    tn_tape *other = tn_tape_new(NULL);
    assert_panics(m.tape, tn_bind(m.tape, p, tn_const(m.tape, 1)), "tn_bind", "fc1.bias", "shape");
    assert_panics(m.tape, tn_bind(m.tape, p, tn_full(other, 1, 1, (int[]){HIDDEN})), "tn_bind", "fc1.bias",
                  "tape");
    tn_tape_free(other);
    net_free(&m);
}

static void many_leaves(void **state) {
    (void)state;
    enum { N = 500 };
    tn_tape *t = tn_tape_new(NULL);
    tn_params *s = tn_params_new();
    char name[16];
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "p%d", i);
        tn_param_add(s, NULL, name, 0, tn_init_const(i), 0, NULL);
    }
    assert_int_equal(tn_params_seal(s, 1, NULL), 0);
    for (int round = 0; round < 3; round++) {
        tn_t *sum = tn_const(t, 0), *leaf[N];
        for (int i = 0; i < N; i++) {
            leaf[i] = tn_use(t, tn_params_at(s, i));
            sum = tn_add(sum, tn_scale(leaf[i], i));
        }
        for (int i = 0; i < N; i++) assert_ptr_equal(tn_use(t, tn_params_at(s, i)), leaf[i]);
        tn_backward(sum, s, 0);
        for (int i = 0; i < N; i++) assert_true(tn_params_at(s, i)->g[0] == (tn_real)i);
        tn_tape_reset(t);
    }
    tn_params_free(s);
    tn_tape_free(t);
}

static void changed_weights(void **state) {
    (void)state;
    net m = net_new();
    tn_t *old = net_loss(&m), *leaf = tn_use(m.tape, m.fc1.weight);
    tn_params_touch(m.params);
    assert_true(tn_use(m.tape, m.fc1.weight) != leaf);
    tn_t *fresh = net_loss(&m);
    tn_backward(fresh, m.params, 0); /* does not look at the old leaves */
    assert_panics(m.tape, tn_backward(tn_add(old, fresh), m.params, 0), "weights changed", "fc1.weight",
                  "reset");
    old = net_loss(&m);
    tn_params_touch(m.params);
    assert_panics(m.tape, tn_backward(old, m.params, 0), "weights changed", "fc1.weight", "reset");
    tn_backward(net_loss(&m), m.params, 0);
    net_free(&m);
}

static void recording_off(void **state) {
    (void)state;
    net m = net_new();
    double on = tn_value(net_loss(&m));
    tn_tape_reset(m.tape);
    assert_int_equal(tn_record(m.tape, 0), 1);
    tn_t *loss = net_loss(&m);
    assert_true(tn_value(loss) == on);
    assert_int_equal(loss->needs, 0);
    assert_panics(m.tape, tn_backward(net_loss(&m), m.params, 0), "tn_backward", "recording is off", "");
    assert_int_equal(tn_tape_mode(m.tape).record, 0); /* a reset keeps the mode */
    tn_t *unrecorded = tn_use(m.tape, m.fc1.weight);
    assert_int_equal(unrecorded->needs, 0);
    tn_record(m.tape, 1);
    tn_t *recorded = tn_use(m.tape, m.fc1.weight);
    assert_int_equal(recorded->needs, 1); /* a leaf of the time without recording is of no use */
    tn_record(m.tape, 0);
    assert_ptr_equal(tn_use(m.tape, m.fc1.weight), recorded);
    net_free(&m);
}

static void not_finite(void **state) {
    (void)state;
    net m = net_new();
    char where[128];
    net_loss(&m);
    assert_int_equal(tn_tape_nonfinite(m.tape, where, sizeof where), 0);
    tn_log(tn_full(m.tape, -1, 2, (int[]){2, 3}));
    assert_int_equal(tn_tape_nonfinite(m.tape, where, sizeof where), 1);
    assert_contains(where, "op log");
    assert_contains(where, "(2, 3)");
    tn_tape_reset(m.tape);
    m.fc2.weight->w[3] = INFINITY;
    tn_params_touch(m.params);
    net_loss(&m);
    assert_int_equal(tn_tape_nonfinite(m.tape, where, sizeof where), 1);
    assert_contains(where, "fc2.weight");
    tn_tape_reset(m.tape);
    tn_input(m.tape, (tn_real[]){1, NAN}, 1, (int[]){2});
    assert_int_equal(tn_tape_nonfinite(m.tape, where, sizeof where), 1);
    assert_contains(where, "input");
    tn_tape_reset(m.tape);
    tn_t *loss =
        net_loss(&m); /* operations: products alone, gradients of weights twice over, of the pixels none */
    double fc1 = 2.0 * ROWS * IN * HIDDEN, fc2 = 2.0 * ROWS * HIDDEN * OUT;
    assert_near(tn_tape_flops(m.tape, 0), fc1 + fc2, 0);
    assert_near(tn_tape_flops(m.tape, 1), 2 * fc1 + 3 * fc2, 0);
    (void)loss;
    net_free(&m);
}

/* ---- short memory ---- */

static long left; /* allocations until none is left; below 0: no limit */
static int short_now(void) {
    if (left == 0) return 1;
    if (left > 0) left--;
    return 0;
}
static void *scarce_alloc(size_t n) {
    return short_now() ? NULL : malloc(n);
}
static void *scarce_resize(void *p, size_t n) {
    return short_now() ? NULL : realloc(p, n);
}
static void leave(void *arg, const char *msg) {
    (void)arg;
    snprintf(caught.msg, sizeof caught.msg, "%s", msg);
    longjmp(caught.env, 1);
}

/* Trains a little. 0: all went well. 1: an error with a message, or a caught panic, after which the tape is still good. */
static int scarce_program(long allocations) {
    static tn_tape *tape;
    static tn_params *params;
    static tn_stepper *stepper;
    static tn_optim *optim;
    static int failed;
    tn_err e = {""};
    left = allocations;
    failed = 0;
    if (!(tape = tn_tape_new(&e))) return strstr(e.msg, "out of memory") ? 1 : 2;
    tn_on_panic(tape, leave, NULL);
    if (!(params = tn_params_new())) return tn_tape_free(tape), 1;
    net m = {tape, params, tn_linear_new(params, "fc1", IN, HIDDEN, 1),
             tn_linear_new(params, "fc2", HIDDEN, OUT, 1)};
    if (tn_params_seal(params, 7, &e)) failed = strstr(e.msg, "out of memory") ? 1 : 2;
    if (!failed && !(optim = tn_optim_new(params, "adamw:lr=0.01", &e)))
        failed = strstr(e.msg, "out of memory") ? 1 : 2;
    if (!failed && !(stepper = tn_stepper_new(params, optim, &(tn_step_options){2, 0, 0}, &e)))
        failed = strstr(e.msg, "out of memory") ? 1 : 2;
    if (!failed) {
        if (setjmp(
                caught.env)) { /* short in the middle of a tape: with memory again, the same tape goes on */
            failed = strstr(caught.msg, "out of memory") ? 1 : 2;
            left = -1;
        }
        for (int step = 0; step < 3; step++) {
            tn_tape_reset(tape);
            tn_t *loss = net_loss(&m), *w = tn_use(tape, m.fc1.weight), *g;
            tn_grad(loss, NULL, 1, &w, &g, 1);
            for (int i = 0; i < 40; i++) tn_full(tape, 1, 1, (int[]){5000});
            tn_backward(tn_add(loss, tn_sum(tn_square(g))), params, 0);
        }
    }
    left = -1;
    tn_stepper_free(stepper);
    tn_optim_free(optim);
    tn_params_free(params);
    tn_tape_free(tape);
    return failed;
}

/* In a process of its own: a parameter set has no hook, so short memory in its middle aborts with a message. */
static int outcome(long allocations) {
    int fd[2], status;
    char text[512];
    fflush(NULL);
    assert_int_equal(pipe(fd), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        dup2(fd[1], STDERR_FILENO);
        tn_set_allocator(&(tn_allocator){scarce_alloc, scarce_resize, free});
        _exit(scarce_program(allocations));
    }
    close(fd[1]);
    ssize_t n = read(fd[0], text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    close(fd[0]);
    waitpid(child, &status, 0);
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    if (WTERMSIG(status) == SIGABRT && strstr(text, "out of memory")) return 1;
    print_error("after %ld allocations: signal %d, %s\n", allocations, WTERMSIG(status), text);
    return 3;
}

static void short_memory(void **state) {
    (void)state;
    long n = 0;
    for (int got; (got = outcome(n)) != 0; n++)
        if (got != 1 || n > 1000) fail_msg("allocation %ld fails: outcome %d", n, got);
    assert_true(n > 15);
}

static void wrong_header(void **state) {
    (void)state;
    tn_err e;
    assert_null(tn_tape_new_checked(TN_ABI + 1, sizeof(tn_real), sizeof(tn_t), &e));
    assert_contains(e.msg, "do not match");
    assert_null(tn_tape_new_checked(TN_ABI, 12 - sizeof(tn_real), sizeof(tn_t), &e));
    assert_null(tn_tape_new_checked(TN_ABI, sizeof(tn_real), sizeof(tn_t) + 8, NULL));
    tn_tape_free(NULL);
    tn_params_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warm_steps_allocate_nothing),
        cmocka_unit_test(marks),
        cmocka_unit_test(gradients_do_not_outlive_a_pool),
        cmocka_unit_test(intermediate_and_repeated),
        cmocka_unit_test(fused_with_one_tensor_twice),
        cmocka_unit_test(fused_writes_in_any_order),
        cmocka_unit_test(sweep_adds),
        cmocka_unit_test(two_losses_and_tying),
        cmocka_unit_test(bindings),
        cmocka_unit_test(many_leaves),
        cmocka_unit_test(changed_weights),
        cmocka_unit_test(recording_off),
        cmocka_unit_test(not_finite),
        cmocka_unit_test(short_memory),
        cmocka_unit_test(wrong_header),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
