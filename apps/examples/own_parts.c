/* SPDX-License-Identifier: MIT */
/*
 * own_parts [DIRECTORY]: an operation, a layer, a model and an optimizer that tern does not have, made outside
 * its tree with the structs that the built-in ones use; then they learn a part of MNIST together.
 */
#include <math.h>
#include <stdio.h>
#include <tern.h>
#include <tern_data.h>
#include <tern_models.h>

/*
 * An operation: SiLU, x s(x) with s the sigmoid (Elfwing et al., arXiv:1702.03118). Its slope s (1 + x (1 - s))
 * is made of tn_ functions, so it can be differentiated again and again.
 */
static void silu_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    tn_t *x = y->src[0], *s = tn_sigmoid(x);
    gx[0] = tn_mul(gy, tn_mul(s, tn_shift(tn_mul(x, tn_shift(tn_neg(s), 1)), 1)));
}
static const tn_op silu_op = {.name = "silu", .vjp = silu_vjp};
static tn_t *silu(tn_t *x) {
    tn_t *y = tn_new(x->tape, x->nd, x->dim);
    for (size_t i = 0; i < x->len; i++) y->x[i] = x->x[i] / (1 + (tn_real)exp(-(double)x->x[i]));
    return tn_result(&silu_op, y, 1, &x, NULL, 0);
}

/*
 * A layer: highway, x + t (h - x) with a gate t that starts mostly shut (Srivastava et al., arXiv:1505.00387).
 * It is put together from operations and other layers, so it needs no gradient of its own.
 */
typedef struct {
    tn_linear body;
    tn_param *weight, *bias; /* of the gate */
} highway;
static highway highway_new(tn_params *params, const char *name, int n) {
    char body[TN_MAX_NAME];
    snprintf(body, sizeof body, "%s.body", name);
    highway l;
    l.body = tn_linear_new(params, body, n, n, 1);
    l.weight = tn_param_add(params, name, "gate.weight", 0, tn_init_pytorch(), 2, (int[]){n, n});
    l.bias = tn_param_add(params, name, "gate.bias", TN_NO_DECAY, tn_init_const(-1), 1, (int[]){n});
    return l;
}
static tn_t *highway_fwd(const highway *l, tn_t *x) {
    tn_t *gate = tn_linear_act(x, tn_use(x->tape, l->weight), tn_use(x->tape, l->bias), TN_ACT_SIGMOID);
    tn_t *h = silu(tn_linear_fwd(&l->body, x, TN_ACT_NONE));
    return tn_add(x, tn_mul(gate, tn_sub(h, x)));
}

/* A model, with options. */
enum { MAX_DEPTH = 8 };
typedef struct {
    long width, depth;
} cfg;
typedef struct {
    int depth;
    tn_linear in, out;
    highway layer[MAX_DEPTH];
} net;
static const tn_opt model_options[] = {TN_OPT_INT(cfg, width, 64, 1, 4096, "width of every layer"),
                                       TN_OPT_INT(cfg, depth, 2, 0, MAX_DEPTH, "highway layers"), TN_OPT_END};
static int build(void *net_, const void *cfg_, const tn_model_shape *s, tn_params *params, tn_err *err) {
    net *m = net_;
    const cfg *c = cfg_;
    int inputs = 1, width = (int)c->width;
    for (int i = 0; i < s->nd; i++) inputs *= s->dim[i];
    if (inputs > 1 << 24) return tn_fail(err, "model highway: %d numbers a sample are too many", inputs);
    m->depth = (int)c->depth;
    m->in = tn_linear_new(params, "in", inputs, width, 1);
    for (int i = 0; i < m->depth; i++) {
        char name[24];
        snprintf(name, sizeof name, "layer.%d", i);
        m->layer[i] = highway_new(params, name, width);
    }
    m->out = tn_linear_new(params, "out", width, s->outputs, 1);
    return 0;
}
static tn_t *forward(const void *net_, tn_t *x) {
    const net *m = net_;
    x = silu(tn_linear_fwd(&m->in, tn_reshape(x, 2, (int[]){x->dim[0], -1}), TN_ACT_NONE));
    for (int i = 0; i < m->depth; i++) x = highway_fwd(&m->layer[i], x);
    return tn_linear_fwd(&m->out, x, TN_ACT_NONE);
}
static const tn_model_def highway_net = {.abi = TN_ABI,
                                         .size = sizeof(tn_model_def),
                                         .name = "highway",
                                         .summary = "linear, highway layers, linear",
                                         .cfg_size = sizeof(cfg),
                                         .cfg = model_options,
                                         .net_size = sizeof(net),
                                         .build = build,
                                         .forward = forward};

/*
 * An optimizer: Lion (Chen et al., arXiv:2302.06675). The weights decay and step along the sign of a mix of
 * momentum and gradient; one number of state a weight, saved with checkpoints under its name.
 */
