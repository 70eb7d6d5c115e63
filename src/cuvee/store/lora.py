"""A base model plus a LoRA adapter (arXiv:2106.09685), as a checkpoint that is computed when it is read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from cuvee.architecture.layers import split_layer
from cuvee.architecture.names import match_names
from cuvee.architecture.roles import embedding_of, head_of
from cuvee.architecture.ties import ties_head, without_tie
from cuvee.core import BLOCK, Buffer, Checkpoint, CuveeError, Stamp, TensorSpec, did_you_mean
from cuvee.store.peft import PART, PREFIX, Settings, open_folder, settings_of

T = TypeVar("T")
SAVED, REPLACED = ".modules_to_save.", ".original_module."
"""What PEFT puts before the names of tensors that an adapter holds whole, and of those that they replace."""

_FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


@dataclass(frozen=True, slots=True)
class LowRank:
    """A product of two of the adapter's tensors, to be added to a weight."""

    a: str  # (rank, in)
    b: str  # (out, rank)
    scale: float
    transposed: bool  # the weight is stored as (in, out)
    magnitude: str | None  # DoRA (arXiv:2402.09353): lengths that the sum's vectors of input weights are given


@dataclass(frozen=True, slots=True)
class Edit:
    """What an adapter makes of one tensor."""

    start: str  # the tensor that is changed
    stored: bool  # `start` is the adapter's own, in place of the base's
    spec: TensorSpec
    low_rank: LowRank | None = None
    shift: tuple[str, float] | None = None  # the adapter's tensor to add, and its factor


def with_adapter(model: Checkpoint, adapter: Path, label: str) -> Checkpoint:
    """The model with a PEFT LoRA folder applied, equal to PEFT's merge but for rounding; lazy.

    Raises CuveeError for a feature that is not supported and for adapter tensors that fit nothing in the model.
    """
    config, tensors, digest = open_folder(adapter)
    try:
        edits = edits_of(settings_of(config), tensors, model)
    except CuveeError as error:
        raise CuveeError(f"{adapter}: {error}") from None
    return Adapted(model, tensors, edits, label=label, digest=digest)


def edits_of(settings: Settings, adapter: Checkpoint, base: Checkpoint) -> dict[str, Edit]:
    """Output tensor -> what the adapter makes of it. A head that the base ties to its embedding becomes its own."""
    modules: dict[str, dict[str, str]] = {}
    stored: dict[str, str] = {}
    asked: dict[str, str] = {}
    for name in adapter.names():
        inner = name.removeprefix(PREFIX)
        if match := PART.fullmatch(inner):
            modules.setdefault(match["module"], {})[match["part"]] = name
            asked[f"{match['module']}.{'bias' if match['part'] == 'B.bias' else 'weight'}"] = name
        else:
            target = inner.replace(".base_layer.", ".").replace(SAVED, ".")
            if REPLACED not in target and (SAVED in inner or target not in stored):
                asked[target] = stored[target] = name
    places = _places(asked, base)
    edits: dict[str, Edit] = {}
    for target, (output, start) in places.items():
        spec, own = base.spec(start), stored.get(target)
        if own and adapter.spec(own).shape != spec.shape:
            raise CuveeError(_misfit(own, adapter.spec(own), spec, target, base))
        edits[output] = Edit(own or start, own is not None, spec)
    outputs = {module: places[f"{module}.weight"][0] for module in modules}
    ways = {module: _ways(module, parts, adapter, edits[outputs[module]].spec) for module, parts in modules.items()}
    sure = {min(way) for module, way in ways.items() if len(way) == 1 and split_layer(module)[1] is not None}
    turned = min(sure) if len(sure) == 1 else settings.fan_in_fan_out
    for module, parts in modules.items():
        scale = settings.scale(module, adapter.spec(parts["A"]).shape[0])
        transposed = turned if len(ways[module]) == 2 else min(ways[module])
        if settings.use_dora != ("magnitude_vector" in parts):
            raise CuveeError(f"{module}: use_dora is {settings.use_dora}, but its tensors say otherwise.")
        product = LowRank(parts["A"], parts["B"], scale, transposed, parts.get("magnitude_vector"))
        edits[outputs[module]] = replace(edits[outputs[module]], low_rank=product)
        if "B.bias" in parts:
            output = places[f"{module}.bias"][0]
            edits[output] = replace(edits[output], shift=(parts["B.bias"], scale))
    return edits


