/* SPDX-License-Identifier: MIT */
/* One live line on stderr, where stderr is a terminal that can rewrite it. */
#ifndef TERN_APP_TERMINAL_H
#define TERN_APP_TERMINAL_H
#include "tern.h"

int term_live(void);  /* stderr is a terminal, and TERM is not "dumb" */
int term_color(void); /* and NO_COLOR is not set (https://no-color.org) */
int term_columns(int fd, int fallback);
int term_unicode(void); /* the locale's character set is UTF-8 */
void term_line(const char *fmt, ...)
    TN_PRINTF(1, 2);   /* replaces the live line, cut to the terminal's width */
void term_clear(void); /* removes it; before any other output */
/* "1:02:03", "4:05", "0:07" */
void duration_text(double seconds, char out[24]);
/* "1,234,567" */
void count_text(double n, char out[32]);
#endif
