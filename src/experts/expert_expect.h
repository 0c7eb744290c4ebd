/* expert_expect.h - how many lookups will find their expert in memory, before any is made. */
#ifndef DS_EXPERT_EXPECT_H
#define DS_EXPERT_EXPECT_H

/* Share of lookups that find their expert, for a share of experts in memory. On one text (0) less
 * than on another (2); 1 is between. docs/streaming.md says where it is from. */
double expert_expect_hits(double share, int text);

#endif
