/* SPDX-License-Identifier: MIT */
/*
 * The decay report: the gradient's part of a step against a program that never heard of the decay (moments in double from
 * the gradients alone, divided by the optimizer's own root), windows against a report of every step, and that nothing
 * changes by looking.
 */
#include "support.h"
#include <math.h>
#include <stdio.h>

enum { OUT = 210, IN = 100, N = OUT * IN, STEPS = 260 };

typedef struct {
    tn_params *params;
    tn_param *w, *b, *still;
    tn_optim *o;
    tn_decay_report *report;
} rig;

static void rig_new(rig *r, const char *spec, long every) {
    tn_err e;
    *r = (rig){.params = tn_params_new()};
    r->w = tn_param_add(r->params, "fc", "weight", 0, tn_init_uniform(-1, 1), 2, (int[]){OUT, IN});
    r->b = tn_param_add(r->params, "fc", "bias", TN_NO_DECAY, tn_init_uniform(-1, 1), 1, (int[]){OUT});
    r->still = tn_param_add(r->params, "fc", "frozen", TN_FROZEN, tn_init_uniform(-1, 1), 1, (int[]){3});
    assert_int_equal(tn_params_seal(r->params, 7, NULL), 0);
    if (!(r->o = tn_optim_new(r->params, spec, &e))) fail_msg("%s: %s", spec, e.msg);
    if (every && !(r->report = tn_decay_report_new(r->params, r->o, every, &e)))
        fail_msg("%s: %s", spec, e.msg);
}

static void rig_free(rig *r) {
    tn_decay_report_free(r->report), tn_optim_free(r->o), tn_params_free(r->params);
}

/* Some that is the same for long, some that turns, and a pull to a point of its own. */
static void step(rig *r, int t) {
    tn_tick k = tn_tick_at(t, STEPS, NULL, NULL);
    k.wd_mul = t > 130 ? 0.5 : 1, k.lr_mul = 1 - 0.002 * t;
    for (size_t i = 0; i < N; i++)
        r->w->g[i] = (tn_real)(0.3 * sin((double)i * 0.7 + t * 0.05) + 0.5 * (double)r->w->w[i]
                               - 0.1 * (double)(i % 3));
    for (size_t i = 0; i < OUT; i++) r->b->g[i] = (tn_real)cos((double)i + t);
    for (size_t i = 0; i < 3; i++) r->still->g[i] = 1;
    tn_optim_step(r->o, &k);
}

typedef struct {
    double lr, lambda, beta, dampening, alpha;
    int nesterov;
    const char *root; /* slot under the root; NULL: none */
    double corr2, eps, corr1;
    int scaled; /* the moment gathers g / root */
    /* or a rule of its own: -the gradient's part per rate; state: the first two slots before and after the step */
    double (*own)(int t, double g, const double before[3], const double after[3], double *moment);
} rule;

static double adamax_alone(int t, double g, const double before[3], const double after[3], double *moment) {
    (void)before;
    *moment = 0.9 * *moment + 0.1 * g;
    return *moment / (1 - pow(0.9, t)) / after[1];
}
static double nadam_mu(int t) {
    return 0.9 * (1 - 0.5 * pow(0.96, t * 0.004));
}
static double nadam_alone(int t, double g, const double before[3], const double after[3], double *moment) {
    double product = 1;
    (void)before;
    for (int s = 1; s <= t; s++) product *= nadam_mu(s);
    *moment = 0.9 * *moment + 0.1 * g;
    const double ahead =
        (1 - nadam_mu(t)) / (1 - product) * g + nadam_mu(t + 1) / (1 - product * nadam_mu(t + 1)) * *moment;
    return ahead / (sqrt(after[1] / (1 - pow(0.999, t))) + 1e-8);
}
static double radam_alone(int t, double g, const double before[3], const double after[3], double *moment) {
    const double b = pow(0.9, t), most = 2 / (1 - 0.9) - 1, rho = most - 2 * t * b / (1 - b);
    (void)before;
    *moment = 0.9 * *moment + 0.1 * g;
    const double m = *moment / (1 - pow(0.9, t));
    if (rho <= 5) return m;
    return m * sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho)) * sqrt(1 - b)
           / (sqrt(after[1]) + 1e-8);
}
static double adadelta_alone(int t, double g, const double before[3], const double after[3], double *moment) {
    (void)t, (void)moment;
    return sqrt(before[1] + 1e-6) / sqrt(after[0] + 1e-6) * g;
}

