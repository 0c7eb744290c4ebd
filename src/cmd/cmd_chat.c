/* cmd_chat.c - `dstar chat`: a conversation, line by line.
 *
 * Every turn renders all messages and lets the session keep what it computed already: reasoning
 * that a turn drops from the past costs only the tokens after it. */
#include <stdio.h>

#include "answer_show.h"
#include "chat_command.h"
#include "chat_line.h"
#include "commands.h"
#include "host.h"
#include "interrupt.h"

/* One turn. False: an error was printed; the conversation is as before. */
static bool turn(struct dialogue *d, const char *text, bool *interrupted)
{
    struct dstar_error error;
    struct err e = { 0 };
    struct answer a;
    struct answer_show show;
    if (talk_say(&d->talk, text, strlen(text), &e) < 0) {
        term_error("%s", e.text);
        return false;
    }
    if (talk_open_call(&d->talk))
        return true; /* several calls: the other results first */
    answer_init(&a);
    answer_show_init(&show, d->opts.quiet, false);
    int code = dialogue_answer(d, &a, answer_show_event, &show, &error);
    answer_show_end(&show);
    if (code < 0)
        fault_print(&error);
    else
        dialogue_figures(d, &a);
    *interrupted = a.interrupted;
    answer_release(&a);
    return code >= 0;
}

static void greet(const struct dialogue *d)
{
    if (d->opts.quiet)
        return;
    if (d->loaded)
        term_remark("(going on from %s, %zu messages)", d->opts.session,
                    json_array_size(d->talk.messages));
    term_remark("/help lists commands; Ctrl-C stops an answer, Ctrl-D ends");
}

/* Lines until the end; gives the exit status. */
static int converse(struct dialogue *d, struct chat_line *line)
{
    bool stopped = false; /* by the last thing that happened */
    bool failed = false;
    for (;;) {
        char prompt[96] = "> ";
        const char *text, *call = talk_open_call(&d->talk);
        if (call)
            snprintf(prompt, sizeof prompt, "result of %.64s> ", call);
        enum chat_line_kind kind = chat_line_read(line, prompt, &text);
        interrupt_clear();
        if (kind == CHAT_LINE_END)
            return failed && !host_is_terminal(0) ? EXIT_ERROR : EXIT_DONE;
        if (kind == CHAT_LINE_STOPPED && stopped)
            return EXIT_INTERRUPTED;
        if (kind == CHAT_LINE_STOPPED)
            term_remark("(once more ends the chat; so does Ctrl-D)");
        stopped = kind == CHAT_LINE_STOPPED;
        if (kind != CHAT_LINE)
            continue;
        if (*text == '/' && !chat_command(d, text))
            return EXIT_DONE;
        if (*text != '/' && *text)
            failed |= !turn(d, text, &stopped);
    }
}

int cmd_chat(const struct command *command, int n, char **arg)
{
    struct dialogue d;
    struct opt_group group[3];
    struct words words;
    struct chat_line *line = NULL;
    struct err e = { 0 };
    struct dstar_error error;
    dialogue_groups(&d, group);
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n)
        return opts_wrong(command, "found '%s', expected no prompt", words.word[0]);
    status = dialogue_open(&d);
    if (status == 0 && chat_line_open(&line, &e) < 0) {
        term_error("%s", e.text);
        status = EXIT_ERROR;
    }
    if (status == 0) {
        greet(&d);
        status = converse(&d, line);
        if (d.opts.session && dialogue_save(&d, d.opts.session, &error) < 0)
            status = fault_print(&error);
    }
    chat_line_close(line);
    dialogue_close(&d);
    return status;
}
