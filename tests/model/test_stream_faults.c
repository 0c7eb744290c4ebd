/* test_stream_faults.c - what happens to the model's file, and to reads of it, while an engine
 * streams from it: the request fails and says why, others live on, nothing is silently wrong. */
#define _GNU_SOURCE
#include "unit/scratch_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "engine.h"
#include "read_faults.h"
#include "sanitized.h"
#include "session.h"
#include "stream.h"

#define N_TOK 40

static struct scratch dir;
static char path[512];
static int32_t text[N_TOK];
static struct buf model; /* the bytes of a good file */

static void must(int code, const struct err *e)
{
    if (code < 0)
        fail_msg("%d: %s", code, e->text);
}

static int set_up(void **state)
{
    (void)state;
    const char *build = getenv("DSTAR_BUILD");
    struct err e = { 0 };
    char from[512];
    snprintf(from, sizeof from, "%s/pebble.gguf", build ? build : "build");
    scratch_open(&dir);
    snprintf(path, sizeof path, "%s", scratch_file(&dir, "model.gguf"));
    buf_init(&model, (size_t)1 << 30);
    must(file_read_all(&model, from, &e), &e);
    for (int i = 0; i < N_TOK; i++)
        text[i] = 300 + i * 7919 % 2000;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    buf_release(&model);
    scratch_close(&dir);
    return 0;
}

/* On a whole file, with the least memory. */
static void open_streaming(struct engine *en)
{
    struct dstar_options o;
    struct err e = { 0 };
    scratch_put(&dir, "model.gguf", model.data, model.len);
    dstar_options_init(&o);
    o.model = path;
    o.memory_bytes = 1 << 20;
    o.max_rows = 16;
    must(engine_open(en, &o, &e), &e);
    assert_non_null(en->store);
}

static int read_all(struct session *s, struct err *e)
{
    *e = (struct err){ 0 };
    int left = 1;
    while (left > 0)
        TRY(left = session_step(s, e));
    return 0;
}

/* One token after another, until it fails or n are written; where the model would end its turn, it
 * gets another word. */
static int write_some(struct session *s, int n, struct err *e)
{
    *e = (struct err){ 0 };
    for (int i = 0; i < n; i++) {
        int32_t id;
        int more = session_next(s, &id, e);
        TRY(more);
        if (more == 0)
            TRY(session_append(s, &text[s->n_all % N_TOK], 1, e));
    }
    return 0;
}

static void begin(struct engine *en, struct session *s)
{
    struct err e = { 0 };
    open_streaming(en);
    must(session_open(s, en, &e), &e);
    must(session_set(s, text, N_TOK, &e), &e);
    must(read_all(s, &e), &e);
}

static void end(struct engine *en, struct session *s)
{
    session_close(s);
    engine_close(en);
}

/* All but the first half is gone: reads fail, with the name of what they were for. */
static void test_truncated(void **state)
{
    (void)state;
    struct engine en;
    struct session s;
    struct err e;
    begin(&en, &s);
    assert_int_equal(truncate(path, (off_t)model.len / 2), 0);
    assert_int_equal(write_some(&s, 100, &e), ERR_IO);
    if (!strstr(e.text, "model.gguf") || !strstr(e.text, "bytes now"))
        fail_msg("%s", e.text);
    int n = s.kv.n_tok;
    for (int i = 0; i < 3; i++) /* and nothing is computed from then on */
        assert_int_equal(write_some(&s, 70, &e), ERR_IO);
    assert_true(s.kv.n_tok < n + 70);
    end(&en, &s);
}

/* A byte was written: within 64 tokens that is seen, and every later step fails. */
static void test_changed_in_place(void **state)
{
    (void)state;
    struct engine en;
    struct session s;
    struct err e;
    begin(&en, &s);
    usleep(20000); /* file times tick slowly */
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, -1, SEEK_END), 0);
    assert_int_equal(fwrite("x", 1, 1, f), 1);
    assert_int_equal(fclose(f), 0);
    int n = s.kv.n_tok;
    assert_int_equal(write_some(&s, 100, &e), ERR_IO);
    assert_non_null(strstr(e.text, "was changed while it is in use"));
    assert_true(s.kv.n_tok <= n + 64);
    n = s.kv.n_tok;
    for (int i = 0; i < 5; i++)
        assert_int_equal(write_some(&s, 1, &e), ERR_IO);
    assert_int_equal(s.kv.n_tok, n);
    end(&en, &s);
}

/* Another file of that name is none of the engine's business. */
static void test_renamed_over(void **state)
{
    (void)state;
    struct engine en;
    struct session s;
    struct err e;
    begin(&en, &s);
    char other[512];
    snprintf(other, sizeof other, "%s", scratch_file(&dir, "other"));
    scratch_put(&dir, "other", "nonsense", 8);
    assert_int_equal(rename(other, path), 0);
    must(write_some(&s, 70, &e), &e);
    end(&en, &s);
}

