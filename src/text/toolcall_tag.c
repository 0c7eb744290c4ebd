/* toolcall_tag.c - which tag is this, and is it one at all.
 *
 * Exact spellings first; beyond them only what names itself by the DSML mark: a misspelt wrapper
 * (a word that ends in "calls") and a misspelt closing tag. */
#include "toolcall_call_impl.h"

#include "chat_strings.h"

enum { MAX_WORD = 32 };

static const struct {
    const char *text;
    enum tag tag;
} tags[] = {
    { CHAT_DSML_OPEN "tool_calls>", TAG_BLOCK },
    { CHAT_DSML_OPEN " tool_calls>", TAG_BLOCK },
    { CHAT_DSML_OPEN " calls>", TAG_BLOCK },
    { CHAT_DSML_OPEN "invoke name=\"", TAG_INVOKE },
    { CHAT_DSML_OPEN " invoke name=\"", TAG_INVOKE },
    { CHAT_DSML_OPEN "parameter name=\"", TAG_PARAMETER },
    { CHAT_DSML_OPEN " parameter name=\"", TAG_PARAMETER },
    { CHAT_DSML_CLOSE "tool_calls>", TAG_BLOCK_END },
    { CHAT_DSML_CLOSE " tool_calls>", TAG_BLOCK_END },
    { CHAT_DSML_CLOSE " calls>", TAG_BLOCK_END },
    { CHAT_DSML_CLOSE "invoke>", TAG_INVOKE_END },
    { CHAT_DSML_CLOSE " invoke>", TAG_INVOKE_END },
    { CHAT_DSML_CLOSE "parameter>", TAG_PARAMETER_END },
    { CHAT_DSML_CLOSE " parameter>", TAG_PARAMETER_END },
};

static bool starts_with(const char *s, size_t n, const char *prefix)
{
    size_t len = strlen(prefix);
    return n >= len && memcmp(s, prefix, len) == 0;
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           c == '_' || c == '-' || c == ' ';
}

enum tag tag_scan(const char *s, size_t n)
{
    for (size_t i = 0; i < COUNT_OF(tags); i++) {
        size_t len = strlen(tags[i].text);
        if (n <= len && memcmp(s, tags[i].text, n) == 0)
            return n == len ? tags[i].tag : TAG_PARTIAL;
    }
    bool open = starts_with(s, n, CHAT_DSML_OPEN);
    if (!open && !starts_with(s, n, CHAT_DSML_CLOSE))
        return TAG_NONE;
    size_t at = strlen(open ? CHAT_DSML_OPEN : CHAT_DSML_CLOSE);
    while (at < n && is_word(s[at]))
        at++;
    if (at == n)
        return n > strlen(CHAT_DSML_CLOSE) + MAX_WORD ? TAG_NONE : TAG_PARTIAL;
    if (at + 1 < n || s[at] != '>')
        return TAG_NONE;
    if (!open)
        return TAG_OTHER_END;
    return at >= 5 && memcmp(s + at - 5, "calls", 5) == 0 ? TAG_BLOCK_OTHER : TAG_NONE;
}
