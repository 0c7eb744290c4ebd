/* dwarfstar.h - run DeepSeek V4 models: the only public header, written as a manual.
 *
 * In short:
 *
 *     dstar_options_init(&options);              options.model = "model.gguf";
 *     dstar_open(&engine, &options, &error);     weights, device, memory: all taken here
 *     dstar_session_new(&session, engine, &error);
 *     dstar_chat_render(engine, &chat, &prompt, &error);            messages to tokens
 *     dstar_session_set(session, prompt.tokens.id, prompt.tokens.n, &error);
 *     while (dstar_next(session, &token, &error) == 1) ...          one token after another
 *
 * examples/hello.c is the same as a whole program.
 *
 * Conventions
 *   - Functions that can fail return a negative enum dstar_code and describe it in one line in
 *     *error, the last parameter (may be NULL). Otherwise 0 or what the comment says.
 *   - Nothing here prints, exits, reads the environment or keeps state outside its handles.
 *   - A pointer returned as const belongs to the library and lives until the next call on the same
 *     handle, unless the comment says otherwise. Every other one is given back as its comment says.
 *   - Text is UTF-8. Counted text need not be zero-terminated.
 *   - One thread at a time may use an engine and its sessions. Exceptions: dstar_cancel(), and the
 *     functions of the sections "tokens" and "chat", which any number of threads may call (one
 *     dstar_text or dstar_parser each).
 *   - Structs that the caller fills have a function ..._init(): call it first, then set fields.
 *     A later version may add fields at the end. */
#ifndef DWARFSTAR_H
#define DWARFSTAR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define DSTAR_API __attribute__((visibility("default")))
#else
#define DSTAR_API
#endif

#define DSTAR_VERSION "0.1.0"

DSTAR_API const char *dstar_version(void); /* of the library that is linked */

typedef struct dstar_engine dstar_engine;   /* a model on a device, with its memory */
typedef struct dstar_session dstar_session; /* one conversation being computed */
typedef struct dstar_text dstar_text;       /* tokens becoming text */
typedef struct dstar_parser dstar_parser;   /* text becoming reasoning, content, tool calls */

/* ---- errors and remarks -------------------------------------------------------------------- */

enum dstar_code {
    DSTAR_OK = 0,
    DSTAR_NO_MEMORY = -1,   /* memory or disk space is exhausted */
    DSTAR_IO = -2,          /* the operating system refused */
    DSTAR_FORMAT = -3,      /* a file or text is damaged, or is not what it should be */
    DSTAR_UNSUPPORTED = -4, /* valid, but not something this build can do */
    DSTAR_ARGUMENT = -5,    /* the caller asked for something impossible */
    DSTAR_LIMIT = -6,       /* a stated limit (context, count, size) is exceeded */
    DSTAR_MISMATCH = -7,    /* a file belongs to another model */
    DSTAR_CANCELLED = -8    /* dstar_cancel() was called */
};

struct dstar_error { /* set by a function that fails, untouched by others */
    int code;        /* enum dstar_code */
    char text[1024]; /* one line: file, field, what was found, what was expected */
};

enum dstar_log_level { DSTAR_LOG_DEBUG, DSTAR_LOG_INFO, DSTAR_LOG_WARN };

/* Receives remarks, one line each without a newline. */
typedef void dstar_log_fn(void *user, int level, const char *text);

/* Give back memory that a function here allocated for the caller. NULL is fine. */
DSTAR_API void dstar_free(void *memory);

/* ---- engine -------------------------------------------------------------------------------- */

/* While opening; done goes from 0 to 1. Returning non-zero cancels the opening. */
typedef int dstar_progress_fn(void *user, const char *what, double done);

/* How the strength of thinking is put into words; it changed between releases of the models. */
enum dstar_profile { DSTAR_PROFILE_FILE, DSTAR_PROFILE_PREVIEW, DSTAR_PROFILE_0731 };

/* How much is opened. TOKENS: only the sections "tokens" and "chat" may be used; of a folder only
 * tokenizer.json is needed. PLAN: only dstar_engine_info(), even if there is too little memory. */
enum dstar_part { DSTAR_ALL, DSTAR_TOKENS, DSTAR_PLAN };

