/* SPDX-License-Identifier: MIT */
/*
 * The tape: a growing arena and the record of what was computed in it. After a few steps the arena is one block
 * that holds a whole step, and nothing is allocated any more.
 */
#include "tape.h"
#include "kernels/kernels.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BLOCK = 1 << 16, ALIGN = 64 };

/* ---- panics ---- */

void tn_panic(tn_tape *t, const char *fmt, ...) {
    char msg[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    if (t && t->hook) t->hook(t->hook_arg, msg);
    fprintf(stderr, "tern: %s\n", msg);
    abort();
}

void tn_on_panic(tn_tape *t, void (*hook)(void *, const char *), void *arg) {
    t->hook = hook, t->hook_arg = arg;
}

/* ---- arena ---- */

static void add_block(tn_tape *t, tn_arena *a, size_t size) {
    if (a->n == a->cap) {
        int cap = a->cap ? 2 * a->cap : 8;
        tn_block *b = tn_mem_resize(a->block, (size_t)cap * sizeof *b);
        TN_CHECK(t, b, "out of memory: the tape needs %zu bytes more", size);
        a->block = b, a->cap = cap;
    }
    char *mem = tn_mem_aligned_raw(size); /* its unused part costs nothing */
    TN_CHECK(t, mem, "out of memory: the tape needs %zu bytes more", size);
    a->block[a->n++] = (tn_block){mem, size};
    t->allocations++;
}

static void *arena_alloc(tn_tape *t, tn_arena *a, size_t bytes) {
    TN_CHECK(t, bytes < SIZE_MAX / 4, "out of memory: a tensor of %zu bytes", bytes);
    bytes = (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    while (a->at < a->n && a->used + bytes > a->block[a->at].size) a->at++, a->used = 0;
    if (a->at == a->n) {
        size_t size = a->n ? 2 * a->block[a->n - 1].size : FIRST_BLOCK;
        add_block(t, a, size > bytes ? size : bytes);
    }
    void *p = a->block[a->at].mem + a->used;
    a->used += bytes;
    return p;
}

static void arena_free(tn_arena *a) {
    for (int i = 0; i < a->n; i++) tn_mem_aligned_free(a->block[i].mem);
    tn_free(a->block);
    *a = (tn_arena){0};
}

/* Several blocks become one that is as large as all, so that the next step finds its memory in one piece. */
void tn_arena_reset(tn_tape *t, tn_arena *a) {
    a->at = 0, a->used = 0; /* first: add_block may panic */
    if (a->n > 1) {
        size_t total = 0;
        for (int i = 0; i < a->n; i++) total += a->block[i].size, tn_mem_aligned_free(a->block[i].mem);
        a->n = 0;
        add_block(t, a, total);
    }
}

void *tn_scratch(tn_tape *t, size_t bytes) {
    return arena_alloc(t, &t->main, bytes);
}

/* ---- dead gradient buffers, kept by size class (four classes an octave) ---- */

static int size_class(size_t n, size_t *rounded) {
    int octave = 0;
    while (((size_t)32 << octave) < n) octave++;
    if (octave == 0) return *rounded = 32, 0;
    size_t base = (size_t)32 << (octave - 1), quarter = base / 4, q = (n - base + quarter - 1) / quarter;
    *rounded = base + q * quarter;
    return 4 * octave + (int)q;
}

tn_real *tn_pool_get(tn_tape *t, size_t n) {
    size_t rounded;
    int c = size_class(n, &rounded);
    tn_free_buffer *b = c < TN_POOL_CLASSES ? t->pool[c] : NULL;
    if (b) return t->pool[c] = b->next, (tn_real *)b;
    return arena_alloc(t, &t->grads, rounded * sizeof(tn_real));
}

void tn_pool_put(tn_tape *t, tn_real *x, size_t n) {
    size_t rounded;
    int c = size_class(n, &rounded);
    if (c >= TN_POOL_CLASSES) return;
    tn_free_buffer *b = (tn_free_buffer *)x;
    b->next = t->pool[c], t->pool[c] = b;
}

void tn_pool_reset(tn_tape *t) {
    memset(t->pool, 0, sizeof t->pool);
    tn_arena_reset(t, &t->grads);
}

/* ---- life of a tape ---- */

tn_tape *tn_tape_new_checked(int abi, size_t real_size, size_t tensor_size, tn_err *e) {
    if (abi != TN_ABI || real_size != sizeof(tn_real) || tensor_size != sizeof(tn_t)) {
        tn_fail(e,
                "tern.h and the library do not match: the program was compiled for ABI %d with %zu-byte "
                "numbers, the "
                "library has ABI %d with %zu-byte numbers; compile with the header that came with the "
                "library, and "
                "define TN_DOUBLE for libtern64 only",
                abi, real_size, TN_ABI, sizeof(tn_real));
        return NULL;
    }
    if (!tn_kernels_get(e)) return NULL;
    tn_tape *t = tn_mem_new(sizeof *t);
    if (!t) {
        tn_fail(e, "out of memory: no room for a tape");
        return NULL;
    }
    t->record = 1, t->generation = 1;
    return t;
}

void tn_tape_free(tn_tape *t) {
    if (!t) return;
    arena_free(&t->main), arena_free(&t->grads);
    tn_free(t->node), tn_free(t->leaf), tn_free(t);
}

void tn_tape_reset(tn_tape *t) {
    t->n = 0, t->leaf_n = 0, t->bound_end = 0, t->sweeping = 0, t->generation++;
    tn_arena_reset(t, &t->main);
    tn_pool_reset(t);
}

size_t tn_tape_bytes(const tn_tape *t) {
    size_t b = sizeof *t + (size_t)t->cap * sizeof *t->node + (size_t)t->leaf_cap * sizeof *t->leaf;
    for (int i = 0; i < t->main.n; i++) b += t->main.block[i].size;
    for (int i = 0; i < t->grads.n; i++) b += t->grads.block[i].size;
    return b;
}

long tn_tape_allocations(const tn_tape *t) {
    return t->allocations;
}

int tn_record(tn_tape *t, int on) {
    int was = t->record;
    t->record = on;
    return was;
}

void tn_train_mode(tn_tape *t, uint64_t seed, long step, int first_row) {
    t->training = 1, t->seed = seed, t->step = step, t->first_row = first_row;
}

void tn_eval_mode(tn_tape *t) {
    t->training = 0;
}

tn_mode tn_tape_mode(const tn_tape *t) {
    return (tn_mode){t->record, t->training, t->seed, t->step, t->first_row};
}

tn_place tn_mark(const tn_tape *t) {
    return (tn_place){t->n, (size_t)t->main.at, t->main.used};
}

/* Bindings to tensors from this place on: another tensor will lie where they lay. */
static void drop_bindings(tn_tape *t, int place) {
    for (int i = 0; i < t->leaf_cap; i++)
        if (t->leaf[i].bound_id >= place) t->leaf[i].bound = NULL, t->leaf[i].bound_id = -1;
    t->bound_end = place;
}

void tn_rewind(tn_tape *t, tn_place p) {
    TN_CHECK(t, p.node <= t->n,
             "tn_rewind: the mark is newer than the tape, or marks were not dropped newest first");
    t->n = p.node, t->main.at = (int)p.block, t->main.used = p.used;
    if (p.node < t->bound_end) drop_bindings(t, p.node);
}

/* ---- tensors ---- */

static tn_t *header(tn_tape *t, int nd, const int *dim) {
    TN_CHECK(t, nd >= 0 && nd <= TN_MAX_DIM, "a tensor has 0 to %d dimensions, not %d", TN_MAX_DIM, nd);
    tn_t *y = tn_scratch(t, sizeof *y);
    memset(y, 0, sizeof *y);
    y->tape = t, y->nd = nd, y->len = 1;
    for (int i = 0; i < nd; i++) {
        TN_CHECK(t, dim[i] > 0, "dimension %d of a tensor is %d; it must be at least 1", i, dim[i]);
        TN_CHECK(t, y->len <= SIZE_MAX / 64 / (size_t)dim[i], "a tensor's shape overflows memory");
        y->dim[i] = dim[i], y->len *= (size_t)dim[i];
    }
    y->id = -1;
    return y;
}

static void push(tn_tape *t, tn_t *y) {
    if (t->n == t->cap) {
        int cap = t->cap ? 2 * t->cap : 256;
        tn_t **node = tn_mem_resize(t->node, (size_t)cap * sizeof *node);
        TN_CHECK(t, node, "out of memory: no room for %d tensors on the tape", cap);
        t->node = node, t->cap = cap, t->allocations++;
    }
    y->id = t->n, t->node[t->n++] = y;
}

tn_t *tn_new(tn_tape *t, int nd, const int *dim) {
    tn_t *y = header(t, nd, dim);
    y->x = tn_scratch(t, y->len * sizeof *y->x);
    return y;
}

tn_t *tn_view(tn_tape *t, tn_real *x, int nd, const int *dim) {
    tn_t *y = header(t, nd, dim);
    y->x = x;
    return y;
}

int tn_gradient_may_come(const tn_tape *t, int nsrc, tn_t *const src[]) {
    int some = 0;
    for (int i = 0; i < nsrc; i++) some |= src[i] && src[i]->needs;
    return some && t->record && !t->sweeping;
}

tn_t *tn_result(const tn_op *op, tn_t *y, int nsrc, tn_t *const src[], const void *aux, size_t aux_bytes) {
    tn_tape *t = y->tape;
    y->op = op, y->nsrc = nsrc;
    if (nsrc) {
        y->src = tn_scratch(t, (size_t)nsrc * sizeof *src);
        memcpy(y->src, src, (size_t)nsrc * sizeof *src);
    }
    if (aux_bytes) y->aux = memcpy(tn_scratch(t, aux_bytes), aux, aux_bytes);
    TN_CHECK(t, nsrc <= 32 || !op || !op->bwd, "%s: %d sources; an op with bwd has at most 32", op->name,
             nsrc);
    for (int i = 0; i < nsrc; i++)
        TN_CHECK(t, !src[i] || src[i]->tape == t, "%s: source %d is on another tape",
                 op ? op->name : "result", i);
    y->needs |= op && (op->vjp || op->expand) && tn_gradient_may_come(t, nsrc, src);
    push(t, y);
    if (t->profile && !t->sweeping) tn_profile_forward(t->profile, y);
    return y;
}

tn_t *tn_input(tn_tape *t, const tn_real *x, int nd, const int *dim) {
    tn_t *y = tn_new(t, nd, dim);
    memcpy(y->x, x, y->len * sizeof *x);
    return tn_result(NULL, y, 0, NULL, NULL, 0);
}

tn_t *tn_leaf(tn_tape *t, const tn_real *x, int nd, const int *dim) {
    tn_t *y = tn_input(t, x, nd, dim);
    y->needs = 1;
    return y;
}

tn_t *tn_full(tn_tape *t, double value, int nd, const int *dim) {
    tn_t *y = tn_new(t, nd, dim);
    for (size_t i = 0; i < y->len; i++) y->x[i] = (tn_real)value;
    return tn_result(NULL, y, 0, NULL, NULL, 0);
}

tn_t *tn_const(tn_tape *t, double value) {
    return tn_full(t, value, 0, NULL);
}

tn_t *tn_stop(tn_t *x) {
    return tn_result(NULL, tn_view(x->tape, x->x, x->nd, x->dim), 0, NULL, NULL, 0);
}

double tn_value(const tn_t *x) {
    TN_CHECK(x->tape, x->len == 1, "tn_value: the tensor has %zu elements, not 1", x->len);
    return (double)x->x[0];
}

int tn_same_shape(const tn_t *a, const tn_t *b) {
    return a->nd == b->nd && !memcmp(a->dim, b->dim, sizeof(int) * (size_t)a->nd);
}

void tn_dims_text(int nd, const int *dim, char out[64]) {
    int n = snprintf(out, 64, "(");
    for (int i = 0; i < nd; i++) n += snprintf(out + n, 64 - (size_t)n, i ? ", %d" : "%d", dim[i]);
    snprintf(out + n, 64 - (size_t)n, nd == 1 ? ",)" : ")");
}

void tn_shape_text(const tn_t *x, char out[64]) {
    tn_dims_text(x->nd, x->dim, out);
}

tn_t *tn_tape_at(const tn_tape *t, int i) {
    return i >= 0 && i < t->n ? t->node[i] : NULL;
}

int tn_tape_nonfinite(const tn_tape *t, char *out, size_t cap) {
    for (int i = 0; i < t->n; i++) {
        const tn_t *y = t->node[i];
        for (size_t j = 0; j < y->len; j++) {
            if (isfinite(y->x[j])) continue;
            char shape[64];
            tn_shape_text(y, shape);
            if (y->param)
                snprintf(out, cap, "weight %s %s", y->param->name, shape);
            else if (!y->op)
                snprintf(out, cap, "input at position %d %s", i, shape);
            else
                snprintf(out, cap, "op %s at position %d %s", y->op->name, i, shape);
            return 1;
        }
    }
    return 0;
}

double tn_back_flops(const tn_t *y) {
    double total = 0;
    if (y->op->back_flops) return y->op->back_flops(y);
    for (int i = 0; y->op->flops && i < y->nsrc && i < 2; i++)
        if (y->src[i] && y->src[i]->needs) total += y->op->flops(y);
    return total;
}

double tn_tape_flops(const tn_tape *t, int backward) {
    double total = 0;
    for (int i = 0; i < t->n; i++) {
        const tn_t *y = t->node[i];
        if (y->op && y->op->flops) total += y->op->flops(y) + (backward ? tn_back_flops(y) : 0);
    }
    return total;
}
