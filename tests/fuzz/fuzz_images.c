/* SPDX-License-Identifier: MIT */
/*
 * Fuzzing the reader of pictures: any bytes are either refused with a message that names the file or give a
 * picture, the same one each time, that can be resized and prepared as a digit. With -DTN_LIBFUZZER and
 * clang's -fsanitize=fuzzer,address,undefined it is driven by libFuzzer; without, main() replays mutations of
 * good files, the same ones each time, and any files named as arguments.
 */
#include "tern_data.h"
#include <stdlib.h>
#include <string.h>

static long accepted, refused;

static void require(int ok, const char *what) {
    if (ok) return;
    fprintf(stderr, "fuzz_images: %s\n", what);
    abort();
}

/* The header's size decides how much work a file is; the limits of the reader itself are tested elsewhere. */
static int too_much_work(const tn_image *i) {
    return (long)i->h * i->w > 1 << 20;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tn_err e = {""};
    tn_image a, b, small;
    unsigned char digit[TN_DIGIT_SIDE * TN_DIGIT_SIDE];
    int c = size % 2 ? 1 : 3;
    if (tn_image_decode(data, size, "input", c, TN_IMAGE_CONTRAST, &a, &e)) {
        require(strncmp(e.msg, "input: ", 7) == 0 && e.msg[7] && !a.x, "refused without a message");
        refused++;
        return 0;
    }
    require(!e.msg[0] && a.x && a.h > 0 && a.w > 0 && a.c == c, "accepted without a picture");
    accepted++;
    if (!too_much_work(&a)) {
        size_t n = (size_t)a.h * (size_t)a.w * (size_t)c;
        require(tn_image_decode(data, size, "input", c, TN_IMAGE_CONTRAST, &b, &e) == 0 && b.h == a.h
                    && b.w == a.w,
                "accepted once only");
        require(memcmp(a.x, b.x, n) == 0, "two different pictures of the same bytes");
        tn_image_free(&b);
        require(tn_image_resize(&a, 9, 11, &small, &e) == 0, "not resized");
        tn_image_free(&small);
        if (c == 1) (void)tn_image_digit(&a, "input", digit, &e);
    }
    tn_image_free(&a);
    return 0;
}

#ifndef TN_LIBFUZZER
enum { RUNS = 12000, MOST = 4096 };
typedef struct {
    unsigned char b[MOST];
    size_t n;
} bytes;

static uint64_t state = 1;
static unsigned
below(unsigned n) { /* an LCG of its own: the mutations stay the same whatever the library does */
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)((state >> 33) % n);
}

#ifdef TERN_HAVE_STB
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#include <stb/stb_image_write.h>
#include <zlib.h>

static bytes made;

static void collect(void *user, void *data, int n) {
    (void)user;
    require(made.n + (size_t)n <= MOST, "a seed is too large");
    memcpy(made.b + made.n, data, (size_t)n);
    made.n += (size_t)n;
}

enum { PNG, PNG_ALPHA, JPEG, JPEG_RGB, EXIF, BMP, GIF, PGM, PPM, SEEDS };

static bytes seed_file(int kind) {
    static const unsigned char gif[] = {'G', 'I', 'F', '8', '9', 'a', 2,   0,    1,    0, 0x80, 0,
                                        0,   0,   0,   0,   255, 255, 255, 0x2c, 0,    0, 0,    0,
                                        2,   0,   1,   0,   0,   2,   2,   0x44, 0x0a, 0, 0x3b};
    static const unsigned char exif[] = {0xff, 0xe1, 0, 34, 'E', 'x', 'i', 'f', 0, 0,    'M', 'M',
                                         0,    '*',  0, 0,  0,   8,   0,   1,   1, 0x12, 0,   3,
                                         0,    0,    0, 1,  0,   6,   0,   0,   0, 0,    0,   0};
    unsigned char x[20 * 16 * 4];
    made.n = 0;
    for (size_t i = 0; i < sizeof x; i++)
        x[i] = (unsigned char)(i / 3 + (i % 80 > 40 && i % 80 < 60 ? 120 : 0));
    switch (kind) {
    case PNG:
        stbi_write_png_to_func(collect, NULL, 20, 16, 1, x, 20);
        break;
    case PNG_ALPHA:
        stbi_write_png_to_func(collect, NULL, 20, 16, 4, x, 80);
        break;
    case JPEG:
    case EXIF:
        stbi_write_jpg_to_func(collect, NULL, 20, 16, 1, x, 60);
        break;
    case JPEG_RGB:
        stbi_write_jpg_to_func(collect, NULL, 20, 16, 3, x, 95);
        break;
    case BMP:
        stbi_write_bmp_to_func(collect, NULL, 20, 16, 3, x);
        break;
    case GIF:
        collect(NULL, (void *)gif, sizeof gif);
        break;
    default:
        made.n = (size_t)snprintf((char *)made.b, MOST, "P%d 20 16 255\n", kind == PGM ? 5 : 6);
        collect(NULL, x, kind == PGM ? 320 : 960);
    }
    if (kind == EXIF) {
        memmove(made.b + 2 + sizeof exif, made.b + 2, made.n - 2);
        memcpy(made.b + 2, exif, sizeof exif);
        made.n += sizeof exif;
    }
    return made;
}

