/* SPDX-License-Identifier: MIT */
/* Signals only set flags. */
#include "signals.h"
#include <stddef.h>

volatile sig_atomic_t signal_stop, signal_save;

static void on_stop(int sig) {
    signal_stop = sig;
}

static void on_save(int sig) {
    (void)sig;
    signal_save = 1;
}

static void handle(int sig, void (*fn)(int), int flags) {
    struct sigaction a = {.sa_handler = fn, .sa_flags = flags};
    sigemptyset(&a.sa_mask);
    sigaction(sig, &a, NULL);
}

void signals_ignore(void) {
    handle(SIGXFSZ, SIG_IGN, 0);
    handle(SIGPIPE, SIG_IGN, 0);
}

void signals_catch(void) {
    handle(SIGINT, on_stop, (int)SA_RESETHAND | SA_RESTART);
    handle(SIGTERM, on_stop, (int)SA_RESETHAND | SA_RESTART);
    handle(SIGUSR1, on_save, SA_RESTART);
}
