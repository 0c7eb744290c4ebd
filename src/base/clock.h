/* clock.h - seconds that never go backwards. */
#ifndef DS_CLOCK_H
#define DS_CLOCK_H

double clock_now_s(void);

/* Seconds of processor time that all threads of this process have used. */
double clock_processor_s(void);

#endif
