/* SPDX-License-Identifier: MIT */
#include "kernel_rig.h"
#include "kernels.h"
#include "support.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int run_at_every_level(int (*run)(void)) {
    static const char *const levels[] = {"plain", "avx2", "avx512", "neon"};
    int bad = 0, status;
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        if (!tn_kernels_level(levels[i])) continue;
        printf("level %s\n", levels[i]), fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            setenv("TERN_SIMD", levels[i], 1);
            exit(run());
        }
        bad |= child < 0 || waitpid(child, &status, 0) != child || status != 0;
    }
    return bad;
}

int draw(int lo, int hi) {
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return lo + (int)((state >> 33) % (uint64_t)(hi - lo + 1));
}

tn_real *reals(size_t n) {
    tn_real *x = malloc((n + 1) * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) x[i] = (tn_real)draw(-1000, 1000) / 512;
    return x;
}
