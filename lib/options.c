/* SPDX-License-Identifier: MIT */
/*
 * Typed option tables: defaults, strict parsing with range checks, text that parses back, help.
 *
 * Numbers are read and written as in the C locale whatever locale the host program has set, so that a spec
 * means the same everywhere. In a spec a backslash takes the meaning of the next character away, which lets
 * the value of a text option hold a comma.
 */
#include "internal.h"
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_CAP = 40, LONGEST_WORD = 63, PIECE_CAP = TN_MAX_TEXT + 128 };

/* ---- numbers, independent of the locale ---- */

static const char *skip_digits(const char *p, int *n) {
    for (; *p >= '0' && *p <= '9'; p++) ++*n;
    return p;
}

/* Decimal notation only: no blanks, no hexadecimal, no "inf" or "nan". */
static int looks_like_number(const char *p) {
    int mantissa = 0, exponent = 0;
    if (*p == '+' || *p == '-') p++;
    p = skip_digits(p, &mantissa);
    if (*p == '.') p = skip_digits(p + 1, &mantissa);
    if (!mantissa) return 0;
    if (*p == 'e' || *p == 'E') {
        p++;
        if (*p == '+' || *p == '-') p++;
        p = skip_digits(p, &exponent);
        if (!exponent) return 0;
    }
    return *p == 0;
}

/* NULL: *v is set. Otherwise what is wrong with the text. */
static const char *read_real(const char *text, double *v) {
    char buf[2 * TN_MAX_TEXT];
    const char *point = strchr(text, '.');
    if (!looks_like_number(text) || strlen(text) >= TN_MAX_TEXT) return "is not a number";
    if (point)
        snprintf(buf, sizeof buf, "%.*s%s%s", (int)(point - text), text, localeconv()->decimal_point,
                 point + 1);
    else
        snprintf(buf, sizeof buf, "%s", text);
    int before = errno;
    errno = 0;
    *v = strtod(buf, NULL);
    int range = errno == ERANGE;
    errno = before;
    if (!isfinite(*v)) return "is too large for a number";
    return range && *v == 0 ? "is too small for a number" : NULL;
}

static const char *read_whole(const char *text, long *v) {
    int digits = 0;
    const char *end = skip_digits(text + (*text == '-' || *text == '+'), &digits);
    if (!digits || *end) return "is not a whole number";
    int before = errno;
    errno = 0;
    *v = strtol(text, NULL, 10);
    int range = errno == ERANGE;
    errno = before;
    return range ? "is too large for a whole number" : NULL;
}

/* The shortest of the %.6g ... %.17g that read back to the same double, with a plain exponent: "1e-8". */
static void write_real(double v, char out[NUMBER_CAP]) {
    char buf[NUMBER_CAP];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(buf, sizeof buf, "%.*g", digits, v);
        if (strtod(buf, NULL) == v) break;
    }
    const char *point = localeconv()->decimal_point, *at = strstr(buf, point), *from = buf;
    char *to = out;
    for (; *from && *from != 'e'; from++) {
        if (from == at) {
            *to++ = '.';
            from += strlen(point) - 1;
        } else {
            *to++ = *from;
        }
    }
    if (*from == 'e') {
        *to++ = *from++;
        if (*from == '-') *to++ = *from;
        from++;
        while (*from == '0') from++;
        while (*from) *to++ = *from++;
    }
    *to = 0;
}

/* ---- text ---- */

typedef struct {
    char *p;
    size_t cap, at;
    int full; /* 1: something did not fit */
} text_out;

static void put(text_out *t, const char *fmt, ...) TN_PRINTF(2, 3);
static void put(text_out *t, const char *fmt, ...) {
    va_list ap;
    if (t->full) return;
    va_start(ap, fmt);
    int n = vsnprintf(t->p + t->at, t->cap - t->at, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= t->cap - t->at) {
        t->p[t->at] = 0;
        t->full = 1;
        return;
    }
    t->at += (size_t)n;
}

static text_out text_into(char *p, size_t cap) {
    if (cap) *p = 0;
    return (text_out){p, cap, 0, cap == 0};
}

static int text_end(const text_out *t) {
    return t->full ? -1 : (int)t->at;
}

