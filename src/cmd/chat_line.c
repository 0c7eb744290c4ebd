/* chat_line.c - one line at a time, from the editor on a terminal, else from standard input. */
#define _GNU_SOURCE
#include "chat_line.h"

#include <stdio.h>
#include <stdlib.h>

#include "buf.h"
#include "chat_edit.h"
#include "host.h"
#include "interrupt.h"
#include "term.h"

#define MAX_LINE_BYTES ((size_t)1 << 26)

struct chat_line {
    struct buf text;
    bool ask; /* somebody is there to see a prompt */
    struct chat_edit *edit; /* NULL: lines are plain */
    char *plain;
    size_t plain_cap;
};

int chat_line_open(struct chat_line **l, struct err *e)
{
    *l = calloc(1, sizeof **l);
    if (!*l)
        return err_set(e, ERR_NO_MEMORY, "chat: out of memory");
    buf_init(&(*l)->text, MAX_LINE_BYTES);
    (*l)->ask = host_is_terminal(0) && host_is_terminal(1);
    if ((*l)->ask && term_is(TERM_OUT))
        (*l)->edit = chat_edit_open();
    return 0;
}

static enum chat_line_kind read_plain(struct chat_line *l, const char *prompt, const char **text,
                                      int *n)
{
    if (l->ask) {
        printf("%s", prompt);
        fflush(stdout);
    }
    ssize_t len = getline(&l->plain, &l->plain_cap, stdin);
    *text = l->plain;
    *n = (int)MIN(len, (ssize_t)MAX_LINE_BYTES);
    if (len >= 0)
        return CHAT_LINE;
    clearerr(stdin);
    if (l->ask)
        printf("\n");
    return interrupt_seen() ? CHAT_LINE_STOPPED : CHAT_LINE_END;
}

enum chat_line_kind chat_line_read(struct chat_line *l, const char *prompt, const char **text)
{
    buf_clear(&l->text);
    buf_puts(&l->text, ""); /* an empty line is a text, too */
    for (;;) {
        const char *part;
        int n;
        enum chat_line_kind kind = l->edit ? chat_edit_read(l->edit, prompt, &part, &n)
                                           : read_plain(l, prompt, &part, &n);
        if (kind != CHAT_LINE)
            return kind;
        bool ended = n > 0 && part[n - 1] == '\n';
        n -= ended;
        bool more = n > 0 && part[n - 1] == '\\' && ended;
        buf_add(&l->text, part, (size_t)(n - more));
        if (!more)
            break;
        buf_putc(&l->text, '\n');
        prompt = "  ";
    }
    *text = l->text.data;
    return CHAT_LINE;
}

void chat_line_close(struct chat_line *l)
{
    if (!l)
        return;
    chat_edit_close(l->edit);
    free(l->plain);
    buf_release(&l->text);
    free(l);
}
