/* evaluate.h - logits after every token of a text. */
#ifndef DS_EVALUATE_H
#define DS_EVALUATE_H

#include "dwarfstar.h"
#include "error.h"

struct engine;

/* Contract: dstar_eval() in dwarfstar.h. */
int evaluate(struct engine *e, const struct dstar_text_eval *job, struct err *err);

#endif
