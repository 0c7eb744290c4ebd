/* expert_profile.h - how popular each expert was, to be kept between runs of the program. */
#ifndef DS_EXPERT_PROFILE_H
#define DS_EXPERT_PROFILE_H

#include "buf.h"
#include "error.h"
#include "expert_policy.h"

#define EXPERT_MODEL_MAX 64 /* letters and digits that name a model, such as its hash */

/* As text, one line for each expert that counts:
 *
 *     dstar-experts 1
 *     model 5f0c...
 *     shape 43 256
 *     0 17 402             layer, expert, count; ascending by layer, then expert
 */
struct expert_profile {
    char model[EXPERT_MODEL_MAX + 1];
    int n_layer, n_expert;
    uint32_t *count; /* [n_layer][n_expert] the caller's */
};

/* Append the text; a failure of the buffer stays in the buffer. */
void expert_profile_write(const struct expert_profile *p, struct buf *out);

/* Fill count from a text of this model and shape (both set by the caller). ERR_MISMATCH: it is of
 * another; ERR_FORMAT: damaged, or of another version. `name` is for messages. After an error all
 * counts are 0. */
int expert_profile_read(struct expert_profile *p, const char *text, size_t len, const char *name,
                        struct err *e);

/* Counts from what a policy has seen, by its longest memory: thousandths of a use now. */
void expert_profile_take(struct expert_profile *p, const struct expert_policy *policy);

/* Before the first route: let a profile's experts begin with scores up to that of `uses` uses. They
 * fade like any other. */
void expert_profile_give(const struct expert_profile *p, struct expert_policy *policy, double uses);

/* From what was read to what is to be written, where no policy ran but every use was counted: uses
 * is [n_layer][n_expert], n_used of a token in a layer. As if a policy had been given p, and had
 * seen these uses just now, after as many tokens. 1; 0: nothing was used, p is as it was. */
int expert_profile_add(struct expert_profile *p, const uint32_t *uses, int n_used, struct err *e);

#endif
