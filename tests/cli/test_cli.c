/* test_cli.c - every command of `dstar`, run as a user runs it, with exact expectations. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <unistd.h>

#include "child.h"
#include "unit/scratch_dir.h"

static struct scratch dir;

/* The line with every @ replaced by the scratch folder. */
static const char *at(const char *line)
{
    static char out[4096];
    size_t n = 0;
    for (; *line && n + sizeof dir.path < sizeof out; line++) {
        if (*line == '@')
            n += (size_t)snprintf(out + n, sizeof out - n, "%s", dir.path);
        else
            out[n++] = *line;
    }
    out[n] = 0;
    return out;
}

/* Run and compare everything; NULL: anything will do. */
static void expect(const char *input, const char *line, int status, const char *out,
                   const char *err)
{
    struct child c = child_run_with(input, at(line));
    if (c.status != status || (err && strcmp(c.err, err) != 0) ||
        (out && strcmp(c.out, out) != 0))
        fail_msg("dstar %s\n-- status %d, expected %d\n-- out: %s-- err: %s", at(line), c.status,
                 status, c.out, c.err);
    child_release(&c);
}

/* The one JSON object that a successful run prints. */
static json_t *json_of(const char *line)
{
    struct child c = child_run(at(line));
    json_error_t why;
    json_t *root = json_loads(c.out, 0, &why);
    if (c.status != 0 || !root)
        fail_msg("dstar %s: status %d: %s\n%s%s", at(line), c.status, root ? "" : why.text, c.out,
                 c.err);
    child_release(&c);
    return root;
}

static const char *text_at(json_t *root, const char *key)
{
    const char *text = json_string_value(json_object_get(root, key));
    return text ? text : "(none)";
}

static json_int_t int_at(json_t *root, const char *key, const char *inner)
{
    json_t *value = json_object_get(root, key);
    return json_integer_value(inner ? json_object_get(value, inner) : value);
}

static void test_usage(void **state)
{
    (void)state;
    static const struct {
        const char *line, *err;
    } wrong[] = {
        { "rnu hello", "dstar: unknown command rnu, did you mean run?\n" },
        { "evl logits", "dstar: unknown command evl, did you mean eval logits?\n" },
        { "eval km", "dstar: unknown command eval km, did you mean eval kl?\n" },
        { "zzz", "dstar: unknown command zzz (dstar help lists them)\n" },
        { "run --temprature 1 x",
          "dstar: run: unknown option --temprature, did you mean --temp? (see: dstar help run)\n" },
        { "run -Z x", "dstar: run: unknown option -Z (see: dstar help run)\n" },
        { "run --temp 1x x", "dstar: run: --temp: found '1x', expected a number from 0 to 100 "
                             "(see: dstar help run)\n" },
        { "run --temp nan x", "dstar: run: --temp: found 'nan', expected a number from 0 to 100 "
                              "(see: dstar help run)\n" },
        { "run --top-k=-1 x", "dstar: run: --top-k: found '-1', expected a whole number from 0 to "
                              "16777216 (see: dstar help run)\n" },
        { "run --ctx 99999999999999999999 x",
          "dstar: run: --ctx: found '99999999999999999999', expected a whole number from 0 to "
          "16777216 (see: dstar help run)\n" },
        { "run --think hgh x", "dstar: run: --think: found 'hgh', expected none|low|high|max "
                               "(see: dstar help run)\n" },
        { "run --memory 8Q x", "dstar: run: --memory: found '8Q', expected a size such as "
                               "8GB, a share such as 30%, or auto (see: dstar help run)\n" },
        { "run x -n", "dstar: run: --max-tokens: found nothing, expected N "
                      "(see: dstar help run)\n" },
        { "run --raw=yes x", "dstar: run: --raw: found 'yes', expected no value "
                             "(see: dstar help run)\n" },
        { "chat hello", "dstar: chat: found 'hello', expected no prompt (see: dstar help chat)\n" },
        { "import", "dstar: import: expected one FOLDER and -o FILE (see: dstar help import)\n" },
        { "bench --ctx-list 64,32", "dstar: bench: --ctx-list: found 32 after 64, expected "
                                    "ascending lengths (see: dstar help bench)\n" },
        { "eval nll --text a --tokens b", "dstar: eval nll: expected --text FILE or --tokens FILE, "
                                          "and nothing else (see: dstar help eval nll)\n" },
    };
    for (size_t i = 0; i < COUNT_OF(wrong); i++)
        expect(NULL, wrong[i].line, 2, "", wrong[i].err);
    expect("", "run", 2, "",
           "dstar: run: prompt: found nothing, expected a text (see: dstar help run)\n");
}

