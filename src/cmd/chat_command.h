/* chat_command.h - lines of a chat that begin with a slash. */
#ifndef DS_CHAT_COMMAND_H
#define DS_CHAT_COMMAND_H

#include "dialogue.h"

/* Do what the line says, or say what is wrong with it. False: the chat shall end. */
bool chat_command(struct dialogue *d, const char *line);

#endif
