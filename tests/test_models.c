/* SPDX-License-Identifier: MIT */
/*
 * Models trained side by side with PyTorch: from the same weights, over the same batches, the loss of each of 100 steps,
 * the first gradient and the final weights are PyTorch's.
 */
#include "support.h"
#include "tern_models.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef TN_DOUBLE
#define TOL "tol"
#else
#define TOL "tol_float"
#endif

typedef struct {
    json_t *root;
    tn_model *model;
    int images, batch, steps, at, n; /* at ... at + n - 1: the images of this step */
    size_t pixels;
    tn_model_shape shape;
    tn_real *image;
    int *label;
} problem;

static uint64_t splitmix(uint64_t *s) {
    uint64_t z = *s += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

static long integer(const json_t *o, const char *key) {
    return (long)json_integer_value(json_object_get(o, key));
}

static void make_data(problem *p) {
    uint64_t images = (uint64_t)integer(p->root, "image_seed"),
             labels = (uint64_t)integer(p->root, "label_seed");
    json_t *head = json_object_get(p->root, "pixel_head"), *want = json_object_get(p->root, "labels");
    p->image = malloc((size_t)p->images * p->pixels * sizeof *p->image);
    p->label = malloc((size_t)p->images * sizeof *p->label);
    for (size_t i = 0; i < (size_t)p->images * p->pixels; i++) {
        int k = (int)(splitmix(&images) >> 56), byte = k < 128 ? 0 : 2 * k - 255;
        if (i < 8) assert_int_equal(byte, json_integer_value(json_array_get(head, i)));
        p->image[i] = (tn_real)(byte / 255.0);
    }
    for (int i = 0; i < p->images; i++) {
        p->label[i] = (int)(splitmix(&labels) % (uint64_t)p->shape.outputs);
        assert_int_equal(p->label[i], json_integer_value(json_array_get(want, (size_t)i)));
    }
}

static void problem_open(problem *p, const char *file) {
    tn_err e;
    *p = (problem){.root = golden_load(file)};
    json_t *input = json_object_get(p->root, "input");
    p->images = (int)integer(p->root, "images"), p->batch = (int)integer(p->root, "batch");
    p->steps = (int)integer(p->root, "steps");
    p->shape = (tn_model_shape){.nd = 3, .outputs = (int)integer(p->root, "classes")};
    p->pixels = 1;
    for (int i = 0; i < 3; i++) {
        p->shape.dim[i] = (int)json_integer_value(json_array_get(input, (size_t)i));
        p->pixels *= (size_t)p->shape.dim[i];
    }
    make_data(p);
    p->model = tn_model_new(json_string_value(json_object_get(p->root, "model")), &p->shape, 1, &e);
    if (!p->model) fail_msg("%s", e.msg);
}

static void problem_close(problem *p) {
    tn_model_free(p->model);
    free(p->image), free(p->label);
    json_decref(p->root);
}

/* PyTorch's start; names, shapes and flags must be the model's. */
static void start_weights(problem *p) {
    json_t *list = json_object_get(p->root, "params"), *j;
    size_t i;
    assert_int_equal(json_array_size(list), tn_params_count(p->model->params));
    json_array_foreach(list, i, j) {
        tn_param *w = tn_params_at(p->model->params, (int)i);
        json_t *shape = json_object_get(j, "shape");
        double *u = malloc(w->len * sizeof *u);
        assert_string_equal(w->name, json_string_value(json_object_get(j, "name")));
        assert_int_equal(w->nd, json_array_size(shape));
        for (int d = 0; d < w->nd; d++)
            assert_int_equal(w->dim[d], json_integer_value(json_array_get(shape, (size_t)d)));
        assert_int_equal(!(w->flags & TN_NO_DECAY), json_is_true(json_object_get(j, "decay")));
        golden_uniform((uint64_t)integer(j, "seed"), json_number_value(json_object_get(j, "scale")), w->len,
                       u);
        for (size_t k = 0; k < w->len; k++) w->w[k] = (tn_real)u[k];
        free(u);
    }
    tn_params_touch(p->model->params);
}

static tn_t *batch_loss(void *arg, tn_tape *t, int micro, double *weight) {
    problem *p = arg;
    (void)micro;
    *weight = p->n;
    tn_t *x = tn_input(t, p->image + (size_t)p->at * p->pixels, 4,
                       (int[]){p->n, p->shape.dim[0], p->shape.dim[1], p->shape.dim[2]});
    return tn_cross_entropy(tn_forward(p->model, x), p->label + p->at, NULL);
}

static void close_to(const char *what, const char *name, double got, double want, double scale, double tol) {
    if (fabs(got - want) <= tol * scale) return;
    fail_msg("%s of %s: %.17g, not %.17g", what, name, got, want);
}

static void compare(const char *name, const tn_real *x, size_t n, const json_t *want, double tol) {
    double sum = 0, sum_abs = 0, sum_sq = 0;
    for (size_t i = 0; i < n; i++) {
        double v = (double)x[i];
        sum += v, sum_abs += fabs(v), sum_sq += v * v;
    }
    double wanted_abs = json_number_value(json_object_get(want, "sum_abs"));
    double wanted_sq = json_number_value(json_object_get(want, "sum_sq"));
    close_to("sum", name, sum, json_number_value(json_object_get(want, "sum")), wanted_abs, tol);
    close_to("sum of magnitudes", name, sum_abs, wanted_abs, wanted_abs, tol);
    close_to("sum of squares", name, sum_sq, wanted_sq, wanted_sq, tol);
    double d = golden_distance(x, json_object_get(want, "head"));
    if (!(d <= tol)) fail_msg("first elements of %s are off by %.3g", name, d);
}

static void compare_all(problem *p, const json_t *want, int gradients, double tol) {
    for (int i = 0; i < tn_params_count(p->model->params); i++) {
        const tn_param *w = tn_params_at(p->model->params, i);
        const json_t *s = json_object_get(want, w->name);
        assert_non_null(s);
        compare(w->name, gradients ? w->g : w->w, w->len, s, tol);
    }
}

static void train(problem *p, tn_tape *tape, const json_t *run) {
    tn_err e;
    const json_t *curve = json_object_get(run, "loss");
    double tol = json_number_value(json_object_get(run, TOL));
    assert_true(tol > 0 && tol <= 1e-3);
    start_weights(p);
    tn_optim *optim =
        tn_optim_new(p->model->params, json_string_value(json_object_get(run, "optimizer")), &e);
    if (!optim) fail_msg("%s", e.msg);
    tn_stepper *stepper = tn_stepper_new(p->model->params, optim, NULL, &e);
    assert_non_null(stepper);
    p->at = 0;
    for (int step = 0; step < p->steps; step++) {
        tn_tick tick = tn_tick_at(step + 1, p->steps, NULL, NULL);
        tn_step_result r;
        p->n = p->images - p->at < p->batch ? p->images - p->at : p->batch;
        tick.batch = p->n;
        assert_int_equal(tn_stepper_run(stepper, tape, batch_loss, p, &tick, &r), 0);
        assert_near(r.loss, json_number_value(json_array_get(curve, (size_t)step)), tol);
        if (step == 0) compare_all(p, json_object_get(run, "first_grad"), 1, tol);
        p->at = p->at + p->n == p->images ? 0 : p->at + p->n;
    }
    compare_all(p, json_object_get(run, "final"), 0, tol);
    tn_stepper_free(stepper);
    tn_optim_free(optim);
}

static void follows_pytorch(const char *file) {
    tn_tape *tape = tn_tape_new(NULL);
    problem p;
    json_t *run;
    size_t i;
    problem_open(&p, file);
    assert_int_equal(p.steps, 100);
    json_array_foreach(json_object_get(p.root, "runs"), i, run) train(&p, tape, run);
    assert_int_equal(i, 4);
    problem_close(&p);
    tn_tape_free(tape);
}

static void logistic(void **state) {
    (void)state;
    follows_pytorch("models/logistic.json");
}
static void mlp(void **state) {
    (void)state;
    follows_pytorch("models/mlp.json");
}
static void mlp_deep(void **state) {
    (void)state;
    follows_pytorch("models/mlp_deep.json");
}

static void lenet(void **state) {
    (void)state;
    follows_pytorch("models/lenet.json");
}
static void cnn(void **state) {
    (void)state;
    follows_pytorch("models/cnn.json");
}
static void rnn(void **state) {
    (void)state;
    follows_pytorch("models/rnn.json");
}
static void gru(void **state) {
    (void)state;
    follows_pytorch("models/gru.json");
}
static void lstm(void **state) {
    (void)state;
    follows_pytorch("models/lstm.json");
}

/* ---- models from specs ---- */

static const tn_model_shape image = {3, {1, 4, 5}, 3};

static void refused(const char *spec, const char *part) {
    tn_err e;
    assert_null(tn_model_new(spec, &image, 1, &e));
    assert_contains(e.msg, part);
}

static void specs(void **state) {
    (void)state;
    tn_err e;
    char text[256];
    tn_model *m = tn_model_new("mlp:hidden=7/6,activation=gelu,dropout=0.25,layer_norm=on", &image, 1, &e);
    if (!m) fail_msg("%s", e.msg);
    static const char *const names[] = {"fc1.weight", "fc1.bias", "norm1.weight", "norm1.bias",
                                        "fc2.weight", "fc2.bias", "norm2.weight", "norm2.bias",
                                        "fc3.weight", "fc3.bias"};
    assert_int_equal(tn_params_count(m->params), 10);
    for (int i = 0; i < 10; i++) assert_string_equal(tn_params_at(m->params, i)->name, names[i]);
    assert_int_equal(tn_params_total(m->params), 20 * 7 + 7 + 14 + 7 * 6 + 6 + 12 + 6 * 3 + 3);
    tn_model_text(m, text, sizeof text);
    tn_model *again = tn_model_new(text, &image, 1, &e);
    if (!again) fail_msg("%s: %s", text, e.msg);
    size_t len;
    tn_real *w = tn_params_flat(m->params, &len);
    assert_true(same_bits(w, tn_params_flat(again->params, NULL), len));
    tn_model_free(again);
    tn_model_free(m);
    m = tn_model_new("logistic:bias=off", &image, 1, &e);
    assert_int_equal(tn_params_count(m->params), 1);
    tn_model_free(m);
    tn_model_free(NULL);
    refused("mpl", "mlp");
    refused("mlp:hiden=3", "hidden");
    refused("mlp:hidden=0", "hidden");
    refused("mlp:hidden=2.5", "whole");
    refused("mlp:dropout=1", "dropout");
    refused("logistic:bias=maybe", "bias");
}

/* Dropout and layer norm are where they should be: against the same layers put together by hand. */
static void mlp_by_hand(void **state) {
    (void)state;
    static const char *const act[] = {"relu", "tanh", "sigmoid", "gelu"};
    static tn_t *(*const f[])(tn_t *) = {tn_relu, tn_tanh, tn_sigmoid, tn_gelu};
    tn_tape *t = tn_tape_new(NULL);
    for (int i = 0; i < 8; i++) {
        tn_err e;
        char spec[128];
        double pixel[40];
        tn_real in[40];
        snprintf(spec, sizeof spec, "mlp:hidden=6/6,activation=%s,dropout=0.5,layer_norm=%s", act[i / 2],
                 i % 2 ? "on" : "off");
        tn_model *m = tn_model_new(spec, &image, 3, &e);
        if (!m) fail_msg("%s", e.msg);
        golden_uniform(5, 1, 40, pixel);
        for (int k = 0; k < 40; k++) in[k] = (tn_real)pixel[k];
        tn_tape_reset(t);
        tn_train_mode(t, 9, 4, 0);
        tn_t *x = tn_input(t, in, 4, (int[]){2, 1, 4, 5}), *y = tn_forward(m, x), *w[6];
        static const char *const names[] = {"fc1.weight", "fc1.bias",   "fc2.weight",
                                            "fc2.bias",   "fc3.weight", "fc3.bias"};
        for (int k = 0; k < 6; k++) w[k] = tn_use(t, tn_params_find(m->params, names[k]));
        tn_t *h = tn_reshape(x, 2, (int[]){2, 20});
        for (int layer = 0; layer < 2; layer++) {
            h = tn_add(tn_matmul(h, w[2 * layer], 0, 1), w[2 * layer + 1]);
            if (i % 2) h = tn_layer_norm(h, NULL, NULL, 1e-5);
            h = tn_dropout(f[i / 2](h), 0.5, layer ? "fc2" : "fc1");
        }
        h = tn_add(tn_matmul(h, w[4], 0, 1), w[5]);
        assert_true(y->nd == 2 && y->dim[0] == 2 && y->dim[1] == 3);
        for (int k = 0; k < 6; k++)
            assert_true(fabs((double)(y->x[k] - h->x[k])) < (sizeof(tn_real) == 8 ? 1e-14 : 1e-6));
        tn_eval_mode(t);
        assert_false(same_bits(tn_forward(m, x)->x, y->x, 6));
        tn_model_free(m);
    }
    tn_tape_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logistic),    cmocka_unit_test(mlp),  cmocka_unit_test(mlp_deep),
        cmocka_unit_test(lenet),       cmocka_unit_test(cnn),  cmocka_unit_test(rnn),
        cmocka_unit_test(gru),         cmocka_unit_test(lstm), cmocka_unit_test(specs),
        cmocka_unit_test(mlp_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
