/* SPDX-License-Identifier: MIT */
/*
 * --from FILE: results that come from anywhere. JSON: {"runs": [...]} or the array alone; CSV (RFC 4180) with a head.
 * Needed: model, optimizer, seed, value (or test_accuracy); what else results.json and results.csv have is taken, too.
 */
#include "compare.h"
#include "rundir.h"
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 64, FILE_BYTES = 1 << 28 };
static const double MARGIN = 0.005;

/* ---- One value of one result ------------------------------------------------------------------------------------- */

typedef enum {
    TEXT,
    WHOLE,
    COUNT,
    TRUTH,
    REAL,
    SHARE
} kind; /* char[] | long | int | int | double | double in [0, 1] */
typedef struct {
    const char *name;
    kind kind;
    size_t offset, size;
    int needed;
} field;

#define FIELD(name, kind, f, needed) \
    { name, kind, offsetof(result, f), sizeof(((result *)0)->f), needed }
static const field fields[] = {
    FIELD("model", TEXT, model, 1),
    FIELD("optimizer", TEXT, optimizer, 1),
    FIELD("seed", WHOLE, seed, 1),
    FIELD("value", SHARE, value, 1),
    FIELD("test_accuracy", SHARE, value, 1), /* the same field under another name */
    FIELD("diverged", TRUTH, diverged, 0),
    FIELD("train_accuracy", REAL, train, 0),
    FIELD("val_accuracy", REAL, val, 0),
    FIELD("test_loss", REAL, loss, 0),
    FIELD("weight_norm", REAL, weight_norm, 0),
    FIELD("never_lit", COUNT, never_lit, 0),
    FIELD("never_lit_norm", REAL, never_lit_norm, 0),
    FIELD("never_lit_norm_start", REAL, never_lit_start, 0),
    FIELD("spec", TEXT, spec, 0),
    FIELD("numeric_mode", TEXT, numeric, 0),
    FIELD("id", TEXT, id, 0),
};
enum { FIELDS = sizeof fields / sizeof *fields };

static const field *find_field(const char *name) {
    for (int i = 0; i < FIELDS; i++)
        if (strcmp(fields[i].name, name) == 0) return &fields[i];
    return NULL;
}

static int set_number(const field *f, void *p, const char *s, const char *where, tn_err *e) {
    char *end;
    errno = 0;
    double v = strtod(s, &end);
    if (!*s && !f->needed) {
        if (f->kind == REAL) *(double *)p = NAN;
        return 0;
    }
    if (end == s || *end) return tn_fail(e, "%s: %s '%.40s' is not a number", where, f->name, s);
    if (f->kind == SHARE && !(v >= 0 && v <= 1))
        return tn_fail(
            e,
            "%s: %s %.40s is not in 0 ... 1; accuracies are fractions, and a diverged run counts with the "
            "accuracy of guessing",
            where, f->name, s);
    if (f->kind == WHOLE || f->kind == COUNT) {
        double most = f->kind == COUNT ? INT_MAX : 9e15;
        if (v != floor(v) || fabs(v) > most)
            return tn_fail(e, "%s: %s '%.40s' is not a whole number in range", where, f->name, s);
    }
    if (f->kind == WHOLE)
        *(long *)p = (long)v;
    else if (f->kind == COUNT)
        *(int *)p = (int)v;
    else
        *(double *)p = v;
    return 0;
}

static int set_field(const field *f, result *r, const char *s, const char *where, tn_err *e) {
    void *p = (char *)r + f->offset;
    if (f->kind == TEXT) {
        if (f->needed && !*s) return tn_fail(e, "%s: %s is empty", where, f->name);
        if (strlen(s) >= f->size)
            return tn_fail(e, "%s: %s is longer than %zu bytes", where, f->name, f->size - 1);
        for (const char *c = s; *c; c++)
            if (iscntrl((unsigned char)*c))
                return tn_fail(e, "%s: %s has control characters", where, f->name);
        strcpy(p, s);
        return 0;
    }
    if (f->kind == TRUTH) {
        if (strcmp(s, "1") && strcmp(s, "0") && strcmp(s, "true") && strcmp(s, "false") && *s)
            return tn_fail(e, "%s: %s '%.40s' is not 0 or 1", where, f->name, s);
        *(int *)p = *s == '1' || *s == 't';
        return 0;
    }
    return set_number(f, p, s, where, e);
}

static result unknown_result(void) {
    return (result){.train = NAN,
                    .val = NAN,
                    .loss = NAN,
                    .weight_norm = NAN,
                    .never_lit_norm = NAN,
                    .never_lit_start = NAN,
                    .seconds = NAN};
}