static void test_help(void **state)
{
    (void)state;
    static const char *const command[] = { "run", "chat", "inspect", "tokenize", "detokenize",
                                           "import", "eval logits", "eval nll", "eval skills",
                                           "eval draft", "eval repeat", "bench",
                                           "synth", "bench model", "bench layers", "bench kernels",
                                           "bench tokenizer" };
    struct child list = child_run("help"), brief = child_run("");
    expect(NULL, "--version", 0, "dstar 0.1.0\n", "");
    assert_int_equal(brief.status, 0);
    assert_non_null(strstr(brief.out, "\n  dstar run "));
    for (size_t i = 0; i < COUNT_OF(command); i++) {
        char line[64], row[64];
        snprintf(row, sizeof row, "\n  %s  ", command[i]);
        assert_non_null(strstr(list.out, row));
        snprintf(line, sizeof line, "help %s", command[i]);
        struct child help = child_run(line);
        assert_int_equal(help.status, 0);
        assert_string_equal(help.err, "");
        assert_null(strchr(help.out, '\033'));
        assert_non_null(strstr(help.out, "\nexamples:\n  "));
        snprintf(line, sizeof line, "%s --help", command[i]);
        expect(NULL, line, 0, help.out, "");
        child_release(&help);
    }
    child_release(&list);
    child_release(&brief);
}

#define N_VOCAB 2304 /* of the bundled model */
#define IDS "1115 662 298 229 25 27 28 1768 229 26 33 39" /* How much is 134 minus 29? */

static void test_tokens(void **state)
{
    (void)state;
    expect(NULL, "tokenize How much is 134 minus 29?", 0, IDS "\n", "");
    expect("How much is 134 minus 29?", "tokenize", 0, IDS "\n", "");
    expect(NULL, "detokenize " IDS, 0, "How much is 134 minus 29?", "");
    expect("[1115, 662,\n 298]", "detokenize", 0, "How much is", "");
    expect(NULL, "tokenize --special <think>Hm</think>", 0, "5 48 85 6\n", "");
    expect(NULL, "detokenize 5 48 85 6", 0, "Hm", "");
    expect(NULL, "detokenize --special 5 48 85 6", 0, "<think>Hm</think>", "");
    expect("\xc3\xa9\n", "tokenize --show", 0,
           "   136  \"\\xc3\"\n   111  \"\\xa9\"\n   207  \"\\n\"\n", "");
    expect("\"How much\"\n\"\"\n\"a\\u0000\\u00e9\"\n", "tokenize --jsonl", 0,
           "[1115, 662]\n[]\n[73, 197, 136, 111]\n", "");
    expect("{\"messages\":[{\"role\":\"user\",\"content\":\"How much\"}],\"thinking\":true}\n",
           "tokenize --jsonl", 0, "[0, 3, 1115, 662, 4, 5]\n", "");
    expect("[1115, 662]\n[]\n[73, 197, 136, 111]\n[136]\n", "detokenize --jsonl", 0,
           "\"How much\"\n\"\"\n\"a\\u0000\xc3\xa9\"\n\"\xef\xbf\xbd\"\n", "");
    expect("\xff\x00", "tokenize", 0, "196\n", "");
    expect(NULL, "detokenize 196", 0, "\xff", "");
}

