/* SPDX-License-Identifier: MIT */
/* Panics of a tape, caught in the same process by its hook and longjmp. */
#ifndef TEST_CATCH_H
#define TEST_CATCH_H
#include "support.h"
#include <stdio.h>

static struct {
    jmp_buf env;
    char msg[1024];
} caught;

static inline void catch_panic(void *arg, const char *msg) {
    (void)arg;
    snprintf(caught.msg, sizeof caught.msg, "%s", msg);
    longjmp(caught.env, 1);
}

/* The statement panics on this tape with all parts in its message; the tape is reset after it. */
#define assert_panics(tape, statement, part1, part2, part3) \
    do {                                                    \
        tn_on_panic((tape), catch_panic, NULL);             \
        if (!setjmp(caught.env)) {                          \
            statement;                                      \
            fail_msg("no panic: %s", #statement);           \
        }                                                   \
        tn_on_panic((tape), NULL, NULL);                    \
        assert_contains(caught.msg, part1);                 \
        assert_contains(caught.msg, part2);                 \
        assert_contains(caught.msg, part3);                 \
        tn_tape_reset(tape);                                \
    } while (0)
#endif
