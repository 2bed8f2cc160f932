/* SPDX-License-Identifier: MIT */
/*
 * A seed means the same weights on every machine: some steps of every model, on data made by formula, must end in the
 * weights whose hash is recorded here, for 1, 2, 3 and 4 threads and at every vector level that this machine runs. The
 * sizes are such that every special path of the kernels is taken. The level is chosen once a process, so each one gets a
 * process of its own.
 *
 *   build/tests/test_bits                            the test
 *   build/tests/test_bits --brief                    with fewer numbers of threads, for an emulator
 *   build/tests/test_bits --print >tests/bits.def    records anew what this machine's best level gives: after a change
 *                                                    of the order in which a kernel sums, once it is meant
 *
 * The plain level is slow and takes the small cases alone. Without cmocka, so that tests/arm64.sh can build it for
 * another machine. NaN passes through: an image with one such pixel has no finite output, its neighbours do not notice.
 */
#include "internal.h"
#include "kernels.h"
#include "tern_data.h"
#include "tern_models.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_IMAGES = 128, CLASSES = 10, STEPS = 3, SMALL = 1 };

static const struct {
    const char *spec, *optimizer;
    int side, batch, small;
    uint64_t hash;
} cases[] = {
#include "bits.def"
};
enum { CASES = sizeof cases / sizeof *cases };

/* ---- data ---- */

typedef struct {
    tn_model *model;
    tn_data data;
    unsigned char *pixels;
    int label[MOST_IMAGES], order[MOST_IMAGES], batch_label[MOST_IMAGES], n;
} task;

static void stop(const char *what, const char *why) {
    fprintf(stderr, "test_bits: %s: %s\n", what, why);
    exit(1);
}

/* Twice as many images as a step takes would be more than some cases need: the step goes around. One in five is lit. */
static void make_data(task *k, int side, int n) {
    tn_err e;
    size_t len = (size_t)side * (size_t)side;
    tn_rng g = tn_rng_make(3, "bits", "", 0, 0);
    k->n = n;
    if (!(k->pixels = malloc((size_t)n * len))) stop("data", "not enough memory");
    for (size_t i = 0; i < (size_t)n * len; i++)
        k->pixels[i] = tn_below(&g, 5) ? 0 : (unsigned char)(1 + tn_below(&g, 255));
    for (int i = 0; i < n; i++) k->label[i] = tn_below(&g, CLASSES);
    tn_permutation(&g, n, k->order);
    if (tn_data_from_arrays(&k->data, n, 3, (int[]){1, side, side}, TN_U8, k->pixels, k->label, CLASSES, NULL,
                            0, &e))
        stop("data", e.msg);
}

/* ---- a few steps ---- */

/* In two parts, as with --accumulate 2, the first the larger. */
static tn_t *loss_of(void *arg, tn_tape *t, int micro, double *weight) {
    task *k = arg;
    int cut = k->n - k->n / 3, at = micro ? cut : 0, n = micro ? k->n - cut : cut;
    *weight = n;
    tn_batch_labels(&k->data, n, k->order + at, 0, k->batch_label);
    return tn_cross_entropy(tn_forward(k->model, tn_batch_input(t, &k->data, n, k->order + at, 0)),
                            k->batch_label, NULL);
}

static uint64_t hash_floats(const tn_real *w, size_t n) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) {
        float f = (float)w[i];
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        for (int b = 0; b < 32; b += 8) h = (h ^ (bits >> b & 255)) * 0x100000001b3u;
    }
    return h;
}

/* One NaN among the pixels of image 1: all its outputs are NaN, those of image 0 and 2 as without. */
static void check_nan(const task *k, int side, const char *spec) {
    tn_err e;
    size_t len = (size_t)side * (size_t)side;
    tn_real *x = calloc(3 * len, sizeof *x), clean[3 * CLASSES];
    tn_tape *t = tn_tape_new(&e);
    if (!x || !t) stop(spec, "not enough memory");
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < 3 * len; i++) x[i] = (tn_real)k->pixels[i] / 255;
        if (pass) x[len + len / 2] = (tn_real)NAN;
        tn_tape_reset(t);
        tn_record(t, 0);
        const tn_t *y = tn_forward(k->model, tn_input(t, x, 4, (int[]){3, 1, side, side}));
        for (int i = 0; i < 3 * CLASSES; i++)
            if (!pass)
                clean[i] = y->x[i];
            else if (i / CLASSES == 1 ? !isnan(y->x[i]) : y->x[i] != clean[i])
                stop(spec, i / CLASSES == 1 ? "a NaN was swallowed" : "a NaN spread to another image");
    }
    tn_tape_free(t);
    free(x);
}

