"""`cuvee methods`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cuvee.cli.console import print_json, put, put_table


def register(app: typer.Typer) -> None:
    app.command()(methods)


def methods(
    name: Annotated[str | None, typer.Argument(help="A method to explain.", show_default=False)] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List the merge methods, or explain one: needs, parameters, formula, citation, a recipe that runs."""
    from cuvee import methods as registry

    if name is None:
        found = [registry.get(each) for each in (*registry.names(), *registry.polish_names())]
        if as_json:
            print_json([_facts(method) for method in found])
        else:
            _print_list(found)
        return
    method = registry.get(name)
    if as_json:
        print_json(_facts(method))
    else:
        _print_one(method)


def _facts(method: Any) -> dict[str, Any]:
    from cuvee import methods as registry
    from cuvee.recipe.template import commented, polished

    return {
        "name": method.name,
        "summary": method.summary,
        "formula": method.formula,
        "remarks": method.remarks,
        "paper": method.paper,
        "polish": method.polish,
        "base": method.base,
        "family": registry.family(method.name),
        "merges": "adapters" if method.rank else "models",
        "models": {"least": method.least, "most": method.most},
        "parameters": [
            {
                "name": p.name,
                "kind": p.kind,
                "per_model": p.per_model,
                "default": p.default,
                "required": p.required,
                "values": p.noun,
                "bounds": p.bounds.words(),
                "choices": list(p.choices),
                "help": p.bounds.help,
            }
            for p in method.params.values()
        ],
        "recipe": (polished if method.polish else commented)(*_example(method)),
    }


def _example(method: Any) -> tuple[list[str], Any, str]:
    """Models, base and name of a method for a recipe."""
    count = min(max(2, method.least), method.most or 2)
    models = [f"{'ADAPTER' if method.rank else 'EXPERT'}_{letter}" for letter in "ABCDEF"[:count]]
    return models, None if method.base == "ordinary" or method.rank else "BASE", method.name


def _print_list(found: list[Any]) -> None:
    from cuvee import methods as registry

    rows = []
    for method in sorted(found, key=lambda each: registry.family(each.name)):
        base = "polish" if method.polish else "" if method.base == "ordinary" or method.rank else method.base
        rows.append((method.name, registry.family(method.name), method.summary, base, method.paper))
    put_table(("method", "family", "what it does", "base", "paper"), rows)


def _print_one(method: Any) -> None:
    facts = _facts(method)
    most = "or more" if method.most is None else "" if method.most == method.least else f"to {method.most}"
    kind = facts["merges"]
    base = {"ordinary": "no base (a listed one is an ordinary model)"}.get(method.base, f"base {method.base}")
    if method.rank is not None:
        base = "no base (a base_model is recorded, not read)"
    put(f"{method.name}: {method.summary}")
    put(f"formula: {method.formula}")
    models = (
        f"1 {kind[:-1]}" if most == "" and method.least == 1 else f"{method.least} {most} {kind}".replace("  ", " ")
    )
    put("needs: a finished merge with a base" if method.polish else f"needs: {models}, {base}")
    texts = [f"paper: {method.paper}", "", *([*method.remarks.split("\n"), ""] if method.remarks else ())]
    for line in texts:
        put(line)
    rows = []
    for p in facts["parameters"]:
        values = ", ".join(map(str, p["choices"])) if p["choices"] else p["bounds"] or p["values"]
        default = "required" if p["required"] else str(p["default"])
        rows.append((p["name"], default, "each model" if p["per_model"] else "the merge", values, p["help"]))
    put_table(("parameter", "default", "for", "values", "meaning"), rows)
    for line in ("", *facts["recipe"].split("\n")):
        put(line)
