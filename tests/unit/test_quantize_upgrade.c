/* test_quantize_upgrade.c - layers upgraded by what was measured: the choice under a budget, the
 * file it makes, and mistakes in the measurements. */
#include "unit/quantize_pebble.h"

#define TWO_BIT "blk.*_exps.weight IQ2_XXS\n* keep\n"

static const char *measured(const char *text)
{
    static char path[600];
    scratch_put(&dir, "measured", text, strlen(text));
    snprintf(path, sizeof path, "%s", scratch_file(&dir, "measured"));
    return path;
}

static void plan(const struct quantize_options *o, struct buf *text)
{
    struct err e = { 0 };
    buf_init(text, 1 << 20);
    if (quantize_plan_text(o, text, &e) < 0)
        fail_msg("%s", e.text);
}

/* A layer of Flash takes 1,811,939,328 bytes in this recipe and 3,422,552,064 in MXFP4. */
static void chosen_under_a_budget(void **state)
{
    (void)state;
    static const struct {
        const char *measured;
        int64_t budget;
        const char *want;
    } c[] = {
        { "base 0.4\n7 .35\n3 .3\n41 .35\n42 .29 # the last\n", INT64_C(5000000000),
          "3 layers for 4831838208 of 5000000000 bytes, the best first: 42, 3, 7; divergence by "
          "measurement 0.4, less 0.26\n" },
        { "base 0.4\n7 .35\n3 .3\n41 .35\n42 .29\n", INT64_C(1700000000), "best first: 42;" },
        { "base 0.4\n7 .35\n", INT64_C(1600000000), "0 layers for 0 of 1600000000 bytes; " },
        { "# nothing is won\nbase 0.4\n\n7 .4\n8 .5\n", INT64_C(1) << 40, "0 layers for 0 of " },
    };
    for (size_t i = 0; i < COUNT_OF(c); i++) {
        struct quantize_options o = { .shape = "flash", .recipe = "q2",
                                      .sensitivity = measured(c[i].measured),
                                      .upgrade_bytes = c[i].budget };
        struct buf text;
        plan(&o, &text);
        if (!strstr(text.data, c[i].want))
            fail_msg("%zu: %s", i, text.data);
        buf_release(&text);
    }
}

static enum dtype type_of(const char *path, const char *tensor)
{
    struct weights *w = open_or_fail(path);
    const struct weight *t = weights_find(w, tensor);
    assert_non_null(t);
    enum dtype type = t->type;
    weights_close(w);
    return type;
}

static void upgraded(void **state)
{
    (void)state;
    struct quantize_options o = options(PEBBLE, "out.gguf");
    scratch_put(&dir, "little", TWO_BIT, strlen(TWO_BIT));
    o.sensitivity = measured("base 1\n1 0.9\n2 0.5\n4 0.8\n");
    o.upgrade_bytes = 2 * 3 * EXPERTS * 256 * 256 * 9 / 32; /* two layers: 35 bits a block more */
    must(&o);
    for (int l = 0; l < 6; l++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.ffn_down_exps.weight", l);
        assert_int_equal(type_of(o.out, name), l == 2 || l == 4 ? DT_MXFP4 : DT_IQ2_XXS);
    }
    struct weights *w = open_or_fail(o.out);
    const struct meta_kv *kv = meta_find(weights_meta(w), "dwarfstar.quantize.upgraded");
    assert_true(kv && kv->n == 2 && kv->v.i[0] == 2 && kv->v.i[1] == 4);
    weights_close(w);
    struct buf text;
    struct err e = { 0 };
    buf_init(&text, 1 << 20);
    assert_int_equal(quantize_verify(&o, &text, &e), 0);
    assert_non_null(strstr(text.data, "blk.2.ffn_down_exps.weight                   MXFP4    "
                                      "           0            0            0"));
    buf_release(&text);
}

static void mistakes(void **state)
{
    (void)state;
    static const char *const c[][2] = {
        { "base 1\n3\n", "measured, line 2: one word, expected base KL or LAYER KL" },
        { "base 1\n3 .5 7\n", "line 2: more than two words" },
        { "base 1\n3 nan\n", "line 2: KL is no number of at least 0" },
        { "base 1\n3 -1\n", "line 2: KL is no number of at least 0" },
        { "base 1\n3 .5x\n", "line 2: KL is no number of at least 0" },
        { "base 1\n99 .5\n", "line 2: layer is 99, the model has 0 to 42" },
        { "base 1\n3 .5\n3 .5\n", "line 3: a layer for the second time" },
        { "base 1\nbase 2\n", "line 2: a second base" },
        { "3 .5\n", "measured: has no line base KL" },
        { "", "measured: has no line base KL" },
    };
    for (size_t i = 0; i < COUNT_OF(c); i++) {
        struct quantize_options o = { .shape = "flash", .recipe = "q2",
                                      .sensitivity = measured(c[i][0]), .upgrade_bytes = 1 };
        struct buf text;
        struct err e = { 0 };
        buf_init(&text, 1 << 20);
        assert_int_equal(quantize_plan_text(&o, &text, &e), ERR_FORMAT);
        if (!strstr(e.text, c[i][1]))
            fail_msg("%zu: %s", i, e.text);
        buf_release(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(chosen_under_a_budget), CASE(upgraded), CASE(mistakes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
