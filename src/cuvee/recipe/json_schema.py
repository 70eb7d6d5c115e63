"""The JSON schema of recipes, by which editors complete and check them."""

from __future__ import annotations

from typing import Any

from cuvee import methods
from cuvee.methods import Method
from cuvee.methods._parameters import Parameter
from cuvee.recipe.check import known_parameters
from cuvee.recipe.schema import Recipe

_MODEL: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"$ref": "#/$defs/Recipe"},
        {"$ref": "#/$defs/Reference"},
    ]
}
_PATH: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {"path": {"type": "string"}, "revision": {"type": ["string", "null"]}},
            "required": ["path"],
            "additionalProperties": False,
        },
    ]
}


def json_schema() -> dict[str, Any]:
    """A schema (draft 2020-12) of recipes in the normal form, with every method's parameters, bounds and defaults."""
    schema = Recipe.model_json_schema()
    recipe, entry = schema["$defs"]["Recipe"], schema["$defs"]["ModelEntry"]
    entry["properties"]["model"] = _MODEL
    entry["properties"]["parameters"] = _parameters()
    recipe["properties"] |= {
        "merge_method": {**recipe["properties"]["merge_method"], "enum": methods.names()},
        "base_model": {"anyOf": [*_MODEL["anyOf"], {"type": "null"}]},
        "models": {
            "type": "array",
            "minItems": 1,
            "items": {"anyOf": [{"type": "string"}, _ref("ModelEntry"), _ref("Recipe")]},
        },
        "parameters": _parameters(),
        "polish": {
            "type": "array",
            "items": {"anyOf": [_polish(methods.get(name)) for name in methods.polish_names()]},
        },
        "leave": {**_leave(), "description": recipe["properties"]["leave"]["description"]},
        "slices": _one_slice(),
        "modules": _one_module(),
        "name": {"type": "string", "description": "What other documents of the file call this merge."},
        "tokenizer_source": {"type": "string", "description": "base, union, or a model."},
    }
    for name in ("dtype", "out_dtype"):
        recipe["properties"][name] = _prefixed(recipe["properties"][name])
    recipe["required"] = ["merge_method"]
    recipe["oneOf"] = [{"required": [form]} for form in ("models", "slices", "modules")]
    recipe["allOf"] = [_of_method(methods.get(name)) for name in methods.names()]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A recipe of cuvee",
        "$ref": "#/$defs/Recipe",
        "$defs": {
            "Recipe": recipe,
            "ModelEntry": entry,
            "Reference": {
                "type": "object",
                "properties": {
                    "model": _PATH,
                    "lora": _PATH,
                    "path": {"type": "string"},
                    "revision": {"type": "string"},
                },
                "additionalProperties": False,
            },
        },
    }


def _leave() -> dict[str, Any]:
    """One mapping of a filter and where the tensors come from, or a list of them."""
    one = {
        "type": "object",
        "properties": {"filter": {"type": "string", "minLength": 1}, "from": {"type": ["string", "null"]}},
        "required": ["filter"],
        "additionalProperties": False,
    }
    return {"anyOf": [one, {"type": "array", "items": one}]}


def _one_slice() -> dict[str, Any]:
    """mergekit's form of a merge over all layers."""
    span = {"type": "array", "prefixItems": [{"const": 0}, {"type": "integer", "minimum": 1}], "minItems": 2}
    source = {
        "type": "object",
        "properties": {"model": _MODEL, "layer_range": span, "parameters": _parameters()},
        "required": ["model", "layer_range"],
        "additionalProperties": False,
    }
    only = {
        "type": "object",
        "properties": {
            "sources": {"type": "array", "items": source, "minItems": 1},
            "base_model": _MODEL,
            "parameters": _parameters(),
        },
        "required": ["sources"],
        "additionalProperties": False,
    }
    return {"type": "array", "items": only, "minItems": 1, "maxItems": 1}


def _one_module() -> dict[str, Any]:
    """mergekit's form of a merge by parts, of which there is one."""
    models = {"type": "array", "items": {"anyOf": [{"type": "string"}, _ref("ModelEntry"), _ref("Recipe")]}}
    only = {
        "type": "object",
        "properties": {
            "slices": _one_slice(),
            "models": {**models, "minItems": 1},
            "base_model": _MODEL,
            "parameters": _parameters(),
        },
        "additionalProperties": False,
    }
    return {"type": "object", "properties": {"default": only}, "required": ["default"], "additionalProperties": False}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _prefixed(dtype: dict[str, Any]) -> dict[str, Any]:
    """A dtype with or without `torch.`."""
    names = next(each["enum"] for each in dtype["anyOf"] if "enum" in each)
    return {"enum": [*names, *(f"torch.{name}" for name in names), None], "description": dtype["description"]}


def _parameters() -> dict[str, Any]:
    """Parameters of whatever method."""
    known = sorted(known_parameters())
    return {"type": ["object", "null"], "propertyNames": {"enum": [*known, *(f"{name}_" for name in known)]}}


def _of_method(method: Method) -> dict[str, Any]:
    """What a recipe of one method looks like."""
    own = [each for each in method.params.values() if each.per_model]
    demanded = [each.name for each in method.params.values() if each.required and not each.per_model]
    shared: dict[str, Any] = {"properties": _properties(list(method.params.values()))}
    then: dict[str, Any] = {
        "properties": {
            "merge_method": {"description": f"{method.summary} {method.paper}"},
            "parameters": shared,
            "models": {"items": {"properties": {"parameters": {"properties": _properties(own)}}}},
        },
        "if": {"required": ["models"]},
        "then": {
            "properties": {"parameters": {"required": demanded}},
            "required": [*["base_model"] * (method.base == "required"), *["parameters"] * bool(demanded)],
        },
    }
    return {"if": {"properties": {"merge_method": {"const": method.name}}, "required": ["merge_method"]}, "then": then}


def _polish(step: Method) -> dict[str, Any]:
    """A polish step: its name, or its name with parameters."""
    given = {
        "type": ["object", "null"],
        "properties": _properties([*step.params.values()]),
        "additionalProperties": False,
    }
    named = {"type": "object", "properties": {step.name: given}, "required": [step.name], "additionalProperties": False}
    return {"anyOf": [{"const": step.name, "description": step.summary}, named]}


def _properties(parameters: list[Parameter]) -> dict[str, Any]:
    """Each under its recipe name and its Python one."""
    return {name: _setting(each) for each in parameters for name in dict.fromkeys((each.name, each.argument))}


def _setting(parameter: Parameter) -> dict[str, Any]:
    value = parameter.adapter().json_schema()
    if parameter.kind == "flag":
        value = {"enum": [True, False, 1, 0]}
    told = {"description": parameter.bounds.help} if parameter.bounds.help else {}
    if not parameter.required:
        told["default"] = parameter.default
    if parameter.kind == "list":
        return {**value, **told}
    along = {"anyOf": [value, {"type": "array", "items": value, "minItems": 1}]}
    named = {
        "type": "object",
        "properties": {"filter": {"type": "string"}, "value": along},
        "required": ["value"],
        "additionalProperties": False,
    }
    return {"anyOf": [*along["anyOf"], named, {"type": "array", "items": named, "minItems": 1}], **told}
