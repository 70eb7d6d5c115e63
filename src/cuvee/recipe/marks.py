"""YAML to plain data, with the place of every value and key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from cuvee.recipe.faults import Fault, Mark, Path, RecipeError

LARGEST = 200_000
"""Values that a recipe may have with its aliases spelt out."""

_MERGE = "tag:yaml.org,2002:merge"
_EXPONENT = re.compile(r"^[-+]?(?:[0-9][0-9]*)(?:\.[0-9]*)?[eE][-+]?[0-9]+$")

_LINE_ENDS = re.compile("[\x85\u2028\u2029]")  # which only quotes protect


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, to which 1e-5 is a number and 2024-01-31 is a name."""


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
        "tag:yaml.org,2002:str", data, style='"' if _LINE_ENDS.search(data) else None
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
    except ValueError as error:
        raise RecipeError([Fault((), f"Not YAML: {error}.", mark=reading.at)]) from None
    except RecursionError:
        raise RecipeError([Fault((), "Not a recipe: it is nested too deeply.", mark=reading.at)]) from None
    return reading.documents


def dump(data: Any) -> str:
    """Data as YAML that `parse` reads back."""
    return str(yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120))


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
            document = Document(None)
            document.data = self.build(loader, node, (), document)
            self.documents.append(document)

    def build(self, loader: Loader, node: Node, path: Path, document: Document) -> Any:
        self.at = document.values[path] = self._mark(node)
        self._count += 1
        if self._count > LARGEST:
            raise yaml.MarkedYAMLError(problem="aliases make the recipe too large", problem_mark=node.start_mark)
        if isinstance(node, ScalarNode):
            return loader.construct_object(node)
        if any(node is each for each in self._open):
            raise yaml.MarkedYAMLError(problem="an alias holds itself", problem_mark=node.start_mark)
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
        for key_node, value_node in _merged(node):
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

    def _mark(self, node: Node) -> Mark:
        return Mark(self.name, node.start_mark.line + 1, node.start_mark.column + 1)


def _merged(node: MappingNode) -> Iterator[tuple[Node, Node]]:
    """Pairs that `<<` brings in; the first of equal keys counts."""
    for key_node, value_node in node.value:
        if key_node.tag != _MERGE:
            continue
        sources = value_node.value if isinstance(value_node, SequenceNode) else [value_node]
        for source in sources:
            if not isinstance(source, MappingNode) or source is node:
                raise yaml.MarkedYAMLError(problem="<< takes a mapping", problem_mark=value_node.start_mark)
            yield from ((key, value) for key, value in source.value if key.tag != _MERGE)
            yield from _merged(source)


def _place(text: str, position: int, name: str) -> Mark:
    before = text[:position]
    return Mark(name, before.count("\n") + 1, position - before.rfind("\n"))
