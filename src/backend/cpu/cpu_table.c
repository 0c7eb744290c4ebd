/* cpu_table.c - which implementation of what: plain C first, overwritten by better instruction
 * sets from the weakest to the strongest, as far as the machine and the caller allow. */
#include "cpu_ops_impl.h"

#include "cpu.h"
#include "ref.h"

#if defined(__x86_64__)
static void fill_best(struct cpu_kernels *k, unsigned isa)
{
    if (isa & CPU_AVX2) {
        cpu_kernels_avx2(k);
        cpu_peak_avx2(k);
    }
    if ((isa & CPU_AVX2) && (isa & CPU_AVX512VNNI)) {
        cpu_kernels_avx512(k);
        cpu_blend_avx512(k);
        cpu_peak_avx512(k);
    }
    if ((isa & CPU_AVX2) && (isa & CPU_AVX512VNNI) && (isa & CPU_AMX_INT8))
        cpu_kernels_amx(k);
}
#elif defined(__aarch64__)
static void fill_best(struct cpu_kernels *k, unsigned isa)
{
    if (isa & CPU_NEON)
        cpu_kernels_neon(k);
    if ((isa & CPU_NEON) && (isa & CPU_DOTPROD))
        cpu_kernels_dotprod(k);
    if ((isa & CPU_NEON) && (isa & CPU_DOTPROD) && (isa & CPU_I8MM))
        cpu_kernels_i8mm(k);
}
#else
static void fill_best(struct cpu_kernels *k, unsigned isa)
{
    (void)k;
    (void)isa;
}
#endif

void cpu_kernels_fill(struct cpu *c)
{
    cpu_kernels_plain(&c->k);
    fill_best(&c->k, c->isa);
}

struct product_kernel cpu_product_kernel(const struct cpu *c, enum dtype type, bool exact)
{
    struct product_kernel k = c->k.product[TYPE_SLOT(type)];
    if ((exact || c->exact) && k.form != ACT_F32)
        return (struct product_kernel){ .form = ACT_F32 };
    return k;
}

void cpu_ops_fill(struct ops *ops)
{
    *ops = ref_ops;
    ops->embed = cpu_embed;
    ops->norm = cpu_norm;
    ops->norm_heads = cpu_norm_heads;
    ops->matmul = cpu_matmul;
    ops->matmul_exact = cpu_matmul_exact;
    ops->matmul_grouped = cpu_matmul_grouped;
    ops->swiglu = cpu_swiglu;
    ops->add = cpu_add;
    ops->rope = cpu_rope;
    ops->hc_mix = cpu_hc_mix;
    ops->hc_spread = cpu_hc_spread;
    ops->hc_head = cpu_hc_head;
    ops->kv_store = cpu_kv_store;
    ops->compress = cpu_compress;
    ops->index_query = cpu_index_query;
    ops->pick = cpu_pick;
    ops->attend = cpu_attend;
    ops->route = cpu_route;
    ops->experts = cpu_experts;
    ops->sum_experts = cpu_sum_experts;
}
