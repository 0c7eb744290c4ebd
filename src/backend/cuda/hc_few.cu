/* hc_few.cu - hyper-connections of up to FEW_MAX rows, in two launches. A block has PIECE elements
 * of every stream: the streams take what a sublayer gave, and the block projects what they are
 * then, and says how much of each other's direction they have. Of these sums blocks for 256
 * elements of a row make its gates, mix and norm: what is mixed by p has the square p G p, where G
 * are the streams' products with each other, so that no block has to see all of it. The products
 * are in double: streams may cancel. */
#include "gates_impl.h"

#define THREADS 256
#define WARPS (THREADS / WARP)
#define PIECE (2 * WARP)
#define TURNS 3 /* numbers that a warp projects at once */
#define AHEAD 8 /* of a row's experts, that are on their way together */
#define SUMS 5  /* of a row, that a warp sums at once */
#define MAX_PRODUCT (MAX_STREAM * (MAX_STREAM + 1) / 2)

/* sum [rows][m numbers, products of streams][n]: what n blocks found. */
struct hc_pieces {
    double *sum;
    int n, n_sum;
};

__host__ __device__ __forceinline__ int n_product(const struct cu_hc *hc)
{
    return hc->n_stream * (hc->n_stream + 1) / 2;
}

/* Four streams are what models have: that many are known when the code is compiled. */
template <int most> __device__ __forceinline__ void know_streams(struct cu_hc *hc)
{
    hc->n_stream = most < MAX_STREAM ? most : hc->n_stream;
}

/* ---- streams ------------------------------------------------------------------------------- */

/* A block's elements of the streams; each row's experts in ascending order. */
template <int most> struct few_streams {
    __align__(16) float v[FEW_MAX][most][PIECE];
    int slot[FEW_MAX][MAX_USED];
};

template <int most>
__device__ __forceinline__ void order_experts(struct few_streams<most> *t,
                                              const struct hc_given *given, int n_row)
{
    for (int i = (int)threadIdx.x; i < n_row * given->n_used; i += THREADS) {
        int row = i / given->n_used, slot = i % given->n_used;
        const int32_t *id = given->id + row * given->id_pitch;
        t->slot[row][place_by_expert(id, given->n_used, slot)] = slot;
    }
}

/* Element e of what a row was given. */
__device__ __forceinline__ float given_at(const struct hc_given *given, const int *slot, int row,
                                          int e)
{
    float y = given->y.x[row * given->y.pitch + e], sum = 0;
    const float *part = given->part.x + (size_t)row * given->n_used * given->part.pitch + e;
    for (int j0 = 0; j0 < given->n_used; j0 += AHEAD) {
        float x[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; j++)
            x[j] = j0 + j < given->n_used ? part[slot[j0 + j] * given->part.pitch] : 0;
#pragma unroll
        for (int j = 0; j < AHEAD; j++)
            sum = j0 + j < given->n_used ? sum + x[j] : sum;
    }
    return given->n_used ? sum + y : y;
}

/* The block's element i of all rows, which takes what it was given. */
template <int most>
__device__ __forceinline__ void take_element(float *v, const struct few_streams<most> *t,
                                             const struct cu_mat *streams,
                                             const struct hc_given *given, const struct cu_hc *hc,
                                             int i)
{
    int row = i / PIECE, e = (int)blockIdx.x * PIECE + i % PIECE;
    int n = e < hc->n_embd ? hc->n_stream : 0;
    float *at = streams->x + row * streams->pitch + e;
#pragma unroll
    for (int k = 0; k < most; k++)
        v[k] = k < n ? at[(size_t)k * hc->n_embd] : 0;
    if (!given->y.x || n == 0)
        return;
    spread<most>(v, given_at(given, t->slot[row], row, e),
                 given->gates.x + row * given->gates.pitch, n);
#pragma unroll
    for (int k = 0; k < most; k++)
        if (k < n)
            at[(size_t)k * hc->n_embd] = v[k];
}

