/* SPDX-License-Identifier: MIT */
/*
 * One vector level, chosen by the build with -DTN_LEVEL_PLAIN, _AVX2, _AVX512, _NEON or _WIDE: its name, its
 * vector types and the few operations that need an intrinsic. This is the only place that knows a level.
 *
 *   V   VL tn_reals                         VU, VI  VL unsigned or signed integers of the same size
 *   masks are VI with all bits of a lane set or clear; & | ~ work on them; vany: is any set?
 *
 * Plain is scalar C: V is a tn_real and VL is 1, for float and double. The others are float only. Wide is for
 * tests: the tile of avx512 on 16-float vectors that are two registers of avx2, so that a machine without
 * AVX-512 can check its logic.
 */
#ifndef TN_KERNELS_VEC_H
#define TN_KERNELS_VEC_H
#include "kernels.h"
#include <math.h>
#include <stdint.h>
#include <string.h>

#define TN_PASTE_(a, b, c) a##b##c
#define TN_PASTE(a, b, c)  TN_PASTE_(a, b, c)
#ifdef TN_DOUBLE
#define TN_LEVEL_PREFIX tn64_k_
#else
#define TN_LEVEL_PREFIX tn_k_
#endif
/* The linker's name of a kernel: tn_k_gemm_avx2. */
#define TN_LEVEL_NAME(name) TN_PASTE(TN_LEVEL_PREFIX, name, TN_LEVEL_SUFFIX)

#if defined(TN_LEVEL_PLAIN)

#define TN_LEVEL_SUFFIX _plain
#define TN_LEVEL_TEXT   "plain"
enum { VL = 1, MR = 4 };
#define TN_EACH_LANE(f) f(0)
typedef tn_real V;
#ifdef TN_DOUBLE
typedef uint64_t VU;
typedef int64_t VI;
static inline V vfma(V a, V b, V c) {
    return fma(a, b, c);
}
static inline V vfnma(V a, V b, V c) { /* c - a b */
    return fma(-a, b, c);
}
static inline V vsqrt(V a) {
    return sqrt(a);
}
#else
typedef uint32_t VU;
typedef int32_t VI;
static inline V vfma(V a, V b, V c) {
    return fmaf(a, b, c);
}
static inline V vfnma(V a, V b, V c) {
    return fmaf(-a, b, c);
}
static inline V vsqrt(V a) {
    return sqrtf(a);
}
#endif
static inline V vload(const tn_real *p) {
    return *p;
}
static inline void vstore(tn_real *p, V v) {
    *p = v;
}
static inline V vset1(tn_real s) {
    return s;
}
static inline V vload_u8(const unsigned char *p) {
    return (V)*p;
}
static inline V vmin(V a, V b) {
    return a < b ? a : b;
}
static inline V vmax(V a, V b) {
    return a > b ? a : b;
}
static inline V vsel(VI m, V a, V b) {
    return m ? a : b;
}
static inline VU vbits(V v) {
    VU u;
    memcpy(&u, &v, sizeof u);
    return u;
}
static inline V vfrom_bits(VU u) {
    V v;
    memcpy(&v, &u, sizeof v);
    return v;
}
static inline V vfrom_int(VI i) {
    return (V)i;
}
static inline int vany(VI m) {
    return m != 0;
}
static inline uint32_t vbits_of(VI m) { /* one bit a lane */
    return m != 0;
}
#define VMASK(cond) ((VI) - (VI)(cond)) /* a comparison of two V as a mask */

/* The even and the odd elements of a followed by b. */
static inline V veven(V a, V b) {
    (void)b;
    return a;
}
static inline V vodd(V a, V b) {
    (void)a;
    return b;
}
static inline void vstore_u8(unsigned char *p, V v) { /* of whole numbers from 0 to 255 */
    *p = (unsigned char)v;
}
/* Lanes lane(0), lane(1) ... of a followed by b; a single one stays where it is. */
#define VSHUFFLE(a, b, lane) ((void)(b), (a))

