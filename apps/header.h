/* SPDX-License-Identifier: MIT */
/* The head of a run on the terminal. */
#ifndef TERN_APP_HEADER_H
#define TERN_APP_HEADER_H
#include "run_state.h"

void header_print(FILE *, const run *);
#endif
