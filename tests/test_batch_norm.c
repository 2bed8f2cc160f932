/* SPDX-License-Identifier: MIT */
/* Batch norm as a layer: when its buffers change, small batches, evaluation, files. Values: test_golden_layers.c. */
#include "catch.h"
#include "internal.h"
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

enum { C = 2, N = 6 };
static const double rounding = sizeof(tn_real) == 8 ? 1e-14 : 1e-6;
static const tn_real data[N * C] = {1, 10, 2, 30, 4, 20, 7, 60, 3, 50, 1, 10};

typedef struct {
    tn_params *ps;
    tn_batch_norm_layer l;
    tn_tape *t;
    int n[4];      /* rows of each micro-batch */
    double factor; /* of the loss */
} rig;

static void rig_new(rig *r) {
    *r = (rig){.ps = tn_params_new(), .t = tn_tape_new(NULL), .factor = 1};
    r->l = tn_batch_norm_new(r->ps, "bn", C);
    assert_int_equal(tn_params_seal(r->ps, 1, NULL), 0);
}

static void rig_free(rig *r) {
    tn_tape_free(r->t);
    tn_params_free(r->ps);
}

static tn_t *loss_of(void *arg, tn_tape *t, int micro, double *weight) {
    rig *r = arg;
    int at = 0;
    for (int i = 0; i < micro; i++) at += r->n[i];
    *weight = r->n[micro];
    if (!r->n[micro]) return NULL;
    tn_t *y = tn_batch_norm_fwd(&r->l, tn_input(t, data + at * C, 2, (int[]){r->n[micro], C}), TN_ACT_NONE);
    return tn_scale(tn_mean(tn_square(tn_shift(y, 1))), r->factor);
}

static void statistics(int lo, int hi, int c, double *mean, double *var) {
    double sum = 0, square = 0;
    for (int i = lo; i < hi; i++) sum += (double)data[i * C + c];
    *mean = sum / (hi - lo);
    for (int i = lo; i < hi; i++)
        square += ((double)data[i * C + c] - *mean) * ((double)data[i * C + c] - *mean);
    *var = square / (hi - lo - 1);
}

static void names(void **state) {
    (void)state;
    rig r;
    rig_new(&r);
    static const char *const name[] = {"bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"};
    for (int i = 0; i < 4; i++) {
        const tn_param *p = tn_params_at(r.ps, i);
        assert_string_equal(p->name, name[i]);
        assert_int_equal((p->flags & TN_BUFFER) != 0, i > 1);
        assert_true(p->flags & TN_NO_DECAY);
        for (int k = 0; k < C; k++) assert_true(p->w[k] == (i == 0 || i == 3));
    }
    assert_int_equal(tn_params_total(r.ps), 2 * C);
    rig_free(&r);
}

/* k micro-batches: the buffers follow one after the other, and only when the step is done. */
static void once_a_step(void **state) {
    (void)state;
    static const int cuts[][4] = {{6}, {2, 4}, {3, 0, 3}, {2, 2, 2}};
    for (int cut = 0; cut < 4; cut++) {
        rig r;
        rig_new(&r);
        memcpy(r.n, cuts[cut], sizeof r.n);
        int parts = cut == 0 ? 1 : cut == 1 ? 2 : 3;
        tn_optim *o = tn_optim_new(r.ps, "sgd:lr=0.1", NULL);
        tn_stepper *s = tn_stepper_new(r.ps, o, &(tn_step_options){parts, 0, 0}, NULL);
        tn_tick tick = tn_tick_at(1, 1, NULL, NULL);
        tn_step_result res;
        assert_int_equal(tn_stepper_run(s, r.t, loss_of, &r, &tick, &res), 0);
        for (int c = 0; c < C; c++) {
            double m = 0, v = 1, mean, var;
            for (int i = 0, at = 0; i < parts; at += r.n[i++]) {
                if (!r.n[i]) continue;
                statistics(at, at + r.n[i], c, &mean, &var);
                m = 0.9 * m + 0.1 * mean, v = 0.9 * v + 0.1 * var;
            }
            assert_near(r.l.running_mean->w[c], m, rounding);
            assert_near(r.l.running_var->w[c], v, rounding);
        }
        tn_stepper_free(s), tn_optim_free(o);
        rig_free(&r);
    }
}