def _misfit(name: str, own: TensorSpec, wanted: TensorSpec, target: str, base: Checkpoint) -> str:
    """What to do about a tensor that an adapter holds whole, in another shape than the base's."""
    told = f"{name} is {own}, but {base.label} has {wanted}."
    if split_layer(target)[1] is not None or own.shape[1:] != wanted.shape[1:]:
        return f"{told} Was the adapter trained on another base?"
    return (
        f"{told} The adapter was trained after its base's vocabulary was resized to {own.shape[0]} rows: call "
        f"resize_token_embeddings({own.shape[0]}) on the base, and save it with the adapter's tokenizer as the base."
    )


def _places(asked: Mapping[str, str], base: Checkpoint) -> dict[str, tuple[str, str]]:
    """Target of the adapter -> the output tensor, and the base tensor that it starts from."""
    names = base.names()
    found = match_names(list(asked), names)
    places = {target: (name, name) for target, name in found.items()}
    head, embedding = head_of(list(asked)), embedding_of(names)
    if head and embedding and ties_head(base.config(), names):
        places[head] = (found.get(head, head), embedding)
    missing = [target for target in asked if target not in places]
    if missing:
        more = f", nor do {len(missing) - 1} others" if len(missing) > 1 else ""
        raise CuveeError(f"{asked[missing[0]]} fits no tensor of {base.label}{more}.{did_you_mean(missing[0], names)}")
    return places


def _ways(module: str, parts: Mapping[str, str], adapter: Checkpoint, weight: TensorSpec) -> set[bool]:
    """How the product can be laid on the weight: as it is (False) or transposed; both fit a square matrix."""
    if not {"A", "B"} <= set(parts):
        raise CuveeError(f"{module}: has {' and '.join(parts.values())}, but A and B are both needed.")
    if weight.dtype not in _FLOATS:
        raise CuveeError(f"{module}: the base stores {weight}: its weights must be dequantised first.")
    a, b = adapter.spec(parts["A"]).shape, adapter.spec(parts["B"]).shape
    straight = "lora_embedding_" not in parts["A"] and (b[0], *a[1:]) == weight.shape
    turned = len(a) == len(b) == 2 and (a[1], b[0]) == weight.shape
    ways = {way for way, fits in ((False, straight), (True, turned)) if fits}
    if not ways or prod(b[1:]) != a[0]:
        raise CuveeError(f"{module}: lora_B {list(b)} and lora_A {list(a)} do not fit the base's {weight}.")
    return ways


@dataclass(frozen=True, slots=True)
class Factors:
    """A low-rank product in memory, ready to be cut by rows of the weight."""

    left: Tensor  # (rows, rank)
    right: Tensor  # (rank, columns)
    scale: float
    lengths: Tensor | None = None  # DoRA: of each row, (rows, 1)
    gains: Tensor | None = None  # DoRA on a transposed weight: of each column, (columns,)


