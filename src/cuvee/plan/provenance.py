"""Which code made a merge: third-party methods are identified by their source."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING

import xxhash

from cuvee.methods._calls import Call, Leaf
from cuvee.methods._protocol import Method

if TYPE_CHECKING:
    from cuvee.plan.plan import Output


def methods_of(outputs: Iterable[Output]) -> dict[str, Method]:
    """The methods that a plan calls, by name."""
    found: dict[str, Method] = {}

    def visit(node: Leaf | Call) -> None:
        if isinstance(node, Call):
            found[node.method.name] = node.method
            for given in node.inputs():
                visit(given)

    for output in outputs:
        visit(output.expression)
    return found


def method_sources(outputs: Iterable[Output]) -> dict[str, str]:
    """Digest of the source file of each method that is not ours."""
    sources = {}
    for name, method in sorted(methods_of(outputs).items()):
        if not method.function.__module__.startswith("cuvee."):
            try:
                text = inspect.getsource(inspect.getmodule(method.function) or method.function)
            except (OSError, TypeError):
                text = repr(method.function.__code__.co_code)
            sources[name] = xxhash.xxh3_128_hexdigest(text.encode())
    return sources
