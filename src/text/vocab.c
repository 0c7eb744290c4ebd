/* vocab.c - gather tokens and merges and refuse what cannot be a whole vocabulary.
 *
 * Base tokens are found by their bytes through a hash that only lives until the merges are
 * known. The hash runs byte by byte, so that the product of a merge is looked up as its two
 * parts without joining them. */
#include "vocab_impl.h"

#include "utf8.h"

#include <stdlib.h>

#define BYTES_MAX ((size_t)1 << 30)

static void make_byte_map(struct vocab *v)
{
    int next = 0x100;
    for (int i = 0; i < SPELL_END; i++)
        v->byte_of[i] = -1;
    for (int i = 0; i < 256; i++) {
        bool printable = (i >= 0x21 && i <= 0x7E) || (i >= 0xA1 && i <= 0xAC) || i >= 0xAE;
        v->spelled[i] = (uint16_t)(printable ? i : next++);
        v->byte_of[v->spelled[i]] = (int16_t)i;
        v->byte_id[i] = -1;
    }
    CHECK(next == SPELL_END);
}

int vocab_init(struct vocab *v, int n, int max_merge, struct err *e)
{
    CHECK(n >= 0 && max_merge >= 0);
    *v = (struct vocab){ .n = n };
    buf_init(&v->bytes, BYTES_MAX);
    make_byte_map(v);
    for (v->n_slot = 64; v->n_slot / 2 < (size_t)n; v->n_slot *= 2)
        ;
    v->token = calloc((size_t)n + 1, sizeof *v->token);
    v->merge = calloc((size_t)max_merge + 1, sizeof *v->merge);
    v->slot = malloc(v->n_slot * sizeof *v->slot);
    if (!v->token || !v->merge || !v->slot) {
        vocab_release(v);
        return err_set(e, ERR_NO_MEMORY, "no memory for a vocabulary of %d tokens", n);
    }
    memset(v->slot, 0xFF, v->n_slot * sizeof *v->slot);
    return 0;
}

void vocab_release(struct vocab *v)
{
    free(v->token);
    free(v->merge);
    free(v->slot);
    buf_release(&v->bytes);
    *v = (struct vocab){ 0 };
}

static uint32_t hash_more(uint32_t h, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)s[i]) * 16777619u; /* FNV-1a */
    return h;
}

/* Slot of the base token with bytes a then b, or the free slot where it belongs. */
static int32_t *slot_of(const struct vocab *v, const char *a, size_t na, const char *b, size_t nb)
{
    uint32_t h = hash_more(hash_more(2166136261u, a, na), b, nb);
    for (size_t i = h ^ h >> 15;; i++) {
        int32_t *slot = &v->slot[i & (v->n_slot - 1)];
        if (*slot < 0)
            return slot;
        const char *bytes = vocab_bytes(v, *slot);
        if (v->token[*slot].len == na + nb && memcmp(bytes, a, na) == 0 &&
            memcmp(bytes + na, b, nb) == 0)
            return slot;
    }
}

static int check_new(const struct vocab *v, int64_t id, const char *text, size_t len,
                     struct err *e)
{
    if (id < 0 || id >= v->n)
        return err_set(e, ERR_FORMAT, "token '%s' has id %lld, expected 0..%d",
                       utf8_show(text, len).text, (long long)id, v->n - 1);
    if (v->token[id].type)
        return err_set(e, ERR_FORMAT, "id %lld is given twice, the second time to token '%s'",
                       (long long)id, utf8_show(text, len).text);
    if (len == 0)
        return err_set(e, ERR_FORMAT, "token %lld is empty", (long long)id);
    if (len > UINT32_MAX)
        return err_set(e, ERR_LIMIT, "token %lld has %zu bytes", (long long)id, len);
    return 0;
}

/* Append the bytes that a spelling stands for; returns how far it could be read. */
static size_t append_spelled(const struct vocab *v, struct buf *out, const char *s, size_t len)
{
    size_t at = 0;
    while (at < len) {
        int step = utf8_step(s + at, len - at), n;
        uint32_t c = step > 0 ? utf8_get(s + at, &n) : SPELL_END;
        if (c >= SPELL_END || v->byte_of[c] < 0)
            break;
        buf_putc(out, (char)v->byte_of[c]);
        at += (size_t)step;
    }
    return at;
}

/* Make token `id`, whose bytes are in place, known by its bytes. */
static int enter(struct vocab *v, int id, struct err *e)
{
    const char *bytes = vocab_bytes(v, id);
    size_t len = v->token[id].len;
    int32_t *slot = slot_of(v, bytes, len, "", 0);
    if (*slot >= 0)
        return err_set(e, ERR_FORMAT, "tokens %d and %d are the same bytes", *slot, id);
    *slot = id;
    if (len == 1)
        v->byte_id[(uint8_t)bytes[0]] = id;
    return 0;
}