struct dstar_options {
    const char *model;     /* a .gguf file (any part of a split one) or a checkpoint folder */
    int part;              /* enum dstar_part */
    const char *device;    /* "cpu"; "cuda:0": a GPU; "ref": slow; NULL: a GPU if it pays (1 GB) */
    int threads;           /* 0: as many as the process may use */
    int exact;             /* 1: activations are never rounded to 8 bits */
    const char *cpu;       /* strongest instruction set: scalar avx2 avx512 amx neon; NULL: any */
    int ctx;               /* tokens a conversation may have; 0: as many as memory allows */
    int sessions;          /* conversations that shall fit in memory at full length; default 1 */
    int max_rows;          /* tokens computed per step at most; 0: chosen for the device */
    uint64_t memory_bytes; /* all the process may take, model included; 0: what is free. What does
                              not fit of the experts is read when needed */
    int cache_simulation;  /* cached rows rounded as in training: 1, 0, or -1: as the file says */
    int mtp;               /* 1: load the draft block, if there is one */
    int profile;           /* enum dstar_profile */
    const char *ssd_io;    /* {uring,pool}-{direct,buffered}: how experts are read; or NULL */
    const char *popular;   /* file of popular experts, read and written again at the end, or NULL */
    dstar_log_fn *log;     /* NULL: remarks are dropped */
    dstar_progress_fn *progress;
    void *log_user, *progress_user;
    uint64_t gpu_memory_bytes; /* of a GPU's; 0: all. Experts beyond it stay in the host's memory */
};

DSTAR_API void dstar_options_init(struct dstar_options *options);

/* Opens everything and takes all memory that steps will need; strings are copied. Errors: DSTAR_IO,
 * DSTAR_FORMAT, DSTAR_UNSUPPORTED for the file, DSTAR_NO_MEMORY with sizes, DSTAR_CANCELLED. */
DSTAR_API int dstar_open(dstar_engine **engine, const struct dstar_options *options,
                         struct dstar_error *error);

/* Every session must have been freed. NULL is fine. */
DSTAR_API void dstar_close(dstar_engine *engine);

struct dstar_plan {      /* memory by purpose, in bytes, as planned at opening */
    uint64_t mapped;       /* the model's files; mapped unless experts are read when needed */
    uint64_t converted, scratch; /* weights copied at opening; temporary memory of a step */
    uint64_t session;      /* per session: rings, frontiers, marks, tokens, logits */
    uint64_t cache;        /* compressed rows at full length, all sessions; taken as they grow */
    uint64_t experts, held; /* for experts read when needed, else 0; then for all other weights */
    uint64_t total;        /* anonymous: the above but for mapped, all sessions */
    uint64_t available;    /* what could be had when planning */
    double cache_per_token; /* of `cache`, per token of context */
};

struct dstar_info {
    const char *name;      /* of the model, from the file; its file name if it has none */
    const char *path, *format; /* as given; "GGUF" or "checkpoint" */
    const char *device;    /* "cpu: AVX2, 2 threads" */
    uint8_t identity[32];  /* names the network and its format: sessions belong to it */
    int n_layer, n_embd, n_vocab, n_expert, n_used;
    int has_mtp;           /* the draft block is loaded */
    int cache_simulation, profile; /* in effect */
    int ctx, ctx_trained;  /* in effect; most positions the network was made for */
    const char *ctx_why;   /* one line: why ctx is what it is */
    int max_rows;
    double load_s;         /* seconds that dstar_open() took */
    struct dstar_plan plan;
};

/* Lives as long as the engine. */
DSTAR_API const struct dstar_info *dstar_engine_info(const dstar_engine *engine);

/* ---- tokens (any thread; texts fail for a checkpoint without tokenizer.json) ---------------- */

/* A growing list. Start with all zero; functions append to it. */
struct dstar_tokens {
    int32_t *id;
    int n, cap;
};

DSTAR_API int dstar_tokens_add(struct dstar_tokens *tokens, const int32_t *id, int n,
                               struct dstar_error *error);
DSTAR_API void dstar_tokens_release(struct dstar_tokens *tokens);

