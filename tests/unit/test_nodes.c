/* test_nodes.c - lists of memory nodes, and that the system takes our requests. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "nodes.h"
#include "pages.h"

static void lists(void **state)
{
    static const struct {
        const char *list;
        int n;
    } good[] = { { "0\n", 1 }, { "0-1\n", 2 }, { "0-3,8", 5 }, { "1,1,1-2", 2 }, { "1023", 1 } };
    static const char *const bad[] = { "", "\n", "-1", "0-", "2-1", "0;1", "0,,1", "1024", "x" };
    struct nodes nodes;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        assert_true(nodes_parse(&nodes, good[i].list));
        assert_int_equal(nodes.n, good[i].n);
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(nodes_parse(&nodes, bad[i]));
    assert_true(nodes_parse(&nodes, "0-3,8"));
    assert_int_equal(nodes.bits[0], 0x10f);
}

/* Two nodes are claimed though the machine may have one: the call must be well formed for the
 * kernel, which ignores nodes that are not there, and refuses when none is. */
static void requests(void **state)
{
    struct nodes here, claimed, nowhere;
    void *mem;
    (void)state;
    nodes_find(&here);
    assert_true(here.n >= 1);
    assert_true(nodes_parse(&claimed, "0-1") && nodes_parse(&nowhere, "1000-1001"));
    assert_int_equal(pages_map(&mem, 1 << 20, NULL), 0);
    if (!nodes_spread_memory(&claimed, mem, 1 << 20)) {
        pages_unmap(mem, 1 << 20);
        skip(); /* a sandbox that forbids it, or an emulator */
    }
    ((char *)mem)[4096] = 1;
    assert_false(nodes_spread_memory(&nowhere, mem, 1 << 20));
    assert_true(nodes_spread_thread(&claimed));
    pages_unmap(mem, 1 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(lists), cmocka_unit_test(requests) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
