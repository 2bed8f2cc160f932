/* SPDX-License-Identifier: MIT */
/*
 * SHA-256 as FIPS 180-4 defines it (sections 4.1.2, 4.2.2, 5 and 6.2), in plain C. The message schedule lives
 * in sixteen words that are renewed as the rounds go on, and the eight working variables change their names
 * instead of their places, so that a compiler keeps all of them in registers. Where the processor has instructions for
 * it (x86-64 with SHA extensions), compress_sha_ni does the same 4 to 6 times faster; the tests compare the two.
 */
#include "data_internal.h"
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

#define ROR(x, n)    ((x) >> (n) | (x) << (32 - (n)))
#define CH(x, y, z)  ((z) ^ ((x) & ((y) ^ (z))))
#define MAJ(x, y, z) (((x) & (y)) | ((z) & ((x) | (y))))
#define SUM0(x)      (ROR(x, 2) ^ ROR(x, 13) ^ ROR(x, 22))
#define SUM1(x)      (ROR(x, 6) ^ ROR(x, 11) ^ ROR(x, 25))
#define SIG0(x)      (ROR(x, 7) ^ ROR(x, 18) ^ (x) >> 3)
#define SIG1(x)      (ROR(x, 17) ^ ROR(x, 19) ^ (x) >> 10)

/* Word i of the schedule (i modulo 16): of the message, or in place of word i - 16. */
#define GIVEN(i) w[i]
#define RENEW(i) (w[i] += SIG1(w[((i) + 14) & 15]) + w[((i) + 9) & 15] + SIG0(w[((i) + 1) & 15]))

#define ROUND(a, b, c, d, e, f, g, h, W, i, j)                                      \
    do {                                                                            \
        uint32_t t = (h) + SUM1(e) + CH(e, f, g) + K[(i) + (j)] + W(((i)&8) + (j)); \
        (d) += t;                                                                   \
        (h) = t + SUM0(a) + MAJ(a, b, c);                                           \
    } while (0)

#define EIGHT(W, i)                             \
    do {                                        \
        ROUND(a, b, c, d, e, f, g, h, W, i, 0); \
        ROUND(h, a, b, c, d, e, f, g, W, i, 1); \
        ROUND(g, h, a, b, c, d, e, f, W, i, 2); \
        ROUND(f, g, h, a, b, c, d, e, W, i, 3); \
        ROUND(e, f, g, h, a, b, c, d, W, i, 4); \
        ROUND(d, e, f, g, h, a, b, c, W, i, 5); \
        ROUND(c, d, e, f, g, h, a, b, W, i, 6); \
        ROUND(b, c, d, e, f, g, h, a, W, i, 7); \
    } while (0)

void tn_sha256_plain(uint32_t s[8], const unsigned char *p, size_t blocks) {
    for (; blocks > 0; blocks--, p += 64) {
        uint32_t w[16], a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
        for (int i = 0; i < 16; i++) {
            const unsigned char *q = p + 4 * i;
            w[i] = (uint32_t)q[0] << 24 | (uint32_t)q[1] << 16 | (uint32_t)q[2] << 8 | q[3];
        }
        EIGHT(GIVEN, 0);
        EIGHT(GIVEN, 8);
        for (int i = 16; i < 64; i += 16) {
            EIGHT(RENEW, i);
            EIGHT(RENEW, i + 8);
        }
        s[0] += a, s[1] += b, s[2] += c, s[3] += d, s[4] += e, s[5] += f, s[6] += g, s[7] += h;
    }
}

#if defined(__x86_64__)

/* Leaf 7 (EBX bit 29: SHA), leaf 1 (ECX bit 9: SSSE3, bit 19: SSE4.1). */
static int has_sha_ni(void) {
    unsigned a, b, c, d, b7, c7;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d)) return 0;
    return (b7 >> 29 & 1) && (c >> 9 & 1) && (c >> 19 & 1);
}

/*
 * The state is held as (a, b, e, f) and (c, d, g, h), the schedule as four vectors of four words, m0 the oldest.
 * sha256rnds2 does two rounds with the lower two words of its last operand; sha256msg1 and sha256msg2 make four new
 * words of the schedule.
 */
