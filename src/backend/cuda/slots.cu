/* slots.cu - far experts that few rows used last stay in the device's memory.
 *
 * Between a layer's route and its experts one launch brings those of them that lie in the host's
 * memory and not yet in a slot: the slots used longest ago go first, never one of this step's. All
 * blocks read the same state, decide alike and copy a part each, in whole lines, as fast as the bus
 * goes; the last one to arrive writes the new state. So steps stay recorded and the host knows
 * nothing of it. What finds no slot is read where it lies. */
#include "device_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

#define THREADS MAX_SLOT
#define PAIRS 64
#define CHUNK 16
#define LOADS 4 /* of a thread, on their way at a time */

struct bringing {
    struct far_slots s;
    struct expert *there;
    const int32_t *route;
    size_t route_pitch;
    int n_pair, n_used;
};

/* What all blocks find alike. */
struct claim {
    int id[PAIRS]; /* of pairs */
    bool is_missing[PAIRS];
    int missing[PAIRS]; /* experts that lie far and in no slot */
    int slot[PAIRS];    /* theirs */
    int n_missing, n_brought;
    uint64_t key[MAX_SLOT]; /* of slots by age; of those in use and of none ~0 */
};

__device__ __forceinline__ void find_missing(const struct bringing *b, struct claim *c)
{
    int t = (int)threadIdx.x, id = -1, at = 0;
    if (t < b->n_pair)
        c->id[t] = id = b->route[(size_t)(t / b->n_used) * b->route_pitch + t % b->n_used];
    __syncthreads();
    for (int i = 0; i < b->n_pair && i < t; i++)
        id = c->id[i] == id ? -1 : id;
    bool is_missing = id >= 0 && b->s.state->place[id] == PLACE_FAR;
    if (t < b->n_pair)
        c->is_missing[t] = is_missing;
    int n = __syncthreads_count(is_missing);
    for (int i = 0; i < b->n_pair && i < t; i++)
        at += c->is_missing[i];
    if (is_missing)
        c->missing[at] = id;
    if (t == 0) {
        c->n_missing = n;
        c->n_brought = 0;
    }
    __syncthreads();
}

__device__ __forceinline__ bool in_use(const struct bringing *b, const struct claim *c, int slot)
{
    int owner = b->s.state->owner[slot];
    bool used = false;
    for (int i = 0; i < b->n_pair; i++)
        used |= c->id[i] == owner;
    return used;
}

/* The missing experts' slots: oldest first. */
__device__ __forceinline__ void find_slots(const struct bringing *b, struct claim *c)
{
    int t = (int)threadIdx.x, older = 0;
    bool free = t < b->s.n && !in_use(b, c, t);
    uint64_t key = free ? (uint64_t)(uint32_t)b->s.state->used[t] << 32 | (uint32_t)t : ~0ull;
    c->key[t] = key;
    int n_free = __syncthreads_count(free);
    for (int i = 0; i < b->s.n; i++)
        older += c->key[i] < key;
    if (free && older < c->n_missing)
        c->slot[older] = t;
    if (t == 0)
        c->n_brought = min(c->n_missing, n_free);
    __syncthreads();
}

__device__ __forceinline__ void copy_expert(const struct bringing *b, int id, int slot)
{
    const uint4 *from = (const uint4 *)b->s.home[id].gate.data;
    uint4 *to = (uint4 *)(void *)(b->s.mem + (size_t)slot * b->s.each);
    size_t n = b->s.each / CHUNK, step = (size_t)gridDim.x * THREADS;
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += LOADS * step) {
        uint4 x[LOADS];
#pragma unroll
        for (size_t j = 0; j < LOADS; j++)
            if (i + j * step < n)
                x[j] = from[i + j * step];
#pragma unroll
        for (size_t j = 0; j < LOADS; j++)
            if (i + j * step < n)
                to[i + j * step] = x[j];
    }
}

__device__ __forceinline__ void move_tensor(struct tensor *t, ptrdiff_t by)
{
    t->data = (uint8_t *)t->data + by;
    t->scale = t->scale ? t->scale + by : NULL;
}

__device__ __forceinline__ struct expert moved(const struct bringing *b, int id, int slot)
{
    struct expert e = b->s.home[id];
    ptrdiff_t by = b->s.mem + (size_t)slot * b->s.each - (uint8_t *)e.gate.data;
    move_tensor(&e.gate, by);
    move_tensor(&e.up, by);
    move_tensor(&e.down, by);
    return e;
}

