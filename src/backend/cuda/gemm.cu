/* gemm.cu - packed weights times many rows of activations, both as bfloat16. A warp has 32 rows of
 * weights and all 128 columns of its block's activations. Weights as they lie in memory and
 * activations arrive by themselves, some turns of 64 elements ahead; a lane makes its operands of
 * the weights in registers, right where the tensor cores want them. Of two warps that share a
 * scheduler one does so before the turn's products, the other after them, for the next turn. */
#include "gated_impl.h"
#include "halves_impl.h"
#include "sixteen_impl.h"

#define COLS GROUP_TILE
#define DEPTH HALVES
#define ROWS 32         /* of a warp */
#define EACH 4          /* of them a lane has */
#define MAX_WARPS 8
#define GROUPS (COLS / 16)

__host__ __device__ __forceinline__ constexpr int block_bytes(int type)
{
    return type == DT_Q8_0 ? 34 : type == DT_MXFP4 ? 17 : type == DT_FP4 ? 16
         : type == DT_Q2_K ? 84 : type == DT_Q4_K ? 144 : 66;
}

/* Turns whose weights are copied together: of blocks of 256 all four. */
__host__ __device__ __forceinline__ constexpr int span_turns(int type)
{
    return act_block(type) == 256 ? 4 : 1;
}

__host__ __device__ __forceinline__ constexpr int span_bytes(int type)
{
    return block_bytes(type) * (act_block(type) == 256 ? 1 : DEPTH / UNIT);
}

/* Of a row's span, at most, from where 16 bytes begin to where they end. */
__host__ __device__ __forceinline__ constexpr int pieces_of(int type)
{
    return (span_bytes(type) + 15 + 15) / 16;
}

/* From row to row: rows lie in different banks. */
__host__ __device__ __forceinline__ constexpr int raw_pitch(int type)
{
    return 16 * (pieces_of(type) | 1);
}

struct outer {
    const uint8_t *x[COLS]; /* rows of activations, of results */
    float *out[COLS];
    float weight[COLS]; /* of gated ones */
};

/* What a block's threads share: the pointers, the codebook, `stages` turns of activations, and
 * weights of one turn more, of two spans where they last four turns. */
struct shared {
    struct outer *outer;
    struct book *book;
    struct half_row *x;
    uint8_t *raw;
};

__host__ __device__ __forceinline__ constexpr int spans_of(int type, int stages)
{
    return span_turns(type) == 1 ? stages + 1 : 2;
}

/* Where a span lies; stages are 2 or 4. */
template <int type> __device__ __forceinline__ int span_slot(int span, int stages)
{
    return stages == 2 ? span % spans_of(type, 2) : span % spans_of(type, 4);
}

static size_t shared_bytes(int type, int rows, int stages)
{
    return sizeof(struct outer) + (type == DT_IQ2_XXS ? sizeof(struct book) : 0) +
           (size_t)stages * COLS * sizeof(struct half_row) +
           (size_t)(spans_of(type, stages) * rows * raw_pitch(type));
}

template <int type>
__device__ __forceinline__ struct shared shared_at(struct outer *first, int stages)
{
    struct shared s;
    s.outer = first;
    s.book = (struct book *)(first + 1);
    s.x = (struct half_row *)(s.book + (type == DT_IQ2_XXS ? 1 : 0));
    s.raw = (uint8_t *)(s.x + stages * COLS);
    return s;
}

/* ---- copies --------------------------------------------------------------------------------- */

struct block {
    int stages, k, n; /* activation rows */
    int n_row;
    const uint8_t *w, *up; /* the first row */
    size_t pitch, up_pitch;
};

/* Of a block's places for rows of weights: gate and up take turns by sixteens, so that a lane has
 * sums of both for the same row. */
template <bool gated> __device__ __forceinline__ int row_at(int place)
{
    return gated ? place / ROWS * (ROWS / 2) + place % (ROWS / 2) : place;
}

template <bool gated> __device__ __forceinline__ bool is_up(int place)
{
    return gated && place % ROWS >= ROWS / 2;
}

