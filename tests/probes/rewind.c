/* SPDX-License-Identifier: MIT */
/*
 * An inner loop between tn_mark and tn_rewind: what was made in it is gone, bindings too, the tape before
 * it is untouched, and a thousand rounds take the memory of one.
 */
#include "probe.h"
#include "tern.h"

int main(void) {
    tn_err e;
    tn_tape *tape = tn_tape_new(&e);
    EXPECT(tape, "%s", e.msg);
    tn_params *params = tn_params_new();
    tn_param *p = tn_param_add(params, NULL, "w", 0, tn_init_const(0.5), 1, (int[]){1000});
    EXPECT(tn_params_seal(params, 1, &e) == 0, "%s", e.msg);
    tn_t *w = tn_use(tape, p), *before = tn_scale(w, 3);
    tn_real sum = 0;
    size_t bytes = 0;
    for (int round = 0; round < 1000; round++) {
        tn_place place = tn_mark(tape);
        tn_t *fast = tn_scale(w, 2), *g[1];
        EXPECT(!tn_bind(tape, p, fast) && tn_use(tape, p) == fast, "not bound in round %d", round);
        tn_grad(tn_sum(tn_mul(tn_use(tape, p), before)), NULL, 1, &w, g, round % 2); /* d 6 w^2 = 12 w */
        EXPECT(g[0]->x[7] == 6, "gradient %g in round %d", (double)g[0]->x[7], round);
        sum += g[0]->x[0];
        tn_rewind(tape, place);
        EXPECT(tn_use(tape, p) == w, "still bound after the rewind");
        place = tn_mark(tape);
        tn_t *other = tn_scale(w, 5); /* may lie where fast lay; that does not make it the binding */
        EXPECT(tn_use(tape, p) == w && other->x[0] == 2.5f, "a dropped binding came back");
        tn_rewind(tape, place);
        if (round == 1) bytes = tn_tape_bytes(tape);
    }
    EXPECT(sum == 6000, "sum %g", (double)sum);
    EXPECT(tn_tape_bytes(tape) == bytes, "memory grew from %zu to %zu bytes", bytes, tn_tape_bytes(tape));
    EXPECT(before->x[999] == 1.5f, "the tape before the mark was touched");
    tn_params_free(params);
    tn_tape_free(tape);
    return 0;
}
