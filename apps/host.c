/* SPDX-License-Identifier: MIT */
/* The machine and the build in words. */
#include "host.h"
#include "tern.h"
#include <cblas.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define COMPILER "gcc " __VERSION__
#else
#define COMPILER "unknown compiler"
#endif

void host_numeric_mode(char *out, size_t cap) {
    const char *backend = tn_gemm_backend_name();
    int blas = strcmp(backend, "openblas") == 0;
    snprintf(out, cap, "float%d %s%s%s", (int)(8 * sizeof(tn_real)), backend, blas ? ":" : "",
             blas ? openblas_get_corename() : "");
}

static void cpu_name(char *out, size_t cap) {
    char line[512];
    snprintf(out, cap, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, "model name", 10) != 0) continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(out, cap, "%s", colon + 2);
        break;
    }
    if (f) fclose(f);
}

int host_cores(void) {
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

static const char *simd(void) {
    const char *level = tn_simd(NULL);
    return level ? level : "unknown";
}

json_t *host_json(void) {
    char cpu[256];
    struct utsname u;
    cpu_name(cpu, sizeof cpu);
    if (uname(&u)) strcpy(u.sysname, "unknown"), u.release[0] = u.machine[0] = 0;
    char os[sizeof u.sysname + sizeof u.release + sizeof u.machine + 3];
    snprintf(os, sizeof os, "%s %s %s", u.sysname, u.release, u.machine);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:s}", "tern", tn_version(), "compiler",
                     COMPILER, "simd", simd(), "gemm", tn_gemm_backend_name(), "openblas",
                     openblas_get_config(), "openblas_core", openblas_get_corename(), "cpu", cpu, "cores",
                     host_cores(), "threads", tn_threads(), "os", os);
}

void host_line(char *out, size_t cap) {
    char cpu[256];
    cpu_name(cpu, sizeof cpu);
    snprintf(out, cap, "tern %s, %s kernels (%s), OpenBLAS core %s, %s, %s, %d core%s", tn_version(),
             tn_gemm_backend_name(), simd(), openblas_get_corename(), COMPILER, cpu, host_cores(),
             host_cores() == 1 ? "" : "s");
}

long host_peak_kib(void) {
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u)) return 0;
#ifdef __APPLE__
    return (long)(u.ru_maxrss / 1024);
#else
    return (long)u.ru_maxrss;
#endif
}
