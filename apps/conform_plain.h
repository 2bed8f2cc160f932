/* SPDX-License-Identifier: MIT */
/* Inside the plain reference: what conform_plain.c, which knows the mistakes of every rule, hands to a rule. */
#ifndef TERN_APP_CONFORM_PLAIN_H
#define TERN_APP_CONFORM_PLAIN_H
#include "conform.h"

enum { PLAIN_SLOTS = 5, PLAIN_SUMMED = PLAIN_SLOTS - 1 }; /* the last: gradients, where they are summed */

/* Where the formula has the decay; of all steps, the implicit one: w = (w - u) / (1 + decay). */
enum { IN_GRADIENT, IN_STEP, BESIDE, IMPLICIT };

typedef struct plain plain;

/* One tensor, one step. A rule fills u; the weights move by -rate u. */
typedef struct {
    plain *p;
    const conform_tensor *tensor;
    int index, first; /* of the tensor; 1: the first step */
    long t;           /* the step's number, as the mistake counts it */
    double mul, lr;   /* the schedule's multiplier; the rate */
    double lambda;    /* of a decay IN_STEP, else 0 */
    const double *g;  /* with an L2 penalty in it */
    double *w, *u, rate;
    double *slot[PLAIN_SLOTS];
} plain_step;

typedef struct {
    const char *family;
    void (*step)(plain_step *);
    int place;
    void (*begin)(plain *); /* slots that do not start from 0, or NULL */
} plain_rule;

struct plain {
    const conform_file *f;
    const conform_case *c;
    const plain_rule *rule;
    int mistake, pass, place, independent; /* independent: the decay leaves the rate out, not its schedule */
    double lr, beta1, beta2, beta3, eps, lambda, momentum, dampening, alpha, lr_decay, initial;
    int amsgrad, nesterov, centered;
    double total[CONFORM_TENSORS], largest[CONFORM_TENSORS]; /* schedule-free's sum and largest rate */
    double *slot[PLAIN_SLOTS], *w;                           /* f->len each */
};

const plain_rule *plain_rule_of(const char *family);
double plain_option(const conform_case *, const char *name); /* 0: it has none */
int plain_on(const conform_case *, const char *name);
int plain_word(const conform_case *, const char *name, const char *word);
/* What rules share, with the mistakes that are made there. */
double plain_moment(plain_step *, int slot, size_t j, double beta, double x); /* the average to step with */
double plain_corrected_by(const plain_step *, double beta, int second);       /* 1 - beta^t */
double plain_over_root(const plain_step *, double x, double v);
/* The matrices: adafactor, muon, lamb's norms. */
void plain_adafactor(plain_step *);
void plain_muon(plain_step *);
double plain_norm(const double *x, size_t n);
#endif
