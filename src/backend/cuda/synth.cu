/* synth.cu - random weights made where they will be read: the bytes of src/quant/quant_random.c.
 *
 * A thread makes a block in shared memory, from where a group of them goes out in whole words; or
 * eight elements. */
#include "device_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
#include "quant_random_block.h"
}

#define GROUP 256 /* threads: of so many blocks of any type the bytes are whole words */

__global__ void random_block_kernel(struct quant_random q, int n_word, int bytes, size_t from,
                                    size_t n, uint8_t *to)
{
    SHARED_DYNAMIC(uint8_t, made);
    size_t first = (size_t)blockIdx.x * GROUP, at = first + threadIdx.x;
    uint64_t w[QUANT_RANDOM_WORDS];
    if (at < n) {
        for (int i = 0; i < n_word; i++)
            w[i] = rng_at(q.key, (from + at) * n_word + i);
        random_block(q.type, w, q.shift, made + threadIdx.x * bytes);
    }
    __syncthreads();
    int n_byte = (int)MIN(n - first, (size_t)GROUP) * bytes, i;
    to += first * bytes;
    for (i = (int)threadIdx.x; i < n_byte / 4; i += GROUP)
        ((uint32_t *)to)[i] = ((const uint32_t *)(const void *)made)[i];
    for (i = n_byte / 4 * 4 + (int)threadIdx.x; i < n_byte; i += GROUP)
        to[i] = made[i];
}

/* What each byte of a word stands for. */
struct random_codes {
    uint32_t code[256];
};

template <class T>
__global__ void random_element_kernel(uint64_t key, struct random_codes c, size_t from, size_t n,
                                      T *to)
{
    size_t at = ((size_t)blockIdx.x * GROUP + threadIdx.x) * 8;
    if (at >= n)
        return;
    uint64_t w = rng_at(key, (from + at) / 8);
    for (int i = 0; i < 8 && at + i < n; i++)
        to[at + i] = (T)c.code[w >> 8 * i & 255];
}

template <class T>
static void random_elements(struct dev *d, const struct quant_random *q, size_t from, size_t n,
                            void *to)
{
    struct random_codes c;
    quant_random_codes(q, c.code);
    LAUNCH(d, random_element_kernel<T>, blocks_for(n, 8 * GROUP), GROUP, 0, q->key, c, from, n,
           (T *)to);
}

void cuda_random(struct dev *d, const struct quant_random *q, size_t from, size_t n, void *to)
{
    int n_word = quant_random_words(q->type), bytes = (int)quant_random_bytes(q->type);
    if (!n || d->err.code != ERR_NONE)
        return;
    if (n_word)
        LAUNCH(d, random_block_kernel, blocks_for(n, GROUP), GROUP, (size_t)GROUP * bytes, *q,
               n_word, bytes, from, n, (uint8_t *)to);
    else if (bytes == 4)
        random_elements<uint32_t>(d, q, from, n, to);
    else if (bytes == 2)
        random_elements<uint16_t>(d, q, from, n, to);
    else
        random_elements<uint8_t>(d, q, from, n, to);
}
