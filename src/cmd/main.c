/* main.c - the program `dstar`: a table of commands, and the way to each of them. */
#include <stdio.h>
#include <stdlib.h>

#include "commands.h"
#include "engine_opts.h"
#include "host.h"
#include "suggest.h"
#include "term.h"

static const struct command commands[] = {
    { "run", "[PROMPT]...", "answer one prompt and end",
      "The prompt is the words of the command line, a file (-f), or standard input. The answer "
      "goes to standard output as it is written; reasoning, progress and figures go elsewhere, so "
      "that the answer can be piped. Ctrl-C stops the answer and keeps what there is of it.\n"
      "If the last answer of a --session was a tool call, the prompt is its result.\n\n"
      ABOUT_PEBBLE,
      "dstar run \"Write an encyclopedia of birds.\"\n"
      "dstar run -m flash.gguf --think high -f question.txt\n"
      "git diff | dstar run -m flash.gguf \"Review this change.\" -f -\n"
      "dstar run --temp 0 --raw \"The first line of the file is\" --max-tokens 40\n"
      "dstar run --json --seed 1 \"What is 12 plus 30?\"",
      cmd_run },
    { "chat", "", "hold a conversation in the terminal",
      "One line is one message; a backslash at its end goes on in the next line. Lines that begin "
      "with a slash are commands: /help lists them. Ctrl-C stops an answer and keeps the "
      "conversation; Ctrl-C again at the prompt, or Ctrl-D, ends it.\n\n" ABOUT_PEBBLE,
      "dstar chat\n"
      "dstar chat -m flash.gguf --think high --session project.dstar\n"
      "dstar chat --system \"Answer briefly.\"",
      cmd_chat },
    { "inspect", "MODEL", "describe a model and the memory it needs, without loading it",
      "MODEL is a GGUF file or a checkpoint folder; without it, that of -m. Shown are its shape, "
      "how its parts are packed, its tokenizer, and what a conversation of --ctx tokens would take "
      "on this machine.",
      "dstar inspect flash.gguf\n"
      "dstar inspect --ctx 100000 DeepSeek-V4-Flash\n"
      "dstar inspect --json --tensors flash.gguf",
      cmd_inspect },
    { "tokenize", "[TEXT]...", "text to token ids",
      "The text is the words of the command line, a file (-f), or standard input, byte for byte. "
      "Nothing is put in front or behind. A folder that holds only a tokenizer.json will do as -m.",
      "dstar tokenize \"Hello world\"\n"
      "dstar tokenize --show --special \"<think>Hm.</think>\"\n"
      "dstar tokenize --jsonl < texts.jsonl > ids.jsonl",
      cmd_tokenize },
    { "detokenize", "[ID]...", "token ids to text",
      "Ids are words, or a JSON array, from the command line, a file (-f) or standard input. The "
      "text is printed byte for byte.",
      "dstar detokenize 311 1250\n"
      "dstar tokenize \"Hello world\" | dstar detokenize",
      cmd_detokenize },
    { "import", "FOLDER", "make one GGUF file of a checkpoint folder",
      "Routed experts keep their values bit for bit; everything else becomes a type that holds the "
      "vendor's values exactly, unless --dense asks for less. The file appears under its name when "
      "it is complete.",
      "dstar import DeepSeek-V4-Flash -o flash.gguf\n"
      "dstar import DeepSeek-V4-Flash -o flash-q8.gguf --dense q8_0",
      cmd_import },
    { "quantize", "MODEL", "make a smaller file of a model, by a recipe",
      "MODEL is a checkpoint folder or a GGUF file. A recipe says which tensor becomes which type; "
      "q2 is the mix of the 81 GiB files. An importance matrix, in either of the public formats, "
      "tells which inputs matter; without one, two bits cost more. An interrupted call goes on "
      "where it stopped when it is given again, and the file is the same, byte for byte.\n\n"
      "A file of rules has one on a line, PATTERN TYPE, and the first that matches a tensor's name "
      "decides; '*' stands for any characters. Types are IQ2_XXS, Q2_K, Q4_K, Q8_0, MXFP4, F16, "
      "BF16, F32, keep and, for draft blocks, drop. Behind the type may stand layers=A-B, "
      "weights=imatrix|columns|none, power=P and search=fast|exact.",
      "dstar quantize --dry-run --shape flash\n"
      "dstar quantize DeepSeek-V4-Flash -o flash-q2.gguf --imatrix flash.imatrix\n"
      "dstar quantize flash.gguf -o flash-q4.gguf --recipe q4\n"
      "dstar quantize DeepSeek-V4-Flash -o flash-q2.gguf --imatrix flash.imatrix --verify",
      cmd_quantize },
    { "calibrate", "", "find out which inputs of a model matter",
      "Runs the model over texts and writes an importance matrix in the public GGUF format: for "
      "every matrix the sums of squares of its inputs, of routed experts for each expert. dstar "
      "quantize --imatrix reads it. Ctrl-C stops after the text under way; --resume goes on, also "
      "after a crash, with the same bytes in the end.",
      "dstar calibrate -m flash.gguf --corpus prompts.jsonl --continue 256 -o flash.imatrix.gguf\n"
      "dstar calibrate --corpus book.txt --hessian book.hessian.gguf -o book.imatrix.gguf\n"
      "dstar calibrate --merge a.gguf b.gguf -o both.gguf",
      cmd_calibrate },
    { "fit", "", "tell how fast a model can be on this machine, by memory",
      "Before it is loaded: for each size of memory how many of the experts stay in it, how often "
      "a token finds them there, what it reads from the drive, and how many tokens a second drive "
      "and memory allow at most. The drive is measured with the model's own file. How often "
      "experts are found is what recorded routes gave; your own texts may be kinder or not.",
      "dstar fit -m flash.gguf\n"
      "dstar fit -m flash.gguf --budgets 8,16,32 --svg flash.svg\n"
      "dstar fit -m flash.gguf --drive 7", cmd_fit },
    { "synth", "", "make a model of any size with random weights",
      "For measuring speed and memory where the real model is not at hand, and for tests: it has "
      "the real one's shapes, types and names, and writes nonsense. The same options give the same "
      "bytes on every machine; docs/formats.md says how they are made.",
      "dstar synth --shape flash --layers 6 -o flash6.gguf\n"
      "dstar synth --shape small --quant q4 -o small.gguf",
      cmd_synth },
    { "eval logits", "", "write the logits after every token of a list",
      "For comparing this program with others, or with itself.",
      "dstar eval logits --tokens ids.json --out logits.f32\n"
      "dstar eval logits -m flash.gguf --exact --tokens ids.json --out logits.f32",
      cmd_eval_logits },
    { "eval nll", "", "print how well the model predicts a text",
      "The mean negative logarithm of the probability of every token but the first, in nats.",
      "dstar eval nll --text README.md\n"
      "dstar eval nll --tokens ids.json --chunk 512",
      cmd_eval_nll },
    { "eval skills", "[FILE]...", "count the dialogues that a model gets right",
      "Each line of a set is a dialogue with the answers that are expected in it. The model "
      "answers greedily; an answer is right if its text and its tool calls are the expected "
      "ones, and a dialogue if all its answers are. \"to the byte\" holds reasoning and markup "
      "to it as well. Files without --set in front are sets, too.",
      "dstar eval skills --set tools/train/heldout/arithmetic.jsonl\n"
      "dstar eval skills --limit 10 --set tools/train/heldout/*.jsonl\n"
      "dstar eval skills --wrong --set tools/train/heldout/tools.jsonl",
      cmd_eval_skills },
    { "eval draft", "[FILE]...", "measure how often the draft block is right",
      "The model answers the prompts of the sets greedily. Counted is how often the likeliest "
      "token of the draft block is the one that the model wrote.",
      "dstar eval draft --limit 10 --set tools/train/heldout/*.jsonl", cmd_eval_draft },
    { "eval repeat", "[PROMPT]...", "measure how much a long answer repeats itself",
      "The share of runs of --gram tokens in a greedy answer that occurred in it before. Without a "
      "PROMPT the bundled model writes its four longest encyclopedias.",
      "dstar eval repeat\n"
      "dstar eval repeat -m flash.gguf --max-tokens 2000 \"Write a story.\"",
      cmd_eval_repeat },
    { "eval reference", "", "keep what a model says about texts",
      "For every token that counts, the logarithms of all probabilities (16 bits), the experts "
      "chosen, and of some tokens the state behind each layer. Of dialogues the tokens of answers "
      "count, of texts all. Other files of the same model are then compared with it by dstar eval "
      "kl. A file takes about two bytes for each token that counts and word of the vocabulary.",
      "dstar eval reference -m flash.gguf --exact --text dialogues.jsonl -o flash.ref\n"
      "dstar eval reference --text README.md --piece 512 -o readme.ref",
      cmd_eval_reference },
    { "eval kl", "", "measure how far a model is from a reference",
      "The Kullback-Leibler divergence of the model's probabilities from the reference's, in nats; "
      "how often both have the same likeliest token; the perplexity of both; how often routers "
      "choose the same experts; and the relative error of the state behind each layer.",
      "dstar eval kl -m flash-q2.gguf --reference flash.ref\n"
      "dstar eval kl -m flash-q2.gguf --reference flash.ref --json > q2.json",
      cmd_eval_kl },
    { "eval compare", "FILE...", "put divergences side by side",
      "Files of dstar eval kl --json about the same texts. Difference and ratio are to the first "
      "of them. The intervals hold 95 % of what is found when the texts are drawn again, with "
      "replacement, the same for both of a pair.",
      "dstar eval compare plain.json imatrix.json\n"
      "dstar eval compare --svg kl.svg --skills plain-skills.json plain.json imatrix.json",
      cmd_eval_compare },
    { "trace", "", "record which experts compute which token",
      "Of prompts and of the model's greedy answers. The file: four little-endian 32-bit numbers "
      "(tokens, layers, experts used by a token, 0), then the experts' numbers in 16 bits, "
      "[token][layer][used]. It is not compressed. tools/expert_usage.py reads it.",
      "dstar trace -f question.txt -o question.tr\n"
      "dstar trace --set tools/train/heldout/words.jsonl --limit 4000 -o words.tr",
      cmd_trace },
    { "simulate", "TRACE...", "replay recorded routes on caches of experts",
      "For each file of dstar trace and each size of cache: how many experts would have been in "
      "memory, what would have been read for each token, the same for the best rule that never "
      "changes, and the least that any choice could have had to read. No model is needed.",
      "dstar simulate words.tr\n"
      "dstar simulate --percent 10,25 --policy lru words.tr code.tr\n"
      "dstar simulate --json --slots 2000 --expert-bytes 6912K words.tr",
      cmd_simulate },
    { "bench", "", "measure the speed of reading prompts and writing answers",
      "A conversation of random tokens grows from one length of --ctx-list to the next. At each, "
      "prefill is the rate of reading the tokens added, decode that of writing --gen tokens; of "
      "256 or more that of each eighth is shown, too. A GPU is at work from the first kernel of a "
      "step to the last.",
      "dstar bench\n"
      "dstar bench -m flash.gguf --ctx-list 1024,16384 --repeat 5\n"
      "dstar bench --json > bench.json",
      cmd_bench },
    { "bench model", "", "the same as dstar bench",
      "For a long context, --fill-cache draws the cache instead of reading a text.",
      "dstar bench model -m flash.gguf --fill-cache --ctx-list 2048,8192,32768\n"
      "dstar bench model --synth flash --layers 6 --routes text.tr",
      cmd_bench },
    { "bench layers", "", "measure each kind of layer, and what holds it up",
      "A step of --rows tokens is computed behind --at tokens of context. Shown are, for each kind "
      "of layer (window: the last tokens alone; sparse: and picked blocks of 4; heavy: and all "
      "blocks of 128; head: with the embedding), the time of one, the bytes it reads and the time "
      "this takes at best, the time of its products alone, and the share of the larger of both in "
      "the whole. Of Flash and Pro a few layers will do: all are counted up.",
      "dstar bench layers --synth flash --layers 6\n"
      "dstar bench layers -m flash.gguf --at 4096 --rows 1 --ops",
      cmd_bench_layers },
    { "bench kernels", "", "measure products with each type of weights",
      "Matrices of 2048 x 4096, cycled through 256 MB, by some rows of activations. Shown are "
      "the bytes of weights read, the operations done, and their shares of what this machine reads "
      "and multiplies at best, which is measured first. The model decides nothing.",
      "dstar bench kernels\n"
      "dstar bench kernels --threads 1 --cpu avx2 --type Q8_0 --rows 1,8",
      cmd_bench_kernels },
    { "bench tokenizer", "FILE", "measure the speed of the tokenizer on a text",
      "Encodes and decodes the text, and checks that it comes back byte for byte.",
      "dstar bench tokenizer README.md", cmd_bench_tokenizer },
    { "bench reads", "", "measure how fast a drive gives experts",
      "Random experts of a model file are read as a token would that misses some of a layer: all "
      "at once, and then waited for. With --file any large file will do. A file that was just "
      "written, or a virtual drive's, may come from a cache.",
      "dstar bench reads -m flash.gguf\n"
      "dstar bench reads --file disk.img --expert-bytes 12800K --io pool-direct", cmd_bench_reads },
    { "bench load", "", "measure how fast a model file comes to a GPU",
      "Its weights are loaded from the drive, and again from the page cache. Beside that stand the "
      "reads alone and the copies over the bus alone, by as many threads, in pieces as large: "
      "loading can be as fast as the slower of both. Opening is all that a user waits for.",
      "dstar bench load -m flash.gguf --device cuda", cmd_bench_load },
};

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* The command the arguments begin with; *n_word: how many of them name it. */
static const struct command *find_in(int n, char **arg, int *n_word)
{
    char two[64];
    snprintf(two, sizeof two, "%s %s", arg[0], n > 1 ? arg[1] : "");
    const struct command *c = n > 1 ? find(two) : NULL;
    *n_word = c ? 2 : 1;
    return c ? c : find(arg[0]);
}

