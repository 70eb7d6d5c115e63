"""Tied tensors: several names of one tensor, as the stored bytes, the config and the class say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any

from cuvee.architecture import tables
from cuvee.architecture.roles import embedding_of, head_of
from cuvee.core import TensorSpec

FIRST = 1 << 16
"""Bytes that are compared first: different tensors differ there."""

PIECE = 1 << 20
"""Bytes that are compared at once after that."""

KEY = "tie_word_embeddings"

Read = Callable[[str, int, int], bytes]
"""read(name, start, stop) gives a tensor's bytes [start, stop)."""


def copies(specs: Mapping[str, TensorSpec], read: Read, config: Mapping[str, Any]) -> dict[str, str]:
    """Tensor -> another one of the same model that it repeats byte for byte, outside of layers.

    Only tensors of one dtype and shape are compared. Constant ones, such as zero biases, count only where the config or
    transformers' table says that they are tied: equal values are no evidence there.
    """
    groups: dict[TensorSpec, list[str]] = defaultdict(list)
    for name, spec in specs.items():
        if spec.dtype.is_floating_point and spec.numel > 1 and not any(part.isdigit() for part in name.split(".")):
            groups[spec].append(name)
    head, embedding = head_of(specs), embedding_of(specs)
    pair = {head, embedding} if said_tied(config) and head and embedding else set()
    table = _by_end(tables.tied_keys(config)) if any(len(names) > 1 for names in groups.values()) else {}
    found: dict[str, str] = {}
    for spec, names in groups.items():
        names = sorted(names, key=lambda name: _rank(name, table))
        starts = {name: read(name, 0, min(FIRST, spec.nbytes)) for name in names} if len(names) > 1 else {}
        for place, name in enumerate(names):
            alike = [each for each in names[:place] if each not in found and starts[each] == starts[name]]
            for earlier in alike:
                ends = (_end(name), _end(earlier))
                tied = pair == {name, earlier} or table.get(ends[0]) == ends[1] or table.get(ends[1]) == ends[0]
                evident = not _constant(starts[name], spec.dtype.itemsize) and _equal(name, earlier, spec.nbytes, read)
                if tied or evident:
                    found[name] = earlier
                    break
    return found


def ranking(config: Mapping[str, Any]) -> Callable[[str], int]:
    """How a model's names are ranked: of those that mean one tensor, the one of the least rank stands for all."""
    table = _by_end(tables.tied_keys(config))
    return lambda name: _rank(name, table)


def _rank(name: str, table: Mapping[str, str]) -> int:
    """0 for what a class ties others to, 1 for other embeddings, 2 for the rest: the first of a group stands for it."""
    if _end(name) in table.values() and _end(name) not in table:
        return 0
    return 1 if embedding_of([name]) else 2


def _constant(data: bytes, size: int) -> bool:
    """Whether all entries of `size` bytes are alike."""
    return data == data[:size] * (len(data) // size)


def ties_head(config: Mapping[str, Any], names: Collection[str]) -> bool:
    """Whether a model's head is its embedding: as its config says, or else when it stores none."""
    said = said_tied(config)
    if said is not None:
        return said and embedding_of(names) is not None
    return head_of(names) is None and embedding_of(names) is not None


def said_tied(config: Mapping[str, Any]) -> bool | None:
    """What a config says of its tie, at its top or in the config of its text model; None where it says nothing."""
    inner = config.get("text_config")
    for place in (config, inner if isinstance(inner, Mapping) else {}):
        if KEY in place:
            return bool(place[KEY])
    return None


def expects_tie(config: Mapping[str, Any]) -> bool:
    """Whether what loads a model ties its head: as its config says, or else as its class does."""
    said = said_tied(config)
    return bool(said) if said is not None else tables.ties_by_default(config) is True


def without_tie(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose model has a head of its own: the key is false at the top, and wherever else it stands."""
    return {**_untied(config), KEY: False}


def is_tied_again(name: str, source: str, config: Mapping[str, Any]) -> bool:
    """Whether the library that loads a model makes a tensor from another one, so that a file need not hold it."""
    said = said_tied(config)
    if said is False or not config:
        return False
    if _by_end(tables.tied_keys(config)).get(_end(name)) in (_end(source), _root_of(name, config)):
        return expects_tie(config)
    return bool(said) and name == head_of([name])


def _root_of(name: str, config: Mapping[str, Any]) -> str | None:
    """The last source of a tied tensor."""
    table = _by_end(tables.tied_keys(config))
    end, seen = _end(name), set()
    while end in table and end not in seen:
        seen.add(end)
        end = table[end]
    return end if seen else None


def _untied(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _untied(value) if isinstance(value, Mapping) else False if key == KEY else value
        for key, value in config.items()
    }


def _equal(one: str, other: str, size: int, read: Read) -> bool:
    spans = ((at, min(at + PIECE, size)) for at in range(FIRST, size, PIECE))
    return all(read(one, *span) == read(other, *span) for span in spans)


def _by_end(table: Mapping[str, str]) -> dict[str, str]:
    return {_end(name): _end(source) for name, source in table.items()}


def _end(name: str) -> str:
    """The last parts of a name, which wrappers and versions of a class leave alone."""
    return ".".join(name.split(".")[-3:])
