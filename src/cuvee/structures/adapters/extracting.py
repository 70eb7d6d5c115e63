"""An adapter out of a fine-tuned model: the truncated SVD of each weight's change (mergekit's extract_lora)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import xxhash
from torch import Tensor

from cuvee.architecture.roles import embedding_of
from cuvee.architecture.ties import ties_head
from cuvee.core import Checkpoint, CuveeError
from cuvee.engine import output
from cuvee.engine.journal import STATE
from cuvee.engine.progress import Progress
from cuvee.kernels.lowrank import Loss, leading, measured, squared, with_energy
from cuvee.kernels.process import settled
from cuvee.methods import Outline
from cuvee.plan.inputs import Stored, check_weights
from cuvee.plan.matching import Tensors
from cuvee.plan.plan import Shard
from cuvee.store.open import load
from cuvee.store.peft import CONFIG, PREFIX, WEIGHTS
from cuvee.structures.adapters import anatomy
from cuvee.structures.adapters.card import front_matter
from cuvee.structures.adapters.config import ranks
from cuvee.structures.adapters.spool import Spool
from cuvee.structures.adapters.writing import config_text, errors
from cuvee.text import in_markdown

RANK = 32
"""Of an extraction that asks for neither a rank nor a share of the energy."""

HEAD = "lm_head.weight"
"""The head of a language model that stores none, being tied to its embedding."""

Embeddings = Literal["save", "low-rank", "skip"]
Others = Literal["save", "skip"]
Dtype = Literal["bfloat16", "float16", "float32", "float64"]


@dataclass(frozen=True)
class Wish:
    """How an adapter is to be taken out."""

    rank: int | None = None  # of each module, at most
    energy: float | None = None  # share of each change's squared singular values that is kept
    embeddings: Embeddings = "save"
    others: Others = "save"  # norms, biases, kernels of convolutions
    dtype: Dtype = "float32"  # of the factors

    def check(self) -> None:
        """Raises CuveeError for numbers out of bounds."""
        if self.rank is not None and self.rank < 1:
            raise CuveeError(f"rank {self.rank}: a rank is at least 1.")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise CuveeError(f"energy {self.energy} is no share: it must be above 0 and at most 1.")


@dataclass
class Extracted:
    """What an extraction found."""

    ranks: dict[str, int] = field(default_factory=dict)  # of each module with a low-rank update
    saved: list[str] = field(default_factory=list)  # tensors that are in the adapter whole
    left_out: dict[str, str] = field(default_factory=dict)  # tensor -> why it is not in the adapter
    losses: dict[str, Loss] = field(default_factory=dict)  # by tensor that changed
    notices: list[str] = field(default_factory=list)
    bytes: int = 0
    seconds: float = 0.0

    def errors(self) -> dict[str, Any]:
        """|model - (base + adapter)| relative to |model - base|, Frobenius: of all, and of each tensor."""
        return errors(self.losses)


class Source:
    """A model beside its base, tensor by tensor."""

    def __init__(self, model: Checkpoint, base: Checkpoint, wish: Wish) -> None:
        self.checkpoints: Sequence[Checkpoint] = (model, base)
        self.shards: Sequence[Shard] = ()
        self.donor: Path | None = None
        self.wish = wish
        first, second = Stored(base, 0), Stored(model, 1)
        for each in (first, second):
            check_weights(each)
        tensors = Tensors([first, second])
        self.names, (self.base, self.model) = tensors.names, tensors.matched
        self.config = base.config()

    @cached_property
    def hash(self) -> str:
        return xxhash.xxh3_128_hexdigest(json.dumps(self.facts(), sort_keys=True).encode())

    def facts(self) -> dict[str, Any]:
        from cuvee import __version__

        return {
            "extraction": asdict(self.wish),
            "inputs": [checkpoint.identity() for checkpoint in self.checkpoints],
            "cuvee": __version__,
            "torch": torch.__version__,
            "processor": torch.backends.cpu.get_cpu_capability(),
        }

    def is_head(self, name: str) -> bool:
        """Whether a tensor is the embedding of a language model that has no other head."""
        tied = ties_head(self.config, self.names) and name == embedding_of(self.names)
        return tied and anatomy.task(self.config) == "CAUSAL_LM"

    def read(self, name: str) -> tuple[Tensor, Tensor]:
        """What the model has, and what the base has."""
        model, base = self.checkpoints
        return model.read(self.model.source(name)), base.read(self.base.source(name))


def extract(
    model: str | Path | Mapping[str, Tensor] | Checkpoint,
    base: str | Path | Mapping[str, Tensor] | Checkpoint,
    out: str | Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    embeddings: Embeddings = "save",
    others: Others = "save",
    dtype: Dtype = "float32",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Extracted | None:
    """Write the adapter that turns a base into a model, as nearly as a rank allows: a PEFT folder.

    rank: of each module at most; RANK where no energy is asked for. energy: share of each change's squared singular
    values to keep. embeddings, others: "save" keeps a changed tensor whole, "skip" leaves it as the base has it.
    Returns what was found, with its errors, or None when the folder holds it already. Raises CuveeError. Memory: the
    largest matrix in float32 a few times over.
    """
    wish = Wish(rank if rank or energy else RANK, energy, embeddings, others, dtype)
    wish.check()
    source = Source(load(model), load(base), wish)
    _check_shapes(source)
    folder = Path(out)
    with output.claimed(folder, source, overwrite=overwrite) as held:
        if held is None:
            return None
        began = time.monotonic()
        found = Extracted()
        with settled(), Spool(folder / STATE / "tensors") as spool:
            _walk(source, spool, found, progress)
            if not found.losses:
                raise CuveeError(f"{source.checkpoints[0].label} equals its base: there is nothing to extract.")
            output.begin_commit(held, source.shards)
            entries = spool.finish(folder / WEIGHTS, {"format": "pt"})
            found.bytes = spool.size
        found.seconds = time.monotonic() - began
        _commit(source, held, found, entries)
    return found


def _check_shapes(source: Source) -> None:
    for name in source.names:
        if name in source.base and name in source.model:
            one, other = source.base.spec(name).shape, source.model.spec(name).shape
            if one != other:
                raise CuveeError(
                    f"{name}: {list(one)} in the base, {list(other)} in the model: an adapter cannot resize a tensor."
                )


def _walk(source: Source, spool: Spool, found: Extracted, progress: Progress | None) -> None:
    """All tensors in the base's order, biases last: what they are called depends on their layers' weights."""
    shared = [name for name in source.names if name in source.base and name in source.model]
    shared.sort(key=lambda name: name.endswith(".bias"))
    found.left_out.update({name: "not in both models" for name in source.names if name not in shared})
    found.left_out.update(dict.fromkeys(source.model.extra, "not in the base"))
    total, done = sum(source.base.spec(name).nbytes for name in shared), 0
    for name in shared:
        if source.base.spec(name).dtype.is_floating_point:
            _one(source, name, spool, found)
        done += source.base.spec(name).nbytes
        if progress:
            progress(done, total)


def _one(source: Source, name: str, spool: Spool, found: Extracted) -> None:
    model, base = source.read(name)
    wide = torch.float64 if torch.float64 in (model.dtype, base.dtype) else torch.float32
    change = model.to(wide) - base.to(wide)
    del base
    whole = squared(change)
    if whole == 0:
        return
    if not bool(change.isfinite().all()):
        raise CuveeError(f"{name}: the change has entries that are NaN or infinite.")
    place, wish = anatomy.place(name, source.base.spec(name), source.config), source.wish
    if place.kind == "matrix" or (place.kind == "embedding" and wish.embeddings == "low-rank"):
        del model
        found.losses[name] = _low_rank(place, change, wish, spool, found)
    elif place.kind != "loose" and (wish.embeddings if place.kind == "embedding" else wish.others) == "save":
        below = "base_layer." * (place.parameter == "bias" and place.module in found.ranks)
        spool.add(f"{PREFIX}{place.module}.{below}{place.parameter}", model, "saved whole")
        found.saved.append(name)
        if source.is_head(name):
            spool.add(PREFIX + HEAD, model, f"copy of {name}")
            found.saved.append(HEAD)
            found.notices.append(
                f"the head is tied to {name}: it is saved as a copy, since PEFT unties what it replaces"
            )
        found.losses[name] = Loss(0.0, whole)
    else:
        found.left_out[name] = "no layer's weight or bias" if place.kind == "loose" else f"{place.kind}: skipped"
        found.losses[name] = Loss(whole, whole)


def _low_rank(place: anatomy.Place, change: Tensor, wish: Wish, spool: Spool, found: Extracted) -> Loss:
    """Factors of a change into the spool; what they leave out, as they are written."""
    turned = place.transposed or place.kind == "embedding"
    matrix = change.mT if turned else change
    most = wish.rank or min(matrix.shape)
    u, s, vh = leading(matrix, most) if wish.energy is None else with_energy(matrix, wish.energy, most)
    root, dtype = s.sqrt(), getattr(torch, wish.dtype)
    b, a = (u * root).to(dtype), (root[:, None] * vh).to(dtype)
    kind = "lora_embedding_{}" if place.kind == "embedding" else "lora_{}.weight"
    for letter, factor in (("A", a), ("B", b)):
        spool.add(f"{PREFIX}{place.module}.{kind.format(letter)}", factor, f"SVD at rank {len(s)}")
    found.ranks[place.module] = len(s)
    return measured(matrix, b.to(matrix.dtype), a.to(matrix.dtype))


def _commit(source: Source, held: output.Held, found: Extracted, entries: Mapping[str, Any]) -> None:
    """Config and card, then the manifest."""
    model, base = source.checkpoints
    for name, text in (
        (CONFIG, config_text(_config(source, found))),
        ("README.md", _card(model.label, base.label, found)),
    ):
        held.folder.write(name, text.encode(), held.sources.mode)
    manifest = {
        "plan": source.hash,
        **source.facts(),
        "tensors": dict(entries),
        "nonfinite": {},
        "left_out": found.left_out,
        "adapter": {"errors": found.errors(), "ranks": found.ranks},
    }
    output.end_commit(held, manifest, [model.label, base.label])


def _config(source: Source, found: Extracted) -> dict[str, Any]:
    places = {name: anatomy.place(name, source.base.spec(name), source.config) for name in source.names}
    if HEAD in found.saved and HEAD not in places:
        places[HEAD] = anatomy.Place(HEAD.removesuffix(".weight"), "weight", "matrix")
    modules = {place.module for place in places.values() if place.kind in ("matrix", "embedding")}
    biases = [name for name in found.saved if _is_bias_of(places[name], modules)]
    whole = [places[name].module for name in found.saved if name not in biases]
    return {
        **ranks({module: Outline(rank) for module, rank in found.ranks.items()}),
        "base_model_name_or_path": source.checkpoints[1].label,
        "task_type": anatomy.task(source.config),
        "target_modules": anatomy.targets(found.ranks, modules - {*found.ranks, *whole}),
        "modules_to_save": list(dict.fromkeys(whole)) or None,
        "bias": "all" if biases else "none",
        "fan_in_fan_out": any(place.transposed for place in places.values()),
    }


def _is_bias_of(place: anatomy.Place, modules: set[str]) -> bool:
    """Whether a tensor is the bias of a layer whose weight is a matrix, which is saved by itself."""
    return place.parameter == "bias" and place.module in modules


def _card(model: str, base: str, found: Extracted) -> str:
    from cuvee import __version__

    front, model, base = front_matter(["lora", "cuvee"], base), in_markdown(model), in_markdown(base)
    spread = f"{min(found.ranks.values())} to {max(found.ranks.values())}" if found.ranks else "none"
    return (
        f"---\n{front}---\n# What {model} has more than {base}\n\n"
        f"A LoRA adapter taken out of {model} by [cuvee](https://pypi.org/project/cuvee/) {__version__}.\n\n"
        f"* Updates: {len(found.ranks)} modules, ranks {spread}\n* Saved whole: {len(found.saved)} tensors\n"
        f"* Left out: {len(found.left_out)} tensors\n"
        f"* Relative error of the change, in the Frobenius norm: {found.errors()['all']:.3g}\n"
    )
