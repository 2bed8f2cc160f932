/* SPDX-License-Identifier: MIT */
/* The help of a command, from its table. */
#include "args.h"
#include <string.h>

enum { WIDTH = 80 };

/* How much of a word of n bytes goes on one line of at most room: all, or up to the last comma that fits, or all. */
static int piece(const char *word, int n, int room) {
    if (n <= room) return n;
    int k = room;
    while (k > 0 && word[k - 1] != ',') k--;
    if (k) return k;
    k = (int)strcspn(word, ",") + 1;
    return k < n ? k : n;
}

void args_wrapped(FILE *f, const char *text, int at, int indent) {
    int space = 0; /* between the last piece and the next */
    while (*text) {
        int n = piece(text, (int)strcspn(text, " "), WIDTH - indent);
        if (at > indent && at + space + n > WIDTH) {
            fprintf(f, "\n%*s", indent, "");
            at = indent;
        } else if (space) {
            fputc(' ', f);
            at++;
        }
        fprintf(f, "%.*s", n, text);
        at += n;
        text += n;
        space = *text == ' ';
        text += strspn(text, " ");
    }
    fputc('\n', f);
}

static void show_default(const arg *r, char *out, size_t cap) {
    char text[64] = "";
    int index = (int)r->def;
    switch (r->type) {
    case ARG_INT_T:
    case ARG_REAL_T:
        snprintf(text, sizeof text, "%g", r->def);
        break;
    case ARG_TEXT_T:
    case ARG_WORD_TEXT_T:
        snprintf(text, sizeof text, "%s", r->text);
        break;
    case ARG_WORD_T: {
        const char *w = r->words;
        for (; index > 0; index--) w += strcspn(w, "|") + 1;
        snprintf(text, sizeof text, "%.*s", (int)strcspn(w, "|"), w);
        break;
    }
    case ARG_FLAG_T:
    case ARG_MANY_T:
        break;
    }
    snprintf(out, cap, "%s%s%s", text[0] ? " [" : "", text, text[0] ? "]" : "");
}

void args_help(const command *c, FILE *f) {
    enum { COLUMN = 28 };
    fprintf(f, "usage: tern %s %s\n\n", c->name, c->usage);
    args_wrapped(f, c->summary, 0, 0);
    if (c->args && c->args->name) fprintf(f, "\noptions [default]:\n");
    for (const arg *r = c->args; r && r->name; r++) {
        char left[96], def[80], text[512];
        const char *value = r->words ? r->words : r->metavar;
        snprintf(left, sizeof left, "  --%s%s%s", r->name, value ? " " : "", value ? value : "");
        show_default(r, def, sizeof def);
        snprintf(text, sizeof text, "%s%s", r->help, def);
        int n = fprintf(f, "%-*s", COLUMN - 1, left);
        if (n >= COLUMN) fprintf(f, "\n%*s", COLUMN - 1, "");
        fputc(' ', f);
        args_wrapped(f, text, COLUMN, COLUMN);
    }
    fprintf(f, "%-*s this text\n", COLUMN - 1, "  --help");
    if (c->detail) fprintf(f, "\n%s", c->detail);
}
