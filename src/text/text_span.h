/* text_span.h - a range of bytes in a text.
 *
 * The chat renderer says with spans where control literals may become control tokens; the
 * tokenizer obeys. A header of its own, so that neither needs the other. */
#ifndef DS_TEXT_SPAN_H
#define DS_TEXT_SPAN_H

#include "base.h"

/* Bytes begin..end-1. In a list: ascending, not empty, not touching. */
struct text_span {
    size_t begin, end;
};

#endif
