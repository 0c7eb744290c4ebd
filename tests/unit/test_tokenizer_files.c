/* test_tokenizer_files.c - small vocabularies, right and wrong, as tokenizer.json and as GGUF. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "gguf_bytes.h"
#include "gguf_read.h"
#include "tokenizer.h"
#include "utf8.h"

/* 0..255 the bytes, 256 "th", 257 "the", 258 and 259 added. */
#define N_SMALL 260
#define SPLIT(pattern)                                                                     \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern "\"},\"behavior\":\"Isolated\"," \
    "\"invert\":false}"
#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define SEQUENCE(steps) "{\"type\":\"Sequence\",\"pretokenizers\":[" steps "]}"

/* A file's parts; NULL is the right one. */
struct parts {
    const char *added, *after_bytes, *merges, *pre, *model, *root;
    int skip_byte; /* + 1 */
};

static void spell(struct buf *out, int byte)
{
    int other = 0x100, c = 0;
    char s[4];
    for (int i = 0; i <= byte; i++)
        c = (i > 0x20 && i < 0x7F) || (i > 0xA0 && i != 0xAD) ? i : other++;
    buf_add(out, s, (size_t)utf8_put(s, (uint32_t)c));
}

static const char *or(const char *given, const char *right)
{
    return given ? given : right;
}

static struct buf json_of(struct parts p)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_printf(&b, "{\"added_tokens\":%s,\"model\":{\"type\":\"BPE\",%s\"vocab\":{",
               or(p.added, "[{\"id\":258,\"content\":\"<b>\",\"special\":true},"
                           "{\"id\":259,\"content\":\"<｜b｜>\"}]"), or(p.model, ""));
    for (int i = 0; i < 256; i++)
        if (i + 1 != p.skip_byte) {
            buf_puts(&b, i == '"' || i == '\\' ? "\"\\" : "\"");
            spell(&b, i);
            buf_printf(&b, "\":%d,", i);
        }
    buf_printf(&b, "%s},\"merges\":%s},", or(p.after_bytes, "\"th\":256,\"the\":257"),
               or(p.merges, "[\"t h\",[\"th\",\"e\"]]"));
    buf_printf(&b, "\"pre_tokenizer\":%s%s}",
               or(p.pre, SEQUENCE(SPLIT(" ?\\\\p{L}+") "," BYTE_LEVEL)), or(p.root, ""));
    assert_false(b.failed);
    return b;
}

static int open_json(struct tokenizer **t, struct parts p, const struct log *log, struct err *e)
{
    struct buf b = json_of(p);
    int code = tokenizer_open_json_text(t, b.data, b.len, "small.json", log, e);
    buf_release(&b);
    return code;
}

static void assert_ids(struct tokenizer *t, const char *text, int n, const int32_t *want)
{
    struct ids ids = { 0 };
    struct err e = { 0 };
    struct text_span all = { 0, strlen(text) };
    assert_int_equal(tokenizer_encode(t, text, strlen(text), &all, 1, &ids, &e), 0);
    assert_int_equal(ids.n, n);
    assert_memory_equal(ids.id, want, (size_t)n * sizeof *want);
    ids_release(&ids);
}

static void assert_small(struct tokenizer *t)
{
    static const int32_t want[] = { 256, 257, 'n', ' ', 257, 258, 't', 259, 256 };
    assert_int_equal(tokenizer_n_vocab(t), N_SMALL);
    assert_int_equal(tokenizer_n_merge(t), 2);
    assert_int_equal(tokenizer_find(t, "<b>", 3), 258);
    assert_int_equal(tokenizer_type(t, 258), TOKEN_CONTROL);
    assert_int_equal(tokenizer_type(t, 259), TOKEN_USER_DEFINED);
    assert_ids(t, "ththen the<b>t<｜b｜>th", COUNT_OF(want), want);
}

static void count_remark(void *user, int level, const char *text)
{
    (void)text;
    *(int *)user += level == LOG_WARN;
}

/* ---- tokenizer.json ---- */

