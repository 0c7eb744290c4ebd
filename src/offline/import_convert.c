/* import_convert.c - the bytes of one tensor, a run of rows at a time.
 *
 * Sources are read, not mapped: a mapped checkpoint of 865 GB would push everything else out of
 * memory, and a disk that fails gives an error instead of a signal. */
#include "import_impl.h"

#include <stdlib.h>

enum { TILE = 128 };

/* Rows [row, row + n) of one source. */
struct run {
    const struct weight *w, *scales; /* scales: NULL or their tensor, perhaps in another file */
    int64_t row, n;
    size_t src_bytes, dst_bytes;
};

static int read_run(struct import *im, const struct run *r, struct err *e)
{
    const struct weight *w = r->w, *s = r->scales;
    size_t row_bytes = dtype_bytes(w->type, (size_t)w->dim[0]);
    TRY(file_in_read_at(&im->in[w->file], w->offset + r->row * (int64_t)row_bytes, im->src,
                        r->src_bytes, e));
    if (!s)
        return 0;
    int64_t first = w->type == DT_FP4 ? r->row : r->row / TILE;
    int64_t last = w->type == DT_FP4 ? r->row + r->n - 1 : (r->row + r->n - 1) / TILE;
    return file_in_read_at(&im->in[s->file], s->offset + first * s->dim[0], im->scale,
                           (size_t)((last - first + 1) * s->dim[0]), e);
}

static int not_finite(const struct import *im, const struct run *r, int64_t i, struct err *e)
{
    return err_set(e, ERR_FORMAT,
                   "%s: tensor %s, row %lld, element %lld is infinite or not a number",
                   weights_file(im->files, r->w->file), r->w->name,
                   (long long)(r->row + i / r->w->dim[0]), (long long)(i % r->w->dim[0]));
}

/* An exponent of all ones. */
static int check_numbers(const struct import *im, const struct run *r, struct err *e)
{
    int64_t n = r->n * r->w->dim[0];
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, im->num + i, sizeof bits);
        if ((bits & 0x7f800000) == 0x7f800000)
            return not_finite(im, r, i, e);
    }
    return 0;
}

static void decode_rows(struct import *im, const struct run *r)
{
    const struct weight *w = r->w;
    size_t row_bytes = dtype_bytes(w->type, (size_t)w->dim[0]);
    for (int64_t i = 0; i < r->n; i++) {
        int64_t tile = w->type == DT_FP4 ? i : (r->row + i) / TILE - r->row / TILE;
        quant_decode(w->type, im->src + (size_t)i * row_bytes,
                     r->scales ? im->scale + tile * r->scales->dim[0] : NULL,
                     im->num + i * w->dim[0], (int)w->dim[0]);
    }
}

static int pack_experts(struct import *im, const struct run *r, struct err *e)
{
    int64_t cols = r->w->dim[0], n_scale = r->n * cols / 32;
    for (int64_t i = 0; i < n_scale; i++) {
        if (im->scale[i] == 0xff)
            return not_finite(im, r, i * 32, e);
    }
    for (int64_t i = 0; i < r->n; i++)
        quant_fp4_to_mxfp4(im->src + i * cols / 2, im->scale + i * r->scales->dim[0],
                           im->dst + i * cols / 32 * 17, (int)cols);
    return 0;
}

static int convert_ids(struct import *im, const struct run *r, struct err *e)
{
    int64_t n = r->n * r->w->dim[0];
    for (int64_t i = 0; i < n; i++) {
        int64_t id = 0;
        int32_t id32;
        if (r->w->type == DT_I64) {
            memcpy(&id, im->src + 8 * i, 8);
        } else {
            memcpy(&id32, im->src + 4 * i, 4);
            id = id32;
        }
        if (id < 0 || id >= im->h.n_expert)
            return err_set(
                e, ERR_FORMAT, "%s: tensor %s, row %lld names expert %lld, expected 0 to %d",
                weights_file(im->files, r->w->file), r->w->name,
                (long long)(r->row + i / r->w->dim[0]), (long long)id, im->h.n_expert - 1);
        id32 = (int32_t)id;
        memcpy(im->dst + 4 * i, &id32, 4);
    }
    return 0;
}

static int convert_run(struct import *im, const struct run *r, enum dtype to, struct err *e)
{
    if (to == DT_I32)
        return convert_ids(im, r, e);
    if (to == DT_MXFP4)
        return pack_experts(im, r, e);
    decode_rows(im, r);
    TRY(check_numbers(im, r, e));
    if (to == r->w->type)
        memcpy(im->dst, im->src, r->src_bytes);
    else
        CHECK(quant_encode(to, im->num, im->dst, (int)(r->n * r->w->dim[0])));
    return 0;
}

int import_convert(struct import *im, int i, struct err *e)
{
    const struct import_job *job = &im->job[i];
    const struct import_options *o = im->o;
    int64_t cols = job->dim[0], rows = job->dim[1], run = MAX(im->row_elements / cols, 1);
    size_t at = 0;
    for (int x = 0; x < job->n_source; x++) {
        struct run r = { .w = import_source(im, job, x) };
        r.scales = import_scales(im, r.w);
        for (; r.row < rows; r.row += r.n) {
            r.n = MIN(run, rows - r.row);
            r.src_bytes = dtype_bytes(r.w->type, (size_t)(r.n * cols));
            r.dst_bytes = dtype_bytes(job->type, (size_t)(r.n * cols));
            TRY(read_run(im, &r, e));
            TRY(convert_run(im, &r, job->type, e));
            TRY(gguf_write_data(&im->out, i, at, im->dst, r.dst_bytes, e));
            at += r.dst_bytes;
            im->done += (int64_t)r.dst_bytes;
            if (o->progress && o->progress(o->user, im->done, im->total))
                return err_set(e, ERR_CANCELLED, "%s: the import was cancelled", o->out);
        }
    }
    return 0;
}
