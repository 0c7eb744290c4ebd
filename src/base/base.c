/* base.c - the few words of base.h that are functions. */
#include "base.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void check_failed(const char *cond, const char *file, int line)
{
    fprintf(stderr, "%s:%d: internal error, please report: %s does not hold\n", file, line, cond);
    abort();
}

bool mul_size(size_t a, size_t b, size_t *out)
{
    if (b != 0 && a > SIZE_MAX / b)
        return false;
    *out = a * b;
    return true;
}

bool add_size(size_t a, size_t b, size_t *out)
{
    if (a > SIZE_MAX - b)
        return false;
    *out = a + b;
    return true;
}

struct bytes_text bytes_text(double n)
{
    static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    struct bytes_text out;
    int u = 0;
    for (; n >= 1000 && u < 4; u++)
        n /= 1024;
    snprintf(out.s, sizeof out.s, u == 0 || n >= 100 ? "%.0f %s" : "%.1f %s", MIN(n, 1e6),
             unit[u]);
    return out;
}
