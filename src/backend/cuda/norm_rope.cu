/* norm_rope.cu - ops on rows that are neither products nor attention: embedding, norms, gates,
 * rotation. A block of threads for a row or a head; every row's bits are its own. */
#include "widen_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

#define THREADS 128

/* Runs n work items on threads of THREADS, one each. */
#define ITEM ((size_t)blockIdx.x * THREADS + threadIdx.x)

/* ---- embed, gather ------------------------------------------------------------------------- */

struct embedding {
    const uint8_t *data, *scale;
    size_t pitch, scale_pitch;
    enum dtype type;
    int cols, n_copy;
    const struct cu_tables *tables;
};

/* Units side by side, so that lanes neither read nor write the same bank. */
struct embedded {
    float x[WARP][UNIT + 1];
};

/* A warp unpacks a unit for each lane and writes them together. Grid: units of a warp, rows. */
__global__ void __launch_bounds__(WARP) embed_kernel(struct cu_mat out, struct embedding t,
                                                     struct cu_step s)
{
    wait_for_last();
    SHARED(struct embedded, all);
    int first = (int)blockIdx.x * WARP * UNIT, n = t.cols - first, u = LANE + first / UNIT;
    int token = s.row[blockIdx.y].token;
    size_t tile = (size_t)(t.type == DT_F8_E4M3 ? token / 128 : token);
    struct cu_src src = { t.data + (size_t)token * t.pitch, t.scale + tile * t.scale_pitch,
                          t.tables };
    float x[UNIT];
    if (u * UNIT < t.cols) {
        widen(t.type, &src, u, t.cols, x);
#pragma unroll
        for (int i = 0; i < UNIT; i++)
            all.x[LANE][i] = x[i];
    }
    __syncwarp();
    float *to = out.x + blockIdx.y * out.pitch + first;
    for (int i = 0; i < WARP && i * UNIT < n; i++)
        for (int k = 0; k < t.n_copy && i * UNIT + LANE < n; k++)
            to[(size_t)k * t.cols + i * UNIT + LANE] = all.x[i][LANE];
}

void cuda_embed(struct dev *d, struct tensor *streams, const struct tensor *table,
                const struct rows *r)
{
    if (!cuda_runs(d))
        return;
    for (int i = 0; i < r->n; i++)
        if (r->host[i].token < 0 || r->host[i].token >= table->rows) {
            dev_fail(d, ERR_ARGUMENT, "token %d is outside the vocabulary of %d",
                     r->host[i].token, table->rows);
            return;
        }
    const struct cu_step *s = cuda_rows(d, r);
    if (!s)
        return;
    struct embedding t = { (const uint8_t *)table->data, table->scale, table->pitch,
                           table->scale_pitch, table->type, table->cols,
                           streams->cols / table->cols, cuda_of(d)->tables };
    dim3 grid(blocks_for((size_t)table->cols, WARP * UNIT), (unsigned)r->n);
    LAUNCH_EARLY(d, embed_kernel, grid, WARP, 0, mat_of(streams), t, *s);
}

__global__ void __launch_bounds__(THREADS) gather_kernel(struct cu_mat out, struct cu_mat x,
                                                         int cols, struct cu_step s)
{
    wait_for_last();
    int to = s.row[blockIdx.y].out;
    if (to >= 0 && ITEM < (size_t)cols)
        out.x[(size_t)to * out.pitch + ITEM] = x.x[blockIdx.y * x.pitch + ITEM];
}

void cuda_gather(struct dev *d, struct tensor *out, const struct tensor *x, const struct rows *r)
{
    const struct cu_step *s = cuda_runs(d) ? cuda_rows(d, r) : NULL;
    dim3 grid(blocks_for((size_t)x->cols, THREADS), (unsigned)r->n);
    if (s)
        LAUNCH_EARLY(d, gather_kernel, grid, THREADS, 0, mat_of(out), mat_of(x), x->cols, *s);
}

/* ---- norms --------------------------------------------------------------------------------- */

/* Grid: rows, heads of n elements. */
__global__ void __launch_bounds__(ROW_THREADS) norm_kernel(struct cu_mat out, struct cu_mat in,
                                                           const float *weight, int n, float eps)
{
    SHARED(struct cu_sums, sums);
    const float *from = in.x + blockIdx.x * in.pitch + (size_t)blockIdx.y * n;
    float *to = out.x + blockIdx.x * out.pitch + (size_t)blockIdx.y * n;
    float x[ROW_EACH], by[ROW_EACH], square = 0;
#pragma unroll
    for (int k = 0; k < ROW_EACH; k++) {
        int i = (int)(threadIdx.x + k * blockDim.x);
        by[k] = i < n && weight ? weight[i] : 1;
    }
    wait_for_last();
#pragma unroll
    for (int k = 0; k < ROW_EACH; k++) {
        int i = (int)(threadIdx.x + k * blockDim.x);
        x[k] = i < n ? from[i] : 0;
    }
#pragma unroll
    for (int k = 0; k < ROW_EACH; k++)
        square = fmaf(x[k], x[k], square);
    float scale = 1 / sqrtf(block_sum(square, &sums) / (float)n + eps);
#pragma unroll
    for (int k = 0; k < ROW_EACH; k++) {
        int i = (int)(threadIdx.x + k * blockDim.x);
        if (i < n)
            to[i] = x[k] * scale * by[k];
    }
}

