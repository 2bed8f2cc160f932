/* SPDX-License-Identifier: MIT */
/*
 * Parameters: an ordered, named set in one flat buffer, how a tape reads them, and what is done to all of their
 * gradients at once (norms, clipping, tn_backward).
 */
#include "tape.h"
#include "kernels/kernels.h"
#include "ranges.h"
#include <math.h>
#include <string.h>

enum { SLICE_ALIGN = 16 }; /* reals: every slice starts on a cache line, so ranges never share one */

tn_params *tn_params_new(void) {
    tn_params *p = tn_mem_new(sizeof *p);
    if (p) p->version = 1;
    return p;
}

void tn_params_free(tn_params *s) {
    if (!s) return;
    tn_packed_free(s);
    for (int i = 0; i < s->n; i++) tn_free(s->p[i]);
    tn_mem_aligned_free(s->w), tn_mem_aligned_free(s->g);
    tn_plans_free(s);
    if (s->ranges) tn_ranges_free(s->ranges);
    tn_free(s->ranges), tn_free(s->p), tn_free(s);
}

tn_param *tn_param_add(tn_params *s, const char *layer, const char *name, unsigned flags, tn_init init,
                       int nd, const int *dim) {
    char full[TN_MAX_NAME];
    int prefixed = layer && *layer;
    int n = snprintf(full, sizeof full, "%s%s%s", prefixed ? layer : "", prefixed ? "." : "", name);
    TN_CHECK(NULL, n < TN_MAX_NAME, "tn_param_add: the name %s.%s is longer than %d", layer, name,
             TN_MAX_NAME - 1);
    TN_CHECK(NULL, !s->sealed, "tn_param_add: %s comes after tn_params_seal", full);
    TN_CHECK(NULL, !tn_params_find(s, full), "tn_param_add: the name %s is used twice", full);
    TN_CHECK(NULL, nd >= 0 && nd <= TN_MAX_DIM, "tn_param_add: %s has %d dimensions", full, nd);
    if (s->n == s->cap) {
        int cap = s->cap ? 2 * s->cap : 16;
        tn_param **p = tn_mem_resize(s->p, (size_t)cap * sizeof *p);
        TN_CHECK(NULL, p, "out of memory: no room for parameter %s", full);
        s->p = p, s->cap = cap;
    }
    tn_param *p = tn_mem_new(sizeof *p);
    TN_CHECK(NULL, p, "out of memory: no room for parameter %s", full);
    memcpy(p->name, full, (size_t)n + 1);
    p->index = s->n, p->nd = nd, p->len = 1, p->flags = flags, p->init = init, p->set = s;
    for (int i = 0; i < nd; i++) {
        TN_CHECK(NULL, dim[i] > 0, "tn_param_add: dimension %d of %s is %d", i, full, dim[i]);
        TN_CHECK(NULL, p->len <= (size_t)PTRDIFF_MAX / 64 / (size_t)dim[i], "tn_param_add: %s is too large",
                 full);
        p->dim[i] = dim[i], p->len *= (size_t)dim[i];
    }
    p->offset = s->len;
    s->len += (p->len + SLICE_ALIGN - 1) / SLICE_ALIGN * SLICE_ALIGN;
    s->p[s->n++] = p;
    return p;
}

int tn_params_seal(tn_params *s, uint64_t seed, tn_err *e) {
    TN_CHECK(NULL, !s->sealed, "tn_params_seal: called twice");
    s->w = tn_mem_aligned(s->len * sizeof(tn_real)), s->g = tn_mem_aligned(s->len * sizeof(tn_real));
    s->ranges = tn_mem_new(sizeof *s->ranges);
    if (!s->w || !s->g || !s->ranges || tn_ranges_new(s, NULL, s->ranges) || tn_packed_new(s)
        || tn_plans_new(s)) {
        if (s->ranges) tn_ranges_free(s->ranges);
        tn_mem_aligned_free(s->w), tn_mem_aligned_free(s->g), tn_free(s->ranges);
        s->w = s->g = NULL, s->ranges = NULL;
        return tn_fail(e, "out of memory: the model has %zu parameters", s->len);
    }
    for (int i = 0; i < s->n; i++) s->p[i]->w = s->w + s->p[i]->offset, s->p[i]->g = s->g + s->p[i]->offset;
    s->sealed = 1;
    tn_params_init(s, seed);
    return 0;
}

void tn_params_init(tn_params *s, uint64_t seed) {
    for (int i = 0; i < s->n; i++) {
        tn_rng r = tn_rng_make(seed, "init", s->p[i]->name, 0, 0);
        s->p[i]->init.fill(&s->p[i]->init, s->p[i]->w, s->p[i], &r);
    }
    tn_params_touch(s);
}

int tn_params_count(const tn_params *s) {
    return s->n;
}

