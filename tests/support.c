/* SPDX-License-Identifier: MIT */
/* What several tests share; see support.h. */
#include "support.h"
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef TERN_SOURCE_DIR
#define TERN_SOURCE_DIR "."
#endif

json_t *golden_load(const char *file) {
    char path[1024];
    json_error_t e;
    snprintf(path, sizeof path, "%s/tests/golden/%s", TERN_SOURCE_DIR, file);
    json_t *root = json_load_file(path, 0, &e);
    if (!root) fail_msg("%s:%d: %s", path, e.line, e.text);
    return root;
}

void golden_uniform(uint64_t seed, double scale, size_t n, double *out) {
    for (size_t i = 0; i < n; i++) {
        uint64_t z = seed += UINT64_C(0x9E3779B97F4A7C15);
        z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
        z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
        z ^= z >> 31;
        out[i] = scale * (((double)(z >> 43) - 1048576) / 1048576);
    }
}

void golden_reals(const json_t *array, size_t n, tn_real *out) {
    if (!json_is_array(array) || json_array_size(array) != n) fail_msg("expected an array of %zu numbers", n);
    for (size_t i = 0; i < n; i++) out[i] = (tn_real)json_number_value(json_array_get(array, i));
}

double golden_distance(const tn_real *got, const json_t *want) {
    double top = 0, worst = 0;
    size_t n = json_array_size(want);
    if (n == 0) fail_msg("expected an array of numbers");
    for (size_t i = 0; i < n; i++) {
        double w = json_number_value(json_array_get(want, i)), d = fabs((double)got[i] - w);
        top = fmax(top, fabs(w));
        worst = d >= 0 ? fmax(worst, d) : INFINITY;
    }
    return worst == 0 ? 0 : worst / top;
}

int same_bits(const tn_real *a, const tn_real *b, size_t n) {
    return memcmp(a, b, n * sizeof *a) == 0;
}

void check_near_at(double got, double want, double rel, const char *file, int line) {
    if (got == want || fabs(got - want) <= rel * fabs(want)) return;
    print_error("got %.17g, want %.17g, relative error %.3g > %.3g\n", got, want, fabs(got / want - 1), rel);
    _fail(file, line);
}

void check_contains_at(const char *text, const char *part, const char *file, int line) {
    if (strstr(text, part)) return;
    print_error("\"%s\" does not hold \"%s\"\n", text, part);
    _fail(file, line);
}

int panics(void (*fn)(void *), void *arg, const char *message) {
    char text[4096];
    size_t n = 0;
    int fd[2], status;
    if (pipe(fd)) fail_msg("pipe");
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) fail_msg("fork");
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        dup2(fd[1], STDERR_FILENO);
        close(fd[0]);
        fn(arg);
        _exit(0);
    }
    close(fd[1]);
    for (ssize_t got; n < sizeof text - 1 && (got = read(fd[0], text + n, sizeof text - 1 - n)) > 0;)
        n += (size_t)got;
    text[n] = 0;
    close(fd[0]);
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && strstr(text, message);
}
