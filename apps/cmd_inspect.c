/* SPDX-License-Identifier: MIT */
/* tern inspect: the tensors of a safetensors file, or a model layer by layer. */
#include "commands.h"
#include "rundir.h"
#include "safetensors.h"
#include "terminal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct {
    char model[CONFIG_SPEC], input[64];
    long outputs, batch;
    int json;
} inspect_options;

static const arg rows[] = {
    ARG_TEXT(inspect_options, model, "model", "SPEC", "", "show this model instead of a file"),
    ARG_TEXT(inspect_options, input, "input", "SHAPE", "1x28x28", "shape of one sample, for --model"),
    ARG_INT(inspect_options, outputs, "outputs", 10, 1, 1000000, "classes or targets, for --model"),
    ARG_INT(inspect_options, batch, "batch", 1, 1, 4096, "samples in a batch, for --model"),
    ARG_FLAG(inspect_options, json, "json", "as JSON"),
    ARG_END};

static void shape_text(int nd, const uint64_t *dim, char *out, size_t cap) {
    size_t at = (size_t)snprintf(out, cap, "(");
    for (int i = 0; i < nd && at < cap; i++)
        at += (size_t)snprintf(out + at, cap - at, "%s%llu", i ? ", " : "", (unsigned long long)dim[i]);
    if (at < cap) snprintf(out + at, cap - at, ")");
}

/* ---- A file -------------------------------------------------------------------------------------------- */

typedef struct {
    double norm, min, max;
    uint64_t nonfinite;
} numbers;

static int measure(const st_file *f, const st_tensor *t, numbers *s, tn_err *e) {
    double q = 0;
    *s = (numbers){NAN, NAN, NAN, 0};
    if (!tn_st_floats(t)) return 0;
    tn_real *x = t->n < SIZE_MAX / sizeof *x ? malloc((size_t)t->n * sizeof *x + 1) : NULL;
    if (!x) return tn_fail(e, "%s: not enough memory for tensor %.80s", f->path, t->name);
    int bad = tn_st_read(f, t, x, 0, e);
    for (uint64_t i = 0; !bad && i < t->n; i++) {
        double v = (double)x[i];
        if (!isfinite(v)) {
            s->nonfinite++;
            continue;
        }
        q += v * v;
        s->min = isnan(s->min) || v < s->min ? v : s->min;
        s->max = isnan(s->max) || v > s->max ? v : s->max;
    }
    s->norm = sqrt(q);
    free(x);
    return bad;
}

static json_t *tensor_json(const st_tensor *t, const numbers *s) {
    json_t *shape = json_array();
    for (int d = 0; d < t->nd; d++) json_array_append_new(shape, json_integer((json_int_t)t->dim[d]));
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:I}", "name", t->name, "dtype", t->dtype, "shape",
                     shape, "norm", json_number(s->norm), "min", json_number(s->min), "max",
                     json_number(s->max), "nonfinite", (json_int_t)s->nonfinite);
}

static void tensor_line(const st_tensor *t, const numbers *s) {
    enum { NAME = 22 };
    char shape[160];
    shape_text(t->nd, t->dim, shape, sizeof shape);
    if (strlen(t->name) > NAME) /* on a line of its own, so that the columns stay */
        printf("%s\n%*s", t->name, NAME, "");
    else
        printf("%-*s", NAME, t->name);
    printf(" %-5s %-18s", t->dtype, shape);
    if (tn_st_floats(t)) printf(" %10.4g %10.4g %10.4g", s->norm, s->min, s->max);
    putchar('\n');
    if (s->nonfinite) printf("%*s %llu NaN or infinite\n", NAME, "", (unsigned long long)s->nonfinite);
}

