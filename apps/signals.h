/* SPDX-License-Identifier: MIT */
/*
 * SIGINT and SIGTERM end a run after its step, SIGUSR1 asks for a checkpoint; SIGXFSZ and SIGPIPE become
 * errors.
 */
#ifndef TERN_APP_SIGNALS_H
#define TERN_APP_SIGNALS_H
#include <signal.h>

extern volatile sig_atomic_t signal_stop; /* the signal that asked to stop, or 0 */
extern volatile sig_atomic_t signal_save; /* 1: SIGUSR1 came */
/* At the start of every command: writes that go too far fail instead of killing. */
void signals_ignore(void);
/* For commands that can stop in an orderly way. A second signal of the same kind kills as usual. */
void signals_catch(void);
#endif
