/* fit_plot.c - a line through the expected rates, a band around it for other texts, and a mark
 * where this machine is. Plain SVG that follows the reader's light or dark preference. */
#include "fit_plot.h"

#include <math.h>

enum { WIDTH = 720, HEIGHT = 400, LEFT = 64, RIGHT = 24, TOP = 48, BOTTOM = 56 };

struct axes {
    double most_x, most_y, step_x, step_y;
};

/* 1, 2 or 5 times a power of ten, so that about five of it make `most`. */
static double step_of(double most)
{
    double raw = most / 5, unit = pow(10, floor(log10(raw)));
    return unit * (raw < 1.5 * unit ? 1 : raw < 3.5 * unit ? 2 : raw < 7.5 * unit ? 5 : 10);
}

static double at_x(const struct axes *a, double memory)
{
    return LEFT + (WIDTH - LEFT - RIGHT) * memory / a->most_x;
}

static double at_y(const struct axes *a, double tok_s)
{
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * tok_s / a->most_y;
}

static void add_axes(struct buf *out, const struct axes *a)
{
    for (double x = 0; x <= a->most_x * 1.0001; x += a->step_x)
        buf_printf(out, "<path class=\"grid\" d=\"M%.1f %d V%d\"/><text x=\"%.1f\" y=\"%d\" "
                   "text-anchor=\"middle\">%.4g</text>\n", at_x(a, x), TOP, HEIGHT - BOTTOM,
                   at_x(a, x), HEIGHT - BOTTOM + 18, x / 1e9);
    for (double y = 0; y <= a->most_y * 1.0001; y += a->step_y)
        buf_printf(out, "<path class=\"grid\" d=\"M%d %.1f H%d\"/><text x=\"%d\" y=\"%.1f\" "
                   "text-anchor=\"end\">%.4g</text>\n", LEFT, at_y(a, y), WIDTH - RIGHT, LEFT - 8,
                   at_y(a, y) + 4, y);
    buf_printf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">memory, GB</text>\n"
               "<text x=\"%d\" y=\"%d\">tokens a second at most</text>\n",
               (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, LEFT, TOP - 10);
}

static void add_point(struct buf *out, const struct axes *a, double memory, double tok_s)
{
    buf_printf(out, "%.1f,%.1f ", at_x(a, memory), at_y(a, tok_s));
}

/* A machine far larger than the model would leave no room for the curve. */
static bool is_shown(const struct fit *f, const struct fit_point *p)
{
    return !p->is_machine || p->memory < 1.5 * f->all;
}

static void add_curves(struct buf *out, const struct axes *a, const struct fit *f)
{
    buf_puts(out, "<polygon class=\"band\" points=\"");
    for (int i = 0; i < f->n; i++)
        if (is_shown(f, &f->point[i]))
            add_point(out, a, f->point[i].memory, f->point[i].tok_s_low);
    for (int i = f->n - 1; i >= 0; i--)
        if (is_shown(f, &f->point[i]))
            add_point(out, a, f->point[i].memory, f->point[i].tok_s_high);
    buf_puts(out, "\"/>\n<polyline class=\"line\" points=\"");
    for (int i = 0; i < f->n; i++)
        if (is_shown(f, &f->point[i]))
            add_point(out, a, f->point[i].memory, f->point[i].tok_s);
    buf_puts(out, "\"/>\n");
    for (int i = 0; i < f->n; i++) {
        const struct fit_point *p = &f->point[i];
        if (!is_shown(f, p))
            continue;
        buf_printf(out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%d\"><title>%.4g GB: "
                   "%.3g tokens a second, %.0f %% hits</title></circle>\n",
                   p->is_machine ? "here" : "dot", at_x(a, p->memory), at_y(a, p->tok_s),
                   p->is_machine ? 6 : 3, p->memory / 1e9, p->tok_s, 100 * p->hits);
        if (p->is_machine)
            buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">this machine</text>\n",
                       at_x(a, p->memory) - 8, at_y(a, p->tok_s) - 8);
    }
}

static void add_measured(struct buf *out, const struct axes *a, const struct fit_measured *m)
{
    for (int i = 0; i < m->n; i++)
        buf_printf(out, "<circle class=\"real\" cx=\"%.1f\" cy=\"%.1f\" r=\"5\"><title>%.4g GB: "
                   "%.3g tokens a second, measured</title></circle>\n",
                   at_x(a, m->point[i].memory), at_y(a, m->point[i].tok_s),
                   m->point[i].memory / 1e9, m->point[i].tok_s);
    if (m->n > 0)
        buf_printf(out, "<circle class=\"real\" cx=\"%d\" cy=\"%d\" r=\"5\"/><text x=\"%d\" "
                   "y=\"%d\">measured</text>\n", LEFT + 16, TOP + 12, LEFT + 28, TOP + 16);
}

/* Names of files may hold what means something here. */
static void add_text(struct buf *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '<' || *text == '&')
            buf_printf(out, "&#%d;", *text);
        else
            buf_putc(out, *text);
    }
}

void fit_plot(struct buf *out, const struct fit *f, const struct fit_measured *m,
              const char *title)
{
    struct axes a = { .most_x = 1e-3, .most_y = 1e-9 };
    for (int i = 0; i < f->n; i++) {
        if (is_shown(f, &f->point[i]))
            a.most_x = MAX(a.most_x, f->point[i].memory);
        a.most_y = MAX(a.most_y, f->point[i].tok_s_high);
    }
    for (int i = 0; i < m->n; i++) {
        a.most_x = MAX(a.most_x, m->point[i].memory);
        a.most_y = MAX(a.most_y, m->point[i].tok_s);
    }
    a.step_x = step_of(a.most_x / 1e9) * 1e9;
    a.step_y = step_of(a.most_y);
    a.most_x = ceil(a.most_x / a.step_x) * a.step_x;
    a.most_y = ceil(a.most_y / a.step_y) * a.step_y;
    buf_printf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\">\n"
               "<style>text { font: 12px sans-serif; fill: #444 }\n"
               ".grid { stroke: #8884; fill: none } .band { fill: #3b82f633 }\n"
               ".line { stroke: #3b82f6; fill: none; stroke-width: 2 } .dot { fill: #3b82f6 }\n"
               ".here { fill: #f97316 } .real { fill: none; stroke: #f97316; stroke-width: 2 }\n"
               "@media (prefers-color-scheme: dark) { text { fill: #ccc } }</style>\n"
               "<text x=\"%d\" y=\"20\">", WIDTH, HEIGHT, LEFT);
    add_text(out, title);
    buf_printf(out, ": drive %.2f GB/s, memory %.1f GB/s</text>\n", f->drive_bytes_per_s / 1e9,
               f->memory_bytes_per_s / 1e9);
    add_axes(out, &a);
    add_curves(out, &a, f);
    add_measured(out, &a, m);
    buf_puts(out, "</svg>\n");
}