void cuda_norm(struct dev *d, struct tensor *out, const struct tensor *x, const float *weight,
               float eps)
{
    CHECK(x->cols <= ROW_EACH * ROW_THREADS);
    if (cuda_runs(d))
        LAUNCH_EARLY(d, norm_kernel, dim3((unsigned)x->rows), row_threads(x->cols), 0, mat_of(out),
                     mat_of(x), weight, x->cols, eps);
}

void cuda_norm_heads(struct dev *d, struct tensor *x, int n_head, float eps)
{
    dim3 grid((unsigned)x->rows, (unsigned)n_head);
    CHECK(x->cols / n_head <= ROW_EACH * ROW_THREADS);
    if (cuda_runs(d))
        LAUNCH_EARLY(d, norm_kernel, grid, row_threads(x->cols / n_head), 0, mat_of(x), mat_of(x),
                     (const float *)NULL, x->cols / n_head, eps);
}

/* ---- gates --------------------------------------------------------------------------------- */

__global__ void __launch_bounds__(THREADS) swiglu_kernel(struct cu_mat out, struct cu_mat gate,
                                                         struct cu_mat up, int cols, float clamp)
{
    wait_for_last();
    if (ITEM >= (size_t)cols)
        return;
    float a = gate.x[blockIdx.y * gate.pitch + ITEM], b = up.x[blockIdx.y * up.pitch + ITEM];
    a = a > clamp ? clamp : a;
    b = b > clamp ? clamp : b < -clamp ? -clamp : b;
    out.x[blockIdx.y * out.pitch + ITEM] = a / (1 + expf(-a)) * b;
}

void cuda_swiglu(struct dev *d, struct tensor *out, const struct tensor *gate,
                 const struct tensor *up, float clamp)
{
    dim3 grid(blocks_for((size_t)out->cols, THREADS), (unsigned)out->rows);
    if (cuda_runs(d))
        LAUNCH_EARLY(d, swiglu_kernel, grid, THREADS, 0, mat_of(out), mat_of(gate), mat_of(up),
                     out->cols, clamp);
}

__global__ void __launch_bounds__(THREADS) add_kernel(struct cu_mat out, struct cu_mat x, int cols)
{
    wait_for_last();
    if (ITEM < (size_t)cols)
        out.x[blockIdx.y * out.pitch + ITEM] += x.x[blockIdx.y * x.pitch + ITEM];
}

void cuda_add(struct dev *d, struct tensor *out, const struct tensor *x)
{
    dim3 grid(blocks_for((size_t)out->cols, THREADS), (unsigned)out->rows);
    if (cuda_runs(d))
        LAUNCH_EARLY(d, add_kernel, grid, THREADS, 0, mat_of(out), mat_of(x), out->cols);
}

/* ---- rotation ------------------------------------------------------------------------------ */

/* One pair for each thread; x: its head's rotary end. */
__global__ void __launch_bounds__(THREADS) rope_kernel(struct cu_mat x, int n_head, int dim,
                                                       struct rope rope, bool inverse,
                                                       struct cu_step s)
{
    wait_for_last();
    size_t head = ITEM / (size_t)rope.n_pair;
    int i = (int)(ITEM % (size_t)rope.n_pair);
    if (head >= (size_t)n_head)
        return;
    float *v = x.x + blockIdx.y * x.pitch + (head + 1) * (size_t)dim - 2 * rope.n_pair;
    rotate_pair(v + 2 * i, (float)s.row[blockIdx.y].pos * rope.freq[i], inverse);
}

void cuda_rope(struct dev *d, struct tensor *x, int n_head, const struct rope *rope, bool inverse,
               const struct rows *r)
{
    const struct cu_step *s = cuda_runs(d) ? cuda_rows(d, r) : NULL;
    dim3 grid(blocks_for((size_t)n_head * (size_t)rope->n_pair, THREADS), (unsigned)r->n);
    if (s)
        LAUNCH_EARLY(d, rope_kernel, grid, THREADS, 0, mat_of(x), n_head, x->cols / n_head, *rope,
                     inverse, *s);
}
