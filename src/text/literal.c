/* literal.c - longest match by narrowing a sorted list, one byte at a time.
 *
 * Literals that share their first k bytes are neighbours, and the shortest of them comes first.
 * About a thousand literals and few places where one could begin: a trie or an automaton would
 * be faster and is not worth its memory and code. */
#include "literal_impl.h"

#include <stdlib.h>

static int compare(const void *left, const void *right)
{
    const struct literal *a = left, *b = right;
    int order = memcmp(a->bytes, b->bytes, MIN(a->len, b->len));
    return order ? order : (a->len > b->len) - (a->len < b->len);
}

int literals_init(struct literals *l, const struct vocab *v, struct err *e)
{
    *l = (struct literals){ 0 };
    for (int i = 0; i < v->n; i++)
        l->n += v->token[i].type == TOKEN_CONTROL || v->token[i].type == TOKEN_USER_DEFINED;
    l->item = calloc((size_t)l->n + 1, sizeof *l->item);
    if (!l->item)
        return err_set(e, ERR_NO_MEMORY, "no memory for %d added tokens", l->n);
    struct literal *at = l->item;
    for (int i = 0; i < v->n; i++) {
        const struct vocab_token *t = &v->token[i];
        if (t->type != TOKEN_CONTROL && t->type != TOKEN_USER_DEFINED)
            continue;
        *at++ = (struct literal){ vocab_bytes(v, i), t->len, i };
        l->starts[(uint8_t)vocab_bytes(v, i)[0]] = true;
    }
    qsort(l->item, (size_t)l->n, sizeof *l->item, compare);
    for (int i = 1; i < l->n; i++)
        if (compare(&l->item[i - 1], &l->item[i]) == 0) {
            int code = err_set(e, ERR_FORMAT, "added tokens %d and %d are the same text",
                               l->item[i - 1].id, l->item[i].id);
            literals_release(l);
            return code;
        }
    return 0;
}

void literals_release(struct literals *l)
{
    free(l->item);
    *l = (struct literals){ 0 };
}

/* First of item[low..high-1], all equal before byte `at` and longer, whose byte there is >= c. */
static int lower_bound(const struct literals *l, int low, int high, size_t at, int c)
{
    while (low < high) {
        int mid = low + (high - low) / 2;
        if ((uint8_t)l->item[mid].bytes[at] < c)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

const struct literal *literals_match(const struct literals *l, const char *s, size_t n)
{
    const struct literal *best = NULL;
    int low = 0, high = l->n;
    if (n == 0 || !l->starts[(uint8_t)s[0]])
        return NULL;
    for (size_t at = 0; low < high; at++) {
        if (l->item[low].len == at)
            best = &l->item[low++];
        if (at == n)
            break;
        int c = (uint8_t)s[at];
        low = lower_bound(l, low, high, at, c);
        high = lower_bound(l, low, high, at, c + 1);
    }
    return best;
}

const struct literal *literals_find(const struct literals *l, const char *s, size_t n)
{
    const struct literal *found = literals_match(l, s, n);
    return found && found->len == n ? found : NULL;
}