/* A thread for each element of a row. */
template <int most>
__device__ __forceinline__ void take_streams(struct few_streams<most> *t,
                                             const struct cu_mat *streams,
                                             const struct hc_given *given, const struct cu_hc *hc,
                                             int n_row)
{
    for (int i = (int)threadIdx.x; i < n_row * PIECE; i += THREADS) {
        float v[most];
        take_element<most>(v, t, streams, given, hc, i);
#pragma unroll
        for (int k = 0; k < most; k++)
            t->v[i / PIECE][k][i % PIECE] = v[k];
    }
}

/* ---- projection ---------------------------------------------------------------------------- */

/* Elements at, at + 1 of row i of fn, n of them there, as they lie: whoever looks waits. */
template <enum layout layout>
__device__ __forceinline__ uint2 raw_pair(const struct cu_hc *hc, int i, size_t at, int n)
{
    const uint8_t *row = hc->fn + i * hc->fn_pitch;
    if (layout == PAIRS_F32)
        return *(const uint2 *)(row + at * 4);
    if (layout == PAIRS_F16)
        return { *(const uint32_t *)(row + at * 2), 0 };
    float2 x = two_of_fn(hc, i, at, n);
    return { __float_as_uint(x.x), __float_as_uint(x.y) };
}

template <enum layout layout> __device__ __forceinline__ float2 pair_of(uint2 x)
{
    if (layout == PAIRS_F16)
        return { f16_value(x.x & 0xffff), f16_value(x.x >> 16) };
    return { __uint_as_float(x.x), __uint_as_float(x.y) };
}

/* Of TURNS rows of fn from i0 on, every eighth: this lane's elements. No branches but for ANY. */
template <int most, enum layout layout>
__device__ __forceinline__ void fetch_fn(uint2 (*f)[most], const struct cu_hc *hc, int i0)
{
    int e = (int)blockIdx.x * PIECE + 2 * LANE, left = hc->n_embd - e;
#pragma unroll
    for (int j = 0; j < TURNS * most; j++) {
        int k = j % most < hc->n_stream ? j % most : 0, i = i0 + j / most * WARPS;
        size_t at = (size_t)k * hc->n_embd + (left > 0 ? e : 0); /* too much is not used */
        f[j / most][j % most] = raw_pair<layout>(hc, i < hc->m ? i : 0, at, left);
    }
}

/* TURNS numbers of one row. */
template <int most>
__device__ __forceinline__ void project_row(double *sum, const float (*v)[PIECE],
                                            const float2 (*f)[most], int i0,
                                            const struct cu_hc *hc)
{
    float2 x[most];
#pragma unroll
    for (int k = 0; k < most; k++)
        x[k] = *(const float2 *)(const void *)(v[k] + 2 * LANE);
#pragma unroll
    for (int t = 0; t < TURNS; t++) {
        int i = i0 + t * WARPS;
        float all = 0;
#pragma unroll
        for (int k = 0; k < most; k++)
            if (k < hc->n_stream)
                all = fmaf(f[t][k].y, x[k].y, fmaf(f[t][k].x, x[k].x, all));
        all = warp_sum(all);
        if (LANE == 0 && i < hc->m)
            sum[(size_t)i * gridDim.x + blockIdx.x] = all;
    }
}

__device__ __forceinline__ double warp_sum_double(double x)
{
    for (int i = WARP / 2; i > 0; i /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, i);
    return x;
}

/* Place of stream i's product with stream j >= i. */
__device__ __forceinline__ int product_of(int i, int j, int n)
{
    return i * (2 * n - i + 1) / 2 + j - i;
}

/* All products of a row's streams, as far as this block has them; a warp for every eighth. */
__device__ __forceinline__ void multiply_streams(double *sum, const float (*v)[PIECE],
                                                 const struct cu_hc *hc)
{
    for (int q = WARP_ID; q < hc->n_stream * hc->n_stream; q += WARPS) {
        int i = q / hc->n_stream, j = q % hc->n_stream;
        if (i > j)
            continue;
        double all = fma((double)v[i][LANE], (double)v[j][LANE],
                         (double)v[i][LANE + WARP] * (double)v[j][LANE + WARP]);
        all = warp_sum_double(all);
        if (LANE == 0)
            sum[(size_t)(hc->m + product_of(i, j, hc->n_stream)) * gridDim.x + blockIdx.x] = all;
    }
}

