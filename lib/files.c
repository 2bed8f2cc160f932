/* SPDX-License-Identifier: MIT */
/* tn_write_file: a file is replaced whole or stays as it was, whatever goes wrong on the way. */
#include "internal.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int write_all(int fd, const char *p, size_t n) {
    while (n) {
        ssize_t k = write(fd, p, n < 1 << 30 ? n : 1 << 30);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return -1;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

/* Devices and pipes know no fsync; that is no error. */
static int sync_file(int fd) {
    return fsync(fd) && errno != EINVAL && errno != ENOTSUP && errno != EROFS ? -1 : 0;
}

/* The new name is on the disk only when its directory is. Best effort: some file systems refuse. */
static void sync_directory(const char *path) {
    const char *slash = strrchr(path, '/');
    char *dir = tn_mem_new(strlen(path) + 2);
    if (!dir) return;
    if (slash)
        memcpy(dir, path, slash == path ? 1 : (size_t)(slash - path));
    else
        dir[0] = '.';
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    tn_free(dir);
}

static int write_direct(const char *path, const void *data, size_t n, tn_err *e) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return tn_fail(e, "%s: cannot write: %s", path, strerror(errno));
    int bad = write_all(fd, data, n), why = errno;
    if (close(fd) && !bad) bad = -1, why = errno;
    return bad ? tn_fail(e, "%s: cannot write: %s", path, strerror(why)) : 0;
}

int tn_write_file(const char *path, const void *data, size_t n, tn_err *e) {
    struct stat st;
    int exists = stat(path, &st) == 0;
    if (exists && S_ISDIR(st.st_mode)) return tn_fail(e, "%s: is a directory", path);
    if (exists && !S_ISREG(st.st_mode)) return write_direct(path, data, n, e);

    size_t cap = strlen(path) + 32;
    char *temp = tn_mem_new(cap);
    if (!temp) return tn_fail(e, "%s: not enough memory to write it", path);
    snprintf(temp, cap, "%s.tmp%ld", path, (long)getpid());
    int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    int made = fd >= 0, bad = !made || write_all(fd, data, n) || sync_file(fd), why = errno;
    if (made && close(fd) && !bad) bad = 1, why = errno;
    if (!bad && rename(temp, path)) bad = 1, why = errno;
    if (bad) {
        if (made) unlink(temp);
        tn_fail(e, "%s: cannot write: %s%s", path, strerror(why),
                exists ? "; the old file is unchanged" : "");
    } else {
        sync_directory(path);
    }
    tn_free(temp);
    return bad ? -1 : 0;
}
