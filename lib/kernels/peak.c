/* SPDX-License-Identifier: MIT */
/*
 * What benchmarks compare with. The limit of this level: fused multiply-adds on registers only, in as many independent chains as it takes
 * to hide their latency (two units times four or five cycles, four units on some arm64 cores). And the traffic of an
 * optimizer step without its arithmetic: one array is read, the others are read and written, all in one pass.
 */
#include "level.h"

#if defined(TN_LEVEL_AVX2) || defined(TN_LEVEL_PLAIN)
#define CHAINS(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) /* of 16 registers */
enum { CHAIN_COUNT = 12 };
#else
#define CHAINS(F) \
    F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12) F(13) F(14) F(15) F(16) F(17)
enum { CHAIN_COUNT = 18 };
#endif

enum { STEPS = 8 }; /* of every chain in a round */

#define START(i) V c##i = vset1((tn_real)(i));
#define STEP(i)  c##i = vfma(c##i, factor, summand);
#define SUM(i)   sum = sum + c##i;

/* Returns the operations of a round, counting a fused multiply-add as two. */
double tn_k_peak(long rounds, tn_real *sink) {
    const V factor = vset1((tn_real)0.5), summand = vset1((tn_real)0.25); /* c goes to 0.5: no odd values */
    CHAINS(START)
    for (long r = 0; r < rounds; r++)
        for (int s = 0; s < STEPS; s++) {
            CHAINS(STEP)
        }
    V sum = vset1(0);
    CHAINS(SUM)
    tn_real lanes[VL];
    vstore(lanes, sum);
    *sink = lanes[0];
    return 2.0 * VL * CHAIN_COUNT * STEPS;
}

/* With the number of arrays known, so that the loop over them is none. */
static inline __attribute__((always_inline)) void stream(size_t n, int arrays, tn_real *const a[],
                                                         const tn_real *g, V zero) {
    for (size_t i = 0; i + VL <= n; i += VL) {
        V x = vload(g + i) * zero;
        for (int k = 0; k < arrays; k++) vstore(a[k] + i, vload(a[k] + i) + x);
    }
}

void tn_k_stream(size_t n, int arrays, tn_real *const a[], const tn_real *g, tn_real zero) {
    tn_real *p[4] = {NULL}; /* a copy, which no store can change */
    V z = vset1(zero);
    for (int k = 0; k < arrays && k < 4; k++) p[k] = a[k];
    switch (arrays) {
    case 1:
        stream(n, 1, p, g, z);
        break;
    case 2:
        stream(n, 2, p, g, z);
        break;
    case 3:
        stream(n, 3, p, g, z);
        break;
    case 4:
        stream(n, 4, p, g, z);
        break;
    default:
        stream(n, arrays, a, g, z);
    }
}
