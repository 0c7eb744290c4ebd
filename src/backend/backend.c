/* backend.c - devices by name. */
#include "backend.h"

#include "cpu_dev.h"
#include "cuda_dev.h"
#include "ref.h"

#include <stdlib.h>

static int ref_open(struct dev **out, struct err *e)
{
    struct dev *d = calloc(1, sizeof *d);
    if (!d)
        return err_set(e, ERR_NO_MEMORY, "device ref: out of memory");
    d->name = "ref";
    d->ops = &ref_ops;
    d->layer = -1;
    *out = d;
    return 0;
}

/* The N of "cuda:N", 0 for "cuda"; -1: something else. */
static int gpu_of(const char *name)
{
    if (strncmp(name, "cuda", 4) != 0 || (name[4] && name[4] != ':'))
        return -1;
    if (!name[4])
        return 0;
    return name[5] >= '0' && name[5] <= '9' && !name[6] ? name[5] - '0' : -1;
}

int dev_open(struct dev **d, const char *name, const struct backend_options *opt, struct err *e)
{
    *d = NULL;
    if (strcmp(name, "ref") == 0)
        return ref_open(d, e);
    if (strcmp(name, "cpu") == 0)
        return cpu_open(d, opt, e);
    if (gpu_of(name) >= 0)
        return cuda_open(d, gpu_of(name), opt, e);
    return err_set(e, ERR_ARGUMENT, "device \"%s\" is not known; there are \"auto\", \"cpu\", "
                   "\"cuda\", \"cuda:1\" and so on, and \"ref\"", name);
}

void dev_close(struct dev *d)
{
    if (d && dev_is_apart(d))
        cuda_close(d);
    else if (d && d->impl)
        cpu_close(d);
    else
        free(d);
}

const char *dev_describe(const struct dev *d)
{
    if (dev_is_apart(d))
        return cuda_describe(d);
    return d->impl ? cpu_describe(d) : "scalar definition, 1 thread";
}

int dev_n_thread(const struct dev *d)
{
    return d->impl && !dev_is_apart(d) ? cpu_n_thread(d) : 1;
}

double dev_peak(const struct dev *d, bool bytes, int n)
{
    return d->impl && !dev_is_apart(d) ? cpu_peak(d, bytes, n) : 0;
}
