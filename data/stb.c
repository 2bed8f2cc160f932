/* SPDX-License-Identifier: MIT */
/*
 * stb_image and stb_image_write (https://github.com/nothings/stb), the one place that holds them. Memory goes
 * through the library's allocator and is cleared first, so that what a decoder forgets to fill is the same
 * each time.
 */
#include "data_internal.h"
#include "internal.h"
#include <limits.h>
#include <string.h>

#ifdef TERN_HAVE_STB
#define STBI_MALLOC(n)      tn_mem_new(n)
#define STBI_REALLOC(p, n)  tn_mem_resize(p, n)
#define STBI_FREE(p)        tn_free(p)
#define STBIW_MALLOC(n)     tn_mem_new(n)
#define STBIW_REALLOC(p, n) tn_mem_resize(p, n)
#define STBIW_FREE(p)       tn_free(p)
#define STBI_MAX_DIMENSIONS TN_IMAGE_MOST_SIDE
#define STBI_NO_STDIO
#define STBI_WRITE_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_ONLY_GIF
#define STBI_ONLY_PNM
#define STB_IMAGE_STATIC
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_WRITE_IMPLEMENTATION
/* to the end of the file: what is static and unused is told there */
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#include <stb/stb_image.h>
#include <stb/stb_image_write.h>

/*
 * The file's bytes for stb_image, which takes zeros for what lies beyond their end. A picture is whole when
 * it never asks for that. It fills a buffer of its own, whose address the first call gives, with as much as
 * there is; any other read wants all of it.
 */
typedef struct {
    const unsigned char *p;
    size_t left;
    const char *buffer;
    int beyond;
} reader;

static int read_some(void *user, char *to, int size) {
    reader *r = user;
    size_t want = size > 0 ? (size_t)size : 0, n = want < r->left ? want : r->left;
    if (!r->buffer) r->buffer = to;
    if (want && (r->left == 0 || (n < want && to != r->buffer))) r->beyond = 1;
    memcpy(to, r->p, n);
    r->p += n;
    r->left -= n;
    return (int)n;
}

static void skip(void *user, int n) {
    reader *r = user;
    if (n < 0 || (size_t)n > r->left) {
        r->beyond = 1;
        n = (int)r->left;
    }
    r->p += n;
    r->left -= (size_t)n;
}

static int at_end(void *user) {
    return ((reader *)user)->left == 0;
}

static const stbi_io_callbacks calls = {read_some, skip, at_end};

unsigned char *tn_stb_decode(const unsigned char *bytes, size_t n, int *h, int *w, int *c, const char **why) {
    reader r = {bytes, n, NULL, 0};
    *why = "larger than 256 MiB";
    if (n > 1 << 28) return NULL;
    if (!stbi_info_from_callbacks(&calls, &r, w, h, c)) {
        *why = r.beyond ? "ends too early" : "not a PNG, JPEG, BMP, GIF or PNM picture (P5, P6), or damaged";
        return NULL;
    }
    *why = "more than " TN_IMAGE_LIMIT;
    if (*w < 1 || *h < 1 || *w > TN_IMAGE_MOST_SIDE || *h > TN_IMAGE_MOST_SIDE || *w > TN_IMAGE_MOST / *h)
        return NULL;
    r = (reader){bytes, n, NULL, 0};
    unsigned char *x = stbi_load_from_callbacks(&calls, &r, w, h, c, 0);
    if (x && !r.beyond && *w >= 1 && *h >= 1 && *c >= 1 && *c <= 4) return x;
    *why = r.beyond ? "ends too early" : stbi_failure_reason();
    if (x) tn_free(x);
    return NULL;
}

typedef struct {
    unsigned char *p;
    size_t n;
} bytes_out;

static void collect(void *user, void *data, int n) {
    bytes_out *o = user;
    o->p = tn_mem_new((size_t)n);
    if (o->p) memcpy(o->p, data, (size_t)n);
    o->n = (size_t)n;
}

unsigned char *tn_stb_png(int h, int w, int c, const unsigned char *x, size_t *n, const char **why) {
    bytes_out o = {NULL, 0};
    *why = "not enough memory for the picture";
    if ((size_t)h * (size_t)w > INT_MAX / 8 || !stbi_write_png_to_func(collect, &o, w, h, c, x, w * c))
        return NULL;
    *n = o.n;
    return o.p;
}
#else
static const char *const missing = "this tern was built without stb (Debian/Ubuntu: libstb-dev): no pictures";

unsigned char *tn_stb_decode(const unsigned char *bytes, size_t n, int *h, int *w, int *c, const char **why) {
    (void)bytes, (void)n, (void)h, (void)w, (void)c;
    *why = missing;
    return NULL;
}

unsigned char *tn_stb_png(int h, int w, int c, const unsigned char *x, size_t *n, const char **why) {
    (void)h, (void)w, (void)c, (void)x, (void)n;
    *why = missing;
    return NULL;
}
#endif
