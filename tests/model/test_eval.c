/* test_eval.c - dstar_eval against the vendor's own code, the draft block included. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "buf.h"
#include "dwarfstar.h"
#include "file.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define ORACLE "tests/data/oracle/truehead"
#define N_VOCAB 256
#define MAX_TOK 1000
#define TOLERANCE 1e-4 /* float32 sums in another order */

static char dir[64];
static int32_t token[MAX_TOK];
static int n_tok;

static const char *place(const char *folder, const char *name)
{
    static char path[2][200];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static void link_to(const char *name)
{
    char *full = realpath(place(ORACLE, name), NULL);
    assert_non_null(full);
    assert_int_equal(symlink(full, place(dir, name)), 0);
    free(full);
}

/* The bundled tokenizer reduced to single bytes: as many tokens as the oracle's network has. */
static void write_tokenizer(void)
{
    json_t *t = json_load_file("models/pebble/tokenizer.json", 0, NULL);
    assert_non_null(t);
    json_t *model = json_object_get(t, "model"), *few = json_object(), *id;
    const char *piece;
    json_object_foreach(json_object_get(model, "vocab"), piece, id) {
        bool is_byte = strlen(piece) == 1 || (strlen(piece) == 2 && (piece[0] & 0x80));
        if (is_byte)
            json_object_set_new(few, piece, json_integer((json_int_t)json_object_size(few)));
    }
    assert_int_equal(json_object_size(few), N_VOCAB);
    json_object_set_new(model, "vocab", few);
    json_object_set_new(model, "merges", json_array());
    json_object_set_new(t, "added_tokens", json_array());
    assert_int_equal(json_dump_file(t, place(dir, "tokenizer.json"), 0), 0);
    json_decref(t);
}

static void read_tokens(void)
{
    json_t *list = json_load_file(place(ORACLE, "tokens.json"), 0, NULL);
    assert_true(json_is_array(list));
    n_tok = (int)json_array_size(list);
    assert_in_range(n_tok, 100, MAX_TOK);
    for (int i = 0; i < n_tok; i++)
        token[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    json_decref(list);
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_eval.%ld", (long)getpid());
    assert_int_equal(mkdir(dir, 0777), 0);
    link_to("config.json");
    link_to("model.safetensors");
    write_tokenizer();
    read_tokens();
    return 0;
}

static int drop_folder(void **state)
{
    (void)state;
    unlink(place(dir, "config.json"));
    unlink(place(dir, "model.safetensors"));
    unlink(place(dir, "tokenizer.json"));
    return rmdir(dir);
}

static float *read_oracle(const char *name)
{
    struct buf b;
    buf_init(&b, 16u << 20);
    assert_int_equal(file_read_all(&b, place(ORACLE, name), NULL), 0);
    assert_int_equal(b.len, sizeof(float) * N_VOCAB * (size_t)n_tok);
    return (float *)(void *)buf_take(&b);
}

struct rows_seen {
    float *logits, *mtp; /* [n_tok][N_VOCAB]; mtp NULL: not asked for */
    int n;
};

static int keep(void *user, int pos, const float *logits, const float *mtp)
{
    struct rows_seen *s = user;
    assert_int_equal(pos, s->n);
    assert_int_equal(mtp != NULL, s->mtp != NULL);
    memcpy(s->logits + (size_t)pos * N_VOCAB, logits, N_VOCAB * sizeof *logits);
    if (mtp)
        memcpy(s->mtp + (size_t)pos * N_VOCAB, mtp, N_VOCAB * sizeof *mtp);
    s->n++;
    return 0;
}

static struct rows_seen evaluate_all(dstar_engine *engine, int chunk, bool with_mtp)
{
    size_t bytes = sizeof(float) * N_VOCAB * (size_t)n_tok;
    struct rows_seen s = { .logits = malloc(bytes), .mtp = with_mtp ? malloc(bytes) : NULL };
    struct dstar_error e;
    struct dstar_text_eval job = { token, n_tok, chunk, with_mtp, keep, &s };
    if (dstar_eval(engine, &job, &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(s.n, n_tok);
    return s;
}

static void compare(const char *what, const float *got, const float *want)
{
    double most = 0;
    for (int i = 0; i < n_tok * N_VOCAB; i++)
        most = fmax(most, fabs((double)got[i] - want[i]));
    print_message("%s: largest difference %.2e\n", what, most);
    assert_true(most <= TOLERANCE);
}

static dstar_engine *open_oracle(int mtp)
{
    struct dstar_options o;
    struct dstar_error e;
    dstar_engine *engine;
    dstar_options_init(&o);
    o.model = dir;
    o.cache_simulation = 0;
    o.exact = 1;
    o.mtp = mtp;
    o.ctx = 1024;
    if (dstar_open(&engine, &o, &e) < 0)
        fail_msg("%s", e.text);
    return engine;
}

static void test_evaluation_of_both_heads(void **state)
{
    (void)state;
    float *logits = read_oracle("logits.plain.f32"), *mtp = read_oracle("mtp.plain.f32");
    dstar_engine *engine = open_oracle(1);
    assert_int_equal(dstar_engine_info(engine)->has_mtp, 1);
    struct rows_seen a = evaluate_all(engine, 0, true), b = evaluate_all(engine, 7, true);
    struct rows_seen c = evaluate_all(engine, 0, false);
    size_t bytes = sizeof(float) * N_VOCAB * (size_t)n_tok;
    compare("logits", a.logits, logits);
    compare("draft", a.mtp, mtp);
    assert_memory_equal(a.logits, b.logits, bytes);
    assert_memory_equal(a.mtp, b.mtp, bytes);
    assert_memory_equal(a.logits, c.logits, bytes);
    struct rows_seen *all[] = { &a, &b, &c };
    for (int i = 0; i < 3; i++) {
        free(all[i]->logits);
        free(all[i]->mtp);
    }
    free(logits);
    free(mtp);
    dstar_close(engine);
}

static void test_no_draft_block_unless_opened(void **state)
{
    (void)state;
    struct dstar_error e;
    struct dstar_text_eval job = { token, n_tok, 0, 1, keep, NULL };
    dstar_engine *engine = open_oracle(0);
    assert_int_equal(dstar_engine_info(engine)->has_mtp, 0);
    assert_int_equal(dstar_eval(engine, &job, &e), DSTAR_ARGUMENT);
    assert_non_null(strstr(e.text, "draft"));
    dstar_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_evaluation_of_both_heads),
        cmocka_unit_test(test_no_draft_block_unless_opened),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
