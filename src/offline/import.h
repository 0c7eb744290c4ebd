/* import.h - the vendor's checkpoint folder to one GGUF file.
 *
 * Routed experts keep their values bit for bit (FP4 becomes MXFP4), everything else becomes a type
 * that holds the vendor's values exactly, unless Q8_0 is asked for. Names, shapes and keys follow
 * llama.cpp's converter (docs/formats.md); the next-token draft block keeps "mtp.0." names. */
#ifndef DS_IMPORT_H
#define DS_IMPORT_H

#include "error.h"
#include "log.h"

enum import_dense {
    IMPORT_DENSE_EXACT, /* BF16 from FP8, else as it is */
    IMPORT_DENSE_Q8_0,  /* attention, shared experts and head; what mixes or selects stays exact */
};

struct import_options {
    const char *dir, *out; /* checkpoint folder; the .gguf file, complete or untouched */
    enum import_dense dense;
    bool no_mtp;           /* leave the draft block out */
    const char *profile;   /* effort texts: "preview", "0731"; NULL: as config.json says, if so */
    const struct log *log; /* remarks; may be NULL */
    /* After every few MB, of the bytes to write; true stops with ERR_CANCELLED. May be NULL. */
    bool (*progress)(void *user, int64_t done_bytes, int64_t total_bytes);
    void *user;
};

/* Needs some 100 MB of memory whatever the size. Every tensor of the checkpoint is accounted for:
 * one that is missing, has another shape or is not known is an error before anything is written,
 * except DSpark draft blocks, which are left out with a remark. */
int import_run(const struct import_options *o, struct err *e);

#endif