/* What lies behind a row's end is zero. */
__device__ __forceinline__ void copy_x(const struct shared *s, const struct block *b, int turn)
{
    struct half_row *to = s->x + (turn & (b->stages - 1)) * COLS;
    int eight = (int)threadIdx.x % EIGHTS, at = turn * DEPTH + eight * 8;
    bool there = at < b->k;
#pragma unroll 4
    for (int i = (int)threadIdx.x / EIGHTS; i < b->n; i += (int)blockDim.x / EIGHTS)
        copy_16_or_zeros(half_place(to, i, eight), s->outer->x[i] + (there ? 2 * at : 0), there);
}

/* Neighbouring lanes copy neighbouring pieces. */
template <int type, bool gated>
__device__ __forceinline__ void copy_w(const struct shared *s, const struct block *b, int turn)
{
    const int lanes = pieces_of(type) > 8 ? 16 : 8, bytes = span_bytes(type);
    int span = turn / span_turns(type), from = span * bytes, rows = (int)blockDim.x;
    int all = b->k / act_block(type) * block_bytes(type), n = min(all - from, bytes);
    int piece = (int)threadIdx.x % lanes * 16, r = (int)threadIdx.x / lanes;
    uint8_t *to = s->raw + span_slot<type>(span, b->stages) * rows * raw_pitch(type) + piece;
#pragma unroll 4
    for (int i = 0; i < lanes; i++, r += rows / lanes) {
        bool up = is_up<gated>(r);
        const uint8_t *at = (up ? b->up : b->w) + from + piece +
                            (size_t)row_at<gated>(r) * (up ? b->up_pitch : b->pitch);
        int before = (int)((uintptr_t)at % 16);
        if (row_at<gated>(r) < b->n_row && piece < n + before)
            copy_16(to + r * raw_pitch(type), at - before);
    }
}

/* A turn's activations, and the next one's weights: some warps unpack those before its end. */
template <int type, bool gated>
__device__ __forceinline__ void copy_turn(const struct shared *s, const struct block *b, int turn)
{
    if (turn * DEPTH < b->k)
        copy_x(s, b, turn);
    if ((turn + 1) * DEPTH < b->k && (turn + 1) % span_turns(type) == 0)
        copy_w<type, gated>(s, b, turn + 1);
    copy_commit();
}

/* ---- a turn --------------------------------------------------------------------------------- */

/* Of a lane's rows, l / 4 + 8 i of the warp's: where the first lies, as far as it matters to
 * sixteens, and where scales are. */
struct mine {
    uint32_t before[EACH];
    const uint8_t *scale[EACH];
};

template <int type>
__device__ __forceinline__ void unpack(struct halves *a, const struct shared *s,
                                       const struct block *b, const struct mine *m, int turn)
{
    int span = turn / span_turns(type), warp = (int)threadIdx.x / WARP;
    int row = span_slot<type>(span, b->stages) * (int)blockDim.x + warp * ROWS + LANE / 4;
    int u = turn % span_turns(type) * 2 + LANE % 4 / 2, h = LANE % 2;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const uint8_t *p = s->raw + (row + 8 * i) * raw_pitch(type) +
                           (m->before[i] + (uint32_t)(span * span_bytes(type))) % 16;
        switch (type) {
        case DT_Q8_0: sixteen_q8_0(p, u, h, a[i].two); break;
        case DT_MXFP4: sixteen_mxfp4(p, u, h, a[i].two); break;
        case DT_FP4:
            sixteen_fp4(p, m->scale[i][min(turn * 2 + u, b->k / UNIT - 1)], u, h, a[i].two);
            break;
        case DT_Q2_K: sixteen_q2_k(p, u, h, a[i].two); break;
        case DT_Q4_K: sixteen_q4_k(p, u, h, a[i].two); break;
        default: sixteen_iq2_xxs(p, s->book, u, h, a[i].two);
        }
    }
    if (act_block(type) == UNIT && (turn * 2 + u) * UNIT >= b->k) /* half a turn */
        for (int i = 0; i < EACH * EIGHTS; i++)
            a[i / EIGHTS].two[i % EIGHTS] = 0;
}

