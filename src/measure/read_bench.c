/* read_bench.c - the reads that the engine makes, by the same code, into the same kind of memory,
 * of random experts of the whole file: what is read twice may come from somebody's cache. */
#include "read_bench.h"

#include "clock.h"
#include "expert_probe.h"
#include "file.h"
#include "rng.h"
#include "slab.h"
#include "weights.h"

#include <stdio.h>
#include <stdlib.h>

#define FLASH_EXPERTS 256
#define MOST_LAYERS 1024

struct read_bench {
    struct weights *files;
    const char **path;
    int n_file;
    struct expert_map map;
    struct expert_reads *reads;
    struct expert_probe probe;
    struct slab slab;
    int32_t *key; /* [n_key] those of experts */
    int n_key, most;
    struct rng rng;
    struct expert_load *load;       /* [most] */
    struct expert_arrival *arrival; /* [most] */
    uint64_t file_bytes;
};

/* Layers of three tensors each, as many as fit. */
static int map_any_file(struct read_bench *b, const struct read_bench_ask *ask, struct err *e)
{
    struct file_in f;
    TRY(file_in_open(&f, ask->path, e));
    b->file_bytes = (uint64_t)f.size;
    file_in_close(&f);
    uint64_t small = ask->expert_bytes * 11 / 36 / 4096 * 4096;
    uint64_t bytes[] = { small, small, ask->expert_bytes - 2 * small };
    static const enum expert_part part[] = { EXPERT_GATE, EXPERT_UP, EXPERT_DOWN };
    uint64_t n_layer = b->file_bytes / FLASH_EXPERTS / ask->expert_bytes;
    if (small == 0 || n_layer == 0)
        return err_set(e, ERR_ARGUMENT, "%s: has %llu bytes, expected at least %d experts of 13 "
                       "KiB or more", ask->path, (unsigned long long)b->file_bytes, FLASH_EXPERTS);
    n_layer = MIN(n_layer, MOST_LAYERS);
    TRY(expert_map_open(&b->map, (int)n_layer, FLASH_EXPERTS, e));
    struct expert_extent at = { 0 };
    for (int l = 0; l < (int)n_layer; l++) {
        for (int p = 0; p < 3; p++) {
            at.bytes = bytes[p];
            expert_map_stack(&b->map, l, part[p], &at);
            at.offset += at.bytes * FLASH_EXPERTS;
        }
    }
    b->path[b->n_file++] = ask->path;
    return 0;
}

/* The layer of a tensor of routed experts, and which part it is; -1: it is another tensor. */
static int layer_of(const struct weight *w, enum expert_part *part)
{
    int layer = -1;
    char name[8] = "";
    if (w->n_dim != 3 || sscanf(w->name, "blk.%d.ffn_%4[a-z]_exps.weight", &layer, name) != 2)
        return -1;
    *part = strcmp(name, "gate") == 0 ? EXPERT_GATE : strcmp(name, "up") == 0 ? EXPERT_UP
                                                                              : EXPERT_DOWN;
    return layer < MOST_LAYERS ? layer : -1;
}

static int map_model(struct read_bench *b, const struct read_bench_ask *ask, struct err *e)
{
    TRY(weights_open(&b->files, ask->path, e));
    enum expert_part part;
    int n_layer = 0, n_expert = 0;
    for (int i = 0; i < weights_count(b->files); i++) {
        const struct weight *w = weights_at(b->files, i);
        int layer = layer_of(w, &part);
        n_layer = MAX(n_layer, layer + 1);
        if (layer >= 0 && n_expert > 0 && w->dim[2] != n_expert)
            return err_set(e, ERR_FORMAT, "%s: %s: found %lld experts, expected %d as in other "
                           "layers", ask->path, w->name, (long long)w->dim[2], n_expert);
        if (layer >= 0)
            n_expert = (int)w->dim[2];
    }
    if (n_layer == 0 || n_expert < 1)
        return err_set(e, ERR_FORMAT, "%s: found no tensors of routed experts, expected a GGUF "
                       "file with blk.N.ffn_gate_exps.weight", ask->path);
    TRY(expert_map_open(&b->map, n_layer, n_expert, e));
    for (int i = 0; i < weights_count(b->files); i++) {
        const struct weight *w = weights_at(b->files, i);
        int layer = layer_of(w, &part);
        struct expert_extent at = { (uint64_t)w->offset, w->bytes / (uint64_t)n_expert, w->file };
        if (layer >= 0)
            expert_map_stack(&b->map, layer, part, &at);
    }
    for (int i = 0; i < weights_n_file(b->files); i++) {
        b->file_bytes += (uint64_t)weights_file_bytes(b->files, i);
        b->path[b->n_file++] = weights_file(b->files, i);
    }
    return 0;
}

