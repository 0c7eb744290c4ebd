/* test_names.c - DeepSeek-V4's names there and back, and hyperparameters a model may not have. */
#include "unit/true_shapes.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "meta_impl.h"

static void one_role(enum dsv4_role role, int block, int expert)
{
    char name[DSV4_NAME_MAX];
    struct dsv4_place p = dsv4_place_of(dsv4_gguf_name(name, role, block));
    if (p.role != role || p.block != block || p.expert != -1 || p.is_scale)
        fail_msg("%s was taken for role %d of block %d", name, (int)p.role, p.block);
    dsv4_official_name(name, role, block, expert);
    p = dsv4_place_of(name);
    if (p.role != role || p.block != block || p.expert != expert || p.is_scale)
        fail_msg("%s was taken for role %d of block %d, expert %d", name, (int)p.role, p.block,
                 p.expert);
    assert_int_equal(p.part, block >= DSV4_MTP(0) ? DSV4_PART_DRAFT : dsv4_names[role].part);
    size_t n = strlen(name);
    char *end = name + n - strlen(".weight");
    if (n < strlen(".weight") || strcmp(end, ".weight") != 0)
        return;
    memcpy(end, ".scale", sizeof ".scale");
    p = dsv4_place_of(name);
    if (p.role != role || p.block != block || p.expert != expert || !p.is_scale)
        fail_msg("%s was taken for role %d of block %d, expert %d", name, (int)p.role, p.block,
                 p.expert);
}

static void there_and_back(void **state)
{
    (void)state;
    for (int r = 0; r < DSV4_N_ROLE; r++) {
        enum dsv4_role role = (enum dsv4_role)r;
        const struct dsv4_name *t = &dsv4_names[r];
        assert_int_equal(t->role, r);
        bool experts = t->form == DSV4_EXPERTS;
        if (t->where == DSV4_ONCE) {
            one_role(role, -1, -1);
            continue;
        }
        one_role(role, DSV4_MTP(0), experts ? 3 : -1);
        if (t->where == DSV4_IN_MTP || t->where == DSV4_IN_DSPARK)
            continue;
        one_role(role, 0, experts ? 0 : -1);
        one_role(role, 42, experts ? 383 : -1);
    }
}

static void examples(void **state)
{
    (void)state;
    char name[DSV4_NAME_MAX];
    assert_string_equal(dsv4_gguf_name(name, DSV4_Q_A, 7), "blk.7.attn_q_a.weight");
    assert_string_equal(dsv4_gguf_name(name, DSV4_ROUTER_BIAS, 7), "blk.7.exp_probs_b.bias");
    assert_string_equal(dsv4_gguf_name(name, DSV4_HC_HEAD_FN, -1), "output_hc_fn.weight");
    assert_string_equal(dsv4_gguf_name(name, DSV4_MTP_HC_HEAD_FN, DSV4_MTP(0)),
                        "mtp.0.hc_head_fn.weight");
    assert_string_equal(dsv4_official_name(name, DSV4_DOWN_EXPS, 3, 17),
                        "layers.3.ffn.experts.17.w2.weight");
    assert_string_equal(dsv4_official_name(name, DSV4_TID2EID, 2, 0), "layers.2.ffn.gate.tid2eid");
    assert_string_equal(dsv4_official_name(name, DSV4_MTP_NORM, DSV4_MTP(0), 0),
                        "mtp.0.norm.weight");
}

/* The correspondence once more by hand, official then GGUF, in layer 3 (of ratio 4 and routed by
 * score here), so that a slip in the table is not only consistent with itself. */
