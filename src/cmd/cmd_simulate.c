/* cmd_simulate.c - `dstar simulate`: what a cache of experts of some size would have had to read
 * for recorded routes, beside every fixed rule and the best that can be.
 *
 * The fixed rules are plain: hash-routed layers count like any other. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "commands.h"
#include "fault.h"
#include "measure.h"
#include "term.h"

struct simulate_opts {
    int slots, experts, hash_layers;
    struct opt_ints percent;
    uint64_t expert_bytes;
    const char *policy;
    bool json;
};

#define AT(field) offsetof(struct simulate_opts, field)

static const struct opt options[] = {
    { "slots", 0, OPT_INT, "N", AT(slots), 0, 1 << 24, "0",
      "experts that fit into memory, of all layers together; 0: by --percent" },
    { "percent", 0, OPT_INTS, "P,...", AT(percent), 1, 100, "5,10,20,50",
      "the same as shares of all experts" },
    { "policy", 0, OPT_TEXT, "POLICY", AT(policy), 0, 0, "auto",
      "what is given up: auto; lru, the longest unused; freq:HALFLIFE, the least used, a use "
      "counting half after so many tokens" },
    { "experts", 0, OPT_INT, "N", AT(experts), 1, 65536, "256", "experts of a layer" },
    { "hash-layers", 0, OPT_INT, "N", AT(hash_layers), 0, 1024, "3",
      "the first N layers are routed by the token alone; auto keeps them out of small caches" },
    { "expert-bytes", 0, OPT_BYTES, "SIZE", AT(expert_bytes), 0, 0, "6912K",
      "size of one expert" },
    { "json", 0, OPT_FLAG, NULL, AT(json), 0, 0, NULL,
      "print one JSON array, an object for each trace and size" },
};

/* One trace with one size. Rules are those of auto. */
struct comparison {
    struct expert_shape shape;
    struct simulated asked, fixed[EXPERT_MOST_RULES], optimum;
    struct expert_shape rules;
    int best; /* index into fixed */
};

static const char *rule_name(char out[24], int half_life)
{
    snprintf(out, 24, half_life == EXPERT_LRU ? "lru" : "freq:%d", half_life);
    return out;
}

/* The rules a policy names, into shape; false: it names none. */
static bool rules_of(struct expert_shape *shape, const char *policy)
{
    char *end;
    expert_rules_auto(shape);
    if (strcmp(policy, "auto") == 0)
        return true;
    shape->n_rule = 1;
    shape->half_life[0] = EXPERT_LRU;
    if (strcmp(policy, "lru") == 0)
        return true;
    if (strncmp(policy, "freq:", 5) != 0 || policy[5] < '1' || policy[5] > '9')
        return false;
    errno = 0;
    long n = strtol(policy + 5, &end, 10);
    shape->half_life[0] = (int)n;
    return !*end && errno == 0 && n <= EXPERT_MOST_HALF_LIFE;
}

static int compare(struct comparison *c, const struct routes *r, const struct simulate_opts *o,
                   struct err *e)
{
    struct expert_shape one = c->shape;
    rules_of(&c->shape, o->policy);
    c->shape.n_weak = c->shape.n_rule > 1 ? expert_weak_layers(&c->shape, o->hash_layers) : 0;
    TRY(simulate(&c->asked, r, &c->shape, e));
    TRY(simulate_best(&c->optimum, r, &c->shape, e));
    expert_rules_auto(&c->rules);
    one.n_rule = 1;
    c->best = 0;
    for (int i = 0; i < c->rules.n_rule; i++) {
        one.half_life[0] = c->rules.half_life[i];
        TRY(simulate(&c->fixed[i], r, &one, e));
        if (c->fixed[i].misses < c->fixed[c->best].misses)
            c->best = i;
    }
    return 0;
}

static double ratio(uint64_t a, uint64_t b)
{
    return b ? (double)a / (double)b : 1;
}

static const struct simulated *lru_of(const struct comparison *c)
{
    for (int i = 0; i < c->rules.n_rule; i++)
        if (c->rules.half_life[i] == EXPERT_LRU)
            return &c->fixed[i];
    return &c->asked;
}

static void print_row(const struct comparison *c, const struct routes *r,
                      const struct simulate_opts *o)
{
    char bytes[16], best[16], optimum[16], name[24];
    double per = (double)o->expert_bytes / MAX(r->n_tok, 1);
    const struct simulated *fixed = &c->fixed[c->best];
    printf("%7d %6.1f %6.1f  %10s  %-9s %10s %7.3f %7.3f  %10s %8d\n", c->shape.n_slot,
           100.0 * c->shape.n_slot / ((double)c->shape.n_layer * c->shape.n_expert),
           100 * ratio(c->asked.hits, c->asked.lookups),
           term_bytes(bytes, (double)c->asked.misses * per),
           rule_name(name, c->rules.half_life[c->best]),
           term_bytes(best, (double)fixed->misses * per), ratio(c->asked.misses, fixed->misses),
           ratio(c->asked.misses, lru_of(c)->misses),
           term_bytes(optimum, (double)c->optimum.misses * per), c->asked.n_switch);
}

