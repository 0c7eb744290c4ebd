/* backend.c - devices by name. */
#include "backend.h"

#include "cpu_dev.h"
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

int dev_open(struct dev **d, const char *name, const struct backend_options *opt, struct err *e)
{
    *d = NULL;
    if (strcmp(name, "ref") == 0)
        return ref_open(d, e);
    if (strcmp(name, "cpu") == 0)
        return cpu_open(d, opt, e);
    return err_set(e, ERR_ARGUMENT, "device \"%s\" is not known; there are \"cpu\" and \"ref\"",
                   name);
}

void dev_close(struct dev *d)
{
    if (d && d->impl)
        cpu_close(d);
    else
        free(d);
}

const char *dev_describe(const struct dev *d)
{
    return d->impl ? cpu_describe(d) : "scalar definition, 1 thread";
}

int dev_n_thread(const struct dev *d)
{
    return d->impl ? cpu_n_thread(d) : 1;
}

double dev_peak(const struct dev *d, bool bytes, int n)
{
    return d->impl ? cpu_peak(d, bytes, n) : 0;
}
