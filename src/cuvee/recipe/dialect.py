"""mergekit's forms to the normal form: slices, several documents, references as mappings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path as Root
from typing import Any

from cuvee import limits, methods
from cuvee.core import CuveeError, did_you_mean
from cuvee.recipe.checkpoints import expand, is_pattern
from cuvee.recipe.faults import Fault, Notice, Path, RecipeError
from cuvee.recipe.leave import as_list
from cuvee.recipe.marks import Document
from cuvee.recipe.places import Places
from cuvee.recipe.roles import in_memory, is_bare, same
from cuvee.recipe.settings import is_by_name
from cuvee.recipe.tokenizer import tokenizer_form
from cuvee.store.place import HERE

FORMS = ("models", "slices", "modules")
DEFAULT = "default"
MODULE = ("slices", "models", "base_model", "parameters")
SLICE = ("sources", "base_model", "parameters", "residual_weight")
SOURCE = ("model", "layer_range", "parameters")
_STACKING = "slices that select or stack layers are not supported yet"


class Dialect:
    """Recipes of several documents brought to one in the normal form.

    `faults` and `notices` gather what was wrong with the forms left behind, `unread` what is missing for it in the
    normal form; nothing is raised.
    """

    def __init__(self, documents: Sequence[Document], roots: Sequence[Root] = HERE) -> None:
        """roots: folders that relative paths of models start from."""
        self.roots = roots
        self.places = Places(documents)
        self.faults: list[Fault] = []
        self.notices: list[Notice] = []
        self.unread: set[Path] = set()
        self._documents = documents
        self._names: dict[str, int] = {}
        self._used: set[str] = set()
        self._open: list[int] = []
        self._count = self._depth = 0

    def root(self) -> Any:
        """The recipe of the document without a name, with those that it refers to inside."""
        unnamed = [i for i, each in enumerate(self._documents) if each.data.get("name") is None]
        for index, document in enumerate(self._documents):
            if index not in unnamed and len(self._documents) > 1:
                self._name(index, document.data["name"])
        if len(self._documents) == 1 and not unnamed:
            self._notice((0, "name"), "name has no effect in a recipe of one document")
            unnamed = [0]
        if not unnamed:
            message = "Every document has a name: the one that is to be written must have none."
            self._fault((len(self._documents) - 1, "name"), message)
        for index in unnamed[1:]:
            self._fault((index,), "A second document without a name: only the one that is to be written has none.")
        data = self._recipe((unnamed or [len(self._documents) - 1])[0], ())
        for name in self._names.keys() - self._used:
            used = any(_mentions(each.data, name) for i, each in enumerate(self._documents) if i != self._names[name])
            if unnamed and not used:  # else it is used where a fault kept it from being read
                self._fault((self._names[name], "name"), f"No other document uses {name!r}.")
        return data

    def _name(self, index: int, name: Any) -> None:
        if not isinstance(name, str) or not name:
            self._fault((index, "name"), f"{name!r} is not a name.")
        elif name in self._names:
            self._fault((index, "name"), f"Two documents are named {name!r}.")
        else:
            self._names[name] = index

    def _recipe(self, index: int, here: Path) -> Any:
        """The recipe of a document, which stands at `here` in the normal form."""
        self._open.append(index)
        data = {key: value for key, value in self._documents[index].data.items() if key != "name"}
        normal = self._normal(data, here, (index,))
        self._open.pop()
        return normal

    def _normal(self, data: Mapping[str, Any], here: Path, written: Path) -> dict[str, Any]:
        self._depth += 1
        if self._depth > limits.NESTING:
            raise self._refused(written, f"more than {limits.NESTING} recipes within one another")
        self._move(here, written)
        normal = dict(data)
        given = [form for form in FORMS if data.get(form) is not None]
        for form in given[1:]:
            self._fault((*written, form), f"{given[0]} and {form} exclude each other.", at_key=True)
        for form in FORMS[1:]:
            normal.pop(form, None)
        if given and given[0] == "modules":
            self._modules(normal, data["modules"], here, (*written, "modules"))
        elif given and given[0] == "slices":
            self._slices(normal, data["slices"], here, (*written, "slices"))
        if given and normal.get("models") is None:
            self.unread.add((*here, "models"))
        if isinstance(normal.get("models"), list):
            self._spend(len(normal["models"]), written)
            entries = [self._entry(each, (*here, "models", i)) for i, each in enumerate(normal["models"])]
            normal["models"] = self._expanded(entries, normal.get("merge_method"), here)
        if normal.get("base_model") is not None:
            normal["base_model"] = self._model(normal["base_model"], (*here, "base_model"))
        if isinstance(normal.get("leave"), Mapping):
            self._move((*here, "leave", 0), (*self.places.written(here), "leave"))
            normal["leave"] = as_list(normal["leave"])
        self._tokenizer(normal, here, written)
        self._depth -= 1
        return {key: value for key, value in normal.items() if value is not None}

    def _spend(self, count: int, written: Path) -> None:
        """Count models. Raises RecipeError where there are too many."""
        self._count += count
        if self._count > limits.MODELS:
            raise self._refused(written, f"more than {limits.MODELS:,} models (CUVEE_MAX_MODELS moves the limit)")

    def _refused(self, written: Path, what: str) -> RecipeError:
        return RecipeError([self.places.settle_written(Fault(written, f"Not a recipe that is read: {what}."))])

    def _entry(self, entry: Any, here: Path) -> Any:
        if is_bare(entry):
            self._move((*here, "model"), self.places.written(here))
            entry = {"model": entry}
        if not isinstance(entry, Mapping):
            return entry
        kept = {key: value for key, value in entry.items() if value is not None or key == "model"}
        if "model" in kept:
            kept["model"] = self._model(kept["model"], (*here, "model"))
        return kept

    def _expanded(self, entries: list[Any], name: Any, here: Path) -> list[Any]:
        """Entries, with those that a pattern of paths means in its place, all with its parameters."""
        method = methods.get(name) if name in methods.names() else None
        found: list[tuple[Any, int]] = []
        for index, entry in enumerate(entries):
            model = entry.get("model") if isinstance(entry, Mapping) else None
            if not isinstance(model, str) or not is_pattern(model, self.roots):
                found.append((entry, index))
                continue
            try:
                models = expand(model, self.roots, ordered=method is not None and method.ordered)
            except CuveeError as error:
                self._fault(self.places.written((*here, "models", index, "model")), str(error))
                self.unread.add((*here, "models"))
                models = [model]
            self._spend(len(models) - 1, self.places.written(here))
            found += [({**entry, "model": each}, index) for each in models]
        self.places.repeat((*here, "models"), [index for _, index in found])
        return [entry for entry, _ in found]

    def _model(self, model: Any, here: Path) -> Any:
        """A reference as text, or the recipe that it names."""
        written = self.places.written(here)
        if isinstance(model, str) and model in self._names:
            index = self._names[model]
            self._used.add(model)
            if index not in self._open:
                return self._recipe(index, here)
            self._fault(written, f"{model!r} is made from itself.")
        if not isinstance(model, Mapping) or in_memory(model):
            return model
        if "merge_method" in model or not {"model", "path"} & model.keys():
            return self._normal(model, here, written)
        for key in sorted(model.keys() - {"model", "lora", "path", "revision"}):
            self._fault((*written, key), f"{key} of a model is not supported.", at_key=True)
        lora = _reference(model.get("lora"))
        return _reference(model.get("model", model)) + (f"+{lora}" if lora else "")

    def _modules(self, normal: dict[str, Any], modules: Any, here: Path, written: Path) -> None:
        """The module `default` alone, over all layers, as models."""
        if not isinstance(modules, Mapping) or not modules:
            return self._fault(written, "modules is a mapping of default to slices or models.")
        for name in modules:
            if name != DEFAULT:
                message = f"modules: {name}: merging by parts is not supported yet; {DEFAULT} alone is read."
                self._fault((*written, name), message, at_key=True)
        only, at = modules.get(DEFAULT), (*written, DEFAULT)
        if DEFAULT not in modules:
            return None
        if not isinstance(only, Mapping) or (only.get("slices") is None) == (only.get("models") is None):
            return self._fault(at, f"{DEFAULT} is a mapping with either slices or models.")
        self._known(only, at, MODULE, "a module")
        self._slice_base(normal, only.get("base_model"), here, at)
        self._slice_parameters(normal, only.get("parameters"), here, at)
        if only.get("models") is not None:
            normal["models"] = only["models"]
            return self._move((*here, "models"), (*at, "models"))
        return self._slices(normal, only["slices"], here, (*at, "slices"))

    def _slices(self, normal: dict[str, Any], slices: Any, here: Path, written: Path) -> None:
        """One slice over all layers of its sources, as models."""
        if not isinstance(slices, list) or not slices or not all(isinstance(each, Mapping) for each in slices):
            return self._fault(written, "slices is a list of mappings with sources.")
        if len(slices) > 1:
            return self._fault((*written, 1), f"{len(slices)} slices: {_STACKING}.")
        only, at = slices[0], (*written, 0)
        self._known(only, at, SLICE, "a slice")
        sources = only.get("sources")
        if not isinstance(sources, list) or not all(isinstance(each, Mapping) for each in sources):
            return self._fault((*at, "sources"), "sources is a list of models with a layer_range.")
        normal["models"] = [self._source(i, each, here, (*at, "sources", i)) for i, each in enumerate(sources)]
        self._move((*here, "models"), (*at, "sources"))
        counts = [each.get("layers") for each in normal["models"]]
        for index, count in enumerate(counts[1:], 1):
            if None not in (count, counts[0]) and count != counts[0]:
                where = (*at, "sources", index, "layer_range")
                self._fault(where, f"{count} layers here, {counts[0]} in the first source: {_STACKING}.")
        if "residual_weight" in only:
            self._notice((*at, "residual_weight"), "residual_weight has no effect")
        self._slice_base(normal, only.get("base_model"), here, at)
        self._slice_parameters(normal, only.get("parameters"), here, at)
        return None

    def _source(self, index: int, source: Mapping[str, Any], here: Path, at: Path) -> dict[str, Any]:
        self._known(source, at, SOURCE, "a source")
        entry = {key: value for key, value in source.items() if key in ("model", "parameters")}
        span = source.get("layer_range")
        if not isinstance(span, list) or [type(each) for each in span] != [int, int] or span[1] <= span[0]:
            self._fault((*at, "layer_range"), "layer_range is a list of two layers, from the first to behind the last.")
        elif span[0]:
            self._fault((*at, "layer_range"), f"layers {span[0]} to {span[1]}: {_STACKING}.")
        else:
            entry["layers"] = span[1]
            self._move((*here, "models", index, "layers"), (*at, "layer_range"))
        return entry

    def _slice_base(self, normal: dict[str, Any], base: Any, here: Path, at: Path) -> None:
        if base is None:
            return
        if normal.get("base_model") is not None and not same(normal["base_model"], base, self.roots):
            self._fault((*at, "base_model"), f"{base!r} here, {normal['base_model']!r} above: give one base_model.")
        normal["base_model"] = base
        self._move((*here, "base_model"), (*at, "base_model"))

    def _slice_parameters(self, normal: dict[str, Any], given: Any, here: Path, at: Path) -> None:
        """The slice's parameters go before the recipe's, which count where its filters match nothing."""
        shared = normal.get("parameters") or {}
        if not isinstance(given, Mapping) or not isinstance(shared, Mapping):
            return
        normal["parameters"] = merged = dict(shared)
        for name, setting in given.items():
            target, source = (*here, "parameters", name), (*at, "parameters", name)
            merged[name] = setting
            later = _parts(shared[name], target) if name in shared else []
            inside = ("value",) if name in shared and is_by_name(shared[name]) else ()
            origins = [(self.places.written(at), self.places.written((*at, *inside))) for _, at in later]
            self._forget(target)
            self._move(target, source)
            if later and is_by_name(setting):
                sooner = _parts(setting, source)
                merged[name] = [part for part, _ in (*sooner, *later)]
                for index, (_, origin) in enumerate(sooner):
                    self._move((*target, index), origin)
                for index, (origin, value) in enumerate(origins, len(sooner)):
                    self._move((*target, index), origin)
                    self._move((*target, index, "value"), value)

    def _tokenizer(self, normal: dict[str, Any], here: Path, written: Path) -> None:
        """`tokenizer_source: X` is `tokenizer: {source: X}`; a mapping that says nothing is `{source: base}`."""
        if "tokenizer_source" in normal:
            source = normal.pop("tokenizer_source")
            if normal.get("tokenizer") is not None:
                self._fault((*written, "tokenizer_source"), "tokenizer and tokenizer_source exclude each other.")
            if source is not None:
                normal["tokenizer"] = {"source": source}
            self._move((*here, "tokenizer"), (*written, "tokenizer_source"))
            self._move((*here, "tokenizer", "source"), (*written, "tokenizer_source"))
        tokenizer = normal.get("tokenizer")
        if isinstance(tokenizer, Mapping):
            said = {key: each for key, each in tokenizer.items() if each is not None}
            if isinstance(said.get("source"), Mapping):
                said["source"] = self._model(said["source"], (*here, "tokenizer", "source"))
            normal["tokenizer"] = tokenizer_form(said)
            if (
                normal["tokenizer"] == {"source": "base"}
                and not tokenizer.get("source")
                and not normal.get("base_model")
            ):
                del normal["tokenizer"]

    def _move(self, here: Path, written: Path) -> None:
        self.places.moved[here] = written

    def _forget(self, here: Path) -> None:
        """Nothing at or below a path of the normal form was moved."""
        for path in [each for each in self.places.moved if each[: len(here)] == here]:
            del self.places.moved[path]

    def _known(self, given: Mapping[str, Any], at: Path, known: Sequence[str], owner: str) -> None:
        for key in given:
            if key not in known:
                self._fault((*at, key), f"Unknown key {key!r} of {owner}.{did_you_mean(key, known)}", at_key=True)

    def _fault(self, written: Path, message: str, *, at_key: bool = False) -> None:
        self.faults.append(self.places.settle_written(Fault(written, message, at_key=at_key)))

    def _notice(self, written: Path, message: str) -> None:
        self.notices.append(self.places.settle_written(Notice(written, message)))


def _reference(given: Any) -> str:
    """`{path, revision}` as `path@revision`."""
    if not isinstance(given, Mapping):
        return "" if given is None else str(given)
    revision = given.get("revision")
    return str(given.get("path", "")) + (f"@{revision}" if revision else "")


def _mentions(part: Any, name: str) -> bool:
    """Whether a text somewhere in a document is the name."""
    if isinstance(part, Mapping):
        return not in_memory(part) and any(_mentions(each, name) for key, each in part.items() if key != "name")
    return any(_mentions(each, name) for each in part) if isinstance(part, list) else bool(part == name)


def _parts(setting: Any, written: Path) -> list[tuple[Any, Path]]:
    """A setting as filters, each with where it was written."""
    if not is_by_name(setting):
        return [({"value": setting}, written)]
    if isinstance(setting, Mapping):
        return [(setting, written)]
    return [(each, (*written, index)) for index, each in enumerate(setting)]
