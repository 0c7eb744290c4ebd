/* kl_report.h - what `dstar eval kl` prints. */
#ifndef DS_KL_REPORT_H
#define DS_KL_REPORT_H

#include "dwarfstar.h"
#include "measure.h"

struct kl_report {
    const struct dstar_info *model;
    const char *label; /* NULL: the file's name */
    bool exact;
    const struct divergence *divergence;
    const struct reference *reference;
};

/* One JSON object: model, label, reference, summary, and results by set, layer and text. The exit
 * status. */
int kl_report_json(const struct kl_report *k);
void kl_report_tables(const struct kl_report *k);

#endif
