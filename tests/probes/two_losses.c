/* SPDX-License-Identifier: MIT */
/*
 * Two losses on one tape: each has gradients of its own, in any order, and the tape stays good after
 * each.
 */
#include "probe.h"
#include "tern.h"

int main(void) {
    tn_err e;
    tn_tape *tape = tn_tape_new(&e);
    EXPECT(tape, "%s", e.msg);
    tn_params *params = tn_params_new();
    tn_linear body = tn_linear_new(params, "body", 3, 8, 1);
    tn_linear head_a = tn_linear_new(params, "a", 8, 2, 1), head_b = tn_linear_new(params, "b", 8, 1, 1);
    EXPECT(tn_params_seal(params, 7, &e) == 0, "%s", e.msg);

    const tn_real pixels[] = {0.5f, -1, 2, 1, 0.25f, -0.5f, -1, 1, 1, 0, 2, -2}, wanted[] = {1, 0, -1, 0.5f};
    const int label[] = {0, 1, 1, 0};
    tn_t *x = tn_input(tape, pixels, 2, (int[]){4, 3});
    tn_t *h = tn_linear_fwd(&body, x, TN_ACT_TANH);
    tn_t *class_loss = tn_cross_entropy(tn_linear_fwd(&head_a, h, TN_ACT_NONE), label, NULL);
    tn_t *target = tn_input(tape, wanted, 2, (int[]){4, 1});
    tn_t *value_loss = tn_mse(tn_linear_fwd(&head_b, h, TN_ACT_NONE), target, TN_MEAN);

    /* Each alone, then their sum, then one added to the other: the same numbers three times. */
    size_t len;
    tn_real *g = tn_params_flat_grad(params, &len), *sum = calloc(len, sizeof *sum);
    EXPECT(sum, "out of memory");
    tn_backward(value_loss, params, 0);
    EXPECT(head_a.weight->g[0] == 0 && head_b.weight->g[0] != 0, "the value loss reached the wrong head");
    for (size_t i = 0; i < len; i++) sum[i] += g[i];
    tn_backward(class_loss, params, 0);
    EXPECT(head_b.weight->g[0] == 0 && head_a.weight->g[0] != 0, "the class loss reached the wrong head");
    for (size_t i = 0; i < len; i++) sum[i] += g[i];
    tn_backward(tn_add(class_loss, value_loss), params, 0);
    for (size_t i = 0; i < len; i++)
        EXPECT(probe_close(g[i], sum[i], 1e-6), "sum, gradient %zu: %.9g, want %.9g", i, g[i], sum[i]);
    tn_backward(value_loss, params, 0);
    tn_backward(class_loss, params, TN_ACCUMULATE);
    for (size_t i = 0; i < len; i++)
        EXPECT(probe_close(g[i], sum[i], 1e-6), "added, gradient %zu: %.9g, want %.9g", i, g[i], sum[i]);

    /* The gradient of one loss with respect to an inner tensor, on the same tape. */
    tn_t *gh[1];
    tn_grad(value_loss, NULL, 1, &h, gh, 0);
    EXPECT(tn_same_shape(gh[0], h), "gradient and tensor differ in shape");
    free(sum);
    tn_params_free(params);
    tn_tape_free(tape);
    return 0;
}
