/* SPDX-License-Identifier: MIT */
/* tern data: what a data set holds, in numbers and pictures. */
#include "commands.h"
#include "rundir.h"
#include "terminal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    run_config config;
    char png[CONFIG_PATH], augment[CONFIG_SPEC];
    long samples, first, zoom;
    int split, json;
} data_options;

static const arg rows[] = {
    ARG_TEXT(data_options, config.data, "data", "WHERE", "",
             "directory, images:DIR,key=value or synthetic:key=value; default: MNIST"),
    ARG_WORD(data_options, split, "split", "train|val|test", 0, "part to show samples of"),
    ARG_INT(data_options, samples, "samples", 3, 0, 1000, "samples to show; on the sheet: of each class"),
    ARG_INT(data_options, first, "first", 0, 0, INT_MAX,
            "number of the first sample to show; on the sheet: of each class"),
    ARG_TEXT(data_options, png, "png", "FILE", "",
             "write samples as a sheet of pictures, a row a class (20 of each if --samples is not given)"),
    ARG_INT(data_options, zoom, "zoom", 1, 1, 16, "size of a pixel on the sheet"),
    ARG_TEXT(data_options, augment, "augment", "OPTIONS", "",
             "show the samples as tern train --augment changes them"),
    ARG_INT(data_options, config.val_size, "val-size", 5000, 0, INT_MAX,
            "training images kept for validation"),
    ARG_INT(data_options, config.train_size, "train-size", 0, 0, INT_MAX,
            "stratified subset of this size; 0: all"),
    ARG_REAL(data_options, config.label_noise, "label-noise", 0, 0, 1, "share of training labels replaced"),
    ARG_WORD(data_options, config.normalize, "normalize", "none|meanstd", 0, "how pixels become numbers"),
    ARG_INT(data_options, config.seed, "seed", 1, 0, LONG_MAX, "seed of subset and noise"),
    ARG_FLAG(data_options, json, "json", "as JSON"),
    ARG_END};

typedef struct {
    const char *name;
    const tn_data *d;
    double mean, std; /* of what the model sees */
} part;

static void measure(part *p) {
    const tn_data *d = p->d;
    size_t n = (size_t)d->n * d->len;
    double s = 0, q = 0;
    for (size_t i = 0; i < n; i++) {
        double v = d->xtype == TN_U8 ? ((const unsigned char *)d->x)[i] : (double)((const float *)d->x)[i];
        v = v * d->scale + d->shift;
        s += v;
        q += v * v;
    }
    p->mean = n ? s / (double)n : NAN;
    p->std = n ? sqrt(fmax(0, q / (double)n - p->mean * p->mean)) : NAN;
}

/* counts: classes numbers */
static void count_classes(const tn_data *d, int *counts) {
    memset(counts, 0, (size_t)d->classes * sizeof *counts);
    for (int i = 0; i < d->n; i++) counts[d->label[i]]++;
}