/* Sixteen columns at a time, the next ones on their way. */
__device__ __forceinline__ void multiply(float (*sum)[2][2][4], const struct halves *a,
                                         const struct half_row *x, int n)
{
    struct halves b[2][2];
    half_load(&b[0][0], x, 0);
    half_load(&b[0][1], x, 8);
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        if (g * 16 >= n)
            break;
        if (g + 1 < GROUPS) {
            half_load(&b[(g + 1) % 2][0], x, g * 16 + 16);
            half_load(&b[(g + 1) % 2][1], x, g * 16 + 24);
        }
        half_multiply_16<false, 2>(sum[g], a, b[g % 2]);
    }
}

/* Until a turn's copies are there, which is when the last stages - 2 groups may be under way. */
__device__ __forceinline__ void wait_for_turn(int stages)
{
    if (stages == 2)
        copy_wait(0);
    else
        copy_wait(2);
    __syncthreads();
}

/* ---- kernel --------------------------------------------------------------------------------- */

__device__ __forceinline__ void store(const struct outer *o, float (*sum)[2][2][4], int row,
                                      int n_row, int n)
{
#pragma unroll
    for (int g = 0; g < GROUPS; g++)
#pragma unroll
        for (int c = 0; c < 16; c++) {
            int i = g * 16 + c / 4 % 2 * 8 + LANE % 4 * 2 + c % 2;
            int r = row + c / 8 * 16 + c % 4 / 2 * 8 + LANE / 4;
            if (i < n && r < n_row)
                o->out[i][r] = sum[g][c / 8][c / 4 % 2][c % 4];
        }
}

/* A pair of lanes has two columns of two neighbouring rows: each writes one column. */
__device__ __forceinline__ void store_gated(const struct outer *o, float (*sum)[2][2][4], int row,
                                            int n_row, int n, float clamp)
{
    int odd = LANE / 4 % 2;
#pragma unroll
    for (int g = 0; g < GROUPS; g++)
#pragma unroll
        for (int c = 0; c < 4; c++) {
            int i = g * 16 + c / 2 * 8 + LANE % 4 * 2, r = row + c % 2 * 8 + LANE / 4 - odd;
            const float *gate = sum[g][0][c / 2] + c % 2 * 2, *up = sum[g][1][c / 2] + c % 2 * 2;
            float a = silu_times(gate[0], up[0], clamp) * o->weight[i];
            float b = silu_times(gate[1], up[1], clamp) * o->weight[i + 1];
            float other = __shfl_xor_sync(ALL_LANES, odd ? a : b, 4);
            uint32_t two;
            BF16_PAIR(two, odd ? other : a, odd ? b : other);
            if (i + odd < n && r < n_row)
                *(uint32_t *)((uint16_t *)o->out[i + odd] + r) = two;
        }
}

template <bool gated>
__device__ __forceinline__ void fill_outer(struct outer *o, const struct cu_product *p,
                                           const struct cu_job *job, int i0, int n,
                                           const struct cu_gating *g)
{
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) {
        int place = job->from + i0 + i;
        o->x[i] = job_in(p, job, i0 + i);
        if (gated) {
            o->out[i] = (float *)(void *)((uint8_t *)p->out + (size_t)place * many_bytes(p->rows));
            o->weight[i] = pair_weight(g, p->groups->pair[place]);
        } else {
            o->out[i] = job_out(p, job, i0 + i);
        }
    }
}

