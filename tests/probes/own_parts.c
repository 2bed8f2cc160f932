/* SPDX-License-Identifier: MIT */
/*
 * An op, an optimizer and a model defined outside the tree, with the same structs as the built-in ones:
 * the op can be differentiated twice, options come from tables, and the model trains with the optimizer.
 */
#include "probe.h"
#include "tern.h"
#include "tern_models.h"

/* The op: softsign x / (1 + |x|), slope 1 / (1 + |x|)^2. */
static void softsign_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    gx[0] = tn_mul(gy, tn_pow(tn_shift(tn_abs(y->src[0]), 1), -2));
}
static const tn_op softsign_op = {.name = "softsign", .vjp = softsign_vjp};
static tn_t *softsign(tn_t *x) {
    tn_t *y = tn_new(x->tape, x->nd, x->dim);
    for (size_t i = 0; i < x->len; i++) y->x[i] = x->x[i] / (1 + (tn_real)fabs((double)x->x[i]));
    return tn_result(&softsign_op, y, 1, &x, NULL, 0);
}

/* The optimizer: w -= lr sign(g); no state. */
typedef struct {
    double lr;
} sign_hp;
static const tn_opt sign_options[] = {TN_OPT_REAL(sign_hp, lr, 0.01, 0, 1, TN_OPEN_MIN, "length of a step"),
                                      TN_OPT_END};
static void sign_update(const void *hp, const tn_tick *tick, const tn_opt_tensor *p, size_t lo, size_t hi) {
    tn_real lr = (tn_real)(((const sign_hp *)hp)->lr * tick->lr_mul);
    for (size_t i = lo; i < hi; i++) p->w[i] -= lr * (tn_real)((p->g[i] > 0) - (p->g[i] < 0));
}
static const tn_optim_def sign_descent = {
    .abi = TN_ABI,
    .size = sizeof(tn_optim_def),
    .name = "signsgd",
    .summary = "sign of the gradient",
    .source = "Bernstein et al., arXiv:1802.04434",
    .hp_size = sizeof(sign_hp),
    .hp = sign_options,
    .scope = TN_ELEMENT,
    .update = sign_update,
};

/* The model: one hidden layer with softsign. */
typedef struct {
    long hidden;
} soft_cfg;
typedef struct {
    tn_linear fc1, fc2;
} soft_net;
static const tn_opt soft_options[] = {TN_OPT_INT(soft_cfg, hidden, 16, 1, 4096, "width of the hidden layer"),
                                      TN_OPT_END};
static int soft_build(void *net, const void *cfg, const tn_model_shape *s, tn_params *params, tn_err *e) {
    soft_net *m = net;
    int hidden = (int)((const soft_cfg *)cfg)->hidden;
    if (s->nd != 1) return tn_fail(e, "soft: samples have %d dimensions, it takes 1", s->nd);
    m->fc1 = tn_linear_new(params, "fc1", s->dim[0], hidden, 1);
    m->fc2 = tn_linear_new(params, "fc2", hidden, s->outputs, 1);
    return 0;
}
static tn_t *soft_forward(const void *net, tn_t *x) {
    const soft_net *m = net;
    return tn_linear_fwd(&m->fc2, softsign(tn_linear_fwd(&m->fc1, x, TN_ACT_NONE)), TN_ACT_NONE);
}
static const tn_model_def soft = {
    TN_ABI,           sizeof(tn_model_def), "soft",           "one hidden layer, softsign",
    sizeof(soft_cfg), soft_options,         sizeof(soft_net), soft_build,
    soft_forward};

int main(void) {
    tn_err e;
    tn_tape *tape = tn_tape_new(&e);
    EXPECT(tape, "%s", e.msg);
    tn_t *x = tn_leaf(tape, (tn_real[]){-3, 0.5f, 1}, 1, (int[]){3}), *g[1], *gg[1];
    tn_grad(tn_sum(softsign(x)), NULL, 1, &x, g, 1);
    tn_grad(tn_sum(g[0]), NULL, 1, &x, gg, 0);
    EXPECT(probe_close(g[0]->x[0], 1 / 16., 1e-6) && probe_close(g[0]->x[2], 1 / 4., 1e-6),
           "first derivative");
    EXPECT(probe_close(gg[0]->x[0], 2 / 64., 1e-6) && probe_close(gg[0]->x[2], -2 / 8., 1e-6),
           "second derivative");

    const tn_model_shape shape = {.nd = 1, .dim = {2}, .outputs = 2};
    EXPECT(!tn_model_new_def(&soft, "hiden=8", &shape, 1, &e), "a misspelt option went through");
    EXPECT(strstr(e.msg, "hiden") && strstr(e.msg, "hidden"), "'%s' names no option", e.msg);
    EXPECT(!tn_model_new_def(&soft, "", &(tn_model_shape){.nd = 3, .dim = {1, 2, 2}, .outputs = 2}, 1, &e),
           "shape");
    tn_model *m = tn_model_new_def(&soft, "hidden=8", &shape, 1, &e);
    EXPECT(m, "%s", e.msg);
    char text[128];
    tn_model_text(m, text, sizeof text);
    EXPECT(strcmp(text, "soft:hidden=8") == 0, "'%s'", text);
    tn_optim *optim = tn_optim_new_def(m->params, &sign_descent, NULL, &e);
    EXPECT(optim, "%s", e.msg);

    double loss = 0, start = 0; /* exclusive or */
    for (long t = 1; t <= 200; t++) {
        tn_tick tick = tn_tick_at(t, 200, NULL, NULL);
        tn_tape_reset(tape);
        tn_t *in = tn_input(tape, (tn_real[]){0, 0, 0, 1, 1, 0, 1, 1}, 2, (int[]){4, 2});
        loss = tn_backward(tn_cross_entropy(tn_forward(m, in), (int[]){0, 1, 1, 0}, NULL), m->params, 0);
        start = t == 1 ? loss : start;
        tn_optim_step(optim, &tick);
    }
    EXPECT(loss < 0.1 && start > 0.4, "loss %.4g from %.4g", loss, start);
    tn_optim_free(optim);
    tn_model_free(m);
    tn_tape_free(tape);
    return 0;
}
