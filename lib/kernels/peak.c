/* SPDX-License-Identifier: MIT */
/*
 * The limit of this level: fused multiply-adds on registers only, in as many independent chains as it takes
 * to hide their latency (two units times four or five cycles, four units on some arm64 cores).
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
