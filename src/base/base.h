/* base.h - words that every file may use. */
#ifndef DS_BASE_H
#define DS_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

#if defined(__GNUC__)
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define PRINTF_LIKE(fmt, args)
#endif

/* A function that kernels use too: nvcc makes it once for each side. */
#ifdef __CUDACC__
#define ON_DEVICES __host__ __device__
#else
#define ON_DEVICES
#endif

/* Our own mistake, never bad input: says where and aborts, in release builds too. */
#define CHECK(cond) ((cond) ? (void)0 : check_failed(#cond, __FILE__, __LINE__))
_Noreturn void check_failed(const char *cond, const char *file, int line);

/* Pass a negative error code upward; only in functions that own nothing. */
#define TRY(expr)                  \
    do {                           \
        int try_code_ = (expr);    \
        if (try_code_ < 0)         \
            return try_code_;      \
    } while (0)

/* Product and sum of sizes that come from a file: false when they overflow. */
bool mul_size(size_t a, size_t b, size_t *out);
bool add_size(size_t a, size_t b, size_t *out);

/* "1.5 GiB": for messages, as bytes_text(n).s */
struct bytes_text {
    char s[16];
};
struct bytes_text bytes_text(double n);

/* Smallest multiple of `unit` (a power of two is not required) that is >= n. */
static inline size_t round_up(size_t n, size_t unit)
{
    return (n + unit - 1) / unit * unit;
}

#endif
