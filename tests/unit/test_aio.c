/* test_aio.c - reads on every path that this machine has, and what is said when one cannot be had.
 */
#include "scratch_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "aio.h"
#include "clock.h"
#include "pages.h"
#include "read_faults.h"

#define FILE_BYTES ((size_t)1000001)
#define MEM_BYTES ((size_t)1 << 20)
#define UNIT ((size_t)4096)

static struct scratch dir;
static uint8_t content[FILE_BYTES];
static char path[512], other[512];
static uint8_t *mem;

static int open_path(struct aio **a, enum aio_path p, struct err *e)
{
    const char *files[] = { path, other };
    struct aio_ask ask = { .path = p, .depth = 8, .file = files, .n_file = 2, .mem = mem,
                           .mem_bytes = MEM_BYTES, .one_thread = true };
    *e = (struct err){ 0 };
    return aio_open(a, &ask, e);
}

static void collect(struct aio *a, struct aio_done *done, int n)
{
    int got = 0;
    double until = clock_now_s() + 20;
    while (got < n && clock_now_s() < until)
        got += aio_reap(a, done + got, MIN(n - got, 3), 1.0);
    assert_int_equal(got, n);
    assert_int_equal(aio_in_flight(a), 0);
    assert_int_equal(aio_reap(a, done, 1, 0.01), 0);
}

/* Eight reads at a time, from both files, each to its own place, until the file was read often. */
static void read_much(struct aio *a)
{
    struct rng rng = { 5, 0 };
    struct aio_read r[9];
    struct aio_done done[9];
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 9; i++) {
            uint64_t at = rng_next(&rng) % (FILE_BYTES / UNIT - 16) * UNIT;
            r[i] = (struct aio_read){ .file = i % 2, .buffered = i == 5, .offset = at,
                                      .bytes = (1 + rng_next(&rng) % 16) * UNIT,
                                      .dst = mem + (size_t)i * 16 * UNIT,
                                      .tag = (uint64_t)i };
        }
        memset(mem, 0, MEM_BYTES);
        assert_int_equal(aio_submit(a, r, 9), 8); /* the depth */
        assert_int_equal(aio_in_flight(a), 8);
        collect(a, done, 8);
        unsigned seen = 0;
        for (int i = 0; i < 8; i++) {
            const struct aio_read *k = &r[done[i].tag];
            seen |= 1u << done[i].tag;
            assert_int_equal(done[i].code, 0);
            assert_int_equal(done[i].bytes, k->bytes);
            assert_memory_equal(k->dst, content + k->offset + (k->file ? 7 : 0), k->bytes);
        }
        assert_int_equal(seen, 0xff);
    }
    const struct aio_info *info = aio_info(a);
    assert_int_equal(info->n_read, 400);
    assert_int_equal(info->n_error + info->n_short, 0);
}

/* The last bytes of a file, as much as there are; beyond its end, nothing. */
static void read_end(struct aio *a)
{
    uint64_t at = FILE_BYTES / UNIT * UNIT;
    struct aio_read r[2] = { { .offset = at, .bytes = 2 * UNIT, .dst = mem, .tag = 0 },
                             { .offset = at + UNIT, .bytes = UNIT, .dst = mem + 4 * UNIT,
                               .tag = 1 } };
    struct aio_done done[2];
    assert_int_equal(aio_submit(a, r, 2), 2);
    collect(a, done, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(done[i].code, 0);
        assert_int_equal(done[i].bytes, done[i].tag == 0 ? FILE_BYTES - at : 0);
    }
    assert_memory_equal(mem, content + at, FILE_BYTES - at);
}

static void test_every_path(void **state)
{
    (void)state;
    int n_had = 0;
    for (enum aio_path p = AIO_AUTO; p <= AIO_POOL_BUFFERED; p++) {
        struct aio *a;
        struct err e;
        enum aio_path named;
        assert_true(aio_path_named(&named, aio_path_name(p)) && named == p);
        if (open_path(&a, p, &e) < 0) { /* not on this machine: then it says so */
            assert_int_equal(e.code, ERR_IO);
            assert_non_null(strstr(e.text, aio_path_name(p)));
            continue;
        }
        const struct aio_info *info = aio_info(a);
        assert_true(p == AIO_AUTO || info->path == p);
        assert_true((info->align_offset > 1) == aio_path_is_direct(info->path));
        assert_true(UNIT % info->align_offset == 0 && UNIT % info->align_mem == 0);
        assert_int_equal(aio_file_bytes(a, 0), FILE_BYTES);
        assert_string_equal(aio_file_name(a, 1), other);
        read_much(a);
        read_end(a);
        assert_int_equal(aio_close(a), 0);
        n_had++;
    }
    assert_true(n_had >= 2); /* the best there is, and threads with buffered reads */
    assert_false(aio_path_named(&(enum aio_path){ 0 }, "uring"));
}