/* Grid: tiles of weights, tiles of activations, jobs; experts are told apart by the tiles. */
template <int type, bool gated>
__global__ void __launch_bounds__(MAX_WARPS *WARP)
    many_kernel(struct cu_product p, struct cu_product up, struct cu_gating g, int stages)
{
    SHARED_DYNAMIC(struct outer, outer);
    struct shared s = shared_at<type>(outer, stages);
    struct cu_job job, up_job;
    struct halves a[EACH];
    float sum[GROUPS][2][2][4] = {};
    int warp = (int)threadIdx.x / WARP, rows = (int)blockDim.x / (gated ? 2 : 1), i0;
    int row0 = (int)blockIdx.x * rows;
    if (!tile_at(&p, (int)blockIdx.y, &job, &i0) ||
        (gated && !tile_at(&up, (int)blockIdx.y, &up_job, &i0)))
        return;
    struct block b = { stages, p.k, min(job.n - i0, COLS), min(p.rows - row0, rows),
                       job_row(&p, &job, row0).row,
                       gated ? job_row(&up, &up_job, row0).row : NULL, job.w.pitch,
                       gated ? up_job.w.pitch : 0 };
    fill_outer<gated>(outer, &p, &job, i0, b.n, &g);
    if (type == DT_IQ2_XXS)
        book_write(s.book, p.tables);
    struct mine m;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int place = warp * ROWS + LANE / 4 + 8 * i;
        int r = row0 + min(row_at<gated>(place), b.n_row - 1);
        struct cu_src src = is_up<gated>(place) ? job_row(&up, &up_job, r) : job_row(&p, &job, r);
        m.before[i] = (uint32_t)(uintptr_t)src.row;
        m.scale[i] = src.scale;
    }
    __syncthreads();
    int turns = (p.k + DEPTH - 1) / DEPTH;
    bool late = warp / 4 % 2;
    copy_w<type, gated>(&s, &b, 0);
    for (int turn = 0; turn < stages - 1; turn++)
        copy_turn<type, gated>(&s, &b, turn);
    for (int turn = 0; turn < turns; turn++) {
        wait_for_turn(stages);
        copy_turn<type, gated>(&s, &b, turn + stages - 1);
        if (!late || turn == 0)
            unpack<type>(a, &s, &b, &m, turn);
        multiply(sum, a, s.x + (turn & (stages - 1)) * COLS, b.n);
        if (late && turn + 1 < turns)
            unpack<type>(a, &s, &b, &m, turn + 1);
    }
    if (gated)
        store_gated(outer, sum, row0 + warp * ROWS / 2, p.rows, b.n, g.clamp);
    else
        store(outer, sum, row0 + warp * ROWS, p.rows, b.n);
}

/* Half as many warps where memory is short, where a wide block for each multiprocessor would leave
 * some without, and for experts: their blocks begin with a chain of look-ups, and end soon, which
 * hides behind a second block of the multiprocessor. */
template <int type, bool gated>
static void many(struct dev *d, const struct cu_product *p, int n_job, const struct cu_product *up,
                 const struct cu_gating *g)
{
    size_t room = cuda_of(d)->shared_max;
    unsigned tiles = tiles_of(p) * (unsigned)n_job, warps = MAX_WARPS;
    if (p->groups ||
        blocks_for((size_t)p->rows, warps * ROWS) * tiles < (unsigned)cuda_of(d)->n_multi ||
        shared_bytes(type, (int)warps * ROWS, 2) > room)
        warps /= 2;
    int places = (int)warps * ROWS, stages = shared_bytes(type, places, 4) > room ? 2 : 4;
    size_t bytes = shared_bytes(type, places, stages);
    dim3 grid(blocks_for((size_t)p->rows, (size_t)(gated ? places / 2 : places)), tiles_of(p),
              (unsigned)n_job);
    (void)cudaFuncSetAttribute(many_kernel<type, gated>,
                               cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    LAUNCH(d, (many_kernel<type, gated>), grid, (unsigned)places, bytes, *p, *up, *g, stages);
}

template <bool gated>
static void many_of(struct dev *d, const struct cu_product *p, int n_job,
                    const struct cu_product *up, const struct cu_gating *g)
{
    switch (p->type) {
    case DT_Q8_0: many<DT_Q8_0, gated>(d, p, n_job, up, g); return;
    case DT_MXFP4: many<DT_MXFP4, gated>(d, p, n_job, up, g); return;
    case DT_FP4: many<DT_FP4, gated>(d, p, n_job, up, g); return;
    case DT_Q2_K: many<DT_Q2_K, gated>(d, p, n_job, up, g); return;
    case DT_Q4_K: many<DT_Q4_K, gated>(d, p, n_job, up, g); return;
    default: many<DT_IQ2_XXS, gated>(d, p, n_job, up, g);
    }
}

void cuda_product_many(struct dev *d, const struct cu_product *p, int n_job)
{
    struct cu_gating none = {};
    many_of<false>(d, p, n_job, p, &none);
}

void cuda_gated_many(struct dev *d, const struct cu_product *gate, const struct cu_product *up,
                     const struct cu_gating *g)
{
    many_of<true>(d, gate, 1, up, g);
}