static void test_right(void **state)
{
    (void)state;
    static const struct parts right[] = {
        { 0 },
        { .model = "\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":\"\","
                   "\"ignore_merges\":false,\"byte_fallback\":false,\"fuse_unk\":false," },
        { .root = ",\"normalizer\":null,\"decoder\":{\"type\":\"ByteLevel\"},"
                  "\"post_processor\":{\"type\":\"ByteLevel\"}" },
        { .root = ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[]}" },
        /* an added token may also stand in the list of base tokens, literally */
        { .after_bytes = "\"th\":256,\"the\":257,\"<b>\":258,\"<｜b｜>\":259" },
        { .merges = "[\"t h\",\"th e\"]" },
        { .merges = "[[\"t\",\"h\"],[\"th\",\"e\"]]" },
    };
    for (size_t i = 0; i < COUNT_OF(right); i++) {
        struct err e = { 0 };
        struct tokenizer *t;
        int n_remark = 0;
        struct log log = { count_remark, &n_remark };
        if (open_json(&t, right[i], &log, &e) < 0)
            fail_msg("case %zu: %s", i, e.text);
        assert_small(t);
        assert_null(tokenizer_pre(t));
        assert_int_equal(n_remark, 0);
        tokenizer_close(t);
    }
}

/* The parts that would change what a post-processor adds are heard of. */
static void test_remark(void **state)
{
    (void)state;
    struct err e = { 0 };
    struct tokenizer *t;
    int n_remark = 0;
    struct log log = { count_remark, &n_remark };
    struct parts p = { .root = ",\"post_processor\":{\"type\":\"TemplateProcessing\"}" };
    assert_int_equal(open_json(&t, p, &log, &e), 0);
    assert_int_equal(n_remark, 1);
    tokenizer_close(t);
}

/* Leftmost, then longest; and what is too long for its span gives way to a shorter one. */
static void test_literals(void **state)
{
    (void)state;
    static const int32_t whole[] = { 259, 258, 'x', 260, 258, '<', 'b' };
    static const int32_t cut[] = { 258, 'x', 'y', 256 };
    struct err e = { 0 };
    struct tokenizer *t;
    struct ids ids = { 0 };
    struct text_span span = { 0, 4 };
    struct parts p = { .added = "[{\"id\":258,\"content\":\"<b>\"},"
                                "{\"id\":259,\"content\":\"<b>xy\"},"
                                "{\"id\":260,\"content\":\"b><b\"}]" };
    assert_int_equal(open_json(&t, p, NULL, &e), 0);
    assert_ids(t, "<b>xy<b>xb><b<b><b", COUNT_OF(whole), whole);
    assert_int_equal(tokenizer_find(t, "<b>x", 4), -1);
    assert_int_equal(tokenizer_encode(t, "<b>xyth", 7, &span, 1, &ids, &e), 0);
    assert_int_equal(ids.n, COUNT_OF(cut));
    assert_memory_equal(ids.id, cut, sizeof cut);
    ids_release(&ids);
    tokenizer_close(t);
}

/* A text that cannot be encoded leaves the list as it was. */
static void test_failed_encode(void **state)
{
    (void)state;
    static const char text[] = "<b>aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!b";
    struct err e = { 0 };
    struct tokenizer *t;
    struct ids ids = { 0 };
    struct text_span all = { 0, strlen(text) };
    struct parts p = { .pre = SEQUENCE(SPLIT("(?:a+)+b") "," BYTE_LEVEL) };
    assert_int_equal(open_json(&t, p, NULL, &e), 0);
    ids_add(&ids, 7);
    assert_int_equal(tokenizer_encode(t, text, strlen(text), &all, 1, &ids, &e), ERR_LIMIT);
    assert_int_equal(ids.n, 1);
    assert_int_equal(ids.id[0], 7);
    ids_release(&ids);
    tokenizer_close(t);
}

