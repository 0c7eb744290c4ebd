/* gemm_f16.cu - products of many rows of activations as they are with weights in float16, which
 * tensor cores take as they lie in memory. A row of activations is packed once, for all products of
 * one input: scaled by a power of two, so that its largest is next to float16's, and split into two
 * numbers in float16 of which the sum has 22 bits; 2^-39 of the row's largest is lost. */
#include "halves_impl.h"
#include "product_impl.h"

#define TILE 128            /* rows of weights */
#define CHAIN 4             /* turns: tensor cores cut sums off, so theirs are short */
#define PACK_THREADS 256
#define HIGHEST (127 + 14)  /* exponent of a scaled row's largest, as in float32 */
#define MAX_LIST 8

/* A turn of HALVES elements; high parts of activations, low ones. */
template <int cols> struct turn {
    struct half_row w[TILE], x[2][cols];
};

struct f16_product {
    const uint8_t *w;
    size_t w_pitch; /* bytes */
    float *out;
    size_t out_pitch; /* floats */
    int rows, n_tile;
};

struct f16_list {
    int n, k, n_x;    /* products; elements and number of activation rows */
    const uint8_t *x; /* [n_x][2][k] in float16, high parts first */
    const float *scale; /* [n_x] */
    struct f16_product p[MAX_LIST];
};

/* ---- activations ---------------------------------------------------------------------------- */

__device__ __forceinline__ float4 four_of(const float *x, bool aligned)
{
    return aligned ? *(const float4 *)x : float4 { x[0], x[1], x[2], x[3] };
}

__device__ __forceinline__ uint32_t size_of(float x)
{
    uint32_t bits = __float_as_uint(x) & 0x7fffffff;
    return bits < 0x7f800000 ? bits : 0;
}

/* a and b as sums of two; of what is no number the second is zero. */
__device__ __forceinline__ void f16_split(float a, float b, uint32_t *high, uint32_t *low)
{
    uint32_t h;
    F16_PAIR(h, a, b);
    float a_low = a - f16_value(h & 0xffff), b_low = b - f16_value(h >> 16);
    *high = h;
    F16_PAIR(*low, a_low - a_low == 0 ? a_low : 0, b_low - b_low == 0 ? b_low : 0);
}

/* The largest size of the block's. */
__device__ __forceinline__ uint32_t block_top(uint32_t x, struct cu_sums *shared)
{
    float top = warp_max(__uint_as_float(x));
    if (LANE == 0)
        shared->part[WARP_ID] = top;
    __syncthreads();
    for (int i = 0; i < N_WARP; i++)
        top = fmaxf(top, shared->part[i]);
    return __float_as_uint(top);
}

/* Grid: rows. */
__global__ void __launch_bounds__(PACK_THREADS) pack_f16_kernel(uint8_t *to, float *scale,
                                                                const uint8_t *from, size_t pitch,
                                                                int k)
{
    SHARED(struct cu_sums, tops);
    const float *x = (const float *)(from + blockIdx.x * pitch);
    bool aligned = (uintptr_t)x % sizeof(float4) == 0;
    uint2 *high = (uint2 *)(to + blockIdx.x * (size_t)k * 4), *low = high + k / 4;
    uint32_t top = 0;
#pragma unroll 4
    for (int e = (int)threadIdx.x * 4; e < k; e += PACK_THREADS * 4) {
        float4 v = four_of(x + e, aligned);
        top = max(top, max(max(size_of(v.x), size_of(v.y)), max(size_of(v.z), size_of(v.w))));
    }
    top = block_top(top, &tops) >> 23;
    uint32_t up = top < HIGHEST - 126 ? 253 : 127 + HIGHEST - top;
    float by = __uint_as_float(up << 23);
    if (threadIdx.x == 0)
        scale[blockIdx.x] = __uint_as_float((254 - up) << 23);
#pragma unroll 4
    for (int e = (int)threadIdx.x * 4; e < k; e += PACK_THREADS * 4) {
        float4 v = four_of(x + e, aligned);
        uint2 h, l;
        f16_split(v.x * by, v.y * by, &h.x, &l.x);
        f16_split(v.z * by, v.w * by, &h.y, &l.y);
        high[e / 4] = h;
        low[e / 4] = l;
    }
}

/* ---- products ------------------------------------------------------------------------------- */

/* A turn of `cols` rows of activations and TILE of weights; rows behind the last are the last once
 * more, and nobody stores what comes of them. */
template <int cols>
__device__ __forceinline__ void fetch(struct turn<cols> *to, const struct f16_list *l,
                                      const struct f16_product *p, int row0, int i0, int k)
{
    const int step = 2 * cols / EIGHTS; /* there are 2 * cols threads */
    int eight = (int)threadIdx.x % EIGHTS, r0 = (int)threadIdx.x / EIGHTS;
    const uint8_t *w = p->w + (size_t)k * 2 + eight * 16, *x = l->x + (size_t)k * 2 + eight * 16;
#pragma unroll
    for (int r = r0; r < TILE; r += step)
        copy_16(half_place(to->w, r, eight), w + (size_t)min(row0 + r, p->rows - 1) * p->w_pitch);
#pragma unroll
    for (int i = r0; i < cols; i += step) {
        const uint8_t *high = x + (size_t)min(i0 + i, l->n_x - 1) * (size_t)l->k * 4;
        copy_16(half_place(to->x[0], i, eight), high);
        copy_16(half_place(to->x[1], i, eight), high + (size_t)l->k * 2);
    }
    copy_commit();
}

