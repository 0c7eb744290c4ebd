/* cpu.c - processors, memory and instruction sets, from the compiler's CPUID helpers, /proc
 * and the cgroup files. A container's quota counts: threads beyond it only wait. */
#define _GNU_SOURCE
#include "cpu.h"

#include "pressure.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#endif

#if defined(__x86_64__) && defined(__linux__)
/* The tile unit's state is large, so Linux gives it only to a process that asks, once for all
 * threads that are made later. */
static bool may_use_tiles(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#elif defined(__x86_64__)
static bool may_use_tiles(void)
{
    return false;
}
#endif

#if defined(__x86_64__)
static bool has_tiles(void)
{
    enum { TILE = 1 << 24, INT8 = 1 << 25 }; /* leaf 7, EDX */
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & TILE) && (d & INT8) && may_use_tiles();
}
#endif

unsigned cpu_isa_detect(void)
{
    unsigned isa = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        isa |= CPU_AVX2;
    if ((isa & CPU_AVX2) && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni"))
        isa |= CPU_AVX512VNNI;
    if ((isa & CPU_AVX512VNNI) && has_tiles())
        isa |= CPU_AMX_INT8;
#elif defined(__aarch64__) && defined(__linux__)
    unsigned long cap = getauxval(AT_HWCAP), cap2 = getauxval(AT_HWCAP2);
    isa |= CPU_NEON;
    if (cap & HWCAP_ASIMDDP)
        isa |= CPU_DOTPROD;
    if (cap2 & HWCAP2_I8MM)
        isa |= CPU_I8MM;
#endif
    return isa;
}

/* First line of a small file as numbers; "max" reads as -1. Returns how many were found. */
static int read_numbers(const char *path, double *a, double *b)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    char first[64], second[64];
    int n = fscanf(f, "%63s %63s", first, second);
    fclose(f);
    if (n >= 1)
        *a = strcmp(first, "max") == 0 ? -1 : strtod(first, NULL);
    if (n >= 2)
        *b = strtod(second, NULL);
    return MAX(n, 0);
}

int cpu_count(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = CPU_COUNT(&set);
    double quota = -1, period = 100000, quota1 = -1, period1 = 100000, unused;
    read_numbers("/sys/fs/cgroup/cpu.max", &quota, &period);
    if (quota <= 0 && read_numbers("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", &quota1, &unused)) {
        read_numbers("/sys/fs/cgroup/cpu/cpu.cfs_period_us", &period1, &unused);
        quota = quota1;
        period = period1;
    }
    if (quota > 0 && period > 0)
        n = MIN(n, (long)((quota + period - 1) / period));
    return n < 1 ? 1 : (int)n;
}

/* A "Key:   123 kB" line of a /proc file, in bytes. */
static size_t proc_kb(const char *path, const char *key)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    char line[256];
    size_t n = strlen(key), bytes = 0;
    while (fgets(line, sizeof line, f))
        if (strncmp(line, key, n) == 0 && line[n] == ':') {
            bytes = (size_t)strtoull(line + n + 1, NULL, 10) * 1024;
            break;
        }
    fclose(f);
    return bytes;
}

size_t cpu_memory_total(void)
{
    struct pressure p;
    pressure_read(&p, "");
    return p.limit;
}

size_t cpu_memory_available(void)
{
    struct pressure p;
    pressure_read(&p, "");
    return p.free;
}

struct cpu_rss cpu_rss(void)
{
    return (struct cpu_rss){
        .now = proc_kb("/proc/self/status", "VmRSS"),
        .peak = proc_kb("/proc/self/status", "VmHWM"),
        .anonymous = proc_kb("/proc/self/status", "RssAnon"),
    };
}

void cpu_name(char *out, size_t cap)
{
    snprintf(out, cap, "%s", "");
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (!f)
        return;
    char line[256];
    while (fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon) {
            line[strcspn(line, "\n")] = 0;
            snprintf(out, cap, "%s", colon + 2);
            break;
        }
    }
    fclose(f);
}
