#!/usr/bin/env python3
"""Configurations as checkpoints on the Hub have them, with the parameters that transformers counts, for tests/configs.rs.

    python tests/python/configs.py > tests/golden/configs.json

Needs torch and transformers; without them it says so on stderr and writes nothing. Keys are those of the `config.json` of each
checkpoint, by the version of transformers that wrote it. Nothing is loaded: models are made without memory for their weights.
"""

import json
import sys
import warnings

try:
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: {missing}", file=sys.stderr)
    sys.exit(0)

LONG = [1.0] * 24 + [2.5] * 24
CONFIGS = {
    "gpt2": dict(
        activation_function="gelu_new", architectures=["GPT2LMHeadModel"], attn_pdrop=0.1, bos_token_id=50256, embd_pdrop=0.1,
        eos_token_id=50256, initializer_range=0.02, layer_norm_epsilon=1e-5, model_type="gpt2", n_ctx=1024, n_embd=768, n_head=12,
        n_layer=12, n_positions=1024, resid_pdrop=0.1, summary_activation=None, summary_first_dropout=0.1,
        summary_proj_to_labels=True, summary_type="cls_index", summary_use_proj=True,
        task_specific_params={"text-generation": {"do_sample": True, "max_length": 50}}, vocab_size=50257),
    "EleutherAI/gpt-neo-125m": dict(
        activation_function="gelu_new", architectures=["GPTNeoForCausalLM"], attention_dropout=0,
        attention_layers=["global", "local"] * 6, attention_types=[[["global", "local"], 6]], bos_token_id=50256,
        embed_dropout=0, eos_token_id=50256, gradient_checkpointing=False, hidden_size=768, initializer_range=0.02,
        intermediate_size=None, layer_norm_epsilon=1e-5, max_position_embeddings=2048, model_type="gpt_neo", num_heads=12,
        num_layers=12, resid_dropout=0, summary_activation=None, use_cache=True, vocab_size=50257, window_size=256),
    "EleutherAI/pythia-70m": dict(
        architectures=["GPTNeoXForCausalLM"], bos_token_id=0, eos_token_id=0, hidden_act="gelu", hidden_size=512,
        initializer_range=0.02, intermediate_size=2048, layer_norm_eps=1e-5, max_position_embeddings=2048, model_type="gpt_neox",
        num_attention_heads=8, num_hidden_layers=6, rotary_emb_base=10000, rotary_pct=0.25, tie_word_embeddings=False,
        torch_dtype="float16", transformers_version="4.24.0", use_cache=True, use_parallel_residual=True, vocab_size=50304),
    "facebook/opt-125m": dict(
        _remove_final_layer_norm=False, activation_dropout=0.0, activation_function="relu", architectures=["OPTForCausalLM"],
        attention_dropout=0.0, bos_token_id=2, do_layer_norm_before=True, dropout=0.1, eos_token_id=2, ffn_dim=3072,
        hidden_size=768, init_std=0.02, layerdrop=0.0, max_position_embeddings=2048, model_type="opt", num_attention_heads=12,
        num_hidden_layers=12, pad_token_id=1, prefix="</s>", torch_dtype="float16", use_cache=True, vocab_size=50272,
        word_embed_proj_dim=768),
    "facebook/opt-350m": dict(
        _remove_final_layer_norm=False, activation_function="relu", architectures=["OPTForCausalLM"], bos_token_id=2,
        do_layer_norm_before=False, eos_token_id=2, ffn_dim=4096, hidden_size=1024, init_std=0.02, max_position_embeddings=2048,
        model_type="opt", num_attention_heads=16, num_hidden_layers=24, pad_token_id=1, vocab_size=50272, word_embed_proj_dim=512),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": dict(
        architectures=["LlamaForCausalLM"], attention_bias=False, bos_token_id=1, eos_token_id=2, hidden_act="silu",
        hidden_size=2048, initializer_range=0.02, intermediate_size=5632, max_position_embeddings=2048, model_type="llama",
        num_attention_heads=32, num_hidden_layers=22, num_key_value_heads=4, pretraining_tp=1, rms_norm_eps=1e-5,
        rope_scaling=None, rope_theta=10000.0, tie_word_embeddings=False, torch_dtype="bfloat16", vocab_size=32000),
    "meta-llama/Llama-3.2-1B": dict(
        architectures=["LlamaForCausalLM"], attention_bias=False, attention_dropout=0.0, bos_token_id=128000,
        eos_token_id=[128001, 128008, 128009], head_dim=64, hidden_act="silu", hidden_size=2048, initializer_range=0.02,
        intermediate_size=8192, max_position_embeddings=131072, mlp_bias=False, model_type="llama", num_attention_heads=32,
        num_hidden_layers=16, num_key_value_heads=8, pretraining_tp=1, rms_norm_eps=1e-5,
        rope_scaling=dict(factor=32.0, high_freq_factor=4.0, low_freq_factor=1.0, original_max_position_embeddings=8192,
                          rope_type="llama3"),
        rope_theta=500000.0, tie_word_embeddings=True, torch_dtype="bfloat16", vocab_size=128256),
    "HuggingFaceTB/SmolLM2-135M": dict(
        architectures=["LlamaForCausalLM"], attention_bias=False, bos_token_id=0, eos_token_id=0, hidden_act="silu",
        hidden_size=576, initializer_range=0.041666666666666664, intermediate_size=1536, is_llama_config=True,
        max_position_embeddings=8192, model_type="llama", num_attention_heads=9, num_hidden_layers=30, num_key_value_heads=3,
        pretraining_tp=1, rms_norm_eps=1e-5, rope_interleaved=False, rope_scaling=None, rope_theta=100000,
        tie_word_embeddings=True, torch_dtype="bfloat16", vocab_size=49152),
    "mistralai/Mistral-7B-v0.1": dict(
        architectures=["MistralForCausalLM"], bos_token_id=1, eos_token_id=2, hidden_act="silu", hidden_size=4096,
        initializer_range=0.02, intermediate_size=14336, max_position_embeddings=32768, model_type="mistral",
        num_attention_heads=32, num_hidden_layers=32, num_key_value_heads=8, rms_norm_eps=1e-5, rope_theta=10000.0,
        sliding_window=4096, tie_word_embeddings=False, torch_dtype="bfloat16", vocab_size=32000),
    "mistralai/Mistral-Nemo-Base-2407": dict(
        architectures=["MistralForCausalLM"], bos_token_id=1, eos_token_id=2, head_dim=128, hidden_act="silu", hidden_size=5120,
        intermediate_size=14336, max_position_embeddings=128000, model_type="mistral", num_attention_heads=32,
        num_hidden_layers=40, num_key_value_heads=8, rms_norm_eps=1e-5, rope_theta=1000000.0, sliding_window=None,
        tie_word_embeddings=False, vocab_size=131072),
    "Qwen/Qwen2.5-0.5B": dict(
        architectures=["Qwen2ForCausalLM"], attention_dropout=0.0, bos_token_id=151643, eos_token_id=151643, hidden_act="silu",
        hidden_size=896, initializer_range=0.02, intermediate_size=4864, max_position_embeddings=32768, max_window_layers=24,
        model_type="qwen2", num_attention_heads=14, num_hidden_layers=24, num_key_value_heads=2, rms_norm_eps=1e-6,
        rope_theta=1000000.0, sliding_window=32768, tie_word_embeddings=True, torch_dtype="bfloat16", use_cache=True,
        use_mrope=False, use_sliding_window=False, vocab_size=151936),
    "Qwen/Qwen3-0.6B": dict(
        architectures=["Qwen3ForCausalLM"], attention_bias=False, bos_token_id=151643, eos_token_id=151645, head_dim=128,
        hidden_act="silu", hidden_size=1024, intermediate_size=3072, max_position_embeddings=40960, max_window_layers=28,
        model_type="qwen3", num_attention_heads=16, num_hidden_layers=28, num_key_value_heads=8, rms_norm_eps=1e-6,
        rope_scaling=None, rope_theta=1000000, sliding_window=None, tie_word_embeddings=True, use_sliding_window=False,
        vocab_size=151936),
    "google/gemma-2b": dict(
        architectures=["GemmaForCausalLM"], attention_bias=False, bos_token_id=2, eos_token_id=1, head_dim=256, hidden_act="gelu",
        hidden_activation="gelu_pytorch_tanh", hidden_size=2048, intermediate_size=16384, max_position_embeddings=8192,
        model_type="gemma", num_attention_heads=8, num_hidden_layers=18, num_key_value_heads=1, pad_token_id=0,
        rms_norm_eps=1e-6, rope_scaling=None, rope_theta=10000.0, torch_dtype="bfloat16", vocab_size=256000),
    "google/gemma-2-2b": dict(
        architectures=["Gemma2ForCausalLM"], attention_bias=False, attn_logit_softcapping=50.0, bos_token_id=2,
        cache_implementation="hybrid", eos_token_id=1, final_logit_softcapping=30.0, head_dim=256, hidden_act="gelu_pytorch_tanh",
        hidden_activation="gelu_pytorch_tanh", hidden_size=2304, intermediate_size=9216, max_position_embeddings=8192,
        model_type="gemma2", num_attention_heads=8, num_hidden_layers=26, num_key_value_heads=4, pad_token_id=0,
        query_pre_attn_scalar=256, rms_norm_eps=1e-6, rope_theta=10000.0, sliding_window=4096, vocab_size=256000),
    "google/gemma-3-1b-it": dict(
        architectures=["Gemma3ForCausalLM"], attention_bias=False, attn_logit_softcapping=None, bos_token_id=2,
        cache_implementation="hybrid", eos_token_id=[1, 106], final_logit_softcapping=None, head_dim=256,
        hidden_activation="gelu_pytorch_tanh", hidden_size=1152, intermediate_size=6912, max_position_embeddings=32768,
        model_type="gemma3_text", num_attention_heads=4, num_hidden_layers=26, num_key_value_heads=1, pad_token_id=0,
        query_pre_attn_scalar=256, rms_norm_eps=1e-6, rope_local_base_freq=10000, rope_scaling=None, rope_theta=1000000,
        sliding_window=512, sliding_window_pattern=6, torch_dtype="bfloat16", vocab_size=262144),
    "google/gemma-3-4b-it": dict(
        architectures=["Gemma3ForConditionalGeneration"], boi_token_index=255999, eoi_token_index=256000, eos_token_id=[1, 106],
        image_token_index=262144, initializer_range=0.02, mm_tokens_per_image=256, model_type="gemma3",
        text_config=dict(hidden_size=2560, intermediate_size=10240, model_type="gemma3_text", num_hidden_layers=34,
                         rope_scaling=dict(factor=8.0, rope_type="linear"), sliding_window=1024),
        torch_dtype="bfloat16",
        vision_config=dict(hidden_size=1152, image_size=896, intermediate_size=4304, model_type="siglip_vision_model",
                           num_attention_heads=16, num_hidden_layers=27, patch_size=14, vision_use_head=False)),
    "microsoft/Phi-3-mini-4k-instruct": dict(
        architectures=["Phi3ForCausalLM"], attention_bias=False, auto_map=dict(AutoConfig="configuration_phi3.Phi3Config"),
        bos_token_id=1, embd_pdrop=0.0, eos_token_id=32000, hidden_act="silu", hidden_size=3072, intermediate_size=8192,
        max_position_embeddings=4096, model_type="phi3", num_attention_heads=32, num_hidden_layers=32, num_key_value_heads=32,
        original_max_position_embeddings=4096, pad_token_id=32000, resid_pdrop=0.0, rms_norm_eps=1e-5, rope_scaling=None,
        rope_theta=10000.0, sliding_window=2047, tie_word_embeddings=False, vocab_size=32064),
    "microsoft/Phi-3-mini-128k-instruct": dict(
        architectures=["Phi3ForCausalLM"], bos_token_id=1, eos_token_id=32000, hidden_act="silu", hidden_size=3072,
        intermediate_size=8192, max_position_embeddings=131072, model_type="phi3", num_attention_heads=32, num_hidden_layers=32,
        num_key_value_heads=32, original_max_position_embeddings=4096, pad_token_id=32000, rms_norm_eps=1e-5,
        rope_scaling=dict(long_factor=LONG, short_factor=[1.0] * 48, type="longrope"), rope_theta=10000.0,
        sliding_window=262144, tie_word_embeddings=False, vocab_size=32064),
    "microsoft/Phi-4-mini-instruct": dict(
        architectures=["Phi3ForCausalLM"], bos_token_id=199999, eos_token_id=199999, full_attn_mod=1, hidden_act="silu",
        hidden_size=3072, intermediate_size=8192, interpolate_factor=1, lm_head_bias=False, max_position_embeddings=131072,
        mlp_bias=False, model_type="phi3", num_attention_heads=24, num_hidden_layers=32, num_key_value_heads=8,
        original_max_position_embeddings=4096, pad_token_id=199999, partial_rotary_factor=0.75, rms_norm_eps=1e-5,
        rope_scaling=dict(long_factor=LONG, short_factor=[1.0] * 48, type="longrope"), rope_theta=10000.0,
        sliding_window=262144, tie_word_embeddings=True, vocab_size=200064),
    "allenai/OLMo-2-0425-1B": dict(
        architectures=["Olmo2ForCausalLM"], attention_bias=False, attention_dropout=0.0, eos_token_id=100257, hidden_act="silu",
        hidden_size=2048, initializer_range=0.02, intermediate_size=8192, max_position_embeddings=4096, model_type="olmo2",
        num_attention_heads=16, num_hidden_layers=16, num_key_value_heads=16, pad_token_id=100277, rms_norm_eps=1e-6,
        rope_scaling=None, rope_theta=500000, tie_word_embeddings=False, torch_dtype="float32", vocab_size=100352),
    "bert-base-uncased": dict(
        architectures=["BertForMaskedLM"], attention_probs_dropout_prob=0.1, gradient_checkpointing=False, hidden_act="gelu",
        hidden_dropout_prob=0.1, hidden_size=768, initializer_range=0.02, intermediate_size=3072, layer_norm_eps=1e-12,
        max_position_embeddings=512, model_type="bert", num_attention_heads=12, num_hidden_layers=12, pad_token_id=0,
        position_embedding_type="absolute", type_vocab_size=2, use_cache=True, vocab_size=30522),
    "roberta-base": dict(
        architectures=["RobertaForMaskedLM"], attention_probs_dropout_prob=0.1, bos_token_id=0, eos_token_id=2, hidden_act="gelu",
        hidden_dropout_prob=0.1, hidden_size=768, initializer_range=0.02, intermediate_size=3072, layer_norm_eps=1e-5,
        max_position_embeddings=514, model_type="roberta", num_attention_heads=12, num_hidden_layers=12, pad_token_id=1,
        type_vocab_size=1, vocab_size=50265),
    "distilbert-base-uncased": dict(
        activation="gelu", architectures=["DistilBertForMaskedLM"], attention_dropout=0.1, dim=768, dropout=0.1, hidden_dim=3072,
        initializer_range=0.02, max_position_embeddings=512, model_type="distilbert", n_heads=12, n_layers=6, pad_token_id=0,
        qa_dropout=0.1, seq_classif_dropout=0.2, sinusoidal_pos_embds=False, tie_weights_=True, vocab_size=30522),
}

warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error()
lines = []
for name, keys in CONFIGS.items():
    of = dict(keys)
    # Of a model that sees pictures, what reads and writes text.
    of = of.get("text_config", of)
    config = transformers.AutoConfig.for_model(**json.loads(json.dumps(of)))
    encoder = config.model_type in ["bert", "roberta", "distilbert"]
    auto = transformers.AutoModelForSequenceClassification if encoder else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(config)
    lines.append(json.dumps(dict(name=name, parameters=model.num_parameters(), config=keys)))
    # What this version of transformers would write in its place.
    if name != "google/gemma-3-4b-it":
        again = json.loads(config.to_json_string(use_diff=True))
        lines.append(json.dumps(dict(name=f"{name}, rewritten", parameters=model.num_parameters(), config=again)))
print("[\n" + ",\n".join(lines) + "\n]")
