/* SPDX-License-Identifier: MIT */
/*
 * Gradients: one sweep down the tape, in two forms. The numeric one fills buffers that are reused as soon as they are
 * dead; the recorded one builds the gradients out of tn_ calls, so that they can be differentiated again.
 */
#include "tape.h"
#include "kernels/kernels.h"
#include <limits.h>
#include <string.h>

/* First tape position the sweep has to look at, and which positions up to y can lead to a target. */
typedef struct {
    int base;
    unsigned char *reach; /* indexed by id - base */
} sweep_map;

static sweep_map map_new(tn_t *y, int base, int first) {
    sweep_map m = {base, tn_scratch(y->tape, (size_t)(y->id - base + 1))};
    memset(m.reach, 0, (size_t)(y->id - base + 1));
    (void)first;
    return m;
}

/* Positions from first on inherit reach from their sources; below it only the targets themselves have it. */
static void map_spread(sweep_map *m, tn_t *y, int first) {
    for (int id = first; id <= y->id; id++) {
        const tn_t *t = y->tape->node[id];
        if (!t->needs) continue;
        for (int i = 0; i < t->nsrc && !m->reach[id - m->base]; i++)
            if (t->src[i] && t->src[i]->id >= m->base)
                m->reach[id - m->base] = m->reach[t->src[i]->id - m->base];
    }
}

/* ---- numbers ---- */

typedef struct {
    tn_real *g; /* gradient so far */
    int filled; /* g holds something */
    int keep;   /* g belongs to a target: never given back */
} num_slot;

typedef struct {
    tn_tape *tape;
    sweep_map map;
    num_slot *slot;
    const tn_kernels_t *k;
} num_sweep;

static num_slot *num_slot_of(num_sweep *s, const tn_t *t) {
    num_slot *n = &s->slot[t->id - s->map.base];
    if (!n->g) n->g = tn_pool_get(s->tape, t->len);
    return n;
}

static int wanted(const num_sweep *s, const tn_t *src) {
    return src && src->needs && src->id >= s->map.base && s->map.reach[src->id - s->map.base];
}

static void num_bwd(num_sweep *s, tn_t *y, const tn_real *gy) {
    tn_real **gx = tn_scratch(s->tape, (size_t)y->nsrc * sizeof *gx);
    unsigned need = 0, add = 0;
    for (int i = 0; i < y->nsrc; i++) {
        gx[i] = NULL;
        if (!wanted(s, y->src[i])) continue;
        num_slot *n = num_slot_of(s, y->src[i]);
        for (int j = 0; j < i && !n->filled; j++) {
            if (y->src[j] != y->src[i]) continue; /* a source used twice: both add to zeros */
            memset(n->g, 0, y->src[i]->len * sizeof *n->g);
            n->filled = 1, add |= 1u << j;
        }
        gx[i] = n->g, need |= 1u << i;
        if (n->filled) add |= 1u << i;
    }
    y->op->bwd(y, gy, gx, need, add);
    for (int i = 0; i < y->nsrc; i++)
        if (gx[i]) s->slot[y->src[i]->id - s->map.base].filled = 1;
}

/* The gradient of a reshaped tensor is that of its source, as it lies: the buffer goes there, unless one is kept already. */
static int hand_down(num_sweep *s, const tn_t *y, num_slot *slot) {
    if (!tn_is_reshape(y) || slot->keep || !wanted(s, y->src[0])) return 0;
    num_slot *to = &s->slot[y->src[0]->id - s->map.base];
    if (to->g) return 0;
    to->g = slot->g, to->filled = 1;
    return 1;
}

