/* quant_encode.h - encoders that search: among all blocks a format can hold, one whose weighted
 * error sum of weight (x - y)^2 is small.
 *
 * The same numbers give the same bytes on every machine, instruction set and thread. Nothing here
 * takes memory; a struct quant_search lies in memory of the caller and serves one thread at a
 * time. What the searches are, and what was measured: docs/quantisation.md. */
#ifndef DS_QUANT_ENCODE_H
#define DS_QUANT_ENCODE_H

#include "quant.h"

enum quant_effort {
    QUANT_FAST,
    QUANT_EXACT, /* IQ2_XXS: the optimum, proven for each block; others: a wider search */
};

struct quant_search;

/* Memory for one; aligned to 64. isa: bits of enum cpu_isa that may be used. */
size_t quant_search_bytes(void);
struct quant_search *quant_search_init(void *mem, enum quant_effort effort, unsigned isa);

/* Does the type have a search: IQ2_XXS, Q2_K, Q4_K, MXFP4? */
bool quant_has_search(enum dtype type);

/* n numbers, whole blocks, all finite. weight: n numbers, finite and not negative, only their
 * ratios within a block of 256 matter; NULL or all zero in a block: all equal. */
void quant_search_row(struct quant_search *q, enum dtype type, const float *x, const float *weight,
                      void *dst, int n);

/* Coding one block in steps, so that what is still uncoded may answer for the error so far: encode
 * the block, which settles its scales, then choose the codes of elements [at, at + group) again for
 * other numbers. x: those numbers, replaced by what the codes decode to. IQ2_XXS, Q2_K, Q4_K. */
int quant_group(enum dtype type); /* 8, 1, 1: elements coded together */
void quant_search_group(struct quant_search *q, enum dtype type, void *block, int at, float *x,
                        const float *weight);

/* The weights that published encoders make of an importance per column (NULL: ones): importance
 * (mean of x^2 in the block of 256 + x^2)^power, theirs with power 1/2; here a multiple of 1/4. */
void quant_emphasise(const float *x, const float *importance, float power, float *weight, int n);

/* A run of packed numbers. scale: as for quant_decode(). */
struct quant_run {
    enum dtype type;
    const void *data;
    const uint8_t *scale;
};

/* To another form without a search: to F32, F16, BF16, Q8_0, or from FP4 to MXFP4, with the bytes
 * of quant_decode() and quant_encode() or quant_fp4_to_mxfp4(). num: n floats of scratch. False
 * when a number is not finite, or not once it is packed. */
bool quant_recode(const struct quant_search *q, const struct quant_run *from, enum dtype to,
                  void *dst, float *num, int n);

#endif
