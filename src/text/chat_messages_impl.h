/* chat_messages_impl.h - the conversation as the vendor's encoder sees it before it writes: tool
 * results inside user turns, sorted, and what is not to be seen again taken out. */
#ifndef DS_CHAT_MESSAGES_IMPL_H
#define DS_CHAT_MESSAGES_IMPL_H

#include "chat_deepseek.h"
#include "pyjson.h"

enum chat_role {
    ROLE_SYSTEM,
    ROLE_USER,
    ROLE_DEVELOPER,
    ROLE_ASSISTANT,
    ROLE_TOOL, /* only on the way in: becomes part of a user message */
    ROLE_REMINDER,
    ROLE_SEARCH_RESULTS,
    ROLE_OTHER
};

/* Where a value came from, for error texts: list[at]. */
struct chat_place {
    const char *list; /* "messages" or "context" */
    int at;
};

/* A user turn is made of these. */
struct chat_block {
    const json_t *content;
    const json_t *call_id; /* of a tool result; may be NULL */
    bool is_result;
    struct chat_place place;
};

struct chat_message {
    enum chat_role role;
    const json_t *src;  /* its JSON object; NULL for a system message that only carries tools */
    const json_t *tools;
    const struct chat_task *task; /* or NULL */
    bool no_eos;
    int block, n_block; /* of a user message: chat.block[block ...] */
    struct chat_place place;
};

struct chat_messages {
    json_t *request, *context; /* what everything points into */
    struct chat_message *msg;
    struct chat_block *block;
    int n_msg, n_block;
    int first;     /* messages before it were rendered earlier */
    int last_user; /* index of the last user or developer message, or -1 */
    bool drop;     /* reasoning before the last user turn is not shown */
};

/* Parse, fuse, order, retain; see chat_render() for the form of `messages` and the errors.
 * Release it in any case. */
int chat_messages_read(struct chat_messages *c, const char *messages, size_t len,
                       const struct chat_options *o, struct err *e);
void chat_messages_release(struct chat_messages *c);

/* ERR_FORMAT "list[at].field: expected ..., found ..."; field is a format for the arguments. */
int chat_fault(struct err *e, const struct chat_place *where, const json_t *found,
               const char *expected, const char *field, ...) PRINTF_LIKE(5, 6);

#endif
