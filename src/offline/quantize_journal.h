/* quantize_journal.h - what of an unfinished file is finished. */
#ifndef DS_QUANTIZE_JOURNAL_H
#define DS_QUANTIZE_JOURNAL_H

#include "error.h"

struct quantize;

/* The journal: which units of OUT.part are finished, and what they were made of. */
struct quantize_note {
    uint64_t src, dst; /* fingerprints of the unit's source and of its bytes */
    bool valid, fed;   /* fed: with feedback */
};

/* After quantize_keys(). note: [n_unit], freed by the caller; NULL: a new journal. ERR_MISMATCH
 * when the one that is there belongs to another plan. */
int journal_open(struct quantize *q, struct quantize_note **note, struct err *e);
int journal_add(struct quantize *q, int unit, const struct quantize_note *n, struct err *e);
void journal_close(struct quantize *q, bool keep);

#endif
