"""Which entry of a training checkpoint is the model: the mapping of names to tensors, wherever it lies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cuvee.core import CuveeError, did_you_mean
from cuvee.store.formats import flat_parameters
from cuvee.store.unpickle import Contents, Odd, Place, Stub

TOP = "."
"""What the top level is called where an entry is asked for."""

_BESIDE = re.compile(
    r"(^|_)(optim(?!al|um)|sched|lr_|scal(er|ing)|amp(_|$)|rng|random_state|callbacks?$|loops?$|hyper_?param|hparams|args$|config$"
    r"|param_groups|grads?$|gradients?$|loss(es)?(_|$)|metrics?$)"
)
"""Names of entries that a training run keeps beside the model."""

_RUNS = re.compile(
    r"builtins\.(exec|eval|compile|open|__import__|execfile|input|breakpoint)|(_?io|codecs)\.open\w*"
    r"|(os|posix|nt)\.(system|popen\w*|exec\w*|spawn\w*|posix_spawn\w*|fork\w*|kill\w*|remove|unlink|rename|rmdir|putenv)"
    r"|(subprocess|runpy|pty|importlib|shutil|socket|ctypes|webbrowser|code|pip|urllib|requests|http|pdb|timeit)\..*"
)
"""Names that no model needs: a file that asks for them means harm."""

_SHOWN = 8
"""Entries that a message names at most."""


class Found(NamedTuple):
    """A mapping of names to tensors, and where it lies."""

    entry: str
    tensors: dict[str, Place | Odd]
    above: tuple[int, ...]  # identities of the mappings that hold it

    @property
    def weights(self) -> list[Place | Odd]:
        """Tensors that can be weights, not counters: of several entries, and no integers."""
        return [tensor for tensor in self.tensors.values() if _is_weight(tensor)]


def places(path: Path, held: Contents, entry: str | None) -> dict[str, Place]:
    """The tensors of a file's model by name; of the entry that is asked for, if one is.

    Raises CuveeError for a file with none, or with several that may be meant, or whose tensors are not plain, or that
    asks for what runs programs.
    """
    _check_harm(path, held)
    found = _chosen(path, held.data) if entry is None else _asked(path, held.data, entry)
    flat = flat_parameters(found.tensors)
    if flat is not None:
        raise CuveeError(f"{path}: {flat}: flat parameters of FSDP: save the model with a FULL_STATE_DICT.")
    for name, tensor in found.tensors.items():
        if isinstance(tensor, Odd):
            raise CuveeError(f"{path}: {name}: {tensor.what}{_gather(tensor.what)}.")
    made = {name: tensor for name, tensor in found.tensors.items() if isinstance(tensor, Place)}
    if 2 * sum(0 in tensor.shape for tensor in made.values()) > len(made):
        raise CuveeError(
            f"{path}: most of its tensors are empty, as in a DeepSpeed ZeRO-3 checkpoint: run zero_to_fp32.py."
        )
    return made


def may_be_model(held: Contents) -> bool:
    """Whether a file holds tensors by name, or a whole module, that are not only what a training run keeps."""
    return bool(_likely(list(_mappings(held.data)))) or _module(held.data) is not None


def _chosen(path: Path, data: Any) -> Found:
    every = list(_mappings(data))
    found = _likely(every)
    module = _module(data)
    if module and module[2] > max((len(each.tensors) for each in found), default=0):
        raise CuveeError(
            f"{path}: refused: {module[0]} is a whole module ({module[1]}), and loading that would run code; where its "
            "code is, save the weights alone: torch.save(model.state_dict(), FILE)"
        )
    if not found:
        raise CuveeError(f"{path}: {_why_none(data, every)}.")
    if len(found) > 1:
        listed = [f"{_called(each.entry)} ({len(each.tensors)} tensors)" for each in found]
        raise CuveeError(
            f"{path}: holds several mappings of names to tensors: {_some(listed)}; "
            f"choose one, as {path.name}#{found[-1].entry if found[0].entry == TOP else found[0].entry}."
        )
    return found[0]


def _asked(path: Path, data: Any, entry: str) -> Found:
    every = list(_mappings(data))
    exact = [each for each in every if each.entry == entry]
    inside = exact or [each for each in every if each.entry.startswith(f"{entry}.")]
    found = inside if len(inside) == 1 else _likely(inside)
    if len(found) == 1:
        return found[0]
    names = [each.entry for each in found or _likely(every) or every]
    if found:
        raise CuveeError(f"{path}: {entry} holds several mappings of names to tensors: {_some(names)}.")
    told = f"those that do: {_some(list(map(_called, names)))}" if names else "nor does any other"
    raise CuveeError(f"{path}: no entry {entry} holds tensors by name; {told}.{did_you_mean(entry, names)}")


def _likely(every: list[Found]) -> list[Found]:
    """Of all mappings that hold tensors, those that may be the model."""
    full = [each for each in every if each.weights] or every
    found = [each for each in full if not _is_beside(each.entry)]
    kept: list[Found] = []
    for each in found:
        below = [other for other in found if each.above[-1] in other.above[:-1]]
        loose = all(isinstance(tensor, Place) and len(tensor.shape) < 2 for tensor in each.weights)
        if loose and any(len(other.weights) > len(each.weights) for other in below):
            continue  # such as a history of losses beside the model
        if not any(_same(each, other) for other in kept):
            kept.append(each)
    return kept


def _mappings(data: Any, entry: tuple[str, ...] = (), above: tuple[int, ...] = ()) -> Iterator[Found]:
    """All mappings of names to tensors, but for optimiser states; each once."""
    seen: set[int] = set()

    def walk(data: Any, entry: tuple[str, ...], above: tuple[int, ...]) -> Iterator[Found]:
        if not isinstance(data, (dict, list, tuple)) or id(data) in seen or len(entry) > 50:
            return
        seen.add(id(data))
        inside = (*above, id(data))
        if isinstance(data, dict):
            pairs = [(key, value) for key, value in dict.items(data) if isinstance(key, str)]
            if {"state", "param_groups"} <= {key for key, _ in pairs}:
                return
            tensors = {key: value for key, value in pairs if _is_tensor(value)}
            if tensors:
                yield Found(".".join(entry) or TOP, {key: _tensor(value) for key, value in tensors.items()}, inside)
        else:
            pairs = [(str(index), value) for index, value in enumerate(data)]
        for key, value in pairs:
            yield from walk(value, (*entry, key), inside)

    return walk(data, entry, above)


def _is_beside(entry: str) -> bool:
    return any(_BESIDE.search(part) for part in entry.lower().split("."))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (Place, Odd)) or (isinstance(value, Stub) and _tensors_in(value) > 0)


def _tensor(value: Any) -> Place | Odd:
    """A stub that holds tensors is a tensor of an unknown kind: to leave it out would be to lose weights."""
    return Odd(f"a {value.path}, not a plain tensor") if isinstance(value, Stub) else value


def _is_weight(tensor: Place | Odd) -> bool:
    if isinstance(tensor, Odd):
        return True
    return (tensor.dtype.is_floating_point or tensor.dtype.is_complex) and tensor.spec.numel > 1


def _same(one: Found, other: Found) -> bool:
    """Whether two mappings hold the same memory by the same names."""

    def facts(found: Found) -> Mapping[str, Any]:
        return {k: v.__reduce__()[1] if isinstance(v, Place) else v for k, v in found.tensors.items()}

    return one.tensors.keys() == other.tensors.keys() and facts(one) == facts(other)


def _stubs(data: Any) -> Iterator[tuple[str, Any, list[Any]]]:
    """All stubs with the entry that holds each, and the stubs above it; classes too."""
    seen: set[int] = set()
    pending: list[tuple[str, Any, list[Any]]] = [("", data, [])]
    while pending:
        entry, value, outer = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            for key, inner in dict.items(value):
                name = f"{entry}.{key}".lstrip(".") if isinstance(key, str) and not outer else entry
                pending += [(name, inner, outer), (entry, key, outer)]
        elif isinstance(value, (list, tuple, set, frozenset)):
            pending += [(entry, inner, outer) for inner in value]
        elif isinstance(value, Stub):
            yield entry, value, outer
            pending += [(entry, inner, [*outer, value]) for inner in value.held]
        elif isinstance(value, type) and issubclass(value, Stub):
            yield entry, value, outer


def _tensors_in(data: Any) -> int:
    """How many tensors there are in what a stub was given."""
    seen: set[int] = set()
    pending, count = [data], 0
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, (Place, Odd)):
            count += 1
        elif isinstance(value, dict):
            pending += dict.values(value)
        elif isinstance(value, (list, tuple)):
            pending += value
        elif isinstance(value, Stub):
            pending += value.held
    return count


def _module(data: Any) -> tuple[str, str, int] | None:
    """The entry, class and number of tensors of the largest object that is not looked into."""
    whole = [
        (f"its entry {entry}" if entry else "what it holds", value.path, _tensors_in(value))
        for entry, value, outer in _stubs(data)
        if isinstance(value, Stub) and not outer and not _is_beside(entry)
    ]
    largest = max(whole, key=lambda each: each[2], default=None)
    return largest if largest and largest[2] else None


def _check_harm(path: Path, held: Contents) -> None:
    harmful = [name for name in held.asked if _RUNS.fullmatch(name)]
    if not harmful:
        return
    entry = next((entry for entry, value, _ in _stubs(held.data) if value.path in harmful), "")
    asks = f"its entry {entry}" if entry else "it"
    raise CuveeError(
        f"{path}: refused: {asks} asks for {harmful[0].removeprefix('builtins.')}, and loading that would run code; "
        "have its author save the weights alone: torch.save(model.state_dict(), FILE), or as safetensors."
    )


def _why_none(data: Any, every: list[Found]) -> str:
    if isinstance(data, Stub):
        return f"holds no tensors, but an object of {data.path}: not a model"
    if isinstance(data, (Place, Odd)):
        return "holds one tensor, not a mapping of names to tensors"
    if not isinstance(data, dict):
        return f"holds a {type(data).__name__}, not a mapping of names to tensors"
    keys = [str(key) for key in data if isinstance(key, str)]
    if {"state", "param_groups"} <= set(keys) or any(_is_optimiser(value) for value in data.values()):
        return f"holds no weights, but an optimiser's state: not a model (its entries: {_some(keys)})"
    if {"last_epoch", "_step_count"} <= set(keys):
        return "holds no tensors, but the state of a learning-rate schedule: not a model"
    if every:
        names = [each.entry for each in every]
        return (
            f"holds no weights, only what a training run keeps: {_some(names)} (FILE#{names[0]} takes it all the same)"
        )
    arrays = any(value.path.startswith("numpy.") for _, value, _ in _stubs(data))
    noted = "; its arrays are NumPy's: save them as tensors" if arrays else ""
    return f"holds no tensors by name{f' (its entries: {_some(keys)})' if keys else ''}{noted}"


def _is_optimiser(value: Any) -> bool:
    return isinstance(value, dict) and {"state", "param_groups"} <= set(value)


def _gather(what: str) -> str:
    distributed = "distributed" in what or "ShardedTensor" in what or "DTensor" in what
    return ": a part of a tensor that was cut over several processes; gather the model first" if distributed else ""


def _called(entry: str) -> str:
    return "the top level (.)" if entry == TOP else entry


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
