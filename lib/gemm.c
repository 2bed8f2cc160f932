/* SPDX-License-Identifier: MIT */
/*
 * Products: how one is cut into chunks of work, which library runs it, and the cache of packed weights.
 *
 * Every element is one chain of fused multiply-adds over k, whatever the chunks, so the cut may follow speed alone;
 * it is still a function of shape only. Row blocks keep 32 rows or more, so that a packed panel is reused; column
 * blocks are whole panels of the widest level.
 */
#include "internal.h"
#include "kernels/kernels.h"
#include <cblas.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#ifdef TN_DOUBLE
#define blas_gemm cblas_dgemm
#else
#define blas_gemm cblas_sgemm
#endif

/* -1: not asked for; the double build and processors without fused multiply-add take OpenBLAS then. */
static atomic_int backend = -1;

int tn_gemm_own(void) {
    int b = atomic_load_explicit(&backend, memory_order_relaxed);
    if (b >= 0) return b;
#ifdef TN_DOUBLE
    b = 0;
#else
    const char *forced = getenv("TERN_SIMD");
    const tn_kernels_t *k = tn_kernels_get(NULL);
    b = k && (strcmp(k->name, "plain") != 0 || (forced && !strcmp(forced, "plain")));
#endif
    atomic_store_explicit(&backend, b, memory_order_relaxed);
    return b;
}

int tn_gemm_backend(const char *word, tn_err *e) {
    int own = !strcmp(word, "own");
    if (!own && strcmp(word, "openblas") != 0)
        return tn_fail(e, "gemm: %s is not a way to make products; the words are own, openblas", word);
    atomic_store(&backend, own);
    return 0;
}

const char *tn_gemm_backend_name(void) {
    return tn_gemm_own() ? "own" : "openblas";
}

/* ---- cutting ---- */

enum { MIN_ROWS = 32, MIN_COLS = 2 * TN_NR_MAX, MAX_BLOCKS = 64 };
static const double MIN_CHUNK_OPS = 1 << 17; /* about a microsecond: what a thread that spins costs to call */

typedef struct {
    tn_gemm_args g;
    const tn_kernels_t *k;
    int row_blocks, col_blocks, panels;
    int by_columns; /* chunks that follow each other share columns, not rows */
} gemm_job;

static int cut(int n, int blocks, int i) {
    return (int)((long)n * i / blocks);
}

static void gemm_chunk(void *p, int chunk) {
    const gemm_job *j = p;
    const tn_gemm_args *g = &j->g;
    int rb = j->by_columns ? chunk % j->row_blocks : chunk / j->col_blocks;
    int cb = j->by_columns ? chunk / j->row_blocks : chunk % j->col_blocks;
    int r0 = cut(g->m, j->row_blocks, rb), r1 = cut(g->m, j->row_blocks, rb + 1);
    int c0 = cut(j->panels, j->col_blocks, cb) * TN_NR_MAX,
        c1 = cut(j->panels, j->col_blocks, cb + 1) * TN_NR_MAX;
    if (c1 > g->n) c1 = g->n;
    if (r0 >= r1 || c0 >= c1) return;
    const tn_real *a = g->a + r0 * g->ars, *bias = g->bias ? g->bias + c0 : NULL;
    tn_real *c = g->c + r0 * g->ldc + c0;
    if (g->packed_b)
        j->k->gemm(r1 - r0, c1 - c0, g->k, a, g->ars, g->acs, g->packed_b + (size_t)c0 * (size_t)g->k, c,
                   g->ldc, g->add, bias, g->relu);
    else
        j->k->gemm_raw_b(r1 - r0, c1 - c0, g->k, a, g->ars, g->acs, g->b + c0 * g->bcs, g->brs, g->bcs, c,
                         g->ldc, g->add, bias, g->relu);
}

/* ---- OpenBLAS ---- */

