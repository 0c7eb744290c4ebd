/* replay.c - runs a fuzz target without a fuzzer: over its corpus, and over small changes of it.
 *
 * `make test` must find what `make fuzz` once found, with any compiler. So each input is given as
 * it is, cut at up to MAX_CUT places, and with MAX_FLIP single bytes replaced; the changes come
 * from a counter, so a failure repeats. One TAP line for the corpus, one for the changes. A crash
 * ends the program before its lines are complete, which the runner counts as failures; the input
 * at hand is then named in the last comment line. */
#include "buf.h"
#include "file.h"
#include "rng.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_CUT 64
#define MAX_FLIP 256
#define MAX_INPUT (4u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A copy of exact size, so that a sanitizer sees the first byte read beyond it. */
static void give(const char *data, size_t size)
{
    uint8_t *exact = malloc(size ? size : 1);
    CHECK(exact);
    if (size)
        memcpy(exact, data, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

static void give_changed(const struct buf *input)
{
    struct rng rng = { input->len, 0 };
    size_t n_cut = MIN(input->len, MAX_CUT);
    for (size_t i = 0; i < n_cut; i++)
        give(input->data, input->len * i / n_cut);
    for (int i = 0; input->len && i < MAX_FLIP; i++) {
        char *at = input->data + rng_next(&rng) % input->len, old = *at;
        *at = (char)rng_next(&rng);
        give(input->data, input->len);
        *at = old;
    }
}

/* All regular files of a folder; returns how many there were. */
static int replay(const char *folder, bool changed)
{
    DIR *dir = opendir(folder);
    int n = 0;
    for (struct dirent *d; dir && (d = readdir(dir));) {
        char *path = path_join(folder, d->d_name);
        struct buf input;
        buf_init(&input, MAX_INPUT);
        CHECK(path);
        if (!file_is_dir(path)) {
            printf("# %s%s\n", path, changed ? ", changed" : "");
            fflush(stdout);
            CHECK(file_read_all(&input, path, NULL) == 0);
            if (changed)
                give_changed(&input);
            else
                give(input.data, input.len);
            n++;
        }
        buf_release(&input);
        free(path);
    }
    if (dir)
        closedir(dir);
    return n;
}

/* build/tests/fuzz/fuzz_NAME -> tests/fuzz/corpus/NAME */
int main(int argc, char **argv)
{
    (void)argc;
    const char *name = strrchr(argv[0], '/');
    name = strstr(name ? name : argv[0], "fuzz_");
    CHECK(name);
    char *corpus = path_join("tests/fuzz/corpus", name + 5);
    CHECK(corpus);
    printf("1..2\n");
    int n = replay(corpus, false);
    printf("%s 1 - %d inputs in %s\n", n > 0 ? "ok" : "not ok", n, corpus);
    replay(corpus, true);
    printf("ok 2 - changed inputs of %s\n", corpus);
    free(corpus);
    return n > 0 ? 0 : 1;
}
