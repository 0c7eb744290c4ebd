/* test_load.c - what a checkpoint must have to become a model: each fault gives one line that
 * names the file and what is wrong. The faults are planted in copies of a good checkpoint. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "net.h"

#define GOOD "tests/data/oracle/nano"

static char dir[512];

static struct buf read_file(const char *folder, const char *name)
{
    struct buf b;
    struct err e = { 0 };
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    buf_init(&b, (size_t)1 << 26);
    net_must(file_read_all(&b, path, &e), &e);
    return b;
}

static void write_file(const char *name, const struct buf *b)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b->data, 1, b->len, f), b->len);
    assert_int_equal(fclose(f), 0);
}

/* Replace `from` by `to`, of the same length, once. */
static void patch(struct buf *b, const char *from, const char *to)
{
    size_t n = strlen(from);
    assert_int_equal(n, strlen(to));
    char *at = memmem(b->data, b->len, from, n);
    assert_non_null(at);
    memcpy(at, to, n);
}

/* Open the good checkpoint with one text replaced in one of its files; the error's line. */
static struct err open_patched(const char *name, const char *from, const char *to)
{
    static const char *const files[] = { "config.json", "model.safetensors" };
    struct err e = { 0 };
    struct weights *w = NULL;
    struct model *m = NULL;
    struct dev *d = NULL;
    struct model_options opt = { .simulate = -1 };
    struct backend_options back = { .n_thread = 1 };
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        struct buf b = read_file(GOOD, files[i]);
        if (strcmp(files[i], name) == 0)
            patch(&b, from, to);
        write_file(files[i], &b);
        buf_release(&b);
    }
    net_must(dev_open(&d, "ref", &back, &e), &e);
    if (weights_open(&w, dir, &e) == 0 && model_open(&m, w, d, &opt, &e) == 0)
        model_close(m);
    weights_close(w);
    dev_close(d);
    return e;
}

static void expect(const char *name, const char *from, const char *to, const char *word)
{
    struct err e = open_patched(name, from, to);
    print_message("%s\n", e.text);
    assert_true(e.code < 0);
    assert_null(strchr(e.text, '\n'));
    assert_non_null(strstr(e.text, dir));
    if (!strstr(e.text, word))
        fail_msg("the error should name %s", word);
}

static void good(void **state)
{
    (void)state;
    struct err e = open_patched("config.json", "silu", "silu");
    assert_int_equal(e.code, 0);
}

static void faults(void **state)
{
    (void)state;
    expect("config.json", "deepseek_v4", "deepseek_v9", "deepseek_v4");
    expect("config.json", "\"hidden_size\": 128", "\"hidden_size\": 120", "embed.weight");
    expect("config.json", "\"hidden_size\"", "\"hidden_sise\"", "hidden_size");
    expect("config.json", "\"n_routed_experts\": 8", "\"n_routed_experts\": 9", "n");
    expect("config.json", "\"n_routed_experts\": 8", "\"n_routed_experts\": 6", "expert");
    expect("config.json", "\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 9", "9");
    expect("config.json", "\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 1e+06", "rms_norm_eps");
    expect("config.json", "sqrtsoftplus", "softmaxxxxxx", "softmaxxxxxx");
    expect("config.json", "\"norm_topk_prob\": true", "\"norm_topk_prob\":false", "normalised");
    expect("model.safetensors", "layers.2.attn.compressor.ape", "layers.2.attn.compressor.apx",
           "layers.2.attn.compressor.ape");
    expect("model.safetensors", "layers.0.ffn.experts.3.w2.weight",
           "layers.0.ffn.experts.3.w9.weight", "layers.0.ffn.experts.3.w2");
    expect("model.safetensors", "\"layers.1.ffn.gate.bias\":{\"dtype\":\"F32\"",
           "\"layers.1.ffn.gate.bias\":{\"dtype\":\"I32\"", "layers.1.ffn.gate.bias");
}

/* The vendor's table of frequencies for compressed layers (64 rotary dimensions, YaRN). */
static void rope_table(void **state)
{
    static const double want[32] = {
        1.0, .687656022, .472870805, .325172456, .223606798, .153764561, .105737126, .0727107717,
        .05, .0343828011, .0236435402, .0162586228, .0111803399, .00768822805, .00528685632,
        .00363553858, .002265625, .00139680130, 8.49689727e-4, 5.08081963e-4, 2.96977778e-4,
        1.68179989e-4, 9.08678430e-5, 4.54442323e-5, 1.953125e-5, 5.37231267e-6, 3.69430316e-6,
        2.54040982e-6, 1.74692811e-6, 1.20128563e-6, 8.26071300e-7, 5.68052904e-7,
    };
    struct net n;
    (void)state;
    net_open(&n, "tests/data/oracle/truehead", "ref", -1, 1);
    assert_int_equal(n.model->rope_compress.n_pair, 32);
    for (int i = 0; i < 32; i++) {
        assert_true(fabs(n.model->rope_compress.freq[i] / want[i] - 1) < 2e-9 + 6e-8);
        assert_true(fabs(n.model->rope_main.freq[i] / pow(10000, -i / 32.0) - 1) < 6e-8);
    }
    net_close(&n);
}

/* The same file gives the same name, another network another, and one byte matters. */
static void identity(void **state)
{
    uint8_t a[32], b[32], c[32];
    struct net n;
    (void)state;
    net_open(&n, GOOD, "ref", -1, 1);
    model_identity(n.model, a);
    net_close(&n);
    net_open(&n, GOOD, "ref", 0, 1);
    model_identity(n.model, b);
    net_close(&n);
    assert_memory_equal(a, b, 32);
    struct buf file = read_file(GOOD, "model.safetensors");
    file.data[file.len - 1] ^= 1;
    write_file("model.safetensors", &file);
    buf_release(&file);
    net_open(&n, dir, "ref", -1, 1);
    model_identity(n.model, c);
    net_close(&n);
    assert_memory_not_equal(a, c, 32);
}

int main(void)
{
    const char *build = getenv("DSTAR_BUILD");
    snprintf(dir, sizeof dir, "%s/tests/model/faulty", build ? build : "build");
    char command[600];
    snprintf(command, sizeof command, "mkdir -p %s", dir);
    if (system(command) != 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good),
        cmocka_unit_test(faults),
        cmocka_unit_test(rope_table),
        cmocka_unit_test(identity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
