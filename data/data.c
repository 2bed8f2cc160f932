/* SPDX-License-Identifier: MIT */
/* Typed arrays of samples and targets: tern's own or the caller's. */
#include "data_internal.h"
#include "internal.h"
#include <limits.h>
#include <string.h>

size_t tn_dtype_size(tn_dtype t) {
    return t == TN_U8 ? 1 : sizeof(float);
}

/* Shape, type and scale; -1 if they are not those of a data set that fits into memory. */
static int describe(tn_data *d, int n, int nd, const int *dim, tn_dtype type, int classes, int targets,
                    tn_err *e) {
    *d = (tn_data){.n = n, .nd = nd, .len = 1, .xtype = type, .classes = classes, .targets = targets};
    if (n < 1) return tn_fail(e, "data: %d samples; at least one is needed", n);
    if (nd < 1 || nd > 3) return tn_fail(e, "data: samples with %d dimensions; 1 to 3 are possible", nd);
    if (type != TN_U8 && type != TN_F32)
        return tn_fail(e, "data: type %d is none of TN_U8, TN_F32", (int)type);
    for (int i = 0; i < nd; i++) {
        if (dim[i] < 1) return tn_fail(e, "data: dimension %d of a sample is %d", i + 1, dim[i]);
        if (d->len > (size_t)INT_MAX / (size_t)dim[i]) return tn_fail(e, "data: a sample is too large");
        d->len *= (size_t)dim[i];
        d->dim[i] = dim[i];
    }
    if (d->len > PTRDIFF_MAX / tn_dtype_size(type) / (size_t)n)
        return tn_fail(e, "data: larger than the memory");
    d->scale = type == TN_U8 ? 1.0 / 255 : 1;
    return 0;
}

void tn_sha256_int(tn_sha256 *s, const int *v, size_t n) {
    unsigned char b[256];
    for (size_t i = 0; i < n;) {
        size_t k = 0;
        for (; k < sizeof b && i < n; i++)
            for (int j = 0; j < 32; j += 8) b[k++] = (unsigned char)((uint32_t)v[i] >> j);
        tn_sha256_add(s, b, k);
    }
}

static void hash_arrays(tn_data *d) {
    const int head[] = {d->n, d->nd, d->dim[0], d->dim[1], d->dim[2], (int)d->xtype, d->classes, d->targets};
    tn_sha256 s;
    tn_sha256_begin(&s);
    tn_sha256_int(&s, head, sizeof head / sizeof *head);
    tn_sha256_add(&s, d->x, (size_t)d->n * d->len * tn_dtype_size(d->xtype));
    if (d->label) tn_sha256_int(&s, d->label, (size_t)d->n);
    if (d->target) tn_sha256_add(&s, d->target, (size_t)d->n * (size_t)d->targets * sizeof(float));
    tn_sha256_end(&s, d->hash);
}

static int check_targets(const int *label, int classes, const float *target, int targets, int n, tn_err *e) {
    if (!label == !target) return tn_fail(e, "data: exactly one of labels and targets must be given");
    if (target)
        return targets > 0 ? 0 : tn_fail(e, "data: %d targets a sample; at least one is needed", targets);
    if (classes < 2) return tn_fail(e, "data: %d classes; at least two are needed", classes);
    for (int i = 0; i < n; i++)
        if (label[i] < 0 || label[i] >= classes)
            return tn_fail(e, "data: label %d of sample %d is outside 0 ... %d", label[i], i, classes - 1);
    return 0;
}

int tn_data_from_arrays(tn_data *out, int n, int nd, const int *dim, tn_dtype type, const void *x,
                        const int *label, int classes, const float *target, int targets, tn_err *e) {
    tn_data d;
    memset(out, 0, sizeof *out);
    if (!x || !dim) return tn_fail(e, "data: no samples given");
    if (describe(&d, n, nd, dim, type, label ? classes : 0, target ? targets : 0, e)) return -1;
    if (check_targets(label, classes, target, targets, n, e)) return -1;
    d.x = x;
    d.label = label;
    d.target = target;
    hash_arrays(&d);
    *out = d;
    return 0;
}

int tn_data_alloc(tn_data *out, int n, int nd, const int *dim, tn_dtype type, int classes, int targets,
                  tn_err *e) {
    tn_data d;
    memset(out, 0, sizeof *out);
    if (describe(&d, n, nd, dim, type, classes > 0 ? classes : 0, classes > 0 ? 0 : targets, e)) return -1;
    if (classes <= 0 && targets <= 0) return tn_fail(e, "data: neither classes nor targets");
    size_t count = (size_t)n, bytes = count * d.len * tn_dtype_size(type);
    tn_arrays *a = tn_mem_new(sizeof *a);
    d.own = a;
    if (a) {
        d.x = a->x = tn_mem_new(bytes);
        if (classes > 0)
            d.label = a->label = tn_mem_new(count * sizeof(int));
        else
            d.target = a->target = tn_mem_new(count * (size_t)targets * sizeof(float));
        d.origin = a->origin = tn_mem_new(count * sizeof(int));
    }
    if (!a || !d.x || !d.origin || (!d.label && !d.target)) {
        tn_data_free(&d);
        return tn_fail(e, "data: out of memory: %zu bytes for %d samples", bytes, n);
    }
    for (int i = 0; i < n; i++) a->origin[i] = i;
    *out = d;
    return 0;
}

void tn_data_free(tn_data *d) {
    tn_arrays *a = d->own;
    if (a) {
        tn_free(a->x);
        tn_free(a->label);
        tn_free(a->target);
        tn_free(a->origin);
        tn_free(a);
    }
    memset(d, 0, sizeof *d);
}
