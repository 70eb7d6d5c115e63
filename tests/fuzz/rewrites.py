"""Rewrites of a model that leave its meaning alone: other names, other files, another place."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

WRAPPERS = (
    "module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "orig_module",
)  # fmt: skip
FRONTS = (*WRAPPERS, "model", "net", "base_model", "transformer", "student", "backbone", "actor", "zork", "my_net2")
ENTRIES = ("model_state_dict", "state_dict", "net", "model", "ema_weights", "zork", "module")
LEGACY = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
NEW = ((".parametrizations.weight.original0", ".weight_g"), (".parametrizations.weight.original1", ".weight_v"))

Names = Mapping[str, str]


@dataclass(frozen=True)
class Rewrite:
    """What is done to one model. The defaults do nothing."""

    front: tuple[str, ...] = ()  # words before all names
    first: str | None = None  # what the first word of the largest module becomes; "" drops it
    inside: tuple[str, ...] = ()  # words behind the first index of each name
    deep: bool = False  # those words stand one part further in
    legacy: bool = False  # names of parts of norms as older versions write them
    memory: bool = False  # names as the module has them, where files have others
    tied: bool | None = None  # whether copies of tied tensors are stored; None: as they are
    said: bool = True  # whether the config has a tie key that its class implies
    shuffled: bool = False
    form: str = "safetensors"  # or "bin"
    shards: int = 1
    entry: str | None = None  # of a training checkpoint, in which the weights lie
    spelling: str = "plain"

    @property
    def renames(self) -> bool:
        return bool(self.front or self.first is not None or self.inside or self.legacy or self.memory)

    def __repr__(self) -> str:
        default = Rewrite()
        told = {key: value for key, value in vars(self).items() if value != getattr(default, key)}
        return f"Rewrite({', '.join(f'{key}={value!r}' for key, value in told.items())})"


def _words(most: int) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(FRONTS), max_size=most).map(tuple)


REWRITES = st.builds(
    Rewrite,
    front=_words(2),
    first=st.none() | st.none() | st.sampled_from(["", "zork", "model", "my_net2"]),
    inside=st.just(()) | st.lists(st.sampled_from((*WRAPPERS, "zork")), max_size=2, unique=True).map(tuple),
    deep=st.booleans(),
    legacy=st.booleans(),
    memory=st.booleans(),
    tied=st.none() | st.booleans(),
    said=st.booleans(),
    shuffled=st.booleans(),
    form=st.sampled_from(["safetensors", "bin"]),
    shards=st.integers(1, 3),
    entry=st.none() | st.sampled_from(ENTRIES),
    spelling=st.sampled_from(["plain", "slash", "dot", "absolute", "link", "file"]),
)


class Original:
    """A saved model: its tensors by their names in files, its ties, its names in memory."""

    def __init__(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)
        self.folder, self.kind = folder, type(model)
        self.tensors: dict[str, Tensor] = load_file(folder / "model.safetensors")
        state = dict(model.state_dict())
        pointers: dict[int, list[str]] = {}
        for name, tensor in state.items():
            pointers.setdefault(tensor.data_ptr() if tensor.numel() else id(tensor), []).append(name)
        self.in_memory = _paired(self.tensors, state)
        in_files = {name: stored for stored, name in self.in_memory.items()}
        self.copies: dict[str, str] = {}  # name of a tied tensor that files leave out -> the one that they have
        for names in pointers.values():
            stored = [in_files[name] for name in names if name in in_files]
            for name in names if len(stored) == 1 else ():
                if name not in in_files:
                    self.copies[name] = stored[0]
        config = model.config.to_dict()
        default = type(model.config)().to_dict()
        key = "tie_word_embeddings"
        self.implied_tie = key in config and default.get(key) == config[key]

    def expanded(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by the names that files have; copies of tied ones must be equal."""
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            name = self.copies.get(name, name)
            assert name not in found or torch.equal(found[name], tensor), f"{name}: its copy differs"
            found[name] = tensor
        return found


def _paired(stored: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, str]:
    """Name in files -> name in memory, of equal tensors; nothing where some tensor has no partner."""
    found, left = {name: name for name in stored if name in state}, dict(state)
    for name in stored:
        left.pop(name, None)
    for name, tensor in stored.items():
        if name not in found:
            alike = [n for n, t in left.items() if t.shape == tensor.shape and torch.equal(t, tensor)]
            if not alike:
                return {name: name for name in stored}
            found[name] = alike[0]
            left.pop(alike[0])
    return found


