/* SPDX-License-Identifier: MIT */
/*
 * Fuzzing the IDX reader: any bytes are either refused with a message or give exactly the values that the
 * header promises. With -DTN_LIBFUZZER and clang's -fsanitize=fuzzer,address,undefined it is driven by
 * libFuzzer; without, main() replays mutations of good files, the same ones each time, and any files named as
 * arguments.
 */
#include "data_internal.h"
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { VALUES_MOST = 1 << 22 };

static long accepted, refused;

static void require(int ok, const char *what) {
    if (ok) return;
    fprintf(stderr, "fuzz_idx: %s\n", what);
    abort();
}

static int read_all(tn_idx *f, size_t len, tn_err *e) {
    unsigned char *to = malloc(len);
    require(to != NULL, "out of memory");
    size_t half = len / 2;
    int rc = tn_idx_read(f, to, half, e) || tn_idx_read(f, to + half, len - half, e) || tn_idx_end(f, e);
    free(to);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tn_err e = {""};
    if (size == 0) return 0; /* fmemopen has no empty files */
    FILE *stream = fmemopen((void *)data, size, "rb");
    require(stream != NULL, "no stream");
    tn_idx *f = tn_idx_from(stream, "input", &e);
    int rc = -1;
    if (f) {
        int dim[TN_IDX_MAX_DIM];
        size_t len = 1, header = tn_idx_header(f, NULL);
        int nd = tn_idx_shape(f, dim), gz = size >= 2 && data[0] == 0x1f && data[1] == 0x8b;
        for (int i = 0; i < nd; i++) len *= (size_t)dim[i];
        require(len > 0 && len == tn_idx_len(f), "length is not the product of the dimensions");
        require(gz || header + len == size,
                "a plain file was accepted with another size than its header says");
        if (len <= VALUES_MOST) rc = read_all(f, len, &e);
        tn_idx_close(f);
        if (len > VALUES_MOST) return 0;
    }
    require((rc == 0) == (e.msg[0] == 0), "refused without a message, or accepted with one");
    rc ? refused++ : accepted++;
    return 0;
}

#ifndef TN_LIBFUZZER
enum { RUNS = 20000, MOST = 2048 };
typedef struct {
    unsigned char b[MOST];
    size_t n;
} bytes;

static uint64_t state = 1;
static unsigned
below(unsigned n) { /* an LCG of its own: the mutations stay the same whatever the library does */
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)((state >> 33) % n);
}

static bytes plain(int nd, const unsigned char dim[]) {
    bytes f = {.b = {0, 0, 8, (unsigned char)nd}, .n = 4};
    size_t len = 1;
    for (int i = 0; i < nd; i++, f.n += 4) {
        f.b[f.n + 3] = dim[i];
        len *= dim[i];
    }
    for (size_t i = 0; i < len; i++) f.b[f.n++] = (unsigned char)(i * i >> 3);
    return f;
}

static bytes packed(const bytes *f) {
    bytes g = {.n = 0};
    z_stream z = {
        .next_in = (unsigned char *)f->b, .avail_in = (unsigned)f->n, .next_out = g.b, .avail_out = MOST};
    require(deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) == Z_OK, "deflateInit2");
    require(deflate(&z, Z_FINISH) == Z_STREAM_END, "deflate");
    g.n = z.total_out;
    deflateEnd(&z);
    return g;
}

/* One to four changes, most of them near the header. */
static void mutate(bytes *f) {
    for (unsigned k = 1 + below(4); k > 0; k--) {
        unsigned at = below(2) && f->n > 20 ? below(20) : below((unsigned)f->n);
        switch (below(6)) {
        case 0:
            f->b[at] ^= (unsigned char)(1u << below(8));
            break;
        case 1:
            f->b[at] = (unsigned char)below(256);
            break;
        case 2:
            f->b[at] = below(2) ? 0xff : 0;
            break;
        case 3:
            f->n = at + 1;
            break;
        case 4:
            if (f->n < MOST) f->b[f->n++] = (unsigned char)below(256);
            break;
        case 5:
            f->b[f->n - 1 - below(f->n < 8 ? (unsigned)f->n : 8)] ^= (unsigned char)(1u << below(8));
            break;
        }
    }
}

static int replay(const char *path) {
    static unsigned char b[1 << 24];
    FILE *f = fopen(path, "rb");
    if (!f) return perror(path), 1;
    size_t n = fread(b, 1, sizeof b, f);
    fclose(f);
    return LLVMFuzzerTestOneInput(b, n);
}

int main(int argc, char **argv) {
    const bytes seed[] = {plain(3, (unsigned char[]){6, 7, 5}), plain(1, (unsigned char[]){60}),
                          plain(4, (unsigned char[]){2, 3, 4, 5})};
    enum { SEEDS = sizeof seed / sizeof *seed };
    for (int i = 1; i < argc; i++)
        if (replay(argv[i])) return 1;
    for (int i = 0; i < SEEDS; i++) {
        bytes g = packed(&seed[i]);
        LLVMFuzzerTestOneInput(seed[i].b, seed[i].n);
        LLVMFuzzerTestOneInput(g.b, g.n);
    }
    require(argc > 1 || (accepted == 2 * SEEDS && refused == 0), "a good file was refused");
    for (int i = 0; i < RUNS; i++) { /* changed, then packed; changed after packing; both */
        bytes f = seed[below(SEEDS)];
        unsigned how = below(4);
        if (how != 1) mutate(&f);
        if (how > 0) f = packed(&f);
        if (how == 1 || how == 3) mutate(&f);
        LLVMFuzzerTestOneInput(f.b, f.n);
    }
    printf("fuzz_idx: %ld accepted, %ld refused\n", accepted, refused);
    return accepted > RUNS / 100 && refused > RUNS / 2 ? 0 : 1;
}
#endif
