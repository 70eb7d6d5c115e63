"""Where each part of a recipe's normal form was written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from cuvee.recipe.faults import Found, Mark, Notice, Path
from cuvee.recipe.marks import Document


@dataclass
class Places:
    """The way back from a path in the normal form to the text.

    moved: where subtrees of the normal form came from; a written path starts with its document's index.
    """

    documents: Sequence[Document]
    moved: dict[Path, Path] = field(default_factory=dict)

    def written(self, path: Path) -> Path:
        """The path in the text of a path in the normal form."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.moved:
                return self.moved[path[:length]] + path[length:]
        return (0, *path)

    def repeat(self, path: Path, sources: Sequence[int]) -> None:
        """The items of a list of the normal form are now those that stood at these positions, some more than once."""
        depth = len(path)
        inside = {each: to for each, to in self.moved.items() if each[:depth] == path and len(each) > depth}
        origins = [self.written((*path, source)) for source in sources]
        for each in inside:
            del self.moved[each]
        for place, (source, origin) in enumerate(zip(sources, origins, strict=True)):
            item = (*path, place)
            self.moved.update({(*item, *each[depth + 1 :]): to for each, to in inside.items() if each[depth] == source})
            self.moved[item] = origin

    def settle(self, found: Iterable[Found]) -> list[Found]:
        """Faults or notices of the normal form, with written paths and marks."""
        return [self.settle_written(replace(each, path=self.written(each.path))) for each in found]

    def settle_written(self, found: Found) -> Found:
        """The same of a written path."""
        at_key = isinstance(found, Notice) or found.at_key
        return replace(found, path=found.path[1:], mark=self.mark(found.path, at_key=at_key))

    def mark(self, path: Path, *, at_key: bool = False) -> Mark | None:
        """The mark of the nearest written ancestor of a written path."""
        document, inner = self.documents[int(path[0])], path[1:]
        if at_key and inner in document.keys:
            return document.keys[inner]
        while inner and inner not in document.values:
            inner = inner[:-1]
        return document.values.get(inner)