int vocab_set_base(struct vocab *v, int64_t id, const char *spelling, size_t len, struct err *e)
{
    TRY(check_new(v, id, spelling, len, e));
    size_t at = v->bytes.len;
    size_t read = append_spelled(v, &v->bytes, spelling, len);
    if (v->bytes.failed)
        return err_set(e, ERR_NO_MEMORY, "no memory for the bytes of %d tokens", v->n);
    if (read < len)
        return err_set(e, ERR_FORMAT,
                       "token %lld '%s': the character at byte %zu stands for no byte",
                       (long long)id, utf8_show(spelling, len).text, read);
    v->token[id] = (struct vocab_token){ .at = at, .len = (uint32_t)(v->bytes.len - at),
                                         .type = TOKEN_NORMAL };
    return enter(v, (int)id, e);
}

bool vocab_is_same(const struct vocab *v, int id, const char *spelling, size_t len)
{
    const struct vocab_token *t = &v->token[id];
    if (t->len == len && memcmp(vocab_bytes(v, id), spelling, len) == 0)
        return true;
    struct buf b;
    buf_init(&b, t->len);
    bool same = append_spelled(v, &b, spelling, len) == len && !b.failed && b.len == t->len &&
                memcmp(b.data, vocab_bytes(v, id), b.len) == 0;
    buf_release(&b);
    return same;
}

int vocab_set_added(struct vocab *v, int64_t id, const char *literal, size_t len,
                    enum token_type type, struct err *e)
{
    CHECK(type == TOKEN_CONTROL || type == TOKEN_USER_DEFINED);
    TRY(check_new(v, id, literal, len, e));
    size_t at = v->bytes.len;
    buf_add(&v->bytes, literal, len);
    if (v->bytes.failed)
        return err_set(e, ERR_NO_MEMORY, "no memory for the bytes of %d tokens", v->n);
    v->token[id] = (struct vocab_token){ .at = at, .len = (uint32_t)len, .type = (uint8_t)type };
    /* Plain ASCII spells itself: such a literal may be a product of merges as well. */
    for (size_t i = 0; i < len; i++)
        if (literal[i] < 0x21 || literal[i] > 0x7E)
            return 0;
    return enter(v, (int)id, e);
}

int vocab_set_unused(struct vocab *v, int64_t id, struct err *e)
{
    TRY(check_new(v, id, "unused", 6, e));
    v->token[id] = (struct vocab_token){ .at = v->bytes.len, .type = TOKEN_UNUSED };
    return 0;
}

static int find_spelled(struct vocab *v, const char *s, size_t len, struct err *e)
{
    struct buf *b = &v->bytes; /* its end serves as scratch */
    size_t at = b->len;
    bool whole = append_spelled(v, b, s, len) == len && len > 0;
    if (b->failed)
        return err_set(e, ERR_NO_MEMORY, "no memory for a merge");
    int32_t id = whole ? *slot_of(v, b->data + at, b->len - at, "", 0) : -1;
    b->len = at;
    if (id < 0)
        return err_set(e, ERR_FORMAT, "merge %d: '%s' is not a token", v->n_merge,
                       utf8_show(s, len).text);
    return id;
}

int vocab_add_merge(struct vocab *v, const char *left, size_t n_left, const char *right,
                    size_t n_right, struct err *e)
{
    int l = find_spelled(v, left, n_left, e);
    TRY(l);
    int r = find_spelled(v, right, n_right, e);
    TRY(r);
    int32_t both = *slot_of(v, vocab_bytes(v, l), v->token[l].len, vocab_bytes(v, r),
                            v->token[r].len);
    if (both < 0)
        return err_set(e, ERR_FORMAT, "merge %d: '%s' and '%s' together are not a token",
                       v->n_merge, utf8_show(left, n_left).text, utf8_show(right, n_right).text);
    v->merge[v->n_merge++] = (struct merge){ l, r, both };
    return 0;
}

int vocab_finish(struct vocab *v, struct err *e)
{
    for (int i = 0; i < v->n; i++)
        if (!v->token[i].type)
            return err_set(e, ERR_FORMAT, "no token has id %d, though ids go to %d", i, v->n - 1);
    for (int i = 0; i < 256; i++)
        if (v->byte_id[i] < 0)
            return err_set(e, ERR_FORMAT, "no token is the single byte 0x%02X", i);
    free(v->slot);
    v->slot = NULL;
    v->n_slot = 0;
    return 0;
}
