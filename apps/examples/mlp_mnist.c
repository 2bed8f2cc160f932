/* SPDX-License-Identifier: MIT */
/* mlp_mnist [DIRECTORY]: two linear layers learn a part of MNIST in two epochs. */
#include <stdio.h>
#include <tern.h>
#include <tern_data.h>

enum { IMAGES = 12000, BATCH = 50, EPOCHS = 2, STEPS = EPOCHS * IMAGES / BATCH };
typedef struct {
    tn_linear fc1, fc2;
} net;

/* Images (n, 1, 28, 28) -> (n, 10) */
static tn_t *forward(const net *m, tn_t *x) {
    x = tn_reshape(x, 2, (int[]){x->dim[0], -1});
    return tn_linear_fwd(&m->fc2, tn_linear_fwd(&m->fc1, x, TN_ACT_RELU), TN_ACT_NONE);
}

static int largest(const tn_real *row) {
    int best = 0;
    for (int k = 1; k < 10; k++) best = row[k] > row[best] ? k : best;
    return best;
}

int main(int argc, char **argv) {
    tn_err err;
    tn_dataset mnist;
    tn_data_options options = tn_data_options_default();
    options.train_size = IMAGES, options.normalize = 1;
    if (tn_dataset_open(argc > 1 ? argv[1] : "data/mnist", &options, &mnist, &err))
        return fprintf(stderr, "%s\n", err.msg), 1;
    tn_params *params = tn_params_new();
    net m;
    m.fc1 = tn_linear_new(params, "fc1", 784, 128, 1);
    m.fc2 = tn_linear_new(params, "fc2", 128, 10, 1);
    int sealed = tn_params_seal(params, 1, &err) == 0;
    tn_optim *optim = sealed ? tn_optim_new(params, "adamw:lr=1e-3,weight_decay=0.1", &err) : NULL;
    tn_tape *tape = optim ? tn_tape_new(&err) : NULL;
    if (!tape) return fprintf(stderr, "%s\n", err.msg), 1;

    int order[IMAGES], label[BATCH], right = 0;
    for (int step = 0; step < STEPS; step++) {
        const int *chosen = order + step * BATCH % IMAGES;
        if (chosen == order) tn_epoch_order(1, step * BATCH / IMAGES, IMAGES, 1, order);
        tn_tape_reset(tape);
        tn_t *y = forward(&m, tn_batch_input(tape, &mnist.train, BATCH, chosen, 0));
        tn_batch_labels(&mnist.train, BATCH, chosen, 0, label);
        double loss = tn_backward(tn_cross_entropy(y, label, NULL), params, 0);
        tn_tick tick = tn_tick_at(step + 1, STEPS, NULL, NULL);
        tn_optim_step(optim, &tick);
        if ((step + 1) % 60 == 0) printf("step %3d: loss %.4f\n", step + 1, loss);
    }
    tn_record(tape, 0); /* from here on values only */
    for (int first = 0; first < mnist.test.n; first += BATCH) {
        tn_tape_reset(tape);
        tn_t *y = forward(&m, tn_batch_input(tape, &mnist.test, BATCH, NULL, first));
        tn_batch_labels(&mnist.test, BATCH, NULL, first, label);
        for (int i = 0; i < BATCH; i++) right += largest(y->x + 10 * i) == label[i];
    }
    double accuracy = (double)right / mnist.test.n;
    printf("test accuracy %.2f%%\n", 100 * accuracy);

    tn_tape_free(tape);
    tn_optim_free(optim);
    tn_params_free(params);
    tn_dataset_free(&mnist);
    return accuracy < 0.92;
}
