/* SPDX-License-Identifier: MIT */
/*
 * tern conformance: the recorded vectors (tests/golden/optim) against the built-in optimizers or one of the user's, in
 * float, and for what fails the known mistake that makes the same numbers.
 */
#include "commands.h"
#include "conform.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char optimizer[CONFORM_PATH], as[TN_MAX_NAME], vectors[CONFORM_PATH];
    int json, failures;
} conformance_options;

static const arg rows[] = {
    ARG_TEXT(
        conformance_options, optimizer, "optimizer", "SPEC", "",
        "what is judged: NAME or ./FILE.so, with options where the vectors give none (all built-in ones)"),
    ARG_TEXT(conformance_options, as, "as", "FAMILY", "",
             "the vectors it is judged by (those of the name of its definition)"),
    ARG_TEXT(conformance_options, vectors, "vectors", "DIR", "",
             "folder of the vectors (those that came with tern)"),
    ARG_FLAG(conformance_options, failures, "failures", "show only the cases that fail"),
    ARG_FLAG(conformance_options, json, "json", "as JSON"),
    ARG_END};

typedef struct {
    const conformance_options *o;
    int passed, failed, left_out;
    json_t *cases;
} judged;

/* ---- the optimizer: head of --optimizer, then the case's options, then those of --optimizer that are not among them ---- */

static int names_option(const char *options, const char *key, size_t len) {
    for (const char *s = options; s && *s; s = strchr(s, ',') ? strchr(s, ',') + 1 : NULL)
        if (strncmp(s, key, len) == 0 && s[len] == '=') return 1;
    return 0;
}

/* NAME:options+WRAPPER: the case's options come after the name, mine that it does not give after them. */
static void merge(const char *mine, const char *theirs, char *out, size_t cap) {
    const char *slash = strrchr(mine, '/'), *from = slash ? slash : mine; /* a path may hold ':' and '+' */
    const char *wrappers = from + strcspn(from, "+"), *head = from + strcspn(from, ":+");
    const char *colon = strchr(theirs, ':'), *given = colon ? colon + 1 : "";
    size_t n = (size_t)snprintf(out, cap, "%.*s:%s", (int)(head - mine), mine, given);
    for (const char *s = head + (*head == ':'); s < wrappers && n < cap;) {
        const size_t most = (size_t)(wrappers - s);
        size_t len = strcspn(s, ","), key = strcspn(s, "=,");
        if (len > most) len = most;
        if (!names_option(given, s, key))
            n += (size_t)snprintf(out + n, cap - n, "%s%.*s", out[n - 1] == ':' ? "" : ",", (int)len, s);
        s += len < most ? len + 1 : len;
    }
    if (n && n < cap && out[n - 1] == ':') n--;
    if (n < cap) snprintf(out + n, cap - n, "%s", wrappers);
}

static tn_optim *make(const void *who, tn_params *ps, const char *spec, tn_err *e) {
    char text[2 * CONFORM_PATH];
    merge(who, spec, text, sizeof text);
    return tn_optim_new(ps, text, e);
}

/* The name of the definition behind --optimizer; -1: refused. */
static int definition_name(const char *spec, char *name, size_t cap, tn_err *e) {
    tn_params *ps = tn_params_new();
    tn_optim *o = NULL;
    if (!ps) return tn_fail(e, "not enough memory");
    tn_param_add(ps, "p", "weight", 0, tn_init_const(0), 2, (int[]){3, 5});
    if (tn_params_seal(ps, 1, e) == 0) o = tn_optim_new(ps, spec, e);
    if (o) snprintf(name, cap, "%s", tn_optim_definition(o)->name);
    tn_optim_free(o);
    tn_params_free(ps);
    return o ? 0 : -1;
}

/* ---- what is said about a case ---- */

static void heading(void) {
    printf("%-44s %11s %9s  %s\n", "case", "deviation", "allowed", "verdict");
}

