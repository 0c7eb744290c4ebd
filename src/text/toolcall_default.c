/* toolcall_default.c - our dialect: the recipe's state machine, and recovery.
 *
 * A block of calls is believed by stages. After <|DSML|tool_calls> and a first call's head it is
 * certain, and what follows goes out as it comes. A call without that wrapper counts only when it
 * is closed, declared and has what its schema requires. A block inside of reasoning counts only
 * when it is complete and the output ends there. Until then its bytes are held in `raw`, and when
 * belief ends they are text again: reject() feeds them back with the tags switched off.
 * Later stages never give up text: bytes between tags are sent as TOOLCALL_RAW. */
#include "toolcall_call_impl.h"

#include <stdlib.h>

#include "chat_strings.h"

enum { MAX_NAME = 256, MAX_KEY = 1024, MAX_ATTRIBUTES = 256 };

enum state {
    TEXT,
    GAP,        /* between tags */
    TAG,        /* in a tag, from its bracket on */
    NAME,       /* of a call, up to the quote */
    HEAD,       /* behind it, up to the bracket */
    KEY,
    ATTRIBUTES, /* of a parameter, up to the bracket */
    VALUE,
    VALUE_TAG,  /* in what may be the value's closing tag */
    AFTER,      /* behind a complete block in reasoning */
    END
};

/* What is believed of the block at hand. */
enum belief {
    WRAPPED, /* has its wrapper: certain after the first head */
    LOOSE,   /* has none, or a misspelt one: each call must prove itself */
    THOUGHT  /* stands in reasoning: all or nothing, at the end */
};

enum place { FIRST_TAG, BETWEEN_CALLS, IN_CALL };

struct toolcall_default {
    struct toolcall_parser *p;
    enum state state;
    enum belief belief;
    enum place place;
    bool certain;      /* WRAPPED and a head was seen */
    bool no_tags;      /* text that was rejected is being fed back */
    int n_calls;       /* of this block: given, or kept */
    struct buf raw;    /* bytes of the block that no event tells of yet */
    size_t odd_at;     /* where the tag at hand, or what is none, begins in it */
    struct buf word;   /* tag, name, key or attributes */
    size_t n_match;    /* bytes of a value's closing tag; in AFTER and END, of the end marker */
    size_t n_think;    /* of </think>, in a THOUGHT */
    struct buf key;
    struct call call;
    struct kept_calls kept; /* of a THOUGHT */
    bool cut_off;      /* a call was, and its pieces are out */
    bool over;         /* ended because too much would have to be held */
};

static void feed(struct toolcall_default *d, char c);

/* ---- text ----------------------------------------------------------------------------------- */

static void start_text(struct toolcall_default *d)
{
    d->state = TEXT;
    watch_start(&d->p->watch, tc_text_literals(d->p) & ~(d->no_tags ? LIT(DSML) : 0));
}

int default_new(struct toolcall_parser *p)
{
    struct toolcall_default *d = calloc(1, sizeof *d);
    if (!d)
        return ERR_NO_MEMORY;
    d->p = p;
    p->d = d;
    buf_init(&d->raw, SIZE_MAX / 2);
    buf_init(&d->word, SIZE_MAX / 2);
    buf_init(&d->key, SIZE_MAX / 2);
    call_init(&d->call, p);
    start_text(d);
    p->watch.on |= LIT(THINK_BEGIN);
    return d->call.failed ? ERR_NO_MEMORY : 0;
}

void default_free(struct toolcall_parser *p)
{
    struct toolcall_default *d = p->d;
    if (!d)
        return;
    kept_release(&d->kept);
    call_release(&d->call);
    buf_release(&d->key);
    buf_release(&d->raw);
    buf_release(&d->word);
    free(d);
}

static void end_output(struct toolcall_default *d)
{
    d->state = END;
    d->p->done = true;
    d->n_match = 0;
    buf_clear(&d->raw);
}

static void put_text(struct toolcall_default *d, const char *s, size_t n)
{
    tc_text(d->p, d->p->in_reasoning ? TOOLCALL_REASONING : TOOLCALL_CONTENT, s, n);
}