#else /* the vector levels */

#ifdef TN_DOUBLE
#error "only the plain level is built for double"
#endif

/* A list of f(lane), for indices of shuffles, which must be constants. */
#define TN_EIGHT_LANES(f)   f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7)
#define TN_SIXTEEN_LANES(f) TN_EIGHT_LANES(f), f(8), f(9), f(10), f(11), f(12), f(13), f(14), f(15)

#if defined(TN_LEVEL_AVX2)
#include <immintrin.h>
#define TN_LEVEL_SUFFIX _avx2
#define TN_LEVEL_TEXT   "avx2"
enum { VL = 8, MR = 6 };
#define TN_EACH_LANE    TN_EIGHT_LANES
#elif defined(TN_LEVEL_AVX512)
#include <immintrin.h>
#define TN_LEVEL_SUFFIX _avx512
#define TN_LEVEL_TEXT   "avx512"
enum { VL = 16, MR = 8 };
#define TN_EACH_LANE    TN_SIXTEEN_LANES
#elif defined(TN_LEVEL_WIDE)
#include <immintrin.h>
#define TN_LEVEL_SUFFIX _wide
#define TN_LEVEL_TEXT   "wide"
enum { VL = 16, MR = 8 };
#define TN_EACH_LANE    TN_SIXTEEN_LANES
#elif defined(TN_LEVEL_NEON)
#include <arm_neon.h>
#define TN_LEVEL_SUFFIX _neon
#define TN_LEVEL_TEXT   "neon"
enum { VL = 4, MR = 8 };
#define TN_EACH_LANE(f) f(0), f(1), f(2), f(3)
#else
#error "define one TN_LEVEL_..."
#endif

typedef float V __attribute__((vector_size(VL * 4)));
typedef float V_at_any_address __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef uint32_t VU __attribute__((vector_size(VL * 4)));
typedef int32_t VI __attribute__((vector_size(VL * 4)));
typedef unsigned char VB __attribute__((vector_size(VL)));

static inline V vload(const tn_real *p) {
    return *(const V_at_any_address *)p;
}
static inline void vstore(tn_real *p, V v) {
    *(V_at_any_address *)p = v;
}
static inline V vsel(VI m, V a, V b) {
    return (V)((m & (VI)a) | (~m & (VI)b));
}
static inline VU vbits(V v) {
    return (VU)v;
}
static inline V vfrom_bits(VU u) {
    return (V)u;
}
static inline V vfrom_int(VI i) {
    return __builtin_convertvector(i, V);
}
#define VMASK(cond) ((VI)(cond))

#define VSHUFFLE(a, b, lane) __builtin_shufflevector(a, b, TN_EACH_LANE(lane))
#define TN_EVEN(l)           (2 * (l))
#define TN_ODD(l)            (2 * (l) + 1)
static inline V veven(V a, V b) {
    return VSHUFFLE(a, b, TN_EVEN);
}
static inline V vodd(V a, V b) {
    return VSHUFFLE(a, b, TN_ODD);
}
static inline void vstore_u8(unsigned char *p, V v) {
    VB b = __builtin_convertvector(__builtin_convertvector(v, VI), VB);
    memcpy(p, &b, sizeof b);
}

/* vmin is a < b ? a : b and vmax a > b ? a : b: where one is NaN, b. That is what minps and maxps do. */
#if defined(TN_LEVEL_AVX2)

