/* test_tokenizer.c - the real vocabulary: the vendor's ids for texts and prompts, and properties
 * that must hold for any text. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <time.h>

#include "detok.h"
#include "meta_impl.h"
#include "real_vocab.h"
#include "rng.h"

/* A text in which every literal of an added token counts. */
static struct ids encode(struct tokenizer *t, const char *text, size_t len, bool special)
{
    struct err e = { 0 };
    struct ids ids = { 0 };
    struct text_span all = { 0, len };
    int code = tokenizer_encode(t, text, len, &all, special && len > 0, &ids, &e);
    if (code < 0)
        fail_msg("%s", e.text);
    return ids;
}

static struct buf decode(const struct tokenizer *t, const struct ids *ids, bool raw)
{
    struct detok d;
    struct buf out;
    buf_init(&out, 64 << 20);
    detok_init(&d, raw);
    for (int i = 0; i < ids->n; i++)
        detok_push(&d, t, ids->id[i], &out);
    detok_finish(&d, &out);
    assert_false(out.failed);
    return out;
}

static void assert_bytes(const struct buf *got, const char *want, size_t len)
{
    assert_int_equal(got->len, len);
    if (len)
        assert_memory_equal(got->data, want, len);
}

static void assert_same_ids(const struct ids *got, const struct ids *want, const char *text)
{
    bool same = got->n == want->n;
    for (int i = 0; i < got->n && same; i++)
        same = got->id[i] == want->id[i];
    if (!same)
        fail_msg("%d ids, expected %d: %.100s", got->n, want->n, text);
}

/* {text under `key`, ids}: both directions. */
static void check_vector(struct tokenizer *t, const json_t *vector, const char *key)
{
    const json_t *text = json_object_get(vector, key), *want = json_object_get(vector, "ids");
    const char *s = json_string_value(text);
    size_t len = json_string_length(text);
    assert_non_null(s);
    assert_true(json_is_array(want));
    struct ids ids = { 0 }, got = encode(t, s, len, true);
    for (size_t i = 0; i < json_array_size(want); i++)
        ids_add(&ids, (int32_t)json_integer_value(json_array_get(want, i)));
    assert_same_ids(&got, &ids, s);
    struct buf back = decode(t, &ids, false);
    assert_bytes(&back, s, len);
    buf_release(&back);
    ids_release(&got);
    ids_release(&ids);
}

/* A file with one vector per line; returns how many. */
static int check_file(struct tokenizer *t, const char *path, const char *key)
{
    struct buf file = real_read(path);
    int n = 0;
    for (const char *line = file.data, *end; *line; line = end + (*end == '\n'), n++) {
        end = line + strcspn(line, "\n");
        json_t *vector = json_loadb(line, (size_t)(end - line), JSON_ALLOW_NUL, NULL);
        assert_non_null(vector);
        check_vector(t, vector, key);
        json_decref(vector);
    }
    buf_release(&file);
    return n;
}

static void test_texts(void **state)
{
    assert_int_equal(check_file(*state, REAL_VOCAB_DIR "texts.jsonl", "text"), 764);
}

static void test_prompts(void **state)
{
    assert_int_equal(check_file(*state, "tests/data/chat/prompt_goldens.jsonl", "render"), 72);
}

/* What the vendor's hosted API counted for these prompts. */
static void test_prompt_counts(void **state)
{
    static const struct {
        const char *file;
        int n_token;
    } prompt[] = {
        { "short_italian_fact", 21 },     { "short_code_completion", 27 },
        { "short_reasoning_plain", 18 },  { "long_memory_archive", 3353 },
        { "long_code_audit", 3844 },
    };
    for (size_t i = 0; i < COUNT_OF(prompt); i++) {
        char path[200];
        snprintf(path, sizeof path, REAL_VOCAB_DIR "prompts/%s.txt", prompt[i].file);
        struct buf file = real_read(path), text;
        buf_init(&text, 1 << 20);
        buf_puts(&text, "<｜begin▁of▁sentence｜><｜User｜>");
        buf_add(&text, file.data, file.len);
        buf_puts(&text, "<｜Assistant｜></think>");
        struct ids ids = encode(*state, text.data, text.len, true);
        assert_int_equal(ids.n, prompt[i].n_token);
        ids_release(&ids);
        buf_release(&text);
        buf_release(&file);
    }
}