/* The literal is `n` bytes at s, newlines before it included. */
static void text_literal(struct toolcall_default *d, int found, const char *s, size_t n)
{
    struct toolcall_parser *p = d->p;
    switch (found) {
    case LIT_DSML:
        buf_clear(&d->raw);
        buf_clear(&d->word);
        buf_add(&d->raw, s, n);
        buf_puts(&d->word, CHAT_DSML_OPEN);
        d->belief = p->in_reasoning ? THOUGHT : WRAPPED;
        d->place = FIRST_TAG;
        d->certain = false;
        d->n_calls = 0;
        d->n_think = 0;
        d->state = TAG;
        return;
    case LIT_THINK_END:
        p->in_reasoning = false;
        p->leading = true;
        break;
    case LIT_EXTRA_END: tc_warn(p, TOOLCALL_WARN_EXTRA_THINK_END, -1); break;
    case LIT_THINK_BEGIN:
        tc_warn(p, TOOLCALL_WARN_EXTRA_THINK_BEGIN, -1);
        p->leading = p->o.leading;
        break;
    case LIT_NEWLINE: break;
    case LIT_USER:
    case LIT_ASSISTANT:
    case LIT_BOS:
        tc_warn(p, TOOLCALL_WARN_CONTROL, -1);
        end_output(d);
        return;
    case LIT_EOS: end_output(d); return;
    default:
        p->stop = found;
        end_output(d);
        return;
    }
    start_text(d);
}

static void text_byte(struct toolcall_default *d, char c)
{
    struct toolcall_parser *p = d->p;
    struct watch *w = &p->watch;
    size_t n;
    if (p->leading && c != '\n') {
        p->leading = false;
        w->on &= ~LIT(NEWLINE);
    }
    int found = watch_byte(w, c, &n);
    put_text(d, w->held.data, n);
    if (n > 0)
        w->on &= ~LIT(THINK_BEGIN); /* only before any other byte */
    if (found < 0)
        buf_drop(&w->held, n);
    else
        text_literal(d, found, w->held.data + n, w->held.len - n);
}

/* ---- belief --------------------------------------------------------------------------------- */

static void buf_cut(struct buf *b, size_t len)
{
    b->len = len;
    b->data[len] = 0;
}

/* The block is text after all. The last byte, when it did not belong to the tag that failed, may
 * begin another one. */
static void reject(struct toolcall_default *d, bool last_is_new)
{
    size_t len = d->raw.len;
    char *bytes = buf_take(&d->raw);
    kept_drop(&d->kept);
    call_clear(&d->call);
    if (!bytes) {
        d->p->no_memory = true;
        return;
    }
    d->no_tags = true;
    start_text(d);
    for (size_t i = 0; i + last_is_new < len; i++)
        feed(d, bytes[i]);
    d->no_tags = false;
    if (d->state == TEXT)
        d->p->watch.on |= d->p->o.parse_calls ? LIT(DSML) : 0;
    if (last_is_new && len > 0)
        feed(d, bytes[len - 1]);
    free(bytes);
}

/* What began at raw[d->odd_at] has no place in a block. */
static void stray(struct toolcall_default *d, bool last_is_new)
{
    if (!d->certain) {
        reject(d, last_is_new);
        return;
    }
    size_t n = d->raw.len - last_is_new;
    char last = d->raw.data[d->raw.len - 1];
    tc_warn_once(d->p, TOOLCALL_WARN_STRAY_TEXT);
    tc_text(d->p, TOOLCALL_RAW, d->raw.data + d->odd_at, n - d->odd_at);
    buf_cut(&d->raw, d->odd_at);
    d->state = GAP;
    if (last_is_new)
        feed(d, last);
}

/* The call at hand ends; bad_close: not with its own tag. False: it did not count, and the block is
 * text again. */
static bool close_call(struct toolcall_default *d, bool bad_close)
{
    static const unsigned faults = 1u << TOOLCALL_WARN_BAD_JSON | 1u << TOOLCALL_WARN_BAD_CLOSE |
                                   1u << TOOLCALL_WARN_NO_TYPE | 1u << TOOLCALL_WARN_BAD_UTF8;
    struct call *c = &d->call;
    if (bad_close)
        c->warnings |= 1u << TOOLCALL_WARN_BAD_CLOSE;
    bool counts = d->belief == WRAPPED || (!bad_close && call_has_required(c));
    if (d->belief == THOUGHT && c->warnings & faults)
        counts = false;
    if (!counts) {
        reject(d, false);
        return false;
    }
    if (d->belief == THOUGHT) {
        kept_add(&d->kept, c);
    } else {
        if (d->belief == LOOSE)
            c->warnings |= 1u << TOOLCALL_WARN_NO_WRAPPER;
        call_end(c);
        buf_clear(&d->raw);
    }
    call_clear(c);
    d->n_calls++;
    d->place = BETWEEN_CALLS;
    d->state = GAP;
    return true;
}

static void close_block(struct toolcall_default *d)
{
    if (d->n_calls == 0) {
        stray(d, false);
    } else if (d->belief == THOUGHT) {
        d->state = AFTER;
        d->n_match = 0;
    } else {
        end_output(d);
    }
}

