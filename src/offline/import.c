/* import.c - open, plan everything, announce everything, then convert tensor by tensor.
 *
 * All that can be refused is refused before the first byte of data is written: an import of a
 * large model takes an hour, and a wrong name should not be found at its end. */
#include "import_impl.h"

#include <stdlib.h>

enum { RUN_ELEMENTS = 1 << 20 }; /* converted at once, unless a single row is longer */

static int open_sources(struct import *im, struct err *e)
{
    int n = weights_n_file(im->files);
    im->in = calloc((size_t)n, sizeof *im->in);
    if (!im->in)
        return err_set(e, ERR_NO_MEMORY, "out of memory for %d files", n);
    for (int i = 0; i < n; i++)
        TRY(file_in_open(&im->in[i], weights_file(im->files, i), e));
    return 0;
}

static int take_buffers(struct import *im, struct err *e)
{
    im->row_elements = MAX(im->row_elements, RUN_ELEMENTS);
    size_t n = (size_t)im->row_elements;
    im->src = malloc(n * 8); /* I64 is the widest */
    im->scale = malloc(n);   /* one per column at the very least */
    im->dst = malloc(n * 4);
    im->num = malloc(n * 4);
    if (!im->src || !im->scale || !im->dst || !im->num)
        return err_set(e, ERR_NO_MEMORY, "out of memory for rows of %zu", n);
    return 0;
}

static int announce(struct import *im, struct err *e)
{
    char name[DSV4_NAME_MAX];
    for (int i = 0; i < im->n_job; i++) {
        const struct import_job *job = &im->job[i];
        int number = gguf_add_tensor(&im->out, dsv4_gguf_name(name, job->role, job->block),
                                     job->type, job->n_dim, job->dim, e);
        TRY(number);
        CHECK(number == i);
        im->total += (int64_t)gguf_tensor_bytes(&im->out, i);
    }
    return gguf_write_begin(&im->out, e);
}

static int run(struct import *im, struct err *e)
{
    TRY(weights_open(&im->files, im->o->dir, e));
    if (weights_kind(im->files) != WEIGHTS_CHECKPOINT)
        return err_set(e, ERR_ARGUMENT, "%s: is a GGUF file, expected a checkpoint folder",
                       im->o->dir);
    TRY(dsv4_hyper_read(&im->h, weights_meta(im->files), WEIGHTS_CHECKPOINT, e));
    TRY(import_plan(im, e));
    TRY(open_sources(im, e));
    TRY(take_buffers(im, e));
    TRY(gguf_write_open(&im->out, im->o->out, e));
    TRY(import_keys(im, e));
    TRY(announce(im, e));
    for (int i = 0; i < im->n_job; i++)
        TRY(import_convert(im, i, e));
    return gguf_write_finish(&im->out, e);
}

int import_run(const struct import_options *o, struct err *e)
{
    struct import im = { .o = o };
    int code = run(&im, e);
    gguf_write_abort(&im.out); /* nothing is left to abort after success */
    for (int i = 0; im.in && i < weights_n_file(im.files); i++)
        file_in_close(&im.in[i]);
    free(im.in);
    free(im.src);
    free(im.scale);
    free(im.dst);
    free(im.num);
    free(im.used);
    free(im.job);
    weights_close(im.files);
    return code;
}