static void test_token_errors(void **state)
{
    (void)state;
    expect(NULL, "detokenize 12 4096", 1, "",
           "dstar: ids: id number 2: found 4096, which is not in the vocabulary\n");
    expect(NULL, "detokenize 12 -1", 2, "", NULL);
    expect(NULL, "detokenize -- 12 -1", 1, "",
           "dstar: ids: id number 2: found '-1', expected a number\n");
    expect("[1.5]", "detokenize", 1, "", "dstar: ids: id number 1: found no whole number\n");
    expect("\"a\"\n{}\n", "tokenize --jsonl", 1, "[73]\n",
           "dstar: line 2: found neither a JSON string nor an object with messages\n");
    expect("\"a\"\n{\"messages\":[{\"role\":\"bear\"}]}\n", "tokenize --jsonl", 1, "[73]\n",
           "dstar: line 2: messages[0].role: expected system, user, assistant or tool, "
           "found \"bear\"\n");
    expect("[1]\n[9999]\n", "detokenize --jsonl", 1, "\"\"\n",
           "dstar: line 2: id number 1: found 9999, which is not in the vocabulary\n");
}

/* A folder with nothing but a tokenizer.json will do; a folder without does not. */
static void test_tokenizer_alone(void **state)
{
    (void)state;
    size_t n = 0;
    char *json = child_slurp("models/pebble/tokenizer.json", &n);
    assert_non_null(json);
    scratch_put(&dir, "tokenizer.json", json, n);
    free(json);
    expect(NULL, "tokenize -m @ How much", 0, "1115 662\n", "");
    expect(NULL, "run -m @ Hello", 1, "", NULL);
    scratch_remove(&dir, "tokenizer.json");
    struct child c = child_run(at("tokenize -m @ How much"));
    assert_int_equal(c.status, 1);
    assert_non_null(strstr(c.err, "tokenizer.json"));
    child_release(&c);
}

#define HELLO "Hello! How can I help you?"

static void test_run(void **state)
{
    (void)state;
    expect(NULL, "run --temp 0 Hello!", 0, HELLO "\n", "");
    expect("Hello!\n", "run --temp 0", 0, HELLO "\n", "");
    expect("Hello!", "run --temp 0 -f -", 0, HELLO "\n", "");
    expect("7 times 8?", "run --temp 0 'What is' -f -", 0, NULL, "");
    expect(NULL, "run --temp 0 --max-tokens 2 Hello!", 0, "Hell\n", "");
    expect(NULL, "run --temp 0 --stop ' help' Hello!", 0, "Hello! How can I\n", "");
    expect(NULL, "run --temp 0 -m /nonexistent.gguf x", 1, "", NULL);
    expect(NULL, "run --temp 0 --tools /nonexistent x", 1, "",
           "dstar: /nonexistent: cannot open: No such file or directory\n");
    scratch_put(&dir, "tools", "{\"a\": 1", 7);
    struct child c = child_run(at("run --tools @/tools x"));
    assert_int_equal(c.status, 1);
    assert_non_null(strstr(c.err, at("dstar: @/tools: line 1: ")));
    child_release(&c);
    scratch_remove(&dir, "tools");
    c = child_run("run --temp 0 --stats Hello!");
    assert_string_equal(c.out, HELLO "\n");
    assert_non_null(strstr(c.err, "prompt 8 tok"));
    assert_non_null(strstr(c.err, "answer 11 tok"));
    child_release(&c);
}

static void test_run_seed(void **state)
{
    (void)state;
    struct child a = child_run("run --temp 3 --seed 7 -n 40 'Write an encyclopedia of birds.'");
    struct child b = child_run("run --temp 3 --seed 7 -n 40 'Write an encyclopedia of birds.'");
    struct child c = child_run("run --temp 3 --seed 8 -n 40 'Write an encyclopedia of birds.'");
    assert_string_equal(a.out, b.out);
    assert_string_not_equal(a.out, c.out);
    assert_true(strlen(a.out) > 40);
    child_release(&a);
    child_release(&b);
    child_release(&c);
}

