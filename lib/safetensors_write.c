/* SPDX-License-Identifier: MIT */
/*
 * safetensors: writing. The same layout as the reference writer's: compact JSON, metadata first, tensors by
 * name, header filled up with spaces to a multiple of 8 bytes.
 */
#include "safetensors.h"
#include <stdlib.h>
#include <string.h>

static int by_name(const void *a, const void *b) {
    return strcmp(((const st_item *)a)->name, ((const st_item *)b)->name);
}

static json_t *header_json(int n, const st_item *items, const json_t *meta) {
    json_t *all = json_object();
    int bad = !all || (meta && json_object_set(all, "__metadata__", (json_t *)meta));
    uint64_t at = 0;
    for (int i = 0; i < n && !bad; i++) {
        const st_item *t = &items[i];
        json_t *shape = json_array();
        for (int d = 0; d < t->nd; d++) bad |= json_array_append_new(shape, json_integer(t->dim[d]));
        uint64_t end = at + (uint64_t)t->n * sizeof(tn_real);
        json_t *j = json_pack("{s:s, s:o, s:[I, I]}", "dtype", sizeof(tn_real) == 8 ? "F64" : "F32", "shape",
                              shape, "data_offsets", (json_int_t)at, (json_int_t)end);
        bad |= json_object_set_new(all, t->name, j);
        at = end;
    }
    if (bad) {
        json_decref(all);
        return NULL;
    }
    return all;
}

static void put_little(unsigned char *p, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) p[i] = (unsigned char)(v >> 8 * i);
}

static void put_reals(unsigned char *p, const tn_real *x, size_t n) {
    for (size_t i = 0; i < n; i++, p += sizeof *x) {
        uint64_t bits = 0;
        if (sizeof *x == 8) {
            memcpy(&bits, &x[i], sizeof *x);
        } else {
            uint32_t u;
            memcpy(&u, &x[i], sizeof u);
            bits = u;
        }
        put_little(p, bits, (int)sizeof *x);
    }
}

int tn_st_write(const char *path, int n, st_item *items, const json_t *meta, tn_err *e) {
    if (n) qsort(items, (size_t)n, sizeof *items, by_name);
    json_t *all = header_json(n, items, meta);
    char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
    json_decref(all);
    size_t header = text ? strlen(text) : 0, padded = (header + 7) / 8 * 8, size = 8 + padded;
    for (int i = 0; i < n; i++) size += items[i].n * sizeof(tn_real);
    unsigned char *file = text ? tn_mem_new(size) : NULL;
    int bad = -1;
    if (file) {
        put_little(file, padded, 8);
        memcpy(file + 8, text, header);
        memset(file + 8 + header, ' ', padded - header);
        unsigned char *p = file + 8 + padded;
        for (int i = 0; i < n; p += items[i].n * sizeof(tn_real), i++) put_reals(p, items[i].x, items[i].n);
        bad = tn_write_file(path, file, size, e);
    } else {
        tn_fail(e, "%s: not enough memory to write it, or a name that is not UTF-8", path);
    }
    tn_free(file);
    free(text); /* jansson's own allocator */
    return bad;
}
