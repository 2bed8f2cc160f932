/* SPDX-License-Identifier: MIT */
/*
 * A picture of a digit made like those of MNIST: the steps that its authors describe (20 x 20 box, centre of
 * mass in the middle of 28 x 28; LeCun et al. 1998, section III A), after those that a scanner did for them:
 * finding ground and ink.
 */
#include "data_internal.h"
#include "internal.h"
#include <math.h>
#include <string.h>

enum { BOX = 20, SIDE = TN_DIGIT_SIDE, WORK = 400, CONTRAST = 20 };

typedef struct {
    int h, w;
    double *ink;         /* 0 ground ... 255 */
    double noise;        /* standard deviation of the ground */
    int *label;          /* component of each pixel, from 1; 0: ground */
    int *stack;          /* of the flood fill; then columns of the wider strokes */
    unsigned char *mask; /* 1: belongs to the digit */
} work;

/* ---- ground ---- */

/* Light falls evenly, or in a slope: v = p[0] + p[1] x + p[2] y, fitted to the frame by least squares. */
static double plane(const work *k, const double p[3], int y, int x) {
    return p[0] + p[1] * ((double)x / k->w - 0.5) + p[2] * ((double)y / k->h - 0.5);
}

/* Solves the symmetric 3 x 3 system; 0: singular. */
static int solve(double a[3][4], double p[3]) {
    for (int i = 0; i < 3; i++) {
        if (fabs(a[i][i]) < 1e-9) return 0;
        for (int r = 0; r < 3; r++) {
            double f = a[r][i] / a[i][i];
            for (int c = i; c < 4 && r != i; c++) a[r][c] -= f * a[i][c];
        }
    }
    for (int i = 0; i < 3; i++) p[i] = a[i][3] / a[i][i];
    return 1;
}

static int in_frame(const work *k, int y, int x) {
    int t = (k->h < k->w ? k->h : k->w) / 16;
    if (t < 1) t = 1;
    return y < t || x < t || y >= k->h - t || x >= k->w - t;
}

/* The middle one of the frame's distances from v (v < 0: of its values), of numbers 0 ... 255. */
static double frame_median(const work *k, double v) {
    int count[256] = {0}, n = 0, below = 0;
    for (int y = 0; y < k->h; y++)
        for (int x = 0; x < k->w; x++) {
            if (!in_frame(k, y, x)) continue;
            double at = k->ink[y * k->w + x];
            count[(int)(v < 0 ? at : fabs(at - v))]++;
            n++;
        }
    for (int i = 0; i < 256; i++)
        if (2 * (below += count[i]) > n) return i;
    return 255;
}

/* One fit to the pixels of the frame that lie within limit of the last one; *far: rms of their distances. */
static void fit_plane(const work *k, double limit, double p[3], double *far) {
    double a[3][4] = {{0}}, q[3], squares = 0, n = 0;
    for (int y = 0; y < k->h; y++)
        for (int x = 0; x < k->w; x++) {
            if (!in_frame(k, y, x)) continue;
            double v = k->ink[y * k->w + x], d = v - plane(k, p, y, x);
            double f[3] = {1, (double)x / k->w - 0.5, (double)y / k->h - 0.5};
            if (fabs(d) > limit) continue;
            squares += d * d;
            n++;
            for (int i = 0; i < 3; i++) {
                for (int j = 0; j < 3; j++) a[i][j] += f[i] * f[j];
                a[i][3] += f[i] * v;
            }
        }
    *far = n > 0 ? sqrt(squares / n) : 0;
    if (n > 3 && solve(a, q)) memcpy(p, q, sizeof q);
}

/* From the median on, each fit without what lies far from the last one: ink or a table's edge at the border. */
static void find_ground(work *k, double p[3]) {
    p[0] = frame_median(k, -1);
    p[1] = p[2] = 0;
    double limit = 3 * frame_median(k, p[0]) + 12, far;
    for (int round = 0; round < 4; round++) {
        fit_plane(k, limit, p, &far);
        if (round) { /* the first distances are from the median, not from a fit */
            k->noise = far;
            limit = 2.5 * far + 2;
        }
    }
}

