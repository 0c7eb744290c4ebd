/* vocab_rules.h - what a vocabulary's control tokens mean to a conversation. */
#ifndef DS_VOCAB_RULES_H
#define DS_VOCAB_RULES_H

#include "chat_deepseek.h"
#include "log.h"
#include "meta.h"
#include "tokenizer.h"

#define VOCAB_MAX_STOP 8

struct vocab_rules {
    int n_vocab;       /* width of the logits; at least as many as the tokenizer has */
    uint64_t *allowed; /* bit set: can occur in an answer (sampler.h) */
    int32_t stop[VOCAB_MAX_STOP]; /* end a turn */
    int n_stop;
    enum chat_profile profile;
};

/* meta: the model file's, for its own end-of-text token and effort profile (key
 * dwarfstar.effort_profile, else a release date in its name). profile: 0 as the file says.
 * t NULL: without names, every token may be drawn, and only the file's own one ends a turn.
 * ERR_MISMATCH: the tokenizer has more tokens than the network. */
int vocab_rules_open(struct vocab_rules *v, const struct tokenizer *t, int n_vocab,
                     const struct meta *meta, const char *path, int profile, struct err *e);
void vocab_rules_close(struct vocab_rules *v);

bool vocab_is_stop(const struct vocab_rules *v, int32_t id);

#endif
