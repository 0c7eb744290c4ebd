/* host.h - what only the operating system can tell a program about its surroundings. */
#ifndef DS_HOST_H
#define DS_HOST_H

#include "error.h"

/* File descriptors: 0 standard input, 1 output, 2 errors. */
bool host_is_terminal(int fd);

/* Columns of the terminal; 0: not a terminal, or unknown. */
int host_columns(int fd);

/* Let the terminal functions of the C library read UTF-8; numbers keep their decimal point. */
void host_use_utf8(void);

/* Folder of the running program, without a slash at the end; the caller frees it. NULL: unknown. */
char *host_program_dir(void);

/* Make a folder and those above it, readable for the user alone. Existing ones are fine. */
int host_make_dirs(const char *path, struct err *e);

/* Processes that wait for a processor or run, on average over the last minute; -1: unknown. */
double host_load(void);

/* From now on fn runs on Ctrl-C, on any thread, and reading is interrupted; NULL: as usual again,
 * the program ends. fn may only do what a signal handler may. */
void host_on_interrupt(void (*fn)(void));

/* End as a program ended by Ctrl-C does. May be called from the handler. */
void host_die_interrupted(void);

/* Writing to a closed pipe ends the program silently, whatever the parent process preferred. */
void host_quiet_pipes(void);

#endif
