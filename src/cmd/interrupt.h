/* interrupt.h - Ctrl-C: the first one asks politely, the second one ends the program. */
#ifndef DS_INTERRUPT_H
#define DS_INTERRUPT_H

#include "base.h"
#include "dwarfstar.h"

/* From here on Ctrl-C sets a mark instead of ending the program, and stops the steps of
 * `session` (may be NULL). A second one before interrupt_clear() ends the program. */
void interrupt_catch(dstar_session *session);

/* As usual again: Ctrl-C ends the program. */
void interrupt_release(void);

bool interrupt_seen(void);
void interrupt_clear(void);

/* The same, as if Ctrl-C had been pressed; for an editor that gets it as a key. */
void interrupt_raise(void);

#endif