static json_t *case_json(const char *name, const conform_file *f, const conform_case *c,
                         const conform_result *r, conform_verdict v, const char *verdict,
                         const char *refused) {
    json_t *x = json_pack("{s:s, s:s, s:s, s:s, s:f, s:s}", "case", name, "family", f->family, "spec",
                          c->spec, "source", c->source, "allowed", c->tol, "verdict", verdict);
    if (!refused)
        json_object_set_new(x, "deviation", isfinite(r->deviation) ? json_real(r->deviation) : json_null());
    if (!refused && r->where[0]) json_object_set_new(x, "where", json_string(r->where));
    if (refused) json_object_set_new(x, "reason", json_string(refused));
    if (v.mistake) json_object_set_new(x, "mistake", json_string(conform_mistake_text[v.mistake]));
    return x;
}

static void say(judged *j, const conform_file *f, const conform_case *c, const conform_result *r,
                conform_verdict v, const char *refused) {
    /* An option that a plug-in does not have is no mistake of it. */
    const int ok = !refused && r->deviation <= c->tol;
    const int left_out = refused && j->o->optimizer[0]
                         && (strstr(refused, "has no option") || strstr(refused, "unknown option"));
    const char *verdict = ok ? "ok" : left_out ? "left out" : "FAILED";
    char name[160], text[600];
    snprintf(name, sizeof name, "%s/%s", f->family, c->name);
    j->passed += ok, j->left_out += left_out, j->failed += !ok && !left_out;
    if (j->o->json) {
        json_array_append_new(j->cases, case_json(name, f, c, r, v, verdict, refused));
        return;
    }
    if ((ok || left_out) && j->o->failures) return;
    if (refused)
        printf("%-44s %11s %9.0e  %s\n    ", name, "-", c->tol, verdict);
    else
        printf("%-44s %11.1e %9.0e  %s\n%s", name, r->deviation, c->tol, verdict, ok ? "" : "    ");
    if (ok) return;
    snprintf(text, sizeof text, "%s%s%s", refused ? refused : r->where, refused ? "" : "; ",
             refused            ? ""
             : v.mistake        ? conform_mistake_text[v.mistake]
             : v.state          ? "the state differs, the weights do not"
             : conform_knows(f) ? "no known mistake makes these numbers"
                                : "known mistakes are not tried for this family");
    args_wrapped(stdout, text, 4, 4);
}

/* The mistake that is behind most of a file's failures, and how many. */
static void summary(const conform_file *f, const conform_verdict *v, int failed) {
    int count[MISTAKES] = {0}, best = 0;
    for (int c = 0; c < f->cases; c++) count[v[c].mistake]++;
    for (int m = 1; m < MISTAKES; m++)
        if (count[m] > count[best] || (!best && count[m])) best = m;
    if (2 * count[best] < failed || !best) return; /* chance */
    char text[400];
    snprintf(text, sizeof text, "%s: the likeliest mistake behind %d of %d failures is: %s", f->family,
             count[best], failed, conform_mistake_text[best]);
    args_wrapped(stdout, text, 0, 4);
}

static int judge(judged *j, const char *dir, const char *family, const char *spec, tn_err *e) {
    char path[2 * CONFORM_PATH];
    snprintf(path, sizeof path, "%s/%s.json", dir, family);
    conform_file *f = conform_open(path, e);
    if (!f) return -1;
    conform_result *r = calloc((size_t)f->cases, sizeof *r);
    conform_verdict *v = calloc((size_t)f->cases, sizeof *v);
    tn_err *why = calloc((size_t)f->cases, sizeof *why);
    int bad = r && v && why ? 0 : tn_fail(e, "not enough memory");
    const conform_maker theirs = {make, spec, 0}, *m = *spec ? &theirs : &conform_builtin;
    const int before = j->failed;
    for (int c = 0; !bad && c < f->cases; c++)
        if (conform_run(f, &f->c[c], m, &r[c], &why[c]) && !why[c].msg[0])
            bad = tn_fail(e, "%s: failed", f->c[c].name);
    if (!bad) conform_diagnose(f, r, v);
    for (int c = 0; !bad && c < f->cases; c++) say(j, f, &f->c[c], &r[c], v[c], r[c].w ? NULL : why[c].msg);
    if (!bad && !j->o->json && j->failed > before) summary(f, v, j->failed - before);
    for (int c = 0; r && c < f->cases; c++) free(r[c].w);
    free(r), free(v), free(why);
    conform_close(f);
    return bad;
}

