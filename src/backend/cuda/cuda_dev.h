/* cuda_dev.h - an NVIDIA GPU as a device. See docs/cuda.md. */
#ifndef DS_CUDA_DEV_H
#define DS_CUDA_DEV_H

#include "backend.h"

/* GPU number `index`. ERR_UNSUPPORTED without a driver or without that GPU. */
int cuda_open(struct dev **d, int index, const struct backend_options *opt, struct err *e);
void cuda_close(struct dev *d);
const char *cuda_describe(const struct dev *d);

/* Memory of the device, contents unset; and what of it is free. */
int cuda_memory_new(struct dev *d, void **mem, size_t bytes, struct err *e);
void cuda_memory_free(struct dev *d, void *mem);
size_t cuda_memory_left(const struct dev *d, size_t *all);

/* Memory of the host that kernels read in place. */
int cuda_host_new(struct dev *d, void **mem, size_t bytes, struct err *e);
void cuda_host_free(struct dev *d, void *mem);

#endif
