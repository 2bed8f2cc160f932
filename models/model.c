/* SPDX-License-Identifier: MIT */
/* The list of models, and a model made from its spec. */
#include "tern_models.h"
#include "internal.h"
#include <string.h>

#define MODEL(name) extern const tn_model_def tn_model_##name;
#include "models.def"
#undef MODEL

static const tn_model_def *const list[] = {
#define MODEL(name) &tn_model_##name,
#include "models.def"
#undef MODEL
};

const tn_model_def *const *tn_models(int *n) {
    *n = TN_ARRAY_LEN(list);
    return list;
}

tn_model *tn_model_new(const char *spec, const tn_model_shape *shape, uint64_t seed, tn_err *e) {
    char name[TN_MAX_NAME], known[256] = "";
    const char *words[TN_ARRAY_LEN(list)], *options = tn_spec_split(spec, name, sizeof name);
    for (int i = 0; i < TN_ARRAY_LEN(list); i++) {
        if (!strcmp(list[i]->name, name)) return tn_model_new_def(list[i], options, shape, seed, e);
        words[i] = list[i]->name;
        size_t at = strlen(known);
        snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", list[i]->name);
    }
    const char *near = tn_nearest(name, TN_ARRAY_LEN(list), words);
    tn_fail(e, "there is no model %s%s%s%s; the models are %s", name, near ? " (did you mean " : "",
            near ? near : "", near ? "?)" : "", known);
    return NULL;
}

tn_model *tn_model_new_def(const tn_model_def *def, const char *options, const tn_model_shape *shape,
                           uint64_t seed, tn_err *e) {
    char what[TN_MAX_NAME + 16];
    if (def->abi != TN_ABI || def->size != sizeof *def) {
        tn_fail(e, "model %s was compiled for another version of tern (ABI %u, this is %d)", def->name,
                def->abi, TN_ABI);
        return NULL;
    }
    tn_model *m = tn_mem_new(sizeof *m);
    if (m) m->def = def, m->shape = *shape, m->params = tn_params_new();
    if (m) m->cfg = tn_mem_new(def->cfg_size), m->net = tn_mem_new(def->net_size);
    if (!m || !m->params || !m->cfg || !m->net) {
        tn_fail(e, "out of memory: no room for model %s", def->name);
        tn_model_free(m);
        return NULL;
    }
    snprintf(what, sizeof what, "model %s", def->name);
    tn_opts_default(def->cfg, m->cfg);
    if (tn_opts_parse(def->cfg, m->cfg, options, what, NULL, e)
        || def->build(m->net, m->cfg, shape, m->params, e) || tn_params_seal(m->params, seed, e)) {
        tn_model_free(m);
        return NULL;
    }
    return m;
}

void tn_model_free(tn_model *m) {
    if (!m) return;
    tn_params_free(m->params);
    tn_free(m->cfg), tn_free(m->net), tn_free(m);
}

tn_t *tn_forward(const tn_model *m, tn_t *x) {
    return m->def->forward(m->net, x);
}

int tn_model_text(const tn_model *m, char *out, size_t cap) {
    int n = snprintf(out, cap, "%s", m->def->name);
    if (!m->def->cfg || !m->def->cfg->name || (size_t)n + 1 >= cap) return n;
    out[n++] = ':', out[n] = 0;
    return n + tn_opts_text(m->def->cfg, m->cfg, 1, out + n, cap - (size_t)n);
}
