/* test_kv_disk.c - session files: round trips, damage of every kind, full disks. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "hash.h"
#include "kv_disk.h"
#include "kv_fake.h"

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

static const struct kv_disk_model model = { "an identity of thirty-two bytes", 5000 };
static char path[64];

static int make_path(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/test_kv_disk.%ld", (long)getpid());
    return 0;
}

static int drop_path(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static void read_file(struct buf *b)
{
    buf_init(b, 64u << 20);
    assert_int_equal(file_read_all(b, path, NULL), 0);
}

static void write_file(const struct buf *b, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b->data, 1, n, f), n);
    fclose(f);
}

/* Everything the next step may read, and the tokens: the cache's content in one number. */
static uint64_t content(struct kv_seq *s)
{
    struct hash h;
    hash_init(&h, (uint64_t)s->n_tok);
    hash_add(&h, s->token, sizeof *s->token * (size_t)s->n_tok);
    kv_copy_save(s, &s->undo, s->floor);
    hash_add(&h, s->undo.copy, s->undo.bytes);
    for (int i = 0; i < s->n_mark; i++)
        hash_add(&h, s->mark[i].copy, s->mark[i].bytes);
    return hash_value(&h);
}

static void make_session(struct fake *f, int n_tok)
{
    fake_open(f, 4000, 4, 16);
    if (n_tok > 300) {
        fake_append(&f->seq, 211, 100, 1);
        kv_mark(&f->seq, 6, true);
        fake_append(&f->seq, n_tok - 211, 100, 2);
    } else if (n_tok) {
        fake_append(&f->seq, n_tok, 100, 1);
    }
}

static int load(struct kv_seq *s, struct buf *extra, struct err *e)
{
    struct kv_disk d;
    TRY(kv_disk_open(&d, path, s, &model, extra, e));
    int code = kv_disk_load(&d, s, e);
    kv_disk_close(&d);
    return code;
}

static void test_round_trip(void **state)
{
    (void)state;
    const int n_tok[] = { 0, 1, 5, 127, 128, 511, 512, 513, 1024, 1203, 3999 };
    for (size_t i = 0; i < COUNT_OF(n_tok); i++) {
        struct fake a, b;
        struct err e = { 0 };
        struct buf extra;
        make_session(&a, n_tok[i]);
        fake_open(&b, 4000, 4, 8);
        fake_append(&b.seq, 321, 100, 77); /* what was there before goes */
        kv_mark(&b.seq, 0, true);
        buf_init(&extra, 100);
        assert_int_equal(kv_disk_save(&a.seq, path, &model, "hello", 5, &e), 0);
        if (load(&b.seq, &extra, &e) < 0)
            fail_msg("%s", e.text);
        assert_int_equal(b.seq.n_tok, n_tok[i]);
        assert_int_equal(b.seq.n_mark, a.seq.n_mark);
        assert_memory_equal(b.seq.token, a.seq.token, 4 * (size_t)n_tok[i]);
        assert_true(content(&a.seq) == content(&b.seq));
        assert_true(fake_ok(&b.seq));
        assert_string_equal(extra.data, "hello");
        buf_release(&extra);
        /* It goes on as the first would. */
        if (n_tok[i] < 3000) {
            fake_append(&b.seq, 400, 64, 5);
            assert_true(fake_ok(&b.seq));
        }
        if (n_tok[i] > 300) {
            assert_int_equal(kv_truncate(&b.seq, 208), 208);
            assert_true(fake_ok(&b.seq));
        }
        fake_close(&a);
        fake_close(&b);
    }
}

/* The same conversation gives the same bytes, whatever the blocks held before. */
static void test_file_holds_nothing_else(void **state)
{
    (void)state;
    struct buf one, two;
    for (int pass = 0; pass < 2; pass++) {
        struct fake f;
        fake_open(&f, 4000, 4, 16);
        fake_append(&f.seq, 1800, 200, 99 + (uint64_t)pass);
        kv_truncate(&f.seq, 0);
        fake_append(&f.seq, 700, pass ? 13 : 200, 1);
        assert_int_equal(kv_disk_save(&f.seq, path, &model, NULL, 0, NULL), 0);
        read_file(pass ? &two : &one);
        fake_close(&f);
    }
    assert_int_equal(one.len, two.len);
    assert_memory_equal(one.data, two.data, one.len);
    buf_release(&one);
    buf_release(&two);
}

