/* SPDX-License-Identifier: MIT */
/*
 * tern gradcheck: a model's gradients, first and second order, against central differences. In double, so
 * this file is compiled against tern's double build; it shares no tn_real with the rest of the program.
 * The model is in training mode: batch norm with the batch's statistics, dropout with one fixed mask.
 */
#define TN_DOUBLE
#include "args.h"
#include "tern_models.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

extern const command cmd_gradcheck;

typedef struct {
    char model[1024];
    long batch, samples, seed, size, outputs;
    double tolerance;
} check_options;

static const arg rows[] = {
    ARG_TEXT(check_options, model, "model", "SPEC", "mlp:hidden=32", "model"),
    ARG_INT(check_options, size, "size", 12, 1, 64, "height and width of the random pictures"),
    ARG_INT(check_options, outputs, "outputs", 10, 2, 1000, "classes"),
    ARG_INT(check_options, batch, "batch", 4, 1, 256, "pictures"),
    ARG_INT(check_options, samples, "samples", 50, 1, 100000,
            "weights of each tensor to check, drawn at random"),
    ARG_INT(check_options, seed, "seed", 1, 0, LONG_MAX, "seed of weights, pictures and samples"),
    ARG_REAL(check_options, tolerance, "tolerance", 1e-6, 0, 1, "largest relative error that passes"),
    ARG_END};

enum { MAX_PARAMS = 256 };
typedef struct {
    tn_model *m;
    tn_tape *t;
    tn_real *x, *v, *g; /* pictures; a direction in the space of weights; numbers for it */
    int *label, dim[4];
    int n; /* tensors that have a gradient, all but the buffers */
    tn_param *p[MAX_PARAMS];
    size_t flat;
} checker;

/* Running averages stay as they are. */
static tn_t *loss_of(checker *c) {
    tn_tape_reset(c->t);
    tn_t *y = tn_forward(c->m, tn_input(c->t, c->x, 4, c->dim));
    tn_params_discard(c->m->params);
    return tn_cross_entropy(y, c->label, NULL);
}

static double loss_at(checker *c, tn_param *p, size_t i, double shift) {
    tn_real keep = p->w[i];
    p->w[i] += shift;
    tn_params_touch(c->m->params);
    double v = tn_value(loss_of(c));
    p->w[i] = keep;
    tn_params_touch(c->m->params);
    return v;
}

/* ||a - b|| / ||b|| over the sampled weights of one tensor. */
static double first_order(checker *c, tn_param *p, const check_options *o) {
    tn_rng r = tn_rng_make((uint64_t)o->seed, "gradcheck", p->name, 0, 0);
    const double h = 1e-6;
    double off = 0, size = 0;
    tn_backward(loss_of(c), c->m->params, 0);
    for (long k = 0; k < o->samples; k++) {
        size_t i = p->len <= (size_t)o->samples ? (size_t)k : (size_t)tn_below(&r, (int)p->len);
        if (i >= p->len) break;
        double numeric = (loss_at(c, p, i, h) - loss_at(c, p, i, -h)) / (2 * h), d = numeric - p->g[i];
        off += d * d;
        size += numeric * numeric;
    }
    return size > 0 ? sqrt(off / size) : sqrt(off);
}

/* Moves all weights along v. */
static void move(checker *c, double h) {
    tn_real *w = tn_params_flat(c->m->params, &c->flat);
    for (size_t i = 0; i < c->flat; i++) w[i] += h * c->v[i];
    tn_params_touch(c->m->params);
}

/*
 * H v through a recorded gradient, against the difference of two gradients. Error over all weights together.
 */
static double second_order(checker *c, const check_options *o) {
    tn_params *ps = c->m->params;
    tn_rng r = tn_rng_make((uint64_t)o->seed, "gradcheck", "direction", 0, 0);
    int n = c->n;
    tn_t *wrt[MAX_PARAMS], *g[MAX_PARAMS], *hv[MAX_PARAMS], *dot = NULL;
    tn_real *grad = tn_params_flat_grad(ps, &c->flat);
    const double h = 1e-6;
    for (int i = 0; i < n; i++) {
        const tn_param *p = c->p[i];
        for (size_t k = 0; k < p->len; k++) c->v[p->offset + k] = tn_normal(&r) / sqrt((double)p->len);
    }
    for (int side = -1; side <= 1; side += 2) {
        move(c, side * h);
        tn_backward(loss_of(c), ps, 0);
        move(c, -side * h);
        for (size_t i = 0; i < c->flat; i++) c->g[i] = (side < 0 ? 0 : c->g[i]) + side * grad[i] / (2 * h);
    }
    tn_t *loss = loss_of(c);
    for (int i = 0; i < n; i++) wrt[i] = tn_use(c->t, c->p[i]);
    tn_grad(loss, NULL, n, wrt, g, 1);
    for (int i = 0; i < n; i++) {
        const tn_param *p = c->p[i];
        tn_t *one = tn_sum(tn_mul(g[i], tn_input(c->t, c->v + p->offset, p->nd, p->dim)));
        dot = dot ? tn_add(dot, one) : one;
    }
    tn_grad(dot, NULL, n, wrt, hv, 0);
    double off = 0, size = 0;
    for (int i = 0; i < n; i++) {
        const tn_param *p = c->p[i];
        for (size_t k = 0; k < p->len; k++) {
            double numeric = c->g[p->offset + k], d = numeric - hv[i]->x[k];
            off += d * d;
            size += numeric * numeric;
        }
    }
    return size > 0 ? sqrt(off / size) : sqrt(off);
}

