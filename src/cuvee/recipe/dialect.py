"""mergekit's forms to the normal form: slices, several documents, references as mappings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cuvee.core import did_you_mean
from cuvee.recipe.faults import Fault, Notice, Path
from cuvee.recipe.marks import Document
from cuvee.recipe.places import Places
from cuvee.recipe.roles import in_memory, is_bare, same
from cuvee.recipe.settings import is_by_name

FORMS = ("models", "slices", "modules")
SLICE = ("sources", "base_model", "parameters", "residual_weight")
SOURCE = ("model", "layer_range", "parameters")
_STACKING = "slices that select or stack layers are not supported yet"


class Dialect:
    """Recipes of several documents brought to one in the normal form.

    `faults` and `notices` gather what was wrong with the forms left behind, `unread` what is missing for it in the
    normal form; nothing is raised.
    """

    def __init__(self, documents: Sequence[Document]) -> None:
        self.places = Places(documents)
        self.faults: list[Fault] = []
        self.notices: list[Notice] = []
        self.unread: set[Path] = set()
        self._documents = documents
        self._names: dict[str, int] = {}
        self._used: set[str] = set()
        self._open: list[int] = []

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
            if unnamed:
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
        self._move(here, written)
        normal = dict(data)
        given = [form for form in FORMS if data.get(form) is not None]
        for form in given[1:]:
            self._fault((*written, form), f"{given[0]} and {form} exclude each other.", at_key=True)
        for form in FORMS[1:]:
            normal.pop(form, None)
        if "modules" in given:
            self._fault((*written, "modules"), "modules: merging by parts is not supported yet.", at_key=True)
        elif given and given[0] == "slices":
            self._slices(normal, data["slices"], here, (*written, "slices"))
        if given and normal.get("models") is None:
            self.unread.add((*here, "models"))
        if isinstance(normal.get("models"), list):
            entries = [self._entry(each, (*here, "models", i)) for i, each in enumerate(normal["models"])]
            normal["models"] = entries
        if normal.get("base_model") is not None:
            normal["base_model"] = self._model(normal["base_model"], (*here, "base_model"))
        self._tokenizer(normal, here, written)
        return {key: value for key, value in normal.items() if value is not None}

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
        if normal.get("base_model") is not None and not same(normal["base_model"], base):
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
            self._move(target, source)
            if name in shared and is_by_name(setting):
                parts = [*_parts(setting, source), *_parts(shared[name], (*self.places.written(here), *target[-2:]))]
                merged[name] = [part for part, _ in parts]
                for index, (_, origin) in enumerate(parts):
                    self._move((*target, index), origin)
                if not is_by_name(shared[name]):
                    self._move((*target, len(parts) - 1, "value"), parts[-1][1])

    def _tokenizer(self, normal: dict[str, Any], here: Path, written: Path) -> None:
        """`tokenizer_source: X` is `tokenizer: {source: X}`."""
        if "tokenizer_source" not in normal:
            return
        source = normal.pop("tokenizer_source")
        if normal.get("tokenizer") is not None:
            self._fault((*written, "tokenizer_source"), "tokenizer and tokenizer_source exclude each other.")
        normal["tokenizer"] = {"source": source}
        self._move((*here, "tokenizer"), (*written, "tokenizer_source"))
        self._move((*here, "tokenizer", "source"), (*written, "tokenizer_source"))

    def _move(self, here: Path, written: Path) -> None:
        self.places.moved[here] = written

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


def _parts(setting: Any, written: Path) -> list[tuple[Any, Path]]:
    """A setting as filters, each with where it was written."""
    if not is_by_name(setting):
        return [({"value": setting}, written)]
    if isinstance(setting, Mapping):
        return [(setting, written)]
    return [(each, (*written, index)) for index, each in enumerate(setting)]
