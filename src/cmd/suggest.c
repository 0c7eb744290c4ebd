/* suggest.c - edit distance, with two neighbours swapped counted as one change; and words of which
 * one is the beginning of the other. Near means: one change in three letters. */
#include "suggest.h"

#define LONGEST 31

void suggest_init(struct suggest *s, const char *typed)
{
    int allowed = (int)(strlen(typed) + 2) / 3;
    *s = (struct suggest){ .typed = typed, .distance = MIN(allowed, 3) + 1 };
}

/* Changes that turn a into b (optimal string alignment). */
static int distance_of(const char *a, const char *b)
{
    int n = (int)strlen(a), m = (int)strlen(b);
    int row[3][LONGEST + 1]; /* the last three rows of the table: i - 2, i - 1, i */
    for (int j = 0; j <= m; j++)
        row[0][j] = row[1][j] = j;
    for (int i = 1; i <= n; i++) {
        int *now = row[(i + 1) % 3], *last = row[i % 3], *before = row[(i + 2) % 3];
        now[0] = i;
        for (int j = 1; j <= m; j++) {
            int change = last[j - 1] + (a[i - 1] != b[j - 1]);
            now[j] = MIN(change, MIN(last[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = MIN(now[j], before[j - 2] + 1);
        }
    }
    return row[(n + 1) % 3][m];
}

void suggest_offer(struct suggest *s, const char *word)
{
    size_t n = strlen(s->typed);
    if (n > LONGEST || strlen(word) > LONGEST)
        return;
    size_t shorter = MIN(n, strlen(word));
    bool begins = shorter >= 3 && strncmp(word, s->typed, shorter) == 0;
    int d = begins ? 1 : distance_of(s->typed, word);
    if (d < s->distance) {
        s->distance = d;
        s->best = word;
    }
}