/* Several threads may not be promised, and still all works. */
static void test_any_thread(void **state)
{
    (void)state;
    const char *files[] = { path, other };
    struct aio_ask ask = { .depth = 8, .file = files, .n_file = 2 };
    struct aio *a;
    struct err e = { 0 };
    assert_int_equal(aio_open(&a, &ask, &e), 0);
    assert_true(aio_info(a)->path != AIO_URING_FIXED);
    read_much(a);
    assert_int_equal(aio_close(a), 0);
}

static void test_bad_files(void **state)
{
    (void)state;
    struct aio *a;
    struct err e = { 0 };
    const char *files[] = { path, "/nowhere/model" };
    struct aio_ask ask = { .file = files, .n_file = 2 };
    assert_int_equal(aio_open(&a, &ask, &e), ERR_IO);
    assert_non_null(strstr(e.text, "/nowhere/model: cannot open"));
    e.code = 0;
    files[1] = "/tmp";
    assert_int_equal(aio_open(&a, &ask, &e), ERR_IO);
    assert_non_null(strstr(e.text, "/tmp: is not a regular file"));
}

/* A read that the system itself fails: of memory where nothing is. */
static void test_real_error(void **state)
{
    (void)state;
    static const enum aio_path paths[] = { AIO_AUTO, AIO_POOL_BUFFERED };
    for (int i = 0; i < 2; i++) {
        struct aio *a;
        struct err e = { 0 };
        const char *files[] = { "/proc/self/mem" };
        struct aio_ask ask = { .path = paths[i], .file = files, .n_file = 1 };
        assert_int_equal(aio_open(&a, &ask, &e), 0);
        struct aio_read r = { .bytes = 5, .dst = mem };
        struct aio_done done;
        assert_int_equal(aio_submit(a, &r, 1), 1);
        collect(a, &done, 1);
        assert_int_equal(done.code, ERR_IO);
        assert_int_equal(done.sys, EIO);
        assert_int_equal(aio_close(a), 0);
    }
}

/* A file system that knows no direct reads. */
static void test_no_direct_reads(void **state)
{
    (void)state;
    struct aio *a;
    struct err e = { 0 };
    const char *files[] = { "/proc/version" };
    struct aio_ask ask = { .file = files, .n_file = 1 };
    assert_int_equal(aio_open(&a, &ask, &e), 0);
    const struct aio_info *info = aio_info(a);
    assert_false(aio_path_is_direct(info->path));
    assert_int_equal(info->align_offset, 1);
    assert_non_null(strstr(info->refused, "uring-direct: /proc/version: cannot be opened for "
                                          "direct reads: Invalid argument"));
    struct aio_read r = { .bytes = 5, .dst = mem };
    struct aio_done done;
    assert_int_equal(aio_submit(a, &r, 1), 1);
    collect(a, &done, 1);
    assert_memory_equal(mem, "Linux", 5);
    assert_int_equal(aio_close(a), 0);
    ask.path = AIO_POOL_DIRECT;
    assert_int_equal(aio_open(&a, &ask, &e), ERR_IO);
    assert_non_null(strstr(e.text, "pool-direct: /proc/version: cannot be opened for direct"));
}

/* ---- a system that refuses ------------------------------------------------------------------- */

/* From here on io_uring_setup() fails for this process; false: that cannot be had. */
static bool refuse_uring(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { COUNT_OF(code), code };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* No more memory may be locked, by a user who has no say. */
static bool limit_locking(size_t bytes)
{
    struct rlimit limit = { bytes, bytes };
    if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0)
        return false;
    return geteuid() != 0 ||
           (setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0);
}

enum { AS_EXPECTED, NOT_SO, NOT_HERE };

static bool is_in(const char *text, const char *part)
{
    if (strstr(text, part))
        return true;
    fprintf(stderr, "found \"%s\", expected \"%s\"\n", text, part);
    return false;
}

static int without_uring(void)
{
    struct aio *a, *none;
    struct err e, forced;
    if (!refuse_uring())
        return NOT_HERE;
    if (open_path(&a, AIO_AUTO, &e) < 0)
        return NOT_SO;
    const char *why = aio_info(a)->refused;
    bool is_pool = aio_info(a)->path >= AIO_POOL_DIRECT;
    bool refused = open_path(&none, AIO_URING_BUFFERED, &forced) == ERR_IO;
#ifdef HAVE_URING
    bool said = is_in(why, "uring-buffered: io_uring is refused: Operation not permitted") &&
                is_in(forced.text, "uring-buffered: io_uring is refused: Operation not permitted");
#else
    bool said = is_in(why, "uring-buffered: built without liburing");
#endif
    read_much(a);
    return is_pool && refused && said && aio_close(a) == 0 ? AS_EXPECTED : NOT_SO;
}