/* Text to tokens, appended. special 1: marker strings such as "<think>" become their control
 * tokens; 0: they are text like any other. Nothing is put in front or behind. */
DSTAR_API int dstar_tokenise(const dstar_engine *engine, const char *text, size_t len, int special,
                             struct dstar_tokens *out, struct dstar_error *error);

/* Tokens to bytes, *text zero-terminated, for dstar_free(). special 1: control tokens are written
 * as strings; 0: left out. Broken characters are passed through. */
DSTAR_API int dstar_detokenise(const dstar_engine *engine, const int32_t *id, int n, int special,
                               char **text, size_t *len, struct dstar_error *error);

/* The bytes of one token, not zero-terminated; lives as long as the engine. NULL: no such id. */
DSTAR_API const char *dstar_token_bytes(const dstar_engine *engine, int32_t id, size_t *len);

/* The id whose string this is ("<think>"), or -1. */
DSTAR_API int32_t dstar_token_find(const dstar_engine *engine, const char *string);

/* 1 if the model ends its turn with this token. */
DSTAR_API int dstar_token_is_stop(const dstar_engine *engine, int32_t id);

/* Tokens to text as they come: only complete characters are handed out. */
DSTAR_API int dstar_text_new(dstar_text **text, const dstar_engine *engine, int special,
                             struct dstar_error *error);
DSTAR_API void dstar_text_free(dstar_text *text);

/* What became complete with this token: zero-terminated, maybe empty, valid until the next call. */
DSTAR_API const char *dstar_text_push(dstar_text *text, int32_t id, size_t *len);

/* What is left at the end, an incomplete character as U+FFFD; then it may be used again. */
DSTAR_API const char *dstar_text_end(dstar_text *text, size_t *len);

/* ---- chat (any thread) --------------------------------------------------------------------- */

enum dstar_think { DSTAR_THINK_NONE, DSTAR_THINK_LOW, DSTAR_THINK_HIGH, DSTAR_THINK_MAX };

/* An effort word (none minimal low medium high xhigh max) on the model's ladder; -1: unknown. */
DSTAR_API int dstar_think_of(const dstar_engine *engine, const char *word);

enum dstar_event_kind {
    DSTAR_REASONING,  /* text: a piece of the thoughts */
    DSTAR_CONTENT,    /* text: a piece of the answer */
    DSTAR_CALL_BEGIN, /* call, id, name: a tool call starts */
    DSTAR_CALL_ARGS,  /* call, text: a piece of its arguments, a JSON object when put together */
    DSTAR_CALL_END,   /* call, complete */
    DSTAR_RAW,        /* text: output that is none of these, for logs */
    DSTAR_REMARK,     /* text; call or -1: what was repaired or is wrong */
    DSTAR_FINISHED    /* finish, stop: the last event */
};

enum dstar_finish { DSTAR_FINISH_STOP, DSTAR_FINISH_LENGTH, DSTAR_FINISH_CALLS };

/* It and its strings live until the callback returns. */
struct dstar_event {
    int kind;         /* enum dstar_event_kind */
    int call;         /* number of the tool call in this answer, from 0 */
    const char *id, *name; /* zero-terminated */
    const char *text; /* not zero-terminated */
    size_t len;
    int complete;     /* 0: the call was cut off; its JSON was closed, but do not run it */
    int finish;       /* enum dstar_finish */
    int stop;         /* index of the stop string that ended the content, or -1 */
};

typedef void dstar_event_fn(void *user, const struct dstar_event *event);

/* One request in the shape of the OpenAI chat API, and how its answer is to be read. */
struct dstar_chat {
    const char *messages; /* JSON array: role (system user assistant tool), content, tool_calls,
                             tool_call_id, reasoning_content; response_format on a system message;
                             "prefix": true on a last assistant message continues it */
    const char *tools;    /* JSON array of {"type": "function", "function": {...}}; NULL: none */
    int think;            /* enum dstar_think; default none */
    int keep_reasoning;   /* 1: reasoning of earlier turns stays in (always so with tools) */
    int parse_special;    /* 1: marker strings in messages become control tokens: unsafe */
    const char *const *stop; /* strings that end the content; not looked for in reasoning */
    int n_stop;
    int whole_calls;      /* 1: a call is given in one piece once it is closed, or never */
    uint64_t call_seed;   /* ids of calls are made from it: a random number if they must differ */
    dstar_event_fn *on_event;
    void *on_event_user;
};

