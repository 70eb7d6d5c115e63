"""The tensors of a merge: how each input calls them, and which of their names mean one tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cuvee.architecture import tables, ties
from cuvee.architecture.layers import role
from cuvee.architecture.names import Renaming, match
from cuvee.architecture.roles import embedding_of
from cuvee.core import Key, TensorSpec
from cuvee.methods._calls import Call, Leaf
from cuvee.plan.inputs import Input


class Matched:
    """An input under the names of the merge.

    held: the merge's names of the tensors that it stores. tied: for each name that means the same tensor as another
    one in this input, all such names, stored or not.
    """

    def __init__(self, given: Input, renaming: Renaming) -> None:
        self.label, self.given, self.renaming = given.label, given, renaming
        back = {found: wanted for wanted, found in renaming.names.items()}
        self._back = {name: back.get(name) or renaming.forward(name) for name in given.names()}
        self.held = {wanted: found for found, wanted in self._back.items()}
        self.tied: dict[str, set[str]] = {}
        for one, other in given.copies.items():
            self.tie(self._back[one], self._back[other])
        self._tie_by_class()
        self._names = dict(renaming.names)
        self.extra: list[str] = []

    def tie(self, one: str, other: str) -> None:
        """Let two names mean one tensor."""
        joined = {one, other} | self.tied.get(one, set()) | self.tied.get(other, set())
        for name in joined:
            self.tied[name] = joined

    def _tie_by_class(self) -> None:
        """Tied tensors that are not stored, by the class's table."""
        config = self.given.config()
        by_class = tables.tied_keys(config) if config and ties.said_tied(config) is not False else {}
        stored = set(self.given.names())
        for one, other in by_class.items():
            source = by_class.get(other, other)
            if one not in stored and source in stored:
                self.tie(self.renaming.forward(one), self._back[source])

    @property
    def embedding(self) -> str | None:
        """The merge's name of the input embedding, where the head is no tensor of its own."""
        names = self.given.names()
        found = embedding_of(names)
        return self._back[found] if found and ties.ties_head(self.given.config(), names) else None

    def separates(self, one: str, other: str) -> bool:
        """Whether the input stores two tensors with values of their own."""
        return one in self.held and other in self.held and other not in self.tied.get(one, ())

    def resolve(self, groups: Mapping[str, set[str]], outputs: Sequence[str]) -> None:
        """Learn which names mean one tensor: one that this input lacks is read from another of its group."""
        for name in outputs:
            if name in self._names:
                continue
            candidates = [name, *sorted(self.tied.get(name, ())), *sorted(groups.get(name, ()))]
            held = next((self.held[each] for each in candidates if each in self.held), None)
            if held is not None:
                self._names[name] = held
        used = {self._names[name] for name in outputs if name in self._names}
        alike = {name for name, group in groups.items() if group & self._names.keys()}
        self.extra = [found for found, wanted in self._back.items() if found not in used and wanted not in alike]

    def hold(self, name: str) -> None:
        """Have a tensor that the merge leaves as this input has it."""
        self._names.setdefault(name, self.held[name])
        self.extra = [found for found in self.extra if found != self._names[name]]

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def source(self, name: str) -> str:
        return self._names[name]

    def spec(self, name: str) -> TensorSpec:
        return self.given.spec(self._names[name])

    def express(self, name: str, key: Key) -> Leaf | Call:
        return self.given.express(self._names[name], key)


class Tensors:
    """The names of a merge's tensors over its inputs, the first of which is the reference.

    names: in the reference's order; a tensor that is tied in all inputs stands once. own: names that some input ties
    and another does not: the output has them. copies: further names that the output must store, and what they repeat.
    """

    def __init__(self, inputs: Sequence[Input]) -> None:
        reference = inputs[0]
        shapes = {name: reference.spec(name).shape for name in reference.names()}
        self.matched = [Matched(each, _renaming(shapes, reference, each)) for each in inputs]
        self._imply_heads()
        self.groups = self._groups()
        order = {name: place for place, name in enumerate(shapes)}
        rank = ties.ranking(reference.config())
        first = {
            name: min({name} | group, key=lambda each: (each not in order, rank(each), order.get(each, 0), each))
            for name, group in self.groups.items()
        }
        repeated = {name: source for name, source in first.items() if name != source}
        self.own = {n: s for n, s in repeated.items() if any(each.separates(n, s) for each in self.matched)}
        self.names = [name for name in shapes if name not in repeated or name in self.own]
        self.names += sorted(name for name in self.own if name not in shapes)
        self.copies = {
            name: source
            for name, source in repeated.items()
            if name in shapes and name not in self.own and not ties.is_tied_again(name, source, reference.config())
        }
        for each in self.matched:
            each.resolve(self.groups, self.names)

    def _imply_heads(self) -> None:
        """A model without a head, whose config does not say that it has one, uses its embedding."""
        heads = {name for each in self.matched for name in each.held if role(name) == "head"}
        for each in self.matched:
            embedding = each.embedding if heads - each.held.keys() else None
            for head in heads - each.held.keys() if embedding else ():
                shape = each.given.spec(each.held[str(embedding)]).shape
                if any(head in o.held and o.given.spec(o.held[head]).shape == shape for o in self.matched):
                    each.tie(head, str(embedding))

    def _groups(self) -> dict[str, set[str]]:
        """Name -> the other names that mean the same tensor in some input."""
        groups: dict[str, set[str]] = {}
        for each in self.matched:
            for name, alike in each.tied.items():
                joined = {name}.union(alike, *(groups.get(other, ()) for other in alike))
                for other in joined:
                    groups[other] = joined
        return {name: group - {name} for name, group in groups.items()}


def _renaming(shapes: Mapping[str, tuple[int, ...]], reference: Input, given: Input) -> Renaming:
    if given is reference:
        return Renaming({name: name for name in shapes})
    types = {kind for each in (reference, given) for kind in model_types(each.config())}
    return match(shapes, {name: given.spec(name).shape for name in given.names()}, sorted(types))


def model_types(config: Mapping[str, object]) -> list[str]:
    """The model types that a config names, nested ones included."""
    found = [str(config["model_type"])] if config.get("model_type") else []
    for value in config.values():
        found += model_types(value) if isinstance(value, Mapping) else []
    return found
