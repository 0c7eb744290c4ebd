/* fuzz_imatrix.c - libFuzzer: no bytes whatever make the reader of importance matrices crash, hang
 * or hand out a value that does not lie in the file. Seeds: corpus/imatrix. */
#include "imatrix.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct imatrix *m;
    struct err e = { 0 };
    if (imatrix_parse(&m, "fuzz", data, size, &e) < 0) {
        CHECK(!m && e.code != ERR_NONE && e.text[0] && !strchr(e.text, '\n'));
        return 0;
    }
    for (int i = 0; i < imatrix_count(m); i++) {
        static const int64_t shape[][2] = { { 4, 1 }, { 4, 2 }, { 1, 1 }, { 256, 3 } };
        for (size_t k = 0; k < COUNT_OF(shape); k++) {
            float mean[256];
            double n;
            if (imatrix_check(m, i, shape[k][0], shape[k][1], NULL) < 0)
                continue;
            imatrix_read(m, i, shape[k][1] - 1, shape[k][0], mean, &n, NULL);
            if (imatrix_has_values(m, i))
                imatrix_read_values(m, i, shape[k][1] - 1, shape[k][0], mean, NULL);
        }
    }
    imatrix_close(m);
    return 0;
}
