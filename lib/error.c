/* SPDX-License-Identifier: MIT */
/* Messages for what goes wrong outside, the library's version, and the allocator that all memory goes through. */
#define _DEFAULT_SOURCE /* madvise */
#include "internal.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

const char *tn_version(void) {
    return TN_VERSION;
}

int tn_fail(tn_err *e, const char *fmt, ...) {
    if (e) {
        char msg[sizeof e->msg]; /* arguments may point into e->msg itself */
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(msg, sizeof msg, fmt, ap);
        va_end(ap);
        memcpy(e->msg, msg, sizeof msg);
    }
    return -1;
}

/*
 * Large blocks ask for huge pages: a batch takes its rows from all over the data set, and with small ones each row costs
 * a walk through the page tables. (128 images of MNIST: 40 us, 27 with huge pages.) It is advice; errors do not matter.
 */
static void *system_alloc(size_t bytes) {
    char *p = malloc(bytes);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    enum { LARGE = 8 << 20, HUGE_PAGE = 2 << 20 };
    if (p && bytes >= LARGE) {
        size_t skip = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
        madvise(p + skip, (bytes - skip) / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    }
#endif
    return p;
}

static tn_allocator allocator = {system_alloc, realloc, free};

void tn_set_allocator(const tn_allocator *a) {
    allocator = *a;
}

void *tn_mem_new(size_t bytes) {
    void *p = allocator.alloc(bytes ? bytes : 1);
    return p ? memset(p, 0, bytes) : NULL;
}

void *tn_mem_raw(size_t bytes) {
    return allocator.alloc(bytes ? bytes : 1);
}

void *tn_mem_resize(void *p, size_t bytes) {
    return allocator.resize(p, bytes ? bytes : 1);
}

void tn_free(void *p) {
    if (p) allocator.release(p);
}

/* The pointer that the allocator gave stands in the word before the aligned block. */
void *tn_mem_aligned_raw(size_t bytes) {
    if (bytes > SIZE_MAX - 128) return NULL;
    char *raw = allocator.alloc(bytes + 64 + sizeof(void *));
    if (!raw) return NULL;
    uintptr_t at = ((uintptr_t)raw + sizeof(void *) + 63) & ~(uintptr_t)63;
    ((void **)at)[-1] = raw;
    return (void *)at;
}

void *tn_mem_aligned(size_t bytes) {
    void *p = tn_mem_aligned_raw(bytes);
    return p ? memset(p, 0, bytes) : NULL;
}

void tn_mem_aligned_free(void *p) {
    if (p) allocator.release(((void **)p)[-1]);
}