/* A refused step leaves every bit of the buffers, and so does a pass outside of a step. */
static void refused_step(void **state) {
    (void)state;
    rig r;
    rig_new(&r);
    r.n[0] = 2, r.n[1] = 4;
    tn_optim *o = tn_optim_new(r.ps, "sgd:lr=0.1", NULL);
    tn_stepper *s = tn_stepper_new(r.ps, o, &(tn_step_options){2, 0, 0}, NULL);
    tn_tick tick = tn_tick_at(1, 2, NULL, NULL);
    tn_step_result res;
    r.factor = (double)INFINITY;
    assert_int_equal(tn_stepper_run(s, r.t, loss_of, &r, &tick, &res), 1);
    for (int c = 0; c < C; c++) assert_true(r.l.running_mean->w[c] == 0 && r.l.running_var->w[c] == 1);
    tn_tape_reset(r.t);
    tn_train_mode(r.t, 1, 0, 0);
    double weight;
    r.factor = 1;
    loss_of(&r, r.t, 0, &weight); /* planned, never committed */
    r.n[0] = 6;
    tn_stepper *whole = tn_stepper_new(r.ps, o, NULL, NULL);
    assert_int_equal(tn_stepper_run(whole, r.t, loss_of, &r, &tick, &res), 0);
    for (int c = 0; c < C; c++) {
        double mean, var;
        statistics(0, 6, c, &mean, &var);
        assert_near(r.l.running_mean->w[c], 0.1 * mean, rounding);
        assert_near(r.l.running_var->w[c], 0.9 + 0.1 * var, rounding);
    }
    tn_stepper_free(s), tn_stepper_free(whole), tn_optim_free(o);
    rig_free(&r);
}

/* By hand: plan, discard, plan, commit. */
static void plans_by_hand(void **state) {
    (void)state;
    rig r;
    rig_new(&r);
    tn_t *v = tn_full(r.t, 4, 1, (int[]){C});
    uint64_t version = tn_params_version(r.ps);
    tn_params_commit(r.ps); /* nothing planned: nothing changes */
    assert_true(tn_params_version(r.ps) == version);
    tn_plan_buffer(r.l.running_var, v, 0.5);
    tn_params_discard(r.ps);
    tn_params_commit(r.ps);
    assert_true(r.l.running_var->w[0] == 1);
    tn_plan_buffer(r.l.running_var, v, 0.5);
    tn_plan_buffer(r.l.running_var, tn_full(r.t, 8, 1, (int[]){C}), 0.25);
    tn_params_commit(r.ps);
    assert_near(r.l.running_var->w[1], 0.75 * 2.5 + 2, rounding);
    assert_true(r.l.running_mean->w[1] == 0 && tn_params_version(r.ps) != version);
    assert_panics(r.t, tn_plan_buffer(r.l.weight, tn_full(r.t, 4, 1, (int[]){C}), 0.5), "bn.weight",
                  "no buffer", "");
    assert_panics(r.t, tn_plan_buffer(r.l.running_mean, tn_const(r.t, 4), 0.5), "bn.running_mean", "shape",
                  "");
    rig_free(&r);
}

/* Evaluation: the buffers, any batch, a row's result whatever stands beside it. */
static void evaluation(void **state) {
    (void)state;
    rig r;
    rig_new(&r);
    r.l.running_mean->w[0] = 3, r.l.running_var->w[0] = 4, r.l.weight->w[0] = 2, r.l.bias->w[0] = -1;
    tn_params_touch(r.ps);
    tn_t *all = tn_batch_norm_fwd(&r.l, tn_input(r.t, data, 2, (int[]){N, C}), TN_ACT_NONE);
    for (int i = 0; i < N; i++) {
        tn_t *one = tn_batch_norm_fwd(&r.l, tn_input(r.t, data + i * C, 4, (int[]){1, C, 1, 1}), TN_ACT_NONE);
        assert_true(same_bits(one->x, all->x + i * C, C));
        double want = ((double)data[i * C] - 3) / sqrt(4 + 1e-5) * 2 - 1;
        assert_true(fabs((double)one->x[0] - want) < 10 * rounding);
    }
    tn_t *relu = tn_batch_norm_fwd(&r.l, tn_input(r.t, data, 2, (int[]){N, C}), TN_ACT_RELU);
    for (int i = 0; i < N * C; i++) assert_true(relu->x[i] == (all->x[i] > 0 ? all->x[i] : 0));
    tn_params_commit(r.ps);
    assert_true(r.l.running_mean->w[0] == 3);
    rig_free(&r);
}

