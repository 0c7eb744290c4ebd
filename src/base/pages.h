/* pages.h - large anonymous memory, paid for page by page as it is touched. */
#ifndef DS_PAGES_H
#define DS_PAGES_H

#include "error.h"

/* size bytes of zeros, aligned to a page. Untouched pages take no memory, so that a maximum can be
 * mapped at open and nothing need be allocated later. size 0: NULL and success. */
int pages_map(void **mem, size_t size, struct err *e);
void pages_unmap(void *mem, size_t size);

#endif
