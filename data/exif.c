/* SPDX-License-Identifier: MIT */
/*
 * Which way up a photograph is: cameras write the pixels as the sensor lies and the rest into the tag
 * Orientation (0x0112) of the Exif part of a JPEG file (JEITA CP-3451, section 4.6.4 A).
 */
#include "data_internal.h"
#include <string.h>

static unsigned get(const unsigned char *p, int bytes, int big) {
    unsigned v = 0;
    for (int i = 0; i < bytes; i++) v = v << 8 | p[big ? i : bytes - 1 - i];
    return v;
}

/* A TIFF header, then directories of 12-byte entries: tag, type, count, value. */
static int from_tiff(const unsigned char *p, size_t n) {
    if (n < 8 || (memcmp(p, "II*", 4) != 0 && memcmp(p, "MM\0*", 4) != 0)) return 1;
    int big = p[0] == 'M';
    size_t at = get(p + 4, 4, big);
    if (at > n || n - at < 2) return 1;
    unsigned count = get(p + at, 2, big);
    for (at += 2; count > 0 && n - at >= 12; count--, at += 12) {
        unsigned v = get(p + at + 8, 2, big);
        if (get(p + at, 2, big) == 0x0112)
            return get(p + at + 2, 2, big) == 3 && v >= 1 && v <= 8 ? (int)v : 1;
    }
    return 1;
}

int tn_exif_orientation(const unsigned char *p, size_t n) {
    size_t at = 2;
    if (n < 4 || p[0] != 0xff || p[1] != 0xd8) return 1;
    while (n - at >= 4 && p[at] == 0xff && p[at + 1] != 0xda) {
        size_t len = get(p + at + 2, 2, 1);
        if (len < 2 || len > n - at - 2) return 1;
        if (p[at + 1] == 0xe1 && len >= 8 && memcmp(p + at + 4, "Exif\0", 6) == 0)
            return from_tiff(p + at + 10, len - 8);
        at += 2 + len;
    }
    return 1;
}
