/* fuzz_tokenizer_json.c - any bytes as tokenizer.json; one that opens must encode without loss.
 *
 * The input is the file, and after a zero byte (which JSON cannot contain) a text. */
#include "detok.h"
#include "tokenizer.h"

#include <stdlib.h>

#define MAX_TEXT 4096 /* patterns may be slow on purpose */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The ids give the text back, and with every token's own text too. */
static void check_text(struct tokenizer *t, const char *text, size_t len)
{
    struct text_span all = { 0, len };
    struct ids ids = { 0 };
    struct err e = { 0 };
    struct detok d;
    struct buf back;
    buf_init(&back, 1 << 24);
    detok_init(&d, true);
    if (tokenizer_encode(t, text, len, &all, 1, &ids, &e) == 0) {
        for (int i = 0; i < ids.n; i++)
            detok_push(&d, t, ids.id[i], &back);
        CHECK(back.len == len && (len == 0 || memcmp(back.data, text, len) == 0));
    } else {
        CHECK(ids.n == 0 && e.code == ERR_LIMIT);
    }
    buf_release(&back);
    ids_release(&ids);
}

static void check_vocab(const struct tokenizer *t)
{
    struct buf spelling;
    buf_init(&spelling, 1 << 24);
    for (int id = 0; id < tokenizer_n_vocab(t); id++) {
        size_t len;
        const char *bytes = tokenizer_bytes(t, id, &len);
        CHECK(bytes && len > 0);
        CHECK(tokenizer_is_added(t, id) == (tokenizer_find(t, bytes, len) == id));
        buf_clear(&spelling);
        tokenizer_spelling(t, id, &spelling);
        CHECK(spelling.len >= len);
    }
    for (int i = 0; i < tokenizer_n_merge(t); i++) {
        int left, right;
        tokenizer_merge(t, i, &left, &right);
        CHECK(left >= 0 && left < tokenizer_n_vocab(t));
        CHECK(right >= 0 && right < tokenizer_n_vocab(t));
    }
    buf_release(&spelling);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *file = (const char *)data;
    const char *zero = size ? memchr(file, 0, size) : NULL;
    size_t len = zero ? (size_t)(zero - file) : size;
    struct tokenizer *t;
    struct err e = { 0 };
    int code = tokenizer_open_json_text(&t, file, len, "fuzz", NULL, &e);
    CHECK((code == 0) == (t != NULL) && code == (int)e.code);
    if (!t)
        return 0;
    check_vocab(t);
    if (zero)
        check_text(t, zero + 1, MIN(size - len - 1, (size_t)MAX_TEXT));
    else
        check_text(t, file, MIN(len, (size_t)MAX_TEXT));
    tokenizer_close(t);
    return 0;
}
