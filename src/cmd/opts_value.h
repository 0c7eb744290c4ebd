/* opts_value.h - one option's value from its text. */
#ifndef DS_OPTS_VALUE_H
#define DS_OPTS_VALUE_H

#include "opts.h"

/* Store it at o->at of `into`; false, and nothing useful stored, when the text is none of the
 * option's type or out of its range. */
bool opts_store(const struct opt *o, void *into, const char *text);

/* What would have been right, for an error message. */
void opts_expected(const struct opt *o, char *out, size_t cap);

#endif
