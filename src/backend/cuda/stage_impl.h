/* stage_impl.h - what of a step lies in device memory, and steps that are recorded. Included by
 * cuda_impl.h. */
#ifndef DS_STAGE_IMPL_H
#define DS_STAGE_IMPL_H

#define FEW_MAX 8 /* rows up to which kernels for few are taken, and steps are recorded */

/* One row of a step. A span is the rows of one conversation: adjacent, at consecutive positions. */
struct cu_row {
    int token, pos, seq;
    int first, count; /* of the span it belongs to */
    int out;          /* its place among the rows that want logits, or -1 */
};

/* A list of rows and their conversations' caches, all in device memory: kernels read positions
 * here, so that a recorded step can be replayed with others. */
struct cu_step {
    const struct cu_row *row;
    const struct kv_layer *kv; /* [n_seq][n_layer], block tables in device memory too */
    int n_layer;
    struct kv_shape shape;
};

/* The rows in device memory; copied when the step first shows them. NULL after a failure. */
const struct cu_step *cuda_rows(struct dev *d, const struct rows *r);

/* `bytes` of a step's own data on their way to the device: written through the pointer returned,
 * sent by cuda_send(), which returns their place there. NULL after a failure. A list of rows taken
 * before must be asked for again. */
void *cuda_stage(struct dev *d, size_t bytes);
void *cuda_send(struct dev *d, const void *staged, size_t bytes);

/* Positions that grids and scratch provide for where their number follows from positions: the
 * step's; of few rows, whose steps are recorded, more, up to a power of two. Blocks beyond a row's
 * own number return. */
#define LEAST_REACH 1024
static inline int cuda_reach(const struct rows *r)
{
    int reach = 1, most = LEAST_REACH;
    for (int i = 0; i < r->n; i++)
        reach = MAX(reach, r->host[i].pos + 1);
    while (most < reach && most <= INT32_MAX / 2)
        most *= 2;
    return r->n <= FEW_MAX ? MAX(reach, most) : reach;
}

/* A list of rows that a step has shown. */
struct cu_seen {
    const struct row *host;
    struct kv_view **kv;
    int n;
    size_t at;    /* in the stage */
    bool is_next; /* of a recorded step's two lists the second */
    struct cu_step step;
};

#define MAX_LISTS 4
#define N_RECORD 16

/* What of a step goes to the device. */
struct cu_stage {
    uint8_t *host, *dev; /* pinned, and its copy */
    size_t size, used, most;
    struct cu_seen seen[MAX_LISTS];
    int n_seen;
    const struct row *next; /* recorded: the second of its two lists */
};

/* What launches and their arguments depend on. */
struct cu_key {
    const void *scratch, *routes;
    int n, n_seq, reach;
    unsigned logits; /* rows that want them */
    bool with_next;
};

/* A step that was recorded, or that has been seen once. */
struct cu_recorded {
    struct cu_key key;
    int64_t last;         /* used; 0: never */
    cudaGraphExec_t exec; /* NULL: not recorded */
    struct cu_stage stage;
    struct tensor out[DEV_RESULTS];
};

struct cuda;

/* For one step; for recording one; the same lists with the numbers of another step. */
void cuda_stage_begin(struct cu_stage *s);
bool cuda_stage_for(struct dev *d, struct cu_stage *s, const struct rows *r,
                    const struct rows *next);
void cuda_stage_again(struct cu_stage *s, const struct rows *r, const struct rows *next);
void cuda_stage_free(struct cu_stage *s);

void cuda_forget_steps(struct cuda *c);

#endif
