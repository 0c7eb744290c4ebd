/* reference_impl.h - what the writer and the reader of a reference agree on. */
#ifndef DS_REFERENCE_IMPL_H
#define DS_REFERENCE_IMPL_H

#include "hash.h"
#include "reference.h"

enum { REFERENCE_VERSION = 1, REFERENCE_MAX_TEXT = 1 << 24 };

/* In the order of the file. */
enum reference_part {
    REF_TOKENS, REF_SCORED, REF_LOGPROB, REF_ROUTE, REF_BEST, REF_NLL, REF_CHECK, REF_STREAM,
    REF_STREAM_CHECK, REF_N_PART
};

/* Name, type and shape of a part. */
struct reference_tensor {
    const char *name;
    int type; /* enum dtype */
    int n_dim;
    int64_t dim[2];
};

struct reference_sizes {
    int64_t n_tok, n_row, n_sample;
    struct observe_shape shape;
};

/* The number of tensors: without samples there are no streams. */
int reference_tensors(struct reference_tensor out[REF_N_PART], const struct reference_sizes *s);

/* A row as it is checked. */
uint64_t reference_hash_row(const struct observe_shape *s, const uint16_t *logprob,
                            const int32_t *route, int32_t best, float nll);

/* Of all tokens of the vocabulary, their number included. */
uint64_t reference_hash_vocab(const dstar_engine *engine, int n_vocab);

#endif