DSTAR_API void dstar_chat_init(struct dstar_chat *chat);

/* Start with all zero. */
struct dstar_prompt {
    struct dstar_tokens tokens; /* release it with dstar_tokens_release() */
    int in_reasoning;     /* the answer begins with thoughts */
    int leading;          /* nothing of the part it begins with is in the prompt */
};

/* The prompt, ready for dstar_session_set(); its tokens replace those in `prompt`. DSTAR_FORMAT:
 * message, field, found and expected. */
DSTAR_API int dstar_chat_render(const dstar_engine *engine, const struct dstar_chat *chat,
                                struct dstar_prompt *prompt, struct dstar_error *error);

/* Reads the answer to `chat` rendered as `prompt` (copies what it needs of both) and calls
 * chat->on_event. However the answer is cut into pushes, the events say the same together. */
DSTAR_API int dstar_parser_new(dstar_parser **parser, const dstar_engine *engine,
                               const struct dstar_chat *chat, const struct dstar_prompt *prompt,
                               struct dstar_error *error);
DSTAR_API void dstar_parser_free(dstar_parser *parser);

/* A sampled token. 1: go on; 0: the answer is complete (stop string, end of the calls, a token that
 * ends the turn). */
DSTAR_API int dstar_parser_push(dstar_parser *parser, int32_t id, struct dstar_error *error);

/* The answer ended, or was cut off for its length: hands out what was held back, then
 * DSTAR_FINISHED. Once. */
DSTAR_API int dstar_parser_end(dstar_parser *parser, int cut_off, struct dstar_error *error);

/* ---- sessions ------------------------------------------------------------------------------ */

DSTAR_API int dstar_session_new(dstar_session **session, dstar_engine *engine,
                                struct dstar_error *error);
DSTAR_API void dstar_session_free(dstar_session *session);

/* Make these the tokens of the session. The longest computed prefix is kept; computes nothing.
 * DSTAR_LIMIT: more than ctx tokens. On failure nothing changed. */
DSTAR_API int dstar_session_set(dstar_session *session, const int32_t *id, int n,
                                struct dstar_error *error);

/* The same, behind the tokens it has. */
DSTAR_API int dstar_session_append(dstar_session *session, const int32_t *id, int n,
                                   struct dstar_error *error);

/* Keep the first n tokens; up to a few hundred of them may have to be computed again. */
DSTAR_API int dstar_session_truncate(dstar_session *session, int n, struct dstar_error *error);

/* Compute at most max_rows waiting tokens. Returns how many still wait; call it until 0, showing
 * progress in between. A step that failed costs nothing of the past and can be repeated. */
DSTAR_API int dstar_session_step(dstar_session *session, struct dstar_error *error);

/* All tokens, computed and waiting. */
DSTAR_API const int32_t *dstar_session_tokens(const dstar_session *session, int *n,
                                              int *n_computed);

/* Running and coming steps of this session return DSTAR_CANCELLED until dstar_uncancel(). Any
 * thread or signal handler may call both. What is computed stays. */
DSTAR_API void dstar_cancel(dstar_session *session);
DSTAR_API void dstar_uncancel(dstar_session *session);

/* Scores of the next token, n_vocab floats; NULL while tokens wait or when there are none. Valid
 * until the next call that changes the session. */
DSTAR_API const float *dstar_logits(const dstar_session *session);

struct dstar_candidate {
    int32_t id;
    float logprob; /* natural logarithm of its probability, before any filter */
};

/* The n largest of n_vocab logits, best first; returns how many (n or n_vocab). */
DSTAR_API int dstar_top(const float *logits, int n_vocab, struct dstar_candidate *out, int n);
DSTAR_API float dstar_logprob(const float *logits, int n_vocab, int32_t id);

