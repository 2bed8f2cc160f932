/* SPDX-License-Identifier: MIT */
/*
 * Which vector level runs: the best one of this processor, or the one that TERN_SIMD names. Compiled once.
 */
#include "kernels.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef TN_DOUBLE
extern const tn_kernels_t tn64_k_table_plain;
#define TABLE_PLAIN tn64_k_table_plain
#else
extern const tn_kernels_t tn_k_table_plain;
#define TABLE_PLAIN tn_k_table_plain
#endif

static int always(void) {
    return 1;
}

/* __builtin_cpu_supports also asks whether the operating system saves the wide registers. */
#if defined(__x86_64__) && !defined(TN_DOUBLE)
extern const tn_kernels_t tn_k_table_avx2, tn_k_table_avx512;

static int has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi");
}
static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
           && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}
#elif defined(__aarch64__) && !defined(TN_DOUBLE)
extern const tn_kernels_t tn_k_table_neon;
#endif

/* Every level of this build, best first. */
static const struct {
    const tn_kernels_t *table;
    int (*runs)(void);
} levels[] = {
#if defined(__x86_64__) && !defined(TN_DOUBLE)
    {&tn_k_table_avx512, has_avx512},
    {&tn_k_table_avx2, has_avx2},
#elif defined(__aarch64__) && !defined(TN_DOUBLE)
    {&tn_k_table_neon, always},
#endif
    {&TABLE_PLAIN, always},
};
enum { LEVELS = sizeof levels / sizeof levels[0] };

/* The first level that runs here and has this name; any name for NULL. */
static const tn_kernels_t *find(const char *name) {
    for (int i = 0; i < LEVELS; i++)
        if ((!name || strcmp(name, levels[i].table->name) == 0) && levels[i].runs()) return levels[i].table;
    return NULL;
}

const tn_kernels_t *tn_kernels_level(const char *name) {
    return name ? find(name) : NULL;
}

static void list_levels(char *out, size_t size) {
    size_t used = 0;
    out[0] = 0;
    for (int i = 0; i < LEVELS; i++)
        if (levels[i].runs() && used < size)
            used +=
                (size_t)snprintf(out + used, size - used, "%s%s", used ? ", " : "", levels[i].table->name);
}

#ifdef TN_DOUBLE
/* The double build has the plain level only, and TERN_SIMD is about the float build's. */
static const char *wanted_level(void) {
    return NULL;
}
#else
static const char *wanted_level(void) {
    const char *name = getenv("TERN_SIMD");
    return name && *name ? name : NULL;
}
#endif

const tn_kernels_t *tn_kernels_get(tn_err *err) {
    static _Atomic(const tn_kernels_t *) chosen; /* two threads that come first at once store the same */
    const tn_kernels_t *table = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (table) return table;
    const char *wanted = wanted_level();
    table = find(wanted);
    if (!table) {
        char names[128];
        list_levels(names, sizeof names);
        tn_fail(err,
                "TERN_SIMD=%s: no such vector level here; unset it or take one that this machine runs: %s",
                wanted ? wanted : "", names);
        return NULL;
    }
    atomic_store_explicit(&chosen, table, memory_order_relaxed);
    return table;
}
