/* chat_edit.h - lines edited on the terminal, with the history of earlier chats. */
#ifndef DS_CHAT_EDIT_H
#define DS_CHAT_EDIT_H

#include "chat_line.h"

struct chat_edit;

/* NULL when the program was built without libedit, or when memory is exhausted. */
struct chat_edit *chat_edit_open(void);

/* A line with its end, of *n bytes; it lives until the next call. */
enum chat_line_kind chat_edit_read(struct chat_edit *x, const char *prompt, const char **text,
                                   int *n);

/* Writes the history back. NULL is fine. */
void chat_edit_close(struct chat_edit *x);

#endif
