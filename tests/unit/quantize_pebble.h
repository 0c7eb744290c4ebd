/* quantize_pebble.h - quantising the bundled model in a scratch folder, for tests: with little
 * work, damaged on purpose, with importances made up. */
#ifndef DS_QUANTIZE_PEBBLE_H
#define DS_QUANTIZE_PEBBLE_H

#include "unit/scratch_dir.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "hash.h"
#include "offline.h"
#include "unit/imatrix_bytes.h"

#define PEBBLE "models/pebble"

/* Every search, and little work. */
#define LITTLE                                    \
    "blk.*.ffn_gate_exps.weight IQ2_XXS layers=2\n" \
    "blk.*.ffn_down_exps.weight Q2_K layers=3\n"  \
    "blk.4.attn_q_a.weight Q4_K\n"                \
    "blk.5.ffn_up_shexp.weight MXFP4\n"           \
    "output.weight Q8_0\n"                        \
    "blk.*.indexer.attn_q_b.weight F16\n"         \
    "* keep\n"

static struct scratch dir;

static inline int setup(void **state)
{
    (void)state;
    scratch_open(&dir);
    scratch_put(&dir, "little", LITTLE, strlen(LITTLE));
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    scratch_close(&dir);
    return 0;
}

/* A file of the scratch folder, under one of eight names that stay valid. */
static const char *in_dir(const char *name)
{
    static char path[8][600];
    static int next;
    next = (next + 1) % 8;
    snprintf(path[next], sizeof path[next], "%s", scratch_file(&dir, name));
    return path[next];
}

static inline struct quantize_options options(const char *src, const char *out)
{
    return (struct quantize_options){ .src = src, .out = in_dir(out), .recipe = in_dir("little"),
                                      .n_thread = 2 };
}

static inline void must(const struct quantize_options *o)
{
    struct err e = { 0 };
    if (quantize_run(o, &e) < 0)
        fail_msg("%s", e.text);
}

/* It fails with this code and text in its message, and there is no finished file. */
static inline void must_not(const struct quantize_options *o, enum err_code code, const char *text)
{
    struct err e = { 0 };
    int got = quantize_run(o, &e);
    if (got != (int)code || !strstr(e.text, text))
        fail_msg("%d %s\nexpected %d ...%s", got, e.text, (int)code, text);
    assert_false(file_exists(o->out));
}

static inline uint64_t file_hash(const char *path)
{
    struct file_map m;
    struct err e = { 0 };
    if (file_map_open(&m, path, &e) < 0)
        fail_msg("%s", e.text);
    uint64_t h = hash_of(m.data, m.size, 0);
    file_map_close(&m);
    return h;
}

static inline struct weights *open_or_fail(const char *path)
{
    struct weights *w;
    struct err e = { 0 };
    if (weights_open(&w, path, &e) < 0)
        fail_msg("%s", e.text);
    return w;
}

/* No trace of unfinished work. */
static inline void nothing_left(const char *out)
{
    char path[700];
    snprintf(path, sizeof path, "%s.part", out);
    assert_false(file_exists(path));
    snprintf(path, sizeof path, "%s.journal.part", out);
    assert_false(file_exists(path));
}

static inline void flip(const char *path, int64_t at)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
    int c = fgetc(f);
    assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
    fputc(c ^ 0x11, f);
    fclose(f);
}

/* Pebble in the scratch folder, where it may be changed. */
static inline void copy_pebble(void)
{
    struct dir_list list;
    assert_int_equal(dir_list_open(&list, PEBBLE, NULL), 0);
    for (int i = 0; i < list.n; i++) {
        char from[600];
        struct buf b;
        snprintf(from, sizeof from, PEBBLE "/%s", list.name[i]);
        buf_init(&b, (size_t)1 << 26);
        assert_int_equal(file_read_all(&b, from, NULL), 0);
        scratch_put(&dir, list.name[i], b.data, b.len);
        buf_release(&b);
    }
    dir_list_close(&list);
}

/* Write one byte of a tensor. */
static inline void poke(const char *tensor, int64_t at, int byte)
{
    struct weights *w = open_or_fail(dir.path);
    const struct weight *t = weights_find(w, tensor);
    assert_non_null(t);
    FILE *f = fopen(weights_file(w, t->file), "r+b");
    assert_int_equal(fseek(f, (long)(t->offset + at), SEEK_SET), 0);
    fputc(byte, f);
    fclose(f);
    weights_close(w);
}

static inline void put_imatrix(const char *file, const struct imatrix_part *part, int n)
{
    struct buf b;
    put_gguf_imatrix(&b, part, n);
    scratch_put(&dir, file, b.data, b.len);
    buf_release(&b);
}

/* Importances for the two tensors of the little recipe that need them: experts with many tokens,
 * few and none. */
enum { EXPERTS = 26, COLS = 256 };
static float imp_mean[EXPERTS * COLS], imp_count[EXPERTS];
static __attribute__((unused)) struct imatrix_part imp_part[2] = {
    { "blk.2.ffn_gate_exps.weight", COLS, EXPERTS, imp_mean, imp_count, NULL },
    { "blk.3.ffn_down_exps.weight", COLS, EXPERTS, imp_mean, imp_count, NULL },
};

static inline void make_importances(float even)
{
    for (int x = 0; x < EXPERTS; x++) {
        imp_count[x] = x % 3 == 0 ? 0 : x % 3 == 1 ? 100 : 10000;
        for (int j = 0; j < COLS; j++)
            imp_mean[x * COLS + j] = imp_count[x] == 0 ? 0 : j % 2 ? 1 : even;
    }
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