#define FOUR_ROUNDS(i, m)                                                          \
    do {                                                                           \
        __m128i k = _mm_add_epi32(m, _mm_loadu_si128((const __m128i *)(K + (i)))); \
        cdgh = _mm_sha256rnds2_epu32(cdgh, abef, k);                               \
        abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(k, 0x0e));      \
    } while (0)
#define NEXT_WORDS(m0, m1, m2, m3) \
    m0 = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(m0, m1), _mm_alignr_epi8(m3, m2, 4)), m3)

__attribute__((target("sha,sse4.1,ssse3"))) static void compress_sha_ni(uint32_t s[8], const unsigned char *p,
                                                                        size_t blocks) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i dcba = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)s), 0xb1);       /* c d a b */
    __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(s + 4)), 0x1b); /* e f g h */
    __m128i abef = _mm_alignr_epi8(dcba, hgfe, 8), cdgh = _mm_blend_epi16(hgfe, dcba, 0xf0);
    for (; blocks > 0; blocks--, p += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh, *q = (const __m128i *)p;
        __m128i m0 = _mm_shuffle_epi8(_mm_loadu_si128(q), swap);
        __m128i m1 = _mm_shuffle_epi8(_mm_loadu_si128(q + 1), swap);
        __m128i m2 = _mm_shuffle_epi8(_mm_loadu_si128(q + 2), swap);
        __m128i m3 = _mm_shuffle_epi8(_mm_loadu_si128(q + 3), swap);
        for (int i = 0; i < 64; i += 16) {
            FOUR_ROUNDS(i, m0);
            FOUR_ROUNDS(i + 4, m1);
            FOUR_ROUNDS(i + 8, m2);
            FOUR_ROUNDS(i + 12, m3);
            if (i == 48) break;
            NEXT_WORDS(m0, m1, m2, m3);
            NEXT_WORDS(m1, m2, m3, m0);
            NEXT_WORDS(m2, m3, m0, m1);
            NEXT_WORDS(m3, m0, m1, m2);
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)s, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(s + 4), _mm_alignr_epi8(dchg, feba, 8));
}

static void compress(uint32_t s[8], const unsigned char *p, size_t blocks) {
    static _Atomic int known; /* 0: not asked yet, 1: has none, 2: has them */
    if (!known) known = 1 + has_sha_ni();
    if (known == 2)
        compress_sha_ni(s, p, blocks);
    else
        tn_sha256_plain(s, p, blocks);
}

#else
#define compress tn_sha256_plain
#endif

void tn_sha256_begin(tn_sha256 *s) {
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memset(s, 0, sizeof *s);
    memcpy(s->h, start, sizeof start);
}

void tn_sha256_add(tn_sha256 *s, const void *data, size_t n) {
    const unsigned char *p = data;
    size_t have = s->bytes % 64;
    if (n == 0) return;
    s->bytes += n;
    if (have > 0) {
        size_t k = n < 64 - have ? n : 64 - have;
        memcpy(s->block + have, p, k);
        p += k, n -= k;
        if (have + k < 64) return;
        compress(s->h, s->block, 1);
    }
    compress(s->h, p, n / 64);
    memcpy(s->block, p + n / 64 * 64, n % 64);
}

void tn_sha256_end(tn_sha256 *s, char hex[65]) {
    uint64_t bits = s->bytes * 8;
    size_t have = s->bytes % 64;
    s->block[have++] = 0x80;
    memset(s->block + have, 0, 64 - have);
    if (have > 56) {
        compress(s->h, s->block, 1);
        memset(s->block, 0, 64);
    }
    for (int i = 0; i < 8; i++) s->block[63 - i] = (unsigned char)(bits >> 8 * i);
    compress(s->h, s->block, 1);
    for (int i = 0; i < 64; i++) hex[i] = "0123456789abcdef"[s->h[i / 8] >> (28 - 4 * (i % 8)) & 15];
    hex[64] = 0;
}
