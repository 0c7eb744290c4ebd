/* dot_plot.h - values with intervals, one a row, as an SVG picture. */
#ifndef DS_DOT_PLOT_H
#define DS_DOT_PLOT_H

#include "buf.h"

struct dot {
    const char *label;
    double value, low, high; /* positive; others stand at the left edge */
};

/* Appends a whole SVG document with a logarithmic axis. title and axis: plain text. */
void dot_plot(struct buf *svg, const char *title, const char *axis, const struct dot *dot, int n);

#endif