static bool is_in(const struct command *c, const char *group)
{
    size_t len = strlen(group);
    return strncmp(c->name, group, len) == 0 && c->name[len] == ' ';
}

static bool is_group(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(commands); i++)
        if (is_in(&commands[i], name))
            return true;
    return false;
}

/* The brief of every command whose name begins with `group` and a space, or of all for "". */
static void list(FILE *out, const char *group)
{
    for (size_t i = 0; i < COUNT_OF(commands); i++)
        if (!*group || is_in(&commands[i], group))
            fprintf(out, "  %-16s %s\n", commands[i].name, commands[i].brief);
}

static int unknown(int n, char **arg)
{
    bool group = is_group(arg[0]);
    if (group && n == 1) {
        term_error("%s what?", arg[0]);
        list(stderr, arg[0]);
        return EXIT_USAGE;
    }
    struct suggest one, two;
    char both[64];
    snprintf(both, sizeof both, "%s %s", arg[0], n > 1 ? arg[1] : "");
    suggest_init(&one, arg[0]);
    suggest_init(&two, both);
    suggest_offer(&one, "help");
    for (size_t i = 0; i < COUNT_OF(commands); i++) {
        suggest_offer(&one, commands[i].name);
        suggest_offer(&two, commands[i].name);
    }
    const char *best = two.best && strchr(two.best, ' ') ? two.best : one.best;
    const char *typed = group ? both : arg[0];
    if (best)
        term_error("unknown command %s, did you mean %s?", typed, best);
    else
        term_error("unknown command %s (dstar help lists them)", typed);
    return EXIT_USAGE;
}

