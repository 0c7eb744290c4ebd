/* chat_strings.h - constant texts and markers of DeepSeek-V4's chat format. */
#ifndef DS_CHAT_STRINGS_H
#define DS_CHAT_STRINGS_H

#include "base.h"

/* Literals that the tokenizer knows as added tokens. */
struct chat_markers {
    const char *bos, *eos, *user, *assistant, *latest_reminder, *think_open, *think_close;
};
extern const struct chat_markers chat_markers;

/* Tags of tool calls. The token is the part between the angle bracket and the name. */
#define CHAT_DSML "｜DSML｜"
#define CHAT_DSML_OPEN "<" CHAT_DSML
#define CHAT_DSML_CLOSE "</" CHAT_DSML

/* Quick instructions: short questions that the model answers about a conversation. */
struct chat_task {
    const char *name, *marker;
};
extern const struct chat_task chat_tasks[]; /* ends with a NULL name */
#define CHAT_TASK_ACTION (&chat_tasks[0])   /* asked after the assistant's marker */

extern const char chat_effort_absolute[], chat_effort_beyond[]; /* before everything else */
extern const char chat_tools_head[], chat_tools_tail[]; /* around one JSON line per tool */
extern const char chat_response_format[];               /* before the JSON schema */

#endif
