/* SPDX-License-Identifier: MIT */
/*
 * Whether a definition is one: of this version, complete, its options inside their struct, its state named and of the
 * right size. Asked of every definition, built in, of a plug-in or of the program's own, before its first step.
 */
#include "kernels/kernels.h"
#include "optim_private.h"
#include <string.h>

enum { WHO = 384 };

/* "./my_opt.so: optimizer signum" */
static const char *who(const tn_optim_def *d, const char *file, char out[WHO]) {
    snprintf(out, WHO, "%.200s%soptimizer %.60s", file ? file : "", file ? ": " : "", d->name);
    return out;
}

static size_t bytes_of(const tn_opt *o) {
    switch (o->type) {
    case TN_REAL_OPT:
        return sizeof(double);
    case TN_INT_OPT:
        return sizeof(long);
    case TN_BOOL_OPT:
    case TN_WORD_OPT:
        return sizeof(int);
    case TN_TEXT_OPT:
        return TN_MAX_TEXT;
    case TN_LIST_OPT:
        return sizeof(tn_list);
    }
    return 0;
}

static int check_options(const tn_optim_def *d, const char *me, tn_err *e) {
    if (d->hp->name && d->hp_size == 0)
        return tn_fail(e, "%s: hp_size is 0 and there are options; must be sizeof of their struct", me);
    for (const tn_opt *o = d->hp; o->name; o++) {
        const size_t need = bytes_of(o);
        if (!*o->name) return tn_fail(e, "%s: option %d has an empty name", me, (int)(o - d->hp));
        if (!need)
            return tn_fail(e, "%s: option %.60s has the unknown type %d; use TN_OPT_REAL and the like", me,
                           o->name, (int)o->type);
        if (o->offset > d->hp_size || need > d->hp_size - o->offset)
            return tn_fail(e,
                           "%s: option %.60s ends at byte %zu, beyond hp_size %zu; must be sizeof of the "
                           "options' struct",
                           me, o->name, o->offset + need, d->hp_size);
        for (const tn_opt *before = d->hp; before < o; before++)
            if (!strcmp(before->name, o->name))
                return tn_fail(e, "%s: two options are named %.60s", me, o->name);
    }
    return 0;
}

int tn_optim_usable(const tn_optim_def *d, int wraps, const char *file, tn_err *e) {
    char me[WHO];
    const char *from = file ? file : "", *colon = file ? ": " : "";
    if (d->abi != TN_ABI || d->size < offsetof(tn_optim_def, eval_weights) || d->size > sizeof *d)
        return tn_fail(e,
                       "%.200s%sthis optimizer was compiled for another version of tern; compile it with the "
                       "header of %s",
                       from, colon, TN_VERSION);
    if (!tn_kernels_get(e)) return -1;
    if (!d->name || !*d->name) return tn_fail(e, "%.200s%sthe definition has no name", from, colon);
    who(d, file, me);
    const int is_wrapper = d->size > offsetof(tn_optim_def, wraps) && d->wraps;
    if (wraps && !is_wrapper) return tn_fail(e, "%s is an optimizer, no wrapper", d->name);
    if (!wraps && is_wrapper)
        return tn_fail(e, "%s is a wrapper; it stands behind an optimizer: adamw+%s", d->name, d->name);
    if (!d->update || !d->hp || (!wraps && !tn_optim_has(d, "lr", 2)))
        return tn_fail(e, "%s: its definition needs update, and an option table%s", me,
                       wraps ? "" : " with a row lr");
    if (d->scope != TN_ELEMENT && d->scope != TN_TENSOR)
        return tn_fail(e, "%s: unknown scope %d; must be TN_ELEMENT (%d) or TN_TENSOR (%d)", me,
                       (int)d->scope, TN_ELEMENT, TN_TENSOR);
    return check_options(d, me, e);
}

int tn_optim_slots(const tn_optim_part *part, const tn_param *p, tn_slot slot[TN_MAX_SLOT], tn_err *e) {
    const tn_optim_def *d = part->def;
    char me[WHO];
    const int n = d->slots ? d->slots(part->hp, p->nd, p->dim, slot) : 0;
    who(d, part->file, me);
    if (n < 0 || n > TN_MAX_SLOT)
        return tn_fail(e, "%s asks for %d slots; the most is %d", me, n, TN_MAX_SLOT);
    for (int k = 0; k < n; k++) {
        const char *name = slot[k].name;
        if (!name) return tn_fail(e, "%s: slot %d of %s has no name", me, k, p->name);
        if (!*name) return tn_fail(e, "%s: slot %d of %s has an empty name", me, k, p->name);
        if (strlen(name) >= TN_MAX_NAME)
            return tn_fail(e, "%s: slot %d of %s: the name %.60s... is too long; %d bytes at most", me, k,
                           p->name, name, TN_MAX_NAME - 1);
        for (int j = 0; j < k; j++)
            if (!strcmp(slot[j].name, name))
                return tn_fail(e, "%s: slots %d and %d of %s are both named %s", me, j, k, p->name, name);
        if (d->scope == TN_ELEMENT && slot[k].len != p->len)
            return tn_fail(e,
                           "%s: slot %s of %s has %zu numbers; must be %zu, one for each weight "
                           "(scope TN_TENSOR has state of other sizes)",
                           me, name, p->name, slot[k].len, p->len);
    }
    return n;
}
