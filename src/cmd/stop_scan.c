/* stop_scan.c - hold back as many bytes as could be the beginning of a stop string. */
#include "stop_scan.h"

void stop_scan_init(struct stop_scan *s, const char *const *stop, int n_stop)
{
    *s = (struct stop_scan){ .stop = stop, .n_stop = n_stop };
    buf_init(&s->held, SIZE_MAX / 4);
}

void stop_scan_release(struct stop_scan *s)
{
    buf_release(&s->held);
}

size_t stop_scan_push(struct stop_scan *s, const char *text, size_t len, int *which)
{
    buf_add(&s->held, text, len);
    *which = -1;
    const char *held = s->held.data;
    for (size_t at = 0; at < s->held.len; at++) {
        size_t left = s->held.len - at;
        for (int i = 0; i < s->n_stop; i++) {
            size_t n = strlen(s->stop[i]);
            if (memcmp(held + at, s->stop[i], MIN(n, left)) != 0)
                continue;
            *which = left >= n ? i : -1;
            return at;
        }
    }
    return s->held.len;
}
