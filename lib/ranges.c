/* SPDX-License-Identifier: MIT */
/* How a pass over all parameters is cut. */
#include "ranges.h"
#include <stdlib.h>

/* A pass over memory is as fast in few pieces, and many threads still find some. Up to ALONE in all it is one chunk, as
 * waking a thread costs more. */
enum { CHUNKS = 64, ALONE = 16384 };

/* Equal ranges, an even number of them so that two threads have as much of the tensor. */
static size_t range_len(size_t len, size_t piece) {
    const size_t count = len / piece;
    return count < 2 ? len : tn_whole_lines((len + count / 2 * 2 - 1) / (count / 2 * 2));
}

static int before(const void *a, const void *b) {
    const tn_range *x = a, *y = b;
    if (x->place != y->place) return x->place < y->place ? -1 : 1;
    if (x->param != y->param) return x->param < y->param ? -1 : 1;
    return x->lo < y->lo ? -1 : x->lo > y->lo;
}

int tn_ranges_new(const tn_params *s, const unsigned char *skip, tn_ranges *out) {
    size_t total = tn_params_total(s), most = 0;
    const size_t piece =
        tn_whole_lines(total / CHUNKS) > TN_RANGE ? tn_whole_lines(total / CHUNKS) : TN_RANGE;
    for (int i = 0; i < s->n; i++) most += s->p[i]->len / piece + 1;
    *out = (tn_ranges){.range = tn_mem_new((most + 1) * sizeof *out->range),
                       .chunk = tn_mem_new((most + 1) * sizeof *out->chunk)};
    if (!out->range || !out->chunk) {
        tn_ranges_free(out);
        return -1;
    }
    for (int i = 0; i < s->n; i++) {
        const size_t len = s->p[i]->len, each = range_len(len, piece);
        if (s->p[i]->flags & TN_BUFFER || (skip && skip[i])) continue;
        for (size_t lo = 0; lo < len; lo += each) {
            const size_t hi = len - lo < each ? len : lo + each;
            out->range[out->n++] = (tn_range){i, lo, hi, (double)(lo + hi) / (2 * (double)len)};
        }
    }
    qsort(out->range, (size_t)out->n, sizeof *out->range, before);
    size_t filled = 0;
    for (int r = 0; r < out->n; r++) {
        filled += out->range[r].hi - out->range[r].lo;
        if (filled < piece || total <= ALONE) continue;
        out->chunk[++out->nchunk] = r + 1;
        filled = 0;
    }
    if (out->chunk[out->nchunk] < out->n) out->chunk[++out->nchunk] = out->n;
    return 0;
}

void tn_ranges_free(tn_ranges *r) {
    tn_free(r->range), tn_free(r->chunk);
    *r = (tn_ranges){0};
}
