/* test_calibrate.c - what a calibration writes: against sums taken in another way, the same bytes
 * however it was cut or interrupted, merging, and what it refuses. */
#include "unit/scratch_dir.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "collect_impl.h"
#include "deepseek4.h"
#include "hessian.h"
#include "imatrix.h"
#include "measure.h"
#include "ops_table.h"
#include "unit/imatrix_bytes.h"

static struct scratch dir;

static const char texts[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"8 plus 6?\"}, {\"role\": \"assistant\", "
    "\"content\": \"14\"}]}\n"
    "{\"id\": \"b\", \"thinking\": true, \"messages\": [{\"role\": \"user\", \"content\": "
    "\"What is the last letter of game?\"}]}\n"
    "\n"
    "{\"text\": \"an oak is a tree; a harbour is a place where ships lie\"}\n";

static int setup(void **state)
{
    (void)state;
    struct buf many;
    scratch_open(&dir);
    buf_init(&many, 1 << 20);
    scratch_put(&dir, "a.jsonl", texts, strlen(texts));
    for (int i = 1; i <= 40; i++) {
        buf_puts(&many, texts);
        if (i == 3) /* nine texts: one is held out */
            scratch_put(&dir, "many.jsonl", many.data, many.len);
    }
    scratch_put(&dir, "much.jsonl", many.data, many.len);
    scratch_put(&dir, "b.txt", "one two three four five six seven eight nine ten", 48);
    buf_release(&many);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_close(&dir);
    return 0;
}

/* A file of the scratch folder, under one of 32 names that stay valid. */
static const char *in_dir(const char *name)
{
    static char path[32][600];
    static int next;
    next = (next + 1) % 32;
    snprintf(path[next], sizeof path[next], "%s", scratch_file(&dir, name));
    return path[next];
}

static dstar_engine *open_engine(const char *device, int max_rows, int threads)
{
    dstar_engine *engine;
    struct dstar_options o;
    struct dstar_error error = { 0 };
    dstar_options_init(&o);
    o.model = "models/pebble";
    o.device = device;
    o.ctx = 512;
    o.max_rows = max_rows;
    o.threads = threads;
    o.exact = 1;
    if (dstar_open(&engine, &o, &error) < 0)
        fail_msg("%s", error.text);
    return engine;
}

static struct calibrate_options job_of(const char *const *corpus, int n, const char *out)
{
    return (struct calibrate_options){ .corpus = corpus, .n_corpus = n, .out = out, .sums = true,
                                       .piece = 16, .save_every = 1000, .threads = 1 };
}

static int try_run(dstar_engine *engine, const struct calibrate_options *job, struct err *e)
{
    struct buf report;
    buf_init(&report, 1 << 20);
    int code = calibrate_run(engine, job, &report, e);
    if (code == 0)
        assert_non_null(strstr(report.data, "tokens/s"));
    buf_release(&report);
    return code;
}

static void run(dstar_engine *engine, const struct calibrate_options *job)
{
    struct err e = { 0 };
    if (try_run(engine, job, &e) < 0)
        fail_msg("%s", e.text);
}

static void slurp(struct buf *b, const char *path)
{
    buf_init(b, 1 << 26);
    assert_int_equal(file_read_all(b, path, NULL), 0);
}

static void same_files(const char *a, const char *b)
{
    struct buf x, y;
    slurp(&x, a);
    slurp(&y, b);
    assert_true(x.len > 0 && x.len == y.len);
    assert_memory_equal(x.data, y.data, x.len);
    buf_release(&x);
    buf_release(&y);
}

/* ---- another way: the model's ops replaced by ones that add up their inputs --------------- */

enum { N_LAYER = 7, N_EXPERT = 26, COLS = 512 };
enum { Q_A, Q_B, O_A, O_B, INDEX_Q, SH_UP, SH_DOWN, N_DENSE };
static const char *const dense_name[N_DENSE] = {
    "attn_q_a", "attn_q_b", "attn_output_a", "attn_output_b", "indexer.attn_q_b", "ffn_up_shexp",
    "ffn_down_shexp",
};
static struct {
    double square[COLS];
    int n;
} dense[N_LAYER][N_DENSE], gate_in[N_LAYER][N_EXPERT], down_in[N_LAYER][N_EXPERT];
static const struct ops *real;
static const struct model *model;

static int dense_of(const struct dsv4_layer *w, const struct tensor *t)
{
    const struct tensor *const known[N_DENSE] = { &w->q_a, &w->q_b, &w->o_a, &w->o_b, &w->index_q,
                                                  &w->sh_up, &w->sh_down };
    for (int i = 0; i < N_DENSE; i++)
        if (known[i]->data == t->data)
            return i;
    return -1;
}

static void see(struct dev *d, const struct tensor *w, const float *x)
{
    int i = d->layer >= 0 ? dense_of(&model->layer[d->layer], w) : -1;
    if (i < 0)
        return;
    for (int j = 0; j < w->cols; j++)
        dense[d->layer][i].square[j] += (double)x[j] * (double)x[j];
    dense[d->layer][i].n++;
}

static void my_matmul(struct dev *d, struct tensor *out, const struct tensor *w,
                      const struct tensor *x)
{
    for (int i = 0; i < x->rows; i++)
        see(d, w, tensor_f32(x, i));
    real->matmul(d, out, w, x);
}

static void my_matmul_exact(struct dev *d, struct tensor *out, const struct tensor *w,
                            const struct tensor *x)
{
    for (int i = 0; i < x->rows; i++)
        see(d, w, tensor_f32(x, i));
    real->matmul_exact(d, out, w, x);
}

static void my_grouped(struct dev *d, struct tensor *out, const struct tensor *w,
                       const struct tensor *x, int n_group)
{
    for (int i = 0; i < x->rows; i++)
        for (int g = 0; g < n_group; g++)
            see(d, w, tensor_f32(x, i) + g * w->cols);
    real->matmul_grouped(d, out, w, x, n_group);
}

static double product(const struct tensor *w, int row, const float *x)
{
    float num[COLS];
    double sum = 0;
    tensor_decode(w, row, num);
    for (int j = 0; j < w->cols; j++)
        sum += (double)num[j] * (double)x[j];
    return sum;
}

static void my_experts(struct dev *d, struct tensor *part, const struct expert_set *some,
                       const struct route *route, const struct tensor *x, float clamp)
{
    for (int i = 0; i < x->rows; i++)
        for (int k = 0; k < route->id.cols; k++) {
            int id = tensor_i32(&route->id, i)[k];
            const struct expert *e = &some->e[id];
            double weight = (double)tensor_f32(&route->weight, i)[k], c = (double)clamp;
            assert_int_equal(e->id, id);
            for (int j = 0; j < x->cols; j++)
                gate_in[d->layer][id].square[j] += (double)tensor_f32(x, i)[j] *
                                                   (double)tensor_f32(x, i)[j];
            for (int j = 0; j < e->gate.rows; j++) {
                double g = fmin(product(&e->gate, j, tensor_f32(x, i)), c);
                double u = fmax(fmin(product(&e->up, j, tensor_f32(x, i)), c), -c);
                double h = weight * (g / (1 + exp(-g)) * u);
                down_in[d->layer][id].square[j] += h * h;
            }
            gate_in[d->layer][id].n++;
            down_in[d->layer][id].n++;
        }
    real->experts(d, part, some, route, x, clamp);
}

/* The rows of a file of texts, by the other way. */
static void other_way(const char *corpus)
{
    static struct ops mine;
    dstar_engine *engine = open_engine("cpu", 64, 2);
    struct dev *d = engine_of(engine)->dev;
    const char *const path[1] = { corpus };
    model = engine_of(engine)->model;
    assert_int_equal(model->s.n_layer, N_LAYER);
    assert_int_equal(model->s.n_expert, N_EXPERT);
    memset(dense, 0, sizeof dense);
    memset(gate_in, 0, sizeof gate_in);
    memset(down_in, 0, sizeof down_in);
    real = d->ops;
    mine = *real;
    mine.matmul = my_matmul;
    mine.matmul_exact = my_matmul_exact;
    mine.matmul_grouped = my_grouped;
    mine.experts = my_experts;
    d->ops = &mine;
    struct calibrate_options job = job_of(path, 1, in_dir("unused"));
    run(engine, &job);
    d->ops = real;
    dstar_close(engine);
}

/* size: of numbers like these, for those that are nearly nothing. */
static void near(double got, double want, double size, double share)
{
    if (!(fabs(got - want) <= share * fmax(fabs(want), size)))
        fail_msg("%.9g, expected %.9g", got, want);
}

/* An entry of the file has these sums. */
static void compare(const struct imatrix *m, const char *name, int mat, int n_mat, int n_col,
                    const double *square, int n, double share)
{
    float mean[COLS];
    double n_token = -1;
    struct err e = { 0 };
    int at = imatrix_find(m, name);
    if (at < 0)
        fail_msg("%s is missing", name);
    if (imatrix_check(m, at, n_col, n_mat, &e) < 0 ||
        imatrix_read(m, at, mat, n_col, mean, &n_token, &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal((int)n_token, n);
    double size = 0;
    for (int j = 0; j < n_col; j++)
        size += square[j] / n_col;
    for (int j = 0; j < n_col; j++)
        near((double)mean[j] * n, square[j], size, share);
}

static void sums(void **state)
{
    (void)state;
    const char *const corpus[1] = { in_dir("a.jsonl") };
    struct imatrix *m;
    struct err e = { 0 };
    char name[DSV4_NAME_MAX];
    dstar_engine *engine = open_engine("cpu", 64, 2);
    struct calibrate_options job = job_of(corpus, 1, in_dir("a.gguf"));
    run(engine, &job);
    dstar_close(engine);
    other_way(corpus[0]);
    if (imatrix_open(&m, job.out, &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(imatrix_chunks(m), 3);
    for (int l = 0; l < N_LAYER; l++) {
        for (int i = 0; i < N_DENSE; i++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, dense_name[i]);
            if (dense[l][i].n == 0) /* not in this layer */
                assert_int_equal(imatrix_find(m, name), -1);
            else
                compare(m, name, 0, 1, 256, dense[l][i].square, dense[l][i].n, 1e-6);
        }
        for (int x = 0; x < N_EXPERT; x++) {
            snprintf(name, sizeof name, "blk.%d.ffn_gate_exps.weight", l);
            compare(m, name, x, N_EXPERT, 256, gate_in[l][x].square, gate_in[l][x].n, 1e-6);
            snprintf(name, sizeof name, "blk.%d.ffn_up_exps.weight", l);
            compare(m, name, x, N_EXPERT, 256, gate_in[l][x].square, gate_in[l][x].n, 1e-6);
            snprintf(name, sizeof name, "blk.%d.ffn_down_exps.weight", l);
            /* float32 beside double */
            compare(m, name, x, N_EXPERT, 256, down_in[l][x].square, down_in[l][x].n, 2e-4);
        }
    }
    imatrix_close(m);
}

/* The diagonals of the products are the sums of squares of all experts together. */
static void products(void **state)
{
    (void)state;
    const char *const corpus[1] = { in_dir("many.jsonl") };
    struct hessian_file *h;
    struct imatrix *m;
    static float mean[256], part[256];
    dstar_engine *engine = open_engine("cpu", 64, 2);
    struct calibrate_options job = job_of(corpus, 1, in_dir("m.gguf"));
    job.hessian = in_dir("h.gguf");
    run(engine, &job);
    dstar_close(engine);
    assert_int_equal(hessian_open(&h, job.hessian, NULL), 0);
    assert_int_equal(imatrix_open(&m, job.out, NULL), 0);
    assert_int_equal(hessian_count(h), 2 * N_LAYER);
    for (int i = 0; i < 2 * N_LAYER; i++) {
        char name[80];
        double diagonal[256] = { 0 }, square[256] = { 0 }, n_token;
        snprintf(name, sizeof name, "blk.%d.ffn_%s_exps", i / 2, i % 2 ? "down" : "gate");
        int at = hessian_find(h, name), used = i % 2 ? 1 : 4;
        assert_true(at >= 0 && hessian_size(h, at) == 256);
        for (int k = 0; k < 2; k++) {
            int64_t n = hessian_tokens(h, at, k);
            assert_true(n > 0);
            for (int j = 0; j < 256; j++) {
                assert_int_equal(hessian_row(h, at, k, j, mean, NULL), 0);
                diagonal[j] += (double)mean[j] * (double)n;
            }
            assert_true(mean[0] != 0);
        }
        assert_true(hessian_tokens(h, at, 0) > hessian_tokens(h, at, 1));
        strcat(name, ".weight");
        for (int x = 0; x < N_EXPERT; x++) {
            assert_int_equal(imatrix_read(m, imatrix_find(m, name), x, 256, part, &n_token, NULL),
                             0);
            for (int j = 0; j < 256; j++)
                square[j] += (double)part[j] * n_token;
        }
        for (int j = 0; j < 256; j++)
            near(diagonal[j] * used, square[j], 0, 1e-5);
    }
    hessian_close(h);
    imatrix_close(m);
}

/* ---- the same bytes ----------------------------------------------------------------------- */

/* Steps of 64 and of 5 tokens, one thread and two; and the model's own words. */
/* Of an expert alone: its diagonal is the matrix's sum of squares, its tokens are all it saw. */
static void own_products(void **state)
{
    (void)state;
    enum { LAYER = 4 };
    const int own[] = { LAYER, LAYER };
    struct hessian_file *h;
    struct imatrix *m;
    static float mean[256], part[256];
    double n_token;
    int n_own = 0;
    const char *const corpus[1] = { in_dir("much.jsonl") };
    dstar_engine *engine = open_engine("cpu", 64, 2);
    struct calibrate_options job = job_of(corpus, 1, in_dir("own.gguf"));
    job.hessian = in_dir("own_h.gguf");
    job.own_layer = own;
    job.n_own_layer = 2;
    run(engine, &job);
    dstar_close(engine);
    assert_int_equal(hessian_open(&h, job.hessian, NULL), 0);
    assert_int_equal(imatrix_open(&m, job.out, NULL), 0);
    for (int i = 0; i < 2 * N_EXPERT; i++) {
        char name[80], entry[80];
        snprintf(entry, sizeof entry, "blk.%d.ffn_%s_exps.weight", LAYER, i % 2 ? "down" : "gate");
        snprintf(name, sizeof name, "blk.%d.ffn_%s_exps.%d", LAYER, i % 2 ? "down" : "gate", i / 2);
        int at = hessian_find(h, name);
        assert_int_equal(
            imatrix_read(m, imatrix_find(m, entry), i / 2, 256, part, &n_token, NULL), 0);
        if (at < 0) { /* of too few tokens to say anything */
            assert_true(n_token < 2 * 256);
            continue;
        }
        int64_t n[2] = { hessian_tokens(h, at, 0), hessian_tokens(h, at, 1) };
        assert_true(n[0] >= 256 && n[0] + n[1] == (int64_t)n_token);
        for (int j = 0; j < 256; j++) {
            double diagonal = 0;
            for (int k = 0; k < 2 && n[k] > 0; k++) {
                assert_int_equal(hessian_row(h, at, k, j, mean, NULL), 0);
                diagonal += (double)mean[j] * (double)n[k];
            }
            near(diagonal, (double)part[j] * n_token, 0, 1e-5);
        }
        n_own++;
    }
    assert_true(n_own >= 4);
    assert_int_equal(hessian_count(h), 2 * N_LAYER + n_own);
    hessian_close(h);
    imatrix_close(m);
}

static void steps(void **state)
{
    (void)state;
    const char *const corpus[2] = { in_dir("a.jsonl"), in_dir("b.txt") };
    struct calibrate_options job = job_of(corpus, 2, in_dir("1.gguf"));
    job.answer = 6;
    job.temperature = 1;
    job.hessian = in_dir("1h.gguf");
    job.profile = in_dir("1.txt");
    dstar_engine *engine = open_engine("cpu", 64, 2);
    run(engine, &job);
    dstar_close(engine);
    job.out = in_dir("2.gguf");
    job.hessian = in_dir("2h.gguf");
    job.profile = in_dir("2.txt");
    job.threads = 2;
    engine = open_engine("cpu", 5, 1);
    run(engine, &job);
    job.out = in_dir("3.gguf");
    job.hessian = job.profile = NULL;
    job.answer = 0;
    run(engine, &job);
    dstar_close(engine);
    same_files(in_dir("1.gguf"), in_dir("2.gguf"));
    same_files(in_dir("1h.gguf"), in_dir("2h.gguf"));
    same_files(in_dir("1.txt"), in_dir("2.txt"));
    struct imatrix *with, *without;
    float mean[256];
    double n_with, n_without;
    assert_int_equal(imatrix_open(&with, in_dir("1.gguf"), NULL), 0);
    assert_int_equal(imatrix_open(&without, in_dir("3.gguf"), NULL), 0);
    int at = imatrix_find(with, "blk.0.attn_q_a.weight");
    assert_int_equal(imatrix_read(with, at, 0, 256, mean, &n_with, NULL), 0);
    assert_int_equal(imatrix_read(without, at, 0, 256, mean, &n_without, NULL), 0);
    assert_true(n_with > n_without);
    imatrix_close(with);
    imatrix_close(without);
}

/* The scalar device shows the same. */
static void devices(void **state)
{
    (void)state;
    scratch_put(&dir, "short.jsonl", "{\"text\": \"8 plus 6\"}\n", 21);
    const char *const corpus[1] = { in_dir("short.jsonl") };
    struct imatrix *m[2];
    float mean[2][256];
    for (int i = 0; i < 2; i++) {
        dstar_engine *engine = open_engine(i ? "ref" : "cpu", 16, 1);
        struct calibrate_options job = job_of(corpus, 1, in_dir(i ? "ref.gguf" : "cpu.gguf"));
        run(engine, &job);
        dstar_close(engine);
        assert_int_equal(imatrix_open(&m[i], job.out, NULL), 0);
    }
    for (int x = 0; x < N_EXPERT; x++) {
        double n[2];
        for (int i = 0; i < 2; i++)
            assert_int_equal(imatrix_read(m[i], imatrix_find(m[i], "blk.1.ffn_down_exps.weight"),
                                          x, 256, mean[i], &n[i], NULL), 0);
        assert_true(n[0] == n[1]);
        for (int j = 0; j < 256; j++)
            near((double)mean[0][j], (double)mean[1][j], 1e-6, 1e-3);
    }
    imatrix_close(m[0]);
    imatrix_close(m[1]);
}

/* Watching changes nothing that is computed. */
static void harmless(void **state)
{
    (void)state;
    static float logits[2][4096];
    int32_t id[20];
    const int own[] = { 1, N_LAYER - 1 };
    const struct collect_want all = { true, own, 2, 1 };
    dstar_engine *engine = open_engine("cpu", 64, 2);
    int n_vocab = dstar_engine_info(engine)->n_vocab;
    assert_true(n_vocab <= 4096);
    for (int i = 0; i < 20; i++)
        id[i] = i * 37 + 11;
    for (int i = 0; i < 2; i++) {
        struct collector *c = NULL;
        dstar_session *s;
        if (i)
            assert_int_equal(collect_begin(&c, engine, &all, NULL), 0);
        assert_int_equal(dstar_session_new(&s, engine, NULL), 0);
        assert_int_equal(dstar_session_set(s, id, 20, NULL), 0);
        assert_int_equal(dstar_session_step(s, NULL), 0);
        memcpy(logits[i], dstar_logits(s), (size_t)n_vocab * sizeof(float));
        dstar_session_free(s);
        collect_end(c);
    }
    assert_memory_equal(logits[0], logits[1], (size_t)n_vocab * sizeof(float));
    dstar_close(engine);
}

/* ---- stopping, going on ------------------------------------------------------------------- */

static int stop_in;

static bool stop_soon(void *user, double share, int64_t n_token)
{
    (void)user, (void)n_token;
    assert_true(share >= 0 && share <= 1);
    return --stop_in <= 0;
}

/* max_rows: of a step; every: how often progress is shown between two stops. */
static void stop_often(struct calibrate_options job, int max_rows, int every)
{
    struct err e = { 0 };
    dstar_engine *engine = open_engine("cpu", max_rows, 1);
    job.out = in_dir("whole.gguf");
    job.hessian = in_dir("whole_h.gguf");
    run(engine, &job);
    job.out = in_dir("parts.gguf");
    job.hessian = in_dir("parts_h.gguf");
    job.progress = stop_soon;
    int n_stop = 0;
    for (;; n_stop++) {
        e = (struct err){ 0 };
        stop_in = every;
        int code = try_run(engine, &job, &e);
        if (code == 0)
            break;
        assert_int_equal(code, ERR_CANCELLED);
        assert_false(file_exists(job.out));
        job.resume = true;
    }
    assert_true(n_stop >= 2);
    assert_false(file_exists(in_dir("parts.gguf.state")));
    same_files(in_dir("whole.gguf"), in_dir("parts.gguf"));
    same_files(in_dir("whole_h.gguf"), in_dir("parts_h.gguf"));
    dstar_close(engine);
}

static void resume(void **state)
{
    (void)state;
    const char *const corpus[1] = { in_dir("many.jsonl") };
    struct calibrate_options job = job_of(corpus, 1, NULL);
    job.answer = 4;
    job.temperature = 1;
    stop_often(job, 7, 20);
}

static void resume_own(void **state)
{
    (void)state;
    const char *const corpus[1] = { in_dir("much.jsonl") };
    struct calibrate_options job = job_of(corpus, 1, NULL);
    job.own_layer = (const int[]){ 2 };
    job.n_own_layer = 1;
    stop_often(job, 64, 45);
}

static void refuses(dstar_engine *engine, const struct calibrate_options *job, int code,
                    const char *words)
{
    struct err e = { 0 };
    int got = try_run(engine, job, &e);
    if (got != code || !strstr(e.text, words))
        fail_msg("%d %s\nexpected %d ...%s", got, e.text, code, words);
    assert_false(file_exists(job->out));
}

static void wrong_state(void **state)
{
    (void)state;
    const char *const corpus[1] = { in_dir("many.jsonl") };
    dstar_engine *engine = open_engine("cpu", 64, 1);
    struct calibrate_options job = job_of(corpus, 1, in_dir("state.gguf"));
    job.progress = stop_soon;
    stop_in = 1;
    refuses(engine, &job, ERR_CANCELLED, "1 of 9");
    refuses(engine, &job, ERR_ARGUMENT, "--resume");
    job.resume = true;
    job.answer = 3;
    refuses(engine, &job, ERR_MISMATCH, "other texts or options");
    job.answer = 0;
    job.hessian = in_dir("state_h.gguf");
    refuses(engine, &job, ERR_MISMATCH, "products");
    job.own_layer = (const int[]){ N_LAYER };
    job.n_own_layer = 1;
    refuses(engine, &job, ERR_ARGUMENT, "experts of layer 7: the model has 7 layers");
    job.hessian = NULL;
    struct buf b;
    slurp(&b, in_dir("state.gguf.state"));
    b.data[b.len / 2] ^= 1;
    scratch_put(&dir, "state.gguf.state", b.data, b.len);
    refuses(engine, &job, ERR_FORMAT, "damaged");
    scratch_put(&dir, "state.gguf.state", b.data, b.len / 2);
    refuses(engine, &job, ERR_FORMAT, "state");
    buf_release(&b);
    scratch_remove(&dir, "state.gguf.state");
    dstar_close(engine);
}

/* ---- coverage and bad input --------------------------------------------------------------- */

static void strict(void **state)
{
    (void)state;
    const char *const corpus[1] = { in_dir("a.jsonl") };
    dstar_engine *engine = open_engine("cpu", 64, 1);
    struct calibrate_options job = job_of(corpus, 1, in_dir("thin.gguf"));
    job.strict = true;
    refuses(engine, &job, ERR_LIMIT, "182 of 182 experts saw fewer than 256");
    job.strict = false;
    job.resume = true;
    run(engine, &job);
    assert_true(file_exists(job.out));
    dstar_close(engine);
}

static void no_number(void **state)
{
    (void)state;
    struct collector *c;
    struct err e = { 0 };
    dstar_engine *engine = open_engine("cpu", 64, 1);
    struct dev *d = engine_of(engine)->dev;
    const struct tensor *w = &engine_of(engine)->model->layer[3].q_b;
    float row[256] = { 0 };
    struct tensor x = { row, DT_F32, w->cols, 1, sizeof row, NULL, 0 };
    row[200] = NAN;
    assert_int_equal(collect_begin(&c, engine, &(struct collect_want){ .threads = 1 }, &e), 0);
    d->watch->input(d->watch->user, w, &x);
    assert_int_equal(collect_document(c, false, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "blk.3.attn_q_b.weight"));
    collect_end(c);
    dstar_close(engine);
}

static void bad_texts(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        { "{\"messages\": 1}\n", "line 1: found neither" },
        { "{\"text\": \"a\"}\n{\"text\"\n", "line 2" },
        { "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"thinking\": \"soon\"}",
          "thinking: found \"soon\"" },
        { "\n \n", "found no text" },
    };
    dstar_engine *engine = open_engine("cpu", 64, 1);
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        const char *const corpus[1] = { in_dir("bad.jsonl") };
        scratch_put(&dir, "bad.jsonl", bad[i][0], strlen(bad[i][0]));
        struct calibrate_options job = job_of(corpus, 1, in_dir("none.gguf"));
        refuses(engine, &job, ERR_FORMAT, bad[i][1]);
    }
    dstar_close(engine);
}

/* ---- merging ------------------------------------------------------------------------------ */

/* Every number of the one file is that of the other but for rounding to float32, twice. */
static void near_files(const char *a, const char *b)
{
    struct weights *x, *y;
    assert_int_equal(weights_open(&x, a, NULL), 0);
    assert_int_equal(weights_open(&y, b, NULL), 0);
    assert_int_equal(weights_count(x), weights_count(y));
    for (int i = 0; i < weights_count(x); i++) {
        const struct weight *s = weights_at(x, i), *t = weights_find(y, s->name);
        assert_non_null(t);
        assert_int_equal(s->bytes, t->bytes);
        bool is_sum = strstr(s->name, ".in_sum") && !strstr(s->name, ".in_sum2");
        for (size_t j = 0; j < s->bytes / 4 && !is_sum; j++) {
            float u, v;
            memcpy(&u, s->data + 4 * j, 4);
            memcpy(&v, t->data + 4 * j, 4);
            near((double)u, (double)v, 0, strstr(s->name, ".counts") ? 0 : 0x1p-22);
        }
    }
    weights_close(x);
    weights_close(y);
}

static void merge(void **state)
{
    (void)state;
    const char *const corpus[2] = { in_dir("a.jsonl"), in_dir("b.txt") };
    const char *const part[2] = { in_dir("m1.gguf"), in_dir("m2.gguf") };
    struct err e = { 0 };
    dstar_engine *engine = open_engine("cpu", 64, 2);
    struct calibrate_options job = job_of(corpus, 2, in_dir("m3.gguf"));
    run(engine, &job);
    for (int i = 0; i < 2; i++) {
        struct calibrate_options one = job_of(corpus + i, 1, part[i]);
        run(engine, &one);
    }
    dstar_close(engine);
    if (calibrate_merge(part, 2, in_dir("m4.gguf"), &e) < 0)
        fail_msg("%s", e.text);
    near_files(in_dir("m3.gguf"), in_dir("m4.gguf"));
    struct imatrix *m;
    assert_int_equal(imatrix_open(&m, in_dir("m4.gguf"), NULL), 0);
    assert_int_equal(imatrix_chunks(m), 5); /* three lines and two pieces */
    imatrix_close(m);
}

static void merge_refuses(const char *a, const char *b, int code, const char *words)
{
    const char *const part[2] = { a, b };
    struct err e = { 0 };
    int got = calibrate_merge(part, 2, in_dir("none.gguf"), &e);
    if (got != code || !strstr(e.text, words))
        fail_msg("%d %s\nexpected %d ...%s", got, e.text, code, words);
    assert_false(file_exists(in_dir("none.gguf")));
}

static void merge_bad(void **state)
{
    (void)state;
    static float mean[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, nan[8] = { 1, 2, 3, NAN, 5, 6, 7, 8 };
    static float count[2] = { 3, 4 };
    struct imatrix_part good = { "blk.0.x.weight", 4, 2, mean, count, NULL };
    struct imatrix_part other = { "blk.0.x.weight", 2, 2, mean, count, NULL };
    struct imatrix_part none = { "blk.0.x.weight", 4, 2, nan, count, NULL };
    const struct imatrix_part *const part[3] = { &good, &other, &none };
    const char *const name[3] = { "good", "other", "nan" };
    struct buf b;
    for (int i = 0; i < 3; i++) {
        put_gguf_imatrix(&b, part[i], 1);
        scratch_put(&dir, name[i], b.data, b.len);
        buf_release(&b);
    }
    put_legacy(&b, &good, 1, 5);
    scratch_put(&dir, "legacy", b.data, b.len);
    buf_release(&b);
    merge_refuses(in_dir("good"), in_dir("other"), ERR_MISMATCH, "blk.0.x.weight.in_sum2");
    merge_refuses(in_dir("good"), in_dir("nan"), ERR_FORMAT, "blk.0.x.weight.in_sum2, number 3");
    merge_refuses(in_dir("good"), in_dir("legacy"), ERR_FORMAT, "no counts");
    merge_refuses(in_dir("good"), in_dir("absent"), ERR_IO, "absent");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(sums),     CASE(products),   CASE(own_products), CASE(steps),  CASE(devices),
        CASE(harmless), CASE(resume),     CASE(resume_own),   CASE(wrong_state),
        CASE(strict),   CASE(no_number),  CASE(bad_texts),    CASE(merge),  CASE(merge_bad),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
