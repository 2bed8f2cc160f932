/* SPDX-License-Identifier: MIT */
/*
 * Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, arXiv:1509.09308, with the points 0, 1, -1, 2, -2 and
 * infinity): 4 x 4 outputs of a 3 x 3 convolution cost 36 multiplications for each pair of channels in the place of 144.
 *
 *   U = G w G'          once for each pair of channels    winograd_weights
 *   V = B' d B          for each 6 x 6 tile of the input  winograd_input
 *   M = V U             36 products of matrices           winograd_products
 *   y = A' M A + bias   for each tile                     winograd_output
 *
 * Lanes run over channels, so images are NHWC here. One product after the other runs over all tiles of a group, because its
 * part of U stays in the first-level cache then, while V and M stream through from the second; U, the largest of the
 * three, would be the one to stream if the products of a few tiles were made together. What lies between the
 * two halves of a transform, 18 or 24 vectors, stays in registers where there are 32.
 *
 * What is not finite spreads over the whole tile here, and infinity turns to NaN. So a tile whose results are not all finite
 * (in any channel, so that all vector levels agree) is made anew by the definition, winograd_direct_tile.
 */
#include "vec_part.h"

enum { IN = 6, OUT = 4, TAPS = 3 };

/* Hides from compilers how x came about: left to themselves they keep one address for each load of a tile in memory. */
#define OPAQUE(x) __asm__("" : "+r"(x))

/* ---- weights ---- */

/* (a, b, c) to G (a, b, c)' at out[0], out[step], ... */
static inline void filter_1d(V a, V b, V c, V *out, int step) {
    const V sixth = vset1((tn_real)(-1.0 / 6)), twelfth = vset1((tn_real)(1.0 / 12));
    V sum = a + c;
    V even = vfma(a, vset1((tn_real)(1.0 / 24)), c * vset1((tn_real)(1.0 / 6)));
    out[0] = a * vset1((tn_real)0.25);
    out[step] = (sum + b) * sixth;
    out[2 * step] = (sum - b) * sixth;
    out[3 * step] = vfma(b, twelfth, even);
    out[4 * step] = vfma(-b, twelfth, even);
    out[5 * step] = c;
}

/* Weights of output channels o..o+n-1 for input channel c, as VL lanes; missing channels are 0. */
static inline void load_filters(int n, int ci, const tn_real *w, V tap[TAPS * TAPS]) {
    tn_real lane[TAPS * TAPS][VL];
    memset(lane, 0, sizeof lane);
    for (int l = 0; l < n; l++)
        for (int k = 0; k < TAPS * TAPS; k++) lane[k][l] = w[(ptrdiff_t)l * ci * TAPS * TAPS + k];
    for (int k = 0; k < TAPS * TAPS; k++) tap[k] = vload(lane[k]);
}

void tn_k_winograd_weights(int co, int ci, int c0, int c1, const tn_real *w, tn_real *u) {
    const int panels = (co + NR - 1) / NR;
    for (int c = c0; c < c1; c++)
        for (int o = 0; o < panels * NR; o += VL) {
            V tap[TAPS * TAPS], half[IN * TAPS], whole[IN * IN];
            int n = co - o < 0 ? 0 : co - o < VL ? co - o : VL;
            load_filters(n, ci, w + ((ptrdiff_t)o * ci + c) * TAPS * TAPS, tap);
            for (int j = 0; j < TAPS; j++) filter_1d(tap[j], tap[3 + j], tap[6 + j], half + j, TAPS);
            for (int i = 0; i < IN; i++)
                filter_1d(half[3 * i], half[3 * i + 1], half[3 * i + 2], whole + IN * i, 1);
            tn_real *to = u + ((ptrdiff_t)(o / NR) * ci + c) * NR + o % NR;
            for (int t = 0; t < IN * IN; t++) vstore(to + (ptrdiff_t)t * panels * ci * NR, whole[t]);
        }
}

/* ---- input ---- */

/* The first and the second three of B' (d0 ... d5)'; d5 and d0 do not count. */
static inline void input_upper(V d0, V d1, V d2, V d3, V d4, V *x, V *y, V *z) {
    const V four = vset1(4);
    V a = vfma(-four, d2, d4), b = vfma(-four, d1, d3);
    *x = vfma(four, d0, vfma(vset1(-5), d2, d4));
    *y = a + b, *z = a - b;
}
static inline void input_lower(V d1, V d2, V d3, V d4, V d5, V *x, V *y, V *z) {
    const V two = vset1(2);
    V c = d4 - d2, e = d3 - d1;
    *x = vfma(two, e, c), *y = vfma(-two, e, c);
    *z = vfma(vset1(4), d1, vfma(vset1(-5), d3, d5));
}