static uint64_t hash_of(int c, int threads) {
    tn_err e;
    task k;
    tn_step_result r;
    const int side = cases[c].side;
    make_data(&k, side, cases[c].batch);
    k.model = tn_model_new(cases[c].spec, &(tn_model_shape){3, {1, side, side}, CLASSES}, 7, &e);
    if (!k.model) stop(cases[c].spec, e.msg);
    tn_optim *o = tn_optim_new(k.model->params, cases[c].optimizer, &e);
    tn_stepper *s = o ? tn_stepper_new(k.model->params, o, &(tn_step_options){2, 1, 0}, &e) : NULL;
    tn_tape *t = s ? tn_tape_new(&e) : NULL;
    if (!t) stop(cases[c].spec, e.msg);
    tn_set_threads(threads);
    for (int i = 0; i < STEPS; i++) {
        tn_tick tick = tn_tick_at(i + 1, STEPS, NULL, NULL);
        tick.batch = k.n, tick.seed = 5;
        if (tn_stepper_run(s, t, loss_of, &k, &tick, &r)) stop(cases[c].spec, r.nonfinite);
    }
    size_t len;
    const tn_real *w = tn_params_flat(k.model->params, &len);
    uint64_t hash = hash_floats(w, len);
    if (threads == 1) check_nan(&k, side, cases[c].spec);
    tn_tape_free(t), tn_stepper_free(s), tn_optim_free(o), tn_model_free(k.model);
    free(k.pixels);
    return hash;
}

/* ---- the test ---- */

/* All cases at the level of this process; how many went wrong. */
static int check_level(const char *level, int brief) {
    int bad = 0, plain = strcmp(level, "plain") == 0, most = plain ? 2 : 4;
    for (int c = 0; c < CASES; c++)
        for (int threads = 1; threads <= most && (!plain || cases[c].small); threads++) {
            if (brief && threads > (cases[c].small ? 2 : 1)) break;
            uint64_t h = hash_of(c, threads);
            if (h == cases[c].hash) continue;
            bad++;
            fprintf(stderr,
                    "test_bits: %s, level %s, %d thread%s: %016" PRIx64 ", recorded is %016" PRIx64 "\n",
                    cases[c].spec, level, threads, threads > 1 ? "s" : "", h, cases[c].hash);
        }
    return bad;
}

enum { SAME, DIFFERENT, NOT_OURS };

/* Nothing before this may ask for kernels: the first who does chooses the level of the process and its children. */
static int run_level(const char *level, int brief) {
    int status = 1;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        setenv("TERN_SIMD", level, 1);
        const char *now = tn_simd(NULL);
        if (!now || strcmp(now, level) != 0) stop(level, "is not the level of its process");
        if (strcmp(tn_gemm_backend_name(), "own") != 0) _exit(NOT_OURS);
        int bad = check_level(level, brief);
        fflush(NULL);
        _exit(bad ? DIFFERENT : SAME);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0) stop(level, "no process for it");
    status = WIFEXITED(status) ? WEXITSTATUS(status) : DIFFERENT;
    printf("%-7s %s\n", level,
           status == SAME        ? "same bits"
           : status == DIFFERENT ? "DIFFERS"
                                 : "skipped: OpenBLAS's products");
    return status;
}

static void print_cases(void) {
    printf("/* Model, optimizer, side of the images, batch, plain level too?, hash: made by test_bits "
           "--print */\n");
    for (int c = 0; c < CASES; c++)
        printf("{\"%s\", \"%s\", %d, %d, %s, 0x%016" PRIx64 "},\n", cases[c].spec, cases[c].optimizer,
               cases[c].side, cases[c].batch, cases[c].small ? "SMALL" : "0", hash_of(c, 1));
}

static void every_model_is_here(void) {
    int n;
    const tn_model_def *const *list = tn_models(&n);
    for (int i = 0; i < n; i++) {
        int found = 0;
        for (int c = 0; c < CASES; c++) {
            char name[TN_MAX_NAME];
            tn_spec_split(cases[c].spec, name, sizeof name);
            found |= !strcmp(name, list[i]->name);
        }
        if (!found) stop(list[i]->name, "has no case here");
    }
}

int main(int argc, char **argv) {
    static const char *const levels[] = {"plain", "avx2", "avx512", "neon"};
    int bad = 0, run = 0, brief = argc > 1 && strcmp(argv[1], "--brief") == 0;
    if (argc > 1 && strcmp(argv[1], "--print") == 0) return print_cases(), 0;
    every_model_is_here();
    for (int i = 0; i < 4; i++)
        if (tn_kernels_level(levels[i])) {
            int code = run_level(levels[i], brief);
            bad += code == DIFFERENT;
            run += code != NOT_OURS;
        }
    if (!run) return 77;
    if (bad)
        fprintf(
            stderr,
            "test_bits: if the order of a sum was changed on purpose: test_bits --print >tests/bits.def\n");
    return bad ? 1 : 0;
}