def renamed(original: Original, rewrite: Rewrite, names: list[str]) -> dict[str, str]:
    """Original name -> rewritten name, of the names given and the copies."""
    found = {}
    largest = _largest(names)
    for name in names:
        new = original.in_memory.get(name, name) if rewrite.memory else name
        for old, other in (*LEGACY, *NEW) if rewrite.legacy else ():
            new = new.replace(old, other)
        parts = new.split(".")
        if rewrite.first is not None and largest and parts[0] == largest and len(parts) > 2:
            parts = [*([rewrite.first] if rewrite.first else []), *parts[1:]]
        at = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        if at is not None and rewrite.inside:
            at = min(at + 1 + rewrite.deep, len(parts) - 1)
            parts = [*parts[:at], *rewrite.inside, *parts[at:]]
        found[name] = ".".join((*rewrite.front, *parts))
    assert len(set(found.values())) == len(found)
    return found


def _largest(names: list[str]) -> str | None:
    count: dict[str, int] = {}
    for name in names:
        count[name.split(".")[0]] = count.get(name.split(".")[0], 0) + 1
    return max(count, key=lambda word: count[word], default=None)


def is_possible(original: Original, rewrite: Rewrite) -> bool:
    """Whether the rewritten names are distinct and are what a program could have written."""
    names = [*original.tensors, *original.copies]
    try:
        new = renamed(original, rewrite, names)
    except AssertionError:
        return False
    heads = {name.split(".")[0] for name in names}
    if rewrite.memory and rewrite.inside:  # the tables of renamed modules know whole names
        return False
    return rewrite.first not in heads and all(not new[n].split(".")[0].isdigit() for n in names)


def apply(original: Original, rewrite: Rewrite, folder: Path) -> tuple[str, dict[str, str]]:
    """Write the rewritten model. Gives what a recipe calls it, and original name -> rewritten name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tensors = dict(original.tensors)
    if rewrite.tied or (rewrite.tied is None and rewrite.memory):
        tensors |= {copy: tensors[source].clone() for copy, source in original.copies.items()}
    names = renamed(original, rewrite, [*original.tensors, *original.copies])
    if rewrite.shuffled:
        order = list(tensors)
        random.Random(0).shuffle(order)
        tensors = {name: tensors[name] for name in order}
    write({names[name]: tensor for name, tensor in tensors.items()}, rewrite, folder)
    config = json.loads((original.folder / "config.json").read_text())
    if not rewrite.said and original.implied_tie:
        config.pop("tie_word_embeddings", None)
    (folder / "config.json").write_text(json.dumps(config))
    for file in original.folder.glob("token*"):
        shutil.copy(file, folder)
    return spelt(folder, rewrite), names


def write(tensors: Mapping[str, Tensor], rewrite: Rewrite, folder: Path) -> None:
    stem, ending = ("model", "safetensors") if rewrite.form == "safetensors" else ("pytorch_model", "bin")
    shards = 1 if rewrite.spelling == "file" or rewrite.entry else min(rewrite.shards, len(tensors))
    files, where = [dict(list(tensors.items())[i::shards]) for i in range(shards)], {}
    for number, held in enumerate(files):
        name = f"{stem}.{ending}" if shards == 1 else f"{stem}-{number + 1:05}-of-{shards:05}.{ending}"
        where |= dict.fromkeys(held, name)
        if ending == "safetensors":
            save_file({n: t.contiguous() for n, t in held.items()}, folder / name, metadata={"format": "pt"})
        else:
            data: Any = held
            if rewrite.entry:
                data = {"epoch": 3, rewrite.entry: held, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}
            torch.save(data, folder / name)
    if shards > 1:
        (folder / f"{stem}.{ending}.index.json").write_text(json.dumps({"weight_map": where}))


def spelt(folder: Path, rewrite: Rewrite) -> str:
    relative = os.path.relpath(folder)
    if rewrite.spelling == "link":
        link = folder.with_name(f"{folder.name}_link")
        link.unlink(missing_ok=True)
        link.symlink_to(folder)
        return str(link)
    if rewrite.spelling == "file":
        return str(next(file for file in folder.iterdir() if re.search(r"\.(safetensors|bin)$", file.name)))
    told = {"slash": f"{relative}/", "dot": f"./{relative}", "absolute": str(folder.resolve())}
    return told.get(rewrite.spelling, relative)