/* The bundled model's small vocabulary, against the texts it was checked with. */
static void test_bundled_model(void **state)
{
    (void)state;
    struct err e = { 0 };
    struct tokenizer *t;
    if (tokenizer_open_json(&t, "models/pebble/tokenizer.json", NULL, &e) < 0)
        fail_msg("%s", e.text);
    json_t *dialogues = json_load_file("tests/data/pebble/oracle.json", 0, NULL);
    assert_int_equal(json_array_size(dialogues), 18);
    for (size_t i = 0; i < 18; i++)
        check_vector(t, json_array_get(dialogues, i), "text");
    assert_string_equal(tokenizer_pre(t), "joyai-llm");
    json_decref(dialogues);
    tokenizer_close(t);
}

static void test_accessors(void **state)
{
    struct tokenizer *t = *state;
    size_t len;
    assert_int_equal(tokenizer_n_vocab(t), 129280);
    assert_int_equal(tokenizer_n_merge(t), 127741);
    assert_string_equal(tokenizer_pre(t), "joyai-llm");
    assert_int_equal(tokenizer_find(t, "<think>", 7), 128821);
    assert_int_equal(tokenizer_find(t, "<think", 6), -1);
    assert_int_equal(tokenizer_find(t, "", 0), -1);
    assert_int_equal(tokenizer_find(t, "the", 3), -1);
    assert_int_equal(tokenizer_find(t, "｜DSML｜", strlen("｜DSML｜")), 128825);
    assert_memory_equal(tokenizer_bytes(t, 223, &len), " ", 1);
    assert_int_equal(len, 1);
    assert_null(tokenizer_bytes(t, -1, &len));
    assert_null(tokenizer_bytes(t, 129280, &len));
    assert_false(tokenizer_is_added(t, 223));
    assert_false(tokenizer_is_added(t, 129280));
    assert_true(tokenizer_is_added(t, 1));
    assert_int_equal(tokenizer_type(t, 223), TOKEN_NORMAL);
    assert_int_equal(tokenizer_type(t, 1), TOKEN_CONTROL);
    assert_int_equal(tokenizer_type(t, 128821), TOKEN_USER_DEFINED);
    struct buf spelling;
    buf_init(&spelling, 100);
    tokenizer_spelling(t, 201, &spelling);
    tokenizer_spelling(t, 128825, &spelling);
    assert_string_equal(spelling.data, "Ċ｜DSML｜");
    buf_release(&spelling);
}

static void test_merges(void **state)
{
    struct tokenizer *t = *state;
    for (int i = 0; i < tokenizer_n_merge(t); i++) {
        int left, right;
        size_t n_left, n_right, n_both;
        tokenizer_merge(t, i, &left, &right);
        const char *l = tokenizer_bytes(t, left, &n_left), *r = tokenizer_bytes(t, right, &n_right);
        const char *both = tokenizer_bytes(t, REAL_FIRST_MERGED + i, &n_both);
        assert_int_equal(n_both, n_left + n_right);
        if (memcmp(both, l, n_left) != 0 || memcmp(both + n_left, r, n_right) != 0)
            fail_msg("merge %d", i);
    }
}

static void test_merges_as_pairs(void **state)
{
    struct err e = { 0 };
    struct tokenizer *t;
    struct buf json = real_vocab_json(true);
    assert_int_equal(tokenizer_open_json_text(&t, json.data, json.len, "pairs", NULL, &e), 0);
    for (int i = 0; i < tokenizer_n_merge(t); i++) {
        int left, right, want_left, want_right;
        tokenizer_merge(t, i, &left, &right);
        tokenizer_merge(*state, i, &want_left, &want_right);
        assert_true(left == want_left && right == want_right);
    }
    tokenizer_close(t);
    buf_release(&json);
}

/* ---- through the keys of a GGUF file and back ---- */

static void add_text(struct meta *m, const char *key, const char *text)
{
    struct err e = { 0 };
    struct meta_str *s = meta_alloc(m, 1, sizeof *s, &e);
    *s = (struct meta_str){ text, strlen(text) };
    assert_int_equal(meta_add(m, (struct meta_kv){ key, META_STR, false, 1, { .s = s } }, &e), 0);
}

/* n strings that `put` appends one by one to `all`, which must outlive m. */
static void add_texts(struct meta *m, const char *key, int n, struct buf *all,
                      const struct tokenizer *t,
                      void (*put)(const struct tokenizer *, int, struct buf *))
{
    struct err e = { 0 };
    struct meta_str *s = meta_alloc(m, (size_t)n, sizeof *s, &e);
    buf_init(all, 64 << 20);
    for (int pass = 0; pass < 2; pass++) { /* the bytes stay in place the second time */
        buf_clear(all);
        for (int i = 0; i < n; i++) {
            size_t at = all->len;
            put(t, i, all);
            s[i] = (struct meta_str){ all->data + at, all->len - at };
        }
    }
    assert_false(all->failed);
    assert_int_equal(meta_add(m, (struct meta_kv){ key, META_STR, true, n, { .s = s } }, &e), 0);
}