/* Ink is what is far from the ground on one side: the sum of cubes says on which, noise cancels in it. */
static void take_off_ground(work *k) {
    double p[3], cubes = 0;
    find_ground(k, p);
    for (int y = 0; y < k->h; y++)
        for (int x = 0; x < k->w; x++) {
            double *v = &k->ink[y * k->w + x];
            *v -= plane(k, p, y, x);
            cubes += *v * *v * *v;
        }
    for (int i = 0; i < k->h * k->w; i++) {
        double v = cubes < 0 ? -k->ink[i] : k->ink[i];
        k->ink[i] = v < 0 ? 0 : v > 255 ? 255 : v;
    }
}

/*
 * Otsu's threshold (IEEE Transactions on Systems, Man and Cybernetics 9(1), 1979); *contrast: between the
 * means.
 */
static double threshold(const work *k, double *contrast) {
    double count[256] = {0}, all = 0, n = (double)k->h * k->w, below = 0, sum = 0, best = -1, at = 0;
    for (int i = 0; i < k->h * k->w; i++) count[(int)(k->ink[i] + 0.5)]++;
    for (int v = 0; v < 256; v++) all += v * count[v];
    *contrast = 0;
    for (int v = 0; v < 255; v++) {
        below += count[v];
        sum += v * count[v];
        if (below == 0 || below == n) continue;
        double apart = (all - sum) / (n - below) - sum / below, between = below * (n - below) * apart * apart;
        if (between > best) best = between, at = v + 0.5, *contrast = apart;
    }
    return at > 3 * k->noise + 8 ? at : 3 * k->noise + 8;
}

/* ---- ink ---- */

/* Fills the component (8 neighbours) of pixel start; returns its pixels, *border: it reaches the edge. */
static int fill(work *k, int start, int label, double t, int *border) {
    int n = 0, top = 0;
    *border = 0;
    k->label[start] = label;
    k->stack[top++] = start;
    while (top > 0) {
        int at = k->stack[--top], y = at / k->w, x = at % k->w;
        n++;
        *border |= y == 0 || x == 0 || y == k->h - 1 || x == k->w - 1;
        for (int ny = y - 1; ny <= y + 1; ny++)
            for (int nx = x - 1; nx <= x + 1; nx++) {
                if (ny < 0 || nx < 0 || ny >= k->h || nx >= k->w) continue;
                int to = ny * k->w + nx;
                if (k->label[to] || k->ink[to] <= t) continue;
                k->label[to] = label;
                k->stack[top++] = to;
            }
    }
    return n;
}

/*
 * Keeps the strokes: not what is less than a twentieth of the largest part (specks), and not what comes in
 * from the border (the edge of the paper) when something inside is a tenth as large. Returns the pixels kept.
 */
static int keep_strokes(work *k, double t) {
    int inside = 0, touching = 0, kept = 0, labels = 0, border, all = k->h * k->w;
    for (int pass = 0; pass < 2; pass++) {
        int most = 10 * inside >= touching ? inside : touching, no_border = 10 * inside >= touching;
        memset(k->label, 0, (size_t)all * sizeof *k->label);
        for (int i = 0; i < all; i++) {
            if (k->label[i] || k->ink[i] <= t) continue;
            int n = fill(k, i, ++labels, t, &border);
            if (pass == 0 && n > (border ? touching : inside)) *(border ? &touching : &inside) = n;
            if (pass == 0 || 20 * n < most || (border && no_border)) continue;
            kept += n;
            for (int j = 0; j < all; j++)
                if (k->label[j] == labels) k->mask[j] = 1;
        }
    }
    return kept;
}

