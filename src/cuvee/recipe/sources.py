"""From what `Recipe.load` is given to the normal form as data."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from cuvee.core import CuveeError
from cuvee.recipe.dialect import Dialect
from cuvee.recipe.faults import Fault, Mark, Notice, RecipeError
from cuvee.recipe.faults import Path as Where
from cuvee.recipe.marks import Document, parse
from cuvee.recipe.places import Places
from cuvee.recipe.roles import in_memory
from cuvee.store.place import HERE, find

ENDINGS = (".yaml", ".yml", ".json")
"""Of recipes, in small or capital letters."""

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".npz", ".npy", ".zip", ".tar", ".gz")
"""Endings of files that are no recipes, even where a text stands in their place, such as the pointer of git-lfs."""

LOOK = 1 << 16
"""Bytes of a file with another ending by which a text is known."""


class Given(NamedTuple):
    """A recipe in the normal form, not yet checked."""

    data: Any
    places: Places
    faults: list[Fault]  # of the text and of forms left behind, with their marks
    notices: list[Notice]
    unread: set[Where]  # parts of the normal form that those faults kept from being made
    roots: tuple[Path, ...]  # where relative paths of models start


PAGES = ("<", "version https://git-lfs")
"""What web pages and Git LFS pointers begin with: texts that stand in place of weights."""


def is_recipe_file(reference: Any, roots: Iterable[Path] = HERE) -> bool:
    """Whether a text or path names a recipe: by its ending, else a file that can be read as text.

    A file of weights cannot: it is full of bytes that no text has. Nothing is raised.
    """
    if not isinstance(reference, (str, Path)) or "\n" in str(reference):
        return False
    suffix = Path(reference).suffix.lower()
    path = find(str(reference), roots)
    if suffix in ENDINGS:
        return path is None or not path.is_dir()
    if path is None or suffix in WEIGHTS or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            start = file.read(LOOK)
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
    except (OSError, UnicodeDecodeError):
        return False
    plain = not any(ord(sign) < ord(" ") and sign not in "\t\n\r" for sign in text)
    return plain and bool(text.strip()) and not text.lstrip().startswith(PAGES)


def is_recipe(source: Any) -> TypeGuard[str | Path | Mapping[str, Any]]:
    """Whether something given in Python is a recipe, not a model: a mapping of its keys, YAML text, or a path to one.

    A mapping of tensors is a model, and so is any other mapping without a recipe's keys.
    """
    if isinstance(source, Mapping):
        return not in_memory(source) and any(key in source for key in ("merge_method", "models", "slices", "modules"))
    return (isinstance(source, str) and "\n" in source) or is_recipe_file(source)


def read(source: str | Path | Mapping[str, Any], name: str | None = None, roots: tuple[Path, ...] = ()) -> Given:
    """The normal form of a file, of YAML text (several lines, or any text with a `name`), or of a mapping.

    roots: where relative paths start, in place of the working directory and the file's folder.

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
    roots = roots or (Path(), *([beside] if beside else []))
    dialect = Dialect(documents, roots)
    data = dialect.root()
    faults = [fault for document in documents for fault in document.faults] + dialect.faults
    return Given(data, dialect.places, faults, dialect.notices, dialect.unread, roots)


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
    if path.suffix.lower() == ".json":
        text = text.replace("\t", " ")  # JSON may be indented by tabs, YAML may not
    return text, str(source), path.parent
