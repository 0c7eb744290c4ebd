/* test_synth_counted.c - random models without their bytes, in the sizes of the real ones. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base.h"
#include "cpu.h"
#include "sanitized.h"
#include "synth.h"
#include "weights.h"

#include <stdlib.h>

/* A model without its bytes takes no memory, whatever its size; what it says of them makes them. */
static void left_out(void **state)
{
    static const char *const shape[] = { "flash", "pro" };
    (void)state;
    for (size_t k = 0; k < COUNT_OF(shape); k++) {
        struct synth_options o = { .shape = shape[k], .recipe = "q2", .n_thread = 1, .seed = 1,
                                   .tokenizer = "models/pebble/tokenizer.json", .counted = true };
        struct file_memory m;
        struct weights *w;
        struct synth *s;
        struct err e = { 0 };
        size_t before = cpu_rss().now;
        if (synth_memory(&o, &m, &e) < 0)
            fail_msg("%s", e.text);
        if (weights_open(&w, m.path, &e) < 0)
            fail_msg("%s", e.text);
        assert_true(weights_file_bytes(w, 0) > (int64_t)86e9);
        assert_int_equal(synth_open(&s, &o, &e), 0);
        for (int i = 0; i < synth_n_tensor(s); i++) {
            struct synth_tensor t = synth_tensor_at(s, i);
            const struct weight *x = weights_find(w, t.name);
            int64_t last = t.dim[1] * t.dim[2] - 1, block = dtype_info((int)t.type)->block;
            size_t row = dtype_bytes(t.type, (size_t)t.dim[0]);
            uint8_t *want = malloc(row), *got = malloc(row);
            assert_int_equal(x->counted, t.type != DT_I32);
            synth_rows(s, i, last, 1, want);
            if (x->counted)
                quant_random(&x->random, (uint64_t)(last * t.dim[0] / block),
                             (size_t)(t.dim[0] / block), got);
            else
                memcpy(got, x->data + (size_t)last * row, row);
            assert_memory_equal(got, want, row);
            free(want);
            free(got);
        }
        assert_true(IS_SANITIZED || cpu_rss().now < before + ((size_t)64 << 20));
        synth_close(s);
        weights_close(w);
        file_memory_close(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