static inline V vset1(tn_real s) {
    return _mm256_set1_ps(s);
}
static inline V vfma(V a, V b, V c) {
    return _mm256_fmadd_ps(a, b, c);
}
static inline V vfnma(V a, V b, V c) {
    return _mm256_fnmadd_ps(a, b, c);
}
static inline V vsqrt(V a) {
    return _mm256_sqrt_ps(a);
}
static inline V vmin(V a, V b) {
    return _mm256_min_ps(a, b);
}
static inline V vmax(V a, V b) {
    return _mm256_max_ps(a, b);
}
static inline int vany(VI m) {
    return _mm256_movemask_ps((V)m) != 0;
}
static inline uint32_t vbits_of(VI m) {
    return (uint32_t)_mm256_movemask_ps((V)m);
}
static inline V vload_u8(const unsigned char *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

#elif defined(TN_LEVEL_AVX512)

static inline V vset1(tn_real s) {
    return _mm512_set1_ps(s);
}
static inline V vfma(V a, V b, V c) {
    return _mm512_fmadd_ps(a, b, c);
}
static inline V vfnma(V a, V b, V c) {
    return _mm512_fnmadd_ps(a, b, c);
}
static inline V vsqrt(V a) {
    return _mm512_sqrt_ps(a);
}
static inline V vmin(V a, V b) {
    return _mm512_min_ps(a, b);
}
static inline V vmax(V a, V b) {
    return _mm512_max_ps(a, b);
}
static inline int vany(VI m) {
    return _mm512_movepi32_mask((__m512i)m) != 0;
}
static inline uint32_t vbits_of(VI m) {
    return _mm512_movepi32_mask((__m512i)m);
}
static inline V vload_u8(const unsigned char *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

#elif defined(TN_LEVEL_WIDE)

#define TN_LOW(v)       __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7)
#define TN_HIGH(v)      __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15)
#define TN_JOIN(lo, hi) __builtin_shufflevector(lo, hi, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)

static inline V vset1(tn_real s) {
    return TN_JOIN(_mm256_set1_ps(s), _mm256_set1_ps(s));
}
static inline V vfma(V a, V b, V c) {
    return TN_JOIN(_mm256_fmadd_ps(TN_LOW(a), TN_LOW(b), TN_LOW(c)),
                   _mm256_fmadd_ps(TN_HIGH(a), TN_HIGH(b), TN_HIGH(c)));
}
static inline V vfnma(V a, V b, V c) {
    return vfma(-a, b, c);
}
static inline V vsqrt(V a) {
    return TN_JOIN(_mm256_sqrt_ps(TN_LOW(a)), _mm256_sqrt_ps(TN_HIGH(a)));
}
static inline V vmin(V a, V b) {
    return TN_JOIN(_mm256_min_ps(TN_LOW(a), TN_LOW(b)), _mm256_min_ps(TN_HIGH(a), TN_HIGH(b)));
}
static inline V vmax(V a, V b) {
    return TN_JOIN(_mm256_max_ps(TN_LOW(a), TN_LOW(b)), _mm256_max_ps(TN_HIGH(a), TN_HIGH(b)));
}
static inline int vany(VI m) {
    return (_mm256_movemask_ps(TN_LOW((V)m)) | _mm256_movemask_ps(TN_HIGH((V)m))) != 0;
}
static inline uint32_t vbits_of(VI m) {
    return (uint32_t)_mm256_movemask_ps(TN_LOW((V)m)) | (uint32_t)_mm256_movemask_ps(TN_HIGH((V)m)) << 8;
}
static inline V vload_u8(const unsigned char *p) {
    __m256i lo = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
    __m256i hi = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8)));
    return TN_JOIN(_mm256_cvtepi32_ps(lo), _mm256_cvtepi32_ps(hi));
}

#elif defined(TN_LEVEL_NEON)

static inline V vset1(tn_real s) {
    return vdupq_n_f32(s);
}
static inline V vfma(V a, V b, V c) {
    return vfmaq_f32(c, a, b);
}
static inline V vfnma(V a, V b, V c) {
    return vfmsq_f32(c, a, b);
}
static inline V vsqrt(V a) {
    return vsqrtq_f32(a);
}
static inline V vmin(V a, V b) { /* vminq_f32 would give NaN for NaN in either */
    return vsel(VMASK(a < b), a, b);
}
static inline V vmax(V a, V b) {
    return vsel(VMASK(a > b), a, b);
}
static inline int vany(VI m) {
    return vmaxvq_u32((uint32x4_t)m) != 0;
}
static inline uint32_t vbits_of(VI m) {
    return vaddvq_u32((uint32x4_t)m & (uint32x4_t){1, 2, 4, 8});
}
static inline V vload_u8(const unsigned char *p) {
    uint32_t four;
    memcpy(&four, p, sizeof four);
    uint16x8_t h = vmovl_u8(vcreate_u8(four));
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(h)));
}