/* Two conversations with the same text before them, and as little memory for experts as can be. */
struct pair {
    struct engine en;
    struct expert_store *store;
    struct session a, b;
};

static void begin_pair(struct pair *p, const struct aio_fault *fault)
{
    struct expert_shelf_ask ask;
    struct dstar_options o;
    struct err e = { 0 };
    size_t most;
    scratch_put(&dir, "model.gguf", model.data, model.len);
    dstar_options_init(&o);
    o.model = path;
    o.sessions = 2;
    o.ctx = 512;
    o.max_rows = 16;
    must(engine_open(&p->en, &o, &e), &e); /* mapped; a store of the test's own comes on top */
    assert_null(p->en.store);
    must(stream_list(&p->en, &o, &ask, &e), &e);
    expert_store_sizes(&ask, &ask.bytes, &most);
    ask.io.fault = fault;
    ask.io.path = AIO_POOL_BUFFERED;
    must(expert_store_open(&p->store, &ask, &e), &e);
    model_use_store(p->en.model, p->store);
    must(session_open(&p->a, &p->en, &e), &e);
    must(session_open(&p->b, &p->en, &e), &e);
    must(session_set(&p->a, text, N_TOK, &e), &e);
    must(session_set(&p->b, text, N_TOK, &e), &e);
    must(read_all(&p->a, &e), &e);
}

static void end_pair(struct pair *p)
{
    session_close(&p->a);
    session_close(&p->b);
    model_use_store(p->en.model, NULL);
    expert_store_close(p->store);
    engine_close(&p->en);
}

/* What fails for one conversation does so for it alone; afterwards it goes on, too, and with the
 * same words as if nothing had been. */
static void test_others_live_on(void **state)
{
    (void)state;
    static struct read_faults faults;
    struct pair p;
    struct err e = { 0 };
    int32_t want[30];
    begin(&p.en, &p.a);
    must(write_some(&p.a, 30, &e), &e);
    memcpy(want, p.a.kv.token + N_TOK, sizeof want);
    end(&p.en, &p.a);

    faults_init(&faults);
    begin_pair(&p, &faults.fault);
    for (int i = 0; i < 30; i += 10) {
        faults.fail_bytes = model.len; /* nothing can be read */
        assert_int_equal(write_some(&p.a, 10, &e), ERR_IO);
        if (!strstr(e.text, "model.gguf: layer ") || !strstr(e.text, ", expert ") ||
            !strstr(e.text, " bytes at ") || !strstr(e.text, "Input/output error"))
            fail_msg("%s", e.text);
        faults.fail_bytes = 0;
        must(read_all(&p.b, &e), &e);
        must(write_some(&p.b, 10, &e), &e);
    }
    must(write_some(&p.a, 30 - (p.a.n_all - N_TOK), &e), &e);
    assert_memory_equal(p.a.kv.token + N_TOK, want, sizeof want);
    assert_memory_equal(p.b.kv.token + N_TOK, want, sizeof want);
    end_pair(&p);
}

/* In trouble all reads fail, but of those that are tried again only the first does: the others do
 * not come back before it is over. */
struct trouble {
    atomic_bool is_on;
    int n;
    uint64_t tried[4096]; /* offsets */
};

static bool deliver(void *user, const struct aio_read *r, struct aio_done *d)
{
    struct trouble *t = user;
    int i = 0;
    if (!atomic_load(&t->is_on))
        return true;
    while (i < t->n && t->tried[i] != r->offset)
        i++;
    if (i > 0 && i < t->n)
        return false;
    if (i == t->n && t->n < 4096)
        t->tried[t->n++] = r->offset;
    *d = (struct aio_done){ .tag = d->tag, .code = ERR_IO, .sys = EIO };
    return true;
}

static struct trouble trouble;
static struct pair troubled;

static void on_alarm(int number)
{
    (void)number;
    if (!atomic_load(&troubled.a.cancelled))
        atomic_store(&troubled.a.cancelled, 1);
    else
        atomic_store(&trouble.is_on, false);
}

/* One step is given up while a load, which has failed before, is tried for the last time. For the
 * next step, which wants the same, what failed before does not count. */
static void test_failures_are_not_inherited(void **state)
{
    (void)state;
    struct aio_fault fault = { &trouble, deliver };
    struct pair *p = &troubled;
    struct err e;
    struct timeval soon = { 0, 300000 };
    begin_pair(p, &fault);
    must(read_all(&p->b, &e), &e);
    signal(SIGALRM, on_alarm);
    atomic_store(&trouble.is_on, true);
    setitimer(ITIMER_REAL, &(struct itimerval){ .it_value = soon, .it_interval = soon }, NULL);
    assert_int_equal(write_some(&p->a, 2, &e), ERR_CANCELLED); /* the first follows from the text */
    must(write_some(&p->b, 2, &e), &e);
    setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL);
    assert_false(atomic_load(&trouble.is_on));
    atomic_store(&p->a.cancelled, 0);
    must(write_some(&p->a, 1, &e), &e);
    assert_int_equal(p->a.n_all, p->b.n_all);
    assert_memory_equal(p->a.kv.token, p->b.kv.token, (N_TOK + 2) * sizeof *text);
    end_pair(p);
}

