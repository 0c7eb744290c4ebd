/* cmd_fit.c - `dstar fit`: what each size of memory gives, before a model is loaded; as a table,
 * JSON or a picture. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "commands.h"
#include "cpu.h"
#include "engine_opts.h"
#include "fault.h"
#include "file.h"
#include "fit_plot.h"
#include "measure.h"
#include "term.h"

#define MOST_SVG_BYTES ((size_t)1 << 20)
#define SLOW_BYTES_S 0.5e9
#define LARGE_BYTES 1e6 /* of an expert: small ones are slow on any drive */

struct fit_opts {
    struct engine_opts model;
    struct opt_ints budgets;
    double drive;
    const char *svg, *measured;
    struct fit_measured seen;
    bool json;
};

#define AT(field) offsetof(struct fit_opts, field)

static const struct opt options[] = {
    { "budgets", 0, OPT_INTS, "GB,...", AT(budgets), 1, 1 << 20, NULL,
      "sizes of memory to tell about; else from the least to what holds everything" },
    { "drive", 0, OPT_REAL, "GB/S", AT(drive), 0, 1e6, "0",
      "what a drive gives in a second; 0: measure the one that the model is on" },
    { "svg", 0, OPT_TEXT, "FILE", AT(svg), 0, 0, NULL, "write a picture" },
    { "measured", 0, OPT_TEXT, "GB:TOK/S,...", AT(measured), 0, 0, NULL,
      "tokens a second that were measured, to be drawn into the picture" },
    { "json", 0, OPT_FLAG, NULL, AT(json), 0, 0, NULL, "print one JSON object" },
};

static const char *rate(char out[16], double tok_s)
{
    snprintf(out, 16, isinf(tok_s) ? "-" : tok_s < 10 ? "%.2f" : "%.0f", tok_s);
    return out;
}

static void print_point(const struct fit_point *p)
{
    char drive[16], all[16], low[16], high[16], read[16], range[24];
    snprintf(range, sizeof range, "%.0f to %.0f", 100 * p->hits_low, 100 * p->hits_high);
    printf("%9.2f %8.1f %6.1f %8.1f %10s %10s %9s %9s  %s to %s%s%s\n", p->memory / 1e9,
           p->experts / 1e9, 100 * p->share, 100 * p->hits, p->streams ? range : "",
           p->bytes_per_tok > 0 ? term_bytes(read, p->bytes_per_tok) : "-",
           rate(drive, p->drive_tok_s), rate(all, p->tok_s), rate(low, p->tok_s_low),
           rate(high, p->tok_s_high), p->is_machine ? "  this machine now" : "",
           p->too_little ? "  less than the least, which is taken" : "");
}

static void print_table(const struct fit *f, const char *name)
{
    char expert[16];
    printf("model    %s: %.2f GB that stay in memory, %.2f GB in %d experts of %s\n", name,
           f->fixed / 1e9, f->experts / 1e9, f->n_expert, term_bytes(expert, f->expert));
    printf("token    reads %.3f GB of what stays, uses experts of %.3f GB\n", f->read_bytes / 1e9,
           f->used_bytes / 1e9);
    printf("drive    %.2f GB/s", f->drive_bytes_per_s / 1e9);
    if (f->depth > 0)
        printf(" with %d reads in flight, %s", f->depth, f->path);
    printf("\nmemory   %.1f GB/s; %.2f GB at least, %.2f GB for everything\n",
           f->memory_bytes_per_s / 1e9, f->least / 1e9, f->all / 1e9);
    if (f->depth > 0 && f->drive_bytes_per_s < SLOW_BYTES_S && f->expert > LARGE_BYTES)
        printf("warning  this drive is slow: an answer will take its time\n");
    printf("\n%9s %8s %6s %8s %10s %10s %9s %9s  %s\n%9s %8s %6s %8s %10s %10s %9s %9s\n",
           "memory", "experts", "share", "found", "on other", "read for", "drive", "tokens/s",
           "on other texts", "GB", "GB", "%", "%", "texts", "a token", "allows", "at most");
    for (int i = 0; i < f->n; i++)
        print_point(&f->point[i]);
}

static json_t *finite(double x)
{
    return isinf(x) ? json_null() : json_real(x);
}