static double centered_alone(int t, double g, const double before[3], const double after[3], double *moment) {
    const double var = after[0] - after[2] * after[2];
    (void)t, (void)before;
    *moment = 0.8 * *moment + g / (sqrt(var > 0 ? var : 0) + 1e-2);
    return *moment;
}

/* One step of the moment of the gradient alone, and its part of the update. */
static double gradient_alone(const rule *u, int t, double g, double v, const double before[3],
                             const double after[3], double *moment) {
    const double rate = u->lr * (1 - 0.002 * t);
    if (u->own) return -rate * u->own(t, g, before, after, moment);
    const double root = u->root ? sqrt(v / (u->corr2 > 0 ? 1 - pow(u->corr2, t) : 1)) + u->eps : 1;
    const double take = u->corr1 > 0 ? 1 - u->beta : t == 1 ? 1 : 1 - u->dampening;
    if (u->scaled) {
        *moment = u->beta * *moment + g / root;
        return -rate * *moment;
    }
    *moment = u->beta * *moment + take * g;
    const double m = u->nesterov ? g + u->beta * *moment : *moment;
    return -rate * m / (u->corr1 > 0 ? 1 - pow(u->corr1, t) : 1) / root;
}

static const tn_real *slot(rig *r, const char *name) {
    const char *at;
    size_t len;
    const tn_real *x;
    for (int s = 0; (x = tn_optim_slot(r->o, 0, s, &at, &len)); s++)
        if (strcmp(at, name) == 0) return x;
    return NULL;
}

static void against_reference(const char *spec, const rule *u) {
    static double moment[N], old[N], state[3][N];
    rig r;
    rig_new(&r, spec, 1);
    memset(moment, 0, sizeof moment);
    for (int t = 1; t <= STEPS; t++) {
        int n;
        double alone = 0, decay = 0, update = 0, norm = 0, grad = 0;
        for (size_t i = 0; i < N; i++) old[i] = (double)r.w->w[i];
        const tn_real *s[3];
        for (int k = 0; k < 3; k++) s[k] = tn_optim_slot(r.o, 0, k, NULL, NULL);
        for (size_t i = 0; i < N; i++)
            for (int k = 0; k < 3; k++) state[k][i] = s[k] ? (double)s[k][i] : 0;
        step(&r, t);
        const tn_real *v = u->root ? slot(&r, u->root) : NULL;
        for (size_t i = 0; i < N; i++) {
            const double g = (double)r.w->g[i], du = (double)r.w->w[i] - old[i];
            const double before[3] = {state[0][i], state[1][i], state[2][i]};
            const double after[3] = {s[0] ? (double)s[0][i] : 0, s[1] ? (double)s[1][i] : 0,
                                     s[2] ? (double)s[2][i] : 0};
            const double part = gradient_alone(u, t, g, v ? (double)v[i] : 0, before, after, &moment[i]);
            alone += part * part, decay += (du - part) * (du - part), update += du * du;
            norm += old[i] * old[i], grad += g * g;
        }
        const tn_decay_row *row = tn_decay_report_rows(r.report, &n);
        const double close = sizeof(tn_real) == 8 ? 1e-9 : 2e-3;
        assert_int_equal(n, 2); /* what is frozen has no row */
        assert_string_equal(row[0].name, "fc.weight");
        assert_near(row[0].gradient_rms, sqrt(alone / N), close);
        if (!(fabs(row[0].decay_rms - sqrt(decay / N))
              <= close * sqrt(decay / N) + (sizeof(tn_real) == 4 ? 1e-7 : 1e-15) * sqrt(norm / N)))
            fail_msg("%s, step %d: decay %.9g, the update without the gradient's part %.9g", spec, t,
                     row[0].decay_rms, sqrt(decay / N));
        assert_near(row[0].update_rms, sqrt(update / N), 1e-6);
        assert_near(row[0].grad_rms, sqrt(grad / N), 1e-6);
        assert_near(row[0].weight_norm, sqrt(norm), 1e-6);
        assert_near(row[0].update_ratio, sqrt(update / norm), 1e-6);
        assert_true(row[1].decay_rms == 0 && row[1].gradient_rms == row[1].update_rms
                    && row[1].update_rms > 0);
    }
    rig_free(&r);
}

