/* SPDX-License-Identifier: MIT */
/*
 * Optimizers from shared objects. What TN_OPTIM_PLUGIN left in the file is read and checked before the file is loaded,
 * since loading already runs its constructors. A file that was loaded stays so: definitions have no owner.
 */
#include "optim_private.h"
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/*
 * TN_PLUGIN_MAGIC in two parts, so that this file's own constant is no mark where a plug-in is linked with tern.
 */
static const char first_byte = '\177', tail[] = "tern-optimizer";
_Static_assert(sizeof tail + 1 == sizeof TN_PLUGIN_MAGIC, "TN_PLUGIN_MAGIC");

static unsigned char *read_file(const char *path, size_t *len, tn_err *e) {
    const size_t most = (size_t)1 << 28;
    struct stat st = {0};
    /* a look before it is opened: to open a pipe waits for whoever writes to it */
    FILE *f = stat(path, &st) == 0 && S_ISFIFO(st.st_mode) ? NULL : fopen(path, "rb");
    if (!f && S_ISFIFO(st.st_mode)) {
        tn_fail(e, "%.200s: is no file; a plug-in is a shared object", path);
        return NULL;
    }
    if (!f || fstat(fileno(f), &st)) {
        tn_fail(e, "%.200s: cannot read this plug-in: %s", path, strerror(errno));
        if (f) fclose(f);
        return NULL;
    }
    unsigned char *bytes = NULL;
    *len = S_ISREG(st.st_mode) && st.st_size > 0 ? (size_t)st.st_size : 0;
    if (!S_ISREG(st.st_mode))
        tn_fail(e, "%.200s: is no file; a plug-in is a shared object", path);
    else if (*len > most)
        tn_fail(e, "%.200s: is too large for a plug-in", path);
    else if (!(bytes = tn_mem_raw(*len + 1)))
        tn_fail(e, "%.200s: out of memory", path);
    else if (fread(bytes, 1, *len, f) != *len) {
        tn_fail(e, "%.200s: cannot read this plug-in: %s", path, strerror(errno));
        tn_free(bytes);
        bytes = NULL;
    }
    fclose(f);
    return bytes;
}

/* ELF's type 3 is a shared object. */
static int check_kind(const char *path, const unsigned char *b, size_t len, tn_err *e) {
    static const unsigned char macho[][4] = {{0xcf, 0xfa, 0xed, 0xfe}, {0xca, 0xfe, 0xba, 0xbe}};
    if (len > 64 && (!memcmp(b, macho[0], 4) || !memcmp(b, macho[1], 4))) return 0;
    if (len <= 64 || memcmp(b, "\177ELF", 4) != 0)
        return tn_fail(e, "%.200s: is no shared object; compile a plug-in with cc -shared -fPIC", path);
    if ((b[16] | b[17]) == 3) return 0;
    return tn_fail(
        e, "%.200s: is an object file or a program, no shared object; link it with cc -shared -fPIC", path);
}

static int check_mark(const char *path, const tn_plugin_mark *m, tn_err *e) {
    static const char again[] = "compile it with the header of this one";
    if (m->abi != TN_ABI || m->def_size > sizeof(tn_optim_def) || m->tensor_size != sizeof(tn_opt_tensor)
        || m->tick_size != sizeof(tn_tick))
        return tn_fail(e, "%.200s: was compiled for tern %.15s, this is %s: %s", path, m->version, TN_VERSION,
                       again);
    if (m->real_size != sizeof(tn_real))
        return tn_fail(e, "%.200s: was compiled for %s, this tern computes in %s: compile it %s TN_DOUBLE",
                       path, m->real_size == sizeof(double) ? "double" : "float",
                       sizeof(tn_real) == sizeof(double) ? "double" : "float",
                       sizeof(tn_real) == sizeof(double) ? "with" : "without");
    return 0;
}

/* Every mark in the file has to fit, and there has to be one. */
static int check_marks(const char *path, const unsigned char *b, size_t len, tn_err *e) {
    int found = 0;
    for (size_t i = 0; i + sizeof(tn_plugin_mark) <= len; i++) {
        const unsigned char *at = memchr(b + i, first_byte, len - sizeof(tn_plugin_mark) - i + 1);
        tn_plugin_mark m;
        if (!at) break;
        i = (size_t)(at - b);
        if (memcmp(at + 1, tail, sizeof tail) != 0) continue;
        memcpy(&m, at, sizeof m);
        m.version[sizeof m.version - 1] = 0;
        if (check_mark(path, &m, e)) return -1;
        found = 1;
    }
    if (found) return 0;
    return tn_fail(e, "%.200s: is no optimizer for tern: it lacks the mark that TN_OPTIM_PLUGIN leaves",
                   path);
}

const tn_optim_def *tn_optim_load(const char *path, tn_err *e) {
    size_t len;
    unsigned char *bytes = read_file(path, &len, e);
    if (!bytes) return NULL;
    int bad = check_kind(path, bytes, len, e) || check_marks(path, bytes, len, e);
    tn_free(bytes);
    if (bad) return NULL;
    /* without a slash the loader would look elsewhere */
    char *here = tn_mem_new(strlen(path) + 3);
    if (!here) {
        tn_fail(e, "%.200s: out of memory", path);
        return NULL;
    }
    strcat(strcpy(here, strchr(path, '/') ? "" : "./"), path);
    void *handle = dlopen(here, RTLD_NOW | RTLD_LOCAL);
    tn_free(here);
    const tn_optim_def *const *def = handle ? dlsym(handle, "tn_plugin_definition") : NULL;
    if (!def || !*def) {
        const char *why = dlerror();
        tn_fail(e, "%.200s: cannot be loaded: %.300s", path, why ? why : "it has no definition");
        return NULL;
    }
    return *def;
}
