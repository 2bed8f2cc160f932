/* SPDX-License-Identifier: MIT */
/* stdin, stdout and stderr from a command's start to its end. */
#ifndef TERN_APP_STREAMS_H
#define TERN_APP_STREAMS_H

/* First of all: a standard stream that is closed must not become the next file that is opened. */
void streams_start(void);
/*
 * Last of all: the exit code, which is EXIT_FAILED if code is EXIT_OK and stdout did not take everything. When
 * whoever read stdout has gone (tern list | head -1), a command that went well ends here as by SIGPIPE, without a
 * word; its files are all written by then. name: of the command, for the message.
 */
int streams_end(const char *name, int code);
#endif