#endif
#endif

/* VH: HL <= 8 tn_reals, for rows so short that most of a longer vector would go to waste. */
#if defined(TN_LEVEL_AVX512) || defined(TN_LEVEL_WIDE)
typedef __m256 VH;
enum { HL = 8 };
static inline VH vh_load(const tn_real *p) {
    return _mm256_loadu_ps(p);
}
static inline void vh_store(tn_real *p, VH v) {
    _mm256_storeu_ps(p, v);
}
static inline VH vh_set1(tn_real s) {
    return _mm256_set1_ps(s);
}
static inline VH vh_fma(VH a, VH b, VH c) {
    return _mm256_fmadd_ps(a, b, c);
}
#else
typedef V VH;
enum { HL = VL };
#define vh_load  vload
#define vh_store vstore
#define vh_set1  vset1
#define vh_fma   vfma
#endif

/*
 * VD: DL doubles. vd_add_squares: s[l] + p[l]^2. A float's square is exact in double, so that the fused form has the same
 * bits, at less cost. (From loops gcc 12 makes loads of whole vectors, which it has to split.)
 */
#if defined(TN_LEVEL_AVX512)
typedef __m512d VD;
enum { DL = 8 };
static inline VD vd_add_squares(VD s, const tn_real *p) {
    const VD x = _mm512_cvtps_pd(_mm256_loadu_ps(p));
    return _mm512_fmadd_pd(x, x, s);
}
#elif defined(TN_LEVEL_AVX2) || defined(TN_LEVEL_WIDE)
typedef __m256d VD;
enum { DL = 4 };
static inline VD vd_add_squares(VD s, const tn_real *p) {
    const VD x = _mm256_cvtps_pd(_mm_loadu_ps(p));
    return _mm256_fmadd_pd(x, x, s);
}
#elif defined(TN_LEVEL_NEON)
typedef float64x2_t VD;
enum { DL = 2 };
static inline VD vd_add_squares(VD s, const tn_real *p) {
    const VD x = vcvt_f64_f32(vld1_f32(p));
    return vfmaq_f64(s, x, x);
}
#else
typedef double VD;
enum { DL = 1 };
static inline VD vd_add_squares(VD s, const tn_real *p) {
    return s + (double)*p * (double)*p;
}
#endif

/* The register tile is MR rows of two vectors; that of a recurrent layer of three where there are 32 registers. */
enum { NR = 2 * VL, TN_SPARSE_WIDTH = 4 * VL /* of sparse_panel */ };
#if defined(TN_LEVEL_PLAIN) || defined(TN_LEVEL_AVX2)
enum { TN_PANEL = NR, TN_SPARSE_WIDE = TN_SPARSE_WIDTH };
#else
enum { TN_PANEL = 3 * VL, TN_SPARSE_WIDE = 2 * TN_SPARSE_WIDTH };
#endif
/* vbits_of all lanes set */
enum { VALL = (1 << VL) - 1 };

/*
 * For a vector that several multiply-adds use: left to itself gcc reads it from memory for each of them, and such a
 * multiply-add takes half as long again.
 */
#if defined(TN_LEVEL_AVX512)
#define IN_REGISTER(v) __asm__("" : "+v"(v))
#elif defined(TN_LEVEL_AVX2)
#define IN_REGISTER(v) __asm__("" : "+x"(v))
#else
#define IN_REGISTER(v) (void)(v)
#endif

