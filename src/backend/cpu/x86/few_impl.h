/* few_impl.h - products with few activation rows, AVX-512: a vector holds columns of one weight
 * row, unpacked once for all activations; the sums of 16 weight rows are then turned into one
 * vector, so that steps are applied to 16 rows at once. Activations are put into the order in
 * which a format unpacks fastest, once for a band. */
#ifndef DS_FEW_IMPL_H
#define DS_FEW_IMPL_H

#include "avx512_impl.h"
#include "cpu_fetch.h"

#define HALF 16 /* weight rows whose sums make a vector */

/* Part g of v := 16 bytes from p; part 0 first. */
static ALWAYS_INLINE __m512i put_part(__m512i v, int g, const void *p)
{
    __m128i part = _mm_loadu_si128((const __m128i *)p);
    if (g == 0)
        return _mm512_broadcast_i32x4(part);
    return _mm512_mask_broadcast_i32x4(v, (__mmask16)(15 << (4 * g)), part);
}

/* Lane j of v := four bytes from p; lane 0 first. */
static ALWAYS_INLINE __m128i put_lane(__m128i v, int j, const void *p)
{
    int32_t x;
    memcpy(&x, p, 4);
    return j == 0 ? _mm_set1_epi32(x) : _mm_mask_set1_epi32(v, (__mmask8)(1 << j), x);
}

/* Four rows of four parts of four: lane r of part p becomes the sum of row r's part p. */
static ALWAYS_INLINE __m512i sum_pair(__m512i a, __m512i b)
{
    return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

static ALWAYS_INLINE __m512i join_pairs(__m512i a, __m512i b)
{
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* Of four such, lane 4 i + r of the result: all of row r of q[i]. */
static ALWAYS_INLINE __m512i join_quads(const __m512i q[4])
{
    __m512i a = _mm512_add_epi32(_mm512_shuffle_i32x4(q[0], q[1], 0x88),
                                 _mm512_shuffle_i32x4(q[0], q[1], 0xdd));
    __m512i b = _mm512_add_epi32(_mm512_shuffle_i32x4(q[2], q[3], 0x88),
                                 _mm512_shuffle_i32x4(q[2], q[3], 0xdd));
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

/* The same for the parts apart. */
static ALWAYS_INLINE void turn_quads(__m512i to[4], const __m512i q[4])
{
    __m512i a[4];
    UNROLL for (int i = 0; i < 2; i++) {
        a[2 * i] = _mm512_shuffle_i32x4(q[2 * i], q[2 * i + 1], 0x44);
        a[2 * i + 1] = _mm512_shuffle_i32x4(q[2 * i], q[2 * i + 1], 0xee);
    }
    to[0] = _mm512_shuffle_i32x4(a[0], a[2], 0x88);
    to[1] = _mm512_shuffle_i32x4(a[0], a[2], 0xdd);
    to[2] = _mm512_shuffle_i32x4(a[1], a[3], 0x88);
    to[3] = _mm512_shuffle_i32x4(a[1], a[3], 0xdd);
}

/* The f16 in the low halves of lanes. */
static ALWAYS_INLINE __m512 f16_low(__m512i v)
{
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v));
}

/* Rows are read four at a time, so that the processor sees few streams; while a quad of rows is
 * computed, the next one is fetched. */
#define QUAD 4
#define N_QUAD (BAND_W / QUAD)

/* From the quad at bytes at .. of its rows to the one whose turn is next; n: bytes taken of a row
 * before the next quad, row_bytes in all. */
static ALWAYS_INLINE size_t fetch_distance(const struct band *b, int quad, size_t at, size_t n,
                                           size_t row_bytes)
{
    uintptr_t here = (uintptr_t)b->w[QUAD * quad];
    if (quad + 1 < N_QUAD)
        return (uintptr_t)b->w[QUAD * (quad + 1)] - here;
    size_t go_on = at + n < row_bytes ? n : b->ahead - at;
    return (uintptr_t)b->w[0] - here + go_on;
}

/* Pages of the quad after the next. */
static ALWAYS_INLINE void fetch_quad(const struct band *b, int quad)
{
    size_t bytes = b->ahead / N_QUAD;
    fetch_pages((uintptr_t)b->w[0] + (size_t)(quad + 2) * bytes, bytes);
}

static ALWAYS_INLINE void fetch_lines(const uint8_t *row, size_t distance, size_t n)
{
    UNROLL for (size_t i = 0; i < n; i += 64)
        _mm_prefetch((const char *)((uintptr_t)row + distance + i), _MM_HINT_T1);
}

void cpu_few32_avx512(struct cpu_kernels *k);
void cpu_few256_avx512(struct cpu_kernels *k);

#endif