static int short_help(void)
{
    printf("dstar runs DeepSeek V4 models on machines people own. Try:\n\n"
           "  dstar run \"Write an encyclopedia of birds.\"    the bundled model answers\n"
           "  dstar chat -m flash.gguf                       talk with another one\n"
           "  dstar inspect flash.gguf                       what it is and what it needs\n\n"
           "dstar help lists the commands, dstar help COMMAND its options.\n");
    return EXIT_DONE;
}

static int help(int n, char **arg)
{
    if (n > 0) {
        int n_word;
        const struct command *c = find_in(n, arg, &n_word);
        char *ask[] = { "--help" };
        if (!c && n == 1 && is_group(arg[0])) {
            list(stdout, arg[0]);
            return EXIT_DONE;
        }
        return c ? c->run(c, 1, ask) : unknown(n, arg);
    }
    printf("dstar %s - run DeepSeek V4 models\n\nusage: dstar COMMAND [OPTION]...\n\ncommands:\n",
           dstar_version());
    list(stdout, "");
    printf("  %-16s %s\n\n", "help", "this list; with a command, all about it");
    opts_print_wrapped(ABOUT_PEBBLE);
    printf("\nexamples:\n"
           "  dstar run \"Write an encyclopedia of birds.\"\n"
           "  git diff | dstar run -m flash.gguf \"Review this change.\" -f -\n"
           "  dstar chat -m flash.gguf --think high\n");
    return EXIT_DONE;
}

static int dispatch(int n, char **arg)
{
    int n_word;
    if (n == 0)
        return short_help();
    if (strcmp(arg[0], "--version") == 0) {
        printf("dstar %s\n", dstar_version());
        return EXIT_DONE;
    }
    if (strcmp(arg[0], "help") == 0 || strcmp(arg[0], "--help") == 0 || strcmp(arg[0], "-h") == 0)
        return help(n - 1, arg + 1);
    const struct command *c = find_in(n, arg, &n_word);
    return c ? c->run(c, n - n_word, arg + n_word) : unknown(n, arg);
}

int main(int argc, char **argv)
{
    host_quiet_pipes();
    term_init();
    int status = dispatch(argc - 1, argv + 1);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        term_error("standard output: cannot be written");
        return EXIT_ERROR;
    }
    return status;
}
