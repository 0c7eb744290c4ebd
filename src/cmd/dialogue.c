/* dialogue.c - options, session and messages of one conversation.
 *
 * The messages travel in the session's file as its note, so that one file is the conversation. */
#include "dialogue.h"

#include <stdio.h>
#include <stdlib.h>

#include "file.h"
#include "interrupt.h"
#include "rng.h"
#include "term.h"

#define AT(field) offsetof(struct dialogue_opts, field)

static const struct opt options[] = {
    { "system", 0, OPT_TEXT, "TEXT", AT(system), 0, 0, NULL,
      "instructions ahead of the conversation" },
    { "tools", 0, OPT_TEXT, "FILE", AT(tools), 0, 0, NULL,
      "JSON array of tools the model may call, as in the OpenAI chat API" },
    { "think", 0, OPT_WORD, "none|low|high|max", AT(think), 0, 0, "none",
      "how much the model thinks before it answers" },
    { "max-tokens", 'n', OPT_INT, "N", AT(max_tokens), 0, 1 << 24, "0",
      "end an answer after N tokens; 0: when the context is full" },
    { "stop", 0, OPT_TEXTS, "TEXT", AT(stop), 0, 0, NULL,
      "end the answer before TEXT; may be given several times" },
    { "session", 0, OPT_TEXT, "FILE", AT(session), 0, 0, NULL,
      "go on from the conversation in FILE, if there is one, and save it there" },
    { "special", 0, OPT_FLAG, NULL, AT(special), 0, 0, NULL,
      "markers such as <think> become control tokens; unsafe for text of others" },
    { "stats", 0, OPT_FLAG, NULL, AT(stats), 0, 0, NULL,
      "print the figures after an answer though no terminal is there" },
    { "stats-json", 0, OPT_FLAG, NULL, AT(stats_json), 0, 0, NULL,
      "print what reading experts cost after an answer, as a line of JSON on stderr" },
    { "quiet", 'q', OPT_FLAG, NULL, AT(quiet), 0, 0, NULL,
      "only the answer: no reasoning, progress, or figures" },
};

void dialogue_groups(struct dialogue *d, struct opt_group group[3])
{
    *d = (struct dialogue){ 0 };
    group[0] = (struct opt_group){ "conversation", options, COUNT_OF(options), &d->opts };
    group[1] = sampling_group(&d->sampling_opts);
    group[2] = engine_group(&d->engine_opts);
}

static int prepare(struct dialogue *d, struct dstar_error *error)
{
    struct err e = { 0 };
    struct dstar_sampling sampling;
    const struct dialogue_opts *o = &d->opts;
    TRY(dstar_session_new(&d->session, d->engine, error));
    if (o->session && file_exists(o->session)) {
        TRY(dialogue_load(d, o->session, error));
        d->loaded = true;
    }
    sampling_of(&d->sampling_opts, &sampling);
    TRY(dstar_session_sampling(d->session, &sampling, error));
    if (o->tools && talk_read_tools(&d->talk, o->tools, &e) < 0)
        return fault_of(error, &e);
    if (o->system && talk_set_system(&d->talk, o->system, &e) < 0)
        return fault_of(error, &e);
    return 0;
}

int dialogue_open(struct dialogue *d)
{
    struct err e = { 0 };
    struct dstar_error error;
    for (int i = 0; i < d->opts.stop.n; i++)
        if (!*d->opts.stop.text[i]) {
            term_error("--stop: found '', expected a text that is not empty");
            return EXIT_USAGE;
        }
    if (talk_init(&d->talk, &e) < 0) {
        term_error("%s", e.text);
        return EXIT_ERROR;
    }
    d->engine_opts.quiet = d->opts.quiet;
    interrupt_catch(NULL);
    int status = engine_start(&d->engine, &d->engine_opts);
    if (status == 0 && prepare(d, &error) < 0)
        status = fault_print(&error);
    return status;
}

void dialogue_close(struct dialogue *d)
{
    interrupt_release();
    dstar_session_free(d->session);
    dstar_close(d->engine);
    talk_release(&d->talk);
}

int dialogue_answer(struct dialogue *d, struct answer *a, dstar_event_fn *show, void *show_user,
                    struct dstar_error *error)
{
    const struct dialogue_opts *o = &d->opts;
    struct err e = { 0 };
    struct talk_text text;
    struct ask q = { .engine = d->engine, .session = d->session, .max_tokens = o->max_tokens,
                     .quiet = o->quiet, .show = show, .show_user = show_user };
    if (talk_text(&d->talk, &text, &e) < 0)
        return fault_of(error, &e);
    dstar_chat_init(&q.chat);
    q.chat.messages = text.messages;
    q.chat.tools = text.tools;
    q.chat.think = o->think;
    q.chat.parse_special = o->special;
    q.chat.stop = o->stop.text;
    q.chat.n_stop = o->stop.n;
    q.chat.call_seed = rng_at(d->sampling_opts.seed, json_array_size(d->talk.messages));
    int code = answer_get(a, &q, error);
    talk_text_release(&text);
    if (code < 0 || (a->interrupted && a->n_answer == 0))
        talk_unsay(&d->talk);
    else if (talk_answered(&d->talk, a->content.data, a->reasoning.data, a->calls, &e) < 0)
        code = fault_of(error, &e);
    return code;
}

int dialogue_restart(struct dialogue *d, const char *system, struct dstar_error *error)
{
    struct err e = { 0 };
    talk_clear(&d->talk);
    if (system && talk_set_system(&d->talk, system, &e) < 0)
        return fault_of(error, &e);
    return dstar_session_set(d->session, &(int32_t){ 0 }, 0, error);
}

int dialogue_save(struct dialogue *d, const char *path, struct dstar_error *error)
{
    char *note = talk_dump(&d->talk);
    int code = dstar_session_set_note(d->session, note, note ? strlen(note) : 0, error);
    free(note);
    return code < 0 ? code : dstar_session_save(d->session, path, error);
}

int dialogue_load(struct dialogue *d, const char *path, struct dstar_error *error)
{
    size_t len;
    struct err e = { 0 };
    TRY(dstar_session_load(d->session, path, error));
    const void *note = dstar_session_note(d->session, &len);
    if (note && talk_parse(&d->talk, note, len, path, &e) < 0)
        return fault_of(error, &e);
    return 0;
}

void dialogue_figures(const struct dialogue *d, const struct answer *a)
{
    struct buf line;
    if (d->opts.stats_json)
        answer_print_flow(a, d->engine);
    if (d->opts.quiet || !(d->opts.stats || term_is(TERM_ERR)))
        return;
    buf_init(&line, 4096);
    answer_figures(a, &line);
    fprintf(stderr, "%s%s%s\n", term_style(TERM_ERR, TERM_DIM), line.data ? line.data : "",
            term_style(TERM_ERR, TERM_PLAIN));
    buf_release(&line);
}
