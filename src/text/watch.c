/* watch.c - one Knuth-Morris-Pratt automaton per literal, run side by side.
 *
 * There are a few dozen literals at most and only a handful are on at a time. Rejected: one
 * Aho-Corasick automaton (the stop strings of each request would rebuild it). */
#include "watch.h"

#include <stdlib.h>

void watch_init(struct watch *w, size_t max_held)
{
    *w = (struct watch){ .max_held = max_held };
    buf_init(&w->held, SIZE_MAX / 2);
}

void watch_release(struct watch *w)
{
    for (int i = 0; i < w->n; i++)
        free(w->lit[i].back);
    buf_release(&w->held);
    w->n = 0;
}

int watch_add(struct watch *w, const char *text, size_t len, bool newlines)
{
    CHECK(w->n < WATCH_MAX && len > 0 && len <= UINT16_MAX);
    uint16_t *back = malloc(len * sizeof *back);
    if (!back)
        return -1;
    back[0] = 0;
    for (size_t i = 1, k = 0; i < len; i++) {
        while (k > 0 && text[i] != text[k])
            k = back[k - 1];
        k += text[i] == text[k];
        back[i] = (uint16_t)k;
        CHECK(!newlines || k == 0);
    }
    w->lit[w->n] = (struct watch_literal){ .text = text, .len = len, .newlines = newlines,
                                           .back = back };
    return w->n++;
}

void watch_start(struct watch *w, uint64_t on)
{
    w->on = on;
    w->run = 0;
    buf_clear(&w->held);
    for (int i = 0; i < w->n; i++)
        w->lit[i].progress = w->lit[i].before = 0;
}

/* Advance one literal by a byte; run: newlines directly before the byte. */
static void advance(struct watch_literal *l, char c, size_t run)
{
    size_t k = l->progress;
    while (k > 0 && l->text[k] != c)
        k = l->back[k - 1];
    k += l->text[k] == c;
    if (l->newlines && k == 0)
        l->before = c == '\n' ? run + 1 : 0;
    else if (l->newlines && k == 1)
        l->before = run;
    l->progress = k;
}

int watch_byte(struct watch *w, char c, size_t *n_text)
{
    size_t hold = 0, longest = 0;
    int found = -1;
    buf_putc(&w->held, c);
    for (int i = 0; i < w->n && found < 0; i++) {
        struct watch_literal *l = &w->lit[i];
        if (!(w->on >> i & 1))
            continue;
        advance(l, c, w->run);
        if (l->progress == l->len)
            found = i;
        hold = MAX(hold, l->progress + l->before);
        longest = MAX(longest, l->progress);
    }
    if (found >= 0)
        hold = w->lit[found].len + w->lit[found].before;
    w->run = c == '\n' ? w->run + 1 : 0;
    if (found < 0 && hold > w->max_held) {
        hold = longest;
        w->run = 0;
        for (int i = 0; i < w->n; i++)
            w->lit[i].before = 0;
    }
    *n_text = w->held.len - MIN(hold, w->held.len);
    return found;
}
