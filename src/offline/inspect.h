/* inspect.h - what a model file holds, told from its directory alone. */
#ifndef DS_INSPECT_H
#define DS_INSPECT_H

#include "buf.h"
#include "deepseek4_names.h"

/* parameters: numbers that were trained; scales and tables of expert ids are bytes only. */
struct inspect_sum {
    int n_tensor;
    int64_t bytes, parameters;
};

struct inspect {
    struct weights *files;
    const char *format;    /* "GGUF" or "checkpoint" */
    char architecture[64]; /* printable; "?" when not stated */
    bool has_hyper;
    struct dsv4_hyper hyper;
    char problem[256];        /* why there is no hyper: another architecture, or damaged; else "" */
    struct inspect_sum total, part[DSV4_N_PART];
    struct inspect_type {
        enum dtype type;
        struct inspect_sum sum;
    } type[32];
    int n_type;               /* most bytes first */
    int64_t file_bytes;
    bool has_mtp, has_dspark;
    struct {
        bool found;
        int n_token, n_added, n_merge;
        const char *rule;     /* name of the splitting rule, NULL: none */
        char problem[256];    /* why there is none; else "" */
    } text;
};

/* Fails when the files cannot be opened; an unknown architecture is told, not an error. */
int inspect_open(struct inspect *x, const char *path, struct err *e);
void inspect_close(struct inspect *x);

/* Append a table for people, or one JSON object in the same order. */
void inspect_text(const struct inspect *x, struct buf *out);
void inspect_json(const struct inspect *x, struct buf *out);

/* The same for the list of all tensors in the order of the files: name, type, shape (fastest
 * dimension first), bytes, file and place in it. JSON: an array. */
void inspect_tensors_text(const struct inspect *x, struct buf *out);
void inspect_tensors_json(const struct inspect *x, struct buf *out);

#endif
