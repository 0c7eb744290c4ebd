/* cpu.h - what this machine has, and what of it this process may use. */
#ifndef DS_CPU_H
#define DS_CPU_H

#include "base.h"

/* Instruction sets as a bit mask; a caller may clear bits to force a weaker path. */
enum cpu_isa {
    CPU_AVX2 = 1 << 0,       /* with FMA and F16C */
    CPU_AVX512VNNI = 1 << 1, /* AVX-512 F BW VL DQ and VNNI */
    CPU_AMX_INT8 = 1 << 2,
    CPU_NEON = 1 << 8,
    CPU_DOTPROD = 1 << 9,
    CPU_I8MM = 1 << 10,
};

unsigned cpu_isa_detect(void);

/* Processors this process may use at once: affinity mask and cgroup quota (v1 and v2), >= 1. */
int cpu_count(void);

/* Bytes of memory: of the machine or the cgroup, whichever is less; and what of it can be had
 * now without swapping. 0: unknown. */
size_t cpu_memory_total(void);
size_t cpu_memory_available(void);

/* Resident bytes of this process now, and at most so far; anonymous part now. 0: unknown. */
struct cpu_rss {
    size_t now, peak, anonymous;
};
struct cpu_rss cpu_rss(void);

/* "AMD EPYC 7763", or "" when unknown. */
void cpu_name(char *out, size_t cap);

#endif