typedef struct {
    double lr, beta1, beta2, weight_decay;
} lion_options;
static const tn_opt lion_table[] = {
    TN_OPT_REAL(lion_options, lr, 1e-4, 0, 1, TN_OPEN_MIN, "length of a step"),
    TN_OPT_REAL(lion_options, beta1, 0.9, 0, 1, TN_OPEN_MAX, "share of the momentum in the step"),
    TN_OPT_REAL(lion_options, beta2, 0.99, 0, 1, TN_OPEN_MAX, "what the momentum keeps a step"),
    TN_OPT_REAL(lion_options, weight_decay, 0, 0, 1e6, 0, "lambda: w -= lr lambda w"),
    TN_OPT_END,
};
static int lion_slots(const void *options, int nd, const int *dim, tn_slot out[]) {
    (void)options;
    out[0] = (tn_slot){.name = "momentum", .len = 1, .init = 0};
    for (int i = 0; i < nd; i++) out[0].len *= (size_t)dim[i];
    return 1;
}
static void lion_update(const void *options, const tn_tick *tick, const tn_opt_tensor *p, size_t lo,
                        size_t hi) {
    const lion_options *o = options;
    double lr = o->lr * tick->lr_mul,
           decay = p->flags & TN_NO_DECAY ? 0 : lr * o->weight_decay * tick->wd_mul;
    tn_real b1 = (tn_real)o->beta1, b2 = (tn_real)o->beta2, keep = (tn_real)(1 - decay), *m = p->slot[0];
    for (size_t i = lo; i < hi; i++) {
        tn_real mix = b1 * m[i] + (1 - b1) * p->g[i];
        p->w[i] = keep * p->w[i] - (tn_real)lr * (tn_real)((mix > 0) - (mix < 0));
        m[i] = b2 * m[i] + (1 - b2) * p->g[i];
    }
}
static const tn_optim_def lion = {.abi = TN_ABI,
                                  .size = sizeof(tn_optim_def),
                                  .name = "lion",
                                  .summary = "sign of momentum and gradient",
                                  .source = "Chen et al., arXiv:2302.06675",
                                  .hp_size = sizeof(lion_options),
                                  .hp = lion_table,
                                  .scope = TN_ELEMENT,
                                  .slots = lion_slots,
                                  .update = lion_update};

/* First and second derivative of silu at 0 are 1/2 and 1/2. */
static int silu_is_right(tn_tape *tape) {
    tn_t *x = tn_leaf(tape, (tn_real[]){0}, 1, (int[]){1}), *slope, *bend;
    tn_grad(silu(x), NULL, 1, &x, &slope, 1);
    tn_grad(slope, NULL, 1, &x, &bend, 0);
    return fabs(tn_value(slope) - 0.5) < 1e-6 && fabs(tn_value(bend) - 0.5) < 1e-6;
}

static int largest(const tn_real *row) {
    int best = 0;
    for (int k = 1; k < 10; k++) best = row[k] > row[best] ? k : best;
    return best;
}

int main(int argc, char **argv) {
    enum { IMAGES = 12000, BATCH = 50, STEPS = IMAGES / BATCH };
    tn_err err;
    tn_dataset mnist;
    tn_data_options options = tn_data_options_default();
    options.train_size = IMAGES, options.normalize = 1;
    if (tn_dataset_open(argc > 1 ? argv[1] : "data/mnist", &options, &mnist, &err))
        return fprintf(stderr, "%s\n", err.msg), 1;
    tn_model_shape shape = {.nd = 3, .dim = {1, 28, 28}, .outputs = 10};
    tn_model *model = tn_model_new_def(&highway_net, "width=64,depth=2", &shape, 1, &err);
    tn_optim *optim = model ? tn_optim_new_def(model->params, &lion, "lr=1e-3,weight_decay=0.1", &err) : NULL;
    tn_tape *tape = optim ? tn_tape_new(&err) : NULL;
    if (!tape) return fprintf(stderr, "%s\n", err.msg), 1;
    if (!silu_is_right(tape)) return fprintf(stderr, "the derivatives of silu are wrong\n"), 1;

    int order[IMAGES], label[BATCH], right = 0;
    tn_epoch_order(1, 0, IMAGES, 1, order);
    for (int step = 0; step < STEPS; step++) {
        const int *chosen = order + step * BATCH;
        tn_tape_reset(tape);
        tn_t *y = tn_forward(model, tn_batch_input(tape, &mnist.train, BATCH, chosen, 0));
        tn_batch_labels(&mnist.train, BATCH, chosen, 0, label);
        double loss = tn_backward(tn_cross_entropy(y, label, NULL), model->params, 0);
        tn_tick tick = tn_tick_at(step + 1, STEPS, NULL, NULL);
        tn_optim_step(optim, &tick);
        if ((step + 1) % 40 == 0) printf("step %3d: loss %.4f\n", step + 1, loss);
    }
    tn_record(tape, 0);
    for (int first = 0; first < mnist.test.n; first += BATCH) {
        tn_tape_reset(tape);
        tn_t *y = tn_forward(model, tn_batch_input(tape, &mnist.test, BATCH, NULL, first));
        tn_batch_labels(&mnist.test, BATCH, NULL, first, label);
        for (int i = 0; i < BATCH; i++) right += largest(y->x + 10 * i) == label[i];
    }
    double accuracy = (double)right / mnist.test.n;
    char text[2][256];
    tn_model_text(model, text[0], sizeof text[0]);
    tn_optim_text(optim, text[1], sizeof text[1]);
    printf("%s with %s: test accuracy %.2f%%\n", text[0], text[1], 100 * accuracy);

    tn_tape_free(tape);
    tn_optim_free(optim);
    tn_model_free(model);
    tn_dataset_free(&mnist);
    return accuracy < 0.9;
}
