/* test_terminal.c - what a person at a terminal sees, and what Ctrl-C and closed pipes do.
 *
 * The program runs on a pseudo-terminal, so that it cannot tell the test from a person. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <termios.h>

#include "child.h"
#include "unit/scratch_dir.h"

#define PATIENCE_MS 60000 /* sanitizers on a loaded machine */

static struct scratch dir;

struct terminal {
    pid_t pid;
    int fd;
    char seen[1 << 16]; /* everything it printed */
    size_t n, read_to;  /* bytes; what was waited for lies before read_to */
};

static void start_on(struct terminal *t, const char *line, int columns)
{
    *t = (struct terminal){ .fd = posix_openpt(O_RDWR | O_NOCTTY) };
    assert_true(t->fd >= 0);
    assert_int_equal(grantpt(t->fd) | unlockpt(t->fd), 0);
    int side = open(ptsname(t->fd), O_RDWR | O_NOCTTY);
    assert_true(side >= 0);
    struct winsize size = { .ws_row = 30, .ws_col = (unsigned short)columns };
    ioctl(side, TIOCSWINSZ, &size);
    t->pid = child_start(line, side, side, side);
    close(side);
}

/* Read what comes within some time; false at the end. */
static bool read_some(struct terminal *t, int ms)
{
    struct pollfd p = { t->fd, POLLIN, 0 };
    if (poll(&p, 1, ms) <= 0)
        return false;
    ssize_t got = read(t->fd, t->seen + t->n, sizeof t->seen - 1 - t->n);
    if (got <= 0)
        return false;
    t->n += (size_t)got;
    return true;
}

/* Wait until the text appears behind what was waited for before. */
static void wait_for(struct terminal *t, const char *text)
{
    for (;;) {
        t->seen[t->n] = 0;
        char *found = strstr(t->seen + t->read_to, text);
        if (found) {
            t->read_to = (size_t)(found - t->seen) + strlen(text);
            return;
        }
        if (!read_some(t, PATIENCE_MS))
            fail_msg("waited for \"%s\", saw:\n%s", text, t->seen);
    }
}

/* An editor prints its prompt before it takes the terminal over; nobody types that fast. */
static void wait_for_prompt(struct terminal *t)
{
    struct termios mode;
    wait_for(t, "> ");
    for (int i = 0; i < 50 && tcgetattr(t->fd, &mode) == 0 && mode.c_lflag & ICANON; i++)
        child_sleep(10);
}

static void type(struct terminal *t, const char *keys)
{
    assert_int_equal(write(t->fd, keys, strlen(keys)), (ssize_t)strlen(keys));
}

/* Read to the end; the exit status. */
static int finish(struct terminal *t)
{
    while (read_some(t, PATIENCE_MS))
        continue;
    t->seen[t->n] = 0;
    close(t->fd);
    return child_wait(t->pid);
}

static bool saw(const struct terminal *t, const char *text)
{
    return strstr(t->seen, text) != NULL;
}

#define HELLO "Hello! How can I help you?"

static void test_colours(void **state)
{
    (void)state;
    struct terminal t;
    start_on(&t, "run --temp 0 --think high 'What is 12 plus 30?'", 100);
    assert_int_equal(finish(&t), 0);
    assert_true(saw(&t, "\033[2m"));
    assert_true(saw(&t, "(the bundled model: small, knows formats, not facts;"));
    assert_true(saw(&t, "\033[0m"));
    assert_true(saw(&t, "prompt "));
    setenv("NO_COLOR", "1", 1);
    start_on(&t, "run --temp 0 --think high 'What is 12 plus 30?'", 100);
    assert_int_equal(finish(&t), 0);
    assert_false(saw(&t, "\033["));
    assert_true(saw(&t, "prompt "));
    unsetenv("NO_COLOR");
    setenv("TERM", "dumb", 1);
    start_on(&t, "run --temp 0 Hello!", 100);
    assert_int_equal(finish(&t), 0);
    assert_string_equal(t.seen, HELLO "\r\n");
    setenv("TERM", "xterm", 1);
}

static void test_chat(void **state)
{
    (void)state;
    struct terminal t;
    start_on(&t, "chat --temp 0", 100);
    wait_for(&t, "Ctrl-D ends");
    wait_for_prompt(&t);
    type(&t, "Hello!\r");
    wait_for(&t, HELLO);
    wait_for(&t, "prompt 8 tok");
    wait_for_prompt(&t);
    type(&t, "/stats\r");
    wait_for(&t, "context  19 of ");
    wait_for_prompt(&t);
    type(&t, "\004"); /* Ctrl-D */
    assert_int_equal(finish(&t), 0);
}

/* What an editor has left; NULL: lines are not edited in this build. */
static char *history(void)
{
    char path[256];
    snprintf(path, sizeof path, "%s/dwarfstar/history", dir.path);
    return child_slurp(path, NULL);
}

/* Lines come back from the history of an earlier chat, if lines are edited at all. */
static void test_history(void **state)
{
    (void)state;
    char *kept = history();
    if (!kept)
        skip();
    assert_non_null(strstr(kept, "Hello!"));
    free(kept);
    struct terminal t;
    start_on(&t, "chat -q --temp 0", 100);
    wait_for_prompt(&t);
    type(&t, "\020"); /* Ctrl-P: /stats */
    wait_for(&t, "/stats");
    type(&t, "\020\r");
    wait_for(&t, HELLO);
    wait_for_prompt(&t);
    type(&t, "\004");
    assert_int_equal(finish(&t), 0);
}

