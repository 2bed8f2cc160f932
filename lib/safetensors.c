/* SPDX-License-Identifier: MIT */
/* safetensors: opening a file with every check the format asks for, and reading its numbers. */
#include "safetensors.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ST_MAX_HEADER = 100000000 }; /* the reference reader's own limit */

static const struct {
    const char *name;
    int bytes;
} dtypes[] = {{"F32", 4},  {"F64", 8}, {"F16", 2},     {"BF16", 2},   {"I64", 8}, {"I32", 4},
              {"I16", 2},  {"I8", 1},  {"U64", 8},     {"U32", 4},    {"U16", 2}, {"U8", 1},
              {"BOOL", 1}, {"C64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};

static int dtype_bytes(const char *name) {
    for (int i = 0; i < TN_ARRAY_LEN(dtypes); i++)
        if (strcmp(dtypes[i].name, name) == 0) return dtypes[i].bytes;
    return 0;
}

int tn_st_floats(const st_tensor *t) {
    return t->dtype[0] == 'F' ? strncmp(t->dtype, "F8", 2) != 0 : strcmp(t->dtype, "BF16") == 0;
}

static int read_at(const st_file *f, void *out, size_t n, uint64_t at, tn_err *e) {
    for (char *p = out; n;) {
        ssize_t k = pread(f->fd, p, n, (off_t)at);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return tn_fail(e, "%s: cannot read: %s", f->path, strerror(errno));
        if (k == 0) return tn_fail(e, "%s: became shorter while it was read", f->path);
        p += k;
        n -= (size_t)k;
        at += (uint64_t)k;
    }
    return 0;
}

static uint64_t little(const unsigned char *p, int bytes) {
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

/* ---- The header ---------------------------------------------------------------------------------------- */

/* A whole number of at least 0. */
static int as_size(const json_t *j, uint64_t *out) {
    if (!json_is_integer(j) || json_integer_value(j) < 0) return -1;
    *out = (uint64_t)json_integer_value(j);
    return 0;
}

static int parse_shape(const st_file *f, st_tensor *t, const json_t *shape, tn_err *e) {
    if (!json_is_array(shape)) return tn_fail(e, "%s: tensor %.80s has no shape", f->path, t->name);
    if (json_array_size(shape) > ST_MAX_DIM)
        return tn_fail(e, "%s: tensor %.80s has %zu dimensions; at most %d can be read", f->path, t->name,
                       json_array_size(shape), ST_MAX_DIM);
    t->nd = (int)json_array_size(shape);
    t->n = 1;
    for (int i = 0; i < t->nd; i++) {
        if (as_size(json_array_get(shape, (size_t)i), &t->dim[i]))
            return tn_fail(e, "%s: tensor %.80s: its shape is not a list of whole numbers", f->path, t->name);
        if (t->dim[i] && t->n > (UINT64_MAX >> 4) / t->dim[i])
            return tn_fail(e, "%s: tensor %.80s: its shape overflows", f->path, t->name);
        t->n *= t->dim[i];
    }
    return 0;
}

static int parse_tensor(const st_file *f, st_tensor *t, const json_t *j, uint64_t data_bytes, tn_err *e) {
    const json_t *at = json_object_get(j, "data_offsets");
    const char *dtype = json_string_value(json_object_get(j, "dtype"));
    if (!dtype || json_object_size(j) != 3)
        return tn_fail(e, "%s: tensor %.80s is not described by dtype, shape and data_offsets", f->path,
                       t->name);
    t->dtype = dtype;
    int bytes = dtype_bytes(dtype);
    if (!bytes) return tn_fail(e, "%s: tensor %.80s has the unknown type %.20s", f->path, t->name, dtype);
    if (parse_shape(f, t, json_object_get(j, "shape"), e)) return -1;
    if (!json_is_array(at) || json_array_size(at) != 2 || as_size(json_array_get(at, 0), &t->begin)
        || as_size(json_array_get(at, 1), &t->end) || t->begin > t->end)
        return tn_fail(e, "%s: tensor %.80s: bad data_offsets", f->path, t->name);
    if (t->end > data_bytes)
        return tn_fail(e, "%s: tensor %.80s ends at byte %llu of %llu: the file is cut off", f->path, t->name,
                       (unsigned long long)t->end, (unsigned long long)data_bytes);
    if (t->end - t->begin != t->n * (uint64_t)bytes)
        return tn_fail(e, "%s: tensor %.80s: its shape needs %llu bytes, its data_offsets give %llu", f->path,
                       t->name, (unsigned long long)(t->n * (uint64_t)bytes),
                       (unsigned long long)(t->end - t->begin));
    return 0;
}

static int by_place(const void *pa, const void *pb) {
    const st_tensor *a = pa, *b = pb;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    if (a->end != b->end) return a->end < b->end ? -1 : 1;
    return strcmp(a->name, b->name);
}

static int check_cover(const st_file *f, uint64_t data_bytes, tn_err *e) {
    uint64_t at = 0;
    for (int i = 0; i < f->n; i++) {
        if (f->t[i].begin != at)
            return tn_fail(e, "%s: tensor %.80s %s", f->path, f->t[i].name,
                           f->t[i].begin < at ? "overlaps the one before it" : "leaves a hole before it");
        at = f->t[i].end;
    }
    if (at != data_bytes)
        return tn_fail(e, "%s: %llu bytes at the end belong to no tensor", f->path,
                       (unsigned long long)(data_bytes - at));
    return 0;
}

static int check_meta(st_file *f, tn_err *e) {
    const char *key;
    json_t *v;
    f->meta = json_object_get(f->header, "__metadata__");
    if (!f->meta) return 0;
    if (!json_is_object(f->meta)) return tn_fail(e, "%s: __metadata__ is not an object", f->path);
    json_object_foreach((json_t *)f->meta, key, v) {
        if (!json_is_string(v)) return tn_fail(e, "%s: __metadata__: %.80s is not a string", f->path, key);
    }
    return 0;
}

static int parse_header(st_file *f, const char *text, size_t n, uint64_t data_bytes, tn_err *e) {
    json_error_t why;
    if (!n || text[0] != '{')
        return tn_fail(e, "%s: not a safetensors file: its header is not JSON", f->path);
    f->header = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
    if (!f->header) return tn_fail(e, "%s: bad header: %s (byte %d)", f->path, why.text, why.position);
    if (check_meta(f, e)) return -1;
    size_t count = json_object_size(f->header) - (f->meta ? 1 : 0);
    if (count > 1000000) return tn_fail(e, "%s: %zu tensors are too many", f->path, count);
    f->t = tn_mem_new(count * sizeof *f->t);
    if (!f->t) return tn_fail(e, "%s: not enough memory", f->path);
    const char *key;
    json_t *v;
    json_object_foreach(f->header, key, v) {
        if (v == f->meta) continue;
        f->t[f->n].name = key;
        if (parse_tensor(f, &f->t[f->n++], v, data_bytes, e)) return -1;
    }
    if (f->n) qsort(f->t, (size_t)f->n, sizeof *f->t, by_place);
    return check_cover(f, data_bytes, e);
}

int tn_st_open(st_file *f, const char *path, tn_err *e) {
    *f = (st_file){.fd = -1};
    f->path = tn_mem_new(strlen(path) + 1);
    if (!f->path) return tn_fail(e, "%s: not enough memory", path);
    strcpy(f->path, path);
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer must not hang us */
    if (f->fd < 0) return tn_fail(e, "%s: cannot open: %s", path, strerror(errno));
    struct stat st;
    if (fstat(f->fd, &st)) return tn_fail(e, "%s: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode)) return tn_fail(e, "%s: is a directory, not a safetensors file", path);
    if (!S_ISREG(st.st_mode)) return tn_fail(e, "%s: is not a regular file", path);
    uint64_t size = (uint64_t)st.st_size;
    unsigned char first[8];
    if (size < 10)
        return tn_fail(e, "%s: not a safetensors file: only %llu bytes", path, (unsigned long long)size);
    if (read_at(f, first, 8, 0, e)) return -1;
    uint64_t header = little(first, 8);
    if (header > size - 8)
        return tn_fail(e, "%s: cut off, or not a safetensors file: header of %llu bytes in a file of %llu",
                       path, (unsigned long long)header, (unsigned long long)size);
    if (header > ST_MAX_HEADER)
        return tn_fail(e, "%s: header of %llu bytes; the limit is %d", path, (unsigned long long)header,
                       ST_MAX_HEADER);
    f->data = 8 + header;
    char *text = tn_mem_new(header);
    if (!text) return tn_fail(e, "%s: not enough memory for its header", path);
    int bad = read_at(f, text, header, 8, e) || parse_header(f, text, header, size - f->data, e);
    tn_free(text);
    return bad ? -1 : 0;
}

void tn_st_close(st_file *f) {
    if (f->fd >= 0) close(f->fd);
    json_decref(f->header);
    tn_free(f->t);
    tn_free(f->path);
    *f = (st_file){.fd = -1};
}

const st_tensor *tn_st_find(const st_file *f, const char *name) {
    for (int i = 0; i < f->n; i++)
        if (strcmp(f->t[i].name, name) == 0) return &f->t[i];
    return NULL;
}

/* ---- Numbers ------------------------------------------------------------------------------------------- */

/* IEEE 754 binary16, exact in float. */
static double from_half(uint64_t h) {
    int exponent = (int)(h >> 10 & 31), fraction = (int)(h & 1023);
    double v = exponent == 31 ? (fraction ? (double)NAN : (double)INFINITY)
               : exponent     ? ldexp(1024 + fraction, exponent - 25)
                              : ldexp(fraction, -24);
    return h >> 15 ? -v : v;
}

static double from_float_bits(uint32_t u) {
    float v;
    memcpy(&v, &u, sizeof v);
    return v;
}

static double from_double_bits(uint64_t u) {
    double v;
    memcpy(&v, &u, sizeof v);
    return v;
}

static double number(const char *dtype, const unsigned char *p) {
    if (strcmp(dtype, "F32") == 0) return from_float_bits((uint32_t)little(p, 4));
    if (strcmp(dtype, "F64") == 0) return from_double_bits(little(p, 8));
    if (strcmp(dtype, "F16") == 0) return from_half(little(p, 2));
    return from_float_bits((uint32_t)little(p, 2) << 16); /* BF16: the upper half of a float */
}

int tn_st_read(const st_file *f, const st_tensor *t, tn_real *out, int finite, tn_err *e) {
    unsigned char chunk[1 << 14];
    size_t bytes = (size_t)dtype_bytes(t->dtype), most = sizeof chunk / bytes;
    if (!tn_st_floats(t))
        return tn_fail(e, "%s: tensor %.80s is of type %s, not a float", f->path, t->name, t->dtype);
    for (uint64_t i = 0; i < t->n;) {
        size_t k = t->n - i < most ? (size_t)(t->n - i) : most;
        if (read_at(f, chunk, k * bytes, f->data + t->begin + i * bytes, e)) return -1;
        for (size_t j = 0; j < k; j++, i++) {
            double v = number(t->dtype, chunk + j * bytes);
            out[i] = (tn_real)v;
            if (finite && !isfinite(out[i]))
                return tn_fail(e, "%s: tensor %.80s: element %llu is %s", f->path, t->name,
                               (unsigned long long)i,
                               isnan(v)   ? "NaN"
                               : isinf(v) ? "infinite"
                                          : "too large");
        }
    }
    return 0;
}