static void gemm_blas(const tn_gemm_args *g) {
    CBLAS_TRANSPOSE ta = g->acs == 1 ? CblasNoTrans : CblasTrans,
                    tb = g->bcs == 1 ? CblasNoTrans : CblasTrans;
    /* a single row or column may carry any stride, but BLAS wants one that could be a leading dimension */
    ptrdiff_t lda = ta == CblasNoTrans ? g->ars : g->acs, ldb = tb == CblasNoTrans ? g->brs : g->bcs;
    int wide_a = ta == CblasNoTrans ? g->k : g->m, wide_b = tb == CblasNoTrans ? g->n : g->k;
    if (lda < wide_a) lda = wide_a;
    if (ldb < wide_b) ldb = wide_b;
    blas_gemm(CblasRowMajor, ta, tb, g->m, g->n, g->k, 1, g->a, (int)lda, g->b, (int)ldb, g->add ? 1 : 0,
              g->c, (int)g->ldc);
    for (int i = 0; i < g->m && (g->bias || g->relu); i++) {
        tn_real *c = g->c + i * g->ldc;
        for (int j = 0; j < g->n; j++) {
            if (g->bias) c[j] += g->bias[j];
            if (g->relu) c[j] = c[j] < 0 ? 0 : c[j];
        }
    }
}

void tn_gemm_serial(const tn_gemm_args *g) {
    if (!tn_gemm_own()) {
        gemm_blas(g);
        return;
    }
    const tn_kernels_t *k = tn_kernels_get(NULL);
    if (g->packed_b)
        k->gemm(g->m, g->n, g->k, g->a, g->ars, g->acs, g->packed_b, g->c, g->ldc, g->add, g->bias, g->relu);
    else
        k->gemm_raw_b(g->m, g->n, g->k, g->a, g->ars, g->acs, g->b, g->brs, g->bcs, g->c, g->ldc, g->add,
                      g->bias, g->relu);
}

void tn_gemm(const tn_gemm_args *g) {
    if (!tn_gemm_own()) {
        gemm_blas(g);
        return;
    }
    gemm_job j = {
        *g, tn_kernels_get(NULL), 1, 1, (g->n + TN_NR_MAX - 1) / TN_NR_MAX, g->packed_b && g->n >= g->m};
    double ops = 2.0 * g->m * g->n * g->k;
    if (j.by_columns)
        while (2 * j.col_blocks <= j.panels && j.col_blocks < 16 && ops / j.col_blocks > 2 * MIN_CHUNK_OPS)
            j.col_blocks *= 2;
    if (g->packed_b)
        while (2 * j.row_blocks * MIN_ROWS <= g->m && j.row_blocks * j.col_blocks < MAX_BLOCKS
               && ops / (j.row_blocks * j.col_blocks) > 2 * MIN_CHUNK_OPS
               && !(j.by_columns && j.row_blocks * j.col_blocks >= 8))
            j.row_blocks *= 2;
    while (!j.by_columns && 2 * j.col_blocks * MIN_COLS <= g->n && j.row_blocks * j.col_blocks < 16
           && ops / (j.row_blocks * j.col_blocks) > 2 * MIN_CHUNK_OPS)
        j.col_blocks *= 2;
    while (!g->packed_b && 2 * j.row_blocks * MIN_ROWS <= g->m && j.row_blocks * j.col_blocks < 8
           && ops / (j.row_blocks * j.col_blocks) > 2 * MIN_CHUNK_OPS)
        j.row_blocks *= 2;
    tn_parallel(j.row_blocks * j.col_blocks, gemm_chunk, &j);
}

void tn_product(int m, int n, int k, const tn_real *a, int ta, const tn_real *b, int tb, tn_real *c,
                int add) {
    tn_gemm(&(tn_gemm_args){.m = m,
                            .n = n,
                            .k = k,
                            .a = a,
                            .ars = ta ? 1 : k,
                            .acs = ta ? m : 1,
                            .b = b,
                            .brs = tb ? 1 : n,
                            .bcs = tb ? k : 1,
                            .c = c,
                            .ldc = n,
                            .add = add});
}

/* ---- packed weights ---- */

size_t tn_gemm_packed_len(int n, int k) {
    int nr = tn_kernels_get(NULL)->nr;
    return (size_t)((n + nr - 1) / nr) * (size_t)nr * (size_t)k;
}

typedef struct {
    int n, k;
    const tn_real *b;
    ptrdiff_t brs, bcs;
    tn_real *out;
} pack_job;

