/* fit_plot.h - tokens a second over memory, as a picture. */
#ifndef DS_FIT_PLOT_H
#define DS_FIT_PLOT_H

#include "buf.h"
#include "measure.h"

/* What somebody measured, to be drawn beside what is expected. */
struct fit_measured {
    int n;
    struct {
        double memory, tok_s;
    } point[FIT_MOST];
};

/* Appends an SVG document; a failure of the buffer stays in the buffer. */
void fit_plot(struct buf *out, const struct fit *f, const struct fit_measured *m,
              const char *title);

#endif