static void both_names(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        { "attn_norm.weight", "attn_norm.weight" },
        { "ffn_norm.weight", "ffn_norm.weight" },
        { "hc_attn_fn", "hc_attn_fn.weight" },
        { "hc_attn_base", "hc_attn_base.weight" },
        { "hc_attn_scale", "hc_attn_scale.weight" },
        { "hc_ffn_fn", "hc_ffn_fn.weight" },
        { "hc_ffn_base", "hc_ffn_base.weight" },
        { "hc_ffn_scale", "hc_ffn_scale.weight" },
        { "attn.wq_a.weight", "attn_q_a.weight" },
        { "attn.q_norm.weight", "attn_q_a_norm.weight" },
        { "attn.wq_b.weight", "attn_q_b.weight" },
        { "attn.wkv.weight", "attn_kv.weight" },
        { "attn.kv_norm.weight", "attn_kv_a_norm.weight" },
        { "attn.attn_sink", "attn_sinks.weight" },
        { "attn.wo_a.weight", "attn_output_a.weight" },
        { "attn.wo_b.weight", "attn_output_b.weight" },
        { "attn.compressor.wkv.weight", "attn_compressor_kv.weight" },
        { "attn.compressor.wgate.weight", "attn_compressor_gate.weight" },
        { "attn.compressor.ape", "attn_compressor_ape.weight" },
        { "attn.compressor.norm.weight", "attn_compressor_norm.weight" },
        { "attn.indexer.wq_b.weight", "indexer.attn_q_b.weight" },
        { "attn.indexer.weights_proj.weight", "indexer.proj.weight" },
        { "attn.indexer.compressor.wkv.weight", "indexer_compressor_kv.weight" },
        { "attn.indexer.compressor.wgate.weight", "indexer_compressor_gate.weight" },
        { "attn.indexer.compressor.ape", "indexer_compressor_ape.weight" },
        { "attn.indexer.compressor.norm.weight", "indexer_compressor_norm.weight" },
        { "ffn.gate.weight", "ffn_gate_inp.weight" },
        { "ffn.gate.bias", "exp_probs_b.bias" },
        { "ffn.gate.tid2eid", "ffn_gate_tid2eid.weight" },
        { "ffn.experts.0.w1.weight", "ffn_gate_exps.weight" },
        { "ffn.experts.0.w3.weight", "ffn_up_exps.weight" },
        { "ffn.experts.0.w2.weight", "ffn_down_exps.weight" },
        { "ffn.shared_experts.w1.weight", "ffn_gate_shexp.weight" },
        { "ffn.shared_experts.w3.weight", "ffn_up_shexp.weight" },
        { "ffn.shared_experts.w2.weight", "ffn_down_shexp.weight" },
    };
    static const char *const once[][2] = {
        { "embed.weight", "token_embd.weight" },   { "head.weight", "output.weight" },
        { "norm.weight", "output_norm.weight" },   { "hc_head_fn", "output_hc_fn.weight" },
        { "hc_head_base", "output_hc_base.weight" }, { "hc_head_scale", "output_hc_scale.weight" },
    };
    for (size_t i = 0; i < COUNT_OF(pairs); i++) {
        char a[DSV4_NAME_MAX], b[DSV4_NAME_MAX];
        snprintf(a, sizeof a, "layers.3.%s", pairs[i][0]);
        snprintf(b, sizeof b, "blk.3.%s", pairs[i][1]);
        enum dsv4_role role = dsv4_place_of(a).role;
        if (role == DSV4_N_ROLE || role != dsv4_place_of(b).role)
            fail_msg("%s is not %s", a, b);
    }
    for (size_t i = 0; i < COUNT_OF(once); i++) {
        enum dsv4_role role = dsv4_place_of(once[i][0]).role;
        if (role == DSV4_N_ROLE || role != dsv4_place_of(once[i][1]).role)
            fail_msg("%s is not %s", once[i][0], once[i][1]);
    }
    /* With the eight of the next-token block and five of DSpark, that is all. */
    assert_int_equal(COUNT_OF(pairs) + COUNT_OF(once) + 8 + 5, DSV4_N_ROLE);
}

static void strangers(void **state)
{
    (void)state;
    static const char *const names[] = {
        "",
        "blk",
        "blk.",
        "blk.x.attn_q_a.weight",
        "blk.3attn_q_a.weight",
        "blk.-1.attn_q_a.weight",
        "blk.99999999999999999999.attn_q_a.weight",
        "blk.300.attn_q_a.weight",
        "layers.3.",
        "layers.3.attn.wq_a",
        "layers.3.attn.wq_a.weights",
        "layers.3.attn.wq_a.weight.scale",
        "layers.3.ffn.experts..w1.weight",
        "layers.3.ffn.experts.x.w1.weight",
        "layers.3.ffn.experts.99999999999.w1.weight",
        "layers.3.enorm.weight",
        "enorm.weight",
        "layers.3.ffn.experts.1.w4.weight",
        "model.layers.3.self_attn.q_a_proj.weight",
        "layers.3.embed.weight",
        "mtp.x.norm.weight",
        ".scale",
        "layers.3.attn.attn_sink.scale",
        "blk.3.attn_q_a.scale",
    };
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct dsv4_place p = dsv4_place_of(names[i]);
        if (p.role != DSV4_N_ROLE)
            fail_msg("\"%s\" was taken for role %d", names[i], (int)p.role);
        assert_int_equal(p.part, DSV4_PART_OTHER);
    }
}

