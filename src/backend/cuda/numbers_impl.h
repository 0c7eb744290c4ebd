/* numbers_impl.h - weights that are single numbers times a few rows of activations as they are:
 * four warps for a row of weights, a thread for eight neighbours at a time. The time is that of
 * reading the weights, so a thread asks for all it can before it uses the first. */
#ifndef DS_NUMBERS_IMPL_H
#define DS_NUMBERS_IMPL_H

#include "eights_impl.h"

#define TEAM 128 /* threads */
#define TEAM_WARPS (TEAM / WARP)
#define N_TEAM (FEW_THREADS / TEAM)
#define N_SHORT 8       /* rows of a team, where one eight of each thread is a row ... */
#define MANY_SHORT 4096 /* ... and there are so many of them */
#define N_SHARE 4       /* rows of a team that several rows of activations are read for ... */
#define MANY_SHARE 1024 /* ... where so many leave no multiprocessor without a team */

/* sum[r][i] plus a thread's share of row r0 + r of weights times row i of x. wide: rows begin at
 * multiples of 16 bytes and are whole eights. */
template <int type, int n_row, int n_x, bool wide>
__device__ __forceinline__ void team_sums(const struct cu_few *f, int r0, float (*sum)[n_x])
{
    const int step = TEAM * EIGHT, ahead = !wide ? 1 : n_row < N_SHARE ? 4 : N_SHORT / n_row;
    for (int at = (int)threadIdx.x % TEAM * EIGHT; at < f->k; at += ahead * step) {
        struct cu_eight e[ahead][n_row];
#pragma unroll
        for (int j = 0; j < ahead * n_row; j++) {
            int a = j / n_row, r = j % n_row;
            eight_load<type, wide>(f, f->row0 + min(r0 + r, f->rows - 1), at + a * step, &e[a][r]);
        }
#pragma unroll
        for (int a = 0; a < ahead; a++)
            if (at + a * step < f->k)
                eight_add<type, n_row, n_x, wide>(f, e[a], at + a * step, sum);
    }
}

/* Asks for the first of what a thread will read, before the activations are there. */
template <int type, int n_row>
__device__ __forceinline__ void team_ask(const struct cu_few *f, int r0)
{
    const int bytes = number_bytes(type);
#pragma unroll
    for (int j = 0; j < 4 * n_row; j++) {
        int at = ((int)threadIdx.x % TEAM + j / n_row * TEAM) * EIGHT, r = r0 + j % n_row;
        if (at * bytes % 128 == 0 && at < f->k && r < f->rows)
            PREFETCH(f->w.data + (size_t)(f->row0 + r) * f->w.pitch + (size_t)at * bytes);
    }
}

template <int n> struct cu_team {
    float sum[FEW_WARPS][n];
};

/* Rows that a team shares its activations among. A row's sum does not depend on it. */
__host__ __device__ __forceinline__ int team_rows(const struct cu_few *f)
{
    if (f->n > 1)
        return f->type == DT_F16 && f->rows >= MANY_SHARE ? N_SHARE : 2;
    return f->type == DT_F16 && f->k <= TEAM * EIGHT && f->rows >= MANY_SHORT ? N_SHORT : 1;
}

/* All sums over a warp of n values, each in the order of warp_sum(): half of what is left goes to
 * other lanes at each step. Lane l gets that of value l / (WARP / n). */
template <int n, int by = WARP / 2> __device__ __forceinline__ float warp_sums(float *x)
{
    const int half = n / 2;
#pragma unroll
    for (int i = 0; i < half; i++) {
        float away = LANE & by ? x[i] : x[i + half];
        x[i] = (LANE & by ? x[i + half] : x[i]) + __shfl_xor_sync(ALL_LANES, away, by);
    }
    if (n == 1)
        x[0] += __shfl_xor_sync(ALL_LANES, x[0], by);
    if constexpr (by > 1)
        warp_sums<n == 1 ? 1 : n / 2, by / 2>(x);
    return x[0];
}

/* Block number `block` of the product. */
template <int type, int n_x, int n_row>
__device__ __forceinline__ void team_product(const struct cu_few *f, int block)
{
    const int n = n_row * n_x;
    SHARED(struct cu_team<n>, shared);
    int warp = (int)threadIdx.x / WARP, t = (int)threadIdx.x % TEAM;
    int r0 = (block * N_TEAM + warp / TEAM_WARPS) * n_row;
    float sum[n_row][n_x] = {};
    team_ask<type, n_row>(f, r0);
    wait_for_last();
    bool wide = f->k % EIGHT == 0 && is_aligned(f->w.data, f->w.pitch, 16) &&
                is_aligned(f->x, f->x_pitch, 16);
    if (wide)
        team_sums<type, n_row, n_x, true>(f, r0, sum);
    else
        team_sums<type, n_row, n_x, false>(f, r0, sum);
    float mine = warp_sums<n>(sum[0]);
    if (LANE % (WARP / n) == 0)
        shared.sum[warp][LANE / (WARP / n)] = mine;
    __syncthreads();
    int r = t / n_x, i = t % n_x;
    if (r >= n_row || r0 + r >= f->rows || i >= f->n)
        return;
    float all = 0;
    for (int w = 0; w < TEAM_WARPS; w++)
        all += shared.sum[warp / TEAM_WARPS * TEAM_WARPS + w][t];
    f->out[(size_t)i * f->out_pitch + r0 + r] = all;
}

template <int type, int n_x>
__device__ __forceinline__ void few_numbers(const struct cu_few *f, int block)
{
    const int share = n_x > 1 ? N_SHARE : N_SHORT, other = n_x > 1 ? 2 : 1;
    if (type == DT_F16 && team_rows(f) == share)
        team_product<type, n_x, share>(f, block);
    else
        team_product<type, n_x, other>(f, block);
}

static inline int number_blocks(const struct cu_few *f)
{
    return (int)blocks_for((size_t)f->rows, (size_t)(N_TEAM * team_rows(f)));
}

#endif
