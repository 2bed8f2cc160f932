/* SPDX-License-Identifier: MIT */
/* The hash by which data sets and splits are known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data_internal.h"

/* The examples of FIPS 180-4 and of its companion page at NIST. */
static void check_sha(const void *p, size_t n, const char *want) {
    tn_sha256 s;
    char hex[65];
    for (size_t step = 1; step <= 200; step += 61) { /* in pieces of any size */
        tn_sha256_begin(&s);
        for (size_t i = 0; i < n; i += step)
            tn_sha256_add(&s, (const char *)p + i, n - i < step ? n - i : step);
        tn_sha256_end(&s, hex);
        assert_string_equal(hex, want);
    }
}

static void sha256(void **state) {
    (void)state;
    check_sha("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check_sha("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check_sha("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    char *a = malloc(1000000);
    assert_non_null(a);
    memset(a, 'a', 1000000);
    check_sha(a, 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(a);
}

/* With the processor's instructions, where it has them, and in plain C. */
static void sha256_plain(void **state) {
    (void)state;
    unsigned char block[64 * 5];
    uint64_t x = 1;
    for (size_t n = 1; n <= 5; n++) {
        for (size_t i = 0; i < sizeof block; i++)
            block[i] = (unsigned char)((x = x * 6364136223846793005u + 1442695040888963407u) >> 56);
        tn_sha256 s;
        tn_sha256_begin(&s);
        uint32_t plain[8];
        memcpy(plain, s.h, sizeof plain);
        tn_sha256_add(&s, block, 64 * n);
        tn_sha256_plain(plain, block, n);
        assert_memory_equal(plain, s.h, sizeof plain);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256),
        cmocka_unit_test(sha256_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
