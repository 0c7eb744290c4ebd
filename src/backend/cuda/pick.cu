/* pick.cu - which compressed rows a query sees: scores of all visible ones, then the exact choice
 * of the best by radix selection, of equal ones the lower. Blocks choose among CHUNK scores each,
 * then others among what those have chosen, until one is enough. Scores of as many rows of the step
 * are kept at a time as fit a fixed memory. */
#include "pick_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

#define THREADS 128
#define WARPS (THREADS / WARP)
#define AT_ONCE 4          /* rows of the cache that a warp scores together */
#define ROWS 64            /* of the cache, for a block */
#define SCORE_BYTES ((size_t)64 << 20)
#define SHARED_BYTES 49152 /* what every GPU gives without being asked */

/* ---- scores -------------------------------------------------------------------------------- */

/* Row b as float32 to shared memory, by a warp. */
__device__ __forceinline__ void load_index_row(const struct picking *p, const struct cu_row *r,
                                               int b, float *to)
{
    const struct kv_shape *s = &p->step.shape;
    const struct kv_layer *layer = kv_of(&p->step, r->seq, p->l);
    int per = s->block_tok / layer->ratio;
    const uint8_t *row = layer->index_block[b / per] + (size_t)(b % per) * s->index_row_bytes;
    for (int k = LANE; k < p->dim; k += WARP)
        to[k] = s->packed ? index_value(row, p->dim, k) : ((const float *)row)[k];
}

/* A warp scores AT_ONCE rows, a lane for every 32nd head. q [dim][heads + 1], the last so that
 * turning q round meets all banks; rows [AT_ONCE][dim]. */
__device__ __forceinline__ void score_rows(const struct picking *p, const float *q, int heads,
                                           const float *rows, const float *weight, float *sum)
{
    for (int h = LANE; h < heads; h += WARP) {
        float dot[AT_ONCE] = { 0 }, w = h < p->n_head ? weight[h] * p->scale : 0;
        for (int k = 0; k < p->dim; k++)
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++)
                dot[i] = fmaf(q[k * (heads + 1) + h], rows[i * p->dim + k], dot[i]);
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            sum[i] = h < p->n_head ? fmaf(w, fmaxf(dot[i], 0), sum[i]) : sum[i];
    }
}

/* Grid: ROWS rows of the cache, rows of the step. Shared: q transposed, then each warp's rows. */
__global__ void __launch_bounds__(THREADS) score_kernel(struct picking p)
{
    wait_for_last();
    SHARED_DYNAMIC(float, q);
    int i = p.row0 + (int)blockIdx.y, heads = (p.n_head + WARP - 1) / WARP * WARP;
    struct cu_row r = p.step.row[i];
    int n = n_visible(&p, &r), first = (int)blockIdx.x * ROWS;
    float *mine = q + p.dim * (heads + 1) + WARP_ID * AT_ONCE * p.dim;
    const float *from = p.q.x + (size_t)i * p.q.pitch;
    if (n <= p.top_k || first >= n)
        return;
    for (int at = (int)threadIdx.x; at < heads * p.dim; at += THREADS) {
        int h = at / p.dim, k = at % p.dim;
        q[k * (heads + 1) + h] = h < p.n_head ? from[at] : 0;
    }
    __syncthreads();
    for (int b = first + WARP_ID * AT_ONCE; b < first + ROWS && b < n; b += WARPS * AT_ONCE) {
        float sum[AT_ONCE] = { 0 };
        for (int j = 0; j < AT_ONCE; j++)
            load_index_row(&p, &r, b + j < n ? b + j : n - 1, mine + j * p.dim);
        __syncwarp();
        score_rows(&p, q, heads, mine, p.weight.x + (size_t)i * p.weight.pitch, sum);
        for (int j = 0; j < AT_ONCE; j++) {
            float all = warp_sum(sum[j]);
            if (LANE == 0 && b + j < n)
                p.score[blockIdx.y * p.pitch + b + j] = known(all);
        }
        __syncwarp();
    }
}

/* ---- the choice ---------------------------------------------------------------------------- */

#define EACH 4     /* scores of a thread */
#define CHUNK 4096 /* of a block */
#define DIGITS 4   /* of a key, 8 bits each */

/* Scores in the order of their rows, ids: [rows at a time][pitch]. Ids NULL: their places. */
struct list {
    float *score;
    int32_t *id;
    size_t pitch;
};

struct selection {
    __align__(16) int histogram[DIGITS][256];
    uint32_t prefix; /* of the last key taken, as far as known */
    int left;        /* how many with that prefix are to be taken */
    bool exact;      /* as many as there are */
    int count[WARP];
};

/* Larger floats have larger keys; both zeros are one. */
__device__ __forceinline__ uint32_t key_of(float x)
{
    uint32_t u = __float_as_uint(x + 0.f);
    return u & 0x80000000 ? ~u : u | 0x80000000;
}

