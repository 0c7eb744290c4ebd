/* ids_json.h - lists of token ids as text. */
#ifndef DS_IDS_JSON_H
#define DS_IDS_JSON_H

#include <jansson.h>

#include "dwarfstar.h"
#include "error.h"

/* A JSON array of ids, or numbers parted by spaces, new lines or commas. `name` for messages. */
int ids_parse(struct dstar_tokens *out, const char *text, size_t len, const char *name,
              struct err *e);

/* The same from a file; "-": standard input. */
int ids_read(struct dstar_tokens *out, const char *path, struct err *e);

/* DSTAR_ARGUMENT, naming the first id that the vocabulary does not have. */
int ids_check(const dstar_engine *engine, const struct dstar_tokens *tokens, const char *name,
              struct dstar_error *error);

/* Print the id and its bytes in quotes on a line; those that are no text as \xNN. */
void ids_show(const dstar_engine *engine, int32_t id);

/* One line of --jsonl. */
struct ids_line {
    const dstar_engine *engine;
    const char *text;
    size_t len;
    int number; /* from 1, for messages */
    int special;
};

/* Print the JSON array of the ids of a JSON string or of a dialogue (an object with messages, tools
 * and thinking), or the JSON string of an array of ids. */
int ids_line_to_ids(const struct ids_line *l, struct dstar_error *error);
int ids_line_to_text(const struct ids_line *l, struct dstar_error *error);

#endif
