/* cuda_table.cu - the ops of a GPU: all of them; there is no other code that could reach its
 * memory. */
#include "cuda_impl.h"

extern "C" {
#include "cuda_ops_impl.h"
}

void cuda_ops_fill(struct ops *ops)
{
    *ops = {};
    ops->begin = cuda_begin;
    ops->wait = cuda_wait;
    ops->copy = cuda_copy;
    ops->random = cuda_random;
    ops->look = cuda_look;
    ops->sum = cuda_sum;
    ops->lanes = cuda_lanes;
    ops->send = cuda_send_lane;
    ops->lanes_close = cuda_lanes_close;
    ops->mark = cuda_mark;
    ops->between = cuda_between;
    ops->stall = cuda_stall;
    ops->replay = cuda_replay;
    ops->results = cuda_results;
    ops->draw = cuda_draw;
    ops->take = cuda_memory_new;
    ops->move = cuda_move;
    ops->give_back = cuda_memory_free;
    ops->take_host = cuda_host_new;
    ops->give_back_host = cuda_host_free;
    ops->take_ahead = cuda_take_ahead;
    ops->take_slots = cuda_take_slots;
    ops->left = cuda_memory_left;
    ops->embed = cuda_embed;
    ops->gather = cuda_gather;
    ops->norm = cuda_norm;
    ops->norm_heads = cuda_norm_heads;
    ops->matmul = cuda_matmul;
    ops->matmul_exact = cuda_matmul_exact;
    ops->products = cuda_products;
    ops->matmul_grouped = cuda_matmul_grouped;
    ops->swiglu = cuda_swiglu;
    ops->add = cuda_add;
    ops->rope = cuda_rope;
    ops->hc_mix = cuda_hc_mix;
    ops->hc_mix_norm = cuda_hc_mix_norm;
    ops->hc_spread = cuda_hc_spread;
    ops->hc_turn = cuda_hc_turn;
    ops->hc_head = cuda_hc_head;
    ops->kv_store = cuda_kv_store;
    ops->compress = cuda_compress;
    ops->prepare = cuda_prepare;
    ops->index_query = cuda_index_query;
    ops->pick = cuda_pick;
    ops->attends_back = true;
    ops->attend = cuda_attend;
    ops->route = cuda_route;
    ops->experts = cuda_experts;
    ops->experts_ahead = cuda_experts_ahead;
    ops->sum_experts = cuda_sum_experts;
    ops->sum_experts_add = cuda_sum_experts_add;
}
