/* suggest.h - the word that was probably meant. */
#ifndef DS_SUGGEST_H
#define DS_SUGGEST_H

#include "base.h"

struct suggest {
    const char *typed, *best;
    int distance;
};

/* Begin with what was typed, offer every word that would have been right; best is then the nearest
 * one, or NULL when none is near. */
void suggest_init(struct suggest *s, const char *typed);
void suggest_offer(struct suggest *s, const char *word);

#endif