static void num_vjp(num_sweep *s, tn_t *y, tn_real *gy) {
    tn_t **gx = tn_scratch(s->tape, (size_t)y->nsrc * sizeof *gx);
    memset(gx, 0, (size_t)y->nsrc * sizeof *gx);
    tn_t *g = tn_result(NULL, tn_view(s->tape, gy, y->nd, y->dim), 0, NULL, NULL, 0);
    y->op->vjp(y, g, gx);
    for (int i = 0; i < y->nsrc; i++) {
        if (!gx[i] || !wanted(s, y->src[i])) continue;
        TN_CHECK(s->tape, gx[i]->len == y->src[i]->len,
                 "%s: the gradient of source %d has another shape than the source", y->op->name, i);
        num_slot *n = num_slot_of(s, y->src[i]);
        if (n->filled)
            s->k->accumulate(y->src[i]->len, gx[i]->x, n->g);
        else
            memcpy(n->g, gx[i]->x, y->src[i]->len * sizeof *n->g);
        n->filled = 1;
    }
}

void tn_sweep(tn_t *y, const tn_real *gy, int n, tn_target *target) {
    tn_tape *t = y->tape;
    tn_place place = tn_mark(t);
    int base = INT_MAX;
    for (int i = 0; i < n; i++)
        if (target[i].t->id < base) base = target[i].t->id;
    if (base > y->id) {
        for (int i = 0; i < n; i++) target[i].reached = 0;
        return;
    }
    num_sweep s = {t, map_new(y, base, base), NULL, tn_kernels_get(NULL)};
    s.slot = tn_scratch(t, (size_t)(y->id - base + 1) * sizeof *s.slot);
    memset(s.slot, 0, (size_t)(y->id - base + 1) * sizeof *s.slot);
    for (int i = 0; i < n; i++) {
        if (target[i].t->id > y->id) continue;
        s.map.reach[target[i].t->id - base] = 1;
        s.slot[target[i].t->id - base] = (num_slot){target[i].dest, target[i].add, 1};
    }
    map_spread(&s.map, y, base);
    int was = t->sweeping;
    t->sweeping = 1;
    tn_profile_lap(t->profile, "other");
    if (s.map.reach[y->id - base]) {
        num_slot *top = num_slot_of(&s, y);
        for (size_t i = 0; i < y->len; i++) {
            tn_real g = gy ? gy[i] : 1;
            top->g[i] = top->filled ? top->g[i] + g : g;
        }
        top->filled = 1;
    }
    for (int id = y->id; id >= base; id--) {
        tn_t *node = t->node[id];
        num_slot *slot = &s.slot[id - base];
        if (!slot->filled || !s.map.reach[id - base]) continue;
        if (node->op && node->needs) {
            tn_place inner = tn_mark(t);
            if (hand_down(&s, node, slot))
                slot->keep = 1; /* not this slot's any more */
            else if (node->op->bwd)
                num_bwd(&s, node, slot->g);
            else if (node->op->vjp)
                num_vjp(&s, node, slot->g);
            tn_rewind(t, inner);
            if (t->profile) tn_profile_backward(t->profile, node);
        }
        if (!slot->keep) tn_pool_put(t, slot->g, node->len);
    }
    for (int i = 0; i < n; i++)
        target[i].reached = target[i].t->id <= y->id && s.slot[target[i].t->id - base].filled;
    t->sweeping = was;
    tn_rewind(t, place);
}

/* ---- recorded ---- */

/*
 * Gradients of sum(gy y) as tensors on the tape. Positions below first are not looked into: a fused op's expansion
 * starts at first, and its sources, all below it, are the targets.
 */
