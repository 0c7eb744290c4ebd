/* test_tiles.c - the bands of the tile unit on any machine with AVX-512: the same source, with the
 * unit's instructions in plain C. Its bits must be those of the AVX-512 bands. A machine that has
 * the unit runs the true ones in test_ops. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cpu_impl.h"
#include "cpu.h"
#include "rng.h"

#include <math.h>
#include <stdlib.h>

#if defined(__x86_64__)

#include <immintrin.h>

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbsud
#define _tile_loadconfig(t) tile_configure(t)
#define _tile_release() (void)memset(&unit, 0, sizeof unit)
#define _tile_zero(d) (void)memset(unit.mem[d], 0, sizeof unit.mem[d])
#define _tile_loadd(d, base, stride) tile_move(d, (void *)(uintptr_t)(base), stride, true)
#define _tile_stored(d, base, stride) tile_move(d, base, stride, false)
#define _tile_dpbsud(d, a, b) tile_multiply(d, a, b)
#define cpu_kernels_amx kernels_emulated

/* Rows beyond a tile's shape read as zero and are not stored. */
static struct {
    int rows[8], bytes[8];
    uint8_t mem[8][16][64];
} unit;

static void tile_configure(const void *shape)
{
    const uint8_t *s = shape;
    assert_int_equal(s[0], 1);
    memset(&unit, 0, sizeof unit);
    for (int i = 0; i < 8; i++) {
        unit.bytes[i] = s[16 + 2 * i] | s[17 + 2 * i] << 8;
        unit.rows[i] = s[48 + i];
        assert_in_range(unit.bytes[i], 1, 64);
        assert_in_range(unit.rows[i], 1, 16);
    }
}

static void tile_move(int t, void *base, size_t stride, bool load)
{
    assert_true(unit.rows[t] > 0);
    for (int r = 0; r < unit.rows[t]; r++) {
        uint8_t *p = (uint8_t *)base + (size_t)r * stride;
        memcpy(load ? unit.mem[t][r] : p, load ? p : unit.mem[t][r], (size_t)unit.bytes[t]);
    }
}

/* d[m][n] += sum of signed a[m][4k..] times unsigned b[k][4n..]. */
static void tile_multiply(int d, int a, int b)
{
    assert_int_equal(unit.bytes[a] / 4, unit.rows[b]);
    assert_int_equal(unit.bytes[d], unit.bytes[b]);
    assert_int_equal(unit.rows[d], unit.rows[a]);
    for (int m = 0; m < unit.rows[d]; m++)
        for (int n = 0; n < unit.bytes[d] / 4; n++) {
            int32_t sum;
            memcpy(&sum, unit.mem[d][m] + 4 * n, 4);
            for (int k = 0; k < unit.rows[b]; k++)
                for (int i = 0; i < 4; i++)
                    sum += (int8_t)unit.mem[a][m][4 * k + i] * unit.mem[b][k][4 * n + i];
            memcpy(unit.mem[d][m] + 4 * n, &sum, 4);
        }
}

#include "../../src/backend/cpu/x86/band_amx.c"

static struct cpu_kernels vnni, tiles;

/* Random bytes are weights of any type; a step that is no number is so in both. */
static void compare(enum dtype type, int k, int n_w, int n_x)
{
    const struct product_kernel *p = &vnni.product[TYPE_SLOT(type)];
    struct rng dice = { 7, (uint64_t)k };
    size_t row = dtype_bytes(type, (size_t)k), act = act_bytes(p->form, k);
    uint8_t *w = malloc((row + 64) * BAND_W), *scale = malloc((size_t)BAND_W * (size_t)k / 32);
    uint8_t *x = aligned_alloc(64, round_up(act, 64) * BAND_X);
    float *values = malloc((size_t)k * sizeof *values);
    float *out = malloc(sizeof *out * 2 * BAND_X * BAND_W);
    const void *in[BAND_X];
    float *to[2][BAND_X];
    assert_true(w && scale && x && values && out);
    for (size_t i = 0; i < (row + 64) * BAND_W; i++)
        w[i] = (uint8_t)rng_next(&dice);
    for (size_t i = 0; i < (size_t)BAND_W * (size_t)k / 32; i++)
        scale[i] = (uint8_t)(120 + rng_next(&dice) % 16);
    for (int i = 0; i < n_x; i++) {
        for (int j = 0; j < k; j++)
            values[j] = (float)(rng_unit(&dice) - .5) * (j % 97 == 0 ? 40 : 1);
        in[i] = x + (size_t)i * round_up(act, 64);
        vnni.pack[p->form](values, x + (size_t)i * round_up(act, 64), k);
        to[0][i] = out + (size_t)i * BAND_W;
        to[1][i] = out + (size_t)(BAND_X + i) * BAND_W;
    }
    struct band b = { .x = in, .n_w = n_w, .n_x = n_x, .k = k };
    for (int j = 0; j < BAND_W; j++) {
        b.w[j] = w + (size_t)MIN(j, n_w - 1) * row;
        b.scale[j] = scale + (size_t)MIN(j, n_w - 1) * (size_t)k / 32;
    }
    b.out = to[0];
    p->band(&b);
    b.out = to[1];
    tiles.product[TYPE_SLOT(type)].band(&b);
    int finite = 0;
    for (int i = 0; i < n_x; i++)
        for (int j = 0; j < n_w; j++) {
            if (isnan(to[0][i][j]) && isnan(to[1][i][j]))
                continue;
            finite += isfinite(to[0][i][j]) != 0;
            if (memcmp(to[0][i] + j, to[1][i] + j, 4) != 0)
                fail_msg("%s, %d columns, %d x %d: [%d][%d] is %.9g, expected %.9g",
                         dtype_name(type), k, n_w, n_x, i, j, (double)to[1][i][j],
                         (double)to[0][i][j]);
        }
    assert_true(finite > 0);
    free(w);
    free(scale);
    free(x);
    free(values);
    free(out);
}

static void bands_agree(void **state)
{
    static const enum dtype type[] = { DT_Q8_0, DT_MXFP4, DT_FP4, DT_Q2_K };
    (void)state;
    if (!(cpu_isa_detect() & CPU_AVX512VNNI))
        skip();
    cpu_kernels_plain(&vnni);
    cpu_kernels_avx2(&vnni);
    cpu_kernels_avx512(&vnni);
    tiles = vnni;
    kernels_emulated(&tiles);
    for (size_t t = 0; t < COUNT_OF(type); t++) {
        bool by_32 = vnni.product[TYPE_SLOT(type[t])].form == ACT_Q32;
        assert_ptr_not_equal(vnni.product[TYPE_SLOT(type[t])].band,
                             tiles.product[TYPE_SLOT(type[t])].band);
        compare(type[t], 256, 32, 16);
        compare(type[t], by_32 ? 32 * 3 : 512, 32, 33);
        compare(type[t], by_32 ? 32 * 19 : 768, 5, 128);
        compare(type[t], 512, 17, 65);
        compare(type[t], 256, 32, 7);
    }
}

#else

static void bands_agree(void **state)
{
    (void)state;
    skip();
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(bands_agree) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
