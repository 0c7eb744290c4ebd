/* quantize_upgrade.h - layers that a budget takes to full precision. */
#ifndef DS_QUANTIZE_UPGRADE_H
#define DS_QUANTIZE_UPGRADE_H

#include "buf.h"
#include "error.h"

struct quantize;

struct quantize_upgraded {
    int32_t *layer; /* [n], the best first */
    int n;
    int64_t bytes;     /* that they take more */
    double base, gain; /* divergence before, and what is won of it, by measurement */
};

/* After all types are decided: choose layers, as the options say, and change their types. */
int quantize_upgrade(struct quantize *q, struct err *e);
void quantize_print_upgrade(const struct quantize *q, struct buf *out);

#endif
