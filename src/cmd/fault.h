/* fault.h - errors of the program's own, in the library's form, so that they travel as one kind. */
#ifndef DS_FAULT_H
#define DS_FAULT_H

#include "dwarfstar.h"
#include "error.h"

/* Record code (enum dstar_code) and text; returns the code. */
int fault_set(struct dstar_error *error, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* The same from an error of base. */
int fault_of(struct dstar_error *error, const struct err *e);

/* Print it; gives the exit status it means. */
int fault_print(const struct dstar_error *error);

#endif