static double median_ink(const work *k, int kept) {
    int count[256] = {0}, below = 0;
    for (int i = 0; i < k->h * k->w; i++)
        if (k->mask[i]) count[(int)(k->ink[i] + 0.5)]++;
    for (int v = 0; v < 256; v++)
        if ((below += count[v]) > kept / 2) return v;
    return 255;
}

static int near_mask(const work *k, int y, int x, int r) {
    for (int ny = y - r; ny <= y + r; ny++)
        for (int nx = x - r; nx <= x + r; nx++)
            if (ny >= 0 && nx >= 0 && ny < k->h && nx < k->w && k->mask[ny * k->w + nx]) return 1;
    return 0;
}

/* Strokes to full white with soft edges, all else to black; into bytes. */
static void stretch(const work *k, double t, int kept, unsigned char *out) {
    double hi = median_ink(k, kept), lo = 3 * k->noise < t / 2 ? 3 * k->noise : t / 2;
    if (hi < t + 1) hi = t + 1;
    for (int y = 0; y < k->h; y++)
        for (int x = 0; x < k->w; x++) {
            double v = near_mask(k, y, x, 2) ? (k->ink[y * k->w + x] - lo) / (hi - lo) : 0;
            out[y * k->w + x] = (unsigned char)(v <= 0 ? 0 : v >= 1 ? 255 : 255 * v + 0.5);
        }
}

/* Mean width of the strokes in pixels: twice their area over their outline (whose steps make it too long). */
static double stroke_width(const work *k, int kept) {
    int edges = 0;
    for (int y = 0; y < k->h; y++)
        for (int x = 0; x < k->w; x++) {
            const unsigned char *m = &k->mask[y * k->w + x];
            if (!*m) continue;
            edges += (y == 0 || !m[-k->w]) + (y == k->h - 1 || !m[k->w]) + (x == 0 || !m[-1])
                     + (x == k->w - 1 || !m[1]);
        }
    return edges ? 1.15 * 2 * kept / edges : 0;
}

typedef struct {
    int y0, y1, x0, x1; /* the last ones included */
} box;

static box bounds(const work *k) {
    box b = {k->h, -1, k->w, -1};
    for (int y = 0; y < k->h; y++)
        for (int x = 0; x < k->w; x++) {
            if (!k->mask[y * k->w + x]) continue;
            if (y < b.y0) b.y0 = y;
            if (y > b.y1) b.y1 = y;
            if (x < b.x0) b.x0 = x;
            if (x > b.x1) b.x1 = x;
        }
    return b;
}

/* The box with r pixels more on each side, every pixel the brightest within r (a disc): wider strokes. */
static int crop(const work *k, const unsigned char *ink, box b, int r, tn_image *out, tn_err *e) {
    if (tn_image_new(out, b.y1 - b.y0 + 1 + 2 * r, b.x1 - b.x0 + 1 + 2 * r, 1, e)) return -1;
    for (int y = 0; y < out->h; y++)
        for (int x = 0; x < out->w; x++) {
            unsigned char most = 0;
            for (int dy = -r; dy <= r; dy++)
                for (int dx = -r; dx <= r; dx++) {
                    int sy = b.y0 - r + y + dy, sx = b.x0 - r + x + dx;
                    if (dy * dy + dx * dx > r * r + r || sy < 0 || sx < 0 || sy >= k->h || sx >= k->w)
                        continue;
                    if (ink[sy * k->w + sx] > most) most = ink[sy * k->w + sx];
                }
            out->x[y * out->w + x] = most;
        }
    return 0;
}

/* ---- 28 x 28 ---- */

/* The larger side becomes 20 pixels; the brightest pixel white. */
static int fit(const tn_image *digit, tn_image *out, tn_err *e) {
    int most = digit->h > digit->w ? digit->h : digit->w, top = 0;
    int h = (2 * BOX * digit->h + most) / (2 * most), w = (2 * BOX * digit->w + most) / (2 * most);
    if (tn_image_resize(digit, h > 0 ? h : 1, w > 0 ? w : 1, out, e)) return -1;
    for (int i = 0; i < out->h * out->w; i++)
        if (out->x[i] > top) top = out->x[i];
    for (int i = 0; i < out->h * out->w && top > 0; i++)
        out->x[i] = (unsigned char)((out->x[i] * 255 + top / 2) / top);
    return 0;
}