tn_param *tn_params_at(const tn_params *s, int i) {
    return i >= 0 && i < s->n ? s->p[i] : NULL;
}

tn_param *tn_params_find(const tn_params *s, const char *name) {
    for (int i = 0; i < s->n; i++)
        if (!strcmp(s->p[i]->name, name)) return s->p[i];
    return NULL;
}

size_t tn_params_total(const tn_params *s) {
    size_t n = 0;
    for (int i = 0; i < s->n; i++) n += s->p[i]->flags & TN_BUFFER ? 0 : s->p[i]->len;
    return n;
}

tn_real *tn_params_flat(tn_params *s, size_t *len) {
    if (len) *len = s->len;
    return s->w;
}

tn_real *tn_params_flat_grad(tn_params *s, size_t *len) {
    if (len) *len = s->len;
    return s->g;
}

void tn_params_touch(tn_params *s) {
    s->version++;
}

uint64_t tn_params_version(const tn_params *s) {
    return s->version;
}

/* ---- leaves ---- */

static size_t leaf_hash(const tn_param *p) {
    return (size_t)(((uint64_t)(uintptr_t)p >> 4) * 0x9E3779B97F4A7C15u >> 32);
}

static tn_leaf_entry *leaf_lookup(const tn_tape *t, const tn_param *p) {
    if (!t->leaf_cap) return NULL;
    size_t mask = (size_t)t->leaf_cap - 1;
    for (size_t i = leaf_hash(p) & mask;; i = (i + 1) & mask) {
        tn_leaf_entry *e = &t->leaf[i];
        if (e->generation != t->generation || e->param == p) return e;
    }
}

/* The entry of p in this generation, made if it is not there; the table stays at most half full. */
static tn_leaf_entry *leaf_entry(tn_tape *t, const tn_param *p) {
    if (2 * (t->leaf_n + 1) > t->leaf_cap) {
        tn_leaf_entry *old = t->leaf;
        int n = t->leaf_cap, cap = n ? 2 * n : 64;
        tn_leaf_entry *leaf = tn_mem_new((size_t)cap * sizeof *leaf);
        TN_CHECK(t, leaf, "out of memory: no room for %d leaves", cap);
        t->leaf = leaf, t->leaf_cap = cap, t->allocations++;
        for (int i = 0; i < n; i++)
            if (old[i].generation == t->generation) *leaf_lookup(t, old[i].param) = old[i];
        tn_free(old);
    }
    tn_leaf_entry *e = leaf_lookup(t, p);
    if (e->generation != t->generation)
        *e = (tn_leaf_entry){.param = p, .generation = t->generation}, t->leaf_n++;
    return e;
}

/* A rewind may have dropped a tensor that an entry still points to; its place on the tape tells. */
static int on_tape(const tn_tape *t, const tn_t *x, int id) {
    return id >= 0 && id < t->n && t->node[id] == x;
}

tn_t *tn_leaf_of(const tn_tape *t, const tn_param *p) {
    const tn_leaf_entry *e = leaf_lookup(t, p);
    if (!e || e->generation != t->generation || !e->leaf || !on_tape(t, e->leaf, e->leaf_id)) return NULL;
    return e->leaf->param == p ? e->leaf : NULL;
}

tn_t *tn_use(tn_tape *t, tn_param *p) {
    TN_CHECK(t, p->w, "tn_use: %s is used before tn_params_seal", p->name);
    tn_leaf_entry *e = leaf_entry(t, p);
    if (e->bound) return e->bound;
    tn_t *leaf = tn_leaf_of(t, p);
    if (leaf && leaf->version == p->set->version && (leaf->needs || !t->record || p->flags & TN_BUFFER))
        return leaf;
    leaf = tn_view(t, p->w, p->nd, p->dim);
    leaf->param = p, leaf->version = p->set->version;
    tn_result(NULL, leaf, 0, NULL, NULL, 0);
    leaf->needs = t->record && !(p->flags & TN_BUFFER);
    e->leaf = leaf, e->leaf_id = leaf->id;
    return leaf;
}

tn_t *tn_bind(tn_tape *t, tn_param *p, tn_t *x) {
    if (x) {
        TN_CHECK(t, x->tape == t, "tn_bind: the tensor for %s is on another tape", p->name);
        TN_CHECK(t, x->nd == p->nd && !memcmp(x->dim, p->dim, sizeof(int) * (size_t)p->nd),
                 "tn_bind: the tensor for %s has another shape", p->name);
    }
    tn_leaf_entry *e = leaf_entry(t, p);
    tn_t *was = e->bound;
    e->bound = x, e->bound_id = x ? x->id : -1;
    if (e->bound_id >= t->bound_end) t->bound_end = e->bound_id + 1;
    return was;
}

/* ---- gradients of the whole set ---- */

