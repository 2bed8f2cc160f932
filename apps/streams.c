/* SPDX-License-Identifier: MIT */
/*
 * SIGPIPE is ignored while a command works (signals.h): a run goes on when nobody reads its output any more. So the
 * closed pipe is found at the end, by a look at stdout itself: errno may be that of another write.
 */
#include "streams.h"
#include "args.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

void streams_start(void) {
    /* open takes the lowest number that is free; the wrong way round, so that use is an error as it was */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) == -1) (void)!open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

static int reader_gone(void) {
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&out, 1, 0) == 1 && (out.revents & (POLLERR | POLLHUP));
}

int streams_end(const char *name, int code) {
    if (!fflush(stdout) && !ferror(stdout)) return code;
    if (reader_gone()) {
        if (code != EXIT_OK) return code; /* which has said why */
        signal(SIGPIPE, SIG_DFL);
        raise(SIGPIPE);
        return EXIT_FAILED; /* the signal is blocked */
    }
    fprintf(stderr, "tern %s: cannot write to stdout\n", name);
    return code == EXIT_OK ? EXIT_FAILED : code;
}
