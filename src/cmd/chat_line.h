/* chat_line.h - lines from the person who chats: edited on a terminal, plain from elsewhere. */
#ifndef DS_CHAT_LINE_H
#define DS_CHAT_LINE_H

#include "error.h"

enum chat_line_kind {
    CHAT_LINE,         /* a line, without its end */
    CHAT_LINE_END,     /* no more: Ctrl-D, or the end of the input */
    CHAT_LINE_DROPPED, /* Ctrl-C after something was typed, which is gone */
    CHAT_LINE_STOPPED  /* Ctrl-C */
};

struct chat_line;

/* Takes up the history of earlier conversations, if there is an editor and a file. */
int chat_line_open(struct chat_line **l, struct err *e);

/* A line after `prompt`; a backslash at its end goes on in the next line. The text lives until the
 * next call. */
enum chat_line_kind chat_line_read(struct chat_line *l, const char *prompt, const char **text);

/* Writes the history back. NULL is fine. */
void chat_line_close(struct chat_line *l);

#endif