static void test_marks_the_loader_has_no_room_for(void **state)
{
    (void)state;
    struct fake a, b;
    struct buf extra;
    fake_open(&a, 4000, 6, 16);
    for (int i = 0; i < 5; i++) {
        fake_append(&a.seq, 150, 100, (uint64_t)i);
        kv_mark(&a.seq, 0, true);
    }
    fake_append(&a.seq, 150, 100, 9);
    assert_int_equal(kv_disk_save(&a.seq, path, &model, NULL, 0, NULL), 0);
    fake_open(&b, 4000, 2, 16);
    buf_init(&extra, 0);
    assert_int_equal(load(&b.seq, &extra, NULL), 0);
    assert_int_equal(b.seq.n_mark, 2);
    assert_int_equal(b.seq.mark[0].pos, 600);
    assert_int_equal(kv_truncate(&b.seq, 700), 600);
    assert_true(fake_ok(&b.seq));
    fake_close(&a);
    fake_close(&b);
}

/* The load fails, says so in one line, and the conversation in memory is as it was. */
static void expect_refused(struct fake *f, int code, const char *words)
{
    struct err e = { 0 };
    struct buf extra;
    uint64_t before = content(&f->seq);
    int n_used = f->pool.n_used, n_mark = f->seq.n_mark;
    buf_init(&extra, 1000);
    int got = load(&f->seq, &extra, &e);
    buf_release(&extra);
    if (got != code)
        fail_msg("got %d (%s), expected %d", got, e.text, code);
    assert_true(content(&f->seq) == before);
    assert_int_equal(f->pool.n_used, n_used);
    assert_int_equal(f->seq.n_mark, n_mark);
    if (!strstr(e.text, words) || !strstr(e.text, path) || strchr(e.text, '\n'))
        fail_msg("'%s' does not name the file and say '%s'", e.text, words);
}

static void test_any_flipped_byte_is_seen(void **state)
{
    (void)state;
    struct fake a, b;
    struct buf file;
    struct rng rng = { 7, 0 };
    make_session(&a, 700);
    make_session(&b, 350);
    assert_int_equal(kv_disk_save(&a.seq, path, &model, "extra", 5, NULL), 0);
    read_file(&file);
    for (size_t i = 0; i < 700; i++) {
        size_t at = i < 300 ? i : rng_next(&rng) % file.len;
        char old = file.data[at];
        struct buf extra;
        struct err e = { 0 };
        uint64_t before = content(&b.seq);
        file.data[at] = (char)(old ^ 1 << rng_next(&rng) % 8);
        write_file(&file, file.len);
        buf_init(&extra, 1000);
        if (load(&b.seq, &extra, &e) == 0)
            fail_msg("a flip at byte %zu of %zu was not seen", at, file.len);
        assert_non_null(strstr(e.text, path));
        assert_true(content(&b.seq) == before);
        buf_release(&extra);
        file.data[at] = old;
    }
    assert_true(fake_ok(&b.seq));
    buf_release(&file);
    fake_close(&a);
    fake_close(&b);
}

static void test_any_cut_is_seen(void **state)
{
    (void)state;
    struct fake a, b;
    struct buf file;
    make_session(&a, 700);
    make_session(&b, 350);
    assert_int_equal(kv_disk_save(&a.seq, path, &model, "extra", 5, NULL), 0);
    read_file(&file);
    for (size_t n = 0; n < file.len; n += n < 200 ? 1 : file.len / 97) {
        write_file(&file, n);
        expect_refused(&b, ERR_FORMAT, "");
    }
    buf_putc(&file, 'x');
    write_file(&file, file.len);
    expect_refused(&b, ERR_FORMAT, "expected");
    buf_release(&file);
    fake_close(&a);
    fake_close(&b);
}

