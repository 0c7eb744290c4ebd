/* answer_report.c - what an answer cost, for people and for programs. */
#include <stdio.h>
#include <stdlib.h>

#include "answer.h"
#include "cpu.h"
#include "term.h"

const char *answer_finish(const struct answer *a)
{
    static const char *const name[] = { "stop", "length", "tool_calls" };
    return a->interrupted ? "interrupted" : name[a->finish];
}

static double rate_of(int64_t n, double s)
{
    return n > 0 && s > 0 ? (double)n / s : 0;
}

/* "prompt 25 tok 37.1/s" */
static void add_part(struct buf *out, const char *what, int n_tok, int64_t n, double s)
{
    double rate = rate_of(n, s);
    buf_printf(out, "%s %d tok", what, n_tok);
    if (rate > 0)
        buf_printf(out, " %.*f/s", rate < 100, rate);
}

void answer_figures(const struct answer *a, struct buf *out)
{
    char text[16];
    add_part(out, "prompt", a->n_prompt, a->took.n_prefill, a->took.prefill_s);
    if (a->n_kept)
        buf_printf(out, " (%d kept)", a->n_kept);
    add_part(out, ", answer", a->n_answer, a->took.n_decode, a->took.decode_s);
    if (a->took.first_token_s > 0)
        buf_printf(out, ", first %s", term_seconds(text, a->took.first_token_s));
    buf_printf(out, ", %s", term_bytes(text, (double)cpu_rss().peak));
    if (a->interrupted)
        buf_puts(out, ", interrupted");
    else if (a->full)
        buf_puts(out, ", context full");
    else if (a->finish == DSTAR_FINISH_LENGTH)
        buf_puts(out, ", cut off");
    if (a->flow.is_streaming || a->flow.n_near < a->flow.n_split) {
        buf_puts(out, "\n");
        flow_line(&a->flow, a->took.decode_s, out);
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double answer_token_s(const struct answer *a, double share)
{
    size_t n = a->token_s.len / sizeof(double), at = (size_t)((double)n * share);
    double *copy = n ? malloc(n * sizeof *copy) : NULL, found = 0;
    if (copy) {
        memcpy(copy, a->token_s.data, n * sizeof *copy);
        qsort(copy, n, sizeof *copy, ascending);
        found = copy[MIN(at, n - 1)];
    }
    free(copy);
    return found;
}

/* Three decimals are enough for seconds and rates, and keep the lines readable. */
static json_t *rounded(double x)
{
    return json_real((double)(int64_t)(x * 1000 + 0.5) / 1000);
}

static json_t *flow_of_answer(const struct answer *a, dstar_engine *engine)
{
    struct buf text;
    buf_init(&text, (size_t)1 << 20);
    flow_json(engine, &a->flow, &text);
    json_t *flow = text.failed ? NULL : json_loads(text.data, 0, NULL);
    buf_release(&text);
    return flow ? flow : json_null();
}

void answer_print_flow(const struct answer *a, dstar_engine *engine)
{
    json_t *flow = flow_of_answer(a, engine);
    json_object_set_new(flow, "first_token_s", rounded(a->took.first_token_s));
    json_object_set_new(flow, "token_p95_s", rounded(answer_token_s(a, 0.95)));
    json_object_set_new(flow, "token_p99_s", rounded(answer_token_s(a, 0.99)));
    char *text = json_dumps(flow, JSON_COMPACT | JSON_REAL_PRECISION(9));
    fprintf(stderr, "%s\n", text ? text : "null");
    free(text);
    json_decref(flow);
}

void answer_print_json(const struct answer *a, dstar_engine *engine, uint64_t seed)
{
    const struct dstar_info *info = dstar_engine_info(engine);
    json_t *usage = json_pack("{s:i, s:i, s:i, s:i}", "prompt_tokens", a->n_prompt,
                              "cached_tokens", a->n_kept, "completion_tokens", a->n_answer,
                              "total_tokens", a->n_prompt + a->n_answer);
    const struct dstar_stats *t = &a->took;
    json_t *timings = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "load_s", rounded(info->load_s), "prompt_s",
        rounded(t->prefill_s), "prompt_per_s", rounded(rate_of(t->n_prefill, t->prefill_s)),
        "answer_s", rounded(t->decode_s), "answer_per_s",
        rounded(rate_of(t->n_decode, t->decode_s)), "first_token_s", rounded(t->first_token_s),
        "token_p95_s", rounded(answer_token_s(a, 0.95)), "token_p99_s",
        rounded(answer_token_s(a, 0.99)));
    json_t *root = json_pack(
        "{s:s, s:o, s:o, s:O, s:s, s:o, s:o, s:I, s:I, s:O, s:o}", "model", info->name, "content",
        json_stringn(a->content.data, a->content.len), "reasoning",
        json_stringn(a->reasoning.data, a->reasoning.len), "tool_calls", a->calls,
        "finish_reason", answer_finish(a), "usage", usage, "timings", timings, "memory_bytes",
        (json_int_t)cpu_rss().peak, "seed", (json_int_t)seed, "remarks", a->remarks,
        "experts", flow_of_answer(a, engine));
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(12)) : NULL;
    if (text)
        puts(text);
    else
        term_error("answer: cannot be written as JSON");
    free(text);
    json_decref(root);
}
