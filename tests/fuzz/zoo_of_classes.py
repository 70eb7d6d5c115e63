"""Tiny models of many classes of transformers, by name; made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf

VOCABULARY = 96
WIDTH = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
TEXT = {"vocab_size": VOCABULARY, **WIDTH}
GROUPED = {**TEXT, "num_key_value_heads": 2, "max_position_embeddings": 32}
SEEN = {"image_size": 8, "patch_size": 4, "num_channels": 3, **WIDTH}
FACES = {"vocab_size": VOCABULARY, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 24,
         "decoder_ffn_dim": 24, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}  # fmt: skip
T5 = {"vocab_size": VOCABULARY, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}
BERT = {**TEXT, "max_position_embeddings": 32, "type_vocab_size": 2, "pad_token_id": 0}


def _text(kind: type, config: type, **said: Any) -> Callable[[], Any]:
    return lambda: kind(config(**said))


def _gemma3() -> Any:
    text = {**GROUPED, "head_dim": 4, "model_type": "gemma3_text"}
    config = hf.Gemma3Config(
        text_config=text,
        vision_config={**SEEN, "model_type": "siglip_vision_model"},
        mm_tokens_per_image=4,
        image_token_index=90,
        boi_token_index=91,
        eoi_token_index=92,
    )
    return hf.Gemma3ForConditionalGeneration(config)


def _llava() -> Any:
    text = hf.LlamaConfig(**GROUPED)
    seen = hf.CLIPVisionConfig(**SEEN, projection_dim=16)
    return hf.LlavaForConditionalGeneration(
        hf.LlavaConfig(text_config=text, vision_config=seen, image_token_index=90, vision_feature_layer=-1)
    )


def _qwen2vl() -> Any:
    config = hf.Qwen2VLConfig(
        text_config={**GROUPED, "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1], "type": "mrope"}},
        vision_config={"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 4, "mlp_ratio": 2, "patch_size": 4},
        image_token_id=90, video_token_id=91, vision_start_token_id=92, vision_end_token_id=93,
    )  # fmt: skip
    return hf.Qwen2VLForConditionalGeneration(config)


def _clip() -> Any:
    text = {**TEXT, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2}
    return hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=SEEN, projection_dim=16))


def _whisper() -> Any:
    config = hf.WhisperConfig(**FACES, num_mel_bins=8, max_source_positions=8, max_target_positions=16)
    return hf.WhisperForConditionalGeneration(config)


def _wav2vec2() -> Any:
    config = hf.Wav2Vec2Config(
        **WIDTH, vocab_size=32, conv_dim=(8, 8), conv_stride=(2, 2), conv_kernel=(3, 3),
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, num_feat_extract_layers=2,
    )  # fmt: skip
    return hf.Wav2Vec2ForCTC(config)


def _resnet() -> Any:
    config = hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[2, 1], layer_type="basic", num_labels=4, num_channels=3
    )
    return hf.ResNetForImageClassification(config)


def _swin() -> Any:
    config = hf.SwinConfig(
        image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=2, num_labels=4
    )
    return hf.SwinForImageClassification(config)


CLASSES: dict[str, Callable[[], Any]] = {
    "llama": _text(hf.LlamaForCausalLM, hf.LlamaConfig, **GROUPED),
    "llama_tied": _text(hf.LlamaForCausalLM, hf.LlamaConfig, **GROUPED, tie_word_embeddings=True),
    "mistral": _text(hf.MistralForCausalLM, hf.MistralConfig, **GROUPED),
    "qwen2": _text(hf.Qwen2ForCausalLM, hf.Qwen2Config, **GROUPED, tie_word_embeddings=True),
    "qwen3": _text(hf.Qwen3ForCausalLM, hf.Qwen3Config, **GROUPED, head_dim=4),
    "gemma2": _text(hf.Gemma2ForCausalLM, hf.Gemma2Config, **GROUPED, head_dim=4),
    "gemma3_text": _text(hf.Gemma3ForCausalLM, hf.Gemma3TextConfig, **GROUPED, head_dim=4),
    "phi": _text(hf.PhiForCausalLM, hf.PhiConfig, **TEXT, max_position_embeddings=32),
    "gpt2": _text(
        hf.GPT2LMHeadModel, hf.GPT2Config, vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=4, n_positions=32
    ),
    "gpt_neox": _text(hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, **TEXT, max_position_embeddings=32),
    "opt": _text(
        hf.OPTForCausalLM, hf.OPTConfig, vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=4, ffn_dim=24, max_position_embeddings=32, word_embed_proj_dim=16,
    ),
    "bloom": _text(hf.BloomForCausalLM, hf.BloomConfig, vocab_size=VOCABULARY, hidden_size=16, n_layer=2, n_head=4),
    "falcon": _text(hf.FalconForCausalLM, hf.FalconConfig, **TEXT),
    "mamba": _text(
        hf.MambaForCausalLM, hf.MambaConfig, vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, state_size=4
    ),
    "bert": _text(hf.BertForMaskedLM, hf.BertConfig, **BERT),
    "bert_labels": _text(hf.BertForSequenceClassification, hf.BertConfig, **BERT, num_labels=3),
    "roberta": _text(hf.RobertaForMaskedLM, hf.RobertaConfig, **BERT),
    "distilbert": _text(
        hf.DistilBertForMaskedLM, hf.DistilBertConfig, vocab_size=VOCABULARY, dim=16, n_layers=2, n_heads=4,
        hidden_dim=24, max_position_embeddings=32,
    ),
    "electra": _text(hf.ElectraForMaskedLM, hf.ElectraConfig, **BERT, embedding_size=8),
    "deberta": _text(
        hf.DebertaV2ForMaskedLM, hf.DebertaV2Config, **BERT, relative_attention=True, position_buckets=8,
        pos_att_type=["p2c", "c2p"],
    ),
    "albert": _text(hf.AlbertForMaskedLM, hf.AlbertConfig, **BERT, embedding_size=8),
    "t5": _text(hf.T5ForConditionalGeneration, hf.T5Config, **T5),
    "mt5": _text(hf.MT5ForConditionalGeneration, hf.MT5Config, **T5),
    "umt5": _text(hf.UMT5ForConditionalGeneration, hf.UMT5Config, **T5),
    "bart": _text(hf.BartForConditionalGeneration, hf.BartConfig, **FACES, max_position_embeddings=32),
    "marian": _text(hf.MarianMTModel, hf.MarianConfig, **FACES, max_position_embeddings=32),
    "whisper": _whisper,
    "vit": _text(hf.ViTForImageClassification, hf.ViTConfig, **SEEN, num_labels=4),
    "clip": _clip,
    "wav2vec2": _wav2vec2,
    "qwen2_vl": _qwen2vl,
    "gemma3": _gemma3,
    "llava": _llava,
    "resnet": _resnet,
    "swin": _swin,
}  # fmt: skip
"""Name -> what makes an untrained model of it."""


def tuned(name: str, seed: int, scale: float = 0.3) -> Any:
    """A model of a class whose parameters are all random; tied ones stay tied. Seeds make fine-tunes of one base."""
    torch.manual_seed(len(name))
    model = CLASSES[name]().eval()
    draw = torch.Generator().manual_seed(1000)
    change = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.5)
            if seed:
                parameter.add_(torch.randn(parameter.shape, generator=change) * scale)
    return model