/* Names of needed fields that seen[] lacks; one of value and test_accuracy will do. */
static int check_needed(const int seen[FIELDS], const char *where, tn_err *e) {
    int value = 0;
    for (int i = 0; i < FIELDS; i++) value |= seen[i] && fields[i].kind == SHARE;
    for (int i = 0; i < FIELDS; i++)
        if (fields[i].needed && !seen[i] && !(fields[i].kind == SHARE && value))
            return tn_fail(e, "%s: has no %s; model, optimizer, seed and value are needed", where,
                           fields[i].name);
    return 0;
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------ */

static int json_text(const json_t *v, char *out, size_t cap) {
    if (json_is_string(v)) return snprintf(out, cap, "%s", json_string_value(v)) < (int)cap ? 0 : -1;
    if (json_is_integer(v))
        snprintf(out, cap, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else if (json_is_real(v))
        snprintf(out, cap, "%.17g", json_real_value(v));
    else if (json_is_boolean(v))
        snprintf(out, cap, "%d", json_is_true(v));
    else if (json_is_null(v))
        out[0] = 0;
    else
        return -1;
    return 0;
}

static int result_from_json(const json_t *j, result *r, const char *where, tn_err *e) {
    int seen[FIELDS] = {0};
    char text[CONFIG_SPEC];
    if (!json_is_object(j)) return tn_fail(e, "%s: is not an object", where);
    for (int i = 0; i < FIELDS; i++) {
        const json_t *v = json_object_get(j, fields[i].name);
        if (!v) continue;
        if (json_text(v, text, sizeof text))
            return tn_fail(e, "%s: %s has a wrong type", where, fields[i].name);
        if (set_field(&fields[i], r, text, where, e)) return -1;
        seen[i] = 1;
    }
    return check_needed(seen, where, e);
}

static void text_from(const json_t *j, const char *key, char *out, size_t cap) {
    const char *s = json_string_value(json_object_get(j, key));
    snprintf(out, cap, "%s", s ? s : "");
}

/* What our own files know about a model beside its results. */
static void models_from_json(comparison *c, const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *j = json_array_get(list, i);
        const json_t *margin = json_object_get(j, "margin");
        char name[COMPARE_LABEL];
        text_from(j, "model", name, sizeof name);
        for (int k = 0; k < c->models; k++) {
            compared_model *m = &c->model[k];
            if (strcmp(m->name, name)) continue;
            text_from(j, "spec", m->spec, sizeof m->spec);
            text_from(j, "training", m->training, sizeof m->training);
            text_from(j, "source", m->source, sizeof m->source);
            if (json_is_number(margin) && json_number_value(margin) >= 0)
                m->margin = json_number_value(margin);
        }
    }
}

static int add_names(comparison *c, tn_err *e) {
    for (int i = 0; i < c->results; i++)
        if (comparison_model(c, c->result[i].model, e) < 0
            || comparison_optimizer(c, c->result[i].optimizer, e) < 0)
            return -1;
    for (int i = 0; i < c->models; i++) c->model[i].margin = MARGIN;
    return 0;
}

static comparison *read_json(const char *path, const char *data, size_t n, tn_err *e) {
    json_error_t why;
    json_t *j = json_loadb(data, n, JSON_REJECT_DUPLICATES, &why);
    const json_t *runs = json_is_array(j) ? j : json_object_get(j, "runs");
    comparison *c = NULL;
    int bad = 1;
    if (!j)
        tn_fail(e, "%s: line %d: %s", path, why.line, why.text);
    else if (!json_is_array(runs))
        tn_fail(e, "%s: has no list \"runs\"", path);
    else if (!(c = comparison_new((int)json_array_size(runs))))
        tn_fail(e, "%s: not enough memory", path);
    else
        bad = 0;
    for (size_t i = 0; !bad && i < json_array_size(runs); i++) {
        char where[CONFIG_PATH + 64];
        snprintf(where, sizeof where, "%s: run %zu", path, i + 1);
        c->result[i] = unknown_result();
        bad = result_from_json(json_array_get(runs, i), &c->result[i], where, e);
        c->results++;
    }
    bad = bad || add_names(c, e);
    if (!bad) models_from_json(c, json_object_get(j, "models"));
    json_int_t test_n = json_integer_value(json_object_get(j, "test_n"));
    if (!bad && test_n > 0 && test_n <= INT_MAX) c->test_n = (long)test_n;
    json_decref(j);
    if (!bad) return c;
    comparison_free(c);
    return NULL;
}

/* ---- CSV ---------------------------------------------------------------------------------------------------------------- */

/* Cuts one record at *at into cells, in place; moves *at behind it. The number of cells; -1: a quote has no end. */
static int cut_record(char **at, char *cell[COLUMNS]) {
    char *p = *at, *out = p;
    int n = 0;
    for (;;) {
        char *start = out;
        if (*p == '"') {
            for (p++; *p && (*p != '"' || p[1] == '"'); p++) {
                p += *p == '"';
                *out++ = *p;
            }
            if (!*p) return -1;
            p++;
        }
        while (*p && *p != ',' && *p != '\n' && *p != '\r') *out++ = *p++;
        char end = *p;
        if (end == '\r' && p[1] == '\n') p++;
        p += end != 0;
        *out++ = 0; /* never beyond p: a separator or the final 0 was just read */
        if (n < COLUMNS) cell[n++] = start;
        if (end != ',') break;
    }
    *at = p;
    return n;
}

static int count_lines(const char *s) {
    int n = 1;
    for (; *s; s++) n += *s == '\n' || *s == '\r';
    return n;
}

static int read_head(const char *path, char **at, const field *column[COLUMNS], tn_err *e) {
    char *cell[COLUMNS];
    int seen[FIELDS] = {0}, n = cut_record(at, cell);
    if (n < 0) return tn_fail(e, "%s: line 1: a quote has no end", path);
    for (int i = 0; i < n; i++) {
        column[i] = find_field(cell[i] + strspn(cell[i], " "));
        if (!column[i]) continue;
        if (seen[column[i] - fields]++)
            return tn_fail(e, "%s: line 1: column %s is there twice", path, cell[i]);
    }
    return check_needed(seen, path, e) ? -1 : n;
}

static comparison *read_csv(const char *path, char *data, tn_err *e) {
    const field *column[COLUMNS] = {NULL};
    if (strncmp(data, "\xef\xbb\xbf", 3) == 0) data += 3; /* a byte order mark */
    comparison *c = comparison_new(count_lines(data));
    if (!c) {
        tn_fail(e, "%s: not enough memory", path);
        return NULL;
    }
    int columns = read_head(path, &data, column, e), bad = columns < 0;
    for (int record = 2; !bad && *data; record++) {
        char *cell[COLUMNS], where[CONFIG_PATH + 64];
        int n = cut_record(&data, cell);
        if (n == 1 && !cell[0][0]) continue; /* an empty line */
        snprintf(where, sizeof where, "%s: record %d", path, record);
        if (n != columns) bad = tn_fail(e, "%s: has %d values, the head %d", where, n, columns);
        result *r = &c->result[c->results];
        *r = unknown_result();
        for (int i = 0; i < columns && !bad; i++)
            if (column[i]) bad = set_field(column[i], r, cell[i], where, e);
        c->results++;
    }
    if (!bad && !add_names(c, e)) return c;
    comparison_free(c);
    return NULL;
}

/* ---- The file -------------------------------------------------------------------------------------------------------------- */

static char *read_whole(const char *path, size_t *n, tn_err *e) {
    FILE *f = fopen(path, "rb");
    size_t cap = 1 << 16;
    char *data = f ? malloc(cap + 1) : NULL;
    int bad = f ? 0 : tn_fail(e, "%s: cannot open: %s", path, strerror(errno));
    *n = 0;
    for (size_t k; data && !bad && (k = fread(data + *n, 1, cap - *n, f)) > 0;) {
        *n += k;
        if (*n < cap) continue;
        char *more = cap < FILE_BYTES ? realloc(data, 2 * cap + 1) : NULL;
        if (!more)
            bad = tn_fail(e, "%s: is too large", path);
        else
            data = more, cap *= 2;
    }
    if (f && !bad && ferror(f)) bad = tn_fail(e, "%s: cannot read: %s", path, strerror(errno));
    if (f && !data) bad = tn_fail(e, "%s: not enough memory", path);
    if (f) fclose(f);
    if (!bad && memchr(data, 0, *n)) bad = tn_fail(e, "%s: is neither JSON nor CSV: it has zero bytes", path);
    if (!bad) data[*n] = 0;
    if (!bad) return data;
    free(data);
    return NULL;
}

comparison *comparison_read(const char *path, double margin, tn_err *e) {
    size_t n;
    char *data = read_whole(path, &n, e);
    if (!data) return NULL;
    const char *first = data + strspn(data, " \t\r\n");
    int json = *first == '{' || *first == '[';
    comparison *c = json ? read_json(path, data, n, e) : read_csv(path, data, e);
    for (int i = 0; c && margin >= 0 && i < c->models; i++) c->model[i].margin = margin;
    free(data);
    return c;
}
