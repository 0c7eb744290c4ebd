/* tolerance.h - how far a table's result may lie from the scalar definition: the one place.
 *
 * NMSE: squared error over squared size of what the definition says, over a whole output.
 * Loosening a line needs a reason beside it. */
#ifndef TOLERANCE_H
#define TOLERANCE_H

#define TOL_BITS 0         /* copies and sums in a fixed order: every bit */
#define TOL_F32 1e-10      /* float32 arithmetic against double */
#define TOL_F16 1e-6       /* a half-precision step on the way */
#define TOL_Q8_ACT 5e-4    /* products whose activations are rounded to eight bits */
#define TOL_Q8_CHAIN 1e-3  /* two such products in a row, gate and up into down */
/* Rows that are packed after being computed: a value within rounding of the boundary between two
 * codes may take the neighbour, which for FP4 is a third of its size. */
#define TOL_PACKED 1e-3
/* A pick is a near tie when its score is this close to the last one taken, relative to the sum of
 * the score's parts. */
#define TOL_TIE 1e-5

#endif