/* The index-th of "a|b|c" and its length; NULL beyond the last. */
static const char *nth_word(const char *words, int index, int *len) {
    for (; words; index--) {
        const char *bar = strchr(words, '|');
        *len = bar ? (int)(bar - words) : (int)strlen(words);
        if (index == 0) return words;
        words = bar ? bar + 1 : NULL;
    }
    return NULL;
}

/* "a, b or c" */
static void put_words(text_out *t, const char *words) {
    const char *w;
    int len, more;
    for (int i = 0; (w = nth_word(words, i, &len)); i++) {
        const char *after = nth_word(words, i + 1, &more) ? ", " : " or ";
        put(t, "%s%.*s", i ? after : "", len, w);
    }
}

static void put_number(text_out *t, const tn_opt *o, double v) {
    char num[NUMBER_CAP];
    if (o->type == TN_INT_OPT) {
        put(t, "%.0f", v);
        return;
    }
    write_real(v, num);
    put(t, "%s", num);
}

/* "0 <= beta1 < 1"; nothing where there is no bound. */
static void put_range(text_out *t, const tn_opt *o) {
    if (isfinite(o->min)) {
        put_number(t, o, o->min);
        put(t, o->flags & TN_OPEN_MIN ? " < " : " <= ");
    }
    if (isfinite(o->min) || isfinite(o->max)) put(t, "%s", o->type == TN_LIST_OPT ? "each" : o->name);
    if (isfinite(o->max)) {
        put(t, o->flags & TN_OPEN_MAX ? " < " : " <= ");
        put_number(t, o, o->max);
    }
}

/* ---- the nearest name ---- */

/* Insertions, deletions, changes and swaps of neighbours, in any case; neither is over LONGEST_WORD. */
static int edit_distance(const char *a, const char *b) {
    int d[3][LONGEST_WORD + 1], na = (int)strlen(a), nb = (int)strlen(b);
    for (int j = 0; j <= nb; j++) d[0][j] = j;
    for (int i = 1; i <= na; i++) {
        int *now = d[i % 3], *above = d[(i + 2) % 3], *above2 = d[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= nb; j++) {
            int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);
            now[j] = tn_least(tn_least(above[j], now[j - 1]) + 1, above[j - 1] + (x != y));
            if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2])
                && y == tolower((unsigned char)a[i - 2]))
                now[j] = tn_least(now[j], above2[j - 2] + 1);
        }
    }
    return d[na % 3][nb];
}

const char *tn_nearest(const char *word, int n, const char *const words[]) {
    const char *best = NULL;
    int best_distance = INT_MAX, len = (int)strlen(word);
    if (len == 0 || len > LONGEST_WORD) return NULL;
    for (int i = 0; i < n; i++) {
        int other = (int)strlen(words[i]);
        if (other > LONGEST_WORD) continue;
        int longer = len > other ? len : other, shorter = tn_least(len, other);
        int d = edit_distance(word, words[i]), limit = tn_least(longer < 6 ? 1 : longer / 3, shorter);
        /* A name cut short or spelled out ("cos", "step_size" for "size") is near as well. */
        if (d > limit && shorter >= 3 && (strstr(words[i], word) || strstr(word, words[i]))) d = limit;
        if (d <= limit && d < best_distance) {
            best = words[i];
            best_distance = d;
        }
    }
    return best;
}

/* ---- setting values ---- */

static int count_rows(const tn_opt *opts) {
    int n = 0;
    while (opts[n].name) n++;
    return n;
}

static int find_row(const tn_opt *opts, const char *key) {
    for (int i = 0; opts[i].name; i++)
        if (!strcmp(opts[i].name, key)) return i;
    return -1;
}

static int unknown_key(const tn_opt *opts, const char *key, const char *what, tn_err *e) {
    const char *names[TN_MAX_OPTS] = {NULL};
    char list[256], hint[TN_MAX_TEXT] = "";
    int n = tn_least(count_rows(opts), TN_MAX_OPTS);
    text_out t = text_into(list, sizeof list);
    for (int i = 0; i < n; i++) put(&t, "%s%s", i ? ", " : "", names[i] = opts[i].name);
    const char *near = tn_nearest(key, n, names);
    if (near) snprintf(hint, sizeof hint, " (did you mean \"%s\"?)", near);
    if (n == 0) return tn_fail(e, "%s: unknown option \"%.60s\"; it has none", what, key);
    return tn_fail(e, "%s: unknown option \"%.60s\"%s; its options are %s", what, key, hint, list);
}