/* ---- tags ----------------------------------------------------------------------------------- */

static void start_word(struct toolcall_default *d, enum state state)
{
    buf_clear(&d->word);
    d->state = state;
}

/* The first tag behind text. */
static void first_tag(struct toolcall_default *d, enum tag tag)
{
    bool thought = d->belief == THOUGHT;
    if (tag == TAG_BLOCK || (tag == TAG_BLOCK_OTHER && !thought)) {
        d->belief = thought ? THOUGHT : tag == TAG_BLOCK ? WRAPPED : LOOSE;
        d->place = BETWEEN_CALLS;
        d->state = GAP;
    } else if (tag == TAG_INVOKE && !thought) {
        d->belief = LOOSE;
        d->place = BETWEEN_CALLS;
        start_word(d, NAME);
    } else {
        reject(d, tag == TAG_NONE);
    }
}

static void tag_between_calls(struct toolcall_default *d, enum tag tag)
{
    if (tag == TAG_INVOKE) {
        start_word(d, NAME);
    } else if (tag == TAG_BLOCK && d->n_calls == 0) {
        d->state = GAP; /* the wrapper twice */
    } else if (tag == TAG_BLOCK_END) {
        close_block(d);
    } else if (tag == TAG_OTHER_END && d->n_calls > 0 && d->belief != THOUGHT) {
        tc_warn(d->p, TOOLCALL_WARN_BAD_CLOSE, -1);
        close_block(d);
    } else {
        stray(d, tag == TAG_NONE);
    }
}

static void tag_in_call(struct toolcall_default *d, enum tag tag)
{
    switch (tag) {
    case TAG_PARAMETER: start_word(d, KEY); break;
    case TAG_INVOKE_END: close_call(d, false); break;
    case TAG_OTHER_END: close_call(d, true); break;
    case TAG_BLOCK_END:
        if (close_call(d, true))
            close_block(d);
        break;
    case TAG_INVOKE:
        if (close_call(d, true)) {
            buf_add(&d->raw, d->word.data, d->word.len); /* the next call begins with this tag */
            d->odd_at = 0;
            start_word(d, NAME);
        }
        break;
    default: stray(d, tag == TAG_NONE);
    }
}

static void tag_byte(struct toolcall_default *d, char c)
{
    buf_putc(&d->word, c);
    enum tag tag = tag_scan(d->word.data, d->word.len);
    if (tag == TAG_PARTIAL)
        return;
    if (d->place == FIRST_TAG)
        first_tag(d, tag);
    else if (d->place == BETWEEN_CALLS)
        tag_between_calls(d, tag);
    else
        tag_in_call(d, tag);
}

/* The open value's bytes are sent as they come. */
static bool value_is_out(const struct toolcall_default *d)
{
    return d->call.begun && d->call.kind == VALUE_STRING;
}

static void end_value(struct toolcall_default *d)
{
    call_value_end(&d->call);
    d->state = GAP;
    if (d->call.begun)
        buf_clear(&d->raw);
}