static int usable(const command *cmd, const conformance_options *o, const char *dir, char **names, int n,
                  char *as, size_t cap) {
    tn_err e = {""};
    if (!o->optimizer[0]) {
        if (o->as[0] && !(snprintf(as, cap, "%s", o->as) < (int)cap)) as[0] = 0;
    } else if (definition_name(o->optimizer, as, cap, &e))
        return args_usage_error(cmd, "--optimizer: %s", e.msg);
    if (o->as[0]) snprintf(as, cap, "%s", o->as);
    if (!as[0]) return -1;
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], as) == 0) return -1;
    const char *near = tn_nearest(as, n, (const char *const *)names);
    return args_usage_error(cmd, "no vectors for '%.60s' in %s%s%s%s; choose some with --as FAMILY", as, dir,
                            near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static int judge_all(const command *cmd, const conformance_options *o, const char *dir, char **names, int n) {
    char as[TN_MAX_NAME] = "";
    tn_err e = {""};
    judged j = {.o = o, .cases = json_array()};
    int code = usable(cmd, o, dir, names, n, as, sizeof as), bad = 0;
    if (code < 0 && !o->json) {
        args_wrapped(stdout, dir, printf("Optimizers in float against the vectors in "), 2);
        heading();
    }
    for (int i = 0; code < 0 && !bad && i < n; i++)
        if (!as[0] || strcmp(as, names[i]) == 0) bad = judge(&j, dir, names[i], o->optimizer, &e);
    if (code < 0 && bad) code = args_failed(cmd, &e);
    if (code < 0 && o->json) {
        json_t *all = json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:O}", "vectors", dir, "optimizer",
                                o->optimizer[0] ? o->optimizer : "built-in", "number",
                                sizeof(tn_real) == sizeof(float) ? "float" : "double", "passed", j.passed,
                                "failed", j.failed, "left_out", j.left_out, "cases", j.cases);
        json_dumpf(all, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
        printf("\n");
        json_decref(all);
    } else if (code < 0) {
        printf("%d passed, %d failed", j.passed, j.failed);
        if (j.left_out) printf(", %d left out", j.left_out);
        printf("\n");
    }
    json_decref(j.cases);
    return code >= 0 ? code : j.failed ? EXIT_FAILED : EXIT_OK;
}

static int run_command(const command *cmd, int argc, char **argv) {
    static conformance_options o;
    args_rest rest;
    tn_err e = {""};
    char **names = NULL;
    int code = args_parse(cmd, &o, argc, argv, &rest);
    if (code >= 0) return code;
    const char *dir = conform_place(o.vectors);
    if (!dir)
        return args_usage_error(
            cmd, "the vectors that came with tern are not there; name their folder with --vectors DIR");
    const int n = conform_families(dir, &names, &e);
    if (n < 0)
        code = args_usage_error(cmd, "--vectors: %s", e.msg);
    else if (n == 0)
        code = args_usage_error(cmd, "--vectors: %s: no files of vectors (NAME.json) in it", dir);
    else
        code = judge_all(cmd, &o, dir, names, n);
    for (int i = 0; i < n; i++) free(names[i]);
    free(names);
    return code;
}

const command cmd_conformance = {
    "conformance",
    "Check optimizers, built-in or your own, against recorded vectors.",
    "[--optimizer SPEC] [--as FAMILY] [options]",
    "Each case is run twice, the second time after a reset. deviation: the largest\n"
    "difference of a weight or of the state from what was recorded, over the largest\n"
    "number of its tensor. For a failure, the known mistake that makes the same\n"
    "numbers: epsilon inside the root, a counter that advances once a tensor, ...\n"
    "A plug-in runs with your rights. Of its state, slots with the names of the\n"
    "vectors' are compared. The format of the vectors is in their README.md.\n"
    "\n"
    "  tern conformance\n"
    "  tern conformance --optimizer ./my_opt.so --as adamw\n",
    rows,
    0,
    run_command};
