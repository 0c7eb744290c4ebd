/* skill_set.h - dialogues with known answers, read from files of one JSON object a line. */
#ifndef DS_SKILL_SET_H
#define DS_SKILL_SET_H

#include <jansson.h>

#include "dwarfstar.h"
#include "opts.h"

/* The first `limit` (0: all) dialogues of the file as a JSON array, to be released with
 * json_decref(). Each is checked to have what is used of it:
 *     id string, thinking boolean, messages array of objects, tools array if there are any,
 *     expect: array of { message: number of an assistant message, answer, completion: strings }
 * and has its line number added as "line". DSTAR_FORMAT: file, line, field, found, expected. */
int skill_set_read(json_t **set, const char *path, int limit, struct dstar_error *error);

/* Several of them: `path` is filled by the options. */
struct skill_sets {
    struct opt_texts path;
    json_t *set[OPT_MOST]; /* as skill_set_read() gives them */
    int n_dialogue;        /* of all */
};

/* Read them, and those that `more` names. To be released in any case. */
int skill_sets_read(struct skill_sets *s, const struct words *more, int limit,
                    struct dstar_error *error);
void skill_sets_release(struct skill_sets *s);

/* "recall-64" of "sets/recall-64.jsonl", into `out` of n bytes, which is returned. */
char *skill_set_name(char *out, size_t n, const char *path);

#endif
