/* SPDX-License-Identifier: MIT */
/*
 * The kernels of recurrent layers at every vector level that this machine runs: products by panels and cells, bit for bit
 * equal to the plain level and close to the formulas in a wider type; NaN and infinity pass.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "kernels.h"

#ifdef TN_DOUBLE
static const double eps = DBL_EPSILON;
#else
static const double eps = FLT_EPSILON;
#endif

static const tn_kernels_t *level[4];
static int levels;

static uint64_t state = 1;
static tn_real uniform(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (tn_real)((double)(state >> 11) * 0x1p-52 - 1);
}

static tn_real *reals(size_t n, double scale) {
    tn_real *p = malloc(n * sizeof *p);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++) p[i] = (tn_real)(scale * (double)uniform());
    return p;
}

static void same(const char *what, const char *name, const tn_real *got, const tn_real *want, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (memcmp(got + i, want + i, sizeof *got) != 0 && !(isnan(got[i]) && isnan(want[i])))
            fail_msg("%s, %s: element %zu is %a, not %a", what, name, i, (double)got[i], (double)want[i]);
}

static void near(const char *what, double got, double want, double tolerance) {
    if (isnan(want) ? !isnan(got) : !(got == want || fabs(got - want) <= tolerance))
        fail_msg("%s: %.9g, not %.9g", what, got, want);
}

/* ---- products ---- */

enum {
    COLS = 208,
    LDC = COLS + 3,
    MOST_M = 37,
    MOST_K = 331
}; /* COLS: whole vectors of every level, more than sparse_rows takes at once */

/* All COLS columns of B by panels, two widths of them in turn, as a level packs them; more rows of C are not touched. */
static void by_panels(const tn_kernels_t *k, int m, int depth, int columns, const tn_real *a,
                      ptrdiff_t stride, const tn_real *b, tn_real *c, int add) {
    tn_real *panel = malloc((size_t)depth * COLS * sizeof *panel);
    assert_non_null(panel);
    for (int u = 0, w, turn = 0; u < COLS; u += w, turn++) {
        w = turn % 3 == 0 ? k->panel : turn % 3 == 1 ? k->width : 2 * k->width;
        if (w > COLS - u) w = COLS - u;
        if (w > k->panel) w = k->panel;
        for (int p = 0; p < depth; p++) memcpy(panel + p * w, b + p * COLS + u, (size_t)w * sizeof *b);
        tn_panel_product s = {.m = m, .w = w, .k = depth, .columns = columns, .a = a, .stride = stride};
        s.panel = panel;
        if (columns && turn % 2) s.panel = b + u, s.panel_row = COLS;
        s.c = c + u, s.ldc = LDC, s.add = add;
        if (turn % 2) s.soon[0] = b, s.soon_len[0] = 1000, s.soon[1] = a, s.soon_len[1] = (size_t)(turn * 40);
        k->panel_product(&s);
    }
    free(panel);
}

static void product(int m, int depth, int columns, int add, int special) {
    ptrdiff_t stride = columns ? m + 5 : depth + 2;
    tn_real *a = reals((size_t)stride * (size_t)(columns ? depth : m) + 64, 1);
    tn_real *b = reals((size_t)depth * COLS, 1), *start = reals((size_t)(m + 1) * LDC, 1), *want = NULL;
    if (special) {
        a[columns ? (depth / 2) * stride : depth / 2] = NAN;
        b[COLS / 2] = INFINITY;
    }
    for (int l = 0; l < levels; l++) {
        tn_real *c = malloc((size_t)(m + 1) * LDC * sizeof *c);
        assert_non_null(c);
        memcpy(c, start, (size_t)(m + 1) * LDC * sizeof *c);
        by_panels(level[l], m, depth, columns, a, stride, b, c, add);
        if (l) {
            same("product", level[l]->name, c, want, (size_t)(m + 1) * LDC);
            free(c);
            continue;
        }
        want = c;
        for (int i = 0; i <= m; i++)
            for (int j = 0; j < LDC; j++) {
                if (i == m || j >= COLS) {
                    assert_true(c[i * LDC + j] == start[i * LDC + j]);
                    continue;
                }
                double sum = add ? (double)start[i * LDC + j] : 0;
                for (int p = 0; p < depth; p++)
                    sum += (double)a[columns ? p * stride + i : i * stride + p] * (double)b[p * COLS + j];
                if (isfinite(sum))
                    near("product", (double)c[i * LDC + j], sum, 4 * eps * depth);
                else
                    assert_false(isfinite(c[i * LDC + j]));
            }
    }
    free(a), free(b), free(start), free(want);
}

