/* SPDX-License-Identifier: MIT */
/*
 * A host that catches a shape error and goes on: the tape's hook gets the message (op and both shapes)
 * and leaves by longjmp; after tn_tape_reset the tape is as good as new, and its settings are what they
 * were.
 */
#include "probe.h"
#include "tern.h"
#include <setjmp.h>

typedef struct {
    jmp_buf env;
    char msg[512];
} host;

static void hook(void *arg, const char *msg) {
    host *h = arg;
    snprintf(h->msg, sizeof h->msg, "%s", msg);
    longjmp(h->env, 1);
}

static tn_t *ones(tn_tape *tape, int rows, int cols) {
    return tn_full(tape, 1, 2, (int[]){rows, cols});
}

static void bug(tn_tape *tape, tn_tape *other, int which) {
    switch (which) {
    case 0:
        tn_add(ones(tape, 2, 3), ones(tape, 2, 4));
        break;
    case 1:
        tn_matmul(ones(tape, 2, 3), ones(tape, 4, 5), 0, 0);
        break;
    case 2:
        tn_mse(ones(tape, 6, 1), tn_full(tape, 1, 1, (int[]){6}), TN_MEAN);
        break; /* no silent broadcast */
    case 3:
        tn_reshape(ones(tape, 2, 3), 2, (int[]){4, -1});
        break;
    case 4:
        tn_slice(ones(tape, 2, 3), 1, 1, 4);
        break;
    case 5:
        tn_linear_act(ones(tape, 2, 3), ones(tape, 4, 5), NULL, TN_ACT_RELU);
        break;
    case 6:
        tn_cross_entropy(ones(tape, 1, 3), (int[]){3}, NULL);
        break;
    case 7:
        tn_add(ones(tape, 2, 3), ones(other, 2, 3));
        break; /* two tapes */
    }
}

int main(void) {
    static const char *const part[][3] = {
        {"add", "(2, 3)", "(2, 4)"}, {"matmul", "(2, 3)", "(4, 5)"},
        {"mse", "(6, 1)", "(6"},     {"reshape", "(2, 3)", "4"},
        {"slice", "[1, 4)", "3"},    {"linear", "(2, 3)", "(4, 5)"},
        {"cross", "3", ""},          {"add", "tape", ""},
    };
    static host h;
    tn_err e;
    tn_tape *tape = tn_tape_new(&e), *other = tn_tape_new(&e);
    EXPECT(tape && other, "%s", e.msg);
    tn_on_panic(tape, hook, &h);
    tn_train_mode(tape, 3, 5, 7);
    for (volatile int i = 0; i < 8; i++) {
        if (setjmp(h.env) == 0) {
            bug(tape, other, i);
            EXPECT(0, "case %d (%s) went through", i, part[i][0]);
        }
        for (int k = 0; k < 3; k++)
            EXPECT(strstr(h.msg, part[i][k]), "case %d: '%s' does not say '%s'", i, h.msg, part[i][k]);
        puts(h.msg);

        tn_tape_reset(tape); /* and the host goes on: d sum(x^2) / dx = 2 x */
        tn_t *x = tn_leaf(tape, (tn_real[]){1, 2, 3}, 1, (int[]){3}), *g[1];
        tn_grad(tn_sum(tn_square(x)), NULL, 1, &x, g, 0);
        tn_mode mode = tn_tape_mode(tape);
        EXPECT(mode.record && mode.train && mode.seed == 3 && mode.step == 5 && mode.first_row == 7,
               "other mode");
        EXPECT(g[0]->x[0] == 2 && g[0]->x[1] == 4 && g[0]->x[2] == 6, "wrong gradient after case %d", i);
    }
    tn_tape_free(tape);
    tn_tape_free(other);
    return 0;
}
