/* session_file.h - a session in one file: cache, waiting tokens, logits, random numbers, note. */
#ifndef DS_SESSION_FILE_H
#define DS_SESSION_FILE_H

#include "session.h"

/* Contracts: dwarfstar.h. */
int session_save(struct session *s, const char *path, struct err *e);
int session_load(struct session *s, const char *path, struct err *e);

#endif