static void products(void **unused) {
    (void)unused;
    static const int depth[] = {1, 2, 29, 128, 158, 161, MOST_K};
    for (int m = 1; m <= MOST_M; m += m < 18 ? 1 : 19)
        for (int d = 0; d < (int)(sizeof depth / sizeof *depth); d++)
            product(m, depth[d], (m + d) % 2, m % 3 == 0, m % 5 == 0);
    for (int m = 1; m < 18; m++) product(m, 30, m % 2 == 0, 1, 0), product(m, 30, m % 2, 0, 1);
}

/* ---- products of what is mostly zeros: the bits of the whole product ---- */

/* a (m, depth), every third element kept; as panel_product's, by rows of bits. */
static void sparse_product(int m, int depth, int bias) {
    const int words = (depth + 63) / 64, bits_row = words + 2;
    tn_real *a = reals((size_t)(m + 1) * (size_t)depth, 1), *b = reals((size_t)depth * COLS, 1);
    tn_real *start = reals((size_t)(m + 1) * LDC, 1), *begin = reals(COLS, 1);
    tn_real *want = malloc((size_t)(m + 1) * LDC * sizeof *want),
            *got = malloc((size_t)(m + 1) * LDC * sizeof *got);
    uint64_t *bits = malloc((size_t)((m + 1) * bits_row) * sizeof *bits);
    assert_true(want && got && bits);
    memset(bits, 0xff,
           (size_t)((m + 1) * bits_row) * sizeof *bits); /* what is no bit of a's is not to be read */
    for (int i = 0; i < m; i++) memset(bits + i * bits_row, 0, (size_t)words * sizeof *bits);
    if (m > 2) a[2 * depth] = INFINITY; /* of its row alone */
    for (int i = 0; i < m; i++)
        for (int p = 0; p < depth; p++) {
            tn_real *e = a + i * depth + p;
            if (i == 1 || ((i * 5 + p * p) % 3 && !isinf(*e))) *e = 0;
            if (*e != 0) bits[i * bits_row + p / 64] |= (uint64_t)1 << p % 64;
        }
    for (int p = 0; p < depth; p++) a[m * depth + p] = NAN;
    memcpy(want, start, (size_t)(m + 1) * LDC * sizeof *want);
    for (int i = 0; i < m && bias; i++) memcpy(want + i * LDC, begin, COLS * sizeof *want);
    by_panels(level[0], m, depth, 0, a, depth, b, want, bias);
    for (int l = 0; l < levels; l++) {
        const tn_kernels_t *k = level[l];
        memcpy(got, start, (size_t)(m + 1) * LDC * sizeof *got);
        k->sparse_rows(&(tn_sparse_rows){.m = m,
                                         .w = COLS,
                                         .words = words,
                                         .bits = bits,
                                         .bits_row = bits_row,
                                         .a = a,
                                         .b = b,
                                         .bias = bias ? begin : NULL,
                                         .c = got,
                                         .stride = depth,
                                         .ldb = COLS,
                                         .ldc = LDC});
        same("sparse product", k->name, got, want, (size_t)(m + 1) * LDC);
        for (int back = 0; m % 2 == 0 && back < 2;
             back++) { /* half of the rows with the others, either way round */
            const int from = back * (m / 2), step = back ? -m / 2 : m / 2;
            memcpy(got, start, (size_t)(m + 1) * LDC * sizeof *got);
            k->sparse_rows(&(tn_sparse_rows){.m = m / 2,
                                             .w = COLS,
                                             .words = words,
                                             .two = 1,
                                             .bits = bits + from * bits_row,
                                             .bits_row = bits_row,
                                             .bits_step = step * bits_row,
                                             .a = a + from * depth,
                                             .b = b,
                                             .bias = bias ? begin : NULL,
                                             .c = got + from * LDC,
                                             .stride = depth,
                                             .step = step * (ptrdiff_t)depth,
                                             .ldb = COLS,
                                             .ldc = LDC,
                                             .c_step = step * (ptrdiff_t)LDC});
            same("sparse products of two", k->name, got, want, (size_t)(m + 1) * LDC);
        }
    }
    free(a), free(b), free(start), free(begin), free(want), free(got), free(bits);
}

