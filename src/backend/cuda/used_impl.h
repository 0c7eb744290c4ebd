/* used_impl.h - the experts that a row uses. */
#ifndef DS_USED_IMPL_H
#define DS_USED_IMPL_H

#include "device_impl.h"

#define MAX_USED 64

/* Place of a row's expert number t in ascending order, equal ones in theirs. */
__device__ __forceinline__ int place_by_expert(const int32_t *id, int n, int t)
{
    int at = 0;
    for (int j = 0; j < n; j++)
        at += id[j] < id[t] || (id[j] == id[t] && j < t);
    return at;
}

#endif