/* How the next token is drawn. Filters apply in the order of these fields. */
struct dstar_sampling {
    const int32_t *banned; /* never drawn, besides control tokens that cannot occur in an answer */
    int n_banned;
    const int32_t *allowed; /* control tokens that may be drawn nevertheless */
    int n_allowed;
    int penalty_last_n;     /* penalties look at so many tokens back; 0: none, -1: all */
    float repeat_penalty;   /* > 1 makes tokens seen less likely: logits / it, or * it if < 0 */
    float frequency_penalty; /* subtracted once per occurrence */
    float presence_penalty; /* subtracted once */
    float temperature;      /* 0: always the most likely (of equals the lowest id) */
    int top_k;              /* only the k most likely; 0: all */
    float top_p;            /* only the most likely that together reach p; 1: all */
    float min_p;            /* only those with at least min_p of the best's probability; 0: all */
    uint64_t seed;          /* the same seed and prompt give the same text */
    const int32_t *stop;    /* tokens that end a turn, besides the model's own */
    int n_stop;
};

/* Temperature 1, top_p 1, no penalties, seed 0: what the models are published with. */
DSTAR_API void dstar_sampling_init(struct dstar_sampling *sampling);

/* Copied, lists too. Starts the random numbers anew. DSTAR_ARGUMENT: a value out of range. */
DSTAR_API int dstar_session_sampling(dstar_session *session, const struct dstar_sampling *sampling,
                                     struct dstar_error *error);

/* Draw a token; only the random numbers advance. DSTAR_FORMAT: logits are not numbers. */
DSTAR_API int dstar_sample(dstar_session *session, int32_t *id, struct dstar_error *error);

/* Compute what waits, draw a token, append it. Returns 1; 0 when the token ends the turn: then it
 * is not appended. DSTAR_LIMIT: the context is full. */
DSTAR_API int dstar_next(dstar_session *session, int32_t *id, struct dstar_error *error);

/* One file with everything needed to go on exactly as if never stopped, for this model alone.
 * An older file of that name stays whole until the new one is complete. */
DSTAR_API int dstar_session_save(dstar_session *session, const char *path,
                                 struct dstar_error *error);

/* Replaces the session's content; sampling is to be set before, its random numbers go on.
 * DSTAR_MISMATCH: of another model; DSTAR_FORMAT: damaged. On failure nothing changed. */
DSTAR_API int dstar_session_load(dstar_session *session, const char *path,
                                 struct dstar_error *error);

/* The caller's bytes, saved and loaded with the session. Copied; at most 256 MiB, 0: none. */
DSTAR_API int dstar_session_set_note(dstar_session *session, const void *note, size_t len,
                                     struct dstar_error *error);
DSTAR_API const void *dstar_session_note(const dstar_session *session, size_t *len);

struct dstar_stats {
    int n_tok, n_computed, n_reused; /* now; kept by the last set, truncate or load */
    int64_t n_prefill, n_decode;     /* tokens computed in steps of several, of one */
    double prefill_s, decode_s;      /* seconds spent on them: tokens per second are n / s */
    double first_token_s;            /* from the last set to the first token drawn; 0: none yet */
    uint64_t cache_bytes, state_bytes, mark_bytes; /* memory held by this session */
};

DSTAR_API void dstar_session_stats(const dstar_session *session, struct dstar_stats *stats);

/* ---- evaluation ---------------------------------------------------------------------------- */

/* Logits after token number `pos`, n_vocab floats; mtp: the draft block's for the token after the
 * next, NULL unless asked for. Returning non-zero ends the evaluation. */
typedef int dstar_row_fn(void *user, int pos, const float *logits, const float *mtp);

struct dstar_text_eval {
    const int32_t *id;
    int n;
    int chunk; /* tokens per step; 0 or too many: as many as there is memory for */
    int mtp;   /* 1: the draft block's logits too (options.mtp); after the last token: the first */
    dstar_row_fn *on_row;
    void *user;
};

/* Logits of every token of a text in a conversation of its own, in order of positions; they do not
 * depend on `chunk`. Takes the cache of one session while it runs. DSTAR_CANCELLED: by on_row. */
DSTAR_API int dstar_eval(dstar_engine *engine, const struct dstar_text_eval *eval,
                         struct dstar_error *error);

#ifdef __cplusplus
}
#endif

#endif