static void sweep_recorded(tn_t *y, tn_t *gy, int n, tn_t *const wrt[], tn_t *out[], int first) {
    tn_tape *t = y->tape;
    int base = first;
    for (int i = 0; i < n; i++)
        if (wrt[i]->id < base) base = wrt[i]->id;
    if (n) memset(out, 0, (size_t)n * sizeof *out);
    if (base > y->id) return;
    sweep_map map = map_new(y, base, first);
    tn_t **g = tn_scratch(t, (size_t)(y->id - base + 1) * sizeof *g);
    memset(g, 0, (size_t)(y->id - base + 1) * sizeof *g);
    for (int i = 0; i < n; i++)
        if (wrt[i]->id <= y->id) map.reach[wrt[i]->id - base] = 1;
    map_spread(&map, y, first);
    if (map.reach[y->id - base]) g[y->id - base] = gy;
    for (int id = y->id; id >= first; id--) {
        tn_t *node = t->node[id], *gn = g[id - base];
        if (!gn || !node->op || !node->needs) continue;
        tn_t **gx = tn_scratch(t, (size_t)node->nsrc * sizeof *gx);
        memset(gx, 0, (size_t)node->nsrc * sizeof *gx);
        if (node->op->vjp) {
            node->op->vjp(node, gn, gx);
        } else {
            tn_t **src = tn_scratch(t, (size_t)node->nsrc * sizeof *src),
                 **part = tn_scratch(t, (size_t)node->nsrc * sizeof *part);
            int *at = tn_scratch(t, (size_t)node->nsrc * sizeof *at), ns = 0;
            for (int i = 0; i < node->nsrc; i++) {
                int twice = 0;
                for (int j = 0; j < ns; j++) twice |= src[j] == node->src[i];
                if (node->src[i] && node->src[i]->needs && !twice) src[ns] = node->src[i], at[ns++] = i;
            }
            int start = t->n;
            tn_t *z = node->op->expand(node);
            sweep_recorded(z, gn, ns, src, part, start);
            for (int j = 0; j < ns; j++) gx[at[j]] = part[j];
        }
        for (int i = 0; i < node->nsrc; i++) {
            tn_t *s = node->src[i];
            if (!gx[i] || !s || !s->needs || s->id < base || !map.reach[s->id - base]) continue;
            TN_CHECK(t, tn_same_shape(gx[i], s),
                     "%s: the gradient of source %d has another shape than the source", node->op->name, i);
            tn_t **slot = &g[s->id - base];
            *slot = *slot ? tn_add(*slot, gx[i]) : gx[i];
        }
    }
    for (int i = 0; i < n; i++)
        if (wrt[i]->id <= y->id) out[i] = g[wrt[i]->id - base];
}

void tn_grad(tn_t *y, tn_t *gy, int n, tn_t *const wrt[], tn_t *out[], int create_graph) {
    tn_tape *t = y->tape;
    TN_CHECK(t, !gy || tn_same_shape(gy, y), "tn_grad: gy must have the shape of y");
    for (int i = 0; i < n; i++) {
        TN_CHECK(t, wrt[i]->tape == t, "tn_grad: wrt[%d] is on another tape than y", i);
        TN_CHECK(t, wrt[i]->needs, "tn_grad: wrt[%d] needs no gradient: it is an input, or recording was off",
                 i);
    }
    if (create_graph) {
        TN_CHECK(t, t->record, "tn_grad: create_graph while recording is off");
        tn_t *seed = gy ? gy : tn_full(t, 1, y->nd, y->dim);
        sweep_recorded(y, seed, n, wrt, out, y->needs ? 0 : y->id);
        for (int i = 0; i < n; i++)
            if (!out[i]) out[i] = tn_full(t, 0, wrt[i]->nd, wrt[i]->dim);
        return;
    }
    for (int i = 0; i < n; i++) out[i] = tn_full(t, 0, wrt[i]->nd, wrt[i]->dim);
    tn_target *target = tn_scratch(t, (size_t)(n ? n : 1) * sizeof *target);
    int distinct = 0;
    for (int i = 0; i < n; i++) {
        int twice = 0;
        for (int j = 0; j < i; j++) twice |= wrt[j] == wrt[i];
        if (!twice) target[distinct++] = (tn_target){wrt[i], out[i]->x, 0, 0};
    }
    tn_sweep(y, gy ? gy->x : NULL, distinct, target);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            if (wrt[j] == wrt[i]) memcpy(out[i]->x, out[j]->x, wrt[i]->len * sizeof(tn_real));
}