/* By a warp, a lane for 8 values of digit d, the first for the largest: where the counts reach what
 * is left. */
__device__ __forceinline__ void find_digit(struct selection *s, int d)
{
    int value = 256 - 8 * LANE, left = s->left;
    const int4 *four = (const int4 *)(const void *)&s->histogram[d][value - 8];
    int4 lo = four[0], hi = four[1];
    int count[8] = { lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w }, own = 0;
    for (int i = 0; i < 8; i++)
        own += count[i];
    int last = warp_scan(own) - own;
    if (last >= left || last + own < left)
        return;
#pragma unroll
    for (int i = 7; i >= 0; i--)
        if (last < left) {
            left -= last;
            last = count[i];
            value--;
        }
    s->left = left;
    s->exact = last == left;
    s->prefix |= (uint32_t)value << (24 - 8 * d);
}

/* One more digit of the last key taken. */
__device__ __forceinline__ void narrow(struct selection *s, const uint32_t *key, int d)
{
    uint32_t prefix = s->prefix, mask = d ? 0xffffffffu << (32 - 8 * d) : 0;
#pragma unroll
    for (int i = 0; i < EACH; i++)
        if ((key[i] & mask) == prefix)
            atomicAdd(&s->histogram[d][key[i] >> (24 - 8 * d) & 255], 1);
    __syncthreads();
    if (WARP_ID == 0)
        find_digit(s, d);
    __syncthreads();
}

/* What the threads before this one have, in sum. */
__device__ __forceinline__ unsigned sum_before(struct selection *s, unsigned own)
{
    unsigned sum = (unsigned)warp_scan((int)own);
    if (LANE == WARP - 1)
        s->count[WARP_ID] = (int)sum;
    __syncthreads();
    return sum - own + __reduce_add_sync(ALL_LANES, LANE < WARP_ID ? (unsigned)s->count[LANE] : 0);
}

/* The last key taken, or something between it and the next lower one. */
__device__ __forceinline__ uint32_t least_key(struct selection *s, const uint32_t *key)
{
    for (int d = 0; d < DIGITS && !s->exact; d++)
        narrow(s, key, d);
    return s->prefix;
}

/* How many scores a row has: after each choice what all blocks took. */
__device__ __forceinline__ int n_listed(const struct picking *p, int i, int n_chosen)
{
    struct cu_row r = p->step.row[p->row0 + i];
    int n = n_visible(p, &r);
    for (; n_chosen > 0; n_chosen--)
        n = n / CHUNK * p->top_k + (n % CHUNK < p->top_k ? n % CHUNK : p->top_k);
    return n;
}

/* Where all of a row are taken, nobody knows their scores, and nobody looks at them. */
__device__ __forceinline__ void take_all(struct list from, struct list to, int first, int n,
                                         int top_k)
{
    for (int j = (int)threadIdx.x; j < top_k; j += (int)blockDim.x) {
        to.id[j] = j >= n ? -1 : from.id ? from.id[j] : first + j;
        if (to.score && j < n)
            to.score[j] = from.score[j];
    }
}

/* This thread's scores of n and their rows; lists have room for whole fours. */
__device__ __forceinline__ void load_own(struct list from, int first, int n, float *x, int *id)
{
    int at = EACH * (int)threadIdx.x;
    float4 score = { 0, 0, 0, 0 };
    int4 row = { first + at, first + at + 1, first + at + 2, first + at + 3 };
    if (at < n)
        score = *(const float4 *)(const void *)(from.score + at);
    if (at < n && from.id)
        row = *(const int4 *)(const void *)(from.id + at);
    x[0] = score.x, x[1] = score.y, x[2] = score.z, x[3] = score.w;
    id[0] = row.x, id[1] = row.y, id[2] = row.z, id[3] = row.w;
}

/* Grid: CHUNK scores, rows of the step. Keys of what is not there are zero, below all others. */
__global__ void __launch_bounds__(CHUNK / EACH)
    select_kernel(struct picking p, struct list from, struct list to, int n_chosen)
{
    SHARED(struct selection, s);
    int i = (int)blockIdx.y, t = (int)threadIdx.x, first = (int)blockIdx.x * CHUNK;
    int n = n_listed(&p, i, n_chosen) - first;
    for (int j = t; j < DIGITS * 256; j += (int)blockDim.x)
        (&s.histogram[0][0])[j] = 0;
    if (t == 0) {
        s.prefix = 0;
        s.left = p.top_k;
        s.exact = false;
    }
    __syncthreads();
    wait_for_last();
    if (n <= 0 && first)
        return;
    from.score += i * from.pitch + first;
    from.id = from.id ? from.id + i * from.pitch + first : NULL;
    to.id += i * to.pitch + blockIdx.x * (size_t)p.top_k;
    to.score = to.score ? to.score + i * to.pitch + blockIdx.x * (size_t)p.top_k : NULL;
    n = n < CHUNK ? n : CHUNK;
    if (n <= p.top_k) {
        take_all(from, to, first, n, p.top_k);
        return;
    }
    float x[EACH];
    int id[EACH];
    uint32_t key[EACH];
    load_own(from, first, n, x, id);
    for (int j = 0; j < EACH; j++)
        key[j] = EACH * t + j < n ? key_of(x[j]) : 0;
    uint32_t least = least_key(&s, key);
    unsigned own = 0; /* above the least, and 65536 times those equal to it */
    for (int j = 0; j < EACH; j++)
        own += key[j] > least ? 1 : key[j] == least ? 0x10000 : 0;
    unsigned before = sum_before(&s, own);
    int above = (int)(before & 0xffff), equal = (int)(before >> 16);
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        int place = above + (equal < s.left ? equal : s.left);
        if (key[j] > least || (key[j] == least && equal < s.left)) {
            to.id[place] = id[j];
            if (to.score)
                to.score[place] = x[j];
        }
        above += key[j] > least;
        equal += key[j] == least;
    }
}