/* Makes the checksums of a PNG file right again, so that what is wrong gets as far as the decoder. */
static void repair(bytes *f) {
    for (size_t at = 8; at + 12 <= f->n;) {
        size_t len = (size_t)f->b[at + 2] << 8 | f->b[at + 3];
        if (f->b[at] || f->b[at + 1] || len > f->n - at - 12) return;
        uLong sum = crc32(crc32(0, NULL, 0), f->b + at + 4, (uInt)len + 4);
        for (int i = 0; i < 4; i++) f->b[at + 8 + len + (size_t)i] = (unsigned char)(sum >> (24 - 8 * i));
        at += 12 + len;
    }
}

/* One to four changes, many of them near the header. */
static void mutate(bytes *f) {
    for (unsigned k = 1 + below(4); k > 0; k--) {
        unsigned at = below(2) && f->n > 64 ? below(64) : below((unsigned)f->n);
        switch (below(6)) {
        case 0:
            f->b[at] ^= (unsigned char)(1u << below(8));
            break;
        case 1:
            f->b[at] = (unsigned char)below(256);
            break;
        case 2:
            f->b[at] = below(2) ? 0xff : 0;
            break;
        case 3:
            if (below(4) == 0) f->n = at + 1;
            break;
        case 4: /* a piece twice */
            if (f->n + 16 <= MOST && at + 16 <= f->n) {
                memmove(f->b + at + 16, f->b + at, f->n - at);
                f->n += 16;
            }
            break;
        case 5:
            if (at + 8 <= f->n) memcpy(f->b + at, f->b + below((unsigned)f->n - 7), 8);
            break;
        }
    }
}

static int replay(const char *path) {
    static unsigned char b[1 << 24];
    FILE *f = fopen(path, "rb");
    if (!f) return perror(path), 1;
    size_t n = fread(b, 1, sizeof b, f);
    fclose(f);
    return LLVMFuzzerTestOneInput(b, n);
}

int main(int argc, char **argv) {
    bytes seed[SEEDS];
    for (int i = 1; i < argc; i++)
        if (replay(argv[i])) return 1;
    for (int i = 0; i < SEEDS; i++) {
        seed[i] = seed_file(i);
        LLVMFuzzerTestOneInput(seed[i].b, seed[i].n);
    }
    require(argc > 1 || (accepted == SEEDS && refused == 0), "a good file was refused");
    for (int i = 0; i < RUNS; i++) {
        int kind = (int)below(SEEDS);
        bytes f = seed[kind];
        mutate(&f);
        if (kind <= PNG_ALPHA) repair(&f);
        unsigned char *exact = malloc(f.n); /* so that reading beyond the end is seen */
        require(exact != NULL, "out of memory");
        memcpy(exact, f.b, f.n);
        LLVMFuzzerTestOneInput(exact, f.n);
        free(exact);
    }
    printf("fuzz_images: %ld accepted, %ld refused\n", accepted, refused);
    return accepted > RUNS / 100 && refused > RUNS / 4 ? 0 : 1;
}
#else
int main(void) {
    puts("skipped: built without stb");
    (void)below(1);
    return 77;
}
#endif
#endif