static void put_merge(const struct tokenizer *t, int i, struct buf *out)
{
    int left, right;
    tokenizer_merge(t, i, &left, &right);
    tokenizer_spelling(t, left, out);
    buf_putc(out, ' ');
    tokenizer_spelling(t, right, out);
}

static void test_export(void **state)
{
    const struct tokenizer *from = *state;
    struct err e = { 0 };
    struct meta *m = meta_new("export");
    struct buf tokens, merges;
    struct tokenizer *t;
    int n = tokenizer_n_vocab(from);
    int64_t *type = meta_alloc(m, (size_t)n, sizeof *type, &e);
    for (int i = 0; i < n; i++)
        type[i] = tokenizer_type(from, i);
    add_text(m, "tokenizer.ggml.model", "gpt2");
    add_text(m, "tokenizer.ggml.pre", tokenizer_pre(from));
    add_texts(m, "tokenizer.ggml.tokens", n, &tokens, from, tokenizer_spelling);
    add_texts(m, "tokenizer.ggml.merges", tokenizer_n_merge(from), &merges, from, put_merge);
    assert_int_equal(meta_add(m, (struct meta_kv){ "tokenizer.ggml.token_type", META_INT, true, n,
                                                   { .i = type } }, &e), 0);
    if (tokenizer_open_meta(&t, m, "export", NULL, &e) < 0)
        fail_msg("%s", e.text);
    meta_free(m);
    buf_release(&tokens);
    buf_release(&merges);
    for (int i = 0; i < n; i++) {
        size_t len, want_len;
        const char *got = tokenizer_bytes(t, i, &len), *want = tokenizer_bytes(from, i, &want_len);
        if (len != want_len || memcmp(got, want, len) != 0 ||
            tokenizer_type(t, i) != tokenizer_type(from, i))
            fail_msg("token %d", i);
    }
    assert_int_equal(check_file(t, REAL_VOCAB_DIR "texts.jsonl", "text"), 764);
    tokenizer_close(t);
}

/* ---- properties ---- */

/* Random text of a mixture of byte classes, valid or not. */
static void random_text(struct rng *r, struct buf *out, int n)
{
    static const char *const literal[] = {
        "<think>", "<｜User｜>", "<｜", "｜DSML｜", "中文", "\r\n", "  ", "é", "🙂",
        "123", "the ", "<｜end▁of▁sentence｜>",
    };
    uint64_t kind = rng_next(r) % 4;
    buf_clear(out);
    while (out->len < (size_t)n) {
        uint64_t x = rng_next(r);
        if (x % 8 == 0)
            buf_puts(out, literal[x / 8 % COUNT_OF(literal)]);
        else if (kind == 0)
            buf_putc(out, (char)(x >> 32));
        else if (kind == 1)
            buf_putc(out, (char)(' ' + (x >> 32) % 95));
        else if (kind == 2)
            buf_putc(out, (char)((x >> 32) % 4 ? 'a' + (x >> 40) % 26 : ' '));
        else
            buf_putc(out, "\n \t.,-("[(x >> 32) % 7]);
    }
}

static void test_round_trip(void **state)
{
    struct rng r = { 1, 0 };
    struct buf text;
    buf_init(&text, 1 << 20);
    for (int i = 0; i < 2000; i++) {
        random_text(&r, &text, (int)(rng_next(&r) % 200));
        struct ids ids = encode(*state, text.data, text.len, i % 2);
        struct buf back = decode(*state, &ids, true);
        assert_bytes(&back, text.data, text.len);
        buf_release(&back);
        ids_release(&ids);
    }
    buf_release(&text);
}

/* Without literals in the text, spans change nothing, wherever their borders are. */
static void test_spans_do_not_split(void **state)
{
    struct rng r = { 2, 0 };
    static const char text[] =
        "Hello.\n\nThe quick <brown> fox, 12345 times... 中文字\r\n  jumps";
    struct ids plain = encode(*state, text, strlen(text), false);
    for (int i = 0; i < 200; i++) {
        struct text_span span[8];
        size_t at = 0;
        int n = 0;
        for (; n < 8; n++) {
            span[n].begin = at + 1 + rng_next(&r) % 5;
            span[n].end = at = span[n].begin + 1 + rng_next(&r) % 5;
            if (at > strlen(text))
                break;
        }
        struct ids ids = { 0 };
        struct err e = { 0 };
        assert_int_equal(tokenizer_encode(*state, text, strlen(text), span, n, &ids, &e), 0);
        assert_same_ids(&ids, &plain, text);
        ids_release(&ids);
    }
    ids_release(&plain);
}

