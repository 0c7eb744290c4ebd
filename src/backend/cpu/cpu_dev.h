/* cpu_dev.h - the processor as a device. */
#ifndef DS_CPU_DEV_H
#define DS_CPU_DEV_H

#include "backend.h"

int cpu_open(struct dev **d, const struct backend_options *opt, struct err *e);
void cpu_close(struct dev *d);
const char *cpu_describe(const struct dev *d);
int cpu_n_thread(const struct dev *d);
double cpu_peak(const struct dev *d, bool bytes, int n);

#endif