/* One block does it; t: a slot, or one of the brought. */
__device__ __forceinline__ void note_use(const struct bringing *b, const struct claim *c)
{
    struct far_state *s = b->s.state;
    int t = (int)threadIdx.x, tick = s->tick;
    if (t < b->s.n && in_use(b, c, t))
        s->used[t] = tick + 1;
    __syncthreads();
    if (t < c->n_brought) {
        int id = c->missing[t], slot = c->slot[t], old = s->owner[slot];
        if (old >= 0) {
            s->place[old] = PLACE_FAR;
            b->there[old] = b->s.home[old];
        }
        s->place[id] = slot;
        s->owner[slot] = id;
        s->used[slot] = tick + 1;
        b->there[id] = moved(b, id, slot);
    }
    if (t == 0) {
        s->tick = tick + 1;
        s->fetched += (uint64_t)c->n_missing;
    }
}

__global__ void __launch_bounds__(THREADS) bring_kernel(const __grid_constant__ struct bringing b)
{
    wait_for_last();
    SHARED(struct claim, c);
    SHARED(bool, is_last);
    find_missing(&b, &c);
    if (c.n_missing == 0) { /* what the others look at stays */
        if (blockIdx.x == 0)
            note_use(&b, &c);
        return;
    }
    find_slots(&b, &c);
    for (int i = 0; i < c.n_brought; i++)
        copy_expert(&b, c.missing[i], c.slot[i]);
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        is_last = atomicInc(&b.s.state->arrived, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (is_last)
        note_use(&b, &c);
}

/* ---- memory --------------------------------------------------------------------------------- */

struct cu_slots {
    struct cu_slots *next;
    void *mem, *home, *state;
};

void cuda_free_slots(struct cu_slots *s)
{
    while (s) {
        struct cu_slots *next = s->next;
        cudaFree(s->mem);
        cudaFree(s->home);
        cudaFree(s->state);
        free(s);
        s = next;
    }
}

/* tidy: heap - a layer's, once, at open */
int cuda_take_slots(struct dev *d, struct expert_set *set, int n, size_t each, struct err *e)
{
    struct cu_slots *s = (struct cu_slots *)calloc(1, sizeof *s);
    struct far_state state = {};
    size_t bytes = (size_t)set->n * sizeof *set->e;
    if (!s)
        return err_set(e, ERR_NO_MEMORY, "device %s: out of memory for slots", d->name);
    s->next = cuda_of(d)->slots;
    cuda_of(d)->slots = s;
    TRY(cuda_memory_new(d, &s->mem, (size_t)n * each, e));
    TRY(cuda_memory_new(d, &s->home, bytes, e));
    TRY(cuda_memory_new(d, &s->state, sizeof state, e));
    for (int i = 0; i < MAX_SLOT; i++)
        state.owner[i] = -1;
    for (int i = 0; i < set->n; i++) {
        size_t at = (size_t)((uintptr_t)set->e[i].gate.data - (uintptr_t)set->far);
        CHECK(set->e[i].id == i);
        state.place[i] = at < set->far_bytes ? PLACE_FAR : PLACE_NEAR;
    }
    TRY(dev_copy_now(d, s->home, set->e, bytes, e));
    TRY(dev_copy_now(d, s->state, &state, sizeof state, e));
    set->slots = { n, (uint8_t *)s->mem, each, (const struct expert *)s->home,
                   (struct far_state *)s->state };
    return 0;
}

void cuda_bring(struct dev *d, const struct expert_set *set, const struct route *route)
{
    struct bringing b = { set->slots, (struct expert *)(uintptr_t)set->there,
                          (const int32_t *)route->id.data, route->id.pitch / sizeof(int32_t),
                          route->id.rows * route->id.cols, route->id.cols };
    if (b.s.n == 0 || b.n_pair > PAIRS)
        return;
    CHECK(set->n <= MAX_PLACE && b.s.n <= MAX_SLOT && b.s.each % CHUNK == 0);
    LAUNCH_EARLY(d, bring_kernel, dim3((unsigned)cuda_of(d)->n_multi), THREADS, 0, b);
    cuda_of(d)->routed = cuda_of(d)->n_launch; /* it says where the route's experts are */
}