static int out_of_range(const tn_opt *o, const char *value, const char *what, tn_err *e) {
    char range[160];
    text_out t = text_into(range, sizeof range);
    put_range(&t, o);
    return tn_fail(e, "%s: %s=%.60s is out of range; it must be %s", what, o->name, value, range);
}

static int in_range(const tn_opt *o, double v) {
    return (o->flags & TN_OPEN_MIN ? v > o->min : v >= o->min)
           && (o->flags & TN_OPEN_MAX ? v < o->max : v <= o->max);
}

static int bad_number(const tn_opt *o, const char *text, const char *wrong, const char *what, tn_err *e) {
    char range[160];
    text_out t = text_into(range, sizeof range);
    put_range(&t, o);
    return tn_fail(e, "%s: %s: \"%.60s\" %s%s%s", what, o->name, text, wrong, t.at ? "; it must be " : "",
                   range);
}

static int set_real(const tn_opt *o, double *dst, const char *text, const char *what, tn_err *e) {
    double v;
    const char *wrong = read_real(text, &v);
    if (wrong) return bad_number(o, text, wrong, what, e);
    if (!in_range(o, v)) return out_of_range(o, text, what, e);
    *dst = v;
    return 0;
}

static int set_whole(const tn_opt *o, long *dst, const char *text, const char *what, tn_err *e) {
    long v;
    const char *wrong = read_whole(text, &v);
    if (wrong) return bad_number(o, text, wrong, what, e);
    if (!in_range(o, (double)v)) return out_of_range(o, text, what, e);
    *dst = v;
    return 0;
}

static int set_word(const tn_opt *o, int *dst, const char *text, const char *what, tn_err *e) {
    char list[256], copy[TN_MAX_OPTS][LONGEST_WORD + 1], hint[TN_MAX_TEXT] = "";
    const char *w, *names[TN_MAX_OPTS] = {NULL};
    int len, n = 0;
    for (; n < TN_MAX_OPTS && (w = nth_word(o->text, n, &len)); n++) {
        if ((size_t)len == strlen(text) && !memcmp(w, text, (size_t)len)) {
            *dst = n;
            return 0;
        }
        snprintf(copy[n], sizeof copy[n], "%.*s", len, w);
        names[n] = copy[n];
    }
    const char *near = tn_nearest(text, n, names);
    if (near) snprintf(hint, sizeof hint, " (did you mean \"%s\"?)", near);
    text_out t = text_into(list, sizeof list);
    put_words(&t, o->text);
    return tn_fail(e, "%s: %s=%.60s is not possible%s; it must be %s", what, o->name, text, hint, list);
}

static int set_list(const tn_opt *o, tn_list *dst, const char *text, const char *what, tn_err *e) {
    tn_list list = {0};
    if (*text == 0 && *o->text) return tn_fail(e, "%s: %s= needs numbers separated by '/'", what, o->name);
    for (const char *p = text; *text && p; list.n++) {
        char one[TN_MAX_TEXT];
        const char *slash = strchr(p, '/');
        int len = slash ? (int)(slash - p) : (int)strlen(p);
        if (list.n == TN_MAX_LIST)
            return tn_fail(e, "%s: %s has more than %d numbers, which is the most it can hold", what, o->name,
                           TN_MAX_LIST);
        if (len == 0) return tn_fail(e, "%s: %s=%.60s has an empty element", what, o->name, text);
        snprintf(one, sizeof one, "%.*s", len, p);
        if (set_real(o, &list.v[list.n], one, what, e)) return -1;
        p = slash ? slash + 1 : NULL;
    }
    *dst = list;
    return 0;
}

static int set_row(const tn_opt *o, void *dst, const char *value, const char *what, tn_err *e) {
    void *field = (char *)dst + o->offset;
    if (strlen(value) >= TN_MAX_TEXT)
        return tn_fail(e, "%s: the value of %s is longer than %d bytes", what, o->name, TN_MAX_TEXT - 1);
    if (*value == 0 && o->type != TN_TEXT_OPT && o->type != TN_LIST_OPT)
        return tn_fail(e, "%s: %s= needs a value", what, o->name);
    switch (o->type) {
    case TN_REAL_OPT:
        return set_real(o, field, value, what, e);
    case TN_INT_OPT:
        return set_whole(o, field, value, what, e);
    case TN_BOOL_OPT:
    case TN_WORD_OPT:
        return set_word(o, field, value, what, e);
    case TN_LIST_OPT:
        return set_list(o, field, value, what, e);
    case TN_TEXT_OPT:
        strcpy(field, value);
        return 0;
    }
    return tn_fail(e, "%s: %s has a type that this version does not know", what, o->name);
}

