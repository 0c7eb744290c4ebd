/* fuzz_chat.c - libFuzzer: no request makes the prompt renderer crash; a prompt is UTF-8, its spans
 * are sound, and it is the same text with and without them.
 *
 * The first byte chooses options; the rest is the request. Where it has a zero byte, what is
 * before it is the context. Seeds: corpus/chat. */
#include "chat_deepseek.h"
#include "utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_spans(const struct chat_text *t)
{
    size_t last = 0;
    for (int i = 0; i < t->n_special; i++) {
        CHECK(t->special[i].begin < t->special[i].end && (i == 0 || t->special[i].begin > last));
        last = t->special[i].end;
    }
    CHECK(last <= t->text.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct chat_options o;
    struct chat_text marked, plain;
    struct err e = { 0 };
    if (size < 1)
        return 0;
    const char *request = (const char *)data + 1, *zero = memchr(request, 0, size - 1);
    size_t len = size - 1;
    chat_options_init(&o);
    o.think = (enum chat_think)(data[0] & 3);
    o.profile = data[0] & 4 ? CHAT_0731 : CHAT_PREVIEW;
    o.drop_thinking = !(data[0] & 8);
    o.add_bos = !(data[0] & 16);
    o.developer_is_system = data[0] & 32;
    o.max_bytes = data[0] & 64 ? 256 : 1 << 20;
    if (zero) {
        o.context = request;
        o.context_len = (size_t)(zero - request);
        len -= o.context_len + 1;
        request = zero + 1;
    }
    int code = chat_render(&marked, request, len, &o, &e);
    if (code < 0)
        CHECK(e.code != ERR_NONE && e.text[0] && !strchr(e.text, '\n'));
    o.parse_special = true;
    CHECK(chat_render(&plain, request, len, &o, NULL) == code);
    if (code < 0)
        return 0;
    CHECK(marked.text.len == plain.text.len);
    if (plain.text.len > 0) {
        CHECK(memcmp(marked.text.data, plain.text.data, plain.text.len) == 0);
        CHECK(utf8_valid_len(plain.text.data, plain.text.len) == plain.text.len);
    }
    check_spans(&marked);
    check_spans(&plain);
    chat_text_release(&marked);
    chat_text_release(&plain);
    return 0;
}