/* a transposed, of (steps m, depth), as it lies in x: step after step, forward or back, or row after row of them. */
static void turned_product(int steps, int m, int depth, int rows_first, int back) {
    const int rows = steps * m, words = (depth + 63) / 64, at_most = depth + 5;
    const ptrdiff_t row = rows_first ? steps : 1, step = (rows_first ? 1 : m) * (back ? -1 : 1);
    tn_real *x = reals((size_t)rows * (size_t)depth, 1), *b = reals((size_t)rows * COLS, 1);
    tn_real *a = reals((size_t)rows * (size_t)at_most + 64, 1), *start = reals((size_t)(depth + 1) * LDC, 1);
    tn_real *want = malloc((size_t)(depth + 1) * LDC * sizeof *want),
            *got = malloc((size_t)(depth + 1) * LDC * sizeof *got);
    uint64_t *bits = calloc((size_t)(rows * words), sizeof *bits);
    assert_true(want && got && bits);
    if (depth > 2) x[2] = INFINITY; /* of its column alone */
    const ptrdiff_t first = back ? (steps - 1) * -step : 0;
    for (int t = 0, r = 0; t < steps; t++)
        for (int i = 0; i < m; i++, r++)
            for (int p = 0; p < depth; p++) {
                ptrdiff_t from = first + t * step + i * row;
                tn_real *e = x + from * depth + p;
                if (p == 1 || ((from * 5 + p * p) % 3 && !isinf(*e))) *e = 0;
                if (*e != 0) bits[from * words + p / 64] |= (uint64_t)1 << p % 64;
                a[r * at_most + p] = *e;
            }
    memcpy(want, start, (size_t)(depth + 1) * LDC * sizeof *want);
    by_panels(level[0], depth, rows, 1, a, at_most, b, want, 1);
    for (int l = 0; l < levels; l++) {
        const tn_kernels_t *k = level[l];
        memcpy(got, start, (size_t)(depth + 1) * LDC * sizeof *got);
        k->sparse_turned(&(tn_sparse_turned){.steps = steps,
                                             .m = m,
                                             .k = depth,
                                             .w = COLS,
                                             .bits = bits + first * words,
                                             .bits_row = row * words,
                                             .bits_step = step * words,
                                             .a = x + first * depth,
                                             .b = b,
                                             .c = got,
                                             .stride = row * depth,
                                             .step = step * depth,
                                             .ldb = COLS,
                                             .ldc = LDC});
        same("turned sparse product", k->name, got, want, (size_t)(depth + 1) * LDC);
    }
    free(a), free(b), free(start), free(want), free(got), free(bits), free(x);
}

static void sparse_products(void **unused) {
    (void)unused;
    static const int depth[] = {1, 28, 64, 65, 160};
    for (int m = 1; m < 12; m++)
        for (int d = 0; d < (int)(sizeof depth / sizeof *depth); d++) {
            sparse_product(m, depth[d], m % 2);
            sparse_product(m, depth[d], m / 2 % 2);
            turned_product(1 + d * 5, m, depth[d], m % 2, m / 2 % 2);
        }
}

/* ---- cells ---- */

enum { ROWS = 3, UNITS = 96, ROW = UNITS + 16, BLOCKS = 4, ALL = ROWS * ROW * BLOCKS };

