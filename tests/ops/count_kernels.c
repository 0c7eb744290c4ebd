/* count_kernels.c - every hot kernel of the AVX2 table once, each under a name of its own, for
 * counting instructions with callgrind (tests/ops/count). Not a test by itself.
 *
 * Valgrind knows no AVX-512. Products are of 32 weight rows where they go through bands, else of
 * four. Inputs are counted, not random: the same instructions every time. */
#include <stdio.h>
#include <stdlib.h>
#include <valgrind/callgrind.h>

#include "cpu.h"
#include "cpu_impl.h"
#include "kv_row.h"
#include "quant_random.h"

enum { K = 4096, HEAD = 512, ROPE = 64, INDEX = 128, N_X = 32 };

static void *memory(size_t n)
{
    void *p = aligned_alloc(64, round_up(n, 64));
    CHECK(p);
    memset(p, 0, round_up(n, 64));
    return p;
}

static void begin(void)
{
    CALLGRIND_ZERO_STATS;
}

static void end(const char *name)
{
    CALLGRIND_DUMP_STATS_AT(name);
    printf("%s\n", name);
}

static float *numbers(int n)
{
    float *x = memory((size_t)n * sizeof *x);
    struct quant_random q = { .type = DT_F32, .key = 1, .shift = -7 };
    quant_random(&q, 0, (size_t)n, (uint8_t *)x);
    return x;
}

/* What drivers would call for n_x rows of activations: a band, or a tile of four rows. */
static void multiply(const struct product_kernel *kernel, const struct band *b)
{
    struct tile t = { .n_w = TILE_W, .n_x = b->n_x, .k = b->k };
    memcpy(t.w, b->w, sizeof t.w);
    memcpy(t.scale, b->scale, sizeof t.scale);
    memcpy(t.x, b->x, (size_t)b->n_x * sizeof *t.x);
    memcpy(t.out, b->out, (size_t)b->n_x * sizeof *t.out);
    begin();
    if (kernel->band && b->n_x >= kernel->band_x)
        kernel->band(b);
    else
        kernel->tile(&t);
}

/* Rows of one type by n_x rows of activations. */
static void product(const struct cpu *c, enum dtype type, int n_x)
{
    struct product_kernel kernel = cpu_product_kernel(c, type, false);
    const void *in[N_X];
    float *to[N_X];
    struct band b = { .x = in, .out = to, .n_w = BAND_W, .n_x = n_x, .k = K };
    struct quant_random q = { .type = type, .key = 2 };
    size_t row = dtype_bytes(type, K);
    size_t block = type == DT_FP4 ? 32 : (size_t)dtype_info((int)type)->block;
    uint8_t *w = memory(BAND_W * row), *scale = memory(K / 32);
    float *out = memory(N_X * BAND_W * sizeof *out);
    char name[64];
    q.shift = quant_random_shift(type, 1.0 / 64);
    quant_random(&q, 0, BAND_W * K / block, w);
    memset(scale, 120, K / 32);
    for (int j = 0; j < BAND_W; j++) {
        b.w[j] = w + (size_t)j * row;
        b.scale[j] = scale;
    }
    for (int i = 0; i < n_x; i++) {
        float *x = numbers(K);
        uint8_t *packed = memory(act_bytes(kernel.form, K) + 64);
        if (kernel.form != ACT_F32)
            c->k.pack[kernel.form](x, packed, K);
        in[i] = kernel.form == ACT_F32 ? (void *)x : packed;
        to[i] = out + i * BAND_W;
    }
    snprintf(name, sizeof name, "product_%s_%d", dtype_name((int)type), n_x);
    multiply(&kernel, &b);
    end(name);
}

static void products(const struct cpu *c)
{
    static const enum dtype types[] = { DT_F32, DT_F16, DT_BF16, DT_F8_E4M3, DT_Q8_0, DT_Q4_K,
                                        DT_MXFP4, DT_FP4, DT_Q2_K, DT_IQ2_XXS };
    static const int rows[] = { 1, 4, 8, 32 };
    for (size_t i = 0; i < COUNT_OF(types); i++)
        for (size_t j = 0; j < COUNT_OF(rows); j++)
            product(c, types[i], rows[j]);
}

static void packing(const struct cpu_kernels *k)
{
    float *x = numbers(K), *out = memory(K * sizeof *out);
    uint8_t *packed = memory(act_bytes(ACT_Q32, K) + act_bytes(ACT_Q256, K));
    uint8_t *row = memory(kv_row_bytes(HEAD, ROPE)), *index = memory(kv_index_row_bytes(INDEX));
    kv_row_pack(x, HEAD, ROPE, row);
    kv_index_row_pack(x, INDEX, index);
    begin();
    k->pack[ACT_Q32](x, packed, K);
    end("pack_Q32");
    begin();
    k->pack[ACT_Q256](x, packed, K);
    end("pack_Q256");
    begin();
    k->kv_unpack(row, HEAD, ROPE, out);
    end("kv_unpack");
    begin();
    k->index_unpack(index, INDEX, out);
    end("index_unpack");
    begin();
    k->hadamard(x, INDEX);
    end("hadamard");
    begin();
    k->fp4_simulate(x, INDEX);
    end("fp4_simulate");
}

static void plain(const struct cpu_kernels *k)
{
    float *x = numbers(K), *y = numbers(K), *out = memory(KEY_TILE * HEAD * sizeof *out);
    float *keys = numbers(KEY_TILE * HEAD), *p = numbers(8 * KEY_TILE);
    struct blend b = { .out = out, .p = p, .row = keys, .out_pitch = HEAD, .p_pitch = KEY_TILE,
                       .row_pitch = HEAD, .n_out = 8, .n_row = KEY_TILE, .dim = HEAD };
    begin();
    k->blend(&b);
    end("blend");
    begin();
    k->transpose(out, keys, KEY_TILE, HEAD);
    end("transpose");
    begin();
    k->sum_squares(x, K);
    end("sum_squares");
    begin();
    k->scale_row(out, x, y, .5f, K);
    end("scale_row");
    begin();
    k->swiglu(out, x, y, K, 10, .5f);
    end("swiglu");
    begin();
    k->exp_sum(x, 640, 3);
    end("exp_sum");
}

int main(void)
{
    static struct cpu c;
    c.isa = cpu_isa_detect() & CPU_AVX2;
    if (!c.isa) {
        printf("no AVX2\n");
        return 0;
    }
    cpu_kernels_fill(&c);
    products(&c);
    packing(&c.k);
    plain(&c.k);
    return 0;
}
