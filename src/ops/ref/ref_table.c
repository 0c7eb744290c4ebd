/* ref_table.c - the scalar device's table, and the start of every other one. */
#include "ref.h"

const struct ops ref_ops = {
    .embed = ref_embed,
    .gather = ref_gather,
    .norm = ref_norm,
    .norm_heads = ref_norm_heads,
    .matmul = ref_matmul,
    .matmul_exact = ref_matmul,
    .matmul_grouped = ref_matmul_grouped,
    .swiglu = ref_swiglu,
    .add = ref_add,
    .rope = ref_rope,
    .hc_mix = ref_hc_mix,
    .hc_spread = ref_hc_spread,
    .hc_head = ref_hc_head,
    .kv_store = ref_kv_store,
    .compress = ref_compress,
    .index_query = ref_index_query,
    .pick = ref_pick,
    .attend = ref_attend,
    .route = ref_route,
    .experts = ref_experts,
    .sum_experts = ref_sum_experts,
};
