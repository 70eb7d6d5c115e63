"""Inputs as a merge sees them: a checkpoint or an inner merge, with names matched and tied heads resolved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from cuvee.core import Checkpoint, CuveeError, Key, TensorSpec
from cuvee.methods._calls import Call, Leaf
from cuvee.store import anatomy


class Input(Protocol):
    """What a merge may take in: named tensors with specs, each an expression over checkpoints."""

    label: str

    def names(self) -> Sequence[str]: ...

    def spec(self, name: str) -> TensorSpec: ...

    def express(self, name: str, key: Key) -> Leaf | Call: ...

    def config(self) -> Mapping[str, Any]: ...


class Stored:
    """A checkpoint as an input."""

    def __init__(self, checkpoint: Checkpoint, index: int) -> None:
        self.label, self._checkpoint, self.index = checkpoint.label, checkpoint, index

    def names(self) -> Sequence[str]:
        return self._checkpoint.names()

    def spec(self, name: str) -> TensorSpec:
        return self._checkpoint.spec(name)

    def express(self, name: str, key: Key) -> Leaf | Call:
        return Leaf(self.index, name)

    def config(self) -> Mapping[str, Any]:
        return self._checkpoint.config()


class Matched:
    """An input under the names of the merge.

    A wrapper's prefix is put on or taken off; where this model ties its head and another has its own, the head is read
    from the embedding.
    """

    def __init__(self, given: Input, wanted: Iterable[str], head: str | None) -> None:
        self.label, self.given = given.label, given
        wanted = list(wanted)
        found = given.names()
        self._names = anatomy.match_names(wanted, found)
        self.tied = anatomy.ties_head(given.config(), found)
        if head and self.tied:
            embedding = anatomy.embedding_of(found)
            if embedding is not None:
                self._names[head] = embedding
        taken = set(self._names.values())
        self.extra = [name for name in found if name not in taken]

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def source(self, name: str) -> str:
        return self._names[name]

    def spec(self, name: str) -> TensorSpec:
        return self.given.spec(self._names[name])

    def express(self, name: str, key: Key) -> Leaf | Call:
        return self.given.express(self._names[name], key)


def output_names(reference: Input, others: Sequence[Input]) -> tuple[list[str], str | None]:
    """Names of a merge's tensors, in the reference's order, and its head's name if the output has its own.

    If all models tie their head to the embedding, so does the output; if one has its own, the output has it too.
    """
    names = list(reference.names())
    given = [reference, *others]
    heads = [anatomy.head_of(each.names()) for each in given]
    tied = [anatomy.ties_head(each.config(), each.names()) for each in given]
    own = [head for head, ties in zip(heads, tied, strict=True) if head and not ties]
    if own:
        head = heads[0] or own[0]
        return (names if head in names else [*names, head]), head
    if all(tied) and heads[0]:
        names.remove(heads[0])
    return names, None


def check_quantised(given: Input) -> None:
    """Raises CuveeError for weights that are codes, not numbers."""
    quantised = given.config().get("quantization_config")
    if quantised:
        kind = quantised.get("quant_method", "unknown") if isinstance(quantised, Mapping) else quantised
        raise CuveeError(f"{given.label}: quantised weights ({kind}) cannot be merged. Dequantise the model first.")
