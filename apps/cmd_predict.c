/* SPDX-License-Identifier: MIT */
/* tern predict: what a trained model sees in pictures. */
#include "commands.h"
#include "rundir.h"
#include "terminal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { AS_AUTO, AS_DIGIT, AS_PICTURE };
typedef struct {
    char checkpoint[CONFIG_PATH], model[CONFIG_SPEC];
    long top, threads;
    int as, raw, quiet, json;
} predict_options;

static const arg rows[] = {
    ARG_TEXT(predict_options, checkpoint, "checkpoint", "RUN|FILE", "",
             "a run (its last.safetensors) or a safetensors file"),
    ARG_TEXT(predict_options, model, "model", "SPEC", "",
             "model of a file that tern did not write: 28x28 pixels in [0, 1], 10 classes"),
    ARG_WORD(
        predict_options, as, "as", "auto|digit|picture", AS_AUTO,
        "prepare a picture as MNIST's digits are, or stretch it to the model's size; auto: picture for a "
        "model that was trained on a folder of pictures, else digit"),
    ARG_FLAG(predict_options, raw, "raw", "take the pixels as they are; the size must be the model's"),
    ARG_INT(predict_options, top, "top", 10, 1, INT_MAX,
            "classes to show of each picture, the most probable first"),
    ARG_INT(predict_options, threads, "threads", 0, 0, 64, "threads, 64 at most; 0: one a core"),
    ARG_FLAG(predict_options, quiet, "quiet", "one line a picture: file, class, probability"),
    ARG_FLAG(predict_options, json, "json", "as JSON, with the probabilities of all classes"),
    ARG_END};

typedef struct {
    const predict_options *o;
    weights_head head;
    tn_model *model;
    tn_tape *tape;
    double *p;  /* probabilities */
    int *order; /* classes, the most probable first */
    unsigned char *x;
    tn_data d; /* the prepared picture */
} predictor;

/* ---- The model ------------------------------------------------------------------------------------------------ */

static int check_input(const predictor *p, tn_err *e) {
    const tn_model_shape *s = &p->head.shape;
    int c = s->nd == 3 ? s->dim[0] : 1, h = s->nd < 2 ? 0 : s->dim[s->nd - 2],
        w = s->nd < 2 ? 0 : s->dim[s->nd - 1];
    if (s->nd < 2 || (c != 1 && c != 3))
        return tn_fail(e, "%s: its model takes no pictures in grey or colour", p->head.path);
    if (p->o->raw || p->o->as == AS_PICTURE || (p->o->as == AS_AUTO && p->head.class_name)) return 0;
    if (c != 1 || h != TN_DIGIT_SIDE || w != TN_DIGIT_SIDE)
        return tn_fail(e, "%s: its model takes no digits of 28x28 pixels in grey; try --as picture",
                       p->head.path);
    return 0;
}

/* -2: what the user wrote is wrong. */
static int open_model(predictor *p, tn_err *e) {
    const char *spec = p->o->model[0] ? p->o->model : p->head.model;
    char note[512] = "";
    if (!p->head.model[0]) {
        if (!*spec) return tn_fail(e, "%s: says nothing of its model; name it with --model", p->head.path);
        p->head.shape = (tn_model_shape){3, {1, TN_DIGIT_SIDE, TN_DIGIT_SIDE}, 10};
        p->head.scale = 1.0 / 255;
    }
    if (check_input(p, e)) return -1;
    if (!(p->model = tn_model_new(spec, &p->head.shape, 0, e))) return p->o->model[0] ? -2 : -1;
    if (tn_load_weights(p->head.path, p->model->params, note, sizeof note, e)) return -1;
    if (note[0] && !p->o->quiet) fprintf(stderr, "tern predict: %s\n", note);
    size_t n = (size_t)p->head.shape.outputs, len = 1;
    for (int i = 0; i < p->head.shape.nd; i++) len *= (size_t)p->head.shape.dim[i];
    p->p = malloc(n * sizeof *p->p);
    p->order = malloc(n * sizeof *p->order);
    p->x = malloc(len);
    if (!p->p || !p->order || !p->x) return tn_fail(e, "not enough memory for a picture");
    return (p->tape = tn_tape_new(e)) ? 0 : -1;
}

