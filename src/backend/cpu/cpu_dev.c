/* cpu_dev.c - opening and closing the processor. Ops run to their end before they return, so
 * there is nothing to wait for. */
#include "cpu_dev.h"

#include "cpu.h"
#include "cpu_impl.h"

#include <stdio.h>
#include <stdlib.h>

static const char *isa_name(unsigned isa)
{
    if (isa & CPU_NEON)
        return !(isa & CPU_DOTPROD) ? "NEON"
               : isa & CPU_I8MM     ? "NEON with i8mm"
                                    : "NEON with dotprod";
    if (!(isa & CPU_AVX2))
        return "plain C";
    if (isa & CPU_AMX_INT8)
        return "AVX-512 and AMX";
    return isa & CPU_AVX512VNNI ? "AVX-512" : "AVX2";
}

int cpu_open(struct dev **d, const struct backend_options *opt, struct err *e)
{
    struct cpu *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(e, ERR_NO_MEMORY, "device cpu: out of memory");
    int n_thread = opt->n_thread > 0 ? opt->n_thread : cpu_count();
    if (pool_new(&c->pool, n_thread, e) < 0) {
        free(c);
        return e ? e->code : ERR_NO_MEMORY;
    }
    c->isa = cpu_isa_detect() & opt->isa;
    c->exact = opt->exact;
    cpu_kernels_fill(c);
    cpu_ops_fill(&c->ops);
    snprintf(c->describe, sizeof c->describe, "%s, %d thread%s%s",
             isa_name(c->isa), n_thread, n_thread == 1 ? "" : "s",
             c->exact ? ", exact" : "");
    c->dev = (struct dev){ .name = "cpu", .ops = &c->ops, .layer = -1, .impl = c };
    *d = &c->dev;
    return 0;
}

void cpu_close(struct dev *d)
{
    struct cpu *c = cpu_of(d);
    pool_free(c->pool);
    free(c);
}

const char *cpu_describe(const struct dev *d)
{
    return cpu_of(d)->describe;
}

int cpu_n_thread(const struct dev *d)
{
    return pool_size(cpu_of(d)->pool);
}

struct peak {
    const struct peak_kernel *kernel;
    int n;
};

static void peak_task(void *ctx, int task, int worker)
{
    const struct peak *p = ctx;
    (void)task;
    (void)worker;
    p->kernel->run(p->n);
}

double cpu_peak(const struct dev *d, bool bytes, int n)
{
    const struct cpu *c = cpu_of(d);
    struct peak p = { bytes ? &c->k.peak_int : &c->k.peak_float, n };
    if (!p.kernel->run)
        return 0;
    pool_run(c->pool, peak_task, &p, pool_size(c->pool));
    return p.kernel->flops * n * pool_size(c->pool);
}