class Recent:
    """The last few results, by key. They stay behind when their owner goes to another process."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[Hashable, Any] = OrderedDict()

    def __reduce__(self) -> tuple[type[Recent], tuple[int]]:
        return Recent, (self._limit,)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._held:
            self._held[key] = make()
            if len(self._held) > self._limit:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        return self._held[key]  # type: ignore[no-any-return]


class Adapted(Checkpoint):
    """The base with the adapter's changes. What they touch is read unrounded: float32, or float64 where the base is.

    `spec` still tells the base's stored dtype, to which a writer rounds, once. Products are taken on a grid of row
    blocks that depends on the shape alone, so any span holds the same bits as that part of the whole tensor. Memory:
    two blocks, and A and B of the last four tensors. DoRA on a transposed weight (Conv1D, embeddings) needs the lengths
    of columns, and passes once more over the tensor. As in PEFT's merge, a change of an embedding that the head is
    tied to changes both.
    """

    def __init__(
        self, base: Checkpoint, adapter: Checkpoint, edits: Mapping[str, Edit], *, label: str, digest: str
    ) -> None:
        self.base, self.adapter, self.label, self.folder = base, adapter, label, base.folder
        self._edits, self._digest = edits, digest
        self._blocks, self._factors = Recent(2), Recent(4)

    @property
    def changed(self) -> set[str]:
        """Names of the tensors that the adapter changes."""
        return set(self._edits)

    def names(self) -> Sequence[str]:
        return list(dict.fromkeys([*self.base.names(), *self._edits]))

    def spec(self, name: str) -> TensorSpec:
        return self._edits[name].spec if name in self._edits else self.base.spec(name)

    def config(self) -> dict[str, Any]:
        """The base's; without the tie where the adapter gives a tied head weights of its own."""
        config = self.base.config()
        if not (head_of(list(self._edits)) and ties_head(config, self.base.names())):
            return config
        return without_tie(config)

    def stamps(self) -> Mapping[Path, Stamp]:
        return {**self.base.stamps(), **self.adapter.stamps()}

    def identity(self) -> dict[str, Any]:
        return {"base": self.base.identity(), "adapter": self.adapter.identity(), "settings": self._digest}

    def read(self, name: str, span: tuple[int, int] | None = None, into: Buffer | None = None) -> Tensor:
        edit = self._edits.get(name)
        if edit is None:
            return self.base.read(name, span, into)
        start, stop = span or (0, edit.spec.numel)
        if edit.low_rank is None:
            flat = self._start(edit, start, stop)
        else:
            flat = self._merged(name, edit, edit.low_rank, start, stop)
        return flat if span else flat.view(edit.spec.shape)

    def _start(self, edit: Edit, start: int, stop: int) -> Tensor:
        """Entries before the low-rank change, in the base's dtype or wider."""
        entries = (self.adapter if edit.stored else self.base).read(edit.start, (start, stop))
        entries = entries.to(torch.promote_types(entries.dtype, edit.spec.dtype))
        if edit.shift is None:
            return entries
        name, scale = edit.shift
        dtype = _working(edit.spec)
        return entries.to(dtype) + scale * self.adapter.read(name, (start, stop)).to(dtype)

    def _merged(self, name: str, edit: Edit, change: LowRank, start: int, stop: int) -> Tensor:
        factors = self._factors.get(name, partial(self._load, edit, change))
        entries = torch.empty(stop - start, dtype=_working(edit.spec))
        size = _rows(edit.spec) * _columns(edit.spec)
        for at in range(start // size * size, stop, size):
            block = self._blocks.get((name, at), partial(self._block, edit, at, factors))
            low, high = max(start, at), min(stop, at + len(block))
            entries[low - start : high - start] = block[low - at : high - at]
        return entries

    def _block(self, edit: Edit, at: int, factors: Factors) -> Tensor:
        """The block of rows whose first entry is `at`, flat."""
        columns = _columns(edit.spec)
        first, last = at // columns, min(at // columns + _rows(edit.spec), edit.spec.shape[0])
        block = (factors.left[first:last] @ factors.right).mul_(factors.scale)
        block += self._start(edit, first * columns, last * columns).view(-1, columns)
        if factors.lengths is not None:
            block *= _gains(factors.lengths[first:last], torch.linalg.vector_norm(block, dim=1, keepdim=True))
        if factors.gains is not None:
            block *= factors.gains
        return block.view(-1)

    def _load(self, edit: Edit, change: LowRank) -> Factors:
        dtype = _working(edit.spec)
        a, b = (self.adapter.read(part).to(dtype).flatten(1) for part in (change.a, change.b))
        left, right = (a.T, b.T) if change.transposed else (b, a)
        # The allocator's alignment, not a file's: the kernels of a product may depend on it.
        left, right = (part.clone(memory_format=torch.contiguous_format) for part in (left, right))
        factors = Factors(left, right, change.scale)
        if change.magnitude is None:
            return factors
        lengths = self.adapter.read(change.magnitude).to(dtype).flatten()
        if not change.transposed:
            return replace(factors, lengths=lengths.view(-1, 1))
        columns = _columns(edit.spec)
        squares = torch.zeros(columns, dtype=torch.float64)
        for at in range(0, edit.spec.numel, _rows(edit.spec) * columns):
            squares += self._block(edit, at, factors).view(-1, columns).double().square().sum(0)
        return replace(factors, gains=_gains(lengths, squares.sqrt().to(dtype)))


def _gains(wanted: Tensor, found: Tensor) -> Tensor:
    """Factors that give vectors the wanted lengths; zero vectors stay zero."""
    return torch.where(found > 0, wanted / found, torch.zeros_like(found))


def _working(spec: TensorSpec) -> torch.dtype:
    return torch.float64 if spec.dtype == torch.float64 else torch.float32


def _columns(spec: TensorSpec) -> int:
    return max(1, prod(spec.shape[1:]))


def _rows(spec: TensorSpec) -> int:
    """Rows of a block."""
    return max(1, BLOCK // _columns(spec))
