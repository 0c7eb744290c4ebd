/* utf8.h - what is a character, and where one is broken.
 *
 * Valid means Unicode's definition: no overlong forms, no surrogates, at most U+10FFFF. */
#ifndef DS_UTF8_H
#define DS_UTF8_H

#include "base.h"

#define UTF8_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/* What the n >= 1 bytes at s begin with:
 *   > 0  a whole character of that many bytes
 *   0    the beginning of a character, cut off by the end: all n (1..3) bytes are good so far
 *   < 0  that many (1..3) bytes that can be no part of a character: a maximal subpart, the unit
 *        that one U+FFFD stands for */
int utf8_step(const char *s, size_t n);

/* Bytes of valid UTF-8 at the start of s. */
size_t utf8_valid_len(const char *s, size_t n);

/* Append code point `c` (not a surrogate, <= 0x10FFFF) to out; returns its length, 1..4. */
int utf8_put(char out[4], uint32_t c);

/* The code point of a valid character at s; *len is its length. */
uint32_t utf8_get(const char *s, int *len);

/* A string from outside as a message may show it: one line, whole characters, cut with "..." when
 * long; what is not printable becomes '?'. Use as utf8_show(s, len).text. */
struct utf8_shown {
    char text[128];
};
struct utf8_shown utf8_show(const char *s, size_t len);

#endif
