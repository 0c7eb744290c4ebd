/* term.c - colours, widths, remarks and progress, silent where nobody looks. */
#include "term.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "host.h"
#include "opts.h"

static struct {
    bool tty[3], colour;
    bool line; /* a progress line stands on stderr */
} term;

void term_init(void)
{
    const char *kind = opts_env("TERM");
    bool able = kind && strcmp(kind, "dumb") != 0;
    term.tty[TERM_OUT] = able && host_is_terminal(1);
    term.tty[TERM_ERR] = able && host_is_terminal(2);
    term.colour = !opts_env("NO_COLOR");
}

bool term_is(enum term_stream s)
{
    return term.tty[s];
}

int term_width(enum term_stream s)
{
    int columns = term.tty[s] ? host_columns((int)s) : 0;
    return term.tty[s] && columns < 20 ? 80 : columns;
}

const char *term_style(enum term_stream s, enum term_look look)
{
    static const char *const sequence[] = { "\033[0m",  "\033[2m",  "\033[1m",
                                            "\033[31m", "\033[32m", "\033[36m" };
    return term.tty[s] && term.colour ? sequence[look] : "";
}

static void wipe(void)
{
    if (term.line)
        fputs("\r\033[K", stderr);
    term.line = false;
}

void term_error(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fflush(stdout);
    wipe();
    fputs("dstar: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

void term_remark(const char *fmt, ...)
{
    if (!term.tty[TERM_ERR])
        return;
    va_list ap;
    va_start(ap, fmt);
    fflush(stdout);
    wipe();
    fputs(term_style(TERM_ERR, TERM_DIM), stderr);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "%s\n", term_style(TERM_ERR, TERM_PLAIN));
    va_end(ap);
}

char *term_bytes(char *out, double bytes)
{
    struct bytes_text text = bytes_text(bytes);
    return memcpy(out, text.s, sizeof text.s);
}

char *term_seconds(char *out, double s)
{
    int whole = s < 1e9 ? (int)(s + 0.5) : 1000000000;
    if (whole >= 3600)
        snprintf(out, 16, "%dh %02dm", whole / 3600, whole / 60 % 60);
    else if (whole >= 100)
        snprintf(out, 16, "%dm %02ds", whole / 60, whole % 60);
    else
        snprintf(out, 16, s < 10 && s != floor(s) ? "%.2f s" : "%.0f s", s);
    return out;
}

void progress_begin(struct progress *p, const char *what, const char *unit, double first)
{
    *p = (struct progress){ what, unit, clock_now_s(), 0, first };
}

void progress_show(struct progress *p, double done, double total)
{
    double now = clock_now_s(), took = now - p->begin_s;
    if (!term.tty[TERM_ERR] || took < 1 || now - p->shown_s < 0.1)
        return;
    p->shown_s = now;
    double rate = (done - p->first) / took, part = total > 0 ? MIN(done / total, 1) : 0;
    char line[256], figures[96] = "", left[32] = "", seconds[16];
    int width = term_width(TERM_ERR) - 1, bars = MIN(MAX(width - 70, 0), 20);
    if (*p->unit)
        snprintf(figures, sizeof figures, "  %.0f/%.0f %s, %.*f/s", done, total, p->unit,
                 rate < 100, rate);
    if (rate > 0 && total > done)
        snprintf(left, sizeof left, "  %s left",
                 term_seconds(seconds, ceil((total - done) / rate)));
    static const char full[] = "####################", none[] = "....................";
    int on = (int)(part * bars);
    snprintf(line, sizeof line, "%s %s%.*s%.*s%s%.0f %%%s%s", p->what, bars ? "[" : "", on, full,
             bars - on, none, bars ? "] " : "", part * 100, figures, left);
    fprintf(stderr, "\r%s%.*s%s\033[K", term_style(TERM_ERR, TERM_DIM), width, line,
            term_style(TERM_ERR, TERM_PLAIN));
    term.line = true;
}

void progress_end(struct progress *p)
{
    wipe();
    p->what = "";
}
