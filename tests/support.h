/* SPDX-License-Identifier: MIT */
/* What several tests share: recorded values, exact pseudo-random numbers, comparisons, panics. */
#ifndef TEST_SUPPORT_H
#define TEST_SUPPORT_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "tern.h"

/* tests/golden/FILE, as in "optim/adam.json"; fails the test if it cannot be read. Release: json_decref. */
json_t *golden_load(const char *file);
/* As `uniform` of golden/common.py: scale (k - 2^20) / 2^20, k the top 21 bits of each splitmix64 draw. */
void golden_uniform(uint64_t seed, double scale, size_t n, double *out);
/* A JSON array of n numbers; fails the test when its length differs. */
void golden_reals(const json_t *array, size_t n, tn_real *out);
/* Largest |got - want| over the largest |want|; got has the length of the array. NaN counts as infinite. */
double golden_distance(const tn_real *got, const json_t *want);

int same_bits(const tn_real *a, const tn_real *b, size_t n);

/* |got - want| <= rel |want|, or both equal. */
void check_near_at(double got, double want, double rel, const char *file, int line);
#define assert_near(got, want, rel) check_near_at((got), (want), (rel), __FILE__, __LINE__)
/* The text has the part in it. */
void check_contains_at(const char *text, const char *part, const char *file, int line);
#define assert_contains(text, part) check_contains_at((text), (part), __FILE__, __LINE__)

/* 1: fn(arg) ends in abort(), with a message on stderr that holds `message`. Runs in a process of its own. */
int panics(void (*fn)(void *), void *arg, const char *message);
#endif