static json_t *count_json(uint64_t misses, const struct simulate_opts *o)
{
    return json_real((double)misses * (double)o->expert_bytes);
}

static int add_json(json_t *list, const struct comparison *c, const char *path,
                    const struct simulate_opts *o)
{
    char name[24], decided[20];
    snprintf(decided, sizeof decided, "%016llx", (unsigned long long)c->asked.decided);
    json_t *fixed = json_object(), *ruled = json_object();
    for (int i = 0; i < c->rules.n_rule; i++)
        json_object_set_new(fixed, rule_name(name, c->rules.half_life[i]),
                            count_json(c->fixed[i].misses, o));
    for (int i = 0; i < c->shape.n_rule; i++)
        json_object_set_new(ruled, rule_name(name, c->shape.half_life[i]),
                            json_integer((json_int_t)c->asked.ruled_tok[i]));
    json_t *row = json_pack(
        "{s:s, s:i, s:s, s:i, s:I, s:I, s:I, s:o, s:o, s:i, s:o, s:s, s:o, s:s}", "trace", path,
        "slots", c->shape.n_slot, "policy", o->policy, "hash_layers_kept_out", c->shape.n_weak,
        "lookups", (json_int_t)c->asked.lookups, "hits", (json_int_t)c->asked.hits,
        "misses", (json_int_t)c->asked.misses, "bytes", count_json(c->asked.misses, o),
        "tokens_by_rule", ruled, "rule_changes", c->asked.n_switch, "fixed_bytes", fixed,
        "best_fixed", rule_name(name, c->rules.half_life[c->best]),
        "optimum_bytes", count_json(c->optimum.misses, o), "decided", decided);
    return row ? json_array_append_new(list, row) : -1;
}

static int simulate_size(const struct routes *r, const char *path, int n_slot,
                         const struct simulate_opts *o, json_t *list)
{
    struct comparison c = { .shape = { r->n_layer, o->experts, n_slot, .n_rule = 1 } };
    struct dstar_error error;
    struct err e = { 0 };
    if (compare(&c, r, o, &e) < 0) {
        err_prefix(&e, "%s", path);
        fault_of(&error, &e);
        return fault_print(&error);
    }
    if (!o->json)
        print_row(&c, r, o);
    else if (add_json(list, &c, path, o) < 0)
        return fault_print((fault_set(&error, DSTAR_NO_MEMORY, "out of memory for JSON"), &error));
    return EXIT_DONE;
}

static int simulate_trace(const char *path, const struct simulate_opts *o, json_t *list)
{
    struct routes r;
    struct dstar_error error;
    struct err e = { 0 };
    int status = EXIT_DONE;
    if (routes_read(&r, path, o->experts, &e) < 0) {
        fault_of(&error, &e);
        return fault_print(&error);
    }
    if (!o->json)
        printf("%s: %d tokens, %d layers, %d of %d experts; bytes per token\n"
               "%7s %6s %6s  %10s  %-9s %10s %7s %7s  %10s %8s\n", path, r.n_tok, r.n_layer,
               r.n_used, o->experts, "slots", "share%", "hits%", o->policy, "best rule", "",
               "x best", "x lru", "optimum", "changes");
    int n = o->slots > 0 ? 1 : o->percent.n;
    for (int i = 0; status == EXIT_DONE && i < n; i++) {
        double all = (double)r.n_layer * o->experts;
        int n_slot = o->slots > 0 ? o->slots : (int)(all * o->percent.value[i] / 100);
        status = simulate_size(&r, path, n_slot, o, list);
    }
    routes_release(&r);
    return status;
}

int cmd_simulate(const struct command *command, int n, char **arg)
{
    struct simulate_opts o = { 0 };
    struct opt_group group = { "simulation", options, COUNT_OF(options), &o };
    struct expert_shape shape;
    struct words words;
    int status = opts_parse(command, &group, 1, &words, n, arg);
    if (status >= 0)
        return status;
    if (words.n == 0)
        return opts_wrong(command, "expected the name of a trace");
    if (!rules_of(&shape, o.policy))
        return opts_wrong(command, "--policy: found %s, expected auto, lru or freq:1 to freq:%d",
                          o.policy, EXPERT_MOST_HALF_LIFE);
    json_t *list = json_array();
    status = EXIT_DONE;
    for (int i = 0; status == EXIT_DONE && i < words.n; i++)
        status = simulate_trace(words.word[i], &o, list);
    if (status == EXIT_DONE && o.json) {
        json_dumpf(list, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(15));
        printf("\n");
    }
    json_decref(list);
    return status;
}