static void print_json(const struct fit *f, const char *name)
{
    json_t *list = json_array();
    for (int i = 0; i < f->n; i++) {
        const struct fit_point *p = &f->point[i];
        json_array_append_new(list, json_pack(
            "{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:f, s:f, s:f, s:i, s:b, s:b, s:b}",
            "memory_bytes", p->memory, "experts_bytes", p->experts, "share", p->share, "hits",
            p->hits, "hits_low", p->hits_low, "hits_high", p->hits_high, "bytes_per_token",
            p->bytes_per_tok, "drive_tokens_per_s", finite(p->drive_tok_s), "tokens_per_s",
            p->tok_s, "tokens_per_s_low", p->tok_s_low, "tokens_per_s_high", p->tok_s_high, "ctx",
            p->ctx, "streams", p->streams, "this_machine", p->is_machine, "too_little",
            p->too_little));
    }
    json_t *root = json_pack(
        "{s:s, s:f, s:f, s:f, s:f, s:f, s:i, s:f, s:f, s:f, s:f, s:i, s:s, s:o}",
        "model", name, "least_bytes", f->least, "all_bytes", f->all, "fixed_bytes", f->fixed,
        "fixed_read_bytes_per_token", f->read_bytes, "experts_bytes", f->experts,
        "experts", f->n_expert, "expert_bytes", f->expert, "used_bytes_per_token", f->used_bytes,
        "drive_bytes_per_s", f->drive_bytes_per_s, "memory_bytes_per_s",
        f->memory_bytes_per_s, "depth", f->depth, "path", f->path, "budgets", list);
    json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(12));
    printf("\n");
    json_decref(root);
}

/* "4:3.1,8:4.2" */
static bool parse_measured(struct fit_measured *m, const char *text)
{
    char *end;
    for (; *text; text = *end ? end + 1 : end) {
        if (m->n == FIT_MOST)
            return false;
        m->point[m->n].memory = strtod(text, &end) * 1e9;
        if (*end != ':')
            return false;
        m->point[m->n].tok_s = strtod(end + 1, &end);
        if ((*end && *end != ',') || !(m->point[m->n].memory > 0 && m->point[m->n].tok_s > 0))
            return false;
        m->n++;
    }
    return true;
}

static int write_svg(const struct fit *f, const struct fit_opts *o, const char *name,
                     struct err *e)
{
    const char *path = o->svg;
    struct buf svg;
    struct file_out out;
    buf_init(&svg, MOST_SVG_BYTES);
    fit_plot(&svg, f, &o->seen, name);
    int code = svg.failed ? err_set(e, ERR_NO_MEMORY, "%s: out of memory", path)
                          : file_out_open(&out, path, e);
    if (code == 0) {
        code = file_out_write(&out, svg.data, svg.len, e);
        code = code == 0 ? file_out_commit(&out, e) : (file_out_abort(&out), code);
    }
    buf_release(&svg);
    return code;
}

static int show(dstar_engine *engine, const struct fit_opts *o)
{
    static struct fit f;
    struct fit_ask ask = { .ctx = o->model.ctx, .drive_bytes_per_s = o->drive * 1e9,
                           .n_thread = o->model.threads ? o->model.threads : cpu_count() };
    const char *name = dstar_engine_info(engine)->name;
    struct err e = { 0 };
    for (int i = 0; i < MIN(o->budgets.n, FIT_MOST - 1); i++)
        ask.memory[ask.n_memory++] = o->budgets.value[i] * 1e9;
    int code = fit(&f, engine, &ask, &e);
    if (code == 0)
        (o->json ? print_json : print_table)(&f, name);
    if (code == 0 && o->svg)
        code = write_svg(&f, o, name, &e);
    if (code < 0)
        term_error("%s", e.text);
    return code < 0 ? EXIT_ERROR : EXIT_DONE;
}

int cmd_fit(const struct command *command, int n, char **arg)
{
    struct fit_opts o = { 0 };
    struct opt_group group[] = { { "memory and drive", options, COUNT_OF(options), &o },
                                 engine_group(&o.model) };
    struct words words;
    dstar_engine *engine = NULL;
    int status = opts_parse(command, group, COUNT_OF(group), &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n > 0)
        return opts_wrong(command, "found \"%s\", expected options alone", words.word[0]);
    if (o.measured && !parse_measured(&o.seen, o.measured))
        return opts_wrong(command, "--measured: found \"%s\", expected such as 8:4.2,16:4.8",
                          o.measured);
    o.model.part = DSTAR_PLAN;
    status = engine_start(&engine, &o.model);
    if (status == 0)
        status = show(engine, &o);
    dstar_close(engine);
    return status;
}
