/* SPDX-License-Identifier: MIT */
/*
 * The kernel that transposes, at every vector level that this machine runs (a process each): shapes on all its ways (whole
 * blocks, narrow ones, six rows, one by one), rows apart or not, and what lies between and behind rows is left alone.
 */
#include "catch.h"
#include "kernel_rig.h"
#include "kernels.h"
#include <stdlib.h>

static void check(int rows, int cols, int gap_src, int gap_dst) {
    enum { GUARD = 40, MARK = 12345 };
    const int ld_src = cols + gap_src, ld_dst = rows + gap_dst;
    const size_t room = (size_t)(cols * ld_dst + GUARD);
    tn_real *src = reals((size_t)(rows * ld_src)), *dst = malloc(room * sizeof *dst);
    assert_non_null(dst);
    for (size_t i = 0; i < room; i++) dst[i] = MARK;
    tn_kernels_get(NULL)->transpose(rows, cols, src, ld_src, dst, ld_dst);
    for (int c = 0; c < cols; c++)
        for (int r = 0; r < ld_dst; r++) {
            tn_real want = r < rows ? src[r * ld_src + c] : MARK, got = dst[c * ld_dst + r];
            if (got != want)
                fail_msg("(%d, %d): %.9g, not %.9g; %d x %d, rows %d and %d apart", r, c, (double)got,
                         (double)want, rows, cols, ld_src, ld_dst);
        }
    for (int i = 0; i < GUARD; i++) assert_true(dst[cols * ld_dst + i] == MARK);
    free(src), free(dst);
}

static void shapes(void **unused) {
    (void)unused;
    check(6, 196, 0, 0), check(6, 14, 3, 0), check(6, 16, 0, 2), check(196, 6, 2, 0), check(196, 6, 0, 0);
    check(16, 25, 0, 0), check(25, 16, 0, 0), check(1, 1, 0, 0), check(1, 100, 0, 0), check(100, 1, 0, 0);
    for (int i = 0; i < 400; i++) {
        int rows = draw(1, 70), cols = draw(1, 70);
        if (draw(0, 3) == 0) rows = draw(1, 9);
        if (draw(0, 3) == 0) cols = draw(1, 9);
        check(rows, cols, draw(0, 1) * draw(0, 9), draw(0, 1) * draw(0, 9));
    }
}

static int run(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(shapes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void) {
    return run_at_every_level(run);
}