static int is_stale(const tn_t *x, const tn_params *s) {
    return x->param && x->param->set == s && x->needs && x->version != s->version;
}

/* Leaves of weights that have changed since, which the sweep must not reach; target NULL: only counts them. */
static int stale_leaves(const tn_t *loss, const tn_params *s, tn_target *target) {
    int n = 0;
    for (int id = 0; id <= loss->id; id++) {
        tn_t *x = loss->tape->node[id];
        if (!is_stale(x, s)) continue;
        if (target) target[n] = (tn_target){x, tn_scratch(x->tape, x->len * sizeof(tn_real)), 0, 0};
        n++;
    }
    return n;
}

double tn_backward(tn_t *loss, tn_params *s, unsigned flags) {
    tn_tape *t = loss->tape;
    TN_CHECK(t, loss->len == 1, "tn_backward: the loss has %zu elements; reduce it to one", loss->len);
    TN_CHECK(t, loss->needs || t->record,
             "tn_backward: recording is off, so there is nothing to go back along");
    tn_place place = tn_mark(t);
    tn_target *target = tn_scratch(t, (size_t)(s->n + 1 + stale_leaves(loss, s, NULL)) * sizeof *target);
    int n = 0, add = (flags & TN_ACCUMULATE) != 0;
    for (int i = 0; i < s->n; i++) {
        tn_t *leaf = tn_leaf_of(t, s->p[i]);
        if (leaf && leaf->needs && !is_stale(leaf, s)) target[n++] = (tn_target){leaf, s->p[i]->g, add, 0};
    }
    int stale = stale_leaves(loss, s, target + n);
    tn_sweep(loss, NULL, n + stale, target);
    for (int i = n; i < n + stale; i++)
        TN_CHECK(t, !target[i].reached,
                 "tn_backward: the weights changed after %s was used on this tape; reset the tape first",
                 target[i].t->param->name);
    if (!add) {
        int k = 0;
        for (int i = 0; i < s->n; i++) {
            int reached = k < n && target[k].t->param == s->p[i] ? target[k++].reached : 0;
            if (!reached) memset(s->p[i]->g, 0, s->p[i]->len * sizeof(tn_real));
        }
    }
    double value = tn_value(loss);
    tn_rewind(t, place);
    return value;
}

static int trained(const tn_param *p) {
    return !(p->flags & (TN_BUFFER | TN_FROZEN));
}

typedef struct {
    const tn_params *params;
    const tn_kernels_t *k;
    int threads;
    double sum[TN_MAX_CHUNKS];
} norm_job;

static void norm_chunk(void *arg, int chunk) {
    norm_job *j = arg;
    const tn_ranges *of = j->params->ranges;
    const int c = tn_backwards(of->nchunk, j->threads, chunk);
    double sum = 0;
    for (int r = of->chunk[c]; r < of->chunk[c + 1]; r++) {
        const tn_range *at = &of->range[r];
        const tn_param *p = j->params->p[at->param];
        if (trained(p)) sum += j->k->sum_sq(at->hi - at->lo, p->g + at->lo);
    }
    j->sum[c] = sum;
}

/*
 * From back to front, where a backward pass has left gradients in the caches; so this leaves the front there, where the
 * optimizer's step begins.
 */
double tn_grad_norm(const tn_params *s) {
    norm_job j = {.params = s, .k = tn_kernels_get(NULL), .threads = tn_threads()};
    double sum = 0;
    tn_parallel(s->ranges->nchunk, norm_chunk, &j);
    for (int c = 0; c < s->ranges->nchunk; c++) sum += j.sum[c];
    return sqrt(sum);
}

double tn_clip_norm(tn_params *s, double max_norm) {
    double norm = tn_grad_norm(s), c = max_norm / (norm + 1e-6);
    if (c < 1)
        for (size_t i = 0; i < s->len; i++) s->g[i] *= (tn_real)c;
    return norm;
}

void tn_clip_value(tn_params *s, double max) {
    tn_real hi = (tn_real)max;
    for (size_t i = 0; i < s->len; i++) {
        tn_real g = s->g[i];
        s->g[i] = g > hi ? hi : g < -hi ? -hi : g;
    }
}

static const char *first_nonfinite(const tn_params *s, int weights) {
    for (int i = 0; i < s->n; i++) {
        const tn_real *x = weights ? s->p[i]->w : s->p[i]->g;
        if (!weights && !trained(s->p[i])) continue;
        for (size_t j = 0; j < s->p[i]->len; j++)
            if (!isfinite(x[j])) return s->p[i]->name;
    }
    return NULL;
}

const char *tn_nonfinite_grad(const tn_params *s) {
    return first_nonfinite(s, 0);
}

const char *tn_nonfinite_weight(const tn_params *s) {
    return first_nonfinite(s, 1);
}