/* ---- a system that refuses ------------------------------------------------------------------- */

enum { AS_EXPECTED, NOT_SO, NOT_HERE };

/* Opens and writes in this way of reading; the tokens, or the error. */
static int write_by(const char *way, int32_t *id, struct expert_shelf_stats *stats, char name[32],
                    struct err *e)
{
    struct dstar_options o;
    struct engine en;
    struct session s;
    *e = (struct err){ 0 };
    dstar_options_init(&o);
    o.model = path;
    o.memory_bytes = 1 << 20;
    o.ssd_io = way;
    int code = engine_open(&en, &o, e);
    if (code == 0) {
        const struct expert_shelf *shelf = expert_store_shelf(en.store, 0);
        snprintf(name, 32, "%s",
                 aio_path_name(expert_reads_io(expert_shelf_reads(shelf))->path));
        code = session_open(&s, &en, e);
        if (code == 0)
            code = session_set(&s, text, N_TOK, e);
        if (code == 0)
            code = write_some(&s, 8, e);
        memcpy(id, s.kv.token + N_TOK, 8 * sizeof *id);
        expert_shelf_stats(shelf, stats);
        session_close(&s);
    }
    engine_close(&en);
    return code;
}

static int32_t expected[8];

/* From here on io_uring_setup() fails for this process. */
static int without_uring(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { COUNT_OF(code), code };
    struct expert_shelf_stats stats;
    struct err e;
    char name[32] = "";
    int32_t id[8];
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        return NOT_HERE;
    if (write_by("uring-direct", id, &stats, name, &e) != ERR_IO ||
        write_by("uring-buffered", id, &stats, name, &e) != ERR_IO ||
        !strstr(e.text, "uring-buffered: "))
        return NOT_SO;
    if (write_by("auto", id, &stats, name, &e) < 0 || strncmp(name, "pool-", 5) != 0)
        return NOT_SO;
    return memcmp(id, expected, sizeof id) == 0 ? AS_EXPECTED : NOT_SO;
}

/* No memory may be locked: said, and nothing else. */
static int without_locking(void)
{
    struct rlimit none = { 0, 0 };
    struct expert_shelf_stats stats;
    struct err e;
    char name[32];
    int32_t id[8];
    if (chmod(dir.path, 0755) < 0 || setrlimit(RLIMIT_MEMLOCK, &none) < 0 ||
        (geteuid() == 0 && (setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534) < 0)))
        return NOT_HERE;
    bool is_locked = write_by("auto", id, &stats, name, &e) < 0 || stats.locked;
    if (stats.lock_limit != 0 || (is_locked && !IS_SANITIZED)) { /* a sanitizer only pretends */
        fprintf(stderr, "%s\n", e.text);
        return NOT_SO;
    }
    return memcmp(id, expected, sizeof id) == 0 ? AS_EXPECTED : NOT_SO;
}

/* Every way that is asked for is taken, and none of them writes other words. */
static void test_ways_refused(void **state)
{
    (void)state;
    static const char *const way[] = { "pool-buffered", "auto", "uring-direct", "uring-buffered",
                                       "pool-direct" };
    int (*const child[])(void) = { without_uring, without_locking };
    struct expert_shelf_stats stats;
    struct err e;
    char name[32];
    scratch_put(&dir, "model.gguf", model.data, model.len);
    for (size_t i = 0; i < COUNT_OF(way); i++) {
        int32_t id[8];
        int code = write_by(way[i], i ? id : expected, &stats, name, &e);
        assert_true(code == 0 || (i > 1 && code == ERR_IO)); /* what this machine has not */
        if (code < 0)
            continue;
        assert_true(i == 1 || strcmp(name, way[i]) == 0);
        assert_true(i == 0 || memcmp(id, expected, sizeof id) == 0);
    }
    for (size_t i = 0; i < COUNT_OF(child); i++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            _exit(child[i]());
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == NOT_HERE)
            print_message("child %zu: the system does not let it refuse\n", i);
        else
            assert_int_equal(WEXITSTATUS(status), AS_EXPECTED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_changed_in_place),
        cmocka_unit_test(test_renamed_over),
        cmocka_unit_test(test_others_live_on),
        cmocka_unit_test(test_failures_are_not_inherited),
        cmocka_unit_test(test_ways_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