/* What a cell reads and writes, backward after forward. Kept's order is a level's own: it is not compared. */
typedef struct {
    tn_real z[ALL], h0[ALL], c0[ALL], h1[ALL], c1[ALL], kept[5 * ALL], dh[ALL], dc[ALL], dg[ALL];
    tn_real sum[BLOCKS * ROW];
} cell_memory;

static tn_cell_rows rows_of(const tn_kernels_t *k, tn_cell cell, int rows, int units, cell_memory *m) {
    return (tn_cell_rows){.rows = rows,
                          .units = units,
                          .z = m->z,
                          .z_row = ROW * BLOCKS,
                          .z_block = ROW,
                          .h0 = m->h0,
                          .c0 = m->c0,
                          .h1 = m->h1,
                          .c1 = m->c1,
                          .h_row = ROW,
                          .c_row = ROW + 1,
                          .kept = m->kept,
                          .kept_row = (ptrdiff_t)k->cell_kept[cell] * UNITS,
                          .dh = m->dh,
                          .dc = m->dc,
                          .d_row = ROW + 2,
                          .dg = m->dg,
                          .dg_row = ROW * BLOCKS,
                          .dg_block = ROW,
                          .sum = m->sum,
                          .sum_block = ROW};
}

static double logistic(double x) {
    return 1 / (1 + exp(-x));
}

/* One unit by the formulas: z and the states before, dh and dc of the states after, to h, c, and gradients. */
typedef struct {
    double h, c, dg[4], dh, dc;
} unit;

static unit formulas(tn_cell cell, const double z[4], double h0, double c0, double dh, double dc) {
    unit u = {0};
    if (cell == TN_RNN_TANH) {
        u.h = tanh(z[0]), u.dg[0] = dh * (1 - u.h * u.h);
    } else if (cell == TN_RNN_RELU) {
        u.h = z[0] > 0 ? z[0] : z[0] <= 0 ? 0 : z[0];
        u.dg[0] = z[0] > 0 ? dh : z[0] <= 0 ? 0 * dh : NAN;
    } else if (cell == TN_GRU) {
        double r = logistic(z[0]), w = logistic(z[1]), n = tanh(z[2] + r * z[3]);
        u.h = (1 - w) * n + w * h0;
        u.dg[0] = dh * (1 - w) * (1 - n * n), u.dg[1] = u.dg[0] * z[3] * r * (1 - r);
        u.dg[2] = dh * (h0 - n) * w * (1 - w), u.dg[3] = u.dg[0] * r;
        u.dh = dh * w;
    } else {
        double i = logistic(z[0]), f = logistic(z[1]), g = tanh(z[2]), o = logistic(z[3]);
        u.c = f * c0 + i * g;
        double t = tanh(u.c), d = dc + dh * o * (1 - t * t);
        u.h = o * t, u.dc = d * f;
        u.dg[0] = d * g * i * (1 - i), u.dg[1] = d * c0 * f * (1 - f);
        u.dg[2] = d * i * (1 - g * g), u.dg[3] = dh * t * o * (1 - o);
    }
    return u;
}

static void fill(cell_memory *m) {
    tn_real *all = (tn_real *)m;
    for (size_t i = 0; i < sizeof *m / sizeof *all; i++) all[i] = uniform();
    for (int i = 0; i < ALL; i++) m->z[i] *= (tn_real)(i % 7 == 0 ? 200 : i % 5 == 0 ? 1e-3 : 4);
    static const tn_real special[] = {NAN,           INFINITY,       -INFINITY, 0,
                                      (tn_real)-0.0, (tn_real)1e-30, 1000,      -1000};
    for (int i = 0; i < 8; i++) { /* in the last row, one block each */
        m->z[2 * ROW * BLOCKS + i] = special[i], m->z[2 * ROW * BLOCKS + ROW + 10 + i] = special[i];
        m->z[2 * ROW * BLOCKS + 2 * ROW + 20 + i] = special[i];
        m->z[2 * ROW * BLOCKS + 3 * ROW + 30 + i] = special[i];
    }
    m->dh[2 * (ROW + 2) + 50] = NAN;
}

