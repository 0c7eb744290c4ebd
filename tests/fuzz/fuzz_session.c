/* fuzz_session.c - session files from strangers: nothing but an error may come of them.
 *
 * A checksum in front of every field would keep a fuzzer out, so the head's is made right when the
 * input ends with an R to spare; damage to the other parts is what the checksums are for. */
#include "hash.h"
#include "kv_disk.h"
#include "pages.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_TOK 300
#define N_LAYER 3
#define N_BLOCK 4

static const int ratio[N_LAYER] = { 0, 4, 8 };
static const struct kv_shape shape = {
    .head_dim = 1,
    .index_dim = 1,
    .row_bytes = 4,
    .index_row_bytes = 4,
    .window = 4,
    .ring_cap = 16,
    .slack = 3,
    .block_tok = 128,
};
static const struct kv_disk_model model = { "identity of fuzz", 256 };

struct world {
    struct kv_pool pool;
    struct kv_seq seq;
    struct kv_mem pool_mem, seq_mem;
    char path[64];
};

static void map(struct kv_mem *mem, struct kv_bytes n)
{
    CHECK(pages_map(&mem->host, n.host, NULL) == 0 && pages_map(&mem->data, n.data, NULL) == 0);
}

static void world_open(struct world *w)
{
    struct kv_bytes n = kv_pool_bytes(&shape, ratio, N_LAYER, N_BLOCK);
    map(&w->pool_mem, n);
    kv_pool_init(&w->pool, &shape, ratio, N_LAYER, w->pool_mem, N_BLOCK);
    n = kv_seq_bytes(&w->pool, MAX_TOK, 2);
    map(&w->seq_mem, n);
    kv_seq_init(&w->seq, &w->pool, w->seq_mem, MAX_TOK, 2);
    snprintf(w->path, sizeof w->path, "%s/fuzz_session.%ld",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (long)getpid());
}

/* The checksum that the head's own counts ask for, where there is room for it. */
static void repair_head(uint8_t *file, size_t size)
{
    struct kv_disk_head h;
    if (size < sizeof h)
        return;
    memcpy(&h, file, sizeof h);
    if (h.n_mark < 0 || h.n_mark > KV_DISK_MAX_MARK || h.n_layer != N_LAYER)
        return;
    size_t n = sizeof h + 4 * N_LAYER + sizeof(struct kv_disk_mark) * (size_t)(1 + h.n_mark);
    if (n + sizeof(uint64_t) > size)
        return;
    uint64_t check = hash_of(file, n, 0);
    memcpy(file + n, &check, sizeof check);
}

static void write_file(const char *path, const uint8_t *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, size, f) == size);
    fclose(f);
}

/* A conversation of this length, to be replaced or kept. */
static void fill(struct kv_seq *s, int n)
{
    while (s->n_tok < n) {
        s->token[s->n_tok] = s->n_tok % 200;
        CHECK(kv_reserve(s, 1, NULL) == 0);
        kv_commit(s);
    }
}

/* What was loaded can be used: gone back in, gone on with, saved. */
static void use(struct world *w)
{
    struct kv_seq *s = &w->seq;
    kv_truncate(s, s->n_tok / 2);
    if (s->n_tok < MAX_TOK)
        fill(s, s->n_tok + 1);
    kv_mark(s, 3, true);
    CHECK(kv_disk_save(s, w->path, &model, "x", 1, NULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world w; /* opened once: mapping it anew for every input is most of the time */
    struct kv_disk d;
    struct buf extra;
    struct err e = { 0 };
    if (!w.seq_mem.host)
        world_open(&w);
    uint8_t *file = malloc(size + 1);
    CHECK(file);
    memcpy(file, data, size);
    if (size > 0 && file[size - 1] == 'R')
        repair_head(file, --size);
    write_file(w.path, file, size);
    free(file);
    kv_seq_release(&w.seq);
    fill(&w.seq, 50);
    buf_init(&extra, 1000);
    if (kv_disk_open(&d, w.path, &w.seq, &model, &extra, &e) == 0) {
        CHECK(kv_disk_load(&d, &w.seq, &e) == 0);
        kv_disk_close(&d);
        use(&w);
    } else {
        CHECK(e.code < 0 && e.text[0] && w.seq.n_tok == 50);
    }
    buf_release(&extra);
    unlink(w.path);
    return 0;
}
