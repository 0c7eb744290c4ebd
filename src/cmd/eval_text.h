/* eval_text.h - files of texts and dialogues as tokens, with what counts in them marked. */
#ifndef DS_EVAL_TEXT_H
#define DS_EVAL_TEXT_H

#include "dwarfstar.h"
#include "measure.h"
#include "opts.h"

struct eval_text_opts {
    struct opt_texts file;
    int piece;  /* tokens of a text at most; longer ones are cut into several */
    int limit;  /* only the first so many lines of each file; 0: all */
    bool whole; /* of dialogues everything counts, not only answers */
};

/* What was read. A file ending in .jsonl has an object a line:
 *   {"text": ...}      a text
 *   {"messages": ...}  a dialogue, and if need be "tools", "thinking": true, and "expect" as in
 *                      skill_set.h: the answers that count and their bytes. Without it all messages
 *                      of the assistant count
 * Any other file is one text. Every text begins with the token that begins texts. */
struct eval_texts {
    struct text_doc *doc;
    int n, cap;
    uint64_t hash; /* of the lines and texts that were taken */
};

int eval_texts_read(struct eval_texts *t, const dstar_engine *engine,
                    const struct eval_text_opts *o, struct dstar_error *error);
void eval_texts_release(struct eval_texts *t);

#endif
