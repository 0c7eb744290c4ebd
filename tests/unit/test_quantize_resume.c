/* test_quantize_resume.c - interrupted, killed and harmed work goes on to the same bytes; work
 * whose inputs changed does not. */
#include "unit/quantize_pebble.h"

#include <signal.h>
#include <sys/wait.h>

#include "rng.h"

struct stopper {
    int left; /* calls until it says stop */
};

static bool stop_after(void *user, const char *what, double share)
{
    struct stopper *s = user;
    assert_true(what && share >= 0 && share <= 1);
    return s->left-- <= 0;
}

static void cancelled(struct quantize_options *o, int after)
{
    struct stopper s = { after };
    struct err e = { 0 };
    o->progress = stop_after;
    o->user = &s;
    assert_int_equal(quantize_run(o, &e), ERR_CANCELLED);
    assert_false(file_exists(o->out));
    o->progress = NULL;
}

static uint64_t uninterrupted(void)
{
    struct quantize_options o = options(PEBBLE, "whole.gguf");
    must(&o);
    return file_hash(o.out);
}

static void note_remark(void *user, int level, const char *text)
{
    (void)level;
    snprintf(user, 200, "%s", text);
}

static void goes_on(void **state)
{
    (void)state;
    uint64_t want = uninterrupted();
    char said[200] = "";
    struct log log = { note_remark, said };
    struct quantize_options o = options(PEBBLE, "out.gguf");
    o.n_thread = 1;
    cancelled(&o, 5);
    cancelled(&o, 40); /* seven are checked, then work goes on */
    o.log = &log;
    must(&o);
    int finished = 0;
    assert_int_equal(sscanf(said, "going on: %d of ", &finished), 1);
    assert_int_equal(finished, 41 - 6 + 6);
    assert_true(file_hash(o.out) == want);
    nothing_left(o.out);
}

/* Unfinished files that were harmed: what is lost is done again. */
static void goes_on_after_harm(void **state)
{
    (void)state;
    uint64_t want = uninterrupted();
    for (int harm = 0; harm < 6; harm++) {
        struct quantize_options o = options(PEBBLE, "out.gguf");
        cancelled(&o, 60);
        char part[700], journal[700];
        snprintf(part, sizeof part, "%s.part", o.out);
        snprintf(journal, sizeof journal, "%s.journal.part", o.out);
        switch (harm) {
        case 0: /* data that never reached the disk */
            for (int i = 1; i < 40; i++)
                flip(part, i * 200000);
            break;
        case 1: assert_int_equal(truncate(part, 900000), 0); break;
        case 2: assert_int_equal(truncate(journal, 32 * 20 + 13), 0); break;
        case 3:
            for (int i = 0; i < 30; i++)
                flip(journal, 32 + 71 * i);
            break;
        case 4: flip(journal, 3); break; /* not even a head: from the start */
        default: assert_int_equal(unlink(part), 0); break;
        }
        must(&o);
        assert_true(file_hash(o.out) == want);
        nothing_left(o.out);
        assert_int_equal(unlink(o.out), 0);
    }
}

/* As often as it takes, killed without warning. */
static void killed(void **state)
{
    (void)state;
    struct quantize_options o = options(PEBBLE, "out.gguf");
    uint64_t want = uninterrupted();
    struct rng r = { 5, 0 };
    int n_killed = 0;
    for (bool done = false; !done;) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            _exit(quantize_run(&o, NULL) < 0);
        if (n_killed < 6) {
            usleep((useconds_t)(20000 + rng_next(&r) % 150000));
            kill(child, SIGKILL);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        done = WIFEXITED(status);
        assert_true(!done || WEXITSTATUS(status) == 0);
        assert_int_equal(file_exists(o.out), done);
        n_killed += !done;
    }
    assert_true(n_killed > 0);
    assert_true(file_hash(o.out) == want);
    nothing_left(o.out);
}

static void changed_source(void **state)
{
    (void)state;
    copy_pebble();
    struct quantize_options o = options(dir.path, "out.gguf");
    o.n_thread = 1;
    cancelled(&o, 60);
    /* not done yet: the file is then that of the changed model */
    poke("layers.1.attn.wq_a.weight", 100, 0x31);
    /* done: would be mixed with another model */
    poke("layers.0.attn.wq_a.weight", 100, 0x31);
    must_not(&o, ERR_MISMATCH, ": tensor layers.0.attn.wq_a.weight has changed since ");
    assert_true(file_exists(in_dir("out.gguf.part")));
    o.restart = true;
    must(&o);
    uint64_t want = file_hash(o.out);
    assert_int_equal(unlink(o.out), 0);
    o.restart = false;
    cancelled(&o, 60);
    poke("layers.2.ffn.experts.3.w1.weight", 100, 0x31);
    poke("layers.2.ffn.experts.3.w1.weight", 100, 0x31);
    must(&o);
    uint64_t got = file_hash(o.out);
    assert_int_equal(unlink(o.out), 0);
    must(&o);
    assert_true(got == file_hash(o.out) && got != want);
}

static void other_inputs(void **state)
{
    (void)state;
    make_importances(1);
    put_imatrix("one.imatrix", imp_part, 2);
    make_importances(2);
    put_imatrix("two.imatrix", imp_part, 2);
    struct quantize_options o = options(PEBBLE, "out.gguf");
    o.imatrix = in_dir("one.imatrix");
    cancelled(&o, 20);
    o.imatrix = in_dir("two.imatrix");
    must_not(&o, ERR_MISMATCH, "was begun with another importance matrix");
    o.imatrix = in_dir("one.imatrix");
    o.recipe = "q4";
    must_not(&o, ERR_MISMATCH, "was begun with another model or recipe");
    o.recipe = in_dir("little");
    o.exact = true;
    must_not(&o, ERR_MISMATCH, "was begun with another model or recipe");
    o.exact = false;
    must(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(goes_on), CASE(goes_on_after_harm), CASE(killed), CASE(changed_source),
        CASE(other_inputs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
