/* cuda_none.c - what stands where the program is built without CUDA: a library's member that is
 * linked only if nothing else defines these (see the Makefile). */
#include "cuda_dev.h"

int cuda_open(struct dev **d, int index, const struct backend_options *opt, struct err *e)
{
    (void)d;
    (void)opt;
    return err_set(e, ERR_UNSUPPORTED, "device cuda:%d: this program was built without CUDA",
                   index);
}

void cuda_close(struct dev *d)
{
    (void)d;
}

const char *cuda_describe(const struct dev *d)
{
    return d->name;
}
