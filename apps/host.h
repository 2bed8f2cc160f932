/* SPDX-License-Identifier: MIT */
/* What a run's files say about the machine and the build; and what of it may change bits. */
#ifndef TERN_APP_HOST_H
#define TERN_APP_HOST_H
#include <jansson.h>
#include <stddef.h>

/* Real type, kernels and, for OpenBLAS, its core type: runs whose modes differ may differ in bits. */
void host_numeric_mode(char *out, size_t cap);
/* {"tern", "compiler", "simd", "gemm", "blas", "cpu", "cores", "threads", "os"} */
json_t *host_json(void);
/* One line of the same for the head of a benchmark or a run. */
void host_line(char *out, size_t cap);
long host_peak_kib(void); /* most memory this process has held */
int host_cores(void);
#endif
