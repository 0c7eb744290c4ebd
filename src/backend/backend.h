/* backend.h - the devices this build knows. */
#ifndef DS_BACKEND_H
#define DS_BACKEND_H

#include "dev.h"

struct backend_options {
    int n_thread;     /* 0: as many as the process may use */
    unsigned isa;     /* CPU instruction sets allowed (cpu.h); ~0u: all there are; 0: plain C */
    bool exact;       /* never round activations to 8 bits */
};

/* "cpu", "ref" (the scalar definition), "cuda" or "cuda:N". The scratch arena is still without
 * memory. */
int dev_open(struct dev **d, const char *name, const struct backend_options *opt, struct err *e);
void dev_close(struct dev *d);

/* "AVX2, 2 threads". */
const char *dev_describe(const struct dev *d);

/* Threads that compute. */
int dev_n_thread(const struct dev *d);

/* All threads do n turns of the most operations that the kernels' instructions could do: fused
 * multiply-adds of float32, or dot products of bytes. Returns how many operations that was; 0: not
 * known, nothing was done. */
double dev_peak(const struct dev *d, bool bytes, int n);

#endif