void tn_opts_default(const tn_opt *opts, void *dst) {
    for (const tn_opt *o = opts; o->name; o++) {
        void *field = (char *)dst + o->offset;
        tn_err e;
        switch (o->type) {
        case TN_REAL_OPT:
            *(double *)field = o->def;
            break;
        case TN_INT_OPT:
            *(long *)field = (long)o->def;
            break;
        case TN_BOOL_OPT:
        case TN_WORD_OPT:
            *(int *)field = (int)o->def;
            break;
        case TN_TEXT_OPT:
        case TN_LIST_OPT:
            TN_CHECK(NULL, !set_row(o, dst, o->text, "default", &e), "%s", e.msg);
            break;
        }
    }
}

int tn_opts_set(const tn_opt *opts, void *dst, const char *key, const char *value, const char *what,
                tn_err *e) {
    int row = find_row(opts, key);
    return row < 0 ? unknown_key(opts, key, what, e) : set_row(&opts[row], dst, value, what, e);
}

/* Copies up to an unescaped comma or the end, without the escapes; *more says which. NULL: too long. */
static const char *next_piece(const char *p, char piece[PIECE_CAP], int *more) {
    size_t n = 0;
    for (; *p && *p != ','; p++) {
        if (*p == '\\' && p[1]) p++;
        if (n + 1 == PIECE_CAP) return NULL;
        piece[n++] = *p;
    }
    piece[n] = 0;
    *more = *p == ',';
    return p + *more;
}

int tn_opts_parse(const tn_opt *opts, void *dst, const char *text, const char *what, uint64_t *given,
                  tn_err *e) {
    char piece[PIECE_CAP];
    uint64_t seen = 0;
    int more = text && *text;
    while (more) {
        if (!(text = next_piece(text, piece, &more)))
            return tn_fail(e, "%s: an option is longer than %d bytes", what, PIECE_CAP - 1);
        char *equals = strchr(piece, '=');
        if (!*piece)
            return tn_fail(e, "%s: an option is missing beside a comma; options are key=value,...", what);
        if (equals) *equals = 0;
        int row = find_row(opts, piece);
        if (row < 0) return unknown_key(opts, piece, what, e);
        if (!equals) return tn_fail(e, "%s: option %s needs a value: %s=...", what, piece, piece);
        if (seen >> row & 1) return tn_fail(e, "%s: %s is given twice", what, piece);
        if (set_row(&opts[row], dst, equals + 1, what, e)) return -1;
        seen |= (uint64_t)1 << row;
    }
    if (given) *given = seen;
    return 0;
}

/* ---- values as text ---- */

static void put_list(text_out *t, const tn_list *list) {
    char num[NUMBER_CAP];
    for (int i = 0; i < list->n; i++) {
        write_real(list->v[i], num);
        put(t, "%s%s", i ? "/" : "", num);
    }
}

static void put_value(text_out *t, const tn_opt *o, const void *src) {
    const void *field = (const char *)src + o->offset;
    const char *w;
    int len;
    switch (o->type) {
    case TN_REAL_OPT:
        put_number(t, o, *(const double *)field);
        break;
    case TN_INT_OPT:
        put(t, "%ld", *(const long *)field);
        break;
    case TN_BOOL_OPT:
    case TN_WORD_OPT:
        w = nth_word(o->text, *(const int *)field, &len);
        TN_CHECK(NULL, w, "option %s holds %d, which is none of its words", o->name, *(const int *)field);
        put(t, "%.*s", len, w);
        break;
    case TN_LIST_OPT:
        put_list(t, field);
        break;
    case TN_TEXT_OPT:
        put(t, "%s", (const char *)field);
        break;
    }
}

