/* SPDX-License-Identifier: MIT */
/*
 * MAML (Finn et al., arXiv:1703.03400): two inner steps with create_graph, fast weights through tn_bind,
 * so that a layer's ordinary forward uses them; the meta-gradient must equal finite differences through
 * the inner steps.
 */
#define TN_DOUBLE 1
#include "probe.h"
#include "tern.h"

enum { IN = 2, HIDDEN = 4, ROWS = 3, MAX_PARAMS = 8 };
typedef struct {
    tn_params *params;
    tn_linear fc1, fc2;
} net;

static const double train_x[] = {0.3, -0.7, 1.1, 0.2, -0.4, 0.9}, train_y[] = {0.5, -0.25, 1};
static const double val_x[] = {-0.6, 0.8, 0.1, 1.3, 0.7, -1.2}, val_y[] = {0.25, 0.75, -0.5};

static tn_t *loss(const net *m, tn_tape *tape, const double *x, const double *y) {
    tn_t *h = tn_linear_fwd(&m->fc1, tn_input(tape, x, 2, (int[]){ROWS, IN}), TN_ACT_TANH);
    return tn_mse(tn_linear_fwd(&m->fc2, h, TN_ACT_NONE), tn_input(tape, y, 2, (int[]){ROWS, 1}), TN_MEAN);
}

/* Loss on the validation rows after two steps on the training rows. */
static tn_t *meta_loss(const net *m, tn_tape *tape) {
    tn_t *w[MAX_PARAMS], *g[MAX_PARAMS];
    int n = tn_params_count(m->params);
    tn_tape_reset(tape);
    for (int step = 0; step < 2; step++) {
        for (int i = 0; i < n; i++) w[i] = tn_use(tape, tn_params_at(m->params, i));
        tn_grad(loss(m, tape, train_x, train_y), NULL, n, w, g, 1);
        for (int i = 0; i < n; i++)
            tn_bind(tape, tn_params_at(m->params, i), tn_sub(w[i], tn_scale(g[i], 0.3)));
    }
    return loss(m, tape, val_x, val_y);
}

int main(void) {
    tn_err e;
    tn_tape *tape = tn_tape_new(&e);
    EXPECT(tape, "%s", e.msg);
    net m = {.params = tn_params_new()};
    m.fc1 = tn_linear_new(m.params, "fc1", IN, HIDDEN, 1);
    m.fc2 = tn_linear_new(m.params, "fc2", HIDDEN, 1, 1);
    EXPECT(tn_params_seal(m.params, 3, &e) == 0, "%s", e.msg);

    tn_backward(meta_loss(&m, tape), m.params, 0); /* reaches the leaves behind the fast weights */
    for (int k = 0; k < tn_params_count(m.params); k++) {
        tn_param *p = tn_params_at(m.params, k);
        for (size_t i = 0; i < p->len; i++) {
            const double h = 1e-5, w = p->w[i];
            double f[2];
            for (int s = 0; s < 2; s++) {
                p->w[i] = s ? w + h : w - h;
                tn_params_touch(m.params);
                f[s] = tn_value(meta_loss(&m, tape));
            }
            p->w[i] = w;
            double want = (f[1] - f[0]) / (2 * h);
            EXPECT(fabs(p->g[i] - want) < 1e-8, "%s[%zu]: %.12g, differences %.12g", p->name, i, p->g[i],
                   want);
        }
    }
    EXPECT(tn_grad_norm(m.params) > 1e-3, "meta-gradient is zero");

    /* tn_bind(NULL) undoes a binding; so does tn_tape_reset. */
    tn_params_touch(m.params);
    meta_loss(&m, tape);
    tn_t *fast = tn_use(tape, m.fc1.weight);
    EXPECT(tn_bind(tape, m.fc1.weight, NULL) == fast, "tn_bind does not say what was bound before");
    EXPECT(tn_use(tape, m.fc1.weight)->param == m.fc1.weight, "still bound");
    tn_tape_reset(tape);
    EXPECT(tn_use(tape, m.fc2.weight)->param == m.fc2.weight, "still bound after a reset");
    tn_params_free(m.params);
    tn_tape_free(tape);
    return 0;
}
