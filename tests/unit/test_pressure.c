/* test_pressure.c - what a system's files say about memory, and what experts give back for it. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cpu.h"
#include "expert_yield.h"
#include "host.h"

#define MIB ((size_t)1 << 20)

static char root[64];

static int make_root(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/test_pressure.%ld", (long)getpid());
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static int clear_root(void **state)
{
    (void)state;
    nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    return 0;
}

/* A file of the made-up system. */
static void put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, name);
    *strrchr(path, '/') = 0;
    assert_int_equal(host_make_dirs(path, NULL), 0);
    path[strlen(path)] = '/';
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static struct pressure look(void)
{
    struct pressure p;
    pressure_read(&p, root);
    return p;
}

static void put_machine(void)
{
    put("proc/meminfo",
        "MemTotal:        1024000 kB\nMemFree: 5 kB\nMemAvailable:     512000 kB\n");
}

static void test_machine(void **state)
{
    (void)state;
    clear_root(NULL);
    struct pressure p = look(); /* nothing there */
    assert_true(p.limit == 0 && p.free == 0 && p.total == 0 && p.stall < 0);
    put_machine();
    put("proc/self/cgroup", "4:cpu,cpuacct:/a\n0::/\n");
    put("proc/pressure/memory", "some avg10=12.50 avg60=0.10 avg300=0.00 total=5\nfull avg10=1 ");
    p = look();
    assert_true(p.limit == 1024000 * 1024 && p.total == p.limit);
    assert_true(p.free == 512000 * 1024 && p.available == p.free);
    assert_true(p.stall == 12.5);
}

/* The group's own limit is none; that of the one above holds. */
static void test_group_of_version_2(void **state)
{
    (void)state;
    clear_root(NULL);
    put_machine();
    put("proc/self/cgroup", "0::/above/own\n");
    put("sys/fs/cgroup/above/own/memory.max", "max\n");
    put("sys/fs/cgroup/above/own/memory.current", "1000000\n");
    put("sys/fs/cgroup/above/own/memory.pressure", "some avg10=3.00 avg60=0 avg300=0 total=1\n");
    put("proc/pressure/memory", "some avg10=50.00 avg60=0.10 avg300=0.00 total=5\n");
    put("sys/fs/cgroup/above/memory.max", "104857600\n");
    put("sys/fs/cgroup/above/memory.current", "94371840\n");
    put("sys/fs/cgroup/above/memory.stat",
        "anon 7\nfile 30000000\ninactive_file 20971520\nactive_file 1048576\n");
    struct pressure p = look();
    assert_true(p.limit == 100 * MIB && p.total == 100 * MIB);
    assert_true(p.free == 31 * MIB && p.available == 31 * MIB); /* 90 used, of them 21 files */
    assert_true(p.stall == 3);
}

/* As it is seen in a container: the path of /proc lies above what is mounted. */
static void test_group_of_version_1(void **state)
{
    (void)state;
    clear_root(NULL);
    put_machine();
    put("proc/self/cgroup", "9:devices:/x\n4:hugetlb,memory:/docker/12\n0::/\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "209715200\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "104857600\n");
    put("sys/fs/cgroup/memory/memory.stat",
        "inactive_file 1\ntotal_inactive_file 1048576\ntotal_active_file 1048576\n");
    struct pressure p = look();
    assert_true(p.limit == 200 * MIB && p.free == 102 * MIB);
    assert_true(p.total == 1024000 * 1024); /* half is free there, and a little more here */
    put("sys/fs/cgroup/memory/docker/12/memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/memory/docker/12/memory.usage_in_bytes", "104857600\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "209715200\n");
    p = look();
    assert_true(p.limit == 200 * MIB && p.free == 2 * MIB);
    assert_true(p.total == 200 * MIB && p.available == 2 * MIB);
}

static void test_this_machine(void **state)
{
    (void)state;
    struct pressure p;
    pressure_read(&p, "");
    if (p.limit == 0)
        skip();
    assert_true(p.free <= p.limit && p.available <= p.total && p.total >= p.limit);
    assert_true(p.limit == cpu_memory_total() && p.free > 0);
    assert_true(p.stall >= -1 && p.stall <= 100);
}

/* ---- what is given back ---------------------------------------------------------------------- */

static size_t after(struct expert_yield *y, size_t total, size_t available, double stall, int n)
{
    struct pressure p = { total, available, total, available, stall };
    size_t now = y->now;
    for (int i = 0; i < n; i++)
        now = expert_yield_look(y, &p);
    return now;
}

static void test_yield(void **state)
{
    (void)state;
    const size_t all = 6400 * MIB;
    struct expert_yield y = { 100 * MIB, 2000 * MIB, 2000 * MIB, 0 };
    assert_true(after(&y, 0, 0, 99, 9) == 2000 * MIB);          /* unknown */
    assert_true(after(&y, all, 101 * MIB, -1, 50) == 2000 * MIB); /* nearly full is not short */
    assert_true(after(&y, all, 99 * MIB, -1, 1) == 1899 * MIB);  /* up to 200 */
    assert_true(after(&y, all, 200 * MIB, -1, 50) == 1899 * MIB);
    assert_true(after(&y, all, 801 * MIB, 50, 5) == 1899 * MIB); /* waiting, but not for this */
    assert_true(after(&y, all, 799 * MIB, 11, 2) == 1699 * MIB); /* a twentieth each */
    assert_true(after(&y, all, 799 * MIB, 9, 9) == 1699 * MIB);
    assert_true(after(&y, all, 799 * MIB, 9, 1) == 1699 * MIB + 399 * MIB / 2);
    assert_true(after(&y, all, 0, 0, 100) == 100 * MIB);
    assert_true(after(&y, all, 499 * MIB, 0, 99) == 100 * MIB); /* 400 shall stay */
    assert_true(after(&y, all, 501 * MIB, 0, 9) == 100 * MIB);
    assert_true(after(&y, all, 99 * MIB, 0, 1) == 100 * MIB);
    assert_true(after(&y, all, 501 * MIB, 0, 9) == 100 * MIB); /* calm begins anew */
    assert_true(after(&y, all, 501 * MIB, 0, 1) == 200 * MIB);
    assert_true(after(&y, all, all, 0, 100) == 2000 * MIB);
}

/* Whatever is taken again is no reason to give back. */
static void test_yield_rests(void **state)
{
    (void)state;
    for (size_t others = 0; others < 6400; others += 37) {
        struct expert_yield y = { 10 * MIB, 3000 * MIB, 3000 * MIB, 0 };
        size_t last = 0;
        int n_fall = 0, n_rise = 0;
        for (int i = 0; i < 1000; i++) {
            size_t used = others * MIB + y.now, all = 6400 * MIB, before = y.now;
            size_t now = after(&y, all, used < all ? all - used : 0, 0, 1);
            n_fall += now < before;
            n_rise += now > before;
            last = i == 500 ? now : last;
        }
        assert_int_equal(y.now, last);
        assert_true(n_fall <= 25 && n_rise <= 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_machine),
        cmocka_unit_test(test_group_of_version_2),
        cmocka_unit_test(test_group_of_version_1),
        cmocka_unit_test(test_this_machine),
        cmocka_unit_test(test_yield),
        cmocka_unit_test(test_yield_rests),
    };
    return cmocka_run_group_tests(tests, make_root, clear_root);
}
