/* interrupt.c - a handler that sets a mark and cancels the session's steps. */
#include "interrupt.h"

#include <stdatomic.h>

#include "host.h"

static _Atomic int seen;
static _Atomic(dstar_session *) running;

void interrupt_raise(void)
{
    if (atomic_fetch_add(&seen, 1) > 0)
        host_die_interrupted();
    dstar_session *session = running;
    if (session)
        dstar_cancel(session);
}

void interrupt_catch(dstar_session *session)
{
    running = session;
    host_on_interrupt(interrupt_raise);
    if (session && interrupt_seen()) /* Ctrl-C came while nothing could be stopped */
        dstar_cancel(session);
}

void interrupt_release(void)
{
    running = NULL;
    host_on_interrupt(NULL);
}

bool interrupt_seen(void)
{
    return seen > 0;
}

void interrupt_clear(void)
{
    dstar_session *session = running;
    seen = 0;
    if (session)
        dstar_uncancel(session);
}