static const rule adaml2 = {.lr = 0.01, .beta = 0.9, .root = "v", .corr2 = 0.999, .eps = 1e-8, .corr1 = 0.9};

static void parts_of_each(void **state) {
    (void)state;
    rule u = adaml2;
    against_reference("adaml2:lr=0.01,weight_decay=0.5", &u);
    against_reference("adamw:lr=0.01,weight_decay=0.5", &u);
    against_reference("adam:lr=0.01", &u);
    against_reference("adamw:lr=0.01,weight_decay=0.005,decay=independent", &u);
    u.root = "vmax";
    against_reference("adaml2:lr=0.01,weight_decay=0.5,amsgrad=on", &u);
    u = (rule){.lr = 0.01};
    against_reference("sgd:lr=0.01,weight_decay=0.5", &u);
    against_reference("sgd:lr=0.01,weight_decay=0.5,decay=decoupled", &u);
    u.beta = 0.9, u.dampening = 0.3;
    against_reference("sgd:lr=0.01,weight_decay=0.5,momentum=0.9,dampening=0.3", &u);
    u.dampening = 0, u.nesterov = 1;
    against_reference("sgd:lr=0.01,weight_decay=0.5,momentum=0.9,nesterov=on", &u);
    u = (rule){.lr = 0.01, .root = "sum", .eps = 1e-10};
    against_reference("adagrad:lr=0.01,weight_decay=0.5", &u);
    u = (rule){.lr = 0.001, .root = "square_avg", .eps = 1e-8};
    against_reference("rmsprop:lr=0.001,weight_decay=0.5", &u);
    u.scaled = 1, u.beta = 0.8;
    against_reference("rmsprop:lr=0.001,weight_decay=0.5,momentum=0.8", &u);
    u = (rule){.lr = 0.001, .own = centered_alone};
    against_reference("rmsprop:lr=0.001,weight_decay=0.5,momentum=0.8,centered=on,eps=1e-2", &u);
    u = (rule){.lr = 0.01, .own = adamax_alone};
    against_reference("adamax:lr=0.01,weight_decay=0.5", &u);
    u.own = nadam_alone;
    against_reference("nadam:lr=0.01,weight_decay=0.5", &u);
    against_reference("nadam:lr=0.01,weight_decay=0.5,decoupled_weight_decay=on", &u);
    u.own = radam_alone;
    against_reference("radam:lr=0.01,weight_decay=0.5,beta2=0.9", &u);
    u.own = adadelta_alone;
    against_reference("adadelta:lr=0.01,weight_decay=0.5", &u);
}

/*
 * Every so many steps, whole windows and cut ones, and from the middle of one: near what a report of every step says, from
 * 64 steps or less that begin with a guess, and of which those further back share passes. It looks at the weights alone.
 */
static void window(const char *spec, long every, int begin) {
    rig whole, some, none;
    size_t len;
    const int penalty = strncmp(spec, "adamw", 5) != 0;
    int records = 0;
    rig_new(&whole, spec, 1), rig_new(&some, spec, begin > 1 ? 0 : every), rig_new(&none, spec, 0);
    for (int t = 1; t <= STEPS; t++) {
        int a, b = 0;
        if (t == begin && !some.report)
            assert_non_null(some.report = tn_decay_report_new(some.params, some.o, every, NULL));
        step(&whole, t), step(&some, t), step(&none, t);
        const tn_decay_row *x = tn_decay_report_rows(whole.report, &a),
                           *y = some.report ? tn_decay_report_rows(some.report, &b) : NULL;
        assert_int_equal(a, 2);
        assert_int_equal(b, t >= begin && t % every == 0 ? 2 : 0);
        assert_int_equal(x[0].tracked, penalty ? t : 0);
        if (!b) continue;
        const long seen = every > 64 && t - begin >= 63 ? 64 : t - begin + 1;
        /* 5% where it came late; 2% where step 131, which halves lambda, shares a pass with one before */
        const int late = begin > 1 && seen<64, cut = t> 131 && t - 131 < every && every < 64;
        const double close = !penalty ? 0 : late ? 5e-2 : cut ? 2e-2 : 2e-3;
        assert_int_equal(y[0].tracked, penalty ? seen : 0);
        assert_near(y[0].decay_rms, x[0].decay_rms, close);
        assert_near(y[0].gradient_rms, x[0].gradient_rms, close);
        assert_near(y[0].update_rms, x[0].update_rms, 0);
        assert_near(y[1].update_rms, x[1].update_rms, 0);
        records++;
    }
    assert_int_equal(records, STEPS / every - (begin - 1) / every);
    const tn_real *w = tn_params_flat(none.params, &len);
    assert_true(same_bits(w, tn_params_flat(whole.params, NULL), len));
    assert_true(same_bits(w, tn_params_flat(some.params, NULL), len));
    rig_free(&whole), rig_free(&some), rig_free(&none);
}