static void test_literals_count_in_spans(void **state)
{
    static const char text[] = "<think><think><think>";
    static const struct {
        struct text_span span[2];
        int n_span, n_think;
    } at[] = {
        { { { 0, 0 } }, 0, 0 },           { { { 0, 21 } }, 1, 3 },
        { { { 7, 14 } }, 1, 1 },          { { { 8, 21 } }, 1, 1 },
        { { { 0, 20 } }, 1, 2 },          { { { 0, 3 }, { 3, 7 } }, 2, 0 },
        { { { 0, 10 }, { 10, 21 } }, 2, 2 }, { { { 21, 21 } }, 1, 0 },
    };
    for (size_t i = 0; i < COUNT_OF(at); i++) {
        struct ids ids = { 0 };
        struct err e = { 0 };
        int n_think = 0;
        assert_int_equal(tokenizer_encode(*state, text, strlen(text), at[i].span, at[i].n_span,
                                          &ids, &e), 0);
        for (int k = 0; k < ids.n; k++)
            n_think += ids.id[k] == 128821;
        assert_int_equal(n_think, at[i].n_think);
        struct buf back = decode(*state, &ids, false);
        assert_bytes(&back, text, strlen(text));
        buf_release(&back);
        ids_release(&ids);
    }
}

/* Encoding appends: ids that are there stay. */
static void test_append(void **state)
{
    struct ids ids = { 0 };
    struct err e = { 0 };
    ids_add(&ids, 7);
    assert_int_equal(tokenizer_encode(*state, "Hello", 5, NULL, 0, &ids, &e), 0);
    assert_int_equal(ids.n, 2);
    assert_int_equal(ids.id[0], 7);
    assert_int_equal(ids.id[1], 19923);
    assert_int_equal(tokenizer_encode(*state, NULL, 0, NULL, 0, &ids, &e), 0);
    assert_int_equal(ids.n, 2);
    ids_release(&ids);
}

/* A bad byte is its own token, and what surrounds it is encoded as if it stood alone. */
static void test_bad_bytes(void **state)
{
    static const char *const bad[] = { "\xFF", "\xC0\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                                       "\xE4\xB8", "\x80", "\xF0\x9F\x98" };
    static const char left[] = "The end ", right[] = " of it";
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct buf text;
        buf_init(&text, 100);
        buf_printf(&text, "%s%s%s", left, bad[i], right);
        struct ids want = encode(*state, left, strlen(left), false);
        struct ids after = encode(*state, right, strlen(right), false);
        for (const char *b = bad[i]; *b; b++) {
            size_t len;
            int id = 3;
            while (tokenizer_bytes(*state, id, &len)[0] != *b)
                id++;
            assert_true(len == 1 && id < REAL_FIRST_MERGED);
            ids_add(&want, id);
        }
        for (int k = 0; k < after.n; k++)
            ids_add(&want, after.id[k]);
        struct ids got = encode(*state, text.data, text.len, true);
        assert_same_ids(&got, &want, text.data);
        ids_release(&got);
        ids_release(&want);
        ids_release(&after);
        buf_release(&text);
    }
}

/* The definition: of all adjacent pairs that merge, the best rank, the leftmost among equals.
 * Here as a plain search in a list; ids as in the real vocabulary. */
struct by_parts {
    int left, right, result;
};

static int compare_parts(const void *x, const void *y)
{
    const struct by_parts *a = x, *b = y;
    return a->left != b->left ? (a->left > b->left) - (a->left < b->left) :
                                (a->right > b->right) - (a->right < b->right);
}

static int plain_merges(const struct by_parts *list, int n_list, int *id, int n)
{
    for (;;) {
        int best = INT32_MAX, where = -1;
        for (int i = 0; i + 1 < n; i++) {
            struct by_parts key = { id[i], id[i + 1], 0 }, *found;
            found = bsearch(&key, list, (size_t)n_list, sizeof *list, compare_parts);
            if (found && found->result < best) {
                best = found->result;
                where = i;
            }
        }
        if (where < 0)
            return n;
        id[where] = best;
        n--;
        memmove(id + where + 1, id + where + 2, (size_t)(n - where - 1) * sizeof *id);
    }
}