/* Enough for a ring, too little for the memory; and then for nothing at all. */
static int without_locking(void)
{
    struct aio *a, *none;
    struct err e;
    if (open_path(&a, AIO_URING_FIXED, &e) < 0 || aio_close(a) != 0)
        return NOT_HERE; /* even with the right to lock */
    if (!limit_locking(MEM_BYTES / 4))
        return NOT_HERE;
    if (open_path(&none, AIO_URING_FIXED, &e) != ERR_IO ||
        !is_in(e.text, "memory of 1048576 bytes cannot be registered (limit of locked memory"))
        return NOT_SO;
    if (open_path(&a, AIO_AUTO, &e) < 0 || aio_info(a)->path != AIO_URING_DIRECT ||
        !is_in(aio_info(a)->refused, "uring-fixed: memory of 1048576 bytes cannot be registered"))
        return NOT_SO;
    read_much(a);
    if (aio_close(a) != 0 || !limit_locking(0) || open_path(&a, AIO_AUTO, &e) < 0)
        return NOT_SO;
    read_much(a);
    return aio_close(a) == 0 ? AS_EXPECTED : NOT_SO;
}

static void in_child(int (*fn)(void))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(fn());
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == NOT_HERE)
        skip();
    assert_int_equal(WEXITSTATUS(status), AS_EXPECTED);
}

static void test_uring_refused(void **state)
{
    (void)state;
    in_child(without_uring);
}

static void test_locking_refused(void **state)
{
    (void)state;
    in_child(without_locking);
}

/* ---- faults ---------------------------------------------------------------------------------- */

static void test_faults(void **state)
{
    (void)state;
    static struct read_faults faults;
    struct rng order = { 3, 0 };
    faults_init(&faults);
    faults.shuffle = &order;
    faults.fail_from = 3;
    faults.n_fail = 2;
    faults.cut_to = 100;
    faults.n_cut = 1;
    const char *files[] = { path };
    struct aio_ask ask = { .depth = 8, .file = files, .n_file = 1, .fault = &faults.fault };
    struct aio *a;
    struct err e = { 0 };
    assert_int_equal(aio_open(&a, &ask, &e), 0);
    struct aio_read r[8];
    struct aio_done done[8];
    for (int i = 0; i < 8; i++)
        r[i] = (struct aio_read){ .offset = (uint64_t)i * UNIT, .bytes = UNIT,
                                  .dst = mem + (size_t)i * UNIT, .tag = (uint64_t)i };
    assert_int_equal(aio_submit(a, r, 8), 8);
    collect(a, done, 8);
    bool is_in_order = true;
    for (int i = 0; i < 8; i++) {
        is_in_order &= done[i].tag == (uint64_t)i;
        assert_int_equal(done[i].code, i == 3 || i == 4 ? ERR_IO : 0);
        assert_int_equal(done[i].sys, i == 3 || i == 4 ? EIO : 0);
        assert_int_equal(done[i].bytes, i == 0 ? 100 : i == 3 || i == 4 ? 0 : UNIT);
    }
    assert_false(is_in_order);
    assert_int_equal(aio_info(a)->n_error, 2);
    assert_int_equal(aio_info(a)->n_short, 1);

    faults.stuck = true; /* waits as long as it is told to, and no longer */
    faults.stuck_at = 0;
    faults.shuffle = NULL;
    assert_int_equal(aio_submit(a, r, 1), 1);
    double begin = clock_now_s();
    assert_int_equal(aio_reap(a, done, 8, 0.05), 0);
    assert_true(clock_now_s() - begin >= 0.045 && clock_now_s() - begin < 5);
    assert_int_equal(aio_in_flight(a), 1);
    faults.stuck = false;
    collect(a, done, 1);
    assert_int_equal(aio_close(a), 0);
}

static int set_up(void **state)
{
    (void)state;
    struct rng rng = { 9, 0 };
    for (size_t i = 0; i < FILE_BYTES; i++)
        content[i] = (uint8_t)rng_next(&rng);
    scratch_open(&dir);
    scratch_put(&dir, "model", content, FILE_BYTES);
    scratch_put(&dir, "other", content + 7, FILE_BYTES - 7);
    snprintf(path, sizeof path, "%s", scratch_file(&dir, "model"));
    snprintf(other, sizeof other, "%s", scratch_file(&dir, "other"));
    if (chmod(dir.path, 0755) < 0) /* a child has other rights */
        return -1;
    return pages_map((void **)&mem, MEM_BYTES, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    pages_unmap(mem, MEM_BYTES);
    scratch_close(&dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_path),
        cmocka_unit_test(test_any_thread),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_real_error),
        cmocka_unit_test(test_no_direct_reads),
        cmocka_unit_test(test_uring_refused),
        cmocka_unit_test(test_locking_refused),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