static void close_model(predictor *p) {
    tn_tape_free(p->tape);
    tn_model_free(p->model);
    app_weights_head_free(&p->head);
    free(p->p);
    free(p->order);
    free(p->x);
}

/* ---- One picture ------------------------------------------------------------------------------------------------- */

/* Channels first, as the model takes them. */
static void take_pixels(predictor *p, const tn_image *i) {
    size_t plane = (size_t)i->h * (size_t)i->w, c = (size_t)i->c;
    for (size_t j = 0; j < plane * c; j++) p->x[j % c * plane + j / c] = i->x[j];
}

static int fit_image(predictor *p, const tn_image *i, const char *file, tn_err *e) {
    const tn_model_shape *s = &p->head.shape;
    int h = s->dim[s->nd - 2], w = s->dim[s->nd - 1];
    tn_image small;
    if (p->o->raw && (i->h != h || i->w != w))
        return tn_fail(e, "%s: has %d x %d pixels; with --raw it must have the model's %d x %d", file, i->w,
                       i->h, w, h);
    if (!p->o->raw && (p->o->as == AS_DIGIT || (p->o->as == AS_AUTO && !p->head.class_name)))
        return tn_image_digit(i, file, p->x, e);
    if (tn_image_resize(i, h, w, &small, e)) return -1;
    take_pixels(p, &small);
    tn_image_free(&small);
    return 0;
}

static int prepare(predictor *p, const char *file, tn_err *e) {
    const tn_model_shape *s = &p->head.shape;
    const int label = 0;
    int digit = !p->o->raw && !(p->o->as == AS_PICTURE || (p->o->as == AS_AUTO && p->head.class_name));
    tn_image full;
    if (tn_image_read(file, s->nd == 3 ? s->dim[0] : 1, digit ? TN_IMAGE_CONTRAST : 0, &full, e)) return -1;
    int bad = fit_image(p, &full, file, e);
    tn_image_free(&full);
    if (bad || tn_data_from_arrays(&p->d, 1, s->nd, s->dim, TN_U8, p->x, &label, 2, NULL, 0, e)) return -1;
    p->d.scale = p->head.scale;
    p->d.shift = p->head.shift;
    return 0;
}

/* Probabilities from the model's outputs: softmax, the largest taken off first. */
static int predict(predictor *p, const char *file, tn_err *e) {
    int n = p->head.shape.outputs;
    tn_tape_reset(p->tape);
    tn_record(p->tape, 0);
    tn_t *y = tn_forward(p->model, tn_batch_input(p->tape, &p->d, 1, NULL, 0));
    double most = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) {
        if (isnan(y->x[i])) return tn_fail(e, "%s: the model's output is not a number", file);
        if ((double)y->x[i] > most) most = (double)y->x[i];
    }
    for (int i = 0; i < n; i++) sum += p->p[i] = exp((double)y->x[i] - most);
    for (int i = 0; i < n; i++) {
        int at = i;
        p->p[i] /= sum;
        for (; at > 0 && p->p[p->order[at - 1]] < p->p[i]; at--) p->order[at] = p->order[at - 1];
        p->order[at] = i;
    }
    return 0;
}

/* ---- Showing it -------------------------------------------------------------------------------------------------- */

static const char *class_text(const predictor *p, int c, char out[TN_MAX_NAME]) {
    if (p->head.class_name)
        snprintf(out, TN_MAX_NAME, "%s", p->head.class_name[c]);
    else
        snprintf(out, TN_MAX_NAME, "%d", c);
    return out;
}

/* Characters, not bytes: names are UTF-8. */
static int text_width(const char *s) {
    int n = 0;
    for (; *s; s++) n += (*s & 0xc0) != 0x80;
    return n;
}

static void show_table(const predictor *p) {
    enum { BAR = 30 };
    char name[TN_MAX_NAME];
    int n = p->head.shape.outputs < p->o->top ? p->head.shape.outputs : (int)p->o->top, wide = 5;
    for (int i = 0; i < n; i++) {
        int w = text_width(class_text(p, p->order[i], name));
        if (w > wide) wide = w;
    }
    printf("  class%*s  probability\n", wide - 5, "");
    for (int i = 0; i < n; i++) {
        double v = p->p[p->order[i]];
        class_text(p, p->order[i], name);
        printf("  %*s%s %11.2f%%", wide - text_width(name), "", name, 100 * v);
        int bar = (int)(BAR * v + 0.5);
        if (bar) printf("  %.*s", bar, "##############################");
        putchar('\n');
    }
}

