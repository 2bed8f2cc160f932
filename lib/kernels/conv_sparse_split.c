/* SPDX-License-Identifier: MIT */
/*
 * The gradient behind ReLU and max pooling, ready for conv_sparse.c: all of it with the places in their windows, and lists of
 * what is not zero with the pixels where it belongs, so that who goes through a list need not look for the next one.
 */
#include "vec_part.h"

enum { PARTS = (int)TN_LANES / VL };

static inline VI whole(V v) { /* of whole numbers */
#ifdef TN_LEVEL_PLAIN
    return (VI)v;
#else
    return __builtin_convertvector(v, VI);
#endif
}

static inline VI load_int(const int *p) {
#ifdef TN_LEVEL_PLAIN
    return *p;
#else
    VI i;
    memcpy(&i, p, sizeof i);
    return i;
#endif
}

#ifndef TN_LEVEL_AVX512
static inline void store_int(int *p, VI i) {
#ifdef TN_LEVEL_PLAIN
    *p = (int)i;
#else
    memcpy(p, &i, sizeof i);
#endif
}
#endif

/* What is the same for all elements: kept in registers, since stores might change what *s holds. */
typedef struct {
    V inverse, scale;
    VI pixel, down; /* w pixel + i down is the place of element w = i width + j */
} split_by;

/*
 * The lanes of v and at whose bit is set, side by side: how many. A whole vector is written. Where there is no instruction
 * for it each lane is stored where the next one will be, since branches would be mispredicted.
 */
static inline int pack(uint32_t bits, V v, VI at, tn_real *v_to, int *at_to) {
#ifdef TN_LEVEL_AVX512
    vstore(v_to, _mm512_maskz_compress_ps((__mmask16)bits, v));
    _mm512_storeu_si512(at_to, _mm512_maskz_compress_epi32((__mmask16)bits, (__m512i)at));
    return __builtin_popcount(bits);
#else
    tn_real a[VL];
    int b[VL], n = 0;
    vstore(a, v), store_int(b, at);
    for (int l = 0; l < VL; l++) v_to[n] = a[l], at_to[n] = b[l], n += (int)(bits >> l & 1);
    return n;
#endif
}

static inline V load_u8_part(const unsigned char *p, size_t n) {
    unsigned char t[VL];
    for (size_t l = 0; l < VL; l++) t[l] = l < n ? p[l] : 0;
    return vload_u8(t);
}

__attribute__((always_inline)) static inline void split(const tn_sparse_split *given, const int relu,
                                                        const int all, const int lists, const tn_real *gy,
                                                        const tn_real *y, const unsigned char *winner) {
    const tn_sparse_split g = *given;
    const VI none = veq(vset1(0), vset1(1)); /* no bit set */
    const split_by s = {vset1((tn_real)1 / (tn_real)g.width), vset1(g.scale), none + g.pixel,
                        none + (g.row - g.width * g.pixel)};
    tn_real number[VL];
    for (int l = 0; l < VL; l++) number[l] = (tn_real)l;
    const V lane = vload(number);
    const int n = g.n, bands = (n + g.band - 1) / g.band;
    for (int p = 0; p < g.planes; p++) {
        V sum[PARTS];
        tn_real *bias = g.bias ? g.bias + p * (int)TN_LANES : NULL;
        for (int l = 0; l < PARTS; l++) sum[l] = bias ? vload(bias + l * VL) : vset1(0);
        for (int band = 0, b = 0; band < bands; band++, b += g.band) {
            const int end = b + g.band < n ? b + g.band : n;
            tn_real *list = g.list.v + (ptrdiff_t)p * n + b;
            int *list_off = g.list.off + (ptrdiff_t)p * n + b, many = 0;
            for (int q = b; q < end; q += TN_LANES)
                for (int l = 0; l < PARTS; l++) {
                    const int i = q + l * VL, left = end - i;
                    if (PARTS > 1 && left <= 0) break;
                    const ptrdiff_t at = (ptrdiff_t)p * n + i, readable = (ptrdiff_t)(g.planes - p) * n - i;
                    const int whole_vector = readable >= VL;
                    V x = whole_vector ? vload(gy + at) : vload_part(gy + at, (size_t)readable, 0),
                      w = whole_vector ? vload_u8(winner + at) : load_u8_part(winner + at, (size_t)readable);
                    if (relu)
                        x = vbehind_relu(x, whole_vector ? vload(y + at)
                                                         : vload_part(y + at, (size_t)readable, 0));
                    x *= s.scale;
                    if (all) {
                        vstore(g.v + at, x);
                        vstore(g.key + at, vsel(veq(x, vset1(0)), vset1(-1), w));
                    }
                    if (left < VL) x = vsel(vlt(lane, vset1((tn_real)left)), x, vset1(0));
                    sum[l] += x;
                    if (!lists) continue;
                    VI row =
                        whole((w + vset1((tn_real)0.5)) * s.inverse); /* the half keeps it off the edge */
                    VI off = load_int(g.base + i) + whole(w) * s.pixel + row * s.down;
                    many += pack(vnonzero(x), x, off, list + many, list_off + many);
                }
            if (lists) g.list.count[p * bands + band] = many;
        }
        for (int l = 0; bias && l < PARTS; l++) vstore(bias + l * VL, sum[l]);
    }
}

void tn_k_sparse_split(const tn_sparse_split *s, const tn_real *gy, const tn_real *y,
                       const unsigned char *winner) {
#define SPLIT(r, a, l)                                                              \
    if ((s->relu != 0) == r && (s->v != NULL) == a && (s->list.count != NULL) == l) \
        split(s, r, a, l, gy, y, winner);
    SPLIT(0, 0, 0)
    SPLIT(0, 0, 1)
    SPLIT(0, 1, 0)
    SPLIT(0, 1, 1)
    SPLIT(1, 0, 0)
    SPLIT(1, 0, 1)
    SPLIT(1, 1, 0)
    SPLIT(1, 1, 1)
}