static void test_run_json(void **state)
{
    (void)state;
    json_t *r = json_of("run --temp 0 --seed 5 --json Hello!");
    assert_string_equal(text_at(r, "content"), HELLO);
    assert_string_equal(text_at(r, "reasoning"), "");
    assert_string_equal(text_at(r, "finish_reason"), "stop");
    assert_string_equal(text_at(r, "model"), "pebble");
    assert_int_equal(int_at(r, "seed", NULL), 5);
    assert_int_equal(int_at(r, "usage", "prompt_tokens"), 8);
    assert_int_equal(int_at(r, "usage", "completion_tokens"), 11);
    assert_int_equal(int_at(r, "usage", "total_tokens"), 19);
    assert_true(json_is_real(json_object_get(json_object_get(r, "timings"), "first_token_s")));
    json_decref(r);
    r = json_of("run --temp 0 --json -n 3 Hello!");
    assert_string_equal(text_at(r, "finish_reason"), "length");
    assert_int_equal(int_at(r, "usage", "completion_tokens"), 3);
    json_decref(r);
}

/* The continuation, byte for byte; a stop string may be cut by tokens anywhere. */
static void test_run_raw(void **state)
{
    (void)state;
    json_t *r = json_of("run --raw --json --temp 0 -n 12 'The robin is'");
    char whole[512], stop[64], line[256];
    snprintf(whole, sizeof whole, "%s", text_at(r, "content"));
    assert_true(strlen(whole) > 20);
    assert_int_equal(int_at(r, "usage", "prompt_tokens"), 6); /* the beginning is marked */
    json_decref(r);
    expect(NULL, "run --raw --temp 0 -n 12 'The robin is'", 0, whole, "");
    snprintf(stop, sizeof stop, "%.5s", whole + 10);
    snprintf(line, sizeof line, "run --raw --temp 0 -n 12 --stop '%s' 'The robin is'", stop);
    *strstr(whole, stop) = 0;
    expect(NULL, line, 0, whole, "");
}

static void test_run_think(void **state)
{
    (void)state;
    const char *ask = "--temp 0 --think high 'What is 12 plus 30?'";
    char line[128], both[512];
    snprintf(line, sizeof line, "run --json %s", ask);
    json_t *r = json_of(line);
    assert_true(strlen(text_at(r, "reasoning")) > 10);
    snprintf(line, sizeof line, "run %s", ask);
    struct child c = child_run(line);
    snprintf(both, sizeof both, "%s\n", text_at(r, "content"));
    assert_string_equal(c.out, both);
    snprintf(both, sizeof both, "%s\n", text_at(r, "reasoning"));
    assert_string_equal(c.err, both);
    snprintf(line, sizeof line, "run -q %s", ask);
    expect(NULL, line, 0, c.out, "");
    child_release(&c);
    json_decref(r);
}