static void windows(void **state) {
    (void)state;
    static const char *const specs[] = {
        "adaml2:lr=0.01,weight_decay=0.5", "sgd:lr=0.01,weight_decay=0.5,momentum=0.9,dampening=0.3",
        "rmsprop:lr=0.001,weight_decay=0.5,momentum=0.8", "adamw:weight_decay=0.5"};
    static const long every[] = {100, 64, 63, 50, 41, 13, 2};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        for (size_t j = 0; j < sizeof every / sizeof *every; j++) window(specs[i], every[j], 1);
        window(specs[i], 100, 171); /* the first of three steps */
        window(specs[i], 100, 181);
    }
}

/* lookahead pulls the weights back every 5 steps; the record is of the optimizer's own update. */
static void wrappers(void **state) {
    (void)state;
    rig plain, wrapped;
    int n, m;
    rig_new(&plain, "adaml2:lr=0.01,weight_decay=0.5", 5);
    rig_new(&wrapped, "adaml2:lr=0.01,weight_decay=0.5+lookahead:k=5", 5);
    for (int t = 1; t <= 5; t++) step(&plain, t), step(&wrapped, t);
    const tn_decay_row *x = tn_decay_report_rows(plain.report, &n),
                       *y = tn_decay_report_rows(wrapped.report, &m);
    assert_true(n == 2 && m == 2);
    assert_true(plain.w->w[0] < wrapped.w->w[0] || plain.w->w[0] > wrapped.w->w[0]);
    for (int i = 0; i < n; i++)
        assert_true(x[i].decay_rms == y[i].decay_rms && x[i].gradient_rms == y[i].gradient_rms
                    && x[i].update_rms == y[i].update_rms && x[i].weight_norm == y[i].weight_norm);
    rig_free(&plain), rig_free(&wrapped);
}

/* More weights than a pass of partial sums takes; from a first step, w - lr g - lr lambda w. */
static void large(void **state) {
    (void)state;
    enum { LEN = 300001 };
    double decay = 0, gradient = 0, update = 0, g = 0, norm = 0;
    static tn_real before[LEN];
    tn_params *params = tn_params_new();
    tn_param *w = tn_param_add(params, "fc", "weight", 0, tn_init_uniform(-1, 1), 2, (int[]){1, LEN});
    assert_int_equal(tn_params_seal(params, 7, NULL), 0);
    tn_optim *o = tn_optim_new(params, "sgd:lr=0.125,weight_decay=0.5", NULL);
    tn_decay_report *r = tn_decay_report_new(params, o, 1, NULL);
    assert_true(o && r);
    for (size_t i = 0; i < LEN; i++) {
        const double x = (double)w->w[i], y = i < LEN / 2 ? 0.01 : 3 + 0.001 * (double)(i % 1000);
        before[i] = w->w[i], w->g[i] = (tn_real)y;
        decay += 0.0625 * x * 0.0625 * x, gradient += 0.125 * y * 0.125 * y, g += y * y, norm += x * x;
    }
    const tn_tick k = tn_tick_at(1, 10, NULL, NULL);
    tn_optim_step(o, &k);
    for (size_t i = 0; i < LEN; i++) {
        const double u = (double)w->w[i] - (double)before[i];
        update += u * u;
    }
    int n;
    const tn_decay_row *row = tn_decay_report_rows(r, &n);
    assert_int_equal(n, 1);
    assert_near(row->decay_rms, sqrt(decay / LEN), 1e-6);
    assert_near(row->gradient_rms, sqrt(gradient / LEN), 1e-6);
    assert_near(row->update_rms, sqrt(update / LEN), 1e-6);
    assert_near(row->grad_rms, sqrt(g / LEN), 1e-6);
    assert_near(row->weight_norm, sqrt(norm), 1e-6);
    tn_decay_report_free(r), tn_optim_free(o), tn_params_free(params);
}