/* Grid: pieces. What the route chose is there before the wait: experts' kernels lie between. */
template <int most, enum layout layout> /* most: streams */
__global__ void __launch_bounds__(THREADS) project_kernel(struct hc_pieces to,
                                                          struct cu_mat streams,
                                                          struct hc_given given, int n_row,
                                                          struct cu_hc hc)
{
    SHARED(struct few_streams<most>, t);
    know_streams<most>(&hc);
    uint2 raw[TURNS][most];
    fetch_fn<most, layout>(raw, &hc, WARP_ID);
    order_experts(&t, &given, n_row);
    wait_for_last();
    __syncthreads();
    take_streams(&t, &streams, &given, &hc, n_row);
    __syncthreads();
    size_t row_sums = (size_t)to.n_sum * to.n;
    for (int r = 0; r < n_row; r++)
        multiply_streams(to.sum + r * row_sums, t.v[r], &hc);
    for (int i0 = WARP_ID; i0 < hc.m; i0 += TURNS * WARPS) {
        float2 f[TURNS][most];
#pragma unroll
        for (int j = 0; j < TURNS * most; j++)
            f[j / most][j % most] = pair_of<layout>(raw[j / most][j % most]);
        if (i0 + TURNS * WARPS < hc.m)
            fetch_fn<most, layout>(raw, &hc, i0 + TURNS * WARPS);
        for (int r = 0; r < n_row; r++)
            project_row<most>(to.sum + r * row_sums, t.v[r], f, i0, &hc);
    }
}

/* ---- mixing -------------------------------------------------------------------------------- */

/* What is known of a row. */
struct few_sums {
    struct gates g;
    double product[MAX_PRODUCT];
    float scale; /* of the norm */
};

/* The pieces of a row's first `m` numbers and of all products. By all warps. */
__device__ __forceinline__ void sum_few(struct few_sums *s, const struct hc_pieces *p, int row,
                                        int m, const struct cu_hc *hc)
{
    const double *piece = p->sum + (size_t)row * p->n_sum * p->n;
    int n = m + n_product(hc), skip = hc->m - m;
    for (int i0 = WARP_ID; i0 < n; i0 += SUMS * WARPS) {
        double sum[SUMS] = {};
#pragma unroll 2
        for (int j = LANE; j < p->n; j += WARP)
#pragma unroll
            for (int k = 0; k < SUMS; k++) {
                int i = i0 + k * WARPS, at = i < m ? i : i + skip;
                sum[k] += i < n ? piece[(size_t)at * p->n + j] : 0;
            }
#pragma unroll
        for (int k = 0; k < SUMS; k++) {
            int i = i0 + k * WARPS;
            if (i >= n)
                break;
            double all = warp_sum_double(sum[k]);
            if (LANE == 0 && i < m)
                s->g.raw[i] = (float)all;
            else if (LANE == 0 && i < n)
                s->product[i - m] = all;
        }
    }
    __syncthreads();
}

/* The mean of all squares, known to the whole warp afterwards. */
__device__ __forceinline__ void find_mean(struct few_sums *s, const struct cu_hc *hc)
{
    double sum = 0;
    for (int k = 0; k < hc->n_stream; k++)
        sum += s->product[product_of(k, k, hc->n_stream)];
    if (LANE == 0)
        s->g.raw[hc->m] = (float)sum / (float)(hc->n_embd * hc->n_stream);
    __syncwarp();
}

