/* chat_deepseek.h - from messages to the text of a prompt, as DeepSeek-V4 was trained on it.
 *
 * The result is one text and a list of spans in which the tokenizer may turn control literals
 * (<|User|> and the like, with full-width bars) into control tokens. Outside of the spans such a
 * literal is plain text, so that nobody becomes the assistant by writing its marker. */
#ifndef DS_CHAT_DEEPSEEK_H
#define DS_CHAT_DEEPSEEK_H

#include "buf.h"
#include "error.h"
#include "text_span.h"

/* Which ladder of effort texts the checkpoint was trained with. The files do not tell. */
enum chat_profile {
    CHAT_PREVIEW, /* April 2026: only max has a text */
    CHAT_0731     /* 31 July and 13 August 2026: high and max have texts */
};

enum chat_think {
    CHAT_THINK_NONE, /* the answer starts at once */
    CHAT_THINK_LOW,  /* thinking, no effort text */
    CHAT_THINK_HIGH, /* the services' default */
    CHAT_THINK_MAX
};

struct chat_options {
    enum chat_profile profile;
    enum chat_think think;
    bool drop_thinking;       /* without declared tools, earlier turns lose their reasoning */
    bool add_bos;             /* begin with the begin-of-sentence marker */
    bool parse_special;       /* message bodies may hold control literals: one span, whole text */
    bool developer_is_system; /* role developer means system (OpenAI), not the vendor's own role */
    const char *context;      /* JSON array of messages rendered earlier, or NULL: */
    size_t context_len;       /* only what follows them is rendered */
    size_t max_bytes;         /* of the rendered text; more is ERR_LIMIT */
};

/* preview, high, drop_thinking, add_bos; no special parsing; 64 MiB. */
void chat_options_init(struct chat_options *o);

/* Set options from the vendor encoder's own words, a JSON object with any of: thinking_mode
 * ("chat", "thinking"), reasoning_effort (null, "none", "low", "high", "max"), drop_thinking,
 * add_default_bos_token. Unknown keys are ERR_ARGUMENT; `context` is the caller's to set. */
int chat_options_official(struct chat_options *o, const char *kwargs, size_t len, struct err *e);

/* Effort word of a request (none minimal low medium high xhigh max) on the profile's ladder, as
 * the hosted service maps it. False: unknown word. */
bool chat_think_of(enum chat_profile profile, const char *word, enum chat_think *out);

struct chat_text {
    struct buf text;
    struct text_span *special; /* where added tokens are recognised */
    int n_special, cap_special;
    bool in_reasoning; /* the model goes on in its reasoning, not in its answer ... */
    bool leading;      /* ... and at its very start: nothing of that part is in the prompt */
};

void chat_text_release(struct chat_text *t);

/* Render `messages`: a JSON array of messages in the OpenAI manner, or an object with `messages`
 * and optionally `tools`, which go to the first system message (one is put in front if there is
 * none). Fields: role, content, tools, response_format, tool_calls, tool_call_id,
 * reasoning_content, task, wo_eos (or prefix). out is filled on success and empty on failure.
 * ERR_FORMAT: not JSON, or a field of the wrong kind, named like messages[3].content;
 * ERR_UNSUPPORTED: unknown role or task, lone surrogate; ERR_LIMIT: longer than max_bytes. */
int chat_render(struct chat_text *out, const char *messages, size_t len,
                const struct chat_options *o, struct err *e);

#endif
