/* dot_plot.c - labels to the left, a dot and its interval for each, the value to the right.
 *
 * Positions, not areas or colours, carry the numbers; grid lines stand at 1, 2 and 5 of each power
 * of ten, or at the powers alone where the axis is long. */
#include "dot_plot.h"

#include <math.h>
#include <stdio.h>

enum { WIDTH = 900, LEFT = 340, RIGHT = 90, TOP = 52, ROW = 26, BOTTOM = 48 };

struct axis {
    double first, last; /* decimal logarithms */
};

static double x_of(const struct axis *a, double value)
{
    double at = value > 0 ? log10(value) : a->first;
    at = fmin(fmax(at, a->first), a->last);
    return LEFT + (at - a->first) / (a->last - a->first) * (WIDTH - LEFT - RIGHT);
}

/* Where the values lie, with some room. */
static struct axis find_axis(const struct dot *dot, int n)
{
    double low = INFINITY, high = 0;
    for (int i = 0; i < n; i++) {
        if (dot[i].value > 0)
            low = fmin(low, dot[i].low > 0 ? dot[i].low : dot[i].value);
        high = fmax(high, fmax(dot[i].value, dot[i].high));
    }
    if (!(high > 0) || !isfinite(low))
        return (struct axis){ 0, 1 };
    double margin = fmax(0.05, 0.04 * (log10(high) - log10(low)));
    return (struct axis){ log10(low) - margin, log10(high) + margin };
}

static void put_text(struct buf *b, const char *s)
{
    for (; *s; s++) {
        if (*s == '&')
            buf_puts(b, "&amp;");
        else if (*s == '<')
            buf_puts(b, "&lt;");
        else
            buf_putc(b, *s);
    }
}

static void put_label(struct buf *b, double x, double y, const char *style, const char *text)
{
    buf_printf(b, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, style);
    put_text(b, text);
    buf_puts(b, "</text>\n");
}

static void put_grid(struct buf *b, const struct axis *a, int bottom)
{
    bool fine = a->last - a->first < 3;
    for (int power = (int)floor(a->first); power <= (int)ceil(a->last); power++) {
        for (int k = 0; k < (fine ? 3 : 1); k++) {
            static const double step[] = { 1, 2, 5 };
            double value = step[k] * pow(10, power), at = log10(value);
            char text[32];
            if (at < a->first || at > a->last)
                continue;
            snprintf(text, sizeof text, "%g", value);
            buf_printf(b, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#ddd\"/>\n",
                       x_of(a, value), TOP - 8, x_of(a, value), bottom);
            put_label(b, x_of(a, value), bottom + 16, "text-anchor=\"middle\" fill=\"#555\"", text);
        }
    }
}

static void put_dot(struct buf *b, const struct axis *a, const struct dot *d, double y)
{
    char text[32];
    put_label(b, LEFT - 14, y + 4, "text-anchor=\"end\"", d->label);
    buf_printf(b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#2b6cb0\" "
               "stroke-width=\"2.5\"/>\n", x_of(a, d->low), y, x_of(a, d->high), y);
    buf_printf(b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\" fill=\"#1a4e8a\"/>\n",
               x_of(a, d->value), y);
    snprintf(text, sizeof text, "%.3g", d->value);
    put_label(b, WIDTH - RIGHT + 14, y + 4, "fill=\"#333\"", text);
}

void dot_plot(struct buf *svg, const char *title, const char *axis, const struct dot *dot, int n)
{
    struct axis a = find_axis(dot, n);
    int bottom = TOP + n * ROW;
    buf_printf(svg, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
               "height=\"%d\" font-family=\"sans-serif\" font-size=\"13\">\n", WIDTH,
               bottom + BOTTOM, WIDTH, bottom + BOTTOM);
    buf_puts(svg, "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n");
    put_label(svg, 16, 24, "font-size=\"15\" font-weight=\"bold\"", title);
    put_grid(svg, &a, bottom);
    for (int i = 0; i < n; i++)
        put_dot(svg, &a, &dot[i], TOP + (i + 0.5) * ROW);
    put_label(svg, (LEFT + WIDTH - RIGHT) / 2.0, bottom + 36,
              "text-anchor=\"middle\" fill=\"#333\"", axis);
    buf_puts(svg, "</svg>\n");
}