static int open_checker(checker *c, const check_options *o, tn_err *e) {
    const int side = (int)o->size;
    const tn_model_shape shape = {3, {1, side, side}, (int)o->outputs};
    size_t pixels = (size_t)o->batch * (size_t)side * (size_t)side;
    memset(c, 0, sizeof *c);
    if (!(c->m = tn_model_new(o->model, &shape, (uint64_t)o->seed, e))) return -2;
    for (int i = 0; i < tn_params_count(c->m->params); i++) {
        tn_param *p = tn_params_at(c->m->params, i);
        if (p->flags & TN_BUFFER) continue;
        if (c->n == MAX_PARAMS) return tn_fail(e, "more than %d tensors", MAX_PARAMS);
        c->p[c->n++] = p;
    }
    tn_params_flat(c->m->params, &c->flat);
    c->x = malloc(pixels * sizeof *c->x);
    c->v = calloc(c->flat, sizeof *c->v);
    c->g = calloc(c->flat, sizeof *c->g);
    c->label = malloc((size_t)o->batch * sizeof *c->label);
    if (!c->x || !c->v || !c->g || !c->label) return tn_fail(e, "not enough memory");
    if (!(c->t = tn_tape_new(e))) return -1;
    tn_train_mode(c->t, (uint64_t)o->seed, 0, 0);
    tn_rng r = tn_rng_make((uint64_t)o->seed, "gradcheck", "pictures", 0, 0);
    for (size_t i = 0; i < pixels; i++) c->x[i] = tn_uniform(&r);
    for (long i = 0; i < o->batch; i++) c->label[i] = tn_below(&r, (int)o->outputs);
    memcpy(c->dim, (int[]){(int)o->batch, 1, side, side}, sizeof c->dim);
    return 0;
}

static void close_checker(checker *c) {
    tn_tape_free(c->t);
    tn_model_free(c->m);
    free(c->x);
    free(c->v);
    free(c->g);
    free(c->label);
}

static int check_all(checker *c, const check_options *o) {
    int bad = 0;
    for (int i = 0; i < c->n; i++) {
        tn_param *p = c->p[i];
        double error = first_order(c, p, o);
        int wrong = !(error <= o->tolerance);
        bad += wrong;
        printf("order 1  %-24s relative error %.2e  %s\n", p->name, error, wrong ? "WRONG" : "ok");
    }
    double error = second_order(c, o);
    int wrong = !(error <= o->tolerance);
    printf("order 2  %-24s relative error %.2e  %s\n", "all weights, H v", error, wrong ? "WRONG" : "ok");
    return bad + wrong;
}

static int run_command(const command *cmd, int argc, char **argv) {
    static check_options o;
    args_rest rest;
    tn_err e;
    checker c;
    int code = args_parse(cmd, &o, argc, argv, &rest);
    if (code >= 0) return code;
    int opened = open_checker(&c, &o, &e);
    int bad = opened ? 0 : check_all(&c, &o);
    close_checker(&c);
    if (opened) return opened == -2 ? args_usage_error(cmd, "%s", e.msg) : args_failed(cmd, &e);
    if (bad) fprintf(stderr, "tern gradcheck: %d gradients are off by more than %g\n", bad, o.tolerance);
    return bad ? EXIT_FAILED : EXIT_OK;
}

const command cmd_gradcheck = {
    "gradcheck",
    "Check a model's gradients of order 1 and 2 against differences, in double.",
    "[--model SPEC] [options]",
    "The model is in training mode: batch norm takes the statistics of the pictures,\n"
    "dropout one fixed mask. A relu or a max pooling that switches within the step\n"
    "of a difference shows as an error of one tensor: try another seed.\n",
    rows,
    0,
    run_command};
