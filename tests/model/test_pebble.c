/* test_pebble.c - the bundled model against log likelihoods computed elsewhere in float32 by an
 * independent reader (tools/train/check.py): exactly without the cache's rounding, nearly with it
 * (a value near a boundary may fall to the other side), and with activations in 8 bits. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "net.h"

#define EXACT_TOLERANCE 1e-4      /* nats, mean of a dialogue */
#define EXACT_TOP_TOLERANCE 1e-3  /* nats, of one log probability */
#define ROUNDED_EACH 1e-2         /* cached rows or activations rounded */
#define ROUNDED_ALL 1e-3

enum { CHUNK = 256 };

struct dialogue {
    const char *kind;
    int32_t *tok;
    int n_tok, top_every;
    double mean_nll, simulated_nll; /* without and with rounding of cached rows */
    const json_t *top;
};

static struct dialogue dialogue_of(const json_t *j)
{
    struct dialogue d = {
        .kind = json_string_value(json_object_get(j, "kind")),
        .mean_nll = json_number_value(json_object_get(j, "mean_nll")),
        .simulated_nll = json_number_value(json_object_get(j, "simulated_nll")),
        .top_every = (int)json_integer_value(json_object_get(j, "top_every")),
        .top = json_object_get(j, "top"),
    };
    d.tok = net_ids(json_object_get(j, "ids"), &d.n_tok);
    return d;
}

static double mean_nll(const struct dialogue *d, const float *logits, int v)
{
    double sum = 0;
    for (int i = 0; i + 1 < d->n_tok; i++) {
        const float *x = logits + (size_t)i * v;
        sum += net_log_sum(x, v) - x[d->tok[i + 1]];
    }
    return sum / (d->n_tok - 1);
}

/* Largest difference of a recorded log probability. */
static double top_difference(const struct dialogue *d, const float *logits, int v)
{
    double worst = 0;
    for (size_t k = 0; k < json_array_size(d->top); k++) {
        const float *x = logits + (size_t)d->top_every * k * v;
        const json_t *list = json_array_get(d->top, k);
        double log_sum = net_log_sum(x, v);
        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *pair = json_array_get(list, i);
            int id = (int)json_integer_value(json_array_get(pair, 0));
            double want = json_number_value(json_array_get(pair, 1));
            worst = fmax(worst, fabs(x[id] - log_sum - want));
        }
    }
    return worst;
}

struct limits {
    double each, each_top; /* of a dialogue's mean, of one log probability */
};

/* Mean over dialogues of the difference. simulate: cached rows are rounded. */
static double check_all(const char *path, const char *device, int simulate, struct limits limit)
{
    struct net n;
    double sum = 0;
    net_open(&n, path, device, simulate, CHUNK);
    json_t *all = json_load_file("tests/data/pebble/oracle.json", 0, NULL);
    int v = model_info(n.model)->n_vocab, count = (int)json_array_size(all);
    assert_true(count >= 18);
    for (int i = 0; i < count; i++) {
        struct dialogue d = dialogue_of(json_array_get(all, (size_t)i));
        float *logits = net_zero((size_t)d.n_tok * v * sizeof *logits);
        net_run(&n, d.tok, d.n_tok, CHUNK, logits, NULL);
        double want = simulate ? d.simulated_nll : d.mean_nll;
        double diff = mean_nll(&d, logits, v) - want, top = top_difference(&d, logits, v);
        print_message("%-14s %4d tokens, NLL %.4f, difference %+.1e; of a log probability %.1e\n",
                      d.kind, d.n_tok, want, diff, top);
        assert_true(fabs(diff) <= limit.each);
        assert_true(top <= limit.each_top);
        sum += diff;
        free(logits), free(d.tok);
    }
    json_decref(all);
    net_close(&n);
    print_message("mean difference %+.1e\n", sum / count);
    return sum / count;
}

static const struct limits exact = { EXACT_TOLERANCE, EXACT_TOP_TOLERANCE };
static const struct limits rounded = { ROUNDED_EACH, INFINITY };

static void checkpoint_exact(void **state)
{
    (void)state;
    check_all("models/pebble", "cpu exact", 0, exact);
}

static void checkpoint_as_trained(void **state)
{
    (void)state;
    double mean = check_all("models/pebble", "cpu exact", 1, rounded);
    assert_true(fabs(mean) <= ROUNDED_ALL);
}

static void checkpoint_eight_bit(void **state)
{
    (void)state;
    double mean = check_all("models/pebble", "cpu", 0, rounded);
    assert_true(fabs(mean) <= ROUNDED_ALL);
}

/* Imported to GGUF nothing is lost: FP4 becomes MXFP4 bit for bit, FP8 becomes BF16. */
static void imported_exact(void **state)
{
    (void)state;
    char path[512];
    const char *build = getenv("DSTAR_BUILD");
    snprintf(path, sizeof path, "%s/pebble-exact.gguf", build ? build : "build");
    if (!file_exists(path))
        skip();
    check_all(path, "cpu exact", 0, exact);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checkpoint_exact),
        cmocka_unit_test(checkpoint_as_trained),
        cmocka_unit_test(checkpoint_eight_bit),
        cmocka_unit_test(imported_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
