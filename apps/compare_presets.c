/* SPDX-License-Identifier: MIT */
/*
 * The preset table of tern compare. lr and lambda of each optimizer are the best rows of the pilot's table, which the
 * command "tern compare --pilot --models NAME" writes; a test holds the two against each other.
 */
#include "compare.h"
#include <string.h>

const preset presets[] = {
    {.name = "mlp",
     .model = "mlp:hidden=128",
     .training = "--schedule cosine --epochs 40 --batch 32 --train-size 1000 --label-noise 0.2",
     .adam = "adam:lr=0.000238",
     .adaml2 = "adaml2:lr=0.0064,weight_decay=0.016",
     .adamw = "adamw:lr=0.0128,weight_decay=2",
     .margin = 0.005,
     .seconds = 0.3,
     .pilot = "apps/presets/mlp_pilot.tsv",
     .pilot_seeds = "",
     .note = "with one learning rate for all, 0.0032, the best of each there are adam 79.0%, adaml2 85.3% "
             "and adamw 85.6%: "
             "most of what adam lacks at that rate, a smaller one gives back",
     .lr = {1e-4, 2, 9},
     .l2 = {0.002, 2, 6},
     .w = {0.5, 2, 6}},
    {.name = "lenet",
     .model = "lenet",
     .training = "--schedule cosine --epochs 20 --batch 32 --train-size 1000 --label-noise 0.2",
     .adam = "adam:lr=0.00168",
     .adaml2 = "adaml2:lr=0.002,weight_decay=0.004",
     .adamw = "adamw:lr=0.008,weight_decay=1",
     .margin = 0.005,
     .seconds = 0.6,
     .pilot = "apps/presets/lenet_pilot.tsv",
     .pilot_seeds = " --seeds 2",
     .lr = {1e-3, 2, 4},
     .l2 = {0.004, 2, 4},
     .w = {0.5, 2, 4}},
    {.name = "gru",
     .model = "gru",
     .training = "--schedule cosine --epochs 20 --batch 32 --train-size 1000 --label-noise 0.2",
     .adam = "adam:lr=0.00317",
     .adaml2 = "adaml2:lr=0.016,weight_decay=0.002",
     .adamw = "adamw:lr=0.016,weight_decay=1",
     .margin = 0.005,
     .seconds = 2.2,
     .pilot = "apps/presets/gru_pilot.tsv",
     .pilot_seeds = " --seeds 2",
     .lr = {2e-3, 2, 4},
     .l2 = {0.001, 2, 4},
     .w = {0.25, 2, 4}},
    {.name = NULL},
};

const preset *preset_find(const char *name) {
    for (const preset *p = presets; p->name; p++)
        if (strcmp(p->name, name) == 0) return p;
    return NULL;
}

const char *preset_optimizer(const preset *p, const char *name) {
    if (strcmp(name, "adam") == 0) return p->adam;
    if (strcmp(name, "adaml2") == 0) return p->adaml2;
    if (strcmp(name, "adamw") == 0) return p->adamw;
    return NULL;
}

/* ---- Training options by name ------------------------------------------------------------------------------------ */

static const arg rows[] = {CONFIG_ARGS(
                               struct { run_config c; }, c),
                           ARG_END};

int training_set(run_config *c, const char *name, const char *value, tn_err *e) {
    const arg *row = args_find(rows, name);
    return row ? args_set(row, c, value, e) : tn_fail(e, "--%s: no such option", name);
}

void preset_training(const preset *p, run_config *c) {
    char text[CONFIG_SPEC], *rest = text;
    tn_err e = {""};
    snprintf(text, sizeof text, "%s", p->training);
    for (char *name; (name = strtok_r(rest, " ", &rest));) {
        char *value = strtok_r(rest, " ", &rest);
        TN_CHECK(NULL, value && strncmp(name, "--", 2) == 0 && !training_set(c, name + 2, value, &e),
                 "preset %s: %s %s", p->name, name, e.msg);
    }
}

/* What names the run or its data stands elsewhere; what is only about looking on is no setting. */
static int is_training(const arg *row) {
    static const char *const others[] = {"data", "model", "optimizer", "seed", "eval-every"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(row->name, others[i]) == 0) return 0;
    return 1;
}

void training_text(const run_config *c, char *out, size_t cap) {
    run_config normal = run_config_default();
    size_t n = 0;
    out[0] = 0;
    for (const arg *r = rows; r->name; r++) {
        char now[CONFIG_PATH], usual[CONFIG_PATH];
        args_text(r, c, now, sizeof now);
        args_text(r, &normal, usual, sizeof usual);
        if (!is_training(r) || strcmp(now, usual) == 0 || n >= cap) continue;
        if (r->type != ARG_MANY_T)
            n += (size_t)snprintf(out + n, cap - n, "%s--%s %s", n ? " " : "", r->name, now);
        for (int i = 0; r->type == ARG_MANY_T && i < r->count && n < cap; i++) {
            const char *one = (const char *)c + r->offset + (size_t)i * r->size;
            if (*one) n += (size_t)snprintf(out + n, cap - n, "%s--%s '%s'", n ? " " : "", r->name, one);
        }
    }
}
