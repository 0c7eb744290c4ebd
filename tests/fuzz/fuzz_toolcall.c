/* fuzz_toolcall.c - libFuzzer: whatever a model writes, the output parser says the same however
 * it is cut, and the default dialect's arguments are JSON.
 *
 * The first two bytes choose dialect, options and cuts; the rest is the output. Seeds:
 * corpus/toolcall. */
#include "../toolcall_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const STOPS[] = { "STOP", "\n\n", "<a<" };

static void check(const struct toolcall_options *o, const char *text, size_t len, uint64_t seed,
                  enum toolcall_reason reason)
{
    struct record whole, cut;
    record_run(&whole, o, text, len, CUT_NOT, 0, reason);
    record_run(&cut, o, text, len, seed & 1 ? CUT_BYTES : CUT_RANDOM, seed, reason);
    CHECK(whole.error == cut.error && whole.all.len == cut.all.len);
    CHECK(whole.all.len == 0 || memcmp(whole.all.data, cut.all.data, cut.all.len) == 0);
    if (whole.error)
        CHECK(o->mode == TOOLCALL_STRICT && whole.e.text[0] && !strchr(whole.e.text, '\n'));
    if (o->mode == TOOLCALL_DEFAULT)
        CHECK(record_is_sound(&whole));
    record_release(&whole);
    record_release(&cut);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct toolcall_options o;
    if (size < 2)
        return 0;
    int choice = data[0], more = data[1];
    toolcall_options_init(&o);
    o.mode = choice % 4 == 3 ? TOOLCALL_DEFAULT : (enum toolcall_mode)(choice % 4);
    o.in_reasoning = choice & 4;
    o.leading = !(choice & 8);
    o.whole_calls = choice & 16;
    o.parse_calls = (choice & 96) != 96;
    o.stop_at_control = !(choice & 128);
    o.tools = RECORD_TOOLS;
    o.tools_len = sizeof RECORD_TOOLS - 1;
    o.stop = STOPS;
    o.n_stop = more & 3;
    o.max_held = more & 4 ? 64 + (size_t)more : 1 << 20;
    check(&o, (const char *)data + 2, size - 2, (uint64_t)more,
          more & 8 ? TOOLCALL_LENGTH : TOOLCALL_EOS);
    return 0;
}
