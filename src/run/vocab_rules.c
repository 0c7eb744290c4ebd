/* vocab_rules.c - stop tokens, tokens that cannot be sampled, the effort profile.
 *
 * Most of the added tokens are placeholders or belong to tasks and media that an answer never
 * contains; they are untrained or copied from prompts, and one of them in an answer breaks what
 * reads it. So all are banned but those that an answer is made of. */
#include "vocab_rules.h"

#include "sampler.h"

#include <stdlib.h>

/* Full-width bars (U+FF5C) and blocks (U+2581), as in the vendor's vocabulary. */
#define BAR "\xEF\xBD\x9C"
#define GAP "\xE2\x96\x81"
static const char *const answer_marker[] = {
    "<" BAR "end" GAP "of" GAP "sentence" BAR ">", "</think>", BAR "DSML" BAR,
};
static const char *const stop_marker[] = {
    "<" BAR "end" GAP "of" GAP "sentence" BAR ">", "<" BAR "begin" GAP "of" GAP "sentence" BAR ">",
    "<" BAR GAP "pad" GAP BAR ">", "<" BAR "User" BAR ">", "<" BAR "Assistant" BAR ">",
};

bool vocab_is_stop(const struct vocab_rules *v, int32_t id)
{
    for (int i = 0; i < v->n_stop; i++)
        if (v->stop[i] == id)
            return true;
    return false;
}

static void add_stop(struct vocab_rules *v, int64_t id)
{
    CHECK(v->n_stop < VOCAB_MAX_STOP);
    if (id >= 0 && id < v->n_vocab && !vocab_is_stop(v, (int32_t)id))
        v->stop[v->n_stop++] = (int32_t)id;
}

/* The end-of-text token that the file names, GGUF or config.json; -1: none. */
static int64_t named_end(const struct meta *meta)
{
    int64_t id = -1;
    if (meta && meta_int_or(meta, "tokenizer.ggml.eos_token_id", -1, &id, NULL) == 0 && id >= 0)
        return id;
    if (meta && meta_int_or(meta, "eos_token_id", -1, &id, NULL) == 0)
        return id;
    return -1;
}

/* Releases from July 2026 on carry their date in their name. */
static bool is_later_release(const char *name)
{
    return name && (strstr(name, "0731") || strstr(name, "0813"));
}

static enum chat_profile profile_of(const struct meta *meta, const char *path)
{
    const char *key = meta ? meta_str(meta, "dwarfstar.effort_profile") : NULL;
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    if (key)
        return strcmp(key, "0731") == 0 ? CHAT_0731 : CHAT_PREVIEW;
    if (meta && is_later_release(meta_str(meta, "general.name")))
        return CHAT_0731;
    return is_later_release(base) ? CHAT_0731 : CHAT_PREVIEW;
}

static void allow(struct vocab_rules *v, const struct tokenizer *t)
{
    for (int id = 0; id < v->n_vocab && !t; id++)
        sampler_mask_set(v->allowed, id, true);
    for (int id = 0; t && id < tokenizer_n_vocab(t); id++)
        sampler_mask_set(v->allowed, id,
                         !tokenizer_is_added(t, id) && tokenizer_type(t, id) != TOKEN_UNUSED);
    for (size_t i = 0; t && i < COUNT_OF(answer_marker); i++) {
        int id = tokenizer_find(t, answer_marker[i], strlen(answer_marker[i]));
        if (id >= 0)
            sampler_mask_set(v->allowed, id, true);
    }
}

int vocab_rules_open(struct vocab_rules *v, const struct tokenizer *t, int n_vocab,
                     const struct meta *meta, const char *path, int profile, struct err *e)
{
    *v = (struct vocab_rules){ .n_vocab = n_vocab };
    if (t && tokenizer_n_vocab(t) > n_vocab)
        return err_set(e, ERR_MISMATCH, "%s: the tokenizer has %d tokens, the network %d", path,
                       tokenizer_n_vocab(t), n_vocab);
    v->allowed = calloc(1, sampler_mask_bytes(n_vocab));
    if (!v->allowed)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory for token rules", path);
    v->profile = profile == DSTAR_PROFILE_PREVIEW ? CHAT_PREVIEW
                 : profile == DSTAR_PROFILE_0731  ? CHAT_0731
                                                  : profile_of(meta, path);
    allow(v, t);
    int64_t end = named_end(meta);
    for (size_t i = 0; t && i < COUNT_OF(stop_marker); i++)
        add_stop(v, tokenizer_find(t, stop_marker[i], strlen(stop_marker[i])));
    add_stop(v, end);
    if (end >= 0 && end < n_vocab)
        sampler_mask_set(v->allowed, (int32_t)end, true);
    return 0;
}

void vocab_rules_close(struct vocab_rules *v)
{
    free(v->allowed);
    *v = (struct vocab_rules){ 0 };
}
