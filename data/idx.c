/* SPDX-License-Identifier: MIT */
/*
 * Reader of IDX files, plain or gzipped; which of the two is seen from the first bytes, not from the name
 * (browsers unpack downloads and leave the .gz). A file is believed only after its header, its size and, at
 * the end, its checksum agree. A gzip file must be one member, so that the length in its last four bytes (RFC
 * 1952, section 2.3.1) can be held against the header before memory is asked for; when the two differ, the
 * stream is unpacked into nothing, to say why.
 */
#include "data_internal.h"
#include "internal.h"
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

enum {
    IN_BYTES = 1 << 16,
    GZIP_LEAST = 18,       /* header, trailer: the smallest gzip file is not smaller */
    BOMB_BYTES = 64 << 20, /* from here on a gzip file must not be */
    BOMB_RATIO = 100       /* smaller than its contents by more than this factor (MNIST: 5) */
};
static const uint64_t MAX_BYTES = (uint64_t)2 << 30;

struct tn_idx {
    FILE *f;
    const char *name;
    uint64_t packed; /* bytes of the file */
    int gz, ended;   /* ended: the gzip stream is, with its checksum right */
    uint32_t says;   /* length of the contents modulo 2^32 as the gzip trailer says */
    z_stream z;
    int nd, dim[TN_IDX_MAX_DIM];
    size_t len;
    unsigned char header[4 + 4 * TN_IDX_MAX_DIM];
    unsigned char in[IN_BYTES];
};

static void *z_alloc(void *arg, unsigned n, unsigned size) {
    (void)arg;
    return tn_mem_new((size_t)n * size);
}

static void z_free(void *arg, void *p) {
    (void)arg;
    tn_free(p);
}

