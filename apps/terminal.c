/* SPDX-License-Identifier: MIT */
/* One live line on stderr; numbers for people. */
#include "terminal.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int showing;

int term_live(void) {
    const char *term = getenv("TERM");
    return isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
}

int term_color(void) {
    const char *no = getenv("NO_COLOR");
    return term_live() && !(no && *no);
}

int term_columns(int fd, int fallback) {
#ifdef TIOCGWINSZ
    struct winsize w;
    if (ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col > 0) return w.ws_col;
#else
    (void)fd;
#endif
    return fallback;
}

int term_unicode(void) {
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (int i = 0; i < 3; i++) {
        const char *v = getenv(names[i]);
        if (!v || !*v) continue;
        const char *dot = strchr(v, '.');
        return dot && (strncasecmp(dot + 1, "utf-8", 5) == 0 || strncasecmp(dot + 1, "utf8", 4) == 0);
    }
    return 0;
}

void term_line(const char *fmt, ...) {
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    int width = term_columns(STDERR_FILENO, 80) - 1;
    fprintf(stderr, "\r%.*s\033[K", width, line);
    fflush(stderr);
    showing = 1;
}

void term_clear(void) {
    if (!showing) return;
    fputs("\r\033[K", stderr);
    showing = 0;
}

void duration_text(double seconds, char out[24]) {
    long s = seconds > 0 && seconds < 1e9 ? (long)(seconds + 0.5) : 0;
    if (s >= 3600)
        snprintf(out, 24, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, 24, "%ld:%02ld", s / 60, s % 60);
}

void count_text(double n, char out[32]) {
    char digits[32];
    int len = snprintf(digits, sizeof digits, "%.0f", n > 0 && n < 1e15 ? n : 0), at = 0;
    for (int i = 0; i < len && at < 30; i++) {
        if (i && (len - i) % 3 == 0) out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = 0;
}