/* At the prompt: an edited line is dropped; then the first Ctrl-C warns and the second ends. */
static void test_interrupt_prompt(void **state)
{
    (void)state;
    struct terminal t;
    start_on(&t, "chat -q --temp 0", 100);
    wait_for_prompt(&t);
    char *edited = history();
    if (edited) {
        type(&t, "abc");
        wait_for(&t, "abc");
        type(&t, "\003");
        wait_for_prompt(&t);
    }
    free(edited);
    type(&t, "\003");
    wait_for(&t, "(once more ends the chat");
    wait_for_prompt(&t);
    type(&t, "Hello!\r");
    wait_for(&t, HELLO);
    wait_for_prompt(&t);
    type(&t, "\003");
    wait_for(&t, "(once more ends the chat");
    wait_for_prompt(&t);
    type(&t, "\003");
    assert_int_equal(finish(&t), 130);
}

/* In an answer: it stops, what there is stays, and the conversation goes on. */
static void test_interrupt_answer(void **state)
{
    (void)state;
    struct terminal t;
    start_on(&t, "chat --seed 1 --temp 0", 100);
    wait_for_prompt(&t);
    type(&t, "Write an encyclopedia of birds.\r");
    wait_for(&t, "1. ");
    wait_for(&t, "3. ");
    type(&t, "\003");
    wait_for(&t, "interrupted");
    wait_for_prompt(&t);
    type(&t, "Hello!\r");
    wait_for(&t, "kept)");
    wait_for_prompt(&t);
    type(&t, "\004");
    assert_int_equal(finish(&t), 0);
}

/* Start with output to a pipe; *out gets its reading end. */
static pid_t start_piped(const char *line, int *out, int err)
{
    int ends[2], nothing = open("/dev/null", O_RDWR);
    assert_int_equal(pipe(ends), 0);
    pid_t pid = child_start(line, nothing, ends[1], err >= 0 ? err : nothing);
    close(ends[1]);
    close(nothing);
    *out = ends[0];
    return pid;
}

static void test_interrupt_run(void **state)
{
    (void)state;
    char text[65536] = "";
    size_t n = 0;
    int out;
    pid_t pid = start_piped("run --temp 0 'Write an encyclopedia of animals.'", &out, -1);
    while (!strstr(text, "1.")) {
        ssize_t got = read(out, text + n, sizeof text - 1 - n);
        assert_true(got > 0);
        n += (size_t)got;
    }
    kill(pid, SIGINT);
    for (ssize_t got; (got = read(out, text + n, sizeof text - 1 - n)) > 0;)
        n += (size_t)got;
    assert_int_equal(child_wait(pid), 130);
    assert_int_equal(text[n - 1], '\n');
    close(out);
}

/* The JSON says so, too; and nothing is lost. */
static void test_interrupt_json(void **state)
{
    (void)state;
    char text[65536];
    size_t n = 0;
    int out;
    pid_t pid = start_piped("run --json --temp 0 'Write an encyclopedia of animals.'", &out, -1);
    child_sleep(1500);
    kill(pid, SIGINT);
    for (ssize_t got; (got = read(out, text + n, sizeof text - 1 - n)) > 0;)
        n += (size_t)got;
    assert_int_equal(child_wait(pid), 130);
    close(out);
    if (n == 0)
        skip(); /* it was still opening the model */
    json_t *root = json_loadb(text, n, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(root, "finish_reason")), "interrupted");
    json_decref(root);
}

static void test_closed_pipe(void **state)
{
    (void)state;
    char byte;
    int out, err = open(scratch_file(&dir, "err"), O_RDWR | O_CREAT, 0600);
    signal(SIGPIPE, SIG_IGN); /* which the program inherits */
    pid_t pid = start_piped("run --temp 0 'Write an encyclopedia of animals.'", &out, err);
    assert_int_equal(read(out, &byte, 1), 1);
    close(out);
    assert_int_equal(child_wait(pid), 128 + SIGPIPE);
    assert_int_equal(lseek(err, 0, SEEK_END), 0);
    signal(SIGPIPE, SIG_DFL);
    close(err);
    scratch_remove(&dir, "err");
}

static void test_full_disk(void **state)
{
    (void)state;
    char text[256] = "";
    int full = open("/dev/full", O_WRONLY), nothing = open("/dev/null", O_RDONLY);
    int err = open(scratch_file(&dir, "err"), O_RDWR | O_CREAT, 0600);
    if (full < 0)
        skip();
    assert_int_equal(child_wait(child_start("run --temp 0 Hello!", nothing, full, err)), 1);
    assert_true(pread(err, text, sizeof text - 1, 0) > 0);
    assert_string_equal(text, "dstar: standard output: cannot be written\n");
    close(full);
    close(nothing);
    close(err);
    scratch_remove(&dir, "err");
}

static int setup(void **state)
{
    (void)state;
    scratch_open(&dir);
    unsetenv("DSTAR_MODEL");
    unsetenv("NO_COLOR");
    setenv("TERM", "xterm", 1);
    setenv("XDG_STATE_HOME", dir.path, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char path[256];
    snprintf(path, sizeof path, "%s/dwarfstar/history", dir.path);
    unlink(path);
    snprintf(path, sizeof path, "%s/dwarfstar", dir.path);
    rmdir(path);
    scratch_close(&dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_colours),
        cmocka_unit_test(test_chat),
        cmocka_unit_test(test_history),
        cmocka_unit_test(test_interrupt_prompt),
        cmocka_unit_test(test_interrupt_answer),
        cmocka_unit_test(test_interrupt_run),
        cmocka_unit_test(test_interrupt_json),
        cmocka_unit_test(test_closed_pipe),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