static const struct {
    struct parts parts;
    enum err_code code;
    const char *says;
} wrong[] = {
    { { .added = "{}" }, ERR_FORMAT, "added_tokens" },
    { { .added = "[3]" }, ERR_FORMAT, "added_tokens[0]" },
    { { .added = "[{\"id\":258}]" }, ERR_FORMAT, "added_tokens[0]" },
    { { .added = "[{\"id\":\"258\",\"content\":\"x\"}]" }, ERR_FORMAT, "added_tokens[0]" },
    { { .added = "[{\"id\":258,\"content\":\"x\",\"special\":1}]" }, ERR_FORMAT, "special" },
    { { .added = "[{\"id\":258,\"content\":\"\"}]" }, ERR_FORMAT, "258 is empty" },
    { { .added = "[{\"id\":258,\"content\":\"x y\",\"lstrip\":true}]" },
      ERR_UNSUPPORTED, "lstrip" },
    { { .added = "[{\"id\":258,\"content\":\"｜\"},{\"id\":259,\"content\":\"｜\"}]" },
      ERR_FORMAT, "258 and 259" },
    { { .added = "[{\"id\":258,\"content\":\"xy\"},{\"id\":259,\"content\":\"xy\"}]" },
      ERR_FORMAT, "258 and 259" },
    { { .added = "[{\"id\":258,\"content\":\"xy\"},{\"id\":258,\"content\":\"xz\"}]" },
      ERR_FORMAT, "258 is given twice" },
    { { .added = "[{\"id\":257,\"content\":\"｜\"}]" }, ERR_FORMAT, "257 is another text" },
    { { .added = "[{\"id\":258,\"content\":\"the\"}]" }, ERR_FORMAT, "258 and 257 are the same" },
    { { .added = "[{\"id\":259,\"content\":\"x y\"}]" }, ERR_FORMAT, "id 259" },
    { { .added = "[{\"id\":300,\"content\":\"x y\"}]" }, ERR_FORMAT, "id 300" },
    { { .added = "[{\"id\":-1,\"content\":\"x y\"}]" }, ERR_FORMAT, "id -1" },
    { { .added = "[{\"id\":9223372036854775807,\"content\":\"x\"}]" },
      ERR_FORMAT, "92233720368547" },
    { { .after_bytes = "\"th\":256,\"the\":256" }, ERR_FORMAT, "id 256 is given twice" },
    { { .after_bytes = "\"th\":256,\"the\":9999" }, ERR_FORMAT, "9999" },
    { { .after_bytes = "\"th\":256,\"the\":-3" }, ERR_FORMAT, "-3" },
    { { .after_bytes = "\"th\":256,\"the\":2.5" }, ERR_FORMAT, "model.vocab" },
    { { .after_bytes = "\"th\":256,\"the\":\"257\"" }, ERR_FORMAT, "model.vocab" },
    { { .after_bytes = "\"th\":256,\"th\":257" }, ERR_FORMAT, "duplicate" },
    { { .after_bytes = "\"th\":256,\"中\":257" }, ERR_FORMAT, "'中': the character at byte 0" },
    { { .after_bytes = "\"th\":256,\"t h\":257" }, ERR_FORMAT, "character at byte 1" },
    { { .after_bytes = "\"th\":256,\"\":257" }, ERR_FORMAT, "257 is empty" },
    { { .skip_byte = 'q' + 1 }, ERR_FORMAT, "id 259 with only 259 tokens" },
    { { .skip_byte = 'q' + 1, .after_bytes = "\"th\":256,\"the\":257,\"<b>\":258" },
      ERR_FORMAT, "no token has id 113" },
    { { .skip_byte = 'q' + 1, .after_bytes = "\"th\":256,\"the\":113", .added = "[]" },
      ERR_FORMAT, "single byte 0x71" },
    { { .merges = "{}" }, ERR_FORMAT, "model.merges" },
    { { .merges = "[3]" }, ERR_FORMAT, "model.merges[0]" },
    { { .merges = "[\"th\"]" }, ERR_FORMAT, "model.merges[0]" },
    { { .merges = "[[\"t\",\"h\",\"e\"]]" }, ERR_FORMAT, "model.merges[0]" },
    { { .merges = "[[\"t\",3]]" }, ERR_FORMAT, "model.merges[0]" },
    { { .merges = "[\"t h\",\"x y\"]" }, ERR_FORMAT, "merge 1: 'x' and 'y'" },
    { { .merges = "[\"tt h\"]" }, ERR_FORMAT, "merge 0: 'tt'" },
    { { .merges = "[\"t \"]" }, ERR_FORMAT, "merge 0: ''" },
    { { .merges = "[\"t h \"]" }, ERR_FORMAT, "merge 0: 'h '" },
    { { .merges = "[\"t h\",\"t h\"]" }, ERR_FORMAT, "merges 0 and 1" },
    { { .model = "\"byte_fallback\":true," }, ERR_UNSUPPORTED, "byte_fallback" },
    { { .model = "\"ignore_merges\":true," }, ERR_UNSUPPORTED, "ignore_merges" },
    { { .model = "\"dropout\":0.1," }, ERR_UNSUPPORTED, "dropout" },
    { { .model = "\"unk_token\":\"<unk>\"," }, ERR_UNSUPPORTED, "unk_token" },
    { { .model = "\"type\":\"BPE\"," }, ERR_FORMAT, "duplicate" },
    { { .root = ",\"normalizer\":{\"type\":\"NFC\"}" }, ERR_UNSUPPORTED, "normalizer" },
    { { .root = ",\"decoder\":{\"type\":\"WordPiece\"}" }, ERR_UNSUPPORTED, "decoder" },
    { { .pre = "null" }, ERR_UNSUPPORTED, "pre_tokenizer" },
    { { .pre = BYTE_LEVEL }, ERR_UNSUPPORTED, "pre_tokenizer" },
    { { .pre = SEQUENCE("") }, ERR_UNSUPPORTED, "pre_tokenizer" },
    { { .pre = SEQUENCE(SPLIT("a")) }, ERR_UNSUPPORTED, "ByteLevel" },
    { { .pre = SEQUENCE(BYTE_LEVEL "," SPLIT("a")) }, ERR_UNSUPPORTED, "ByteLevel" },
    { { .pre = SEQUENCE("{\"type\":\"ByteLevel\"}") }, ERR_UNSUPPORTED, "use_regex" },
    { { .pre = SEQUENCE("{\"type\":\"Digits\"}," BYTE_LEVEL) }, ERR_UNSUPPORTED, "Split" },
    { { .pre = SEQUENCE("{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":"
                        "\"Isolated\"}," BYTE_LEVEL) }, ERR_UNSUPPORTED, "Regex" },
    { { .pre = SEQUENCE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":"
                        "\"Removed\"}," BYTE_LEVEL) }, ERR_UNSUPPORTED, "Isolated" },
    { { .pre = SEQUENCE(SPLIT("\\\\w+") "," BYTE_LEVEL) }, ERR_UNSUPPORTED, "\\w" },
    { { .pre = SEQUENCE(SPLIT("(a") "," BYTE_LEVEL) }, ERR_UNSUPPORTED, "(a" },
    { { .pre = SEQUENCE(SPLIT("a") "," SPLIT("a") "," SPLIT("a") "," SPLIT("a") "," SPLIT("a") ","
                        SPLIT("a") "," SPLIT("a") "," SPLIT("a") "," SPLIT("a") "," BYTE_LEVEL) },
      ERR_UNSUPPORTED, "10 steps" },
};