static void pack_chunk(void *p, size_t lo, size_t hi) {
    const pack_job *j = p;
    int c1 = (int)hi * TN_NR_MAX;
    if (c1 > j->n) c1 = j->n;
    int c0 = (int)lo * TN_NR_MAX;
    tn_kernels_get(NULL)->pack_b(j->k, c1 - c0, j->b + c0 * j->bcs, j->brs, j->bcs,
                                 j->out + (size_t)c0 * (size_t)j->k);
}

void tn_gemm_pack(int n, int k, const tn_real *b, ptrdiff_t brs, ptrdiff_t bcs, tn_real *out) {
    pack_job j = {n, k, b, brs, bcs, out};
    size_t panel = (size_t)TN_NR_MAX * (size_t)k, most = (1 << 15) / panel + 1;
    size_t panels = (size_t)((n + TN_NR_MAX - 1) / TN_NR_MAX), pieces = (panels + most - 1) / most;
    if (pieces > 1) pieces += pieces % 2; /* as much for one of two threads as for the other */
    tn_parallel_range(panels, pieces > 1 ? (panels + pieces - 1) / pieces : most, pack_chunk, &j);
}

typedef struct tn_packed {
    tn_real *form; /* made at first use */
    size_t len;
    int kind;
    uint64_t version; /* of the weights it was made from */
} tn_packed_form;

int tn_packed_new(tn_params *s) {
    s->packed = tn_mem_new((size_t)s->n * sizeof(tn_packed_form));
    return s->packed ? 0 : -1;
}

void tn_packed_free(tn_params *s) {
    if (!s->packed) return;
    for (int i = 0; i < s->n; i++) tn_mem_aligned_free(s->packed[i].form);
    tn_free(s->packed);
}

tn_real *tn_kept_form(const tn_t *w, int kind, size_t len, int *stale) {
    tn_packed_form *p = &w->param->set->packed[w->param->index];
    if (p->len < len) {
        tn_mem_aligned_free(p->form);
        p->len = 0, p->version = 0; /* a version is 1 or more */
        p->form = tn_mem_aligned(len * sizeof *p->form);
        TN_CHECK(w->tape, p->form, "out of memory: no room for the packed form of %s", w->param->name);
        p->len = len;
    }
    *stale = p->kind != kind || p->version != w->param->set->version;
    p->kind = kind, p->version = w->param->set->version;
    return p->form;
}

int tn_is_packed(const tn_t *w) {
    if (!w->param || !tn_gemm_own()) return 0;
    const tn_packed_form *p = &w->param->set->packed[w->param->index];
    return p->kind == TN_FORM_PANELS && p->version == w->param->set->version;
}

const tn_real *tn_packed(const tn_t *w) {
    if (!tn_gemm_own()) return NULL;
    const int n = w->dim[0], k = (int)(w->len / (size_t)n);
    const size_t len = tn_gemm_packed_len(n, k);
    int stale = 1;
    tn_real *out =
        w->param ? tn_kept_form(w, TN_FORM_PANELS, len, &stale) : tn_scratch(w->tape, len * sizeof *out);
    if (stale) tn_gemm_pack(n, k, w->x, 1, k, out);
    return out;
}

/* ---- sums ---- */

enum { PIECE = 1 << 14, PIECES = 64 };

typedef struct {
    const tn_real *x;
    double sum[PIECES];
} squares_job;

static void square_range(void *arg, size_t lo, size_t hi) {
    squares_job *j = arg;
    j->sum[lo / PIECE] = tn_kernels_get(NULL)->sum_sq(hi - lo, j->x + lo);
}

double tn_sum_squares(size_t n, const tn_real *x) {
    double sum = 0;
    for (size_t at = 0, len; at < n; at += len) {
        squares_job j = {.x = x + at};
        len = n - at < (size_t)PIECE * PIECES ? n - at : (size_t)PIECE * PIECES;
        tn_parallel_range(len, PIECE, square_range, &j);
        for (size_t i = 0; i * PIECE < len; i++) sum += j.sum[i];
    }
    return sum;
}

const char *tn_simd(tn_err *e) {
    const tn_kernels_t *k = tn_kernels_get(e);
    return k ? k->name : NULL;
}
