/* answer_show.c - parts of an answer on two streams: each part in its look, parted by new lines. */
#include "answer_show.h"

#include <stdio.h>

void answer_show_init(struct answer_show *s, bool quiet, bool exact)
{
    *s = (struct answer_show){ .quiet = quiet, .exact = exact, .part = -1,
                                .where = TERM_OUT, .last = '\n' };
}

static FILE *file_of(enum term_stream s)
{
    return s == TERM_OUT ? stdout : stderr;
}

/* To a terminal without control characters: a model must not move the cursor or set a title. */
static void put_safe(FILE *f, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        bool c1 = c == 0xc2 && i + 1 < len && (unsigned char)text[i + 1] < 0xa0;
        if (c1)
            i++;
        else if ((c >= 0x20 && c != 0x7f) || c == '\n' || c == '\t')
            putc(c, f);
    }
}

static void put(struct answer_show *s, const char *text, size_t len)
{
    if (len == 0)
        return;
    if (term_is(s->where))
        put_safe(file_of(s->where), text, len);
    else
        fwrite(text, 1, len, file_of(s->where));
    s->last = text[len - 1];
}

static void puts_to(struct answer_show *s, const char *text)
{
    put(s, text, strlen(text));
}

/* Close the part before, open the next one. */
static void turn_to(struct answer_show *s, int part)
{
    if (s->part == part)
        return;
    bool look = s->part >= 0 && s->part != DSTAR_CONTENT;
    if (look)
        fputs(term_style(s->where, TERM_PLAIN), file_of(s->where));
    bool aside = !term_is(TERM_OUT) && part == DSTAR_REASONING;
    enum term_stream where = aside ? TERM_ERR : TERM_OUT;
    if (s->part >= 0 && s->last != '\n' && !(s->exact && part == -1 && !term_is(s->where)))
        puts_to(s, "\n");
    if (s->part == DSTAR_REASONING && part >= 0 && where == s->where)
        puts_to(s, "\n");
    fflush(file_of(s->where));
    s->part = part;
    s->where = where;
    if (part == DSTAR_REASONING)
        fputs(term_style(where, TERM_DIM), file_of(where));
    else if (part == DSTAR_CALL_BEGIN)
        fputs(term_style(where, TERM_CYAN), file_of(where));
}

void answer_show_event(void *user, const struct dstar_event *ev)
{
    struct answer_show *s = user;
    switch (ev->kind) {
    case DSTAR_REASONING:
        if (s->quiet)
            return;
        turn_to(s, DSTAR_REASONING);
        put(s, ev->text, ev->len);
        break;
    case DSTAR_CONTENT:
        turn_to(s, DSTAR_CONTENT);
        put(s, ev->text, ev->len);
        break;
    case DSTAR_CALL_BEGIN:
        turn_to(s, -1);
        turn_to(s, DSTAR_CALL_BEGIN);
        puts_to(s, "call ");
        puts_to(s, ev->name);
        puts_to(s, " ");
        break;
    case DSTAR_CALL_ARGS: put(s, ev->text, ev->len); break;
    case DSTAR_CALL_END:
        if (!ev->complete)
            puts_to(s, " (cut off)");
        break;
    case DSTAR_REMARK:
        if (!s->quiet && term_is(TERM_ERR)) {
            turn_to(s, -1);
            term_remark("(%.*s)", (int)ev->len, ev->text);
        }
        break;
    case DSTAR_FINISHED: turn_to(s, -1); break;
    default: break;
    }
    fflush(file_of(s->where));
}

void answer_show_end(struct answer_show *s)
{
    turn_to(s, -1);
}