/* Pre gates, and what the norm makes of them. By one warp. */
__device__ __forceinline__ void find_scale(struct few_sums *s, const struct cu_hc *hc,
                                           const struct hc_norm *norm)
{
    int n = hc->n_stream;
    double square = 0;
    find_mean(s, hc);
    if (LANE < n)
        s->g.pre[LANE] = pre_gate(&s->g, hc, LANE);
    __syncwarp();
    for (int q = LANE; q < n * n; q += WARP) {
        int i = q / n, j = q % n;
        double by = (double)s->g.pre[i] * (double)s->g.pre[j];
        square = fma(by, s->product[i < j ? product_of(i, j, n) : product_of(j, i, n)], square);
    }
    square = fmax(warp_sum_double(square), 0.);
    if (LANE == 0)
        s->scale = norm->weight ? 1 / sqrtf((float)square / (float)hc->n_embd + norm->eps) : 1;
}

/* Grid: one for the gates, if they are wanted, and THREADS elements each; rows. */
template <int most>
__global__ void __launch_bounds__(THREADS, 2) mix_few_kernel(struct hc_made to,
                                                             struct cu_mat streams,
                                                             struct hc_pieces pieces,
                                                             struct cu_hc hc)
{
    SHARED(struct few_sums, s);
    know_streams<most>(&hc);
    int row = (int)blockIdx.y, first = to.gates.x ? 1 : 0, n = hc.n_stream;
    int e = ((int)blockIdx.x - first) * THREADS + (int)threadIdx.x;
    bool mixes = (int)blockIdx.x >= first, here = mixes && e < hc.n_embd;
    const float *from = streams.x + row * streams.pitch + e;
    float v[most], by = to.norm.weight && here ? to.norm.weight[e] : 1, sum = 0;
    fetch_gates(&s.g, &hc);
    wait_for_last();
#pragma unroll
    for (int k = 0; k < most; k++)
        v[k] = here && k < n ? from[(size_t)k * hc.n_embd] : 0;
    sum_few(&s, &pieces, row, mixes ? n : hc.m, &hc);
    if (!mixes) {
        if (WARP_ID == 0)
            find_mean(&s, &hc);
        __syncthreads();
        write_gates<most>(to.gates.x + row * to.gates.pitch, &s.g, &hc);
        return;
    }
    if (WARP_ID == 0)
        find_scale(&s, &hc, &to.norm);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < most; k++)
        sum = k < n ? fmaf(s.g.pre[k], v[k], sum) : sum;
    if (here)
        to.x.x[row * to.x.pitch + e] = sum * s.scale * by;
}

/* ---- launching ----------------------------------------------------------------------------- */

template <int most>
static void launch(struct dev *d, const struct hc_made *to, const struct tensor *streams,
                   const struct hc_given *given, const struct cu_hc *hc, struct hc_pieces pieces)
{
    enum layout layout = layout_of(hc);
    auto project = layout == ANY          ? project_kernel<most, ANY>
                   : layout == PAIRS_F32 ? project_kernel<most, PAIRS_F32>
                                         : project_kernel<most, PAIRS_F16>;
    LAUNCH_EARLY(d, project, dim3((unsigned)pieces.n), THREADS, 0, pieces, mat_of(streams), *given,
                 streams->rows, *hc);
    dim3 grid(blocks_for((size_t)hc->n_embd, THREADS) + (to->gates.x != NULL),
              (unsigned)streams->rows);
    LAUNCH_EARLY(d, mix_few_kernel<most>, grid, THREADS, 0, *to, mat_of(streams), pieces, *hc);
}

void cuda_hc_few(struct dev *d, const struct hc_made *to, const struct tensor *streams,
                 const struct hc_given *given, const struct cu_hc *hc)
{
    struct hc_pieces p = { NULL, (int)blocks_for((size_t)hc->n_embd, PIECE),
                           hc->m + n_product(hc) };
    p.sum = (double *)dev_alloc(d, (size_t)streams->rows * (size_t)p.n_sum * (size_t)p.n *
                                       sizeof(double));
    if (cuda_runs(d) && hc->n_stream == 4)
        launch<4>(d, to, streams, given, hc, p);
    else if (cuda_runs(d))
        launch<MAX_STREAM>(d, to, streams, given, hc, p);
}
