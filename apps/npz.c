/* SPDX-License-Identifier: MIT */
/* .npy and .npz, built in memory and written whole. */
#include "npz.h"
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

typedef struct {
    unsigned char *p;
    size_t n, cap;
    int bad;
} bytes;

static void put(bytes *b, const void *x, size_t n) {
    if (b->bad) return;
    if (b->n + n > b->cap) {
        size_t cap = 2 * (b->n + n);
        unsigned char *p = realloc(b->p, cap);
        if (!p) {
            b->bad = 1;
            return;
        }
        b->p = p;
        b->cap = cap;
    }
    if (n) memcpy(b->p + b->n, x, n);
    b->n += n;
}

static void put_int(bytes *b, unsigned long v, int width) {
    unsigned char le[4];
    for (int i = 0; i < width; i++) le[i] = (unsigned char)(v >> 8 * i);
    put(b, le, (size_t)width);
}

static size_t element(const npy_array *a) {
    return a->type == 'd' ? 8 : 4;
}

/* The header ends at a multiple of 64 bytes. The byte order is the machine's, and the header says which. */
static void put_npy(bytes *b, const npy_array *a) {
    static const unsigned short one = 1;
    char shape[64], head[256];
    size_t count = 1;
    for (int i = 0; i < a->nd; i++) count *= (size_t)a->dim[i];
    if (a->nd == 2)
        snprintf(shape, sizeof shape, "(%d, %d)", a->dim[0], a->dim[1]);
    else
        snprintf(shape, sizeof shape, "(%d,)", a->dim[0]);
    int n = snprintf(head, sizeof head, "{'descr': '%c%c%d', 'fortran_order': False, 'shape': %s, }",
                     *(const unsigned char *)&one ? '<' : '>', a->type == 'i' ? 'i' : 'f', (int)element(a),
                     shape);
    int whole = (10 + n + 1 + 63) / 64 * 64;
    memset(head + n, ' ', (size_t)(whole - 10 - n));
    head[whole - 11] = '\n';
    put(b, "\x93NUMPY\x01\x00", 8);
    put_int(b, (unsigned long)(whole - 10), 2);
    put(b, head, (size_t)(whole - 10));
    put(b, a->x, count * element(a));
}

static int finish(bytes *b, const char *path, tn_err *e) {
    int code =
        b->bad ? tn_fail(e, "%s: not enough memory to write it", path) : tn_write_file(path, b->p, b->n, e);
    free(b->p);
    return code;
}

int npy_write(const char *path, const npy_array *a, tn_err *e) {
    bytes b = {0};
    put_npy(&b, a);
    return finish(&b, path, e);
}

/*
 * What the local header and the directory share: version, flags, method 0, 1980-01-01, CRC, sizes, name
 * length.
 */
static void put_entry(bytes *b, const char *name, unsigned long crc, size_t size) {
    put_int(b, 20, 2);
    put_int(b, 0, 2);
    put_int(b, 0, 2);
    put_int(b, 0, 2);
    put_int(b, 1 << 5 | 1, 2);
    put_int(b, crc, 4);
    put_int(b, (unsigned long)size, 4);
    put_int(b, (unsigned long)size, 4);
    put_int(b, (unsigned long)strlen(name), 2);
    put_int(b, 0, 2);
}

int npz_write(const char *path, int n, const npy_array *a, tn_err *e) {
    bytes all = {0}, directory = {0};
    for (int i = 0; i < n; i++) {
        bytes one = {0};
        char name[80];
        size_t at = all.n;
        put_npy(&one, &a[i]);
        if (one.bad || one.n > 0x7fffffff || at > 0x7fffffff) all.bad = 1;
        unsigned long crc = one.bad ? 0 : crc32(0, one.p, (uInt)one.n);
        snprintf(name, sizeof name, "%s.npy", a[i].name);
        put(&all, "PK\3\4", 4);
        put_entry(&all, name, crc, one.n);
        put(&all, name, strlen(name));
        put(&all, one.p, one.n);
        put(&directory, "PK\1\2", 4);
        put_int(&directory, 20, 2);
        put_entry(&directory, name, crc, one.n);
        put_int(&directory, 0, 2); /* comment, disk, attributes */
        put_int(&directory, 0, 2);
        put_int(&directory, 0, 2);
        put_int(&directory, 0, 4);
        put_int(&directory, (unsigned long)at, 4);
        put(&directory, name, strlen(name));
        free(one.p);
    }
    size_t at = all.n;
    put(&all, directory.p, directory.n);
    put(&all, "PK\5\6", 4);
    put_int(&all, 0, 4);
    put_int(&all, (unsigned long)n, 2);
    put_int(&all, (unsigned long)n, 2);
    put_int(&all, (unsigned long)directory.n, 4);
    put_int(&all, (unsigned long)at, 4);
    put_int(&all, 0, 2);
    all.bad |= directory.bad;
    free(directory.p);
    return finish(&all, path, e);
}
