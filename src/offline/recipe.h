/* recipe.h - which tensor becomes which type, told by a text.
 *
 * One rule a line, the first that matches a tensor's GGUF name decides; '#' begins a remark:
 *
 *   PATTERN TYPE [layers=A-B] [weights=imatrix|columns|none] [power=P] [search=fast|exact]
 *           [ldlq=auto|on|off] [gain=on|off] [mean=on|off]
 *
 * In a pattern '*' stands for any characters. A type is IQ2_XXS, Q2_K, Q4_K, Q8_0, MXFP4, F16,
 * BF16, F32, or `keep`, one that holds the source's numbers exactly, or `drop`, for draft
 * blocks. */
#ifndef DS_RECIPE_H
#define DS_RECIPE_H

#include "buf.h"
#include "error.h"
#include "quant_encode.h"

enum recipe_action { RECIPE_TYPE, RECIPE_KEEP, RECIPE_DROP };

/* What a column's importance is taken from. */
enum recipe_weights {
    RECIPE_BEST,    /* an importance matrix when one is given, else as columns */
    RECIPE_IMATRIX,
    RECIPE_COLUMNS, /* the mean square of the column's numbers */
    RECIPE_NONE,    /* all equal */
};

/* Error feedback, where the inputs' correlation is known: */
enum recipe_ldlq {
    RECIPE_LDLQ_AUTO, /* where it loses less over tokens that were held out */
    RECIPE_LDLQ_ON,
    RECIPE_LDLQ_OFF,
};

struct recipe_rule {
    const char *pattern;
    enum recipe_action action;
    enum dtype type; /* of RECIPE_TYPE */
    int first, last; /* layers; 0 and INT_MAX: also tensors outside of layers */
    enum recipe_weights weights;
    float power;     /* as for quant_emphasise() */
    enum quant_effort effort;
    enum recipe_ldlq ldlq;
    bool gain;       /* steps are enlarged until rows are as large as before: quantize_gain.c */
    bool mean;       /* errors cancel over the average input: quant_mean.h */
    int line;        /* from 1 */
};

struct recipe {
    char *name, *text; /* the file or the built-in name; the rules as written */
    char *words;
    struct recipe_rule *rule;
    int n_rule;
};

/* which: a built-in name, else a file. */
int recipe_open(struct recipe *r, const char *which, struct err *e);
int recipe_parse(struct recipe *r, const char *name, const char *text, struct err *e);
void recipe_close(struct recipe *r);

/* The first rule for a tensor; layer -1: in none. NULL: no rule. */
const struct recipe_rule *recipe_find(const struct recipe *r, const char *tensor, int layer);

/* The built-in recipes: name and one line about each; NULL past the last. */
const char *recipe_name(int i);
const char *recipe_about(int i);
const char *recipe_text(int i);

#endif