/* Flash's config.json with one text replaced. */
static void refuse(const char *from, const char *to, enum err_code code, const char *words)
{
    struct dsv4_hyper h, read;
    struct buf text, changed;
    struct meta *m;
    struct err e = { 0 };
    true_hyper(&h, false);
    buf_init(&text, 1 << 20);
    buf_init(&changed, 1 << 20);
    true_config(&h, &text);
    const char *at = strstr(text.data, from);
    assert_non_null(at);
    buf_add(&changed, text.data, (size_t)(at - text.data));
    buf_puts(&changed, to);
    buf_puts(&changed, at + strlen(from));
    if (meta_from_json(&m, "config.json", changed.data, changed.len, &e) < 0)
        fail_msg("%s", e.text);
    int rc = dsv4_hyper_read(&read, m, WEIGHTS_CHECKPOINT, &e);
    if (rc != (int)code || (code && !strstr(e.text, words)))
        fail_msg("%s: got %d \"%s\", expected %d \"%s\"", to, rc, e.text, (int)code, words);
    meta_free(m);
    buf_release(&text);
    buf_release(&changed);
}

static void bad_hyperparameters(void **state)
{
    (void)state;
    refuse("\"hidden_size\":4096", "\"hidden_size\":4096", ERR_NONE, "");
    refuse("\"hidden_size\":4096", "\"hidden\":4096", ERR_FORMAT,
           "config.json: key hidden_size is missing");
    refuse("\"hidden_size\":4096", "\"hidden_size\":\"4096\"", ERR_FORMAT,
           "key hidden_size is a string, expected an integer");
    refuse("\"hidden_size\":4096", "\"hidden_size\":0", ERR_FORMAT,
           "key hidden_size is 0, expected 1 to 1.04858e+06");
    refuse("\"hidden_size\":4096", "\"hidden_size\":null", ERR_FORMAT,
           "key hidden_size is missing");
    refuse("\"rms_norm_eps\":", "\"rms_norm_eps\":0,\"x\":", ERR_FORMAT, "key rms_norm_eps is 0");
    refuse("sqrtsoftplus", "sigmoid", ERR_UNSUPPORTED,
           "key scoring_func is sigmoid, this program computes only \"sqrtsoftplus\"");
    refuse("\"num_key_value_heads\":1", "\"num_key_value_heads\":8", ERR_UNSUPPORTED,
           "key num_key_value_heads is 8, this program computes only 1");
    refuse("\"deepseek_v4\"", "\"deepseek_v3\"", ERR_UNSUPPORTED, "key model_type is deepseek_v3");
    refuse("\"qk_rope_head_dim\":64", "\"qk_rope_head_dim\":1024", ERR_FORMAT,
           "1024 rotary dimensions, expected an even part of a head's 512");
    refuse("\"o_groups\":8", "\"o_groups\":7", ERR_FORMAT,
           "64 heads, expected a multiple of the 7");
    refuse("\"num_experts_per_tok\":6", "\"num_experts_per_tok\":64", ERR_NONE, "");
    refuse("\"n_routed_experts\":256", "\"n_routed_experts\":4", ERR_FORMAT,
           "6 experts per token, expected at most the 4 there are");
    refuse("\"num_hidden_layers\":43", "\"num_hidden_layers\":45", ERR_FORMAT,
           "key compress_ratios has 44 entries, expected one per layer, 45");
    refuse("[0,0,4,128", "[0,0,2,128", ERR_UNSUPPORTED, "key compress_ratios[2] is 2, expected 0");
    refuse("[0,0,4,128", "[0,0,-4,128", ERR_FORMAT, "key compress_ratios[2] is -4");
    refuse("\"expert_dtype\"", "\"cache_simulation\":\"some\",\"x\"", ERR_FORMAT,
           "key cache_simulation is some, expected \"vendor\" or \"none\"");
    refuse("\"expert_dtype\"", "\"attention_bias\":true,\"x\"", ERR_UNSUPPORTED,
           "key attention_bias is 1, this program computes only 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(examples),
        cmocka_unit_test(both_names),
        cmocka_unit_test(strangers),
        cmocka_unit_test(bad_hyperparameters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