static int map_experts(struct read_bench *b, const struct read_bench_ask *ask, struct err *e)
{
    b->path = calloc(MOST_LAYERS, sizeof *b->path);
    if (!b->path)
        return err_set(e, ERR_NO_MEMORY, "out of memory for names of files");
    TRY(ask->expert_bytes ? map_any_file(b, ask, e) : map_model(b, ask, e));
    int n = b->map.n_layer * b->map.n_expert;
    b->key = calloc((size_t)n, sizeof *b->key);
    if (!b->key)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d experts", n);
    for (int key = 0; key < n; key++)
        if (expert_map_bytes(&b->map, key) > 0)
            b->key[b->n_key++] = key;
    return 0;
}

/* Where places lie depends on the files' alignment, and reads that have memory registered on it
 * in turn: so the files are opened twice. */
static int open_reads(struct read_bench *b, const struct read_bench_ask *ask, struct err *e)
{
    struct expert_reads_ask r = {
        .map = &b->map, .most_places = MAX(b->most, EXPERT_PROBE_PLACES),
        .io = { .path = ask->io == AIO_URING_FIXED ? AIO_AUTO : ask->io,
                .depth = ask->depth, .file = b->path, .n_file = b->n_file,
                .one_thread = true },
    };
    TRY(expert_reads_open(&b->reads, &r, e));
    size_t bytes = expert_reads_place_bytes(b->reads) * (size_t)r.most_places;
    TRY(slab_open(&b->slab, bytes, NULL, e));
    if (!ask->fixed)
        return 0;
    expert_reads_close(b->reads);
    b->reads = NULL;
    r.io.path = ask->io;
    r.io.mem = b->slab.mem;
    r.io.mem_bytes = b->slab.size;
    return expert_reads_open(&b->reads, &r, e);
}

static int open_all(struct read_bench *b, const struct read_bench_ask *ask, struct err *e)
{
    b->load = calloc((size_t)b->most, sizeof *b->load);
    b->arrival = calloc((size_t)b->most, sizeof *b->arrival);
    if (!b->load || !b->arrival)
        return err_set(e, ERR_NO_MEMORY, "out of memory for a bench");
    TRY(map_experts(b, ask, e));
    TRY(open_reads(b, ask, e));
    TRY(expert_probe(&b->probe, b->reads, b->slab.mem, EXPERT_PROBE_PLACES, 0, e));
    b->probe.depth = expert_reads_io(b->reads)->depth;
    return 0;
}

int read_bench_open(struct read_bench **out, const struct read_bench_ask *ask, struct err *e)
{
    CHECK(ask->most > 0);
    *out = NULL;
    struct read_bench *b = calloc(1, sizeof *b);
    if (!b)
        return err_set(e, ERR_NO_MEMORY, "out of memory for a bench");
    b->most = ask->most;
    b->rng.seed = (uint64_t)(clock_now_s() * 1e9);
    int code = open_all(b, ask, e);
    if (code < 0) {
        read_bench_close(b);
        return code;
    }
    *out = b;
    return 0;
}

void read_bench_close(struct read_bench *b)
{
    if (!b)
        return;
    if (expert_reads_close(b->reads) == 0)
        slab_close(&b->slab);
    expert_map_close(&b->map);
    weights_close(b->files);
    free(b->path);
    free(b->key);
    free(b->load);
    free(b->arrival);
    free(b);
}

void read_bench_info(const struct read_bench *b, struct read_bench_info *out)
{
    *out = (struct read_bench_info){
        .io = expert_reads_io(b->reads), .file_bytes = b->file_bytes, .n_expert = b->n_key,
        .expert_bytes = expert_map_bytes(&b->map, b->key[0]), .depth = b->probe.depth,
        .huge_bytes = b->slab.huge_bytes, .slab_bytes = b->slab.size,
    };
    memcpy(out->probe_rate, b->probe.rate, sizeof out->probe_rate);
}

int read_bench_batch(struct read_bench *b, int n, double *seconds, double *bytes, struct err *e)
{
    CHECK(n > 0 && n <= b->most);
    *bytes = 0;
    for (int i = 0; i < n; i++) {
        int key = b->key[rng_next(&b->rng) % (uint64_t)b->n_key];
        void *place = b->slab.mem + (size_t)i * expert_reads_place_bytes(b->reads);
        b->load[i] = (struct expert_load){ i, key, 1, 0, EXPERT_DEMAND, place };
        *bytes += (double)expert_map_bytes(&b->map, key);
    }
    double begin = clock_now_s();
    int code = 0;
    expert_reads_start(b->reads, b->load, n);
    while (expert_reads_busy(b->reads) > 0) {
        int got = expert_reads_poll(b->reads, b->arrival, n, 1.0);
        for (int i = 0; i < got; i++)
            if (b->arrival[i].code)
                code = err_set(e, b->arrival[i].code, "%s", b->arrival[i].why);
    }
    *seconds = clock_now_s() - begin;
    return code;
}