/* Refused with the file and the field in the message, and nothing left open. */
static void test_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        struct err e = { 0 };
        struct tokenizer *t = (struct tokenizer *)&e;
        int code = open_json(&t, wrong[i].parts, NULL, &e);
        if (code != wrong[i].code || t || !strstr(e.text, wrong[i].says) ||
            strncmp(e.text, "small.json: ", 12) != 0)
            fail_msg("case %zu: %d %s", i, code, e.text);
    }
}

static void test_not_json(void **state)
{
    (void)state;
    static const char *const text[] = { "", "{", "[]", "3", "\"x\"", "{}", "{\"model\":3}",
                                        "{\"model\":{}}", "{\"model\":{\"vocab\":{}}}",
                                        "{\"model\":{\"type\":\"Unigram\",\"vocab\":{}}}",
                                        "{\"model\":{\"vocab\":{},\"merges\":[]}}",
                                        "{\"a\":\"\xFF\"}" };
    struct err e = { 0 };
    struct tokenizer *t;
    for (size_t i = 0; i < COUNT_OF(text); i++) {
        e = (struct err){ 0 };
        assert_true(tokenizer_open_json_text(&t, text[i], strlen(text[i]), "x", NULL, &e) < 0);
        assert_null(t);
        assert_memory_equal(e.text, "x: ", 3);
    }
    e = (struct err){ 0 };
    assert_int_equal(tokenizer_open_json(&t, "tests/no/such/file", NULL, &e), ERR_IO);
    assert_null(t);
}

static void test_truncated(void **state)
{
    (void)state;
    struct buf b = json_of((struct parts){ 0 });
    for (size_t n = 0; n < b.len; n++) {
        struct err e = { 0 };
        struct tokenizer *t;
        assert_int_equal(tokenizer_open_json_text(&t, b.data, n, "cut", NULL, &e), ERR_FORMAT);
        assert_null(t);
        assert_non_null(strstr(e.text, "line 1, column"));
    }
    buf_release(&b);
}

/* ---- GGUF ---- */

struct gguf_parts {
    const char *model, *pre, *skip; /* skip: a key that is left out */
    int n_type, type_of_0, eos;
    const char *token_0, *merge_1;
    bool tokens_are_numbers;
};

static const struct gguf_parts right_gguf = { .model = "gpt2", .pre = "joyai-llm", .skip = "",
                                              .n_type = N_SMALL, .type_of_0 = 1, .eos = 258,
                                              .merge_1 = "th e" };

