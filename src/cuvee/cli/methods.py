"""`cuvee methods`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cuvee.cli.console import print_json, put, stdout


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
        found = [registry.get(each) for each in registry.names()]
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
    from cuvee.recipe.template import commented

    return {
        "name": method.name,
        "summary": method.summary,
        "formula": method.formula,
        "paper": method.paper,
        "base": method.base,
        "models": {"least": method.least, "most": method.most},
        "parameters": [
            {
                "name": p.name,
                "kind": p.kind,
                "per_model": p.per_model,
                "default": None if p.required else p.default,
                "required": p.required,
                "values": p.noun,
                "bounds": p.bounds.words(),
                "choices": list(p.choices),
                "help": p.bounds.help,
            }
            for p in method.params.values()
        ],
        "recipe": commented(_models(method), None if method.base == "ordinary" else "BASE", method.name),
    }


def _models(method: Any) -> list[str]:
    count = min(max(2, method.least), method.most or 2)
    return [f"EXPERT_{letter}" for letter in "ABCDEF"[:count]]


def _print_list(found: list[Any]) -> None:
    from rich.table import Table

    table = Table("method", "what it does", "base", "paper", box=None, pad_edge=False)
    for method in found:
        table.add_row(method.name, method.summary, {"ordinary": ""}.get(method.base, method.base), method.paper)
    stdout().print(table, highlight=False)


def _print_one(method: Any) -> None:
    from rich.table import Table

    facts = _facts(method)
    most = "or more" if method.most is None else "" if method.most == method.least else f"to {method.most}"
    base = {"ordinary": "no base (a listed one is an ordinary model)"}.get(method.base, f"base {method.base}")
    put(f"{method.name}: {method.summary}")
    put(f"formula: {method.formula}")
    put(f"needs: {method.least} {most} models, {base}".replace("  ", " "))
    put(f"paper: {method.paper}\n")
    table = Table("parameter", "default", "for", "values", "meaning", box=None, pad_edge=False)
    for p in facts["parameters"]:
        values = ", ".join(map(str, p["choices"])) if p["choices"] else p["bounds"] or p["values"]
        default = "required" if p["required"] else str(p["default"])
        table.add_row(p["name"], default, "each model" if p["per_model"] else "the merge", values, p["help"])
    stdout().print(table, highlight=False)
    put(f"\n{facts['recipe']}")
