"""From what `Recipe.load` is given to the normal form as data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cuvee.core import CuveeError
from cuvee.recipe.dialect import Dialect
from cuvee.recipe.faults import Fault, Mark, Notice, RecipeError
from cuvee.recipe.faults import Path as Where
from cuvee.recipe.marks import Document, parse
from cuvee.recipe.places import Places


class Given(NamedTuple):
    """A recipe in the normal form, not yet checked."""

    data: Any
    places: Places
    faults: list[Fault]  # of the text and of forms left behind, with their marks
    notices: list[Notice]
    unread: set[Where]  # parts of the normal form that those faults kept from being made
    beside: Path | None


def read(source: str | Path | Mapping[str, Any], name: str | None = None) -> Given:
    """The normal form of a file, of YAML text (several lines, or any text with a `name`), or of a mapping.

    Raises CuveeError for a file that cannot be read, RecipeError for what is no recipe at all.
    """
    beside = None
    if isinstance(source, Mapping):
        documents = [Document(source)]
    else:
        text, label, beside = _text(source, name)
        documents = [each for each in parse(text, label) if each.data is not None]
        if not documents:
            raise RecipeError([Fault((), "The recipe is empty.", mark=Mark(label, 1, 1))])
    for document in documents:
        _check_kind(document)
    dialect = Dialect(documents)
    data = dialect.root()
    faults = [fault for document in documents for fault in document.faults] + dialect.faults
    return Given(data, dialect.places, faults, dialect.notices, dialect.unread, beside)


def _check_kind(document: Document) -> None:
    data = document.data
    if not isinstance(data, Mapping):
        message = f"A recipe is a mapping of merge_method, models and more, not {str(data)[:40]!r}."
        raise RecipeError([Fault((), message, mark=document.values.get(()))])
    if "experts" in data and "merge_method" not in data:
        message = "experts: making a mixture of experts from models is not supported yet."
        raise RecipeError([Fault(("experts",), message, mark=document.keys.get(("experts",)))])


def _text(source: str | Path, name: str | None) -> tuple[str, str, Path | None]:
    if isinstance(source, str) and (name is not None or "\n" in source):
        return source, name or "recipe.yaml", None
    path = Path(source).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CuveeError(f"There is no recipe {source}.") from None
    except IsADirectoryError:
        raise CuveeError(f"{source} is a folder, not a recipe.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CuveeError(f"{source} cannot be read: {error}.") from None
    if path.suffix == ".json":
        text = text.replace("\t", " ")  # JSON may be indented by tabs, YAML may not
    return text, str(source), path.parent
