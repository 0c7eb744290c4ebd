/* test_recipe.c - which rule a tensor meets, and rules that cannot be read. */
#include "unit/scratch_dir.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "recipe.h"

static struct recipe parse(const char *text)
{
    struct recipe r;
    struct err e = { 0 };
    if (recipe_parse(&r, "R", text, &e) < 0)
        fail_msg("%s", e.text);
    return r;
}

static int line_of(const struct recipe *r, const char *name, int layer)
{
    const struct recipe_rule *rule = recipe_find(r, name, layer);
    return rule ? rule->line : 0;
}

static void first_match(void **state)
{
    (void)state;
    struct recipe r = parse("# a remark\n"
                            "blk.*.ffn_down_exps.weight Q4_K layers=37-42\n"
                            "\tblk.*.ffn_down_exps.weight\tQ2_K   # the others\r\n"
                            "\n"
                            "*_a.*ight F16\n"
                            "output.weight Q8_0\n"
                            "blk.7.* F32 layers=8\n"
                            "blk.7.*rm.weight BF16");
    assert_int_equal(r.n_rule, 6);
    assert_int_equal(line_of(&r, "blk.37.ffn_down_exps.weight", 37), 2);
    assert_int_equal(line_of(&r, "blk.42.ffn_down_exps.weight", 42), 2);
    assert_int_equal(line_of(&r, "blk.36.ffn_down_exps.weight", 36), 3);
    assert_int_equal(line_of(&r, "blk.43.ffn_down_exps.weight", 43), 3);
    assert_int_equal(line_of(&r, "mtp.0.ffn_down_exps.weight", -1), 0);
    assert_int_equal(line_of(&r, "blk.1.attn_q_a.weight", 1), 5);
    assert_int_equal(line_of(&r, "blk.1.attn_q_a.weights", 1), 0);
    assert_int_equal(line_of(&r, "output.weight", -1), 6);
    assert_int_equal(line_of(&r, "my_output.weight", -1), 0);
    assert_int_equal(line_of(&r, "output.weight.x", -1), 0);
    assert_int_equal(line_of(&r, "blk.7.attn_norm.weight", 7), 8);
    assert_int_equal(line_of(&r, "blk.7.attn_norm.weight.rm.weight", 7), 8);
    assert_int_equal(recipe_find(&r, "blk.42.ffn_down_exps.weight", 42)->type, DT_Q4_K);
    recipe_close(&r);
}

static void options(void **state)
{
    (void)state;
    struct recipe r = parse("a IQ2_XXS weights=columns power=0.25 search=exact layers=0-3\n"
                            "b Q2_K\nc keep\nd drop\ne MXFP4 weights=none power=1\n"
                            "f Q2_K weights=imatrix search=fast ldlq=on\ng Q2_K ldlq=off "
                            "gain=off\nh Q2_K mean=off");
    const struct recipe_rule *a = &r.rule[0];
    assert_true(a->type == DT_IQ2_XXS && a->weights == RECIPE_COLUMNS && a->power == .25f);
    assert_true(a->effort == QUANT_EXACT && a->first == 0 && a->last == 3);
    assert_true(r.rule[1].weights == RECIPE_BEST && r.rule[1].effort == QUANT_FAST);
    assert_true(r.rule[2].action == RECIPE_KEEP && r.rule[3].action == RECIPE_DROP);
    assert_true(r.rule[4].weights == RECIPE_NONE && r.rule[4].power == 1);
    assert_true(r.rule[5].weights == RECIPE_IMATRIX && r.rule[5].ldlq == RECIPE_LDLQ_ON);
    assert_true(r.rule[4].ldlq == RECIPE_LDLQ_AUTO && r.rule[6].ldlq == RECIPE_LDLQ_OFF);
    assert_true(!r.rule[6].gain && r.rule[5].gain && r.rule[7].gain);
    assert_true(r.rule[6].mean && r.rule[5].mean && !r.rule[7].mean && r.rule[1].power == 0);
    recipe_close(&r);
}

