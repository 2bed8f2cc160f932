/* SPDX-License-Identifier: MIT */
#include "data_rig.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

void open_set(const char *where, const tn_data_options *o, tn_dataset *d) {
    tn_err err;
    if (tn_dataset_open(where, o, d, &err)) fail_msg("%s", err.msg);
}

void count_labels(const tn_data *d, int n[256]) {
    memset(n, 0, 256 * sizeof *n);
    for (int i = 0; i < d->n; i++) n[d->label[i]]++;
}

const unsigned char *pixels_of(const tn_data *d, int i) {
    return (const unsigned char *)d->x + (size_t)i * d->len;
}
