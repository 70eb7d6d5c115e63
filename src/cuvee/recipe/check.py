"""What a recipe must satisfy beyond its shape: its method, parameters, numbers of models, inner recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path as Root
from typing import Any

from cuvee import limits, methods
from cuvee.core import did_you_mean
from cuvee.methods import Method
from cuvee.methods._parameters import Parameter
from cuvee.recipe.checkpoints import out_of_order, pattern_of
from cuvee.recipe.faults import Fault, Notice, Path
from cuvee.recipe.leave import leave_faults
from cuvee.recipe.roles import MEMORY, Roles, cast, identity, in_memory
from cuvee.recipe.settings import SettingError, as_flags, is_by_name, is_constant, leaves, value_at
from cuvee.recipe.tokenizer import tokenizer_faults
from cuvee.store.place import HERE

ELSEWHERE = {
    "weight",
    "density",
    "lambda",
    "normalize",
    "rescale",
    "int8_mask",
    "gamma",
    "epsilon",
    "t",
    "scale",
    "nuslerp_flatten",
    "nuslerp_row_wise",
    "normalize_weights",
    "eps",
    "max_iter",
    "tol",
    "filter_wise",
    "select_topk",
    "r",
    "alpha",
}
"""Parameters that recipes in the wild have, whether or not a method here uses them."""

OUTER = dict.fromkeys(("seed", "gradient_ends", "allow"), "the outer recipe's counts")
"""Keys that mean nothing in an inner recipe."""


def examine(data: Mapping[str, Any], roots: Sequence[Root] = HERE) -> tuple[list[Fault], list[Notice]]:
    """Faults and notices of a recipe in the normal form, its inner recipes included.

    roots: folders that relative paths of models start from.

    Parts that are not of the right kind are passed over: the schema tells of those.
    """
    examiner = _Examiner(tuple(roots))
    examiner.recipe(data, ())
    return examiner.faults, examiner.notices


def is_parameter(name: str) -> bool:
    """Whether any method has a parameter of this name."""
    return name.rstrip("_") in known_parameters()


def known_parameters() -> set[str]:
    """Names of all parameters of all methods, and of those that mergekit has and ignores."""
    return ELSEWHERE.union(*(methods.get(name).params for name in methods.names()))


class _Examiner:
    """Gathers faults and notices over a recipe and its inner ones."""

    def __init__(self, roots: tuple[Root, ...]) -> None:
        self.roots = roots
        self.faults: list[Fault] = []
        self.notices: list[Notice] = []

    def recipe(self, data: Mapping[str, Any], path: Path) -> None:
        method = self._method(data.get("merge_method"), (*path, "merge_method"))
        base, listed = data.get("base_model"), data.get("models")
        entries = [each if isinstance(each, Mapping) else {} for each in listed] if isinstance(listed, list) else []
        models = [each.get("model") for each in entries]
        for index, model in enumerate(models):
            self._model(model, (*path, "models", index, "model"))
        self._model(base, (*path, "base_model"))
        self.faults += tokenizer_faults(data, path, self.roots)
        self.faults += islice(leave_faults(data, path, method, self.roots), limits.FAULTS)
        for key, why in OUTER.items():
            if path and key in data:
                self.notices.append(Notice((*path, key), f"{key} has no effect in an inner recipe: {why}"))
        roles = (
            cast(method, models, base, self.roots) if method else Roles(list(range(len(models))), [], appended=False)
        )
        shared = _mapping(data.get("parameters"))
        self._polish(data.get("polish"), base, path)
        asked = [method, *(methods.get(name) for name in _steps(data.get("polish")) if name in methods.polish_names())]
        self._sides([each for each in asked if each], _mapping(data.get("side")), path)
        before = len(self.faults)
        self._parameters(method, shared, (*path, "parameters"))
        for index, entry in enumerate(entries):
            idle = "of the base" if index in roles.base else ""
            at = (*path, "models", index, "parameters")
            self._parameters(method, _mapping(entry.get("parameters")), at, under_model=True, idle=idle)
        if method is None or not isinstance(listed, list):
            return
        self._counts(method, roles, base, models, path)
        self._kinds(method, models, path)
        self._order(method, models, path)
        if method.rank is not None and data.get("polish"):
            self.faults.append(
                Fault((*path, "polish"), f"{method.name} makes an adapter: there is no base to polish on.")
            )
        own = [_mapping(entries[index].get("parameters")) for index in roles.merged] + [{}] * roles.appended
        self._required(method, shared, own, roles, path)
        self._lengths(method, shared, len(own), path)
        if len(self.faults) == before:
            self._sums(method, shared, own, path)
            self._whole_model(method, shared, own, roles, path)

    def _method(self, name: Any, path: Path) -> Method | None:
        if not isinstance(name, str):
            return None
        if name in methods.names():
            return methods.get(name)
        if name in methods.polish_names():
            self.faults.append(Fault(path, f"{name} polishes a finished merge: write it in a list under polish."))
            return None
        close = did_you_mean(name, methods.names())
        self.faults.append(Fault(path, f"Unknown method {name!r}.{close}", "cuvee methods lists all"))
        return None

    def _polish(self, steps: Any, base: Any, path: Path) -> None:
        if not isinstance(steps, list) or not steps:
            return
        if base is None:
            self.faults.append(Fault((*path, "polish"), "polish needs a base_model, from which changes are reckoned."))
        for index, step in enumerate(steps):
            if len(self.faults) > limits.FAULTS:
                return
            at = (*path, "polish", index)
            for name, given in ({step: {}} if isinstance(step, str) else _mapping(step)).items():
                if name in methods.polish_names():
                    self._parameters(methods.get(name), _mapping(given), (*at, name))
                else:
                    close = did_you_mean(str(name), methods.polish_names())
                    hint = f"there are {', '.join(methods.polish_names())}"
                    self.faults.append(Fault((*at, name), f"Unknown polish step {name!r}.{close}", hint, at_key=True))

    def _sides(self, asked: list[Method], given: Mapping[str, Any], path: Path) -> None:
        """Side checkpoints that are missing, or that nothing reads."""
        wanted = {name: method.name for method in asked for name in (each.name for each in method.given.values())}
        for name, who in wanted.items():
            if name not in given:
                message = f"{who} needs statistics of data: side: {{{name}: FOLDER}}."
                self.faults.append(Fault((*path, "merge_method"), message))
        for name in given:
            if name not in wanted:
                close = did_you_mean(str(name), wanted)
                self.notices.append(Notice((*path, "side", name), f"nothing here reads side {name!r}.{close}"))

    def _model(self, model: Any, path: Path) -> None:
        if model == MEMORY:
            self.faults.append(
                Fault(path, "was tensors in memory when this recipe was written: name a file or folder.")
            )
        elif isinstance(model, Mapping) and not in_memory(model):
            self.recipe(model, path)

    def _parameters(
        self,
        method: Method | None,
        given: Mapping[str, Any],
        path: Path,
        *,
        under_model: bool = False,
        idle: str = "",
    ) -> None:
        """Names and values of one mapping of parameters; `idle`: whose they are, if nothing reads them."""
        seen: set[str] = set()
        for written, setting in given.items():
            if len(self.faults) > limits.FAULTS:
                return
            name, at = str(written).rstrip("_"), (*path, written)
            if name in seen:
                self.faults.append(Fault(at, f"{name!r} is given twice, as {name} and {name}_.", at_key=True))
            seen.add(name)
            parameter = method.params.get(name) if method else None
            if parameter is not None:
                self._setting(parameter, setting, at)
            if parameter is None and name not in known_parameters():
                self.faults.append(self._unknown(method, name, at))
            elif method is not None:
                self._idle(method, parameter, name, at, idle, under_model=under_model)

    def _unknown(self, method: Method | None, name: str, path: Path) -> Fault:
        own = sorted(method.params) if method else []
        close = did_you_mean(name, own) or did_you_mean(name, sorted(known_parameters()))
        who = method.name if method else "Any method"
        hint = f"{who} takes {', '.join(own)}" if own and not close else ""
        message = f"{who} has no parameter {name!r}." if method else f"No method has a parameter {name!r}."
        return Fault(path, f"{message}{close}", hint, at_key=True)

    def _idle(
        self, method: Method, parameter: Parameter | None, name: str, path: Path, idle: str, *, under_model: bool
    ) -> None:
        if parameter is None:
            self.notices.append(Notice(path, f"{name} has no effect in {method.name}"))
        elif idle:
            self.notices.append(Notice(path, f"{name} {idle} has no effect in {method.name}"))
        elif under_model and not parameter.per_model:
            message = f"{name} has no effect under a model: in {method.name} it belongs to the recipe's parameters"
            self.notices.append(Notice(path, message))

    def _setting(self, parameter: Parameter, setting: Any, path: Path) -> None:
        """Every value of a setting, at its own place."""
        whole = [((), setting)] if parameter.kind == "list" else None
        try:
            for inner, value in whole or leaves(setting):
                if len(self.faults) > limits.FAULTS:
                    return
                try:
                    parameter.parse(value)
                except ValueError as error:
                    self.faults.append(Fault((*path, *inner), str(error), _meaning(parameter)))
        except SettingError as error:
            self.faults.append(Fault((*path, *error.path), f"{parameter.name}: {error}", at_key=error.at_key))

    def _counts(self, method: Method, roles: Roles, base: Any, models: list[Any], path: Path) -> None:
        if not models:
            self.faults.append(Fault((*path, "models"), "models is empty."))
            return
        if method.base == "required" and base is None:
            message = f"{method.name} needs a base_model: the model that its result is reckoned from."
            self.faults.append(Fault((*path, "merge_method"), message))
        count = len(roles.merged) + roles.appended
        wrong = count < method.least or (method.most is not None and count > method.most)
        if wrong and not (method.base == "required" and base is None):
            beside = " beside its base_model" if base is not None and method.base != "ordinary" else ""
            counted = f"{count} {'is' if count == 1 else 'are'} given"
            counted += ", base_model included" if roles.appended else ""
            message = f"{method.name} merges {_range(method.least, method.most)}{beside}; {counted}."
            self.faults.append(Fault((*path, "models"), message, at_key=True))
        if roles.appended and not path and method.rank is None:
            message = f"{method.name} reckons from no base: base_model is merged as one more model, the last"
            self.notices.append(Notice((*path, "base_model"), message))
        known = [identity(model, self.roots) for model in models]
        for index, model in enumerate(models):
            first = known.index(known[index])
            if first != index and model is not None:
                where = (*path, "models", index, "model")
                self.notices.append(Notice(where, f"models[{index}] is models[{first}] once more"))

    def _kinds(self, method: Method, models: list[Any], path: Path) -> None:
        """Adapters are merged with adapters, models with models."""
        for index, model in enumerate(models):
            name = model.get("merge_method") if isinstance(model, Mapping) and not in_memory(model) else None
            inner = methods.get(name) if name in methods.names() else None
            if inner is not None and (inner.rank is None) != (method.rank is None):
                made, wanted = ("a model", "adapters") if inner.rank is None else ("an adapter", "models")
                message = f"{inner.name} makes {made}, and {method.name} merges {wanted}."
                self.faults.append(Fault((*path, "models", index, "model", "merge_method"), message))

    def _order(self, method: Method, models: list[Any], path: Path) -> None:
        """Checkpoints as a shell lists them, 1000 before 200, where their order matters."""
        named = [each for each in models if isinstance(each, str)]
        late = out_of_order(named) if method.ordered and len(named) == len(models) > 1 else None
        if late is not None:
            message = (
                f"{named[late]} stands behind {named[late - 1]}, and the order of models matters to {method.name}: "
                f"list them in ascending order, or give '{pattern_of(named)}' in quotes, which is expanded so."
            )
            self.faults.append(Fault((*path, "models", late, "model"), message))

    def _required(
        self, method: Method, shared: Mapping[str, Any], own: list[Mapping[str, Any]], roles: Roles, path: Path
    ) -> None:
        for parameter in method.params.values():
            if not parameter.required or _given(parameter, shared) is not None:
                continue
            needs, hint = f"{method.name} needs {parameter.name}: give it under", _meaning(parameter)
            if not parameter.per_model:
                self.faults.append(Fault((*path, "merge_method"), f"{needs} parameters.", hint))
                continue
            for place, index in enumerate([*roles.merged, *[None] * roles.appended]):
                if _given(parameter, own[place]) is None:
                    at = (*path, "base_model") if index is None else (*path, "models", index)
                    self.faults.append(Fault(at, f"{needs} this model's parameters.", hint))

    def _lengths(self, method: Method, shared: Mapping[str, Any], count: int, path: Path) -> None:
        """Lists of one number for each model."""
        for parameter in method.params.values():
            given = _given(parameter, shared)
            if parameter.each and isinstance(given, list) and len(given) != count:
                message = f"{parameter.name} has {len(given)} values for {count} models."
                self.faults.append(Fault((*path, "parameters", parameter.name), message, _meaning(parameter)))

    def _sums(self, method: Method, shared: Mapping[str, Any], own: list[Mapping[str, Any]], path: Path) -> None:
        """Weights of an average that cancel, at either end of the model."""
        weight = method.params.get("weight")
        flags = [each for each in method.params.values() if each.kind == "flag" and each.name.startswith("normalize")]
        if weight is None or not method.average or not flags:
            return
        flag = _given(flags[0], shared, default=flags[0].bounds.default)
        settings = [_given(weight, each, shared, default=weight.bounds.default) for each in own]
        if as_flags(flag) is not True or any(is_by_name(each) for each in settings):
            return
        for depth in (0.0, 1.0):
            total = sum(float(value_at(each, depth, "") or 0) for each in settings)
            if abs(total) < 1e-12:
                where = (
                    "" if all(map(is_constant, settings)) else " in the first layer" if not depth else " in the last"
                )
                hint = f"or set {flags[0].name}: false"
                message = f"The weights sum to zero{where}: there is no such average."
                self.faults.append(Fault((*path, "models"), message, hint, at_key=True))
                return

    def _whole_model(
        self, method: Method, shared: Mapping[str, Any], own: list[Mapping[str, Any]], roles: Roles, path: Path
    ) -> None:
        """A rank over the whole model has one density for all its tensors."""
        scope, density = method.params.get("scope"), method.params.get("density")
        if scope is None or density is None:
            return
        chosen = _given(scope, shared, default=scope.bounds.default)
        if "model" not in [value for _, value in leaves(chosen)]:
            return
        at = [((*path, "parameters", "density"), shared)]
        at += [
            ((*path, "models", i, "parameters", "density"), each) for i, each in zip(roles.merged, own, strict=False)
        ]
        for where, each in at:
            setting = _given(density, each)
            if setting is not None and not is_constant(setting):
                message = "density varies by tensor, and with scope: model one threshold holds for the whole model."
                self.faults.append(Fault(where, message, "give one value, or scope: tensor"))


def _steps(polish: Any) -> list[str]:
    """Names of polish steps."""
    steps = polish if isinstance(polish, list) else []
    return [str(name) for step in steps for name in ([step] if isinstance(step, str) else _mapping(step))]


def _mapping(given: Any) -> Mapping[str, Any]:
    return given if isinstance(given, Mapping) else {}


def _meaning(parameter: Parameter) -> str:
    return f"{parameter.name}: {parameter.bounds.help}" if parameter.bounds.help else ""


def _given(parameter: Parameter, *places: Mapping[str, Any], default: Any = None) -> Any:
    """A parameter's setting under either of its names, in the first place that has it."""
    for place in places:
        for name in (parameter.name, parameter.argument):
            if name in place:
                return place[name]
    return default


def _range(least: int, most: int | None) -> str:
    if most is None:
        return f"at least {least} model{'s' if least != 1 else ''}"
    models = f"{most} model{'s' if most != 1 else ''}"
    return f"exactly {models}" if least == most else f"{least} to {models}"
