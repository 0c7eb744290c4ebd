/* utf8.c - the table of well-formed byte sequences (Unicode 15, table 3-7) as code. */
#include "utf8.h"

int utf8_step(const char *s, size_t n)
{
    const uint8_t *u = (const uint8_t *)s;
    uint8_t lead = u[0], low = 0x80, high = 0xBF; /* range of the second byte */
    int need;
    if (lead < 0x80)
        return 1;
    if (lead < 0xC2 || lead > 0xF4)
        return -1;
    need = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (lead == 0xE0)
        low = 0xA0; /* below: overlong */
    else if (lead == 0xED)
        high = 0x9F; /* above: surrogates */
    else if (lead == 0xF0)
        low = 0x90; /* below: overlong */
    else if (lead == 0xF4)
        high = 0x8F; /* above: beyond U+10FFFF */
    for (int i = 1; i < need; i++) {
        if ((size_t)i == n)
            return 0;
        if (u[i] < low || u[i] > high)
            return -i;
        low = 0x80;
        high = 0xBF;
    }
    return need;
}

size_t utf8_valid_len(const char *s, size_t n)
{
    size_t at = 0;
    while (at < n) {
        uint64_t eight;
        while (at + 8 <= n) {
            memcpy(&eight, s + at, 8);
            if (eight & UINT64_C(0x8080808080808080))
                break;
            at += 8;
        }
        if (at == n)
            break;
        int step = utf8_step(s + at, n - at);
        if (step <= 0)
            break;
        at += (size_t)step;
    }
    return at;
}

int utf8_put(char out[4], uint32_t c)
{
    CHECK(c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF));
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    int len = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = len - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)((0xF00 >> len) | c); /* the lead's low byte: 110.., 1110.., 11110.. */
    return len;
}

uint32_t utf8_get(const char *s, int *len)
{
    const uint8_t *u = (const uint8_t *)s;
    if (u[0] < 0x80) {
        *len = 1;
        return u[0];
    }
    *len = u[0] < 0xE0 ? 2 : u[0] < 0xF0 ? 3 : 4;
    uint32_t c = u[0] & (0x7Fu >> *len);
    for (int i = 1; i < *len; i++)
        c = c << 6 | (u[i] & 0x3F);
    return c;
}

struct utf8_shown utf8_show(const char *s, size_t len)
{
    struct utf8_shown shown;
    size_t n = 0, at = 0;
    while (at < len && n + 4 + sizeof "..." <= sizeof shown.text) {
        int step = utf8_step(s + at, len - at);
        bool plain = step > 0 && (uint8_t)s[at] >= 0x20 && s[at] != 0x7F;
        size_t n_byte = step > 0 ? (size_t)step : 1, n_out = plain ? n_byte : 1;
        memcpy(shown.text + n, plain ? s + at : "?", n_out);
        n += n_out;
        at += n_byte;
    }
    if (at < len) {
        memcpy(shown.text + n, "...", 3);
        n += 3;
    }
    shown.text[n] = 0;
    return shown;
}
