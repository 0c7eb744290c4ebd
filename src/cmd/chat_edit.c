/* chat_edit.c - libedit.
 *
 * While a line is edited, Ctrl-C and Ctrl-Z are keys like others: the editor retries a read that a
 * signal ended, so that a signal might be noticed a key too late. */
#define _GNU_SOURCE
#include "chat_edit.h"

#ifdef HAVE_EDIT

#include <histedit.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "file.h"
#include "host.h"
#include "opts.h"

struct chat_edit {
    EditLine *editor;
    History *history;
    char *history_path; /* NULL: nowhere */
    const char *prompt;
    bool stopped, typed; /* by Ctrl-C; after something was typed */
};

static struct chat_edit *edit_of(EditLine *editor)
{
    struct chat_edit *x;
    el_get(editor, EL_CLIENTDATA, &x);
    return x;
}

static char *show_prompt(EditLine *editor)
{
    return (char *)(uintptr_t)edit_of(editor)->prompt;
}

static unsigned char stop_key(EditLine *editor, wint_t key)
{
    (void)key;
    const LineInfo *line = el_line(editor);
    edit_of(editor)->stopped = true;
    edit_of(editor)->typed = line->lastchar > line->buffer;
    return CC_EOF;
}

static unsigned char suspend_key(EditLine *editor, wint_t key)
{
    (void)editor;
    (void)key;
    raise(SIGTSTP);
    return CC_NORM;
}

/* In the folder for what a program remembers, by the XDG rules. */
static char *path_of_history(void)
{
    const char *state = opts_env("XDG_STATE_HOME"), *home = opts_env("HOME");
    char *path = state  ? path_join(state, "dwarfstar")
                 : home ? path_join(home, ".local/state/dwarfstar")
                        : NULL;
    struct err e = { 0 };
    char *file = NULL;
    if (path && host_make_dirs(path, &e) == 0)
        file = path_join(path, "history");
    free(path);
    return file;
}

static void set_up(struct chat_edit *x)
{
    HistEvent ev;
    history(x->history, &ev, H_SETSIZE, 1000);
    history(x->history, &ev, H_SETUNIQUE, 1);
    x->history_path = path_of_history();
    if (x->history_path)
        history(x->history, &ev, H_LOAD, x->history_path);
    el_set(x->editor, EL_CLIENTDATA, x);
    el_set(x->editor, EL_PROMPT, show_prompt);
    el_set(x->editor, EL_EDITOR, "emacs");
    el_set(x->editor, EL_HIST, history, x->history);
    el_set(x->editor, EL_SIGNAL, 1);
    el_set(x->editor, EL_SETTY, "-d", "-isig", NULL);
    /* Wide, because libedit never gives back the copies that it makes of narrow ones. */
    el_wset(x->editor, EL_ADDFN, L"dstar-stop", L"drop the line", stop_key);
    el_wset(x->editor, EL_ADDFN, L"dstar-suspend", L"stop the program", suspend_key);
    el_set(x->editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(x->editor, NULL);
    el_set(x->editor, EL_BIND, "^C", "dstar-stop", NULL);
    el_set(x->editor, EL_BIND, "^Z", "dstar-suspend", NULL);
}

struct chat_edit *chat_edit_open(void)
{
    struct chat_edit *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    host_use_utf8();
    x->editor = el_init("dstar", stdin, stdout, stderr);
    x->history = history_init();
    if (!x->editor || !x->history) {
        chat_edit_close(x);
        return NULL;
    }
    set_up(x);
    return x;
}

enum chat_line_kind chat_edit_read(struct chat_edit *x, const char *prompt, const char **text,
                                   int *n)
{
    HistEvent ev;
    x->prompt = prompt;
    x->stopped = false;
    *text = el_gets(x->editor, n);
    if (x->stopped || !*text || *n <= 0) {
        printf("\n");
        return !x->stopped ? CHAT_LINE_END : x->typed ? CHAT_LINE_DROPPED : CHAT_LINE_STOPPED;
    }
    if (**text != '\n')
        history(x->history, &ev, H_ENTER, *text);
    return CHAT_LINE;
}

void chat_edit_close(struct chat_edit *x)
{
    HistEvent ev;
    if (!x)
        return;
    if (x->history_path)
        history(x->history, &ev, H_SAVE, x->history_path);
    if (x->editor)
        el_end(x->editor);
    if (x->history)
        history_end(x->history);
    free(x->history_path);
    free(x);
}

#else

struct chat_edit *chat_edit_open(void)
{
    return NULL;
}

enum chat_line_kind chat_edit_read(struct chat_edit *x, const char *prompt, const char **text,
                                   int *n)
{
    (void)x;
    (void)prompt;
    *text = "";
    *n = 0;
    return CHAT_LINE_END;
}

void chat_edit_close(struct chat_edit *x)
{
    (void)x;
}

#endif