static uint32_t big_endian(const unsigned char *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* ---- bytes out of the file ---- */

static int unreadable(const tn_idx *r, tn_err *e) {
    return tn_fail(e, "%s: cannot be read: %s", r->name, strerror(errno));
}

static int refill(tn_idx *r, tn_err *e) {
    size_t n = fread(r->in, 1, IN_BYTES, r->f);
    if (n == 0 && ferror(r->f)) return unreadable(r, e);
    if (n == 0)
        return tn_fail(e, "%s: truncated: ends in the middle of its gzip stream (%llu bytes); get it again",
                       r->name, (unsigned long long)r->packed);
    r->z.next_in = r->in;
    r->z.avail_in = (unsigned)n;
    return 0;
}

static int pull_gzip(tn_idx *r, unsigned char *to, size_t n, size_t *got, tn_err *e) {
    while (*got < n && !r->ended) {
        size_t want = n - *got < UINT_MAX ? n - *got : UINT_MAX;
        if (r->z.avail_in == 0 && refill(r, e)) return -1;
        r->z.next_out = to + *got;
        r->z.avail_out = (unsigned)want;
        int rc = inflate(&r->z, Z_NO_FLUSH);
        *got += want - r->z.avail_out;
        if (rc == Z_STREAM_END)
            r->ended = 1;
        else if (rc == Z_MEM_ERROR)
            return tn_fail(e, "%s: out of memory", r->name);
        else if (rc != Z_OK)
            return tn_fail(e, "%s: damaged: gzip says \"%s\"%s; get the file again", r->name,
                           r->z.msg ? r->z.msg : "bad stream",
                           r->z.msg && strstr(r->z.msg, "data check") ? " (the CRC is wrong)" : "");
    }
    return 0;
}

/* Up to n bytes of the contents; fewer only at their end. */
static int pull(tn_idx *r, unsigned char *to, size_t n, size_t *got, tn_err *e) {
    *got = 0;
    if (r->gz) return pull_gzip(r, to, n, got, e);
    *got = fread(to, 1, n, r->f);
    return *got < n && ferror(r->f) ? unreadable(r, e) : 0;
}

/* ---- the header ---- */

static int not_idx(const tn_idx *r, tn_err *e) {
    const unsigned char *h = r->header;
    if (h[0] == '<')
        return tn_fail(e, "%s: is a web page, not an IDX file: the download went wrong", r->name);
    return tn_fail(e, "%s: not an IDX file: magic number 0x%08x, expected 0x0000080N with N dimensions",
                   r->name, (unsigned)big_endian(h));
}

static const char *type_name(int type) {
    switch (type) {
    case 0x09:
        return "signed byte";
    case 0x0b:
        return "short";
    case 0x0c:
        return "int";
    case 0x0d:
        return "float";
    case 0x0e:
        return "double";
    default:
        return NULL;
    }
}

static int read_header(tn_idx *r, tn_err *e) {
    unsigned char *h = r->header;
    size_t got;
    if (pull(r, h, 4, &got, e)) return -1;
    if (got == 0) return tn_fail(e, "%s: is empty", r->name);
    if (got == 4 && (h[0] != 0 || h[1] != 0)) return not_idx(r, e);
    if (got == 4 && h[2] != 0x08) {
        const char *t = type_name(h[2]);
        if (!t) return not_idx(r, e);
        return tn_fail(e, "%s: values of type 0x%02x (%s); only unsigned bytes (0x08) are read", r->name,
                       h[2], t);
    }
    if (got == 4 && (h[3] < 1 || h[3] > TN_IDX_MAX_DIM))
        return tn_fail(e, "%s: %d dimensions in its header; 1 to %d are read", r->name, h[3], TN_IDX_MAX_DIM);
    r->nd = got == 4 ? h[3] : 1;
    if (got == 4 && pull(r, h + 4, 4 * (size_t)r->nd, &got, e)) return -1;
    if (got < 4 * (size_t)r->nd)
        return tn_fail(e, "%s: truncated: ends within its header; get it again", r->name);
    return 0;
}

/* Dimensions and their product: no zero, no overflow, within the limit. */
static int check_shape(tn_idx *r, tn_err *e) {
    uint64_t len = 1;
    for (int i = 0; i < r->nd; i++) {
        uint32_t d = big_endian(r->header + 4 + 4 * i);
        if (d == 0) return tn_fail(e, "%s: empty: dimension %d is 0 in its header", r->name, i + 1);
        if (d > INT_MAX || len > MAX_BYTES / d)
            return tn_fail(
                e, "%s: refused: its header asks for more than the limit of %llu bytes (dimension %d is %u)",
                r->name, (unsigned long long)MAX_BYTES, i + 1, (unsigned)d);
        len *= d;
        r->dim[i] = (int)d;
    }
    r->len = (size_t)len;
    return 0;
}

static int too_short(const tn_idx *r, uint64_t holds, tn_err *e) {
    return tn_fail(e, "%s: truncated: holds %llu bytes, its header says %llu; get it again", r->name,
                   (unsigned long long)holds, (unsigned long long)(tn_idx_header(r, NULL) + r->len));
}

static int too_long(const tn_idx *r, tn_err *e) {
    return tn_fail(e, "%s: holds more than the %llu bytes that its header says: bytes follow the last value",
                   r->name, (unsigned long long)(tn_idx_header(r, NULL) + r->len));
}

/*
 * The trailer of a gzip file contradicts the header: unpack it, keeping nothing, to find out what is wrong.
 */
static int diagnose(tn_idx *r, tn_err *e) {
    unsigned char bin[4096];
    for (size_t left = r->len; left > 0;) {
        size_t got, n = left < sizeof bin ? left : sizeof bin;
        if (pull(r, bin, n, &got, e)) return -1;
        left -= got;
        if (got < n) return too_short(r, tn_idx_header(r, NULL) + r->len - left, e);
    }
    if (tn_idx_end(r, e)) return -1;
    return tn_fail(e, "%s: damaged: its gzip trailer and its header disagree about its length", r->name);
}

/* Can the file hold what the header says? */
static int check_size(tn_idx *r, tn_err *e) {
    uint64_t want = tn_idx_header(r, NULL) + r->len;
    if (!r->gz && r->packed < want) return too_short(r, r->packed, e);
    if (!r->gz) return r->packed > want ? too_long(r, e) : 0;
    if (want >= BOMB_BYTES && want / BOMB_RATIO > r->packed)
        return tn_fail(
            e,
            "%s: refused: %llu bytes packed into %llu look like a gzip bomb; if it is none, unpack it "
            "with gunzip first",
            r->name, (unsigned long long)want, (unsigned long long)r->packed);
    return (uint32_t)want == r->says ? 0 : diagnose(r, e);
}

/* ---- opening ---- */

/* The file's size, whether it is gzip, and the trailer's length if so. */
static int look(tn_idx *r, tn_err *e) {
    unsigned char b[4];
    long size;
    if (fseek(r->f, 0, SEEK_END) || (size = ftell(r->f)) < 0 || fseek(r->f, 0, SEEK_SET))
        return unreadable(r, e);
    r->packed = (uint64_t)size;
    size_t n = fread(b, 1, 2, r->f);
    if (ferror(r->f)) return unreadable(r, e);
    r->gz = n == 2 && b[0] == 0x1f && b[1] == 0x8b;
    if (!r->gz) return fseek(r->f, 0, SEEK_SET) ? unreadable(r, e) : 0;
    if (r->packed < GZIP_LEAST)
        return tn_fail(e, "%s: truncated: too short for a gzip file; get it again", r->name);
    if (fseek(r->f, -4, SEEK_END) || fread(b, 1, 4, r->f) != 4 || fseek(r->f, 0, SEEK_SET))
        return unreadable(r, e);
    r->says = (uint32_t)b[3] << 24 | (uint32_t)b[2] << 16 | (uint32_t)b[1] << 8 | b[0];
    r->z.zalloc = z_alloc;
    r->z.zfree = z_free;
    if (inflateInit2(&r->z, 16 + MAX_WBITS) == Z_OK) return 0;
    r->gz = 0; /* nothing to end */
    return tn_fail(e, "%s: out of memory", r->name);
}

tn_idx *tn_idx_from(FILE *f, const char *name, tn_err *e) {
    tn_idx *r = tn_mem_new(sizeof *r);
    if (!r) {
        tn_fail(e, "%s: out of memory", name);
        fclose(f);
        return NULL;
    }
    r->f = f;
    r->name = name;
    if (look(r, e) || read_header(r, e) || check_shape(r, e) || check_size(r, e)) {
        tn_idx_close(r);
        return NULL;
    }
    return r;
}

tn_idx *tn_idx_open(const char *path, tn_err *e) {
    struct stat st;
    FILE *f = NULL;
    if (stat(path, &st) || (S_ISREG(st.st_mode) && !(f = fopen(path, "rb"))))
        tn_fail(e, "%s: cannot be opened: %s", path, strerror(errno));
    else if (!f)
        tn_fail(e, "%s: is %s, not a file", path, S_ISDIR(st.st_mode) ? "a directory" : "a device or pipe");
    return f ? tn_idx_from(f, path, e) : NULL;
}

void tn_idx_close(tn_idx *r) {
    if (!r) return;
    if (r->gz) inflateEnd(&r->z);
    fclose(r->f);
    tn_free(r);
}

/* ---- reading ---- */

int tn_idx_shape(const tn_idx *r, int dim[TN_IDX_MAX_DIM]) {
    memcpy(dim, r->dim, sizeof r->dim);
    return r->nd;
}

size_t tn_idx_len(const tn_idx *r) {
    return r->len;
}

size_t tn_idx_header(const tn_idx *r, const unsigned char **bytes) {
    if (bytes) *bytes = r->header;
    return 4 + 4 * (size_t)r->nd;
}

int tn_idx_read(tn_idx *r, void *to, size_t n, tn_err *e) {
    size_t got;
    if (pull(r, to, n, &got, e)) return -1;
    if (got == n) return 0;
    return tn_fail(e, "%s: truncated: ends %llu bytes too early; get it again", r->name,
                   (unsigned long long)(n - got));
}

int tn_idx_end(tn_idx *r, tn_err *e) {
    unsigned char more;
    size_t got;
    if (pull(r, &more, 1, &got, e)) return -1; /* drives the gzip stream to its checksum */
    if (got > 0) return too_long(r, e);
    if (r->gz && (r->z.avail_in > 0 || fgetc(r->f) != EOF))
        return tn_fail(
            e, "%s: bytes follow the end of its gzip stream; pack it anew with gzip, as one member", r->name);
    return 0;
}
