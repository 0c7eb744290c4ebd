/* bench_lines.c - what was measured where, so that two results can be compared later. */
#include "bench_lines.h"

#include <stdio.h>
#include <stdlib.h>

#include "cpu.h"
#include "host.h"
#include "term.h"

static json_t *model_json(const struct dstar_info *info)
{
    char identity[65] = "";
    for (int i = 0; i < 32; i++)
        snprintf(identity + 2 * i, 3, "%02x", info->identity[i]);
    return json_pack("{s:s, s:s, s:s, s:s}", "name", info->name, "format", info->format, "path",
                     info->path, "identity", identity);
}

json_t *bench_head_json(const struct dstar_info *info, int n_thread)
{
    char cpu[128];
    cpu_name(cpu, sizeof cpu);
    json_t *machine = json_pack("{s:s, s:i, s:I, s:f}", "cpu", cpu, "processors", cpu_count(),
                                "memory_bytes", (json_int_t)cpu_memory_total(), "load",
                                host_load());
    json_t *head = json_pack("{s:s, s:o, s:i}", "version", dstar_version(), "machine", machine,
                             "threads", n_thread ? n_thread : cpu_count());
    if (!head || !info)
        return head;
    json_object_set_new(head, "model", model_json(info));
    json_object_set_new(head, "device", json_string(*info->device ? info->device : "none"));
    return head;
}

json_t *bench_series_json(const struct bench_series *s)
{
    struct bench_spread spread = bench_spread_of(s);
    json_t *all = json_array();
    for (int i = 0; i < s->n; i++)
        json_array_append_new(all, json_real(s->value[i]));
    return json_pack("{s:f, s:f, s:f, s:o}", "median", spread.median, "least", spread.least, "most",
                     spread.most, "all", all);
}

void bench_json_print(json_t *root)
{
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) : NULL;
    if (text)
        puts(text);
    else
        term_error("bench: the result cannot be written as JSON");
    free(text);
    json_decref(root);
}

void bench_lines_print(json_t *head, const struct bench_line *line, int n)
{
    json_t *lines = json_array();
    for (int i = 0; i < n; i++) {
        json_t *one = bench_series_json(&line[i].series);
        json_object_set_new(one, "name", json_string(line[i].name));
        json_object_set_new(one, "unit", json_string(line[i].unit));
        json_object_set_new(one, "better", json_string(line[i].more ? "more" : "less"));
        json_array_append_new(lines, one);
    }
    json_object_set_new(head, "lines", lines);
    bench_json_print(head);
}

void bench_head_print(const struct dstar_info *info, int n_thread)
{
    char cpu[128], memory[16];
    cpu_name(cpu, sizeof cpu);
    if (info)
        printf("model    %s (%s)\ndevice   %s\n", info->name, info->format,
               *info->device ? info->device : "none");
    else
        printf("threads  %d\n", n_thread ? n_thread : cpu_count());
    printf("machine  %s, %d processors, %s, load %.1f\nversion  %s\n\n",
           *cpu ? cpu : "unknown processor", cpu_count(),
           term_bytes(memory, (double)cpu_memory_total()), host_load(), dstar_version());
}
