/* send.h - weights on their way to the memory of a device that is apart, or to memory of the host
 * that it reads in place.
 *
 * First all are named, with the places they will have; then all are sent at once: threads read
 * pieces of the files, each into memory of its own from which the device copies fast, while others
 * copy. What stays with the host is read to where it will lie. Random weights that are not stored
 * are made by the device. */
#ifndef DS_SEND_H
#define DS_SEND_H

#include "dev.h"
#include "report.h"
#include "weights.h"

#define SEND_PIECE ((size_t)8 << 20)
int send_threads(void);

struct send_item {
    const struct weight *w;
    size_t at, bytes; /* of it */
    uint8_t *to;
    bool is_host;     /* in memory of the host */
    int first;        /* its first piece */
};

struct send_list {
    struct send_item *item;
    int n, cap, n_piece;
};

/* One more; `first` is found here. */
int send_add(struct send_list *l, const struct send_item *i, struct err *e);

/* All of them; the list is empty afterwards. ERR_CANCELLED: told did not want it. */
int send_all(struct send_list *l, const struct weights *files, struct dev *d,
             const struct report *told, struct err *e);

void send_release(struct send_list *l);

#endif
