"""PEFT's adapter folders: what adapter_config.json says of the tensors (arXiv:2106.09685)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import xxhash
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cuvee import limits
from cuvee.core import Checkpoint, CuveeError
from cuvee.store import formats
from cuvee.store.folder import Folder, read_json
from cuvee.store.patterns import pattern
from cuvee.store.pickles import Pickles, is_pickled

T = TypeVar("T")
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
UNSUPPORTED = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
)
"""Keys of adapter_config.json whose features are no low-rank change of a stored weight, or not yet ours."""

_REBASED = re.compile(r"pissa|olora|corda|loftq|lora_ga", re.IGNORECASE)
"""Initialisations that change the base: their A and B are relative to weights that the base's folder does not hold."""

PART = re.compile(r"(?P<module>.+)\.lora_(?:embedding_)?(?P<part>A|B|B\.bias|magnitude_vector)(?:\.weight)?")
"""A tensor of a LoRA: its module, and which part it is."""


Alpha: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]


class Settings(BaseModel):
    """The part of adapter_config.json that says what the tensors mean."""

    model_config = ConfigDict(extra="allow")
    peft_type: str
    r: int = 8
    lora_alpha: Alpha = 8
    rank_pattern: Annotated[dict[str, int], Field(max_length=limits.PATTERNS)] | None = None
    alpha_pattern: Annotated[dict[str, Alpha], Field(max_length=limits.PATTERNS)] | None = None
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False
    init_lora_weights: bool | str | None = None
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    bias: str | None = None
    base_model_name_or_path: str | None = None

    def scale(self, module: str, rank: int) -> float:
        """What B @ A is multiplied by. Raises CuveeError when the tensors have another rank than promised."""
        promised = _by_pattern(self.rank_pattern, module, self.r)
        if rank != promised or not rank:
            raise CuveeError(f"{module}: the tensors have rank {rank}, adapter_config.json says {promised}.")
        alpha = _by_pattern(self.alpha_pattern, module, self.lora_alpha)
        return alpha / sqrt(rank) if self.use_rslora else alpha / rank


def _by_pattern(patterns: Mapping[str, T] | None, module: str, default: T) -> T:
    """The value of the first pattern that matches the module's name, or whole dotted parts of its end.

    Raises CuveeError for one that cannot be used.
    """
    hits = (value for key, value in (patterns or {}).items() if pattern(rf"(.*\.)?({key})$").matches(module))
    return next(hits, default)


def open_folder(folder: Path) -> tuple[dict[str, Any], Checkpoint, str]:
    """An adapter's config, its tensors and a digest of the config. Raises CuveeError for a folder that is none."""
    if not (folder / CONFIG).is_file():
        raise CuveeError(f"{folder}: {_no_adapter(folder)}.")
    config = read_json(folder / CONFIG)
    safetensors, pickled = folder / WEIGHTS, folder / "adapter_model.bin"
    if not safetensors.exists() and not pickled.exists():
        told = formats.without_weights(folder)
        raise CuveeError(f"{folder}: has neither {safetensors.name} nor {pickled.name}: {told}.")
    file = safetensors if safetensors.exists() else pickled
    tensors = Pickles(file, str(file)) if is_pickled(file) else Folder(file)
    return config, tensors, xxhash.xxh3_128_hexdigest((folder / CONFIG).read_bytes())


def _no_adapter(folder: Path) -> str:
    """What a path is that is no adapter's folder."""
    try:
        told = formats.without_weights(folder) if folder.is_dir() else formats.foreign(folder)
    except OSError as error:
        return error.strerror or str(error)
    without = f"not an adapter: it has no {CONFIG}"
    if folder.is_dir():
        return without if any(folder.glob("*.safetensors")) else f"{without}; {told}"
    return told or f"not an adapter: give the folder that has its {CONFIG}"


def settings_of(config: Mapping[str, Any]) -> Settings:
    """The settings of a LoRA. Raises CuveeError for what is none, or has a feature that is not supported."""
    if config.get("peft_type") != "LORA":
        raise CuveeError(f"peft_type {config.get('peft_type')} is not supported, only LORA.")
    for key in UNSUPPORTED:
        if config.get(key):
            raise CuveeError(f"{key} is not supported.")
    try:
        settings = Settings.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        raise CuveeError(f"adapter_config.json: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
    if isinstance(settings.init_lora_weights, str) and _REBASED.search(settings.init_lora_weights):
        raise CuveeError(
            f"init_lora_weights {settings.init_lora_weights} changes the base model. Convert the adapter: "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...)."
        )
    if settings.use_dora and config.get("lora_bias"):
        raise CuveeError("lora_bias together with use_dora is not supported.")
    return settings
