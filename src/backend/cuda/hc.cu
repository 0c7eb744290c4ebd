/* hc.cu - hyper-connections. Of many rows, pieces of all streams are projected (hc_many.cu), then
 * a block for a row sums what the pieces say and makes gates of it, another mixes and norms. */
#include "gates_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

#define THREADS 256
#define GATE_THREADS 128
#define MIX_EACH (ROW_EACH * ROW_THREADS / 4 / THREADS) /* fours of a thread, at most */

static struct cu_hc hc_of(const struct hc *hc)
{
    CHECK(hc->n_stream <= MAX_STREAM);
    CHECK(hc->fn.cols / hc->n_stream <= ROW_EACH * ROW_THREADS);
    CHECK(hc->fn.type == DT_F32 || hc->fn.type == DT_F16 || hc->fn.type == DT_BF16);
    return { (const uint8_t *)hc->fn.data, hc->fn.pitch, hc->fn.type, hc->base, hc->scale,
             hc->n_stream, hc->n_iter, hc->fn.cols / hc->n_stream, hc->fn.rows, hc->eps,
             hc->norm_eps };
}

/* The pieces of a row, a warp for each number. */
__device__ __forceinline__ void sum_pieces(struct gates *g, const float *part, int n_piece,
                                           const struct cu_hc *hc)
{
    fetch_gates(g, hc);
    part += blockIdx.x * (size_t)(hc->m + 1) * n_piece;
    for (int i = WARP_ID; i <= hc->m; i += N_WARP) {
        float sum = 0;
        for (int j = LANE; j < n_piece; j += WARP)
            sum += part[(size_t)i * n_piece + j];
        sum = warp_sum(sum);
        if (LANE == 0)
            g->raw[i] = i < hc->m ? sum : sum / (float)(hc->n_embd * hc->n_stream);
    }
    __syncthreads();
}

/* Grid: rows. all: C and post, too. */
template <int most> /* streams */
__global__ void __launch_bounds__(GATE_THREADS) gates_kernel(struct cu_mat gates, const float *part,
                                                             int n_piece, struct cu_hc hc, bool all)
{
    wait_for_last();
    SHARED(struct gates, g);
    int t = (int)threadIdx.x;
    float *to = gates.x + blockIdx.x * gates.pitch;
    sum_pieces(&g, part, n_piece, &hc);
    if (all)
        write_gates<most>(to, &g, &hc);
    else if (t < hc.n_stream)
        to[t] = pre_gate(&g, &hc, t);
}

/* Four elements of the mixture, n of them there, from e on. */
template <int most>
__device__ __forceinline__ float4 mix_four(const float *v, const float *pre, const struct cu_hc *hc,
                                           int n, bool aligned)
{
    float4 x[most], sum = {};
#pragma unroll
    for (int k = 0; k < most; k++)
        x[k] = load_four(v + (size_t)(k < hc->n_stream ? k : 0) * hc->n_embd, n, aligned);
#pragma unroll
    for (int k = 0; k < most; k++)
        if (k < hc->n_stream)
            sum = { fmaf(pre[k], x[k].x, sum.x), fmaf(pre[k], x[k].y, sum.y),
                    fmaf(pre[k], x[k].z, sum.z), fmaf(pre[k], x[k].w, sum.w) };
    return sum;
}

/* x := the streams mixed by the first of their gates, then, with a weight, normed; a thread has
 * every 256th four elements. Grid: rows. */
template <int most>
__global__ void __launch_bounds__(THREADS) mix_kernel(struct hc_made to, struct cu_mat streams,
                                                      struct cu_hc hc, bool aligned)
{
    wait_for_last();
    SHARED(struct cu_sums, sums);
    const float *v = streams.x + blockIdx.x * streams.pitch;
    const float *gate = to.gates.x + blockIdx.x * to.gates.pitch;
    float *out = to.x.x + blockIdx.x * to.x.pitch, pre[most], square = 0, scale = 1;
    float4 x[MIX_EACH];
#pragma unroll
    for (int k = 0; k < most; k++)
        pre[k] = k < hc.n_stream ? gate[k] : 0;
#pragma unroll
    for (int i = 0; i < MIX_EACH; i++) {
        int e = ((int)threadIdx.x + i * THREADS) * 4;
        x[i] = {};
        if (e < hc.n_embd)
            x[i] = mix_four<most>(v + e, pre, &hc, hc.n_embd - e, aligned);
        square = add_four(x[i], x[i], square);
    }
    if (to.norm.weight)
        scale = 1 / sqrtf(block_sum(square, &sums) / (float)hc.n_embd + to.norm.eps);
#pragma unroll
    for (int i = 0; i < MIX_EACH; i++) {
        int e = ((int)threadIdx.x + i * THREADS) * 4, n = hc.n_embd - e;
        float4 by = { 1, 1, 1, 1 };
        if (n <= 0)
            continue;
        if (to.norm.weight)
            by = load_four(to.norm.weight + e, n, aligned);
        store_four(out + e, { x[i].x * scale * by.x, x[i].y * scale * by.y, x[i].z * scale * by.z,
                              x[i].w * scale * by.w }, n, aligned);
    }
}

static bool is_even(struct cu_mat m)
{
    return ((uintptr_t)m.x | m.pitch * sizeof(float)) % sizeof(float4) == 0;
}