/* ---- the op -------------------------------------------------------------------------------- */

static int most_visible(const struct rows *r, int l)
{
    return MAX(1, cuda_reach(r) / r->kv[0]->layer[l].ratio);
}

/* Of the list that is chosen from one of that pitch. */
static size_t next_pitch(size_t pitch, int top_k)
{
    return round_up((size_t)blocks_for(pitch, CHUNK) * (size_t)top_k, EACH);
}

/* A row's scores and lists. */
static size_t row_bytes(size_t pitch, int top_k)
{
    size_t n = pitch * sizeof(float);
    while (pitch > CHUNK) {
        pitch = next_pitch(pitch, top_k);
        n += pitch * (sizeof(float) + sizeof(int32_t));
    }
    return n;
}

/* From the scores to the picks, by way of lists that follow the scores in memory. */
static void choose(struct dev *d, const struct picking *p, struct list to, int n_row)
{
    struct list from = { p->score, NULL, p->pitch }, next;
    float *unused = p->score + (size_t)n_row * p->pitch;
    for (int n_chosen = 0; from.score; n_chosen++, from = next) {
        unsigned n_thread = blocks_for(MIN(from.pitch, CHUNK), EACH * WARP) * WARP;
        next = to;
        if (from.pitch > CHUNK) {
            next.pitch = next_pitch(from.pitch, p->top_k);
            next.score = unused;
            next.id = (int32_t *)(unused + (size_t)n_row * next.pitch);
            unused += 2 * (size_t)n_row * next.pitch;
        }
        LAUNCH_EARLY(d, select_kernel, dim3(blocks_for(from.pitch, CHUNK), (unsigned)n_row),
                     n_thread, 0, *p, from, next, n_chosen);
    }
}

void cuda_pick(struct dev *d, struct tensor *picked, const struct tensor *q,
               const struct tensor *weight, const struct indexer *ix, const struct rows *r, int l)
{
    size_t mark = arena_mark(&d->scratch), pitch = round_up((size_t)most_visible(r, l), EACH);
    if (pitch > CHUNK && ix->top_k > CHUNK / 2) {
        dev_fail(d, ERR_UNSUPPORTED, "the indexer picks %d rows, expected at most %d", ix->top_k,
                 CHUNK / 2);
        return;
    }
    size_t row = row_bytes(pitch, ix->top_k);
    int heads = (ix->n_head + WARP - 1) / WARP * WARP;
    size_t shared = (size_t)(heads + 1 + WARPS * AT_ONCE) * (size_t)ix->dim * sizeof(float);
    bool packed = cuda_scores_packed(r->kv[r->host[0].seq]->shape, ix);
    bool scores = pitch > (size_t)ix->top_k; /* else everything is taken */
    CHECK(packed || shared <= SHARED_BYTES);
    size_t bytes = MIN((size_t)r->n * row, MAX(SCORE_BYTES, FEW_MAX * row));
    float *score = (float *)dev_alloc(d, bytes);
    int at_once = (int)(bytes / row);
    const struct cu_step *s = cuda_runs(d) ? cuda_rows(d, r) : NULL;
    for (int i = 0; s && i < r->n; i += at_once) {
        int n = MIN(at_once, r->n - i);
        struct picking p = { mat_of(q), mat_of(weight), ix->n_head, ix->dim, ix->top_k, l, i,
                             ix->scale, score, pitch, *s };
        struct list to = { NULL, tensor_i32(picked, i), picked->pitch / sizeof(int32_t) };
        if (scores && packed)
            cuda_score_packed(d, &p, n, r->n <= FEW_MAX);
        else if (scores)
            LAUNCH_EARLY(d, score_kernel, dim3(blocks_for(pitch, ROWS), (unsigned)n), THREADS,
                         shared, p);
        choose(d, &p, to, n);
    }
    arena_rewind(&d->scratch, mark);
}
