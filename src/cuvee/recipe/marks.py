"""YAML to plain data, with the place of every value and key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from cuvee import limits
from cuvee.core import SHORT
from cuvee.recipe.faults import Fault, Mark, Path, RecipeError
from cuvee.text import HALVES, UNSEEN, shown

_MERGE = "tag:yaml.org,2002:merge"
_EXPONENT = re.compile(r"^[-+]?(?:[0-9][0-9]*)(?:\.[0-9]*)?[eE][-+]?[0-9]+$")

_HALF = re.compile(f"[{HALVES}]")
_CONTAINERS = ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, to which 1e-5 is a number and 2024-01-31 is a name; what it takes is bounded."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """A node with all inside. Raises MarkedYAMLError where there are too many, or too deep."""
        self._count += 1
        self._depth += 1
        if self._count > limits.RECIPE_VALUES:
            raise self._error(f"more than {limits.RECIPE_VALUES:,} values")
        if self._depth > limits.DEPTH:
            raise self._error(f"nested deeper than {limits.DEPTH} levels")
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """The value of a node. Raises MarkedYAMLError where its text is none of its kind."""
        if node.tag in _NUMBERS and len(node.value) > limits.DIGITS:
            raise yaml.MarkedYAMLError(problem=f"a number of {len(node.value):,} digits", problem_mark=node.start_mark)
        kind = node.tag.rpartition(":")[2]
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError):
            problem = f"{str(node.value)[:SHORT]!r} is no {kind}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None
        if isinstance(value, str) and _HALF.search(value):
            raise yaml.MarkedYAMLError(problem="half a character", problem_mark=node.start_mark)
        if not isinstance(value, (str, int, float, type(None))):
            raise yaml.MarkedYAMLError(problem=f"a {kind} is no value here", problem_mark=node.start_mark)
        return value

    def _error(self, problem: str) -> yaml.MarkedYAMLError:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


class Dumper(yaml.SafeDumper):
    """Writes what `Loader` reads: blocks, with lists of plain values on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


for _each in (Loader, Dumper):
    _each.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in _each.yaml_implicit_resolvers.items()
    }
    _each.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))
Dumper.add_representer(
    list,
    lambda dumper, data: dumper.represent_sequence(
        "tag:yaml.org,2002:seq", data, flow_style=not any(isinstance(each, (dict, list)) for each in data)
    ),
)
Dumper.add_representer(
    str,
    lambda dumper, data: dumper.represent_scalar(
        "tag:yaml.org,2002:str", data, style='"' if UNSEEN.search(data) else None
    ),
)


@dataclass
class Document:
    """One YAML document: its data, the mark of each value and of each key by path, and keys given twice."""

    data: Any
    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def parse(text: str, name: str) -> list[Document]:
    """All documents of a text. Raises RecipeError for what is no YAML."""
    reading = _Reading(name)
    if len(text) > limits.RECIPE:
        problem = f"Not a recipe: it has more than {limits.RECIPE:,} characters."
        raise RecipeError([Fault((), problem, mark=reading.at)])
    try:
        loader = Loader(text)
        while loader.check_node():
            reading.read(loader)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        problem = error.problem or "cannot be read"
        mark = Mark(name, at.line + 1, at.column + 1) if at else None
        raise RecipeError([Fault((), f"Not YAML: {problem}.", mark=mark)]) from None
    except yaml.reader.ReaderError as error:
        mark = _place(text, error.position, name)
        raise RecipeError([Fault((), f"Not a text: {error.reason}.", mark=mark)]) from None
    except (ValueError, OverflowError) as error:  # of a character's number that is none
        raise RecipeError([Fault((), f"Not YAML: {error}.", mark=reading.at)]) from None
    return reading.documents


def dump(data: Any) -> str:
    """Data as YAML that `parse` reads back."""
    text = str(yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120))
    return "\n".join(map(shown, text.split("\n")))  # in quotes, where YAML has the same escapes


