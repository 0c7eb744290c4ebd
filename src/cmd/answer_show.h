/* answer_show.h - print an answer as it comes. */
#ifndef DS_ANSWER_SHOW_H
#define DS_ANSWER_SHOW_H

#include "dwarfstar.h"
#include "term.h"

struct answer_show {
    bool quiet;             /* content alone: no reasoning, no remarks */
    bool exact;             /* what is piped ends as the model ended it */
    int part;               /* enum dstar_event_kind of what was printed last, or -1 */
    enum term_stream where; /* it went there */
    char last;              /* last byte printed there; '\n' at the start of a line */
};

void answer_show_init(struct answer_show *s, bool quiet, bool exact);

/* A dstar_event_fn; user is the struct. Content and calls go to stdout. Reasoning goes dimmed to a
 * terminal on stdout, else to stderr. Bytes that could steer a terminal are not sent to one. */
void answer_show_event(void *user, const struct dstar_event *ev);

/* After an answer that failed in the middle: ends its line. May be called after any answer. */
void answer_show_end(struct answer_show *s);

#endif