static void wrong_shapes(void **state) {
    (void)state;
    rig r;
    rig_new(&r);
    tn_tape *t = r.t;
    tn_train_mode(t, 1, 0, 0);
    assert_panics(t, tn_batch_norm_fwd(&r.l, tn_input(t, data, 2, (int[]){1, C}), TN_ACT_NONE), "batch_norm",
                  "one value a channel", "batch of one");
    assert_panics(t, tn_batch_norm_fwd(&r.l, tn_input(t, data, 4, (int[]){1, C, 1, 1}), TN_ACT_NONE),
                  "batch_norm", "one value", "");
    assert_panics(t, tn_batch_norm_fwd(&r.l, tn_input(t, data, 2, (int[]){4, 3}), TN_ACT_NONE), "batch_norm",
                  "(4, 3)", "(2,)");
    assert_panics(t, tn_batch_norm_fwd(&r.l, tn_input(t, data, 3, (int[]){2, 2, 3}), TN_ACT_NONE),
                  "batch_norm", "(2, 2, 3)", "");
    tn_eval_mode(t);
    assert_panics(t, tn_batch_norm_fwd(&r.l, tn_input(t, data, 2, (int[]){4, 3}), TN_ACT_NONE), "batch_norm",
                  "(4, 3)", "(2,)");
    rig_free(&r);
}

/* NaN goes through to its own channel, and to no other. */
static void not_a_number(void **state) {
    (void)state;
    tn_tape *t = tn_tape_new(NULL);
    tn_t *x = tn_leaf(t, data, 2, (int[]){N, C}), *y, *g;
    x->x[2 * C] = (tn_real)NAN;
    y = tn_batch_norm(x, NULL, NULL, 1e-5, NULL, NULL);
    tn_grad(tn_sum(y), NULL, 1, &x, &g, 0);
    for (int i = 0; i < N; i++)
        assert_true(isnan(y->x[i * C]) && isnan(g->x[i * C]) && isfinite(y->x[i * C + 1])
                    && isfinite(g->x[i * C + 1]));
    tn_tape_free(t);
}

/* ---- files ---- */

static void write_file(const char *path, const char *header, const void *numbers, size_t bytes) {
    FILE *f = fopen(path, "wb");
    unsigned char size[8] = {0};
    size_t n = strlen(header);
    assert_non_null(f);
    for (int i = 0; i < 8; i++) size[i] = (unsigned char)(n >> 8 * i);
    assert_true(fwrite(size, 1, 8, f) == 8 && fwrite(header, 1, n, f) == n
                && fwrite(numbers, 1, bytes, f) == bytes);
    assert_int_equal(fclose(f), 0);
}

/* What PyTorch saves of a BatchNorm1d is read, its counter passed over; another extra tensor is refused. */
static void pytorch_counter(void **state) {
    (void)state;
    static const struct {
        const char *text, *refused; /* refused: a word of the message, NULL: it is read */
    } counters[] = {
        {"\"bn.num_batches_tracked\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[32,40]}", NULL},
        {"\"bn.num_batches_tracked\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[32,40]}",
         "num_batches_tracked"},
        {"\"bn.num_batches_tracked\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[32,40]}",
         "num_batches_tracked"},
        {"\"b2.num_batches_tracked\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[32,40]}",
         "num_batches_tracked"},
        {"\"bn.num_batches\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[32,40]}", "num_batches"},
    };
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++) {
        char path[] = "/tmp/tern-batch-norm-XXXXXX", header[1024], note[256];
        struct {
            float x[8];
            int64_t count;
        } numbers = {{1, 2, 3, 4, 5, 6, 7, 8}, 42};
        rig r;
        tn_err e;
        rig_new(&r);
        int fd = mkstemp(path);
        assert_true(fd >= 0);
        close(fd);
        snprintf(header, sizeof header,
                 "{\"bn.bias\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                 "\"bn.weight\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]},"
                 "\"bn.running_mean\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[16,24]},"
                 "\"bn.running_var\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[24,32]},%s}",
                 counters[i].text);
        write_file(path, header, &numbers, sizeof numbers);
        int code = tn_load_weights(path, r.ps, note, sizeof note, &e);
        if (counters[i].refused) {
            assert_int_equal(code, -1);
            assert_contains(e.msg, counters[i].refused);
        } else {
            if (code) fail_msg("%s", e.msg);
            assert_true(r.l.bias->w[1] == 2 && r.l.running_mean->w[0] == 5 && r.l.running_var->w[1] == 8);
            assert_null(strstr(note, "num_batches"));
            assert_int_equal(tn_save_weights(path, r.ps, NULL, &e),
                             0); /* written without it, and read back */
            r.l.running_var->w[1] = 0;
            assert_int_equal(tn_load_weights(path, r.ps, NULL, 0, &e), 0);
            assert_true(r.l.running_var->w[1] == 8);
        }
        unlink(path);
        rig_free(&r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),         cmocka_unit_test(once_a_step),     cmocka_unit_test(refused_step),
        cmocka_unit_test(plans_by_hand), cmocka_unit_test(evaluation),      cmocka_unit_test(wrong_shapes),
        cmocka_unit_test(not_a_number),  cmocka_unit_test(pytorch_counter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