/* What ended a value: its own tag, one of a level above, or a misspelt one. */
static void value_tag_byte(struct toolcall_default *d, char c)
{
    buf_putc(&d->word, c);
    enum tag tag = tag_scan(d->word.data, d->word.len);
    if (tag == TAG_PARTIAL)
        return;
    if (tag == TAG_NONE) { /* text that looks like a tag; its last byte may begin one */
        call_value(&d->call, d->word.data, d->word.len - 1);
        buf_cut(&d->raw, value_is_out(d) ? 0 : d->raw.len - 1);
        d->state = VALUE;
        d->n_match = 0;
        feed(d, c);
        return;
    }
    end_value(d);
    if (tag == TAG_OTHER_END)
        d->call.warnings |= 1u << TOOLCALL_WARN_BAD_CLOSE;
    else if (tag != TAG_PARAMETER_END)
        tag_in_call(d, tag == TAG_INVOKE_END ? TAG_OTHER_END : tag);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static void gap_byte(struct toolcall_default *d, char c)
{
    d->odd_at = d->raw.len - 1;
    if (c == '<') {
        start_word(d, TAG);
        buf_putc(&d->word, c);
    } else if (!is_blank(c)) {
        stray(d, false);
    } else if (d->certain && (d->place == BETWEEN_CALLS || d->call.begun)) {
        buf_clear(&d->raw); /* all events tell of what came before */
    }
}

/* ---- heads, keys, values -------------------------------------------------------------------- */

/* Collect up to `last`. Too long, or with a newline in it, or with a bracket in anything but a
 * key, it is no tag. */
static bool word_complete(struct toolcall_default *d, char c, char last, size_t max)
{
    if (c == last)
        return true;
    bool bracket = c == '<' && d->state != KEY;
    if (bracket || c == '\n' || d->word.len == max)
        stray(d, bracket);
    else
        buf_putc(&d->word, c);
    return false;
}

static void name_byte(struct toolcall_default *d, char c)
{
    if (!word_complete(d, c, '"', MAX_NAME))
        return;
    call_begin(&d->call, d->word.data ? d->word.data : "", d->word.len,
               d->belief == WRAPPED && !d->p->o.whole_calls);
    start_word(d, HEAD);
}

static void head_byte(struct toolcall_default *d, char c)
{
    if (!word_complete(d, c, '>', MAX_ATTRIBUTES))
        return;
    if (d->belief != WRAPPED && !d->call.tool) {
        reject(d, false);
        return;
    }
    d->certain = d->belief == WRAPPED;
    d->place = IN_CALL;
    d->state = GAP;
}

static void key_byte(struct toolcall_default *d, char c)
{
    if (!word_complete(d, c, '"', MAX_KEY))
        return;
    buf_clear(&d->key);
    buf_add(&d->key, d->word.data, d->word.len);
    start_word(d, ATTRIBUTES);
}

static void attributes_byte(struct toolcall_default *d, char c)
{
    if (!word_complete(d, c, '>', MAX_ATTRIBUTES))
        return;
    call_parameter(&d->call, d->key.data, d->key.len, d->word.data, d->word.len);
    if (value_is_out(d))
        buf_clear(&d->raw);
    d->state = VALUE;
    d->n_match = 0;
}

/* The beginning of a closing tag has one '<', at its front, so that a mismatch starts it anew only
 * with that byte. */
static void value_byte(struct toolcall_default *d, char c)
{
    static const char close[] = CHAT_DSML_CLOSE;
    if (c == close[d->n_match]) {
        if (close[++d->n_match])
            return;
        start_word(d, VALUE_TAG);
        buf_puts(&d->word, close);
        return;
    }
    call_value(&d->call, close, d->n_match);
    d->n_match = c == close[0];
    if (!d->n_match)
        call_value(&d->call, &c, 1);
    if (value_is_out(d))
        buf_drop(&d->raw, d->raw.len - d->n_match);
}

/* Behind a block in reasoning only the end of the output makes it count. */
static void after_byte(struct toolcall_default *d, char c)
{
    if (d->n_match == 0 && is_blank(c))
        return;
    if (c != chat_markers.eos[d->n_match] || !d->p->o.stop_at_control) {
        reject(d, false);
    } else if (!chat_markers.eos[++d->n_match]) {
        kept_give(&d->kept, d->p);
        end_output(d);
    }
}

/* Behind the end: the end marker is where it should be, anything else is reported. */
static void end_byte(struct toolcall_default *d, char c)
{
    const char *marker = chat_markers.eos;
    bool clean = !(d->p->warned >> TOOLCALL_WARN_AFTER_END & 1);
    if (clean && d->p->o.stop_at_control && c == marker[d->n_match]) {
        d->n_match = marker[d->n_match + 1] ? d->n_match + 1 : 0;
        return;
    }
    if (clean && d->n_match == 0 && is_blank(c))
        return;
    tc_warn_once(d->p, TOOLCALL_WARN_AFTER_END);
    tc_text(d->p, TOOLCALL_RAW, marker, d->n_match);
    tc_text(d->p, TOOLCALL_RAW, &c, 1);
    d->n_match = 0;
}

/* ---- driving -------------------------------------------------------------------------------- */

/* </think> inside of a block in reasoning: reasoning ends there, the block was part of it. */
static bool thought_ends(struct toolcall_default *d, char c)
{
    const char *end = chat_markers.think_close;
    if (d->belief != THOUGHT)
        return false;
    d->n_think = c == end[d->n_think] ? d->n_think + 1 : c == end[0];
    return end[d->n_think] == 0;
}

/* End the open call as it is. */
static void cut_off(struct toolcall_default *d)
{
    struct call *c = &d->call;
    c->warnings |= 1u << TOOLCALL_WARN_CUT_OFF;
    d->cut_off = d->place == IN_CALL && call_cut_off(c, d->state == VALUE);
    if (!d->cut_off)
        tc_warn(d->p, TOOLCALL_WARN_CUT_OFF, -1);
    tc_text(d->p, TOOLCALL_RAW, d->raw.data, d->raw.len);
}

/* More would have to be held than may be. */
static void too_long(struct toolcall_default *d)
{
    tc_warn(d->p, TOOLCALL_WARN_TOO_LONG, -1);
    if (!d->certain) {
        reject(d, false);
        return;
    }
    if (d->state == VALUE_TAG)
        d->state = VALUE;
    cut_off(d);
    d->over = true;
    end_output(d);
}

static void feed(struct toolcall_default *d, char c)
{
    if (d->state == TEXT) {
        text_byte(d, c);
        return;
    }
    if (d->state == END) {
        end_byte(d, c);
        return;
    }
    buf_putc(&d->raw, c);
    if (thought_ends(d, c)) {
        reject(d, false);
        return;
    }
    switch (d->state) {
    case GAP: gap_byte(d, c); break;
    case TAG: tag_byte(d, c); break;
    case NAME: name_byte(d, c); break;
    case HEAD: head_byte(d, c); break;
    case KEY: key_byte(d, c); break;
    case ATTRIBUTES: attributes_byte(d, c); break;
    case VALUE: value_byte(d, c); break;
    case VALUE_TAG: value_tag_byte(d, c); break;
    case AFTER: after_byte(d, c); break;
    case TEXT:
    case END: break;
    }
    if (d->state != TEXT && d->state != END &&
        d->raw.len + call_held(&d->call) + d->kept.bytes > d->p->o.max_held)
        too_long(d);
    if (d->raw.failed || d->word.failed || d->key.failed || d->call.failed || d->kept.failed)
        d->p->no_memory = true;
}

void default_byte(struct toolcall_parser *p, char c)
{
    if (!p->no_memory)
        feed(p->d, c);
}

/* ---- the end -------------------------------------------------------------------------------- */

/* All that the open call needs is there, save closing tags: its last parameter is closed, and no
 * other tag than a closing one has begun. */
static bool call_is_whole(const struct toolcall_default *d)
{
    size_t n = strlen(CHAT_DSML_CLOSE);
    bool closing = d->state == GAP || (d->state == TAG && d->word.len >= 2 &&
                                       memcmp(d->word.data, CHAT_DSML_CLOSE,
                                              MIN(n, d->word.len)) == 0);
    return d->place == IN_CALL && closing && d->call.tool && call_has_required(&d->call);
}

/* The output ends inside of a block that has its wrapper. */
static void end_wrapped(struct toolcall_default *d, enum toolcall_reason reason)
{
    bool in_call = d->place == IN_CALL;
    if (d->state == VALUE_TAG) { /* the mark alone ends a value: it is one token */
        end_value(d);
        d->call.warnings |= 1u << TOOLCALL_WARN_BAD_CLOSE;
    }
    if (in_call && reason == TOOLCALL_EOS && call_is_whole(d)) {
        close_call(d, true);
        return;
    }
    if (d->state == VALUE && value_is_out(d)) {
        call_value(&d->call, CHAT_DSML_CLOSE, d->n_match);
        buf_clear(&d->raw);
    }
    if (in_call || d->state != GAP || d->n_calls == 0)
        cut_off(d);
    else
        tc_warn(d->p, TOOLCALL_WARN_BAD_CLOSE, -1);
}

/* The open block can still be one with its wrapper. */
static bool may_be_wrapped(const struct toolcall_default *d)
{
    static const char wrapper[] = CHAT_DSML_OPEN "tool_calls>";
    if (d->belief != WRAPPED)
        return false;
    return d->place != FIRST_TAG ||
           (d->word.len < sizeof wrapper && memcmp(d->word.data, wrapper, d->word.len) == 0);
}

static bool all_blank(const struct buf *b)
{
    for (size_t i = 0; i < b->len; i++)
        if (!is_blank(b->data[i]))
            return false;
    return true;
}

enum toolcall_finish default_finish(struct toolcall_parser *p, enum toolcall_reason reason)
{
    struct toolcall_default *d = p->d;
    if (p->no_memory)
        return TOOLCALL_FINISH_STOP;
    if (d->state == AFTER && reason == TOOLCALL_EOS) {
        kept_give(&d->kept, p);
        p->done = true;
    } else if (d->state != TEXT && d->state != END) {
        if (may_be_wrapped(d))
            end_wrapped(d, reason);
        else if (d->belief != LOOSE || d->n_calls == 0 || !all_blank(&d->raw))
            reject(d, false);
    }
    if (d->state == TEXT)
        put_text(d, p->watch.held.data, p->watch.held.len);
    if (d->over || (reason == TOOLCALL_LENGTH && !p->done))
        return TOOLCALL_FINISH_LENGTH;
    return p->n_closed > 0 && !d->cut_off ? TOOLCALL_FINISH_CALLS : TOOLCALL_FINISH_STOP;
}