/* Of rows and units at the start of what there is room for. */
static void some_cells(int rows, int units) {
    static cell_memory start, want, got;
    for (int cell = TN_RNN_TANH; cell <= TN_LSTM; cell++) {
        int blocks = cell >= TN_GRU ? 4 : 1;
        fill(&start);
        for (int l = 0; l < levels; l++) {
            cell_memory *m = l ? &got : &want;
            *m = start;
            tn_cell_rows s = rows_of(level[l], (tn_cell)cell, rows, units, m);
            level[l]->cell[cell](&s), level[l]->cell_back[cell](&s);
            memset(m->kept, 0, sizeof m->kept);
            if (l) same("cell", level[l]->name, (tn_real *)m, (tn_real *)&want, sizeof *m / sizeof(tn_real));
            got = start; /* the same states when nothing is kept */
            s = rows_of(level[l], (tn_cell)cell, rows, units, &got), s.kept = NULL;
            level[l]->cell[cell](&s);
            same("h, nothing kept", level[l]->name, got.h1, want.h1, ALL);
            same("c, nothing kept", level[l]->name, got.c1, want.c1, ALL);
            same("kept, though not wanted", level[l]->name, got.kept, start.kept, 5 * ALL);
        }
        for (int b = 0; b < blocks; b++)
            for (int u = 0; u < ROW; u++) {
                tn_real sum = start.sum[b * ROW + u];
                for (int i = 0; u < units && i < rows; i++) sum += want.dg[(i * BLOCKS + b) * ROW + u];
                same("sum", "plain", &want.sum[b * ROW + u], &sum, 1);
            }
        for (int i = 0; i < ROWS; i++)
            for (int u = 0; u < ROW; u++) {
                int h = i * ROW + u, c = i * (ROW + 1) + u, d = i * (ROW + 2) + u, z = i * ROW * BLOCKS + u;
                if (i >= rows || u >= units) {
                    if (u < ROW - 2) assert_true(want.h1[h] == start.h1[h] && want.dg[z] == start.dg[z]);
                    continue;
                }
                double in[4];
                for (int b = 0; b < 4; b++) in[b] = (double)start.z[z + b * ROW];
                unit e = formulas((tn_cell)cell, in, (double)start.h0[h], (double)start.c0[c],
                                  (double)start.dh[d], (double)start.dc[d]);
                near("h", (double)want.h1[h], e.h, 16 * eps * fmax(1, fabs(e.h)));
                near("dh", (double)want.dh[d], e.dh, 16 * eps);
                if (cell == TN_LSTM) near("c", (double)want.c1[c], e.c, 16 * eps);
                if (cell == TN_LSTM) near("dc", (double)want.dc[d], e.dc, 16 * eps);
                for (int b = 0; b < blocks; b++) {
                    if (isfinite(e.dg[b]))
                        near("dg", (double)want.dg[z + b * ROW], e.dg[b], 64 * eps * fmax(1, fabs(in[3])));
                    if (isnan(e.dg[b])) assert_true(isnan(want.dg[z + b * ROW]));
                }
            }
    }
}

/* In pairs of rows; one that is left in halves, with and without a vector in the middle; one vector. */
static void cells(void **unused) {
    (void)unused;
    static const int shape[][2] = {{ROWS, UNITS}, {ROWS, UNITS / 2}, {2, UNITS},
                                   {1, UNITS},    {1, UNITS / 2},    {1, UNITS / 6}};
    for (int i = 0; i < (int)(sizeof shape / sizeof *shape); i++) some_cells(shape[i][0], shape[i][1]);
}

int main(void) {
    static const char *const names[] = {"plain", "avx2", "avx512", "neon"};
    for (int i = 0; i < 4; i++)
        if (tn_kernels_level(names[i])) level[levels++] = tn_kernels_level(names[i]);
    const struct CMUnitTest tests[] = {cmocka_unit_test(products), cmocka_unit_test(sparse_products),
                                       cmocka_unit_test(cells)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
