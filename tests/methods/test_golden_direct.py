"""Methods on whole state dicts give what mergekit 0.1.5 and the authors' code gave."""

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from cuvee import methods

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
RECIPE_KEYS = {"merge_method", "models", "base_model", "dtype", "parameters"}
SEEDS = 200

EQUAL_MAGNITUDES = "equal magnitudes at the cut, and mergekit keeps arbitrary ones; its notie_* twins are compared"

EXCLUSIONS = {
    "ties_d030": EQUAL_MAGNITUDES,
    "ties_rescale": EQUAL_MAGNITUDES,
    "breadcrumbs_default_gamma": EQUAL_MAGNITUDES,
    "breadcrumbs_gamma_clipped": EQUAL_MAGNITUDES,
    "breadcrumbs_ties_default_gamma": EQUAL_MAGNITUDES,
    "breadcrumbs_ties_gamma_clipped": EQUAL_MAGNITUDES,
    "sce_k010": "equal variances at the cut of one tensor; notie_sce_k050 is compared",
    "lora_input": "an adapter is applied by the recipe layer",
    "linear_filters": "parameters that differ by tensor are resolved by the recipe layer",
    "linear_gradient2": "parameters that differ by tensor are resolved by the recipe layer",
    "slerp_t_gradient": "parameters that differ by tensor are resolved by the recipe layer",
    "ties_density_gradient": "parameters that differ by tensor are resolved by the recipe layer",
    "ties_int8_mask": "int8_mask is dropped by the recipe layer",
    "raw_pytorch": "files in place of folders are opened by the store",
    "err_density_above_1": "density 30 is refused",
    "err_typo_param": "the misspelt parameter is refused",
    "err_vocab_mismatch": "mergekit refuses it",
    "err_unknown_method": "mergekit refuses it",
}
"""Plain recipes in mergekit's set that are not for a direct call, and why."""


def plain(path: Path) -> bool:
    documents = list(yaml.safe_load_all(path.read_text()))
    return len(documents) == 1 and documents[0].keys() <= RECIPE_KEYS and documents[0].get("dtype") == "float32"


RECIPES = [
    p.stem
    for p in sorted((GOLDEN / "mergekit/cases").glob("*.yml"))
    if p.stem in json.loads((GOLDEN / "mergekit/index.json").read_text())["cases"] and plain(p)
]
CASES = [
    case
    for case in json.loads((GOLDEN / "weights/cases.json").read_text())
    if case["method"] in methods.names()
    and "ties dare breadcrumbs sce della iso tsv opcm".find(case["method"].split("_")[0]) >= 0
]


@cache
def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def run(folder: Path, recipe: dict[str, Any], only: Iterable[str] = (), **more: Any) -> dict[str, torch.Tensor]:
    """A recipe without gradients or filters as one direct call. mergekit appends a base that is not listed."""
    method = methods.get(recipe.get("merge_method") or recipe["method"])
    base = recipe.get("base_model") or recipe.get("base")
    listed = [(m.get("model") or m["path"], m.get("parameters") or m.get("params") or {}) for m in recipe["models"]]
    params = dict(recipe.get("parameters") or recipe.get("params") or {})
    if method.base == "ordinary" and base and base not in dict(listed):
        listed.append((base, {}))
    models = [m for m in listed if method.base == "ordinary" or m[0] != base]
    for parameter in method.params.values():
        if parameter.per_model and any(parameter.name in own for _, own in models):
            params[parameter.name] = [own.get(parameter.name, params.get(parameter.name)) for _, own in models]
    folders = [folder / path for path, _ in models]
    if base is not None and method.base != "ordinary":
        folders.append(folder / base)
    given = [{name: tensors(f)[name] for name in only or tensors(f)} for f in folders]
    return method(given[: len(models)], *given[len(models) :], **params, **more)


def worst(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    return max((ours[name].double() - tensor.double()).abs().max().item() for name, tensor in theirs.items())


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in EXCLUSIONS])
def test_mergekit(name: str) -> None:
    theirs = load_file(GOLDEN / f"mergekit/cases/{name}.safetensors")
    ours = run(GOLDEN / "mergekit", yaml.safe_load((GOLDEN / f"mergekit/cases/{name}.yml").read_text()))
    assert ours.keys() == theirs.keys()
    assert worst(ours, theirs) <= 1e-6


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_authors(case: dict[str, Any]) -> None:
    folder, expected = GOLDEN / "weights", case["expected"]
    truth = load_file(folder / expected) if isinstance(expected, str) else expected
    check = {"merged": merged, "drop probability per entry": drop_probability, "numbers": squared_norms}
    check.get(case["outputs"], moments)(folder, case, truth)


def merged(folder: Path, case: dict[str, Any], truth: dict[str, torch.Tensor]) -> None:
    assert worst(run(folder, case), truth) <= case["tolerance"]


def drop_probability(folder: Path, case: dict[str, Any], truth: dict[str, torch.Tensor]) -> None:
    model, base = tensors(folder / case["models"][0]["path"]), tensors(folder / case["base"])
    ours = {name: 1 - methods.keep_probability(model[name] - base[name], **case["params"]) for name in truth}
    assert worst(ours, truth) <= case["tolerance"]


def moments(folder: Path, case: dict[str, Any], truth: dict[str, torch.Tensor]) -> None:
    names = {key.split(".", 1)[1] for key in truth}
    draws = [run(folder, case, names, seed=seed) for seed in range(SEEDS)]
    for name in names:
        drawn = torch.stack([draw[name] for draw in draws]).double()
        mean, var = truth[f"mean.{name}"].double(), truth[f"var.{name}"].double()
        off = (drawn.mean(0) - mean).abs() / (var / SEEDS + case["tolerance"] ** 2).sqrt()
        assert off.max() < 6
        assert off.square().mean() == pytest.approx(1, abs=6 * (2 / off.numel()) ** 0.5)
        assert (drawn.var(0) / var)[var > 1e-12].mean() == pytest.approx(1, abs=0.1)


def squared_norms(folder: Path, case: dict[str, Any], truth: dict[str, float]) -> None:
    base = tensors(folder / case["base"])
    density = case["params"]["density"]
    for i, listed in enumerate(case["models"]):
        model = tensors(folder / listed["path"])
        norms = []
        for seed in range(SEEDS // 10):
            kept = methods.get(case["method"])([model], base, seed=seed, **case["params"])
            change = torch.cat([(kept[name].double() - base[name].double()).flatten() for name in base])
            assert change.abs().max() <= truth[f"max_abs.{i}"] / density * (1 + 1e-5)
            norms.append(change.square().sum())
        assert torch.stack(norms).mean().item() == pytest.approx(truth[f"expected_norm2.{i}"], rel=0.05)


def test_the_debt_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert EXCLUSIONS.keys() <= set(RECIPES)
    with capsys.disabled():
        print(f"\n{len(EXCLUSIONS)} of mergekit's {len(RECIPES)} plain float32 recipes are excluded")