/* Change a field of the head and make its checksum right again. */
static void patch_head(struct buf *file, size_t at, int32_t value)
{
    struct kv_disk_head h;
    memcpy(&h, file->data, sizeof h);
    size_t head = sizeof h + 4 * (size_t)h.n_layer;
    head += sizeof(struct kv_disk_mark) * (size_t)(1 + h.n_mark);
    memcpy(file->data + at, &value, sizeof value);
    uint64_t check = hash_of(file->data, head, 0);
    memcpy(file->data + head, &check, sizeof check);
    write_file(file, file->len);
}

static void test_absurd_heads(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        int32_t value;
        int code;
        const char *words;
    } cases[] = {
        { 0, 0x46554747, ERR_FORMAT, "not a session file" },
        { offsetof(struct kv_disk_head, version), 9, ERR_UNSUPPORTED, "version 9, expected 1" },
        { offsetof(struct kv_disk_head, packed), 1, ERR_MISMATCH, "packed is 1, expected 0" },
        { offsetof(struct kv_disk_head, window), 17, ERR_MISMATCH, "window is 17, expected 16" },
        { offsetof(struct kv_disk_head, n_layer), 1 << 30, ERR_MISMATCH, "n_layer" },
        { offsetof(struct kv_disk_head, identity), 1, ERR_MISMATCH, "another model" },
        { offsetof(struct kv_disk_head, n_tok), -1, ERR_FORMAT, "-1 tokens" },
        { offsetof(struct kv_disk_head, n_tok), INT32_MAX, ERR_LIMIT, "the context has 4000" },
        { offsetof(struct kv_disk_head, n_tok), 4000, ERR_FORMAT, "mark" },
        { offsetof(struct kv_disk_head, n_mark), 65, ERR_FORMAT, "65 marks" },
        { offsetof(struct kv_disk_head, n_mark), -1, ERR_FORMAT, "-1 marks" },
        { offsetof(struct kv_disk_head, extra_bytes) + 4, 1, ERR_FORMAT, "extra" },
        { offsetof(struct kv_disk_head, extra_bytes), 6, ERR_FORMAT, "bytes" },
        { offsetof(struct kv_disk_head, file_bytes), 6, ERR_FORMAT, "bytes" },
        { sizeof(struct kv_disk_head) + 4, 8, ERR_MISMATCH, "ratio is 8, expected 4" },
        { sizeof(struct kv_disk_head) + 20 + 4, -1, ERR_FORMAT, "mark" },
        { sizeof(struct kv_disk_head) + 20 + 4, 1, ERR_FORMAT, "mark" },
        { sizeof(struct kv_disk_head) + 20 + 8, INT32_MAX, ERR_FORMAT, "mark" },
        { sizeof(struct kv_disk_head) + 36, 900, ERR_FORMAT, "mark" },
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct fake a, b;
        struct buf file;
        make_session(&a, 700);
        make_session(&b, 350);
        assert_int_equal(kv_disk_save(&a.seq, path, &model, "extra", 5, NULL), 0);
        read_file(&file);
        struct kv_disk_head h;
        memcpy(&h, file.data, sizeof h);
        if (cases[i].at >= sizeof h || cases[i].value < 1 << 20) {
            patch_head(&file, cases[i].at, cases[i].value);
        } else {
            memcpy(file.data + cases[i].at, &cases[i].value, 4);
            write_file(&file, file.len);
        }
        expect_refused(&b, cases[i].code, cases[i].words);
        buf_release(&file);
        fake_close(&a);
        fake_close(&b);
    }
}