/* A warp's part: 64 rows of weights times twice 16 of activations. Low parts first. */
template <int cols>
__device__ __forceinline__ void multiply(float (*sum)[4][2][4], const struct turn<cols> *t, int row,
                                         int col)
{
    struct halves a[8], x[2];
#pragma unroll
    for (int i = 0; i < 8; i++)
        half_load(&a[i], t->w, row + i * 8);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        half_load(&x[0], t->x[1 - i % 2], col + i / 2 * 16);
        half_load(&x[1], t->x[1 - i % 2], col + i / 2 * 16 + 8);
        half_multiply_16<true, 4>(sum[i / 2], a, x);
    }
}

/* sum += part, part := 0. */
__device__ __forceinline__ void end_chain(float (*sum)[4][2][4], float (*part)[4][2][4])
{
#pragma unroll
    for (int i = 0; i < 64; i++) {
        sum[i / 32][i / 8 % 4][i / 4 % 2][i % 4] += part[i / 32][i / 8 % 4][i / 4 % 2][i % 4];
        part[i / 32][i / 8 % 4][i / 4 % 2][i % 4] = 0;
    }
}

__device__ __forceinline__ void store(float (*sum)[4][2][4], const struct f16_list *l,
                                      const struct f16_product *p, int row, int col)
{
#pragma unroll
    for (int j = 0; j < 8; j++) {
        int i = col + j / 2 * 8 + LANE % 4 * 2 + j % 2;
        if (i >= l->n_x)
            continue;
        float scale = l->scale[i], *out = p->out + (size_t)i * p->out_pitch;
#pragma unroll
        for (int m = 0; m < 8; m++) {
            int r = row + m * 8 + LANE / 4;
            if (r < p->rows)
                out[r] = sum[j / 4][m / 2][j / 2 % 2][m % 2 * 2 + j % 2] * scale;
        }
    }
}

/* Grid: tiles of weights of all products, `cols` rows of activations. The order of sums is the same
 * for any `cols`. */
template <int cols>
__global__ void __launch_bounds__(2 * cols, 1) many_f16_kernel(const __grid_constant__ f16_list l)
{
    SHARED_DYNAMIC(struct turn<cols>, t);
    int tile = (int)blockIdx.x, j = 0, n = l.k / HALVES;
    while (tile >= l.p[j].n_tile)
        tile -= l.p[j++].n_tile;
    const struct f16_product *p = &l.p[j];
    int row0 = tile * TILE, i0 = (int)blockIdx.y * cols;
    int row = WARP_ID % 2 * 64, col = WARP_ID / 2 * 32;
    float sum[2][4][2][4] = {}, part[2][4][2][4] = {};
    fetch(t, &l, p, row0, i0, 0);
    for (int i = 0; i < n; i++) {
        copy_wait(0);
        __syncthreads();
        if (i + 1 < n)
            fetch(t + (i + 1) % 2, &l, p, row0, i0, (i + 1) * HALVES);
        multiply(part, t + i % 2, row, col);
        if (i % CHAIN == CHAIN - 1)
            end_chain(sum, part);
    }
    end_chain(sum, part);
    store(sum, &l, p, row0 + row, i0 + col);
}

template <int cols> static void many(struct dev *d, const struct f16_list *l, unsigned n_tile)
{
    size_t shared = 2 * sizeof(struct turn<cols>);
    (void)cudaFuncSetAttribute(many_f16_kernel<cols>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               (int)shared);
    dim3 grid(n_tile, blocks_for((size_t)l->n_x, cols));
    LAUNCH(d, many_f16_kernel<cols>, grid, 2 * cols, shared, *l);
}

static void run_list(struct dev *d, struct f16_list *l)
{
    unsigned n_tile = 0;
    for (int j = 0; j < l->n; j++)
        n_tile += (unsigned)(l->p[j].n_tile = (int)blocks_for((size_t)l->p[j].rows, TILE));
    unsigned n_block = n_tile * blocks_for((size_t)l->n_x, 128);
    if (l->n_x > 64 && n_block >= (unsigned)cuda_of(d)->n_multi)
        many<128>(d, l, n_tile);
    else if (l->n)
        many<64>(d, l, n_tile);
    l->n = 0;
}

bool cuda_takes_f16(const struct cu_product *p)
{
    return p->type == DT_F16 && p->k % HALVES == 0;
}

void cuda_products_f16(struct dev *d, const struct cu_product *p, int n)
{
    struct f16_list l;
    memset(&l, 0, sizeof l);
    size_t mark = arena_mark(&d->scratch), k = (size_t)p->k, rows = (size_t)p->n;
    uint8_t *x = (uint8_t *)dev_alloc(d, rows * k * 4);
    float *scale = (float *)dev_alloc(d, rows * sizeof(float));
    l.k = p->k;
    l.n_x = p->n;
    l.x = x;
    l.scale = scale;
    if (cuda_runs(d))
        LAUNCH(d, pack_f16_kernel, (unsigned)p->n, PACK_THREADS, 0, x, scale, p->x, p->x_pitch,
               p->k);
    for (int i = 0; cuda_runs(d) && i < n; i++) {
        if (((uintptr_t)p[i].w.data | p[i].w.pitch) % 16) {
            cuda_product_many_exact(d, &p[i], 1);
            continue;
        }
        l.p[l.n++] = { p[i].w.data, p[i].w.pitch, p[i].out, p[i].out_pitch, p[i].rows, 0 };
        if (l.n == MAX_LIST)
            run_list(d, &l);
    }
    if (cuda_runs(d))
        run_list(d, &l);
    arena_rewind(&d->scratch, mark);
}