static void put_array(struct buf *b, const char *key, int type, int n)
{
    put_str(b, key);
    put_le(b, 9, 4);
    put_le(b, (uint64_t)type, 4);
    put_le(b, (uint64_t)n, 8);
}

static void put_tokens(struct buf *b, const struct gguf_parts *p)
{
    static const char *const others[] = { "th", "the", "<b>", "<｜b｜>" };
    put_array(b, "tokenizer.ggml.tokens", p->tokens_are_numbers ? 4 : 8, N_SMALL);
    for (int i = 0; i < N_SMALL; i++) {
        struct buf s;
        buf_init(&s, 100);
        if (i == 0 && p->token_0)
            buf_puts(&s, p->token_0);
        else if (i < 256)
            spell(&s, i);
        else
            buf_puts(&s, others[i - 256]);
        if (p->tokens_are_numbers)
            put_le(b, 0, 4);
        else
            put_str(b, s.data);
        buf_release(&s);
    }
}

static int open_gguf(struct tokenizer **t, const struct gguf_parts *p, const struct log *log,
                     struct err *e)
{
    static const char *const key[] = { "model", "pre", "tokens", "token_type", "merges",
                                       "eos_token_id" };
    struct buf b;
    struct gguf g;
    int n_kv = 0;
    for (size_t i = 0; i < COUNT_OF(key); i++)
        n_kv += strcmp(key[i], p->skip) != 0;
    put_head(&b, 0, (uint64_t)n_kv);
    if (strcmp(p->skip, "model") != 0)
        put_kv_str(&b, "tokenizer.ggml.model", p->model);
    if (strcmp(p->skip, "pre") != 0)
        put_kv_str(&b, "tokenizer.ggml.pre", p->pre);
    if (strcmp(p->skip, "tokens") != 0)
        put_tokens(&b, p);
    if (strcmp(p->skip, "token_type") != 0) {
        put_array(&b, "tokenizer.ggml.token_type", 5, p->n_type);
        for (int i = 0; i < p->n_type; i++)
            put_le(&b, i == 0 ? (uint64_t)p->type_of_0 : i < 258 ? 1 : i == 258 ? 3 : 4, 4);
    }
    if (strcmp(p->skip, "merges") != 0) {
        put_array(&b, "tokenizer.ggml.merges", 8, 2);
        put_str(&b, "t h");
        put_str(&b, p->merge_1);
    }
    if (strcmp(p->skip, "eos_token_id") != 0)
        put_kv_u32(&b, "tokenizer.ggml.eos_token_id", (uint32_t)p->eos);
    put_data(&b, 32, 0);
    if (gguf_parse(&g, "small.gguf", (const uint8_t *)b.data, b.len, e) < 0)
        fail_msg("%s", e->text);
    int code = tokenizer_open_meta(t, g.meta, "small.gguf", log, e);
    gguf_release(&g);
    buf_release(&b);
    return code;
}

static void test_gguf(void **state)
{
    (void)state;
    static const char *const pre[] = { "joyai-llm", "deepseek-v3", "deepseek-llm" };
    for (size_t i = 0; i < COUNT_OF(pre); i++) {
        struct gguf_parts p = right_gguf;
        struct err e = { 0 };
        struct tokenizer *t;
        int n_remark = 0;
        struct log log = { count_remark, &n_remark };
        p.pre = pre[i];
        p.skip = i == 1 ? "eos_token_id" : "";
        if (open_gguf(&t, &p, &log, &e) < 0)
            fail_msg("%s", e.text);
        assert_small(t);
        assert_string_equal(tokenizer_pre(t), "joyai-llm");
        assert_int_equal(n_remark, i > 0);
        tokenizer_close(t);
    }
}