class _Reading:
    """One pass over a text."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.at = Mark(name, 1, 1)
        self.documents: list[Document] = []
        self._open: list[Node] = []
        self._count = 0

    def read(self, loader: Loader) -> None:
        """One more document."""
        node = loader.get_node()
        if node is not None:
            if len(self.documents) == limits.DOCUMENTS:
                problem = f"more than {limits.DOCUMENTS} documents"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
            document = Document(None)
            document.data = self.build(loader, node, (), document)
            self.documents.append(document)

    def build(self, loader: Loader, node: Node, path: Path, document: Document) -> Any:
        self.at = document.values[path] = self._mark(node)
        self._spend(node)
        if isinstance(node, ScalarNode):
            return loader.construct_object(node)
        if any(node is each for each in self._open):
            raise yaml.MarkedYAMLError(problem="an alias holds itself", problem_mark=node.start_mark)
        if node.tag not in _CONTAINERS:
            raise yaml.MarkedYAMLError(problem=f"a tag of no meaning here: {node.tag}", problem_mark=node.start_mark)
        self._open.append(node)
        try:
            if isinstance(node, SequenceNode):
                return [self.build(loader, each, (*path, i), document) for i, each in enumerate(node.value)]
            assert isinstance(node, MappingNode)
            return self._mapping(loader, node, path, document)
        finally:
            self._open.pop()

    def _mapping(self, loader: Loader, node: MappingNode, path: Path, document: Document) -> dict[str, Any]:
        built: dict[str, Any] = {}
        seen: dict[str, Mark] = {}
        if len(node.value) > limits.KEYS:
            raise yaml.MarkedYAMLError(problem=f"more than {limits.KEYS:,} keys", problem_mark=node.start_mark)
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                continue
            key, mark = self._key(key_node), self._mark(key_node)
            if key in seen:
                hint = f"first on line {seen[key].line}"
                document.faults.append(Fault((*path, key), f"{key!r} is given twice.", hint, mark))
                continue
            seen[key] = mark
            built[key] = self._pair(loader, value_node, (*path, key), document, mark)
        for key_node, value_node in self._merged(node, len(self._open)):
            key = self._key(key_node)
            if key not in built:
                built[key] = self._pair(loader, value_node, (*path, key), document, self._mark(key_node))
        return built

    def _pair(self, loader: Loader, node: Node, path: Path, document: Document, key: Mark) -> Any:
        document.keys[path] = key
        return self.build(loader, node, path, document)

    def _key(self, node: Node) -> str:
        if not isinstance(node, ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key is a name", problem_mark=node.start_mark)
        return str(node.value)

    def _merged(self, node: MappingNode, depth: int) -> Iterator[tuple[Node, Node]]:
        """Pairs that `<<` brings in, each of which counts as a value; of equal keys the first is taken."""
        for key_node, value_node in node.value:
            if key_node.tag != _MERGE:
                continue
            if depth > limits.DEPTH:
                raise yaml.MarkedYAMLError(problem="<< within << too deeply", problem_mark=key_node.start_mark)
            sources = value_node.value if isinstance(value_node, SequenceNode) else [value_node]
            for source in sources:
                self._spend(value_node)
                if not isinstance(source, MappingNode) or source is node:
                    raise yaml.MarkedYAMLError(problem="<< takes a mapping", problem_mark=value_node.start_mark)
                for key, value in source.value:
                    self._spend(key)
                    if key.tag != _MERGE:
                        yield key, value
                yield from self._merged(source, depth + 1)

    def _spend(self, node: Node) -> None:
        """Count a value."""
        self._count += 1
        if self._count > limits.RECIPE_VALUES:
            raise yaml.MarkedYAMLError(problem="aliases make the recipe too large", problem_mark=node.start_mark)

    def _mark(self, node: Node) -> Mark:
        return Mark(self.name, node.start_mark.line + 1, node.start_mark.column + 1)


def _place(text: str, position: int, name: str) -> Mark:
    before = text[:position]
    return Mark(name, before.count("\n") + 1, position - before.rfind("\n"))
