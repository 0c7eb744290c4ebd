"""config.py - the shape of the model, in the words of the vendor's config.json.

Flash's own order of layers: two of window only, then CSA and HCA in turn; routed experts are 85 %
of the parameters; every row of a quantised weight is a multiple of 256 long."""
import json

PEBBLE = {
    "architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4",
    "vocab_size": 2304, "hidden_size": 256, "num_hidden_layers": 7,
    "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 128, "qk_rope_head_dim": 16,
    "q_lora_rank": 256, "o_groups": 2, "o_lora_rank": 128, "sliding_window": 128,
    "moe_intermediate_size": 256, "n_routed_experts": 26, "n_shared_experts": 1,
    "num_experts_per_tok": 4, "scoring_func": "sqrtsoftplus", "topk_method": "noaux_tc",
    "norm_topk_prob": True, "routed_scaling_factor": 1.5, "num_hash_layers": 2,
    "swiglu_limit": 10.0, "rms_norm_eps": 1e-6, "hc_mult": 4, "hc_sinkhorn_iters": 20,
    "hc_eps": 1e-6, "index_n_heads": 8, "index_head_dim": 32, "index_topk": 64,
    "compress_ratios": [0, 0, 4, 128, 4, 128, 4, 0], "rope_theta": 10000.0,
    "compress_rope_theta": 160000.0,
    "rope_scaling": {"type": "yarn", "factor": 16.0, "original_max_position_embeddings": 65536,
                     "beta_fast": 32.0, "beta_slow": 1.0},
    "max_position_embeddings": 1048576, "num_nextn_predict_layers": 1, "bos_token_id": 0,
    "eos_token_id": 1, "pad_token_id": 2, "hidden_act": "silu", "attention_bias": False,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "expert_dtype": "fp4",
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3",
                            "activation_scheme": "dynamic", "scale_fmt": "ue8m0",
                            "weight_block_size": [128, 128]},
}

# For tests: seconds on a CPU, and still every kind of layer.
TINY = dict(PEBBLE, hidden_size=64, num_hidden_layers=4, num_attention_heads=2, head_dim=32,
            qk_rope_head_dim=8, q_lora_rank=32, o_groups=2, o_lora_rank=32,
            moe_intermediate_size=32, n_routed_experts=6, num_experts_per_tok=2,
            num_hash_layers=1, index_n_heads=2, index_topk=8,
            compress_ratios=[0, 4, 128, 4, 0])


def load(path):
    with open(path) as f:
        return json.load(f)


def save(config, path):
    with open(path, "w") as f:
        json.dump(config, f, indent=1)
        f.write("\n")