static void mix_many(struct dev *d, struct hc_made to, const struct tensor *streams,
                     const struct cu_hc *hc)
{
    size_t rows = (size_t)streams->rows, n_piece = (size_t)cuda_hc_pieces(hc);
    float *part = (float *)dev_alloc(d, rows * (size_t)(hc->m + 1) * n_piece * sizeof(float));
    float *pre = (float *)dev_alloc(d, rows * (size_t)hc->n_stream * sizeof(float));
    if (!cuda_runs(d))
        return;
    bool few = hc->n_stream <= 4, all = to.gates.x != NULL;
    if (!all)
        to.gates = { pre, (size_t)hc->n_stream };
    cuda_hc_project_many(d, part, streams, hc);
    LAUNCH_EARLY(d, (few ? gates_kernel<4> : gates_kernel<MAX_STREAM>), (unsigned)rows,
                 GATE_THREADS, 0, to.gates, part, (int)n_piece, *hc, all);
    bool aligned = is_even(to.x) && is_even(mat_of(streams)) && hc->n_embd % 4 == 0 &&
                   (uintptr_t)to.norm.weight % sizeof(float4) == 0;
    LAUNCH_EARLY(d, (few ? mix_kernel<4> : mix_kernel<MAX_STREAM>), (unsigned)rows, THREADS, 0, to,
                 mat_of(streams), *hc, aligned);
}

static void mix(struct dev *d, struct hc_made to, const struct tensor *streams,
                const struct hc *hc)
{
    size_t mark = arena_mark(&d->scratch);
    struct cu_hc h = hc_of(hc);
    struct hc_given nothing = {};
    if (streams->rows > FEW_MAX)
        mix_many(d, to, streams, &h);
    else
        cuda_hc_few(d, &to, streams, &nothing, &h);
    arena_rewind(&d->scratch, mark);
}

void cuda_hc_mix_norm(struct dev *d, struct tensor *x, struct tensor *gates,
                      const struct tensor *streams, const struct hc *hc, const float *weight,
                      float eps)
{
    mix(d, { mat_of(x), mat_of(gates), { weight, eps } }, streams, hc);
}

void cuda_hc_mix(struct dev *d, struct tensor *x, struct tensor *gates,
                 const struct tensor *streams, const struct hc *hc)
{
    mix(d, { mat_of(x), mat_of(gates), {} }, streams, hc);
}

void cuda_hc_head(struct dev *d, struct tensor *x, const struct tensor *streams,
                  const struct hc *hc)
{
    mix(d, { mat_of(x), {}, {} }, streams, hc);
}

/* Four elements of every stream, after the sublayer gave y. Grid: elements, rows. */
template <int most>
__global__ void __launch_bounds__(THREADS) spread_kernel(struct cu_mat streams, struct cu_mat y,
                                                         struct cu_mat gates, int n_embd, int n,
                                                         bool aligned)
{
    wait_for_last();
    int e = (int)(blockIdx.x * THREADS + threadIdx.x) * 4, left = n_embd - e;
    const float *gate = gates.x + blockIdx.y * gates.pitch;
    float *at = streams.x + blockIdx.y * streams.pitch + e, v[4][most];
    if (left <= 0)
        return;
    float4 x = load_four(y.x + blockIdx.y * y.pitch + e, left, aligned);
#pragma unroll
    for (int j = 0; j < most; j++) {
        float4 old = load_four(at + (size_t)(j < n ? j : 0) * n_embd, left, aligned);
        v[0][j] = old.x, v[1][j] = old.y, v[2][j] = old.z, v[3][j] = old.w;
    }
    spread<most>(v[0], x.x, gate, n);
    spread<most>(v[1], x.y, gate, n);
    spread<most>(v[2], x.z, gate, n);
    spread<most>(v[3], x.w, gate, n);
#pragma unroll
    for (int j = 0; j < most; j++)
        if (j < n)
            store_four(at + (size_t)j * n_embd, { v[0][j], v[1][j], v[2][j], v[3][j] }, left,
                       aligned);
}

void cuda_hc_spread(struct dev *d, struct tensor *streams, const struct tensor *y,
                    const struct tensor *gates, const struct hc *hc)
{
    CHECK(hc->n_stream <= MAX_STREAM);
    dim3 grid(blocks_for((size_t)y->cols, 4 * THREADS), (unsigned)y->rows);
    bool aligned = is_even(mat_of(streams)) && is_even(mat_of(y)) && y->cols % 4 == 0;
    auto kernel = hc->n_stream <= 4 ? spread_kernel<4> : spread_kernel<MAX_STREAM>;
    if (cuda_runs(d))
        LAUNCH_EARLY(d, kernel, grid, THREADS, 0, mat_of(streams), mat_of(y), mat_of(gates),
                     y->cols, hc->n_stream, aligned);
}

bool cuda_hc_turn(struct dev *d, struct tensor *x, struct tensor *gates, struct tensor *streams,
                  const struct hc_turn *turn)
{
    if (x->rows > FEW_MAX || !turn->next)
        return false;
    CHECK(turn->hc->n_stream == turn->next->n_stream && turn->route.id.cols <= MAX_USED);
    size_t mark = arena_mark(&d->scratch);
    struct cu_hc h = hc_of(turn->next);
    struct hc_made to = { mat_of(x), mat_of(gates), { turn->weight, turn->eps } };
    struct hc_given given = { mat_of(&turn->y), mat_of(gates), {}, NULL, 0, 0 };
    if (turn->part.rows > 0) {
        given.part = mat_of(&turn->part);
        given.id = (const int32_t *)turn->route.id.data;
        given.id_pitch = turn->route.id.pitch / sizeof(int32_t);
        given.n_used = turn->route.id.cols;
    }
    cuda_hc_few(d, &to, streams, &given, &h);
    arena_rewind(&d->scratch, mark);
    return true;
}
