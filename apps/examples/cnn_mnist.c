/* SPDX-License-Identifier: MIT */
/* cnn_mnist [DIRECTORY]: two convolutions with pooling, dropout and a linear layer learn a part of MNIST. */
#include <stdio.h>
#include <tern.h>
#include <tern_data.h>

enum { IMAGES = 8000, BATCH = 50, EPOCHS = 1, STEPS = EPOCHS * IMAGES / BATCH };
typedef struct {
    tn_conv_layer conv1, conv2;
    tn_linear fc;
} net;

/* Images (n, 1, 28, 28) -> (n, 10) */
static tn_t *forward(const net *m, tn_t *x) {
    tn_pool two = tn_pool_square(2);
    x = tn_max_pool2d(tn_conv_fwd(&m->conv1, x, TN_ACT_RELU), &two);
    x = tn_max_pool2d(tn_conv_fwd(&m->conv2, x, TN_ACT_RELU), &two);
    x = tn_dropout(tn_reshape(x, 2, (int[]){x->dim[0], -1}), 0.25, "dropout");
    return tn_linear_fwd(&m->fc, x, TN_ACT_NONE);
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
    m.conv1 = tn_conv_new(params, "conv1", 1, 8, 3, tn_conv_valid(), 1);
    m.conv2 = tn_conv_new(params, "conv2", 8, 16, 3, tn_conv_valid(), 1);
    m.fc = tn_linear_new(params, "fc", 16 * 5 * 5, 10, 1);
    int sealed = tn_params_seal(params, 1, &err) == 0;
    tn_optim *optim = sealed ? tn_optim_new(params, "adamw:lr=4e-3,weight_decay=0.01", &err) : NULL;
    tn_tape *tape = optim ? tn_tape_new(&err) : NULL;
    if (!tape) return fprintf(stderr, "%s\n", err.msg), 1;

    int order[IMAGES], label[BATCH], right = 0;
    for (int step = 0; step < STEPS; step++) {
        const int *chosen = order + step * BATCH % IMAGES;
        if (chosen == order) tn_epoch_order(1, step * BATCH / IMAGES, IMAGES, 1, order);
        tn_tape_reset(tape);
        tn_train_mode(tape, 1, step, 0); /* dropout drops */
        tn_t *y = forward(&m, tn_batch_input(tape, &mnist.train, BATCH, chosen, 0));
        tn_batch_labels(&mnist.train, BATCH, chosen, 0, label);
        double loss = tn_backward(tn_cross_entropy(y, label, NULL), params, 0);
        tn_tick tick = tn_tick_at(step + 1, STEPS, NULL, NULL);
        tn_optim_step(optim, &tick);
        if ((step + 1) % 60 == 0) printf("step %3d: loss %.4f\n", step + 1, loss);
    }
    tn_eval_mode(tape);
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
    return accuracy < 0.94;
}