static void test_other_model_and_tokens_and_room(void **state)
{
    (void)state;
    struct fake a, b;
    struct err e = { 0 };
    struct kv_disk_model other = model, small = { .n_vocab = 20 };
    memcpy(small.identity, model.identity, 32);
    make_session(&a, 700);
    other.identity[31] ^= 1;
    assert_int_equal(kv_disk_save(&a.seq, path, &other, NULL, 0, NULL), 0);
    make_session(&b, 350);
    expect_refused(&b, ERR_MISMATCH, "another model");

    assert_int_equal(kv_disk_save(&a.seq, path, &model, NULL, 0, NULL), 0);
    struct kv_disk d;
    struct buf extra;
    buf_init(&extra, 0);
    assert_int_equal(kv_disk_open(&d, path, &b.seq, &small, &extra, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "expected 0 to 19"));
    fake_close(&b);

    fake_open(&b, 600, 2, 16);
    expect_refused(&b, ERR_LIMIT, "the context has 600");
    fake_close(&b);
    fake_open(&b, 4000, 2, 1);
    expect_refused(&b, ERR_NO_MEMORY, "needs 2 blocks");
    fake_close(&b);
    fake_close(&a);

    fake_open(&b, 4000, 2, 16);
    unlink(path);
    expect_refused(&b, ERR_IO, "cannot open");
    fake_close(&b);
}

/* A full disk: the limit on file size stands in for it. What was there before stays. */
static void test_full_disk(void **state)
{
    (void)state;
    struct fake a, b;
    struct err e = { 0 };
    struct buf before, after, extra;
    struct rlimit old, low;
    make_session(&a, 350);
    assert_int_equal(kv_disk_save(&a.seq, path, &model, NULL, 0, NULL), 0);
    read_file(&before);
    fake_append(&a.seq, 3000, 100, 5);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = old;
    low.rlim_cur = before.len + 10000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    int code = kv_disk_save(&a.seq, path, &model, NULL, 0, &e);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);
    assert_true(code < 0);
    assert_non_null(strstr(e.text, path));
    char part[80];
    snprintf(part, sizeof part, "%s.part", path);
    assert_false(file_exists(part));
    read_file(&after);
    assert_int_equal(before.len, after.len);
    assert_memory_equal(before.data, after.data, before.len);
    fake_open(&b, 4000, 4, 16);
    buf_init(&extra, 0);
    assert_int_equal(load(&b.seq, &extra, NULL), 0);
    assert_int_equal(b.seq.n_tok, 350);
    assert_true(fake_ok(&b.seq));
    buf_release(&before);
    buf_release(&after);
    fake_close(&a);
    fake_close(&b);

    e = (struct err){ 0 };
    make_session(&a, 350);
    assert_true(kv_disk_save(&a.seq, "/nonexistent/x", &model, NULL, 0, &e) < 0);
    assert_non_null(strstr(e.text, "/nonexistent/x"));
    fake_close(&a);
}

/* The file changes after it was checked: an error, and an empty but sound conversation. */
static void test_file_that_changes_in_between(void **state)
{
    (void)state;
    struct fake a, b;
    struct err e = { 0 };
    struct kv_disk d;
    struct buf extra, file;
    make_session(&a, 700);
    make_session(&b, 350);
    assert_int_equal(kv_disk_save(&a.seq, path, &model, NULL, 0, NULL), 0);
    buf_init(&extra, 0);
    assert_int_equal(kv_disk_open(&d, path, &b.seq, &model, &extra, &e), 0);
    read_file(&file);
    file.data[file.len / 2] ^= 4;
    write_file(&file, file.len);
    assert_int_equal(kv_disk_load(&d, &b.seq, &e), ERR_FORMAT);
    kv_disk_close(&d);
    assert_int_equal(b.seq.n_tok, 0);
    assert_int_equal(b.pool.n_used, 0);
    fake_append(&b.seq, 900, 100, 3);
    assert_true(fake_ok(&b.seq));
    buf_release(&file);
    fake_close(&a);
    fake_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_file_holds_nothing_else),
        cmocka_unit_test(test_marks_the_loader_has_no_room_for),
        cmocka_unit_test(test_any_flipped_byte_is_seen),
        cmocka_unit_test(test_any_cut_is_seen),
        cmocka_unit_test(test_absurd_heads),
        cmocka_unit_test(test_other_model_and_tokens_and_room),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_file_that_changes_in_between),
    };
    return cmocka_run_group_tests(tests, make_path, drop_path);
}