/*
 * Where the first row or column goes, so that the centre of mass comes nearest to the middle of pixel 14: in
 * MNIST's test pictures its mean is 13.99, and it lies within half a pixel of that.
 */
static int place(double mass, double moment, int size) {
    int at = (int)floor(SIDE / 2.0 - moment / mass + 0.5);
    return at < 0 ? 0 : at > SIDE - size ? SIDE - size : at;
}

static void centre(const tn_image *i, unsigned char *out) {
    double mass = 0, my = 0, mx = 0;
    for (int y = 0; y < i->h; y++)
        for (int x = 0; x < i->w; x++) {
            double v = i->x[y * i->w + x];
            mass += v;
            my += v * y;
            mx += v * x;
        }
    memset(out, 0, SIDE * SIDE);
    if (mass == 0) return;
    int top = place(mass, my, i->h), left = place(mass, mx, i->w);
    for (int y = 0; y < i->h; y++) memcpy(out + (top + y) * SIDE + left, i->x + y * i->w, (size_t)i->w);
}

static int prepare(work *k, const char *name, unsigned char *ink, unsigned char *out, tn_err *e) {
    tn_image digit, small;
    double contrast;
    take_off_ground(k);
    double t = threshold(k, &contrast);
    int kept = contrast < CONTRAST ? 0 : keep_strokes(k, t);
    if (kept == 0) return tn_fail(e, "%s: no digit found: hardly anything stands out from the ground", name);
    stretch(k, t, kept, ink);
    box b = bounds(k);
    int size = b.y1 - b.y0 > b.x1 - b.x0 ? b.y1 - b.y0 + 1 : b.x1 - b.x0 + 1;
    double unit = (double)size / BOX, width = stroke_width(k, kept); /* pixels here of one there */
    int r = unit > 1 && width < 1.5 * unit ? (int)((2 * unit - width) / 2 + 0.5) : 0;
    if (crop(k, ink, b, r, &digit, e)) return -1;
    int bad = fit(&digit, &small, e);
    tn_image_free(&digit);
    if (bad) return -1;
    centre(&small, out);
    tn_image_free(&small);
    return 0;
}

int tn_image_digit(const tn_image *i, const char *name, unsigned char out[TN_DIGIT_SIDE * TN_DIGIT_SIDE],
                   tn_err *e) {
    int most = i->h > i->w ? i->h : i->w;
    tn_image g;
    if (i->c != 1) return tn_fail(e, "%s: a digit is prepared from a picture in grey", name);
    int h = most > WORK ? (int)((long)i->h * WORK / most) : i->h,
        w = most > WORK ? (int)((long)i->w * WORK / most) : i->w;
    if (h < 3 || w < 3) return tn_fail(e, "%s: %d x %d pixels are too few for a digit", name, i->w, i->h);
    if (tn_image_resize(i, h, w, &g, e)) return -1;
    size_t n = (size_t)h * (size_t)w;
    work k = {.h = h,
              .w = w,
              .ink = tn_mem_new(n * sizeof *k.ink),
              .label = tn_mem_new(n * sizeof *k.label),
              .stack = tn_mem_new(n * sizeof *k.stack),
              .mask = tn_mem_new(n)};
    int bad = k.ink && k.label && k.stack && k.mask ? 0 : tn_fail(e, "%s: out of memory", name);
    for (size_t j = 0; j < n && !bad; j++) k.ink[j] = g.x[j];
    if (!bad) bad = prepare(&k, name, g.x, out, e);
    tn_free(k.ink);
    tn_free(k.label);
    tn_free(k.stack);
    tn_free(k.mask);
    tn_image_free(&g);
    return bad;
}
