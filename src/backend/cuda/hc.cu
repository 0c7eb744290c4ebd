/* hc.cu - hyper-connections. Of many rows, pieces of all streams are projected (hc_many.cu), then
 * two blocks for a row sum what the pieces say, make gates of it, mix and norm. */
#include "gates_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

#define THREADS 256

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

#define AT_ONCE 4 /* streams, and elements of each, that are on their way together */

/* x := the streams mixed by g->pre, then, with a weight, normed. */
__device__ __forceinline__ void mix_streams(float *to, const float *v, struct gates *g,
                                            const struct cu_hc *hc, const struct hc_norm *norm)
{
    float x[ROW_EACH] = { 0 }, by[ROW_EACH], square = 0;
#pragma unroll
    for (int i0 = 0; i0 < ROW_EACH; i0 += AT_ONCE)
        for (int k0 = 0; k0 < hc->n_stream; k0 += AT_ONCE) {
            float old[AT_ONCE][AT_ONCE];
#pragma unroll
            for (int j = 0; j < AT_ONCE * AT_ONCE; j++) {
                int k = k0 + j / AT_ONCE, i = i0 + j % AT_ONCE;
                int e = (int)(threadIdx.x + i * blockDim.x);
                bool here = k < hc->n_stream && e < hc->n_embd;
                old[j / AT_ONCE][j % AT_ONCE] = here ? v[(size_t)k * hc->n_embd + e] : 0;
            }
#pragma unroll
            for (int j = 0; j < AT_ONCE * AT_ONCE; j++) {
                int k = k0 + j / AT_ONCE, i = i0 + j % AT_ONCE;
                float all = fmaf(g->pre[k % MAX_STREAM], old[j / AT_ONCE][j % AT_ONCE], x[i]);
                x[i] = k < hc->n_stream ? all : x[i];
            }
        }
#pragma unroll
    for (int i = 0; i < ROW_EACH; i++) {
        int e = (int)(threadIdx.x + i * blockDim.x);
        by[i] = norm->weight && e < hc->n_embd ? norm->weight[e] : 1;
        square = e < hc->n_embd ? fmaf(x[i], x[i], square) : square;
    }
    float scale = 1;
    if (norm->weight)
        scale = 1 / sqrtf(block_sum(square, &g->sums) / (float)hc->n_embd + norm->eps);
#pragma unroll
    for (int i = 0; i < ROW_EACH; i++) {
        int e = (int)(threadIdx.x + i * blockDim.x);
        if (e < hc->n_embd)
            to[e] = x[i] * scale * by[i];
    }
}

/* Grid: rows, 2: one block mixes while another makes the gates; without gates: rows, 1. */
template <int most> /* streams */
__global__ void __launch_bounds__(ROW_THREADS) mix_kernel(struct cu_mat x, struct cu_mat gates,
                                                          struct cu_mat streams, const float *part,
                                                          int n_piece, struct cu_hc hc,
                                                          struct hc_norm norm)
{
    wait_for_last();
    SHARED(struct gates, g);
    int t = (int)threadIdx.x;
    sum_pieces(&g, part, n_piece, &hc);
    if (blockIdx.y == 1) {
        write_gates<most>(gates.x + blockIdx.x * gates.pitch, &g, &hc);
        return;
    }
    if (t < hc.n_stream)
        g.pre[t] = pre_gate(&g, &hc, t);
    __syncthreads();
    mix_streams(x.x + blockIdx.x * x.pitch, streams.x + blockIdx.x * streams.pitch, &g, &hc,
                &norm);
}

static void mix_many(struct dev *d, const struct hc_made *to, const struct tensor *streams,
                     const struct cu_hc *hc)
{
    size_t numbers = (size_t)streams->rows * (size_t)(hc->m + 1);
    int n_piece = cuda_hc_pieces(hc);
    float *part = (float *)dev_alloc(d, numbers * (size_t)n_piece * sizeof(float));
    if (!cuda_runs(d))
        return;
    cuda_hc_project_many(d, part, streams, hc);
    dim3 grid((unsigned)streams->rows, to->gates.x ? 2 : 1);
    auto kernel = hc->n_stream <= 4 ? mix_kernel<4> : mix_kernel<MAX_STREAM>;
    LAUNCH_EARLY(d, kernel, grid, row_threads(hc->n_embd), 0, to->x, to->gates, mat_of(streams),
                 part, n_piece, *hc, to->norm);
}

static void mix(struct dev *d, struct hc_made to, const struct tensor *streams,
                const struct hc *hc)
{
    size_t mark = arena_mark(&d->scratch);
    struct cu_hc h = hc_of(hc);
    struct hc_given nothing = {};
    if (streams->rows > FEW_MAX)
        mix_many(d, &to, streams, &h);
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

/* Element e of every stream, after the sublayer gave y. Grid: elements, rows. */
__global__ void __launch_bounds__(THREADS) spread_kernel(struct cu_mat streams, struct cu_mat y,
                                                         struct cu_mat gates, int n_embd, int n)
{
    wait_for_last();
    int e = (int)(blockIdx.x * THREADS + threadIdx.x);
    float *at = streams.x + blockIdx.y * streams.pitch + e, v[MAX_STREAM];
    if (e >= n_embd)
        return;
#pragma unroll
    for (int j = 0; j < MAX_STREAM; j++)
        v[j] = j < n ? at[(size_t)j * n_embd] : 0;
    spread<MAX_STREAM>(v, y.x[blockIdx.y * y.pitch + e], gates.x + blockIdx.y * gates.pitch, n);
#pragma unroll
    for (int j = 0; j < MAX_STREAM; j++)
        if (j < n)
            at[(size_t)j * n_embd] = v[j];
}

void cuda_hc_spread(struct dev *d, struct tensor *streams, const struct tensor *y,
                    const struct tensor *gates, const struct hc *hc)
{
    CHECK(hc->n_stream <= MAX_STREAM);
    dim3 grid(blocks_for((size_t)y->cols, THREADS), (unsigned)y->rows);
    if (cuda_runs(d))
        LAUNCH_EARLY(d, spread_kernel, grid, THREADS, 0, mat_of(streams), mat_of(y), mat_of(gates),
                     y->cols, hc->n_stream);
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
