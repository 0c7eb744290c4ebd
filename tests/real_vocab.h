/* real_vocab.h - for tests: DeepSeek V4's whole tokenizer, rebuilt from tests/data/tokenizer.
 *
 * merges.bin holds, for merge 0, 1, 2, ..., the ids of its two parts as little-endian base-128
 * numbers; merge i makes token 259 + i. Ids 3..258 are the single bytes in the order of their
 * spelling characters; added_tokens.tsv has all others. That determines the tokenizer.json. */
#ifndef TESTS_REAL_VOCAB_H
#define TESTS_REAL_VOCAB_H

#include "buf.h"
#include "file.h"
#include "tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

#define REAL_VOCAB_DIR "tests/data/tokenizer/"
#define REAL_FIRST_MERGED 259
#define REAL_N_BASE 128000

static inline void real_must(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

static inline struct buf real_read(const char *path)
{
    struct err e = { 0 };
    struct buf b;
    buf_init(&b, 16 << 20);
    real_must(file_read_all(&b, path, &e) == 0, e.text);
    return b;
}

static inline int real_number(const char **at)
{
    int n = 0, shift = 0;
    for (;; shift += 7) {
        int byte = (unsigned char)*(*at)++;
        n |= (byte & 127) << shift;
        if (byte < 128)
            return n;
    }
}

/* The character that spells a byte, in UTF-8 and escaped for JSON. */
static inline void real_spell_byte(struct buf *out, int byte)
{
    int c = byte, other = 0x100;
    for (int i = 0; i <= byte; i++) {
        bool printable = (i > 0x20 && i < 0x7F) || (i > 0xA0 && i != 0xAD);
        c = printable ? i : other++;
    }
    if (c == '"' || c == '\\')
        buf_putc(out, '\\');
    if (c < 0x80)
        buf_putc(out, (char)c);
    else
        buf_printf(out, "%c%c", 0xC0 | c >> 6, 0x80 | (c & 63));
}

/* spelled[id]: the spelling of base token id, escaped; ids 0..2 are left empty. */
static inline void real_spell(struct buf *spelled, const struct buf *merges)
{
    const char *at = merges->data;
    int id = 3;
    for (int pass = 0; pass < 2; pass++) /* printable bytes have the smaller characters */
        for (int i = 0; i < 256; i++)
            if (((i > 0x20 && i < 0x7F) || (i > 0xA0 && i != 0xAD)) == (pass == 0))
                real_spell_byte(&spelled[id++], i);
    for (; id < REAL_N_BASE; id++)
        for (int part = 0; part < 2; part++) {
            int from = real_number(&at);
            real_must(from > 2 && from < id, "merges.bin: a part comes after its product");
            buf_add(&spelled[id], spelled[from].data, spelled[from].len);
        }
    real_must(at == merges->data + merges->len, "merges.bin: wrong length");
}

static inline void real_put_added(struct buf *out)
{
    struct buf tsv = real_read(REAL_VOCAB_DIR "added_tokens.tsv");
    const char *line = tsv.data;
    for (int i = 0; *line; i++) {
        int id, special, n;
        real_must(sscanf(line, "%d\t%d\t%n", &id, &special, &n) == 2, "added_tokens.tsv");
        size_t len = strcspn(line + n, "\n");
        buf_printf(out, "%s{\"id\":%d,\"special\":%s,\"content\":\"%.*s\"}", i ? ",\n" : "", id,
                   special ? "true" : "false", (int)len, line + n);
        line += n + (int)len + 1;
    }
    buf_release(&tsv);
}

static inline void real_put_model(struct buf *out, bool merges_as_pairs)
{
    struct buf *spelled = calloc(REAL_N_BASE, sizeof *spelled);
    struct buf merges = real_read(REAL_VOCAB_DIR "merges.bin");
    const char *at = merges.data;
    real_must(spelled != NULL, "no memory");
    for (int i = 0; i < REAL_N_BASE; i++)
        buf_init(&spelled[i], 1000);
    real_spell(spelled, &merges);
    buf_puts(out, "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"vocab\":{");
    for (int id = 3; id < REAL_N_BASE; id++)
        buf_printf(out, "%s\"%s\":%d", id > 3 ? ",\n" : "", spelled[id].data, id);
    buf_puts(out, "},\"merges\":[");
    for (int id = REAL_FIRST_MERGED; id < REAL_N_BASE; id++) {
        const char *left = spelled[real_number(&at)].data, *right = spelled[real_number(&at)].data;
        buf_printf(out, merges_as_pairs ? "%s[\"%s\",\"%s\"]" : "%s\"%s %s\"",
                   id > REAL_FIRST_MERGED ? ",\n" : "", left, right);
    }
    buf_puts(out, "]}");
    for (int i = 0; i < REAL_N_BASE; i++)
        buf_release(&spelled[i]);
    free(spelled);
    buf_release(&merges);
}

/* The text of a tokenizer.json; merges as "a b" or as ["a","b"]. Free with buf_release(). */
static inline struct buf real_vocab_json(bool merges_as_pairs)
{
    struct buf out;
    buf_init(&out, 32 << 20);
    buf_puts(&out, "{\"added_tokens\":[");
    real_put_added(&out);
    buf_puts(&out, "],\n\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[]},\n"
             "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[");
    static const char *const pattern[] = {
        "\\\\p{N}{1,3}",
        "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        "[!\\\"#$%&'()*+,\\\\-./:;<=>?@\\\\[\\\\\\\\\\\\]^_`{|}~][A-Za-z]+"
        "|[^\\r\\n\\\\p{L}\\\\p{P}\\\\p{S}]?[\\\\p{L}\\\\p{M}]+| ?[\\\\p{P}\\\\p{S}]+[\\r\\n]*"
        "|\\\\s*[\\r\\n]+|\\\\s+(?!\\\\S)|\\\\s+",
    };
    for (size_t i = 0; i < COUNT_OF(pattern); i++)
        buf_printf(&out, "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},"
                   "\"behavior\":\"Isolated\",\"invert\":false},\n", pattern[i]);
    buf_puts(&out, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]},\n");
    real_put_model(&out, merges_as_pairs);
    buf_puts(&out, "}");
    real_must(!out.failed, "no memory for the real tokenizer.json");
    return out;
}

static inline struct tokenizer *real_vocab_open(void)
{
    struct err e = { 0 };
    struct tokenizer *t;
    struct buf json = real_vocab_json(false);
    real_must(tokenizer_open_json_text(&t, json.data, json.len, "the real vocabulary", NULL,
                                       &e) == 0, e.text);
    buf_release(&json);
    return t;
}

#endif