static void wrong(void **state)
{
    (void)state;
    static const char *const types = "IQ2_XXS, Q2_K, Q4_K, Q8_0, MXFP4, F16, BF16, F32, keep or "
                                     "drop";
    static const struct {
        const char *text, *found;
    } c[] = {
        { "a", "line 1: type is missing, expected one after the pattern" },
        { "\n\na Q9_K", "line 3: type is Q9_K, expected " },
        { "a q2_k", "line 1: type is q2_k, expected " },
        { "a Q2_K fast", "option is fast, expected layers=, weights=, power=, search=, ldlq=, "
                               "gain= or mean=" },
        { "a Q2_K gain=1", "line 1: gain is 1, expected on or off" },
        { "a Q2_K mean=", "line 1: mean is , expected on or off" },
        { "a Q2_K ldlq=yes", "line 1: ldlq is yes, expected auto, on or off" },
        { "a Q2_K seed=1", "line 1: option is seed, expected " },
        { "a Q2_K layers=4-3", "line 1: layers is 4-3, expected A-B with A <= B" },
        { "a Q2_K layers=", "line 1: layers is , expected A-B with A <= B" },
        { "a Q2_K layers=1-2-3", "line 1: layers is 1-2-3, expected A-B with A <= B" },
        { "a Q2_K layers=-1", "line 1: layers is -1, expected A-B with A <= B" },
        { "a Q2_K power=0.3", "line 1: power is 0.3, expected 0, 0.25, 0.5, 0.75 or 1" },
        { "a Q2_K power=nan", "line 1: power is nan, expected " },
        { "a Q2_K weights=best", "line 1: weights is best, expected imatrix, columns or none" },
        { "a Q2_K search=slow", "line 1: search is slow, expected fast or exact" },
        { "# nothing\n\n", "recipe R: has no rules" },
    };
    for (size_t i = 0; i < COUNT_OF(c); i++) {
        struct recipe r;
        struct err e = { 0 };
        assert_int_equal(recipe_parse(&r, "R", c[i].text, &e), ERR_ARGUMENT);
        if (!strstr(e.text, c[i].found))
            fail_msg("%s: %s", c[i].text, e.text);
        assert_true(!strstr(c[i].found, "Q9_K") || strstr(e.text, types));
        assert_null(r.rule);
    }
}

static void built_in(void **state)
{
    (void)state;
    struct recipe r, from_file;
    struct err e = { 0 };
    struct scratch dir;
    scratch_open(&dir);
    int n = 0;
    for (; recipe_name(n); n++) {
        assert_int_equal(recipe_open(&r, recipe_name(n), &e), 0);
        assert_true(strlen(recipe_about(n)) > 10);
        scratch_put(&dir, "r.recipe", recipe_text(n), strlen(recipe_text(n)));
        assert_int_equal(recipe_open(&from_file, scratch_file(&dir, "r.recipe"), &e), 0);
        assert_string_equal(r.text, from_file.text);
        assert_string_equal(r.name, recipe_name(n));
        assert_int_equal(r.n_rule, from_file.n_rule);
        recipe_close(&r);
        recipe_close(&from_file);
    }
    assert_int_equal(n, 4);
    assert_null(recipe_text(n));
    assert_int_equal(recipe_open(&r, "q3", &e), ERR_ARGUMENT);
    assert_string_equal(e.text, "recipe q3: neither a file nor q2, q2-q4attn, q4 or lossless");
    e.code = ERR_NONE;
    assert_int_equal(recipe_open(&r, "./q3", &e), ERR_IO);
    scratch_put(&dir, "r.recipe", "a\0Q2_K", 6);
    e.code = ERR_NONE;
    assert_int_equal(recipe_open(&r, scratch_file(&dir, "r.recipe"), &e), ERR_FORMAT);
    scratch_close(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_match),
        cmocka_unit_test(options),
        cmocka_unit_test(wrong),
        cmocka_unit_test(built_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
