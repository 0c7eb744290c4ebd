/* chat_command.c - the table of slash commands. What they say is for the person, so it goes to
 * stderr: a chat that is piped gives answers alone. */
#include "chat_command.h"

#include <stdarg.h>
#include <stdio.h>

#include "cpu.h"
#include "suggest.h"
#include "term.h"

static void say(const char *fmt, ...) PRINTF_LIKE(1, 2);

static void say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fflush(stdout);
    fputs(term_style(TERM_ERR, TERM_DIM), stderr);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "%s\n", term_style(TERM_ERR, TERM_PLAIN));
    va_end(ap);
}

struct chat_row {
    const char *name, *arg, *help; /* arg NULL: takes none */
    bool (*run)(struct dialogue *d, const char *arg);
};

static bool do_help(struct dialogue *d, const char *arg);

static bool do_new(struct dialogue *d, const char *arg)
{
    (void)arg;
    struct dstar_error error;
    if (dialogue_restart(d, NULL, &error) < 0)
        fault_print(&error);
    else
        say("(a new conversation)");
    return true;
}

static bool do_system(struct dialogue *d, const char *arg)
{
    struct dstar_error error;
    if (dialogue_restart(d, arg, &error) < 0)
        fault_print(&error);
    else
        say(*arg ? "(a new conversation, with these instructions)"
                 : "(a new conversation, without instructions)");
    return true;
}

static bool do_think(struct dialogue *d, const char *arg)
{
    static const char *const level[] = { "none", "low", "high", "max" };
    for (int i = 0; i < (int)COUNT_OF(level); i++)
        if (strcmp(arg, level[i]) == 0)
            d->opts.think = i;
    if (*arg && strcmp(arg, level[d->opts.think]) != 0)
        term_error("/think: found '%s', expected none, low, high or max", arg);
    else
        say("(thinking: %s)", level[d->opts.think]);
    return true;
}

static bool do_save(struct dialogue *d, const char *arg)
{
    struct dstar_error error;
    if (!*arg)
        term_error("/save: found nothing, expected a file");
    else if (dialogue_save(d, arg, &error) < 0)
        fault_print(&error);
    else
        say("(saved to %s)", arg);
    return true;
}

static bool do_load(struct dialogue *d, const char *arg)
{
    struct dstar_error error;
    if (!*arg)
        term_error("/load: found nothing, expected a file");
    else if (dialogue_load(d, arg, &error) < 0)
        fault_print(&error);
    else
        say("(going on from %s, %zu messages)", arg, json_array_size(d->talk.messages));
    return true;
}

static bool do_stats(struct dialogue *d, const char *arg)
{
    (void)arg;
    const struct dstar_info *info = dstar_engine_info(d->engine);
    struct dstar_stats s;
    char cache[16], peak[16];
    dstar_session_stats(d->session, &s);
    double held = (double)(s.cache_bytes + s.state_bytes + s.mark_bytes);
    say("model    %s (%s)\ndevice   %s\ncontext  %d of %d tokens, %d kept by the last turn\n"
        "prompts  %lld tokens in %.2f s\nanswers  %lld tokens in %.2f s\n"
        "memory   %s for this conversation, %s in all\nseed     %llu",
        info->name, info->format, info->device, s.n_tok, info->ctx, s.n_reused,
        (long long)s.n_prefill, s.prefill_s, (long long)s.n_decode, s.decode_s,
        term_bytes(cache, held), term_bytes(peak, (double)cpu_rss().peak),
        (unsigned long long)d->sampling_opts.seed);
    return true;
}

static bool do_quit(struct dialogue *d, const char *arg)
{
    (void)d;
    (void)arg;
    return false;
}

static const struct chat_row rows[] = {
    { "help", NULL, "list these commands", do_help },
    { "system", "TEXT", "begin anew with these instructions; without TEXT: with none", do_system },
    { "new", NULL, "begin anew with the same instructions", do_new },
    { "think", "LEVEL", "how much the model thinks: none, low, high, max", do_think },
    { "save", "FILE", "save the conversation", do_save },
    { "load", "FILE", "go on with a saved one", do_load },
    { "stats", NULL, "tokens, speed and memory so far", do_stats },
    { "quit", NULL, "end (Ctrl-D does, too)", do_quit },
};

static bool do_help(struct dialogue *d, const char *arg)
{
    (void)d;
    (void)arg;
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        say("/%-7s%-6s %s", rows[i].name, rows[i].arg ? rows[i].arg : "", rows[i].help);
    say("A backslash at the end of a line goes on in the next one. Ctrl-C stops an answer.");
    return true;
}

bool chat_command(struct dialogue *d, const char *line)
{
    size_t n = strcspn(line + 1, " \t");
    char name[32];
    struct suggest s;
    snprintf(name, sizeof name, "%.*s", (int)n, line + 1);
    const char *arg = line + 1 + n + strspn(line + 1 + n, " \t");
    suggest_init(&s, name);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        suggest_offer(&s, rows[i].name);
        if (strcmp(name, rows[i].name) != 0)
            continue;
        if (!rows[i].arg && *arg) {
            term_error("/%s: found '%s', expected nothing", name, arg);
            return true;
        }
        return rows[i].run(d, arg);
    }
    if (s.best)
        term_error("unknown command /%s, did you mean /%s?", name, s.best);
    else
        term_error("unknown command /%s (/help lists them)", name);
    return true;
}