/* One bit a lane that is not zero (NaN is not); gcc 12 makes a vector of a mask and a mask of that. */
static inline uint32_t vnonzero(V a) {
#if defined(TN_LEVEL_AVX512)
    return _mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_NEQ_UQ);
#else
    return vbits_of(VMASK(a == vset1(0))) ^ VALL;
#endif
}

static inline VI vlt(V a, V b) {
    return VMASK(a < b);
}
static inline VI vgt(V a, V b) {
    return VMASK(a > b);
}
static inline VI veq(V a, V b) {
    return VMASK(a == b);
}
static inline V vabs(V a) {
    const tn_real minus_zero = (tn_real)-0.0;
    return vfrom_bits(vbits(a) & ~vbits(vset1(minus_zero)));
}
/* The magnitude of a with the sign of b. */
static inline V vcopysign(V a, V b) {
    const VU sign = vbits(vset1((tn_real)-0.0));
    return vfrom_bits((vbits(a) & ~sign) | (vbits(b) & sign));
}

/* Any lane of a above most's: what vany(VMASK(a > most)) says; gcc 12 makes a vector of the mask first. */
static inline int vany_above(VU a, VU most) {
#if defined(TN_LEVEL_AVX512)
    return _mm512_cmpgt_epu32_mask((__m512i)a, (__m512i)most) != 0;
#else
    return vany(VMASK(a > most));
#endif
}

/*
 * Of two elements that compete for a maximum and their places: the largest, or the first NaN. (gcc 12 makes vectors of the
 * masks and selects by three operations.)
 */
static inline void vtake(V *best, V *place, V b, V at) {
#if defined(TN_LEVEL_AVX512)
    __mmask16 number = _mm512_cmp_ps_mask(*best, *best, _CMP_ORD_Q);
    __mmask16 m = _mm512_mask_cmp_ps_mask(number, b, *best, _CMP_NLE_UQ);
    *best = _mm512_mask_mov_ps(*best, m, b), *place = _mm512_mask_mov_ps(*place, m, at);
#else
    VI m = VMASK(*best == *best) & ~VMASK(b <= *best);
    *best = vsel(m, b, *best), *place = vsel(m, at, *place);
#endif
}

/* The gradient passes where y > 0. NaN in either gives NaN, which a select alone would hide. */
static inline V vbehind_relu(V gy, V y) {
#if defined(TN_LEVEL_AVX512)
    V passed = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(y, _mm512_setzero_ps(), _CMP_GT_OQ), gy);
    return _mm512_mask_add_ps(passed, _mm512_cmp_ps_mask(gy, y, _CMP_UNORD_Q), gy, y);
#else
    V passed = vsel(vgt(y, vset1(0)), gy, vset1(0));
    return vsel(veq(gy, gy) & veq(y, y), passed, gy + y);
#endif
}

/* a where any of these bits is set in `of`, else 0. */
static inline V vwhere(V a, V of, VU bits) {
#if defined(TN_LEVEL_AVX512)
    return _mm512_maskz_mov_ps(_mm512_test_epi32_mask((__m512i)of, (__m512i)bits), a);
#else
    return vsel(VMASK((vbits(of) & bits) == 0), vset1(0), a);
#endif
}

/* Loads n < VL elements, the rest filled; stores the first n. */
static inline V vload_part(const tn_real *p, size_t n, tn_real fill) {
#if defined(TN_LEVEL_AVX512)
    return _mm512_mask_loadu_ps(vset1(fill), (__mmask16)((1U << n) - 1), p);
#else
    tn_real t[VL];
    for (size_t l = 0; l < VL; l++) t[l] = l < n ? p[l] : fill;
    return vload(t);
#endif
}
static inline void vstore_part(tn_real *p, size_t n, V v) {
#if defined(TN_LEVEL_AVX512)
    _mm512_mask_storeu_ps(p, (__mmask16)((1U << n) - 1), v);
#else
    tn_real t[VL];
    vstore(t, v);
    for (size_t l = 0; l < n; l++) p[l] = t[l];
#endif
}
#endif