static void show(const predictor *p, const char *file, int number) {
    static char picture[1 << 18];
    char name[TN_MAX_NAME];
    int best = p->order[0];
    if (p->o->quiet) {
        printf("%s: %s %.2f%%\n", file, class_text(p, best, name), 100 * p->p[best]);
        return;
    }
    printf("%s%s: %s (%.2f%%)\n", number ? "\n" : "", file, class_text(p, best, name), 100 * p->p[best]);
    if (tn_data_picture(&p->d, 0, term_columns(STDOUT_FILENO, 80), term_unicode(), picture, sizeof picture)
        >= 0)
        fputs(picture, stdout);
    show_table(p);
}

/* A file's name need not be UTF-8; JSON is. */
static json_t *file_json(const char *file) {
    json_t *j = json_string(file);
    return j ? j : json_null();
}

static json_t *as_json(const predictor *p, const char *file) {
    char name[TN_MAX_NAME];
    json_t *all = json_object();
    for (int i = 0; i < p->head.shape.outputs; i++)
        json_object_set_new(all, class_text(p, i, name), json_number(p->p[i]));
    return json_pack("{s:o, s:i, s:s, s:o, s:o}", "file", file_json(file), "label", p->order[0], "class",
                     class_text(p, p->order[0], name), "probability", json_number(p->p[p->order[0]]),
                     "probabilities", all);
}

static int predict_all(const command *cmd, predictor *p, const args_rest *rest) {
    json_t *list = json_array();
    int failed = 0;
    tn_err e;
    for (int i = 0; i < rest->n; i++) {
        const char *file = rest->plain[i];
        if (prepare(p, file, &e) || predict(p, file, &e)) {
            args_failed(cmd, &e);
            json_array_append_new(
                list, json_pack("{s:o, s:o}", "file", file_json(file), "error", file_json(e.msg)));
            failed++;
        } else if (p->o->json)
            json_array_append_new(list, as_json(p, file));
        else
            show(p, file, i - failed);
    }
    if (p->o->json) json_dumpf(list, stdout, JSON_INDENT(2)), putchar('\n');
    json_decref(list);
    return failed ? EXIT_FAILED : EXIT_OK;
}

static int run_command(const command *cmd, int argc, char **argv) {
    static predict_options o;
    static args_rest rest;
    predictor p = {.o = &o};
    tn_err e;
    int code = args_parse(cmd, &o, argc, argv, &rest);
    if (code >= 0) return code;
    if (!o.checkpoint[0]) return args_usage_error(cmd, "--checkpoint: name a run or a safetensors file");
    if (!rest.n) return args_usage_error(cmd, "name one or more pictures");
    if (o.raw && o.as != AS_AUTO) return args_usage_error(cmd, "--as: --raw takes the pixels as they are");
    app_threads(o.threads);
    if (app_weights_head(o.checkpoint, &p.head, &e)) return args_failed(cmd, &e);
    if (o.model[0] && p.head.model[0]) {
        app_weights_head_free(&p.head);
        return args_usage_error(cmd, "--model: the file says itself what its model is");
    }
    code = open_model(&p, &e);
    code = code == -2 ? args_usage_error(cmd, "%s", e.msg)
           : code     ? args_failed(cmd, &e)
                      : predict_all(cmd, &p, &rest);
    close_model(&p);
    return code;
}

const command cmd_predict = {
    "predict",
    "Classify pictures with a trained model.",
    "--checkpoint RUN|FILE [options] IMAGE...",
    "PNG, JPEG, BMP, GIF or PNM. A drawn, scanned or photographed digit is made like\n"
    "those of MNIST: ground and ink are told apart, specks removed, the ink cropped,\n"
    "scaled into 20x20 pixels and centred by mass in 28x28. What the model sees is\n"
    "shown. A picture that cannot be read is named, the others are done all the\n"
    "same; the exit code is then 1.\n\n"
    "  tern predict --checkpoint runs/mine seven.jpg\n"
    "  tern predict --checkpoint runs/mine --quiet *.png\n",
    rows,
    ARG_MAX_PLAIN,
    run_command};
