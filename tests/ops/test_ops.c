/* test_ops.c - every op of every CPU table against the scalar definition.
 *
 *   build/tests/ops/test_ops [OP]             one op by name; * and ? are allowed
 *   build/tests/ops/test_ops --time [TYPE]    how fast it is: of one type of weights, or "layer" */
#include "ops/cases_cache.h"
#include "ops/time_ops.h"

#define OP(name) { #name, test_##name, reset_dice, NULL, NULL }

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        OP(embed),
        OP(embed_bad_token),
        OP(all_codes),
        OP(norm),
        OP(norm_heads),
        OP(matmul),
        OP(matmul_exact),
        OP(products),
        OP(gated),
        OP(matmul_grouped),
        OP(integer_sums),
        OP(same_on_all),
        OP(same_at_limits),
        OP(swiglu),
        OP(add),
        OP(rope),
        OP(hc_mix),
        OP(hc_spread),
        OP(hc_turn),
        OP(kv_store),
        OP(compress),
        OP(index_query),
        OP(prepare),
        OP(pick),
        OP(attend),
        OP(route),
        OP(experts),
        OP(sum_experts),
    };
    if (argc > 1 && strcmp(argv[1], "--time") == 0)
        return time_all(argc > 2 ? argv[2] : NULL);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    close_tables();
    return failed;
}
