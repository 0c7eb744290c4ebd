/* dtype.c - the table of types: how many elements and bytes make a block.
 *
 * A short list searched from the front; whoever needs a type's figures in a loop keeps the
 * pointer. Sizes are those of ggml's block structures and of the vendor's checkpoints. */
#include "quant.h"

static const struct dtype_info types[] = {
    { DT_F32, "F32", 1, 4 },
    { DT_F16, "F16", 1, 2 },
    { DT_Q4_0, "Q4_0", 32, 18 },
    { DT_Q8_0, "Q8_0", 32, 34 },
    { DT_Q2_K, "Q2_K", 256, 84 },
    { DT_Q3_K, "Q3_K", 256, 110 },
    { DT_Q4_K, "Q4_K", 256, 144 },
    { DT_Q5_K, "Q5_K", 256, 176 },
    { DT_Q6_K, "Q6_K", 256, 210 },
    { DT_IQ2_XXS, "IQ2_XXS", 256, 66 },
    { DT_IQ2_XS, "IQ2_XS", 256, 74 },
    { DT_I8, "I8", 1, 1 },
    { DT_I32, "I32", 1, 4 },
    { DT_I64, "I64", 1, 8 },
    { DT_BF16, "BF16", 1, 2 },
    { DT_MXFP4, "MXFP4", 32, 17 },
    { DT_F8_E4M3, "F8_E4M3", 1, 1 },
    { DT_F8_E8M0, "F8_E8M0", 1, 1 },
    { DT_FP4, "FP4", 2, 1 },
};

const struct dtype_info *dtype_info(int type)
{
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        if ((int)types[i].type == type)
            return &types[i];
    }
    return NULL;
}

const char *dtype_name(int type)
{
    const struct dtype_info *info = dtype_info(type);
    return info ? info->name : "?";
}

size_t dtype_bytes(enum dtype type, size_t n)
{
    const struct dtype_info *info = dtype_info((int)type);
    CHECK(info && n % (size_t)info->block == 0);
    size_t bytes;
    CHECK(mul_size(n / (size_t)info->block, (size_t)info->bytes, &bytes));
    return bytes;
}
