/* SPDX-License-Identifier: MIT */
/* The plain reference's rules that see a tensor as a matrix. */
#include "conform_plain.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Squares of one matrix, or of a vector (rows 1, one average), to the variance in x->u. */
static void factored(plain_step *x, double beta, size_t at, size_t rows, size_t cols, double *row,
                     double *col) {
    const double *g = x->g + at, eps1 = plain_option(x->p->c, "eps1");
    double mean = 0;
    for (size_t i = 0; i < rows; i++) {
        double sum = 0;
        for (size_t j = 0; j < cols; j++) sum += g[i * cols + j] * g[i * cols + j];
        row[i] = beta * row[i] + (1 - beta) * sum / (double)cols;
        mean += row[i] / (double)rows;
    }
    for (size_t j = 0; j < cols; j++) {
        double sum = 0;
        for (size_t i = 0; i < rows; i++) sum += g[i * cols + j] * g[i * cols + j];
        col[j] = beta * col[j] + (1 - beta) * sum / (double)rows;
    }
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++) x->u[at + i * cols + j] = row[i] * col[j] / fmax(mean, eps1);
}

void plain_adafactor(plain_step *x) {
    const conform_case *c = x->p->c;
    const conform_tensor *t = x->tensor;
    const double beta = 1 - pow((double)x->t, plain_option(c, "beta2_decay")), n = (double)t->n;
    const double eps1 = plain_option(c, "eps1"), eps2 = plain_option(c, "eps2");
    if (t->nd < 2)
        for (size_t j = 0; j < t->n; j++)
            x->u[j] = x->slot[0][j] = beta * x->slot[0][j] + (1 - beta) * x->g[j] * x->g[j];
    else {
        const size_t rows = (size_t)t->dim[t->nd - 2], cols = (size_t)t->dim[t->nd - 1];
        for (size_t b = 0; b < t->n / (rows * cols); b++)
            factored(x, beta, b * rows * cols, rows, cols, x->slot[0] + b * rows, x->slot[1] + b * cols);
    }
    for (size_t j = 0; j < t->n; j++) x->u[j] = x->g[j] / sqrt(fmax(x->u[j], eps1 * eps1));
    const double size = fmax(eps2, plain_norm(x->w, t->n) / sqrt(n));
    const double clip = plain_norm(x->u, t->n) / sqrt(n) / plain_option(c, "d");
    x->rate = size * fmin(x->lr, 1 / sqrt((double)x->t)) / fmax(1, clip);
}

/* c = a b: a of n x m, b of m x k. */
static void multiply(double *c, const double *a, const double *b, size_t n, size_t m, size_t k) {
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < k; j++) {
            double sum = 0;
            for (size_t l = 0; l < m; l++) sum += a[i * m + l] * b[l * k + j];
            c[i * k + j] = sum;
        }
}

static void turn(double *to, const double *from, size_t rows, size_t cols) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++) to[j * rows + i] = from[i * cols + j];
}

/* X of rows x cols by a X + (b G + c G G) X. The memory: turned X, the product, and three squares. */
static void iterate(const conform_case *c, double *X, size_t rows, size_t cols, double *memory) {
    const double a = plain_option(c, "ns_a"), b = plain_option(c, "ns_b"), cc = plain_option(c, "ns_c");
    double *turned = memory, *product = turned + rows * cols, *gram = product + rows * cols;
    double *square = gram + rows * rows;
    turn(turned, X, rows, cols);
    multiply(gram, X, turned, rows, cols, rows);
    multiply(square, gram, gram, rows, rows, rows);
    for (size_t i = 0; i < rows * rows; i++) gram[i] = b * gram[i] + cc * square[i];
    multiply(product, gram, X, rows, rows, cols);
    for (size_t i = 0; i < rows * cols; i++) X[i] = a * X[i] + product[i];
}

/* What is no matrix: adamw's step with its defaults. */
static void not_a_matrix(plain_step *x) {
    const double c1 = plain_corrected_by(x, 0.9, 0), c2 = plain_corrected_by(x, 0.999, 1), eps = 1e-8;
    const int inside = x->p->mistake == MISTAKE_EPS_INSIDE;
    for (size_t j = 0; j < x->tensor->n; j++) {
        const double m = plain_moment(x, 0, j, 0.9, x->g[j]);
        const double v = x->slot[1][j] = 0.999 * x->slot[1][j] + 0.001 * x->g[j] * x->g[j];
        x->u[j] = m / c1 / (inside ? sqrt(v / c2 + eps) : sqrt(v / c2) + eps);
    }
    x->rate = 1e-3 * x->mul;
}

void plain_muon(plain_step *x) {
    const plain *p = x->p;
    const conform_tensor *t = x->tensor;
    if (t->nd != 2) {
        not_a_matrix(x);
        return;
    }
    const size_t rows = (size_t)t->dim[0], cols = (size_t)t->dim[1], less = rows < cols ? rows : cols;
    double *X = malloc((3 * t->n + 3 * less * less) * sizeof *X);
    if (!X) return;
    for (size_t j = 0; j < t->n; j++) {
        const double buf = plain_moment(x, 0, j, p->momentum, x->g[j]);
        x->u[j] = p->nesterov ? (1 - p->momentum) * x->g[j] + p->momentum * buf : buf;
    }
    const double size = fmax(plain_norm(x->u, t->n), p->eps);
    for (size_t j = 0; j < t->n; j++) x->u[j] /= size;
    if (rows > cols)
        turn(X, x->u, rows, cols);
    else
        memcpy(X, x->u, t->n * sizeof *X);
    for (long s = 0; s < (long)plain_option(p->c, "ns_steps"); s++)
        iterate(p->c, X, less, t->n / less, X + t->n);
    if (rows > cols)
        turn(x->u, X, cols, rows);
    else
        memcpy(x->u, X, t->n * sizeof *X);
    free(X);
    x->rate = x->lr
              * (plain_word(p->c, "adjust_lr_fn", "original") ? sqrt(fmax(1, (double)rows / (double)cols))
                                                              : 0.2 * sqrt(fmax((double)rows, (double)cols)));
}
