/* SPDX-License-Identifier: MIT */
/*
 * Optimizers from files in a run's configuration: config.json names them by their full path; the run's identity has
 * their hash, and no folders.
 */
#include "host.h"
#include "run_state.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Every name in a spec that is `from` becomes `to`: at the start, behind a '+', or behind a group's '='. -1: too long. */
static int rename_file(char *text, size_t cap, const char *from, const char *to) {
    size_t n = strlen(from), m = strlen(to);
    for (char *p = text; (p = strstr(p, from)); p++) {
        if ((p > text && p[-1] != '+' && p[-1] != '=') || (p[n] && p[n] != ':' && p[n] != '+')) continue;
        if (strlen(text) - n + m >= cap) return -1;
        memmove(p + m, p + n, strlen(p + n) + 1);
        memcpy(p, to, m);
        p += m - 1;
    }
    return 0;
}

static int too_long(tn_err *e) {
    return tn_fail(e, "a specification is longer than %d bytes", CONFIG_SPEC - 1);
}

static int rename_everywhere(run_config *c, const char *from, const char *to, tn_err *e) {
    if (rename_file(c->optimizer, sizeof c->optimizer, from, to)) return too_long(e);
    for (int i = 0; i < CONFIG_GROUPS && c->group[i][0]; i++)
        if (rename_file(c->group[i], sizeof c->group[i], from, to)) return too_long(e);
    return 0;
}

int run_plugins_resolve(run *r, tn_err *e) {
    run_config *c = &r->config;
    char hex[65];
    const char *file;
    tn_sha256 all;
    c->plugin_hash[0] = 0;
    for (int i = 0; (file = tn_optim_file(r->optim, i)); i++) {
        if (hash_file(file, hex, e)) return -1;
        if (i == 0) tn_sha256_begin(&all);
        tn_sha256_add(&all, hex, 64);
        char *full = realpath(file, NULL);
        int bad = full && rename_everywhere(c, file, full, e);
        free(full);
        if (bad) return -1;
    }
    if (tn_optim_file(r->optim, 0)) tn_sha256_end(&all, c->plugin_hash);
    return 0;
}

int run_plugins_identity(const run *r, run_config *c, tn_err *e) {
    const char *file;
    for (int i = 0; (file = tn_optim_file(r->optim, i)); i++) {
        char *full = realpath(file, NULL);
        const char *slash = full ? strrchr(full, '/') : NULL;
        int bad = slash && rename_everywhere(c, full, slash + 1, e);
        free(full);
        if (bad) return -1;
    }
    return 0;
}
