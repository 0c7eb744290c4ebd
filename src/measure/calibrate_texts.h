/* calibrate_texts.h - the texts of a corpus as tokens, one after another. */
#ifndef DS_CALIBRATE_TEXTS_H
#define DS_CALIBRATE_TEXTS_H

#include "file.h"
#include "dwarfstar.h"

/* A line of a file, or a piece of a plain text. */
struct calibrate_text {
    int file, line;
    const char *data; /* the line; NULL: a piece */
    size_t len;       /* bytes */
    int first, n;     /* a piece: tokens of the file */
};

struct calibrate_texts {
    dstar_engine *engine;
    const char *const *path;
    int n_file;
    struct buf *file;            /* [n_file] */
    struct dstar_tokens *plain;  /* [n_file] of plain texts */
    struct calibrate_text *text;
    int n, cap;
    double bytes;                /* of all texts */
    uint64_t hash;               /* of all files */
    int32_t bos;                 /* every text begins with it; -1: there is none */
};

/* piece: tokens. A failed open holds what texts_close() releases. */
int texts_open(struct calibrate_texts *t, dstar_engine *engine, const char *const *path,
               int n_file, int piece, struct err *e);
void texts_close(struct calibrate_texts *t);

/* Tokens of text i, replacing those in out. answer: leave a last message of the assistant out. */
int texts_tokens(const struct calibrate_texts *t, int i, bool answer, struct dstar_tokens *out,
                 struct err *e);

/* An error of the public interface as one of ours. */
int texts_fault(struct err *e, const struct dstar_error *error);

#endif
