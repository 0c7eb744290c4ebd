/* toolcall_recipe.c - the state machine of DeepSeek's own serving code (deepseek-recipe, MIT):
 * per state a few literals to look for, and what happens to all other bytes.
 *
 * It never fails and trusts the model: a value goes into the arguments as it is, and an opening
 * tag anywhere begins calls. Kept exactly so, as a yardstick for the default dialect. */
#include "toolcall_impl.h"

enum { TEXT, TOOLS, NAME, ARGS_FIRST, ARGS, KEY, TYPE, STRING, JSON, END };

static const uint64_t literals_of[] = {
    [TOOLS] = LIT(INVOKE) | LIT(BLOCK_END) | LIT(BLOCK_END_V41),
    [NAME] = LIT(QUOTE),
    [ARGS_FIRST] = LIT(PARAMETER) | LIT(CLOSE),
    [ARGS] = LIT(PARAMETER) | LIT(CLOSE),
    [KEY] = LIT(QUOTE),
    [TYPE] = LIT(TRUE) | LIT(FALSE),
    [STRING] = LIT(CLOSE),
    [JSON] = LIT(CLOSE),
    [END] = 0,
};

static void enter(struct toolcall_parser *p, int state)
{
    p->state = state;
    watch_start(&p->watch, state == TEXT ? tc_text_literals(p) : literals_of[state]);
}

/* Bytes that are not part of a literal. */
static void other(struct toolcall_parser *p, const char *s, size_t n)
{
    if (n == 0)
        return;
    switch (p->state) {
    case TEXT: tc_text(p, p->in_reasoning ? TOOLCALL_REASONING : TOOLCALL_CONTENT, s, n); break;
    case NAME: buf_add(&p->text, s, n); break;
    case KEY:
    case JSON: tc_text(p, TOOLCALL_ARGUMENTS, s, n); break;
    case STRING:
        for (size_t i = 0; i < n; i++) {
            struct buf escaped;
            buf_init(&escaped, 16);
            pyjson_escape(&escaped, s + i, 1);
            tc_text(p, TOOLCALL_ARGUMENTS, escaped.data, escaped.len);
            buf_release(&escaped);
        }
        break;
    case END: tc_warn_once(p, TOOLCALL_WARN_AFTER_END); break;
    default: break; /* between tags */
    }
}

static void text_literal(struct toolcall_parser *p, int found)
{
    if (found < LIT_DSML) {
        p->stop = found;
        p->done = true;
        enter(p, END);
    } else if (found == LIT_DSML) {
        enter(p, TOOLS);
    } else if (found == LIT_THINK_END) {
        p->in_reasoning = false;
        p->leading = true;
        enter(p, TEXT);
    } else if (found == LIT_EXTRA_END) {
        tc_warn(p, TOOLCALL_WARN_EXTRA_THINK_END, -1);
        enter(p, TEXT);
    } else { /* a leading newline */
        enter(p, TEXT);
    }
}

static void call_literal(struct toolcall_parser *p, int found)
{
    switch (p->state) {
    case TOOLS:
        buf_clear(&p->text);
        p->done = found != LIT_INVOKE;
        enter(p, p->done ? END : NAME);
        break;
    case NAME:
        tc_call_begin(p, p->text.data ? p->text.data : "");
        enter(p, ARGS_FIRST);
        break;
    case ARGS_FIRST:
    case ARGS:
        if (found == LIT_PARAMETER) {
            tc_puts(p, TOOLCALL_ARGUMENTS, p->state == ARGS ? ", \"" : "{\"");
            enter(p, KEY);
        } else {
            tc_puts(p, TOOLCALL_ARGUMENTS, p->state == ARGS ? "}" : "{}");
            tc_call_end(p, true);
            enter(p, TOOLS);
        }
        break;
    case KEY:
        tc_puts(p, TOOLCALL_ARGUMENTS, "\": ");
        enter(p, TYPE);
        break;
    case TYPE:
        tc_puts(p, TOOLCALL_ARGUMENTS, found == LIT_TRUE ? "\"" : "");
        enter(p, found == LIT_TRUE ? STRING : JSON);
        break;
    default: /* the end of a value */
        tc_puts(p, TOOLCALL_ARGUMENTS, p->state == STRING ? "\"" : "");
        enter(p, ARGS);
    }
}

void recipe_new(struct toolcall_parser *p)
{
    enter(p, TEXT);
}

void recipe_byte(struct toolcall_parser *p, char c)
{
    size_t n;
    if (p->state == TEXT && p->leading && c != '\n') {
        p->leading = false;
        p->watch.on &= ~LIT(NEWLINE);
    }
    int found = watch_byte(&p->watch, c, &n);
    other(p, p->watch.held.data, n);
    if (found < 0)
        buf_drop(&p->watch.held, n);
    else if (p->state == TEXT)
        text_literal(p, found);
    else
        call_literal(p, found);
}

void recipe_finish(struct toolcall_parser *p)
{
    other(p, p->watch.held.data, p->watch.held.len);
    if (p->n_call > 0 && p->state >= ARGS_FIRST && p->state <= JSON)
        tc_call_end(p, false);
}