/*
 * Columns, then rows; lanes beyond n are neither read nor written. Three rows of the result at a time, which halves what
 * lies between and so leaves it in registers where there are 32; named, see gemm.c.
 */
#define COLUMNS(F) F(0) F(1) F(2) F(3) F(4) F(5)
#define AT(i)      vload_first(x + (i), n)
#define UPPER(j)                                                                              \
    V p##j, q##j, r##j;                                                                       \
    input_upper(AT(0), AT(down), AT(2 * down), AT(down3), AT(4 * down), &p##j, &q##j, &r##j); \
    x += pixel;                                                                               \
    OPAQUE(x);
#define LOWER(j)                                                                                  \
    V p##j, q##j, r##j;                                                                           \
    input_lower(AT(down), AT(2 * down), AT(down3), AT(4 * down), AT(down5), &p##j, &q##j, &r##j); \
    x += pixel;                                                                                   \
    OPAQUE(x);
/* The same place of the next tile is fetched: V goes to the second-level cache. */
#define PUT(i, d) (__builtin_prefetch(v + (i) + IN * IN * step, 1), vstore_first(v + (i), n, d))
#define ROW(d)                                             \
    input_upper(d##0, d##1, d##2, d##3, d##4, &a, &b, &c); \
    PUT(0, a), PUT(step, b), PUT(2 * step, c);             \
    input_lower(d##1, d##2, d##3, d##4, d##5, &a, &b, &c); \
    PUT(step3, a), PUT(4 * step, b), PUT(step5, c);        \
    v += IN * step;                                        \
    OPAQUE(v);

__attribute__((always_inline)) static inline void
input_tile(const size_t n, const tn_real *x, ptrdiff_t pixel, ptrdiff_t down, tn_real *v, ptrdiff_t step) {
    ptrdiff_t down3 = 3 * down, down5 = 5 * down, step3 = 3 * step, step5 = 5 * step;
    V a, b, c;
    OPAQUE(down3);
    OPAQUE(down5);
    OPAQUE(step3);
    OPAQUE(step5);
    {
        COLUMNS(UPPER)
        ROW(p)
        ROW(q)
        ROW(r);
    }
    x -= IN * pixel;
    {
        COLUMNS(LOWER)
        ROW(p)
        ROW(q)
        ROW(r);
    }
}
#undef AT
#undef ROW

void tn_k_winograd_input(int ci, int tiles, const tn_real *x, ptrdiff_t pitch, tn_real *v) {
    for (int t = 0; t < tiles; t++, x += OUT * (ptrdiff_t)ci, v += IN * IN * (ptrdiff_t)ci) {
        int c = 0;
        for (; c + VL <= ci; c += VL) input_tile(VL, x + c, ci, pitch, v + c, ci);
        if (c < ci) input_tile((size_t)(ci - c), x + c, ci, pitch, v + c, ci);
    }
}

/* ---- products ---- */

/* Named accumulators, see gemm.c: tiles by two vectors, twelve where 32 registers allow, and six for the rest. */
#if defined(TN_LEVEL_AVX512) || defined(TN_LEVEL_NEON)
enum { MOST_ROWS = 2 * TN_WINOGRAD_TILES };
#else
enum { MOST_ROWS = TN_WINOGRAD_TILES };
#endif
#define ROWS(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)
/*
 * Element (i, p) of V, by three pointers four rows apart and the steps an address can have. Left to themselves compilers
 * keep a pointer for each row, more than there are registers; OPAQUE hides from them that these are related.
 */
#define AT_0    v0[0]
#define AT_1    v0[rs]
#define AT_2    v0[2 * rs]
#define AT_3    v0[rs3]
#define AT_4    v4[0]
#define AT_5    v4[rs]
#define AT_6    v4[2 * rs]
#define AT_7    v4[rs3]
#define AT_8    v8[0]
#define AT_9    v8[rs]
#define AT_10   v8[2 * rs]
#define AT_11   v8[rs3]
#define ZERO(i) V l##i = vset1(0), r##i = l##i;
#define STEP(i)                                             \
    if (rows > i) {                                         \
        V a = vset1(AT_##i);                                \
        l##i = vfma(a, bl, l##i), r##i = vfma(a, br, r##i); \
    }
#define STORE(i) \
    if (rows > i) vstore(m, l##i), vstore(m + VL, r##i), m += rm;

/* Rows of V, rs apart, by a panel of U to rows of M, rm apart. */
__attribute__((always_inline)) static inline void product_tile(const int rows, int ci, const tn_real *v0,
                                                               ptrdiff_t rs, const tn_real *u, tn_real *m,
                                                               ptrdiff_t rm) {
    const tn_real *v4 = v0 + 4 * rs, *v8 = v0 + 8 * rs;
    ptrdiff_t rs3 = 3 * rs;
    OPAQUE(rs3);
    ROWS(ZERO)
#pragma GCC unroll 2
    for (int p = 0; p < ci; p++, u += NR, v0++, v4++, v8++) {
        OPAQUE(v0);
        OPAQUE(v4);
        OPAQUE(v8);
        V bl = vload(u), br = vload(u + VL);
        ROWS(STEP)
    }
    ROWS(STORE)
}

void tn_k_winograd_products(int ci, int tiles, int panels, const tn_real *v, const tn_real *u, tn_real *m,
                            ptrdiff_t step) {
    const ptrdiff_t rs = (ptrdiff_t)IN * IN * ci, rm = (ptrdiff_t)panels * NR;
    for (int t = 0; t < IN * IN; t++, v += ci, m += step)
        for (int j = 0; j < panels; j++, u += (ptrdiff_t)ci * NR) {
            int i = 0;
            for (; i + MOST_ROWS <= tiles; i += MOST_ROWS)
                product_tile(MOST_ROWS, ci, v + i * rs, rs, u, m + i * rm + j * NR, rm);
            for (; i < tiles; i += TN_WINOGRAD_TILES)
                product_tile(TN_WINOGRAD_TILES, ci, v + i * rs, rs, u, m + i * rm + j * NR, rm);
        }
}

/* ---- output ---- */

/* A' (m0 ... m5)' */
static inline void output_1d(V m0, V m1, V m2, V m3, V m4, V m5, V *a, V *b, V *c, V *d) {
    V p = m1 + m2, q = m1 - m2, r = m3 + m4, s = m3 - m4;
    *a = m0 + p + r;
    *b = vfma(vset1(2), s, q);
    *c = vfma(vset1(4), r, p);
    *d = vfma(vset1(8), s, q) + m5;
}

/* VL channels of a tile of M, step reals between its 36 parts: a column of it, then a row of outputs. */
#define AT(i) vload(t + (i))
#define COLUMN(j)                                                                                     \
    V p##j, q##j, r##j, s##j;                                                                         \
    output_1d(AT(0), AT(down), AT(2 * down), AT(down3), AT(4 * down), AT(down5), &p##j, &q##j, &r##j, \
              &s##j);                                                                                 \
    t += step;                                                                                        \
    OPAQUE(t);
#define ROW(d, y) output_1d(d##0, d##1, d##2, d##3, d##4, d##5, y, (y) + 1, (y) + 2, (y) + 3);
#define DOWN                                      \
    const ptrdiff_t down = IN * step;             \
    ptrdiff_t down3 = 3 * down, down5 = 5 * down; \
    OPAQUE(down3);                                \
    OPAQUE(down5)

/* Where the results of VL channels of a tile, or the first n of them, go. */
typedef struct {
    size_t n;
    int rows, cols, relu;
    const tn_real *bias; /* or NULL */
    tn_real *y, *winner;
    ptrdiff_t pixel, pitch;
} part;

static part part_of(const tn_winograd_put *p, int o) {
    const int left = p->channels - o;
    return (part){.n = left < VL ? (size_t)left : VL,
                  .rows = p->rows,
                  .cols = p->cols,
                  .relu = p->relu,
                  .bias = p->bias ? p->bias + o : NULL,
                  .y = p->y + o,
                  .winner = p->winner ? p->winner + o : NULL,
                  .pixel = p->pixel,
                  .pitch = p->pitch};
}

/* The larger of two and its index; the first of equals, and the first NaN, stays. */
static inline void keep_larger(V *best, V *index, V z, V i) {
    VI take = (vgt(z, *best) | ~veq(z, z)) & veq(*best, *best);
    *best = vsel(take, z, *best), *index = vsel(take, i, *index);
}

static inline void put(const part *p, ptrdiff_t to, V v, V bias) {
    if (p->bias) v = v + bias;
    vstore_first(p->y + to, p->n, p->relu ? vmax(vset1(0), v) : v);
}

/* What a tile's results are for. */
enum { PLAIN, POOLED, POOLED_WINNERS };

/* The largest of a window and its index; careful: there may be NaN. Adding and ReLU keep the order: after the choice is enough. */
__attribute__((always_inline)) static inline void put_window(const int use, const int careful, const part *p,
                                                             V bias, ptrdiff_t to, V a, V b, V c, V d) {
    V best = a, index = vset1(0);
    if (careful) {
        keep_larger(&best, &index, b, vset1(1));
        keep_larger(&best, &index, c, vset1(2));
        keep_larger(&best, &index, d, vset1(3));
    } else {
        best = vmax(vmax(a, b), vmax(c, d));
        if (use == POOLED_WINNERS)
            index = vsel(veq(a, best), vset1(0),
                         vsel(veq(b, best), vset1(1), vsel(veq(c, best), vset1(2), vset1(3))));
    }
    put(p, to, best, bias);
    if (use == POOLED_WINNERS) vstore_first(p->winner + to, p->n, index);
}

__attribute__((always_inline)) static inline void put_all(const int use, const int careful, const int rows,
                                                          const int cols, const part *p, const V *z) {
    const V bias = p->bias ? vload_first(p->bias, p->n) : vset1(0);
    const ptrdiff_t pixel = p->pixel, pitch = p->pitch;
#define WINDOW(i, j)                                                                                    \
    if (rows > i && cols > j)                                                                           \
        put_window(use, careful, p, bias, i *pitch + j * pixel, z[8 * i + 2 * j], z[8 * i + 2 * j + 1], \
                   z[8 * i + 2 * j + OUT], z[8 * i + 2 * j + OUT + 1]);
#define PIXEL(i, j) \
    if (rows > i && cols > j) put(p, i *pitch + j * pixel, z[OUT * i + j], bias);
#define PIXELS(i) PIXEL(i, 0) PIXEL(i, 1) PIXEL(i, 2) PIXEL(i, 3)
    if (use == PLAIN) {
        PIXELS(0) PIXELS(1) PIXELS(2) PIXELS(3)
    } else {
        WINDOW(0, 0) WINDOW(0, 1) WINDOW(1, 0) WINDOW(1, 1)
    }
}

/* whole: VL channels and all rows and columns. 1: something is not finite, and nothing was written. */
__attribute__((always_inline)) static inline int output_tile(const int whole, const int use, const tn_real *t,
                                                             ptrdiff_t step, part *p) {
    const int all = use == PLAIN ? OUT : OUT / 2, rows = whole ? all : p->rows, cols = whole ? all : p->cols;
    if (whole) p->n = VL;
    DOWN;
    V z[OUT * OUT];
    COLUMNS(COLUMN)
    ROW(p, z)
    ROW(q, z + OUT)
    ROW(r, z + 2 * OUT)
    ROW(s, z + 3 * OUT)
    V sum = (((z[0] + z[1]) + (z[2] + z[3])) + ((z[4] + z[5]) + (z[6] + z[7])))
            + (((z[8] + z[9]) + (z[10] + z[11])) + ((z[12] + z[13]) + (z[14] + z[15])));
    sum = sum - sum;
    if (vany(~veq(sum, sum))) return 1;
    put_all(use, 0, rows, cols, p, z);
    return 0;
}

int tn_k_winograd_output(const tn_winograd_put *to, const tn_real *m, ptrdiff_t step) {
    const int use = !to->pool ? PLAIN : to->winner ? POOLED_WINNERS : POOLED, all = to->pool ? OUT / 2 : OUT;
    const int whole = to->rows == all && to->cols == all;
    int wrong = 0;
    for (int o = 0; o < to->channels && !wrong; o += VL, m += VL) {
        part p = part_of(to, o);
#define USE(u)                                                                                        \
    case u:                                                                                           \
        wrong = whole && p.n == VL ? output_tile(1, u, m, step, &p) : output_tile(0, u, m, step, &p); \
        break;
        switch (use) { USE(PLAIN) USE(POOLED) USE(POOLED_WINNERS) }
    }
    return wrong;
}

/* ---- a tile by its definition ---- */

void tn_k_winograd_direct_tile(const tn_winograd_put *to, int ci, const tn_real *w, const tn_real *x,
                               ptrdiff_t pitch) {
    for (int o = 0; o < to->channels; o += VL) {
        const part p = part_of(to, o);
        V z[OUT * OUT], tap[TAPS * TAPS];
        for (int i = 0; i < OUT * OUT; i++) z[i] = vset1(0);
        for (int c = 0; c < ci; c++) {
            load_filters((int)p.n, ci, w + ((ptrdiff_t)o * ci + c) * TAPS * TAPS, tap);
            for (int k = 0; k < TAPS * TAPS; k++)
                for (int i = 0; i < OUT * OUT; i++) {
                    const int row = i / OUT + k / TAPS, col = i % OUT + k % TAPS;
                    z[i] = vfma(vset1(x[row * pitch + (ptrdiff_t)col * ci + c]), tap[k], z[i]);
                }
        }
        if (!to->pool)
            put_all(PLAIN, 1, p.rows, p.cols, &p, z);
        else if (to->winner)
            put_all(POOLED_WINNERS, 1, p.rows, p.cols, &p, z);
        else
            put_all(POOLED, 1, p.rows, p.cols, &p, z);
    }
}