static int inspect_file(const command *cmd, const char *where, int json) {
    char path[CONFIG_PATH + 32], total[32];
    struct stat st;
    tn_err e;
    st_file f;
    double count = 0;
    int dir = stat(where, &st) == 0 && S_ISDIR(st.st_mode);
    snprintf(path, sizeof path, "%s%s", where, dir ? "/last.safetensors" : "");
    int bad = tn_st_open(&f, path, &e);
    json_t *list = json_array();
    if (!bad && !json)
        printf("%-22s %-5s %-18s %10s %10s %10s\n", "tensor", "type", "shape", "norm", "least", "largest");
    for (int i = 0; i < f.n && !bad; i++) {
        numbers s;
        bad = measure(&f, &f.t[i], &s, &e);
        count += (double)f.t[i].n;
        if (!bad && json) json_array_append_new(list, tensor_json(&f.t[i], &s));
        if (!bad && !json) tensor_line(&f.t[i], &s);
    }
    if (!bad && json) {
        json_t *j =
            json_pack("{s:s, s:O, s:O*}", "path", path, "tensors", list, "metadata", (json_t *)f.meta);
        json_dumpf(j, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(j);
    } else if (!bad) {
        const char *key;
        json_t *v;
        count_text(count, total);
        printf("%d tensors, %s numbers\n", f.n, total);
        if (f.meta) json_object_foreach((json_t *)f.meta, key, v) {
                char line[512];
                snprintf(line, sizeof line, "%s: %.200s", key, json_string_value(v));
                args_wrapped(stdout, line, printf("  "), 4);
            }
    }
    json_decref(list);
    tn_st_close(&f);
    return bad ? args_failed(cmd, &e) : EXIT_OK;
}

/* ---- A model ------------------------------------------------------------------------------------------- */

static int parse_input(const char *text, tn_model_shape *s) {
    char *end;
    s->nd = 0;
    for (;; text = end + 1) {
        long v = strtol(text, &end, 10);
        if (end == text || v < 1 || v > 1 << 20 || s->nd == 3 || (*end && *end != 'x')) return -1;
        s->dim[s->nd++] = (int)v;
        if (!*end) return 0;
    }
}

/* Parameters that this tensor was computed from, directly. */
static size_t own_parameters(const tn_t *y) {
    size_t n = 0;
    for (int i = 0; i < y->nsrc; i++)
        if (y->src[i] && y->src[i]->param) n += y->src[i]->len;
    return n;
}

static void model_rows(const tn_model *m, tn_tape *t, tn_t *y, int json) {
    json_t *list = json_array();
    char shape[64], count[32], ops[32];
    if (!json) printf("%-16s %-20s %14s %18s\n", "operation", "output", "parameters", "operations");
    tn_t *row;
    for (int i = 0; (row = tn_tape_at(t, i)); i++) {
        if (!row->op) continue;
        double flops = row->op->flops ? row->op->flops(row) : 0;
        tn_shape_text(row, shape);
        count_text((double)own_parameters(row), count);
        count_text(flops, ops);
        if (json)
            json_array_append_new(list, json_pack("{s:s, s:s, s:I, s:o}", "op", row->op->name, "shape", shape,
                                                  "parameters", (json_int_t)own_parameters(row), "operations",
                                                  json_number(flops)));
        else
            printf("%-16s %-20s %14s %18s\n", row->op->name, shape, count, ops);
    }
    char spec[CONFIG_SPEC];
    tn_model_text(m, spec, sizeof spec);
    count_text((double)tn_params_total(m->params), count);
    count_text(tn_tape_flops(t, 0), ops);
    if (json) {
        json_t *j = json_pack("{s:s, s:I, s:o, s:o, s:O}", "model", spec, "parameters",
                              (json_int_t)tn_params_total(m->params), "operations_forward",
                              json_number(tn_tape_flops(t, 0)), "operations_step",
                              json_number(tn_tape_flops(t, 1)), "rows", list);
        json_dumpf(j, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(j);
    } else {
        char line[CONFIG_SPEC + 256], all[32];
        count_text(tn_tape_flops(t, 1), all);
        snprintf(line, sizeof line,
                 "%s: %s parameters; %s operations forward, %s with gradients, for a batch of %d", spec,
                 count, ops, all, y->dim[0]);
        args_wrapped(stdout, line, 0, 2);
        for (int i = 0; i < tn_params_count(m->params); i++) {
            const tn_param *p = tn_params_at(m->params, i);
            uint64_t dim[TN_MAX_DIM];
            for (int d = 0; d < p->nd; d++) dim[d] = (uint64_t)p->dim[d];
            shape_text(p->nd, dim, shape, sizeof shape);
            printf("  %-24s %-20s %s\n", p->name, shape, p->flags & TN_NO_DECAY ? "not decayed" : "decays");
        }
    }
    json_decref(list);
}

static int inspect_model(const command *cmd, const inspect_options *o) {
    tn_err e;
    tn_model_shape s = {.outputs = (int)o->outputs};
    if (parse_input(o->input, &s))
        return args_usage_error(cmd, "--input: '%.40s' is not a shape such as 1x28x28", o->input);
    tn_model *m = tn_model_new(o->model, &s, 1, &e);
    if (!m) return args_usage_error(cmd, "--model: %s", e.msg);
    tn_tape *t = tn_tape_new(&e);
    int dim[TN_MAX_DIM] = {(int)o->batch};
    for (int i = 0; i < s.nd; i++) dim[i + 1] = s.dim[i];
    if (t) {
        tn_t *y = tn_forward(m, tn_full(t, 0, s.nd + 1, dim));
        model_rows(m, t, y, o->json);
    }
    tn_model_free(m);
    int code = t ? EXIT_OK : args_failed(cmd, &e);
    tn_tape_free(t);
    return code;
}

static int run_command(const command *cmd, int argc, char **argv) {
    static inspect_options o;
    args_rest rest;
    int code = args_parse(cmd, &o, argc, argv, &rest);
    if (code >= 0) return code;
    if (!rest.n == !o.model[0]) return args_usage_error(cmd, "name either a run or file, or a --model");
    static const char *const for_model[] = {"input", "outputs", "batch"};
    for (int i = 0; i < 3; i++)
        if (rest.n && args_given(cmd, &rest, for_model[i]))
            return args_usage_error(cmd, "--%s: only with --model", for_model[i]);
    return rest.n ? inspect_file(cmd, rest.plain[0], o.json) : inspect_model(cmd, &o);
}

const command cmd_inspect = {
    "inspect",
    "Show the tensors of a checkpoint, or a model's layers, parameters and operations.",
    "RUN|FILE|--model SPEC [options]",
    NULL,
    rows,
    1,
    run_command};