static const char weather[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"description\": "
    "\"Get the current weather of a city.\", \"parameters\": {\"type\": \"object\", "
    "\"properties\": {\"city\": {\"type\": \"string\"}}, \"required\": [\"city\"]}}}]";

/* A call is printed and kept; the next prompt of the session is its result. */
static void test_run_tools(void **state)
{
    (void)state;
    scratch_put(&dir, "tools", weather, sizeof weather - 1);
    json_t *r = json_of("run --temp 0 --json --tools @/tools 'What is the weather in Rome?'");
    json_t *call = json_array_get(json_object_get(r, "tool_calls"), 0);
    json_t *function = json_object_get(call, "function");
    assert_string_equal(text_at(r, "finish_reason"), "tool_calls");
    assert_string_equal(text_at(function, "name"), "get_weather");
    assert_string_equal(text_at(function, "arguments"), "{\"city\": \"Rome\"}");
    json_decref(r);
    expect(NULL, "run --temp 0 --tools @/tools --session @/s 'What is the weather in Rome?'", 0,
           "call get_weather {\"city\": \"Rome\"}\n", "");
    struct child c = child_run_with("{\"temperature\": 21, \"sky\": \"sunny\"}",
                                    at("run --temp 0 --session @/s"));
    assert_int_equal(c.status, 0);
    assert_non_null(strstr(c.out, "Rome"));
    assert_non_null(strstr(c.out, "21"));
    child_release(&c);
    scratch_remove(&dir, "tools");
    scratch_remove(&dir, "s");
}

/* Three ways to hold one conversation: two runs with a file, one chat, a chat that goes on. */
static void test_session(void **state)
{
    (void)state;
    expect(NULL, "run --temp 0 --session @/a Hello!", 0, HELLO "\n", "");
    json_t *r = json_of("run --temp 0 --session @/a --json Thanks");
    char thanks[256];
    snprintf(thanks, sizeof thanks, "%s\n", text_at(r, "content"));
    assert_int_equal(int_at(r, "usage", "cached_tokens"), 19);
    json_decref(r);
    struct child c = child_run_with("Hello!\nThanks\n", "chat --temp 0");
    assert_int_equal(c.status, 0);
    assert_int_equal(strncmp(c.out, HELLO "\n", strlen(HELLO) + 1), 0);
    assert_string_equal(c.out + strlen(HELLO) + 1, thanks);
    assert_string_equal(c.err, "");
    child_release(&c);
    struct child saved = child_run_with(at("Hello!\n/save @/b\n"), "chat --temp 0");
    assert_string_equal(saved.err, at("(saved to @/b)\n"));
    child_release(&saved);
    c = child_run_with(at("/load @/b\nThanks\n"), "chat --temp 0");
    assert_string_equal(c.out, thanks);
    assert_string_equal(c.err, at("(going on from @/b, 2 messages)\n"));
    child_release(&c);
    scratch_remove(&dir, "a");
    scratch_remove(&dir, "b");
}

static void test_session_damaged(void **state)
{
    (void)state;
    scratch_put(&dir, "s", "no session", 10);
    struct child c = child_run(at("run --temp 0 --session @/s Hello!"));
    assert_int_equal(c.status, 1);
    assert_string_equal(c.out, "");
    assert_non_null(strstr(c.err, at("@/s: ")));
    child_release(&c);
    char *kept = child_slurp(at("@/s"), NULL);
    assert_string_equal(kept, "no session");
    free(kept);
    scratch_remove(&dir, "s");
}

static void test_chat_commands(void **state)
{
    (void)state;
    expect("/hlep\n/think hgh\n/think high\n/think\n/quit now\n/save\n/new\n/quit\nHello!\n",
           "chat --temp 0", 0, "",
           "dstar: unknown command /hlep, did you mean /help?\n"
           "dstar: /think: found 'hgh', expected none, low, high or max\n"
           "(thinking: high)\n(thinking: high)\n"
           "dstar: /quit: found 'now', expected nothing\n"
           "dstar: /save: found nothing, expected a file\n"
           "(a new conversation)\n");
    expect("Hel\\\nlo!\nHello!", "chat --temp 0 -n 1", 0, NULL, "");
    expect("Hello!\n/system You are Pebble.\nHello!\n/new\nHello!\n", "chat --temp 0", 0,
           HELLO "\n" HELLO "\n" HELLO "\n",
           "(a new conversation, with these instructions)\n(a new conversation)\n");
}

static void test_inspect(void **state)
{
    (void)state;
    json_t *r = json_of("inspect --json --ctx 2000 --tensors");
    assert_string_equal(text_at(r, "format"), "GGUF");
    assert_int_equal(int_at(r, "total", "parameters"), 42126205); /* no draft block */
    assert_true(json_integer_value(json_object_get(r, "file_bytes")) < 18000000);
    assert_int_equal(int_at(r, "tokenizer", "tokens"), 2304);
    assert_int_equal(int_at(r, "memory", "ctx"), 2000);
    assert_int_equal(json_array_size(json_object_get(r, "tensors")),
                     int_at(r, "total", "tensors"));
    json_int_t small = int_at(r, "memory", "cache_bytes");
    json_decref(r);
    r = json_of("inspect --json --ctx 200000 models/pebble");
    assert_string_equal(text_at(r, "format"), "checkpoint");
    assert_int_equal(int_at(r, "total", "parameters"), 47987798);
    assert_true(int_at(r, "memory", "cache_bytes") > 50 * small);
    assert_null(json_object_get(r, "tensors"));
    json_decref(r);
    struct child c = child_run("inspect --ctx 2000");
    assert_int_equal(c.status, 0);
    assert_non_null(strstr(c.out, "42,126,205"));
    assert_non_null(strstr(c.out, "memory for a conversation of 2000 tokens"));
    child_release(&c);
    expect(NULL, "inspect @/none.gguf", 1, "", NULL);
}

static void test_import(void **state)
{
    (void)state;
    char bundled[512];
    size_t n = 0, n_bundled = 0;
    expect(NULL, "import models/pebble -o @/p.gguf", 0, "", "");
    snprintf(bundled, sizeof bundled, "%s/pebble-exact.gguf", child_build());
    char *a = child_slurp(at("@/p.gguf"), &n), *b = child_slurp(bundled, &n_bundled);
    assert_non_null(a);
    assert_true(n == n_bundled && memcmp(a, b, n) == 0);
    free(a);
    free(b);
    expect(NULL, "run --temp 0 -m @/p.gguf Hello!", 0, HELLO "\n", "");
    scratch_remove(&dir, "p.gguf");
    expect(NULL, "import @ -o @/p.gguf", 1, "", NULL);
    expect(NULL, "import models/pebble -o @/none/p.gguf", 1, "", NULL);
    assert_false(file_exists(at("@/p.gguf")) || file_exists(at("@/p.gguf.part")));
}

/* The oracle's document `which`: its ids in a file, its mean_nll, and its best ids. */
static json_t *oracle_document(int which)
{
    json_t *all = json_load_file("tests/data/pebble/oracle.json", 0, NULL);
    json_t *list = json_is_array(all) ? all : json_object_get(all, "documents");
    json_t *doc = json_incref(json_array_get(list, (size_t)which));
    assert_non_null(doc);
    assert_int_equal(json_dump_file(json_object_get(doc, "ids"), at("@/ids.json"), 0), 0);
    json_decref(all);
    return doc;
}

static void test_eval(void **state)
{
    (void)state;
    json_t *doc = oracle_document(0);
    int n_id = (int)json_array_size(json_object_get(doc, "ids"));
    size_t n = 0, n_again = 0;
#define EVAL                                                                                      \
    "eval logits -m models/pebble --exact --cache-simulation none --tokens @/ids.json --out "
    expect(NULL, EVAL "@/a.f32", 0, "", "");
    expect(NULL, EVAL "@/b.f32 --chunk 3", 0, "", "");
    char *a = child_slurp(at("@/a.f32"), &n), *b = child_slurp(at("@/b.f32"), &n_again);
    assert_int_equal(n, (size_t)n_id * N_VOCAB * 4);
    assert_true(n == n_again && memcmp(a, b, n) == 0);
    json_t *best = json_array_get(json_array_get(json_object_get(doc, "top"), 0), 0);
    float *row = (float *)(void *)a;
    int top = 0;
    for (int i = 1; i < N_VOCAB; i++)
        top = row[i] > row[top] ? i : top;
    assert_int_equal(top, json_integer_value(json_array_get(best, 0)));
    struct child c = child_run(at("eval nll -m models/pebble --exact --tokens @/ids.json"));
    double want = json_real_value(json_object_get(doc, "mean_nll"));
    assert_true(fabs(strtod(c.out, NULL) - want) < 1e-3);
    child_release(&c);
    c = child_run(at("eval logits --mtp -m tests/data/oracle/nano "
                     "--tokens tests/data/oracle/nano/tokens.json --out @/c.f32"));
    assert_int_equal(c.status, 1);
    assert_non_null(strstr(c.err, "draft block"));
    assert_false(file_exists(at("@/c.f32")) || file_exists(at("@/c.f32.part")));
    child_release(&c);
    free(a);
    free(b);
    json_decref(doc);
    scratch_remove(&dir, "a.f32");
    scratch_remove(&dir, "b.f32");
    scratch_remove(&dir, "ids.json");
}

/* From a checkpoint's folder, without a tokenizer: the vendor's logits, and the draft block's. */
static void test_eval_oracle(void **state)
{
    (void)state;
    static const struct {
        const char *line, *want;
    } job[] = {
        { "-m tests/data/oracle/nano --tokens tests/data/oracle/nano/tokens.json",
          "tests/data/oracle/nano/logits.plain.f32" },
        { "-m tests/data/oracle/truehead --mtp --chunk 37 --tokens "
          "tests/data/oracle/truehead/tokens.json", "tests/data/oracle/truehead/mtp.plain.f32" },
    };
    for (size_t i = 0; i < COUNT_OF(job); i++) {
        char line[512];
        size_t n = 0, n_want = 0;
        snprintf(line, sizeof line, "eval logits --exact --cache-simulation none --out @/o.f32 %s",
                 job[i].line);
        expect(NULL, line, 0, "", "");
        char *got = child_slurp(at("@/o.f32"), &n), *want = child_slurp(job[i].want, &n_want);
        assert_non_null(want);
        assert_int_equal(n, n_want);
        double most = 0;
        for (size_t k = 0; k < n / 4; k++)
            most = fmax(most, fabs((double)((float *)(void *)got)[k] -
                                   (double)((float *)(void *)want)[k]));
        assert_true(most < 1e-4);
        free(got);
        free(want);
    }
    scratch_remove(&dir, "o.f32");
}

static void test_bench(void **state)
{
    (void)state;
    json_t *r = json_of("bench --json --ctx-list 16,48 --gen 2 --repeat 2");
    json_t *row = json_array_get(json_object_get(r, "results"), 1);
    json_t *prefill = json_object_get(row, "prefill");
    assert_int_equal(int_at(row, "ctx", NULL), 48);
    assert_int_equal(json_array_size(json_object_get(prefill, "all")), 2);
    assert_true(json_real_value(json_object_get(prefill, "median")) > 0);
    json_t *decode = json_object_get(row, "decode");
    double p95 = json_real_value(json_object_get(decode, "token_p95_s"));
    assert_true(p95 > 0 && p95 <= json_real_value(json_object_get(decode, "token_p99_s")));
    assert_true(strlen(text_at(json_object_get(r, "model"), "identity")) == 64);
    json_decref(r);
    struct child c = child_run("bench --csv --ctx-list 16 --gen 2 --repeat 1");
    static const char head[] =
        "ctx,prefill,prefill_least,prefill_most,decode,decode_least,decode_most,"
        "token_p95_s,token_p99_s\n16,";
    assert_int_equal(strncmp(c.out, head, sizeof head - 1), 0);
    assert_string_equal(c.err, "");
    child_release(&c);
    r = json_of("bench --json --fill-cache --read 8 --ctx-list 500 --gen 256 --repeat 2");
    decode = json_object_get(json_array_get(json_object_get(r, "results"), 0), "decode");
    const json_t *part = json_object_get(decode, "eighths");
    assert_int_equal(json_array_size(part), 8);
    for (size_t i = 0; i < 8; i++) /* no median is outside of all */
        assert_true(json_real_value(json_array_get(part, i)) >
                    .9 / json_real_value(json_object_get(decode, "token_p99_s")));
    json_decref(r);
    r = json_of("bench layers --json --synth small --layers 3 --at 100 --rows 1,8 --repeat 3");
    json_t *lines = json_object_get(r, "lines");
    assert_int_equal(json_array_size(lines), 8); /* window, sparse, head and step, twice */
    for (size_t i = 0; i < 8; i++)
        assert_true(json_real_value(json_object_get(json_array_get(lines, i), "median")) > 0);
    assert_true(json_real_value(json_object_get(r, "read_bytes_per_s")) > 1e8);
    json_decref(r);
    r = json_of("bench kernels --json --type Q8_0 --rows 1,8 --repeat 3");
    lines = json_object_get(r, "lines");
    assert_int_equal(json_array_size(lines), 2);
    assert_string_equal(text_at(json_array_get(lines, 1), "name"), "Q8_0, 8 rows");
    assert_true(json_real_value(json_object_get(json_array_get(lines, 1), "median")) > 0);
    json_decref(r);
    r = json_of("bench tokenizer --json --repeat 2 docs/model.md");
    assert_string_equal(text_at(r, "unit"), "MB/s");
    json_decref(r);
}

/* Where no model is, the program says where it looked. */
static void test_no_model(void **state)
{
    (void)state;
    char line[1024], program[512];
    snprintf(program, sizeof program, "%s/dstar", child_build());
    size_t n = 0;
    char *bytes = child_slurp(program, &n);
    scratch_put(&dir, "dstar", bytes, n);
    free(bytes);
    assert_int_equal(chmod(at("@/dstar"), 0700), 0);
    char kept[512];
    snprintf(kept, sizeof kept, "%s", child_build());
    setenv("DSTAR_BUILD", dir.path, 1);
    snprintf(line, sizeof line,
             "dstar: no model: give one with -m FILE or DSTAR_MODEL; the bundled one is neither "
             "%s/pebble.gguf nor %s/../share/dwarfstar/pebble.gguf\n", dir.path, dir.path);
    expect(NULL, "run x", 1, "", line);
    struct child c = child_run(at("synth --shape small -o @/small.gguf")); /* nor its tokenizer */
    assert_int_equal(c.status, 1);
    assert_non_null(strstr(c.err, "--tokenizer MODEL"));
    assert_int_not_equal(access(at("@/small.gguf"), F_OK), 0);
    child_release(&c);
    setenv("DSTAR_MODEL", "/nonexistent.gguf", 1);
    c = child_run("run x");
    assert_int_equal(c.status, 1);
    assert_non_null(strstr(c.err, "dstar: /nonexistent.gguf: "));
    child_release(&c);
    unsetenv("DSTAR_MODEL");
    setenv("DSTAR_BUILD", kept, 1);
    scratch_remove(&dir, "dstar");
}

static int setup(void **state)
{
    (void)state;
    unsetenv("DSTAR_MODEL");
    unsetenv("NO_COLOR");
    scratch_open(&dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_close(&dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usage),         cmocka_unit_test(test_help),
        cmocka_unit_test(test_tokens),        cmocka_unit_test(test_token_errors),
        cmocka_unit_test(test_tokenizer_alone), cmocka_unit_test(test_run),
        cmocka_unit_test(test_run_seed),      cmocka_unit_test(test_run_json),
        cmocka_unit_test(test_run_raw),       cmocka_unit_test(test_run_think),
        cmocka_unit_test(test_run_tools),     cmocka_unit_test(test_session),
        cmocka_unit_test(test_session_damaged), cmocka_unit_test(test_chat_commands),
        cmocka_unit_test(test_inspect),       cmocka_unit_test(test_import),
        cmocka_unit_test(test_eval),          cmocka_unit_test(test_eval_oracle),
        cmocka_unit_test(test_bench),
        cmocka_unit_test(test_no_model),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