static int is_default(const tn_opt *o, const void *src) {
    const void *field = (const char *)src + o->offset;
    tn_list def = {0};
    tn_opt row = *o;
    switch (o->type) {
    case TN_REAL_OPT:
        return *(const double *)field == o->def;
    case TN_INT_OPT:
        return *(const long *)field == (long)o->def;
    case TN_BOOL_OPT:
    case TN_WORD_OPT:
        return *(const int *)field == (int)o->def;
    case TN_TEXT_OPT:
        return !strcmp(field, o->text);
    case TN_LIST_OPT:
        break;
    }
    row.offset = 0;
    tn_opts_default((tn_opt[]){row, TN_OPT_END}, &def);
    const tn_list *list = field;
    return list->n == def.n && !memcmp(list->v, def.v, (size_t)def.n * sizeof *def.v);
}

int tn_opt_value(const tn_opt *o, const void *src, char *out, size_t cap) {
    text_out t = text_into(out, cap);
    put_value(&t, o, src);
    return text_end(&t);
}

int tn_opts_text(const tn_opt *opts, const void *src, int all, char *out, size_t cap) {
    text_out t = text_into(out, cap);
    for (const tn_opt *o = opts; o->name; o++) {
        if (!all && is_default(o, src)) continue;
        put(&t, "%s%s=", t.at ? "," : "", o->name);
        if (o->type != TN_TEXT_OPT) {
            put_value(&t, o, src);
            continue;
        }
        for (const char *p = (const char *)src + o->offset; *p; p++)
            put(&t, "%s%c", *p == ',' || *p == '\\' ? "\\" : "", *p);
    }
    return text_end(&t);
}

/* ---- help ---- */

static void put_default(text_out *t, const tn_opt *o) {
    const char *w;
    int len;
    if (o->type == TN_TEXT_OPT || o->type == TN_LIST_OPT) {
        put(t, "%s", o->text);
    } else if (o->text && (w = nth_word(o->text, (int)o->def, &len))) {
        put(t, "%.*s", len, w);
    } else {
        put_number(t, o, o->def);
    }
}

/* Words from column `from` to 80, also in the lines that follow; '\1' is a space where no line may end. */
static void put_wrapped(FILE *f, const char *text, int from, int at) {
    while (*text) {
        int len = (int)strcspn(text, " ");
        if (at > from && at + 1 + len > 80) {
            fprintf(f, "\n%*s", from, "");
            at = from;
        } else if (at > from) {
            fputc(' ', f);
            at++;
        }
        at += len;
        for (; len; len--, text++) fputc(*text == '\1' ? ' ' : *text, f);
        text += strspn(text, " ");
    }
    fputc('\n', f);
}

static void help_left(const tn_opt *o, char *out, size_t cap) {
    text_out t = text_into(out, cap);
    put(&t, "%s=", o->name);
    put_default(&t, o);
}

void tn_opts_help(const tn_opt *opts, FILE *f, const char *indent) {
    enum { WIDEST = 26 };
    char left[TN_MAX_TEXT + TN_MAX_NAME], right[1024];
    int width = 0;
    for (const tn_opt *o = opts; o->name; o++) {
        help_left(o, left, sizeof left);
        int len = (int)strlen(left);
        if (len <= WIDEST && len > width) width = len;
    }
    int from = (int)strlen(indent) + width + 2;
    for (const tn_opt *o = opts; o->name; o++) {
        text_out t = text_into(right, sizeof right);
        put(&t, "%s (", o->help);
        size_t from_here = t.at;
        if (o->type == TN_WORD_OPT || o->type == TN_BOOL_OPT)
            put_words(&t, o->text);
        else if (o->type != TN_TEXT_OPT)
            put_range(&t, o);
        for (char *p = right + from_here; o->type != TN_WORD_OPT && *p; p++)
            if (*p == ' ') *p = '\1';
        if (right[t.at - 1] == '(')
            right[t.at -= 2] = 0; /* there was nothing to say about the range */
        else
            put(&t, ")");
        help_left(o, left, sizeof left);
        int len = (int)strlen(left);
        fprintf(f, "%s%s%*s", indent, left, len > width ? 0 : width + 2 - len, "");
        if (len > width) fprintf(f, "\n%*s", from, "");
        put_wrapped(f, right, from, from);
    }
}

/* ---- specs ---- */

const char *tn_spec_split(const char *spec, char *name, size_t cap) {
    size_t len = strcspn(spec, ":");
    snprintf(name, cap, "%.*s", (int)len, spec);
    return spec[len] ? spec + len + 1 : spec + len;
}
