/* cmd_bench_tokenizer.c - `dstar bench tokenizer`: text to tokens and back, in MB/s. */
#include <stdio.h>
#include <stdlib.h>

#include "bench_report.h"
#include "clock.h"
#include "commands.h"
#include "engine_opts.h"
#include "file.h"
#include "term.h"

#define MAX_TEXT_BYTES ((size_t)1 << 30)

struct tokenizer_opts {
    struct engine_opts model;
    int repeat;
    bool csv, json;
};

#define AT(field) offsetof(struct tokenizer_opts, field)

static const struct opt options[] = {
    { "repeat", 'r', OPT_INT, "N", AT(repeat), 1, BENCH_MOST_REPEAT, "5",
      "measure N times; the median is shown, with the least and the most" },
    { "csv", 0, OPT_FLAG, NULL, AT(csv), 0, 0, NULL, "print comma-separated values" },
    { "json", 0, OPT_FLAG, NULL, AT(json), 0, 0, NULL,
      "print one JSON object with every measurement, the machine, the version and the model" },
};

/* There and back once; fails if the text that comes back is another one. */
static int once(const dstar_engine *engine, const struct buf *in, struct bench_row *row,
                struct dstar_error *error)
{
    struct dstar_tokens tokens = { 0 };
    char *text = NULL;
    size_t len = 0;
    double begin = clock_now_s(), middle = begin, end;
    int code = dstar_tokenise(engine, in->data, in->len, 0, &tokens, error);
    middle = clock_now_s();
    if (code >= 0)
        code = dstar_detokenise(engine, tokens.id, tokens.n, 1, &text, &len, error);
    end = clock_now_s();
    if (code >= 0 && (len != in->len || memcmp(text, in->data, len) != 0))
        code = fault_set(error, DSTAR_FORMAT,
                         "tokenizer: found another text after encoding and decoding");
    bench_add(&row->column[0], (double)in->len / 1e6 / MAX(middle - begin, 1e-9));
    bench_add(&row->column[1], (double)in->len / 1e6 / MAX(end - middle, 1e-9));
    dstar_free(text);
    dstar_tokens_release(&tokens);
    return code;
}

static int measure(const dstar_engine *engine, const struct tokenizer_opts *o,
                   const struct buf *in)
{
    static struct bench_row row;
    struct dstar_error error;
    row.at = (int)in->len;
    for (int i = 0; i < o->repeat; i++)
        if (once(engine, in, &row, &error) < 0)
            return fault_print(&error);
    struct bench_report report = {
        dstar_engine_info(engine), "bytes", { "encode", "decode" }, "MB/s", 2, 1, &row, 0, 1,
        0, 0, 0, NULL, NULL };
    bench_print(&report, o->json ? BENCH_JSON : o->csv ? BENCH_CSV : BENCH_TABLE);
    return EXIT_DONE;
}

int cmd_bench_tokenizer(const struct command *command, int n, char **arg)
{
    struct tokenizer_opts o = { 0 };
    struct opt_group group[2] = { { "measurement", options, COUNT_OF(options), &o },
                                  tokens_group(&o.model) };
    struct words words;
    struct buf in;
    struct err e = { 0 };
    dstar_engine *engine = NULL;
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n != 1)
        return opts_wrong(command, "found %d words, expected the name of one text file", words.n);
    buf_init(&in, MAX_TEXT_BYTES);
    if (file_read_all(&in, words.word[0], &e) < 0 || in.len == 0) {
        term_error("%s", e.code < 0 ? e.text : "the text is empty");
        status = EXIT_ERROR;
    } else {
        status = engine_start(&engine, &o.model);
    }
    if (status == 0)
        status = measure(engine, &o, &in);
    dstar_close(engine);
    buf_release(&in);
    return status;
}