static void test_merge_order(void **state)
{
    struct tokenizer *t = *state;
    struct rng r = { 3, 0 };
    int n_list = tokenizer_n_merge(t);
    struct by_parts *list = calloc((size_t)n_list, sizeof *list);
    for (int i = 0; i < n_list; i++) {
        tokenizer_merge(t, i, &list[i].left, &list[i].right);
        list[i].result = REAL_FIRST_MERGED + i;
    }
    qsort(list, (size_t)n_list, sizeof *list, compare_parts);
    for (int i = 0; i < 1500; i++) {
        char text[200];
        int want[200], n = 1 + (int)(rng_next(&r) % 199), n_letter = i % 3 ? 3 : 26;
        for (int k = 0; k < n; k++) { /* letters only: one piece */
            text[k] = "etaoinshrdlucmfwypvbgkjqxz"[rng_next(&r) % (uint64_t)n_letter];
            want[k] = text[k] - '!' + 3;
        }
        struct ids got = encode(t, text, (size_t)n, false);
        n = plain_merges(list, n_list, want, n);
        assert_int_equal(got.n, n);
        for (int k = 0; k < n; k++)
            assert_int_equal(got.id[k], want[k]);
        ids_release(&got);
    }
    free(list);
}

/* A piece without a break takes time in proportion to its length: ten times as much text, about
 * ten times as long. A quadratic search would take a hundred times. */
static double encode_s(struct tokenizer *t, const char *unit, size_t n)
{
    struct buf text;
    buf_init(&text, 1 << 24);
    while (text.len < n)
        buf_puts(&text, unit);
    double best = 1e9;
    for (int i = 0; i < 3; i++) {
        clock_t start = clock(); /* of this process: a busy machine does not count */
        struct ids ids = encode(t, text.data, text.len, false);
        best = MIN(best, (double)(clock() - start) / CLOCKS_PER_SEC);
        struct buf back = decode(t, &ids, true);
        assert_bytes(&back, text.data, text.len);
        buf_release(&back);
        ids_release(&ids);
    }
    buf_release(&text);
    return best;
}

static void test_long_pieces(void **state)
{
    static const char *const unit[] = { "a", "abcdefghijk", " ", "\n", "=", "中", "\x01", "\xFF" };
    for (size_t i = 0; i < COUNT_OF(unit); i++) {
        double small = encode_s(*state, unit[i], 20000), large = encode_s(*state, unit[i], 200000);
        if (large > small * 40 + .01)
            fail_msg("'%s': %.4f s for 20 kB, %.4f s for 200 kB", unit[i], small, large);
    }
}

/* More distinct short pieces than the cache holds, and again: the cache may not change an id. */
static void test_cache(void **state)
{
    struct err e = { 0 };
    struct tokenizer *fresh;
    struct buf json = real_vocab_json(false), text;
    buf_init(&text, 1 << 24);
    for (int i = 0; i < 100000; i++)
        buf_printf(&text, " %x", (unsigned)(i * 2654435761u));
    struct ids first = encode(*state, text.data, text.len, false);
    struct ids again = encode(*state, text.data, text.len, false);
    assert_same_ids(&again, &first, "second time");
    assert_int_equal(tokenizer_open_json_text(&fresh, json.data, json.len, "fresh", NULL, &e), 0);
    for (int i = 0, at = 0; i < 1000; i++) {
        char word[20];
        int n = snprintf(word, sizeof word, " %x", (unsigned)(i * 2654435761u));
        struct ids one = encode(fresh, word, (size_t)n, false);
        for (int k = 0; k < one.n; k++)
            assert_int_equal(one.id[k], first.id[at++]);
        ids_release(&one);
    }
    tokenizer_close(fresh);
    ids_release(&first);
    ids_release(&again);
    buf_release(&text);
    buf_release(&json);
}

static int open_real(void **state)
{
    *state = real_vocab_open();
    return 0;
}

static int close_real(void **state)
{
    tokenizer_close(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_prompt_counts),
        cmocka_unit_test(test_bundled_model),
        cmocka_unit_test(test_accessors),
        cmocka_unit_test(test_merges),
        cmocka_unit_test(test_merges_as_pairs),
        cmocka_unit_test(test_export),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_spans_do_not_split),
        cmocka_unit_test(test_literals_count_in_spans),
        cmocka_unit_test(test_append),
        cmocka_unit_test(test_bad_bytes),
        cmocka_unit_test(test_merge_order),
        cmocka_unit_test(test_long_pieces),
        cmocka_unit_test(test_cache),
    };
    return cmocka_run_group_tests(tests, open_real, close_real);
}