/* The same numbers with any number of threads, and when moments are taken to another report in between. */
static void threads_and_going_on(void **state) {
    (void)state;
    const char *spec = "adaml2:lr=0.01,weight_decay=0.5";
    rig a, b;
    int n, m;
    size_t len;
    rig_new(&a, spec, 20), rig_new(&b, spec, 20);
    for (int t = 1; t <= 100; t++) {
        tn_set_threads(1);
        step(&a, t);
        tn_set_threads(3);
        step(&b, t);
        if (t == 47) {
            tn_decay_report *other = NULL;
            const long tracked = tn_decay_report_tracked(b.report);
            static tn_real saved[2 * N];
            const tn_real *moments = tn_decay_report_moments(b.report, &len);
            assert_true(tracked == 47 && len <= 2 * N);
            memcpy(saved, moments, len * sizeof *saved);
            tn_decay_report_free(b.report);
            assert_non_null(other = tn_decay_report_new(b.params, b.o, 20, NULL));
            memcpy(tn_decay_report_moments(other, &len), saved, len * sizeof *saved);
            tn_decay_report_go_on(other, tracked);
            b.report = other;
        }
        const tn_decay_row *x = tn_decay_report_rows(a.report, &n), *y = tn_decay_report_rows(b.report, &m);
        assert_true(n == m && n == (t % 20 == 0 ? 2 : 0));
        for (int i = 0; i < n; i++)
            assert_true(x[i].decay_rms == y[i].decay_rms && x[i].gradient_rms == y[i].gradient_rms
                        && x[i].tracked == y[i].tracked && x[i].weight_norm == y[i].weight_norm);
    }
    tn_set_threads(0);
    rig_free(&a), rig_free(&b);
}

static void some_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    (void)hp, (void)k;
    for (size_t i = lo; i < hi; i++) p->w[i] -= p->g[i];
}

static void refusals(void **state) {
    (void)state;
    typedef struct {
        double lr, weight_decay;
    } silent_hp;
    static const tn_opt opts[] = {TN_OPT_REAL(silent_hp, lr, 1, 0, 1, 0, "rate"),
                                  TN_OPT_REAL(silent_hp, weight_decay, 0, 0, 1, 0, "decay"), TN_OPT_END};
    const tn_optim_def silent = {.abi = TN_ABI,
                                 .size = sizeof silent,
                                 .name = "silent",
                                 .hp_size = sizeof(silent_hp),
                                 .hp = opts,
                                 .scope = TN_ELEMENT,
                                 .update = some_update};
    rig r;
    tn_err e = {""};
    rig_new(&r, "adam", 0);
    assert_null(tn_decay_report_new(r.params, r.o, 0, &e));
    assert_contains(e.msg, "1 or more");
    tn_optim_free(r.o);
    r.o = tn_optim_new_def(r.params, &silent, "weight_decay=0.1", NULL);
    assert_null(tn_decay_report_new(r.params, r.o, 1, &e));
    assert_contains(e.msg, "silent does not tell its decay");
    tn_optim_free(r.o);
    r.o = tn_optim_new_def(r.params, &silent, NULL, NULL);
    assert_non_null(r.report = tn_decay_report_new(r.params, r.o, 1, &e));
    tn_decay_report_free(NULL);
    rig_free(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(parts_of_each),
                                       cmocka_unit_test(windows),
                                       cmocka_unit_test(wrappers),
                                       cmocka_unit_test(large),
                                       cmocka_unit_test(threads_and_going_on),
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
