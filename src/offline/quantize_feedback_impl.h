/* quantize_feedback_impl.h - error feedback as a part of one quantisation. */
#ifndef DS_QUANTIZE_FEEDBACK_IMPL_H
#define DS_QUANTIZE_FEEDBACK_IMPL_H

#include "hessian.h"
#include "quant_feedback.h"

struct quantize;
struct quantize_tensor;
struct quantize_unit;
struct quantize_worker;

/* What is known of the inputs whose matrices are being coded. */
struct quantize_inputs {
    int entry, n;     /* -1: none */
    bool judged;      /* held: other tokens than those of the factor */
    bool made, useful; /* there is a factor; it is told to lose less */
    float *root;      /* [n] square roots of the mean squares of all experts' inputs */
    float *learn, *held, *mem; /* correlations in tiles; the factor's memory */
    struct quant_factor factor;
};

/* Of the inputs of the unit that is being coded: quant_mean.h. */
struct quantize_means {
    bool known; /* and wanted */
    float *mean, *shift, *weight;
};

/* A finding about inputs, for the report. */
struct quantize_told {
    float shrink; /* 0: not known */
    float left;   /* share of the loss that feedback should leave */
};

/* t->inputs and t->feedback; its rule asks for nothing that is not there. */
int quantize_find_inputs(const struct quantize *q, struct quantize_tensor *t, struct err *e);

/* After the division into units: each unit's inputs, its own expert's where these are known. */
int quantize_divide_inputs(struct quantize *q, struct err *e);

int quantize_open_feedback(struct quantize *q, struct quantize_worker *w, struct err *e);
void quantize_close_feedback(struct quantize_worker *w);

/* Make q->inputs those of an entry, -1: none. factor: for coding, else to compare alone. */
int quantize_load_inputs(struct quantize *q, int entry, bool factor, struct err *e);
void quantize_drop_inputs(struct quantize *q);

/* Is the unit to be coded with feedback? Decided on a sample of its rows, by what is lost over
 * tokens that were held out, unless its rule has decided. */
int quantize_wants_feedback(struct quantize_worker *w, const struct quantize_unit *u,
                            const float *importance, bool *wants, struct err *e);
int quantize_encode_feedback(struct quantize_worker *w, const struct quantize_unit *u,
                             const float *importance, struct err *e);

/* Does its rule want the means of its inputs, and are they there? */
bool quantize_knows_means(const struct quantize *q, const struct quantize_tensor *t);

/* Means of the inputs of the unit's columns into w->means.mean; the importance matrix has them. */
int quantize_mean(struct quantize_worker *w, const struct quantize_unit *u, struct err *e);

/* Before rows of the unit are coded: w->means, if they are wanted and known. */
int quantize_prepare(struct quantize_worker *w, const struct quantize_unit *u,
                     const float *importance, struct err *e);

/* By how much the steps of a packed row of x must grow for it to lose no size; 1: not wanted. */
double quantize_gain(struct quantize_worker *w, const struct quantize_tensor *t, const float *x,
                     const float *importance, const uint8_t *row);

/* Let them grow, and choose codes whose errors cancel over the average input, as the rule says. */
void quantize_correct(struct quantize_worker *w, const struct quantize_tensor *t, const float *x,
                      const float *importance, uint8_t *row);

/* Of a sample of rows, made[] packed: sum of e H e^T and of x H x^T. */
int quantize_output_error(struct quantize_worker *w, const struct quantize_unit *u,
                          const float *importance, double error[2], struct err *e);

/* Counts of units with feedback into the file; remarks on them. */
void quantize_put_fed(struct quantize *q);
int quantize_write_fed(struct quantize *q, struct err *e);

#endif
