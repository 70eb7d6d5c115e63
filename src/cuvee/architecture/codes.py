"""Tensors that are no weights: codes of quantised formats, and factors of low-rank changes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

from cuvee.architecture.roles import is_mask
from cuvee.core import TensorSpec, dtype_name

CODES = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.uint16, torch.uint32)
"""Integers that codes are stored in; positions and counters are 64-bit or have one axis."""

EIGHT = (torch.float8_e4m3fn, torch.float8_e5m2)

FORMATS = (
    (r"\.(qweight|qzeros|g_idx)$", "GPTQ or AWQ"),
    (r"\.(SCB|weight_format)$", "bitsandbytes, 8 bits"),
    (r"\.(absmax|quant_map|nested_absmax|nested_quant_map)$|quant_state\.", "bitsandbytes, 4 bits"),
    (r"\.weight_packed$", "compressed-tensors"),
    (r"(^|\.)scaled_fp8$|\.scale_weight$|\.scale_input$", "scaled fp8"),
    (r"_scale_inv$", "fp8 in blocks"),
    (r"_blocks$", "MXFP4"),
    (r"\.(codebooks|codes)$", "AQLM"),
    (r"\.W_q$", "HQQ"),
    (r"\._(data|scale|shift)$", "quanto"),
    (r"\.Qidxs(_\d+)?$", "QuIP#"),
)
"""How formats are called in messages, by the names that only they have; codes are recognised without these."""

CONFIGS = {
    "quantize_config.json": "GPTQ",
    "quant_config.json": "AWQ",
    "quantization_config.json": "quantised",
    "hf_quant_config.json": "ModelOpt",
}
"""Files beside a model that say how its weights are quantised."""

_SCALE = re.compile(r"scale|absmax|zero|quant|codebook|SCB", re.IGNORECASE)
_FACTOR = re.compile(
    r"lora_(up|down|mid)\.|lora(_linear_layer)?\d*\.(up|down)\.|lora_[AB](\.|$)|lora_embedding_[AB]|lora_magnitude_vector"
    r"|\.(ia3_l|hada_w[12]_[ab]|lokr_w[12](_[ab])?|oft_blocks|oft_diag|dora_scale|diff_b?)$"
)
_ALPHA = re.compile(r"\.(alpha|lora_alpha|network_alpha)$")


def quantised(specs: Mapping[str, TensorSpec], config: Mapping[str, Any]) -> str | None:
    """The format of a model whose tensors are codes, with its first such tensor; None where they are weights."""
    for place in (config, config.get("text_config"), config.get("llm_config"), config.get("language_config")):
        for key in ("quantization_config", "compression_config"):
            if isinstance(place, Mapping) and place.get(key):
                said = place[key]
                return str(said.get("quant_method", "unknown") if isinstance(said, Mapping) else said)
    code = first_code(specs)
    if code is None:
        return None
    return f"{format_of(specs)}; {code} is {dtype_name(specs[code].dtype)}"


def format_of(specs: Mapping[str, TensorSpec]) -> str:
    """What a quantised format is called, as far as names tell."""
    for pattern, name in FORMATS:
        if any(re.search(pattern, tensor) for tensor in specs):
            return name
    return "codes with scales"


def first_code(specs: Mapping[str, TensorSpec]) -> str | None:
    """The first tensor that holds codes: integers of up to 32 bits with several axes, or 8-bit floats with scales.

    8-bit floats without scales are numbers as they stand.
    """
    suspects = {n: s for n, s in specs.items() if (s.dtype in CODES and len(s.shape) > 1) or s.dtype in EIGHT}
    if not suspects:
        return next((name for name in specs if name.endswith((".qweight", ".qzeros", ".weight_packed"))), None)
    beside: dict[str, list[str]] = defaultdict(list)
    for name in specs:
        beside[_module(name)].append(name)
        beside[_module(_module(name))].append(name)
    for name, spec in suspects.items():
        siblings = [each for each in beside[_module(name)] if each != name]
        if spec.dtype in EIGHT:
            below = [each for each in specs if each.startswith(f"{name}.")]
            found = any(_scales(name, spec, each, specs[each]) for each in (*siblings, *below))
        else:
            named = any(_SCALE.search(_leaf(each)) for each in (name, *siblings))
            found = not is_mask(spec.shape) and (named or name.endswith(("weight", "_blocks", "codes")))
        if found:
            return name
    return None


def _scales(code: str, spec: TensorSpec, name: str, other: TensorSpec) -> bool:
    """Whether a tensor beside an 8-bit one is its scale: by its name, or by its shape, one number for each block."""
    leaf = _leaf(name)
    if leaf in ("weight", "bias") or not (other.dtype.is_floating_point or other.dtype == torch.uint8):
        return False
    if other.numel * 8 > spec.numel and other.numel > max((1, *spec.shape[:1])):
        return False
    if _SCALE.search(leaf) or name.startswith(code):
        return True
    blocks = len(other.shape) == len(spec.shape) > 1 and other.numel > 1 and other.dtype != spec.dtype
    return blocks and all(n and big % n == 0 for n, big in zip(other.shape, spec.shape, strict=True))


def factors(specs: Mapping[str, TensorSpec]) -> str | None:
    """The first factor of a low-rank change, where a file holds such changes in place of weights or beside the weights
    that they belong to; None for a model."""
    found = [name for name in specs if _FACTOR.search(name)]
    if not found:
        return None
    others = [name for name in specs if not _FACTOR.search(name) and not _ALPHA.search(name)]
    unmerged = any(".base_layer." in name for name in others)
    return found[0] if unmerged or len(found) >= len(others) else None


def holds_all(specs: Mapping[str, TensorSpec]) -> bool:
    """Whether a file of factors holds the model's weights too."""
    return any(".base_layer." in name for name in specs)


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]
