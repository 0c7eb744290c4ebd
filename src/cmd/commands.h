/* commands.h - the commands of `dstar`, each in a file of its name. */
#ifndef DS_COMMANDS_H
#define DS_COMMANDS_H

#include "opts.h"

typedef int command_fn(const struct command *command, int n, char **arg);

command_fn cmd_run, cmd_chat, cmd_inspect, cmd_tokenize, cmd_detokenize, cmd_import;
command_fn cmd_eval_logits, cmd_eval_nll, cmd_eval_skills, cmd_eval_draft, cmd_eval_repeat;
command_fn cmd_quantize, cmd_synth, cmd_calibrate, cmd_trace, cmd_simulate, cmd_bench;
command_fn cmd_bench_tokenizer, cmd_bench_kernels;
command_fn cmd_eval_reference, cmd_eval_kl, cmd_eval_compare;
command_fn cmd_bench_layers, cmd_bench_reads, cmd_bench_load, cmd_fit;

#endif
