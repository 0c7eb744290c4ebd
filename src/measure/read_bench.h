/* read_bench.h - how fast a file gives experts, in batches as a layer of a token asks for them. */
#ifndef DS_READ_BENCH_H
#define DS_READ_BENCH_H

#include "aio.h"
#include "error.h"

struct read_bench_ask {
    const char *path;      /* a GGUF model, whose routed experts are read ... */
    uint64_t expert_bytes; /* ... or, if not 0, any file as if it were full of experts of this
                              size, 256 of a layer; gate and up are 11/36 of it each, as in 2-bit
                              Flash */
    enum aio_path io;
    int depth;             /* 0: as the probe finds it */
    bool fixed;            /* memory is registered, where it can be */
    int most;              /* experts of a batch, at most */
};

struct read_bench_info {
    const struct aio_info *io;
    uint64_t file_bytes, expert_bytes;
    int n_expert;          /* in the file */
    double probe_rate[6];  /* bytes per second with 1, 2, 4 ... 32 reads in flight */
    int depth;             /* reads in flight, at most */
    size_t huge_bytes, slab_bytes;
};

struct read_bench;

/* Probes the drive, for half a second. ERR_FORMAT: no routed experts in the file. */
int read_bench_open(struct read_bench **b, const struct read_bench_ask *ask, struct err *e);
void read_bench_close(struct read_bench *b); /* NULL is fine */
void read_bench_info(const struct read_bench *b, struct read_bench_info *out);

/* n random experts at once, and wait for all of them: seconds, and bytes that were wanted. */
int read_bench_batch(struct read_bench *b, int n, double *seconds, double *bytes, struct err *e);

#endif