static void test_wrong_gguf(void **state)
{
    (void)state;
    struct gguf_parts bad[20];
    static const struct {
        enum err_code code;
        const char *says;
    } want[20] = {
        { ERR_UNSUPPORTED, "tokenizer.ggml.model is ''" },
        { ERR_UNSUPPORTED, "tokenizer.ggml.model is 'llama'" },
        { ERR_UNSUPPORTED, "tokenizer.ggml.pre is ''" },
        { ERR_UNSUPPORTED, "tokenizer.ggml.pre is 'qwen2'" },
        { ERR_FORMAT, "tokenizer.ggml.tokens is missing" },
        { ERR_FORMAT, "tokenizer.ggml.token_type is missing" },
        { ERR_FORMAT, "tokenizer.ggml.merges is missing" },
        { ERR_FORMAT, "tokenizer.ggml.token_type has 259 values for 260" },
        { ERR_UNSUPPORTED, "token 0 has type 6" },
        { ERR_FORMAT, "token 0 '中'" },
        { ERR_FORMAT, "same bytes" },
        { ERR_FORMAT, "value 1 has no space" },
        { ERR_FORMAT, "merge 1: 'th' and 'x'" },
        { ERR_FORMAT, "tokenizer.ggml.eos_token_id is 260, expected 0..259" },
        { ERR_FORMAT, "tokenizer.ggml.tokens: expected an array of strings" },
        { ERR_FORMAT, "single byte 0x00" },
        { ERR_FORMAT, "merges 0 and 1" },
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        bad[i] = right_gguf;
    bad[0].skip = "model";
    bad[1].model = "llama";
    bad[2].skip = "pre";
    bad[3].pre = "qwen2";
    bad[4].skip = "tokens";
    bad[5].skip = "token_type";
    bad[6].skip = "merges";
    bad[7].n_type = N_SMALL - 1;
    bad[8].type_of_0 = 6;
    bad[9].token_0 = "中";
    bad[10].token_0 = "a";
    bad[11].merge_1 = "the";
    bad[12].merge_1 = "th x";
    bad[13].eos = N_SMALL;
    bad[14].tokens_are_numbers = true;
    bad[15].type_of_0 = 3;
    bad[16].merge_1 = "t h";
    for (int i = 0; i < 17; i++) {
        struct err e = { 0 };
        struct tokenizer *t = (struct tokenizer *)&e;
        int code = open_gguf(&t, &bad[i], NULL, &e);
        if (code != want[i].code || t || !strstr(e.text, want[i].says) ||
            strncmp(e.text, "small.gguf: ", 12) != 0 || strstr(e.text + 12, "small.gguf"))
            fail_msg("case %d: %d %s", i, code, e.text);
    }
}

/* An unused number has no text and no literal; all else stays as it is. */
static void test_unused(void **state)
{
    (void)state;
    struct buf b;
    struct gguf g;
    struct err e = { 0 };
    struct tokenizer *t;
    size_t len;
    put_head(&b, 0, 5);
    put_kv_str(&b, "tokenizer.ggml.model", "gpt2");
    put_kv_str(&b, "tokenizer.ggml.pre", "joyai-llm");
    put_array(&b, "tokenizer.ggml.tokens", 8, 258);
    for (int i = 0; i < 256; i++) {
        struct buf s;
        buf_init(&s, 8);
        spell(&s, i);
        put_str(&b, s.data);
        buf_release(&s);
    }
    put_str(&b, "[PAD256]");
    put_str(&b, "[PAD257]");
    put_array(&b, "tokenizer.ggml.token_type", 5, 258);
    for (int i = 0; i < 258; i++)
        put_le(&b, i < 256 ? 1 : 5, 4);
    put_array(&b, "tokenizer.ggml.merges", 8, 0);
    put_data(&b, 32, 0);
    assert_int_equal(gguf_parse(&g, "pad.gguf", (const uint8_t *)b.data, b.len, &e), 0);
    assert_int_equal(tokenizer_open_meta(&t, g.meta, "pad.gguf", NULL, &e), 0);
    assert_int_equal(tokenizer_n_vocab(t), 258);
    assert_null(tokenizer_bytes(t, 257, &len));
    assert_int_equal(tokenizer_type(t, 257), TOKEN_UNUSED);
    assert_false(tokenizer_is_added(t, 257));
    assert_int_equal(tokenizer_find(t, "[PAD257]", 8), -1);
    struct buf spelling;
    buf_init(&spelling, 100);
    tokenizer_spelling(t, 257, &spelling);
    assert_string_equal(spelling.data, "[PAD257]");
    static const int32_t want[] = { '[', 'P' };
    assert_ids(t, "[P", 2, want);
    tokenizer_close(t);
    buf_release(&spelling);
    gguf_release(&g);
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right),     cmocka_unit_test(test_remark),
        cmocka_unit_test(test_literals),  cmocka_unit_test(test_failed_encode),
        cmocka_unit_test(test_wrong),     cmocka_unit_test(test_not_json),
        cmocka_unit_test(test_truncated), cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_wrong_gguf), cmocka_unit_test(test_unused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
