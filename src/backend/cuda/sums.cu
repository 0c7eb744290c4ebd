/* sums.cu - what the inputs of products amount to, for calibration: squares and values of every
 * column, in double, rows one after another. So a sum does not depend on how steps were cut, and
 * has the bits that the host would get from the same rows. A warp has 32 columns of a matrix, or of
 * an expert, and asks for many rows at once: nothing else hides how far memory is. */
#include "group_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

#define AT_ONCE 16

struct summing {
    struct dev_sums to;
    struct cu_mat x;
    int n, cols, div;
    const struct cu_groups *groups; /* NULL: all n rows, of one matrix */
    const int *id;                  /* [set] of experts; NULL: from first_id on */
    int first_id;
};

/* Grid: columns, experts. */
__global__ void __launch_bounds__(WARP) sum_kernel(struct summing s)
{
    int col = (int)(blockIdx.x * WARP + threadIdx.x), first = 0, last = s.n, mat = 0;
    if (s.groups) {
        int a = (int)blockIdx.y;
        if (a >= s.groups->n_active)
            return;
        first = s.groups->first[a];
        last = s.groups->first[a + 1];
        mat = s.id ? s.id[s.groups->active[a]] : s.first_id + s.groups->active[a];
    }
    if (col >= s.cols)
        return;
    size_t at = (size_t)mat * s.cols + col;
    double square = s.to.square[at], value = s.to.value[at];
    for (int i = first; i < last; i += AT_ONCE) {
        float x[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            int row = i + k < last ? i + k : i;
            row = s.div ? s.groups->pair[row] / s.div : row;
            x[k] = i + k < last ? s.x.x[(size_t)row * s.x.pitch + col] : 0;
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            square += (double)x[k] * (double)x[k];
            value += (double)x[k];
        }
    }
    s.to.square[at] = square;
    s.to.value[at] = value;
    if (col == 0)
        s.to.count[mat] += last - first;
}

void cuda_sum(struct dev *d, const struct dev_sums *to, const struct tensor *x)
{
    struct summing s = { *to, mat_of(x), x->rows, x->cols, 0, NULL, NULL, 0 };
    LAUNCH(d, sum_kernel, blocks_for((size_t)x->cols, WARP), WARP, 0, s);
}

void cuda_sum_lists(struct dev *d, const struct dev_sums *to, const struct tensor *x,
                    const struct grouping *g, int div)
{
    struct summing s = { *to, mat_of(x), 0, x->cols, div, g->groups, g->id, g->first_id };
    dim3 grid(blocks_for((size_t)x->cols, WARP), (unsigned)MIN(g->n_pair, g->n_set));
    LAUNCH(d, sum_kernel, grid, WARP, 0, s);
}
