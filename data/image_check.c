/* SPDX-License-Identifier: MIT */
/*
 * A look at a file before stb_image gets it, which (2.27, as Debian 12 has it) checks no checksum, writes
 * beyond its tables for some damaged JPEG files and overflows on large numbers in a PNM header.
 */
#include "data_internal.h"
#include <string.h>
#include <zlib.h>

static const char *const early = "ends too early", *const damaged = "is damaged";

/* Chunks of length, type, data and a checksum, the last of them IEND. */
static const char *check_png(const unsigned char *p, size_t n) {
    for (size_t at = 8; n - at >= 12;) {
        size_t len = (size_t)p[at] << 24 | (size_t)p[at + 1] << 16 | (size_t)p[at + 2] << 8 | p[at + 3];
        if (len > n - at - 12) return early;
        const unsigned char *sum = p + at + 8 + len;
        uLong want = (uLong)sum[0] << 24 | (uLong)sum[1] << 16 | (uLong)sum[2] << 8 | sum[3];
        if (crc32(crc32(0, NULL, 0), p + at + 4, (uInt)len + 4) != want)
            return "is damaged: a checksum is wrong";
        if (memcmp(p + at + 4, "IEND", 4) == 0) return NULL;
        at += 12 + len;
    }
    return early;
}

/* A segment of Huffman tables: class and number, 16 counts, as many values as the counts say, at most 256. */
static const char *check_tables(const unsigned char *p, size_t n) {
    while (n > 0) {
        size_t values = 0;
        if (n < 17) return damaged;
        for (int i = 1; i <= 16; i++) values += p[i];
        if (values > 256 || values > n - 17) return damaged;
        p += 17 + values;
        n -= 17 + values;
    }
    return NULL;
}

/*
 * The next marker from `at` on, after entropy-coded data, whose 0xff are followed by 0 or a restart marker.
 */
static size_t next_marker(const unsigned char *p, size_t n, size_t at) {
    for (; n - at >= 2; at++)
        if (p[at] == 0xff && p[at + 1] != 0xff && p[at + 1] != 0 && (p[at + 1] < 0xd0 || p[at + 1] > 0xd7))
            return at;
    return n;
}

static const char *check_jpeg(const unsigned char *p, size_t n) {
    for (size_t at = 2; (at = next_marker(p, n, at)) < n;) {
        if (p[at + 1] == 0xd9) return NULL;
        if (n - at < 4) return early;
        size_t len = (size_t)p[at + 2] << 8 | p[at + 3];
        if (len < 2) return damaged;
        if (len > n - at - 2) return early;
        const char *why = p[at + 1] == 0xc4 ? check_tables(p + at + 4, len - 2) : NULL;
        if (why) return why;
        at += 2 + len;
    }
    return early;
}

/* Numbers of at most nine digits, as far as the header can go. */
static const char *check_pnm(const unsigned char *p, size_t n) {
    int digits = 0, numbers = 0;
    for (size_t i = 2; i < n && numbers < 3; i++) {
        if (p[i] == '#')
            while (i < n && p[i] != '\n' && p[i] != '\r') i++;
        else if (p[i] >= '0' && p[i] <= '9') {
            if (++digits > 9) return "a picture cannot be so large";
            continue;
        }
        numbers += digits > 0;
        digits = 0;
    }
    return NULL;
}

const char *tn_image_check(const unsigned char *p, size_t n) {
    if (n >= 8 && memcmp(p, "\x89PNG\r\n\x1a\n", 8) == 0) return check_png(p, n);
    if (n >= 2 && p[0] == 0xff && p[1] == 0xd8) return check_jpeg(p, n);
    if (n >= 2 && p[0] == 'P' && (p[1] == '5' || p[1] == '6')) return check_pnm(p, n);
    return NULL;
}
