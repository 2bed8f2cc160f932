/* SPDX-License-Identifier: MIT */
/* results.json and results.csv: fractions, not percentage points; NaN and infinity are null. */
#include "compare.h"
#include "rundir.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void put(json_t *j, const char *key, json_t *v) {
    json_object_set_new(j, key, v);
}

static void put_number(json_t *j, const char *key, double v) {
    put(j, key, json_number(v));
}

/* Names from a CSV file need not be UTF-8. */
static void put_text(json_t *j, const char *key, const char *s) {
    json_t *v = json_string(s);
    put(j, key, v ? v : json_string("?"));
}

static json_t *interval_json(tn_interval ci) {
    return json_pack("[o, o]", json_number(ci.lo), json_number(ci.hi));
}

static json_t *run_json(const result *r) {
    json_t *j = json_object();
    put_text(j, "model", r->model);
    put_text(j, "optimizer", r->optimizer);
    put(j, "seed", json_integer(r->seed));
    put_number(j, "test_accuracy", r->value);
    put(j, "diverged", json_boolean(r->diverged));
    put_number(j, "train_accuracy", r->train);
    put_number(j, "val_accuracy", r->val);
    put_number(j, "test_loss", r->loss);
    put_number(j, "weight_norm", r->weight_norm);
    put(j, "never_lit", json_integer(r->never_lit));
    put_number(j, "never_lit_norm", r->never_lit_norm);
    put_number(j, "never_lit_norm_start", r->never_lit_start);
    put_text(j, "spec", r->spec);
    put_text(j, "numeric_mode", r->numeric);
    put_text(j, "id", r->id);
    put_number(j, "seconds", r->seconds);
    return j;
}

static json_t *pair_json(const comparison *c, const pair_stats *q) {
    const tn_paired *s = &q->s;
    char key[32], sentence[1024];
    json_t *j = json_object();
    put_text(j, "model", c->model[q->model].name);
    put_text(j, "a", c->optimizer[q->a]);
    put_text(j, "b", c->optimizer[q->b]);
    put(j, "n", json_integer(s->n));
    put(j, "left_out", json_integer(q->left_out));
    put_number(j, "mean_a", s->mean_a);
    put_number(j, "mean_b", s->mean_b);
    put_number(j, "mean_diff", s->mean);
    put_number(j, "sd", s->sd);
    snprintf(key, sizeof key, "ci%g", 100 * s->level);
    put(j, key, interval_json(s->ci));
    put(j, "ci_simultaneous", interval_json(s->ci_sim));
    put(j, "ci_bca", interval_json(s->bca));
    put_number(j, "p", s->p);
    put_number(j, "p_holm", q->p_holm);
    put(j, "exact", json_boolean(s->exact));
    put_number(j, "d_z", s->dz);
    put(j, "wins", json_integer(s->wins));
    put(j, "losses", json_integer(s->losses));
    put(j, "ties", json_integer(s->ties));
    put_number(j, "prob_improvement", s->prob);
    put(j, "prob_improvement_ci", interval_json(s->prob_ci));
    put_number(j, "margin", s->margin);
    put(j, "verdict", json_string(tn_verdict_word(s->verdict)));
    put(j, "excludes_zero", json_boolean(s->side != 0));
    tn_paired_sentence(s, c->optimizer[q->a], c->optimizer[q->b], sentence, sizeof sentence);
    put_text(j, "sentence", sentence);
    return j;
}

static json_t *model_json(const compared_model *m) {
    json_t *j = json_object();
    put_text(j, "model", m->name);
    put_text(j, "spec", m->spec);
    put_text(j, "training", m->training);
    put_text(j, "source", m->source);
    put_number(j, "margin", m->margin);
    return j;
}

json_t *comparison_json(const comparison *c) {
    json_t *j = json_object(), *models = json_array(), *runs = json_array(), *pairs = json_array();
    if (!j || !models || !runs || !pairs) return NULL;
    put(j, "tern", json_string(tn_version()));
    put_number(j, "level", c->level);
    put(j, "family", json_integer(c->pairs));
    if (c->data[0]) put_text(j, "data", c->data);
    if (c->data_hash[0]) put_text(j, "data_hash", c->data_hash);
    if (c->test_n) put(j, "test_n", json_integer(c->test_n));
    for (int i = 0; i < c->models; i++) json_array_append_new(models, model_json(&c->model[i]));
    for (int i = 0; i < c->results; i++) json_array_append_new(runs, run_json(&c->result[i]));
    for (int i = 0; i < c->pairs; i++) json_array_append_new(pairs, pair_json(c, &c->pair[i]));
    put(j, "models", models);
    put(j, "runs", runs);
    put(j, "comparisons", pairs);
    if (isfinite(c->seconds)) put_number(j, "seconds", c->seconds);
    return j;
}

/* ---- Files ------------------------------------------------------------------------------------------------------------ */

static void put_cell(FILE *f, const char *s) {
    int quote = strpbrk(s, ",\"\r\n") != NULL;
    fputs(quote ? ",\"" : ",", f);
    for (; *s; s++) {
        if (*s == '"') fputc('"', f);
        fputc(*s, f);
    }
    if (quote) fputc('"', f);
}

static void put_real(FILE *f, double v) {
    if (isfinite(v))
        fprintf(f, ",%.17g", v);
    else
        fputc(',', f);
}

static void write_csv(const comparison *c, FILE *f) {
    fputs("seed,model,optimizer,value,diverged,train_accuracy,val_accuracy,test_loss,weight_norm,never_lit,"
          "never_lit_norm,"
          "never_lit_norm_start,spec,numeric_mode\r\n",
          f);
    for (int i = 0; i < c->results; i++) {
        const result *r = &c->result[i];
        fprintf(f, "%ld", r->seed);
        put_cell(f, r->model);
        put_cell(f, r->optimizer);
        put_real(f, r->value);
        fprintf(f, ",%d", r->diverged);
        put_real(f, r->train);
        put_real(f, r->val);
        put_real(f, r->loss);
        put_real(f, r->weight_norm);
        fprintf(f, ",%d", r->never_lit);
        put_real(f, r->never_lit_norm);
        put_real(f, r->never_lit_start);
        put_cell(f, r->spec);
        put_cell(f, r->numeric);
        fputs("\r\n", f);
    }
}

static int save_csv(const comparison *c, const char *path, tn_err *e) {
    char *data = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&data, &n);
    if (f) write_csv(c, f);
    int bad = !f || fclose(f) ? tn_fail(e, "%s: not enough memory", path) : tn_write_file(path, data, n, e);
    free(data);
    return bad;
}

int comparison_save(const comparison *c, const char *dir, tn_err *e) {
    char path[CONFIG_PATH + 32];
    json_t *j = comparison_json(c);
    char *data = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
    snprintf(path, sizeof path, "%s/results.json", dir);
    int bad = data ? tn_write_file(path, data, strlen(data), e) : tn_fail(e, "%s: not enough memory", path);
    free(data);
    json_decref(j);
    snprintf(path, sizeof path, "%s/results.csv", dir);
    return bad || save_csv(c, path, e) ? -1 : 0;
}
