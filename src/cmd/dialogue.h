/* dialogue.h - a conversation with a model: what `run` and `chat` have in common. */
#ifndef DS_DIALOGUE_H
#define DS_DIALOGUE_H

#include "answer.h"
#include "engine_opts.h"
#include "sampling_opts.h"
#include "talk.h"

struct dialogue_opts {
    const char *system, *tools, *session;
    int think; /* enum dstar_think */
    int max_tokens;
    bool special, stats, stats_json, quiet;
    struct opt_texts stop;
};

struct dialogue {
    struct dialogue_opts opts;
    struct engine_opts engine_opts;
    struct sampling_opts sampling_opts;
    dstar_engine *engine;
    dstar_session *session;
    struct talk talk;
    bool loaded; /* it goes on from the session file */
};

/* The three groups of options, into group[0..2]; d is zeroed. */
void dialogue_groups(struct dialogue *d, struct opt_group group[3]);

/* Open the model, load the session file if there is one, take up tools and system message. 0 or
 * the exit status, after the error was printed; dialogue_close() is called in any case. */
int dialogue_open(struct dialogue *d);
void dialogue_close(struct dialogue *d);

/* Have the model answer the conversation so far and add the answer (initialised) to it; `show` may
 * be NULL. The last message is taken back on failure, and when Ctrl-C came before any answer. */
int dialogue_answer(struct dialogue *d, struct answer *a, dstar_event_fn *show, void *show_user,
                    struct dstar_error *error);

/* Begin anew with this system message; "": with none, NULL: with the same. */
int dialogue_restart(struct dialogue *d, const char *system, struct dstar_error *error);

int dialogue_save(struct dialogue *d, const char *path, struct dstar_error *error);
int dialogue_load(struct dialogue *d, const char *path, struct dstar_error *error);

/* The figures of an answer, dimmed, if they are wanted. */
void dialogue_figures(const struct dialogue *d, const struct answer *a);

#endif
