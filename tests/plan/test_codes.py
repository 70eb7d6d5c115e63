"""Codes of quantised formats and factors of low-rank changes are told from weights by what lies beside them."""

from __future__ import annotations

import pytest
import torch

from cuvee.architecture.codes import factors, first_code
from cuvee.core import TensorSpec

Specs = dict[str, TensorSpec]
FLOAT, HALF, BYTE, INT8 = torch.float32, torch.bfloat16, torch.uint8, torch.int8
FP8 = torch.float8_e4m3fn


def specs(**tensors: tuple[torch.dtype, tuple[int, ...]]) -> Specs:
    return {f"model.layers.0.{name.replace('__', '.')}": TensorSpec(*spec) for name, spec in tensors.items()}


QUANTISED = {
    "GPTQ": specs(q__qweight=(torch.int32, (8, 64)), q__qzeros=(torch.int32, (1, 8)), q__scales=(HALF, (1, 64))),
    "bitsandbytes 8": specs(q__weight=(INT8, (64, 64)), q__SCB=(FLOAT, (64,))),
    "bitsandbytes 4": specs(q__weight=(BYTE, (2048, 1)), q__weight__absmax=(FLOAT, (64,))),
    "compressed-tensors": specs(q__weight_packed=(torch.int32, (64, 8)), q__weight_scale=(HALF, (64, 1))),
    "ModelOpt": specs(q__weight=(FP8, (64, 64)), q__weight_scale=(FLOAT, ()), q__input_scale=(FLOAT, ())),
    "fp8 in blocks": specs(q__weight=(FP8, (256, 256)), q__weight_scale_inv=(FLOAT, (2, 2))),
    "fp8, blocks of another name": specs(q__weight=(FP8, (256, 256)), q__s=(FLOAT, (2, 2))),
    "scaled fp8": specs(q__weight=(FP8, (64, 64)), q__scale_weight=(FLOAT, ())),
    "fp8 and SCB": specs(q__weight=(FP8, (64, 64)), q__SCB=(FLOAT, ())),
    "experts": specs(experts__down_proj=(FP8, (4, 64, 64)), experts__down_proj_scale=(FLOAT, (4, 1, 1))),
    "MXFP4": specs(experts__up_blocks=(BYTE, (4, 64, 2, 16)), experts__up_scales=(BYTE, (4, 64, 2))),
    "HQQ": specs(q__W_q=(BYTE, (32, 64)), q__scale=(HALF, (64, 1)), q__zero=(HALF, (64, 1))),
    "BitNet": specs(q__weight=(BYTE, (16, 64)), q__weight_scale=(HALF, (1,))),
}

PLAIN = {
    "floats": specs(q__weight=(HALF, (64, 64)), norm__weight=(HALF, (64,))),
    "plain fp8": specs(q__weight=(FP8, (64, 64)), q__bias=(HALF, (64,)), norm__weight=(FLOAT, (64,))),
    "causal masks of old GPT-2": specs(attn__bias=(BYTE, (1, 1, 32, 32)), attn__masked_bias=(FLOAT, ())),
    "positions of Swin": specs(
        attn__relative_position_index=(torch.int64, (4, 4)), attn__relative_position_bias_table=(FLOAT, (9, 2))
    ),
    "fp8 alone": specs(scale=(FP8, ()), q__weight_g=(FP8, (64, 1)), q__weight_v=(FP8, (64, 64))),
    "counters": specs(bn__num_batches_tracked=(torch.int64, ()), bn__running_mean=(FLOAT, (8,))),
    "learned scales": specs(q__weight=(FLOAT, (64, 64)), layer_scale=(FLOAT, (64,)), logit_scale=(FLOAT, ())),
}


@pytest.mark.parametrize("name", QUANTISED)
def test_codes_are_found(name: str) -> None:
    assert first_code(QUANTISED[name]) in QUANTISED[name]


@pytest.mark.parametrize("name", PLAIN)
def test_weights_are_no_codes(name: str) -> None:
    assert first_code(PLAIN[name]) is None


@pytest.mark.parametrize(
    "pair",
    [
        ("lora_unet_down_to_q.lora_down.weight", "lora_unet_down_to_q.lora_up.weight"),
        ("unet.attn1.processor.to_q_lora.down.weight", "unet.attn1.processor.to_q_lora.up.weight"),
        ("unet.attn1.to_q.lora.down.weight", "unet.attn1.to_q.lora.up.weight"),
        ("text.q_proj.lora_linear_layer.down.weight", "text.q_proj.lora_linear_layer.up.weight"),
        ("base_model.model.layers.0.q_proj.lora_A.weight", "base_model.model.layers.0.q_proj.lora_B.weight"),
        ("lora_unet_down.hada_w1_a", "lora_unet_down.hada_w1_b"),
    ],
)
def test_factors_are_found(pair: tuple[str, str]) -> None:
    assert factors({name: TensorSpec(FLOAT, (4, 4)) for name in pair}) == pair[0]


def test_weights_that_are_called_lora_in_a_model_are_weights() -> None:
    """RWKV-7 calls parts of its network so."""
    names = [f"layers.{i}.attn.{part}.weight" for i in range(3) for part in ("q", "k", "v", "w_lora.lora.0")]
    assert factors({name: TensorSpec(FLOAT, (4, 4)) for name in names}) is None