static int show_json(const tn_dataset *set, part *parts, int lit) {
    json_t *j = json_pack("{s:s, s:s, s:s, s:i, s:i}", "name", set->name, "data_hash", set->data_hash,
                          "split_hash", set->split_hash, "classes", set->train.classes, "never_lit", lit);
    json_t *shape = json_array();
    for (int i = 0; i < set->train.nd; i++) json_array_append_new(shape, json_integer(set->train.dim[i]));
    json_object_set_new(j, "shape", shape);
    json_object_set_new(j, "note", json_string(set->note));
    json_t *names = json_array();
    for (int c = 0; set->class_name && c < set->train.classes; c++)
        json_array_append_new(names, json_string(set->class_name[c]));
    json_object_set_new(j, "class_names", names);
    for (int i = 0; i < 3; i++) {
        const tn_data *d = parts[i].d;
        json_t *p = json_pack("{s:i, s:o, s:o, s:s}", "n", d->n, "mean", json_number(parts[i].mean), "std",
                              json_number(parts[i].std), "hash", d->hash);
        int *counts = d->classes ? malloc((size_t)d->classes * sizeof *counts) : NULL;
        json_t *list = json_array();
        if (counts) count_classes(d, counts);
        for (int c = 0; counts && c < d->classes; c++) json_array_append_new(list, json_integer(counts[c]));
        json_object_set_new(p, "per_class", list);
        free(counts);
        json_object_set_new(j, parts[i].name, p);
    }
    json_dumpf(j, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(j);
    return EXIT_OK;
}

static void show_numbers(const tn_dataset *set, const part *parts, int lit) {
    const tn_data *t = &set->train;
    printf("%s: samples of ", set->name);
    for (int i = 0; i < t->nd; i++) printf("%s%d", i ? "x" : "", t->dim[i]);
    if (t->classes)
        printf(", %d classes\n", t->classes);
    else
        printf(", %d target%s\n", t->targets, t->targets == 1 ? "" : "s");
    for (int i = 0; i < 3; i++) {
        char n[32];
        count_text(parts[i].d->n, n);
        printf("  %-6s %8s samples", parts[i].name, n);
        if (parts[i].d->n) printf(", mean %.4f, standard deviation %.4f", parts[i].mean, parts[i].std);
        putchar('\n');
    }
    for (int i = 0; i < 3 && t->classes && t->classes <= 32; i++) {
        int counts[32];
        if (!parts[i].d->n) continue;
        count_classes(parts[i].d, counts);
        printf("  %-6s per class:", parts[i].name);
        for (int c = 0; c < t->classes; c++) printf(" %d", counts[c]);
        putchar('\n');
    }
    printf("  %d of %zu inputs are zero in every training sample\n", lit, t->len);
    if (set->note[0]) printf("  %s\n", set->note);
    if (set->class_name) {
        printf("  classes:");
        for (int c = 0; c < t->classes; c++) printf("%s %s", c ? "," : "", set->class_name[c]);
        putchar('\n');
    }
    printf("  data  sha256 %s\n  split sha256 %s\n", set->data_hash, set->split_hash);
}

static void show_samples(const data_options *o, const tn_data *d) {
    enum { CAP = 1 << 18 };
    char *text = malloc(CAP);
    for (long k = 0; text && k < o->samples && o->first + k < d->n; k++) {
        int i = (int)(o->first + k);
        printf("\nsample %d", i);
        if (d->label) printf(", label %d", d->label[i]);
        for (int j = 0; d->target && j < d->targets; j++)
            printf("%s%g", j ? " " : ", target ",
                   (double)d->target[(size_t)i * (size_t)d->targets + (size_t)j]);
        putchar('\n');
        if (tn_data_picture(d, i, term_columns(STDOUT_FILENO, 80), term_unicode(), text, CAP) >= 0)
            fputs(text, stdout);
    }
    free(text);
}

/* The part with all its samples changed as in the first epoch: floats that the model would see. */
static int augmented(const data_options *o, const tn_data *d, const tn_augment *a, tn_data *out,
                     tn_tape **tape, tn_err *e) {
    if (tn_augment_check(a, d, e) || !(*tape = tn_tape_new(e))) return -1;
    tn_t *x = tn_batch_input_augmented(*tape, d, a, (uint64_t)o->config.seed, 0, d->n, NULL, 0);
    return tn_data_from_arrays(out, d->n, d->nd, d->dim, TN_F32, x->x, d->label, d->classes, d->target,
                               d->targets, e);
}

static int write_sheet(const data_options *o, const args_rest *rest, const command *cmd, const tn_data *d,
                       tn_err *e) {
    enum { COLUMNS = 20 };
    tn_image sheet;
    long most = args_given(cmd, rest, "samples") ? o->samples : d->label ? COLUMNS : 10 * COLUMNS;
    int columns = most < COLUMNS ? (int)most : COLUMNS;
    if (tn_data_sheet(d, (int)o->first, (int)most, columns, (int)o->zoom, &sheet, e)) return -1;
    int bad = tn_image_write(o->png, &sheet, e);
    if (!bad && !o->json) printf("  sheet of %d x %d pixels in %s\n", sheet.w, sheet.h, o->png);
    tn_image_free(&sheet);
    return bad;
}

/* --split and --first name samples; -1: there are none such. */
static int check_range(const data_options *o, const char *name, const tn_data *d, tn_err *e) {
    if (!o->samples || o->first < d->n) return 0;
    if (!d->n) return tn_fail(e, "--split: the %s part has no samples", name);
    return tn_fail(e, "--first: %ld is not in 0 ... %d, the samples of the %s part", o->first, d->n - 1,
                   name);
}

/* Samples in the terminal, or the sheet. */
static int show(const data_options *o, const args_rest *rest, const command *cmd, const tn_data *d,
                tn_err *e) {
    tn_augment a;
    tn_tape *tape = NULL;
    tn_data changed;
    int bad = tn_augment_parse(o->augment, &a, e);
    if (bad) return EXIT_USAGE;
    if (d->n && tn_augment_any(&a)) {
        bad = augmented(o, d, &a, &changed, &tape, e);
        d = &changed;
    }
    if (!bad && o->png[0]) bad = write_sheet(o, rest, cmd, d, e);
    if (!bad && !o->png[0] && !o->json) show_samples(o, d);
    tn_tape_free(tape);
    return bad ? EXIT_FAILED : EXIT_OK;
}

static int run_command(const command *cmd, int argc, char **argv) {
    static data_options o;
    args_rest rest;
    tn_err e;
    tn_dataset set;
    int code = args_parse(cmd, &o, argc, argv, &rest);
    if (code >= 0) return code;
    if (rest.n && args_given(cmd, &rest, "data"))
        return args_usage_error(cmd, "--data: '%.60s' is given beside it; one of them", rest.plain[0]);
    if (rest.n && args_set(args_find(cmd->args, "data"), &o, rest.plain[0], &e))
        return args_usage_error(cmd, "%s", e.msg);
    if (args_given(cmd, &rest, "zoom") && !o.png[0]) return args_usage_error(cmd, "--zoom: only with --png");
    if (run_open_data(&o.config, &set, &e)) return app_data_failed(cmd, o.config.data, &e);
    part parts[] = {{"train", &set.train, 0, 0}, {"val", &set.val, 0, 0}, {"test", &set.test, 0, 0}};
    if (check_range(&o, parts[o.split].name, parts[o.split].d, &e)) {
        tn_dataset_free(&set);
        return args_usage_error(cmd, "%s", e.msg);
    }
    for (int i = 0; i < 3; i++) measure(&parts[i]);
    unsigned char *mask = malloc(set.train.len);
    int lit = mask ? tn_never_lit(&set.train, mask) : 0;
    free(mask);
    if (o.json)
        show_json(&set, parts, lit);
    else
        show_numbers(&set, parts, lit);
    code = show(&o, &rest, cmd, parts[o.split].d, &e);
    tn_dataset_free(&set);
    return code == EXIT_USAGE ? args_usage_error(cmd, "%s", e.msg) : code ? args_failed(cmd, &e) : EXIT_OK;
}

const command cmd_data = {"data",
                          "Show what a data set holds, with pictures of samples.",
                          "[WHERE] [options]",
                          "  tern data --data images:photos,height=32,width=32,color=rgb --val-size 0\n"
                          "  tern data --png sheet.png --zoom 2 --augment rotate=15,elastic=1\n",
                          rows,
                          1,
                          run_command};
