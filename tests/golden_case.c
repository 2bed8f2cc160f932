/* SPDX-License-Identifier: MIT */
/* Cases of golden/ops; see golden_case.h. */
#include "golden_case.h"
#include <math.h>
#include <stdlib.h>

#ifdef TN_DOUBLE
static const double tolerance = 1e-10;
#else
static const double tolerance = 2e-3; /* a coarse look: the numbers are meant for double */
#endif

double golden_number(const golden_case *c, const char *key, double if_null) {
    json_t *v = json_object_get(c->args, key);
    return json_is_number(v) ? json_number_value(v) : if_null;
}

int golden_word_is(const golden_case *c, const char *key, const char *word) {
    const char *v = json_string_value(json_object_get(c->args, key));
    return v && !strcmp(v, word);
}

void golden_pair(const golden_case *c, const char *key, int out[2]) {
    const json_t *v = json_object_get(c->args, key);
    assert_int_equal(json_array_size(v), 2);
    for (size_t i = 0; i < 2; i++) out[i] = (int)json_integer_value(json_array_get(v, i));
}

tn_t *golden_input(const golden_case *c, const char *name) {
    for (int i = 0; i < c->n; i++)
        if (!strcmp(c->x_name[i], name)) return c->x[i];
    return NULL;
}

static int shape_of(const json_t *in, int dim[TN_MAX_DIM], size_t *len) {
    const json_t *s = json_object_get(in, "shape");
    int nd = (int)json_array_size(s);
    *len = 1;
    for (int i = 0; i < nd; i++)
        dim[i] = (int)json_integer_value(json_array_get(s, (size_t)i)), *len *= (size_t)dim[i];
    return nd;
}

/* Values by formula or as given. */
static void fill(const json_t *in, size_t n, tn_real *out) {
    const json_t *values = json_object_get(in, "values");
    if (values) {
        golden_reals(values, n, out);
        return;
    }
    double *u = malloc(n * sizeof *u), shift = json_number_value(json_object_get(in, "shift"));
    golden_uniform((uint64_t)json_integer_value(json_object_get(in, "seed")),
                   json_number_value(json_object_get(in, "scale")), n, u);
    for (size_t i = 0; i < n; i++) out[i] = (tn_real)(u[i] + shift);
    free(u);
}

/* A gradient that is 0 but for rounding (layer norm of one feature) is held against 0.01. */
static void compare(const golden_case *c, const char *what, const tn_real *got, const json_t *want) {
    double top = 0.01, worst = 0;
    for (size_t i = 0; i < json_array_size(want); i++) {
        double w = json_number_value(json_array_get(want, i)), d = fabs((double)got[i] - w);
        top = fmax(top, fabs(w));
        worst = d >= 0 ? fmax(worst, d) : INFINITY;
    }
    if (!(worst <= tolerance * top)) fail_msg("%s %s: %s is off by %.3g", c->op, c->name, what, worst / top);
}

static void read_input(golden_case *c, const json_t *in, tn_t *wrt[], int *wanted) {
    size_t len;
    int dim[TN_MAX_DIM], nd = shape_of(in, dim, &len);
    const char *name = json_string_value(json_object_get(in, "name"));
    const json_t *ints = json_object_get(in, "ints");
    if (ints) {
        c->ints = tn_scratch(c->tape, len * sizeof *c->ints), c->ints_nd = nd;
        memcpy(c->ints_dim, dim, sizeof dim);
        for (size_t k = 0; k < len; k++) c->ints[k] = (int)json_integer_value(json_array_get(ints, k));
        return;
    }
    tn_real *values = tn_scratch(c->tape, len * sizeof *values);
    fill(in, len, values);
    if (!strcmp(name, "class_weight")) {
        c->class_weight = values;
        return;
    }
    int leaf = json_is_true(json_object_get(in, "grad"));
    assert_true(c->n < GOLDEN_IN);
    c->x_name[c->n] = name;
    c->x[c->n] = (leaf ? tn_leaf : tn_input)(c->tape, values, nd, dim);
    if (leaf) wrt[(*wanted)++] = c->x[c->n];
    c->n++;
}

/* Compares the outputs; the sum of <gy, y> over those that take a gradient. */
static tn_t *weigh_outputs(const golden_case *c, tn_t *const y[], const json_t *outputs) {
    tn_t *s = NULL;
    size_t i, len;
    int dim[TN_MAX_DIM];
    json_t *out;
    json_array_foreach(outputs, i, out) {
        int nd = shape_of(out, dim, &len);
        assert_true(i < GOLDEN_OUT && y[i]);
        assert_int_equal(y[i]->nd, nd);
        assert_memory_equal(y[i]->dim, dim, sizeof(int) * (size_t)nd);
        compare(c, json_string_value(json_object_get(out, "name")), y[i]->x, json_object_get(out, "values"));
        if (!json_object_get(out, "gy")) continue;
        tn_real *gy = tn_scratch(c->tape, len * sizeof *gy);
        fill(json_object_get(out, "gy"), len, gy);
        tn_t *part = tn_sum(tn_mul(y[i], tn_input(c->tape, gy, nd, dim)));
        s = s ? tn_add(s, part) : part;
    }
    assert_non_null(s);
    return s;
}

static void check_case(tn_tape *tape, const json_t *json, golden_run *run) {
    golden_case c = {.tape = tape, .args = json_object_get(json, "args")};
    json_t *in, *grads = json_object_get(json, "grads"), *g;
    tn_t *wrt[GOLDEN_IN], *grad[GOLDEN_IN], *y[GOLDEN_OUT] = {NULL};
    size_t i;
    int wanted = 0;
    c.op = json_string_value(json_object_get(json, "op")),
    c.name = json_string_value(json_object_get(json, "name"));
    tn_tape_reset(tape);
    json_array_foreach(json_object_get(json, "inputs"), i, in) read_input(&c, in, wrt, &wanted);
    tn_params *params = run(&c, y);
    tn_t *s = weigh_outputs(&c, y, json_object_get(json, "outputs"));
    assert_int_equal(json_array_size(grads), wanted);
    for (int graph = 0; graph < 2; graph++) {
        tn_grad(s, NULL, wanted, wrt, grad, graph);
        json_array_foreach(grads, i, g) compare(&c, json_string_value(json_object_get(g, "name")), grad[i]->x,
                                                json_object_get(g, "values"));
    }
    tn_params_free(params);
}

void golden_check(const char *file, golden_run *run, const char *later, int expected) {
    tn_tape *tape = tn_tape_new(NULL);
    json_t *root = golden_load(file), *c;
    int done = 0;
    size_t i;
    json_array_foreach(json_object_get(root, "cases"), i, c) {
        if (later && !strcmp(json_string_value(json_object_get(c, "op")), later)) continue;
        check_case(tape, c, run), done++;
    }
    assert_int_equal(done, expected);
    json_decref(root);
    tn_tape_free(tape);
}
