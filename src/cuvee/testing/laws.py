"""Laws on values: what a merge of tensors must give, whatever the method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from cuvee.core import CuveeError
from cuvee.methods import Method
from cuvee.methods._protocol import asks
from cuvee.testing.cases import Case, cases, contexts, defaults, example, far, guesses, normal, tied
from cuvee.testing.law import assert_close, law

FLOAT32_UP = (torch.float32, torch.float64)

SAFEGUARDS = {"max_iter", "tol", "eps"}
"""By name: numbers that end an iteration or keep a divisor from zero; small ones have no say in a result."""


def needs_base(method: Method) -> bool:
    return method.base != "ordinary"


def weighs(method: Method) -> bool:
    """Whether each of several models has a weight."""
    return "weight" in method.params and method.params["weight"].per_model and method.most != 1


def wants(method: Method, name: str) -> bool:
    """Whether the method or one of its folds asks for an input."""
    return name in asks(method.function) or any(name in asks(fold.of) for fold in method.stats.values())


def at_base(method: Method) -> st.SearchStrategy[Case]:
    return cases(method).filter(lambda case: case.base is not None).map(_all_base)


def _all_base(case: Case) -> Case:
    assert case.base is not None
    return replace(case, models=(case.base,) * len(case.models))


def reach(params: Mapping[str, Any]) -> float:
    """How much a method may magnify rounding: no law here draws numbers above 2."""
    return 4.0 if "t" in params else 1.0


@law(applies=needs_base, draw=at_base)
def equal_to_the_base_gives_the_base(method: Method, case: Case) -> None:
    assert case.base is not None
    assert_close(case.merged(method), case.base, reach(case.params) * case.largest(), steps=2)


@law(applies=lambda method: wants(method, "deltas") and not wants(method, "models"), draw=at_base)
def equal_to_the_base_gives_it_bitwise(method: Method, case: Case) -> None:
    assert case.base is not None
    merged = case.merged(method)
    assert torch.equal(merged, case.base.to(merged.dtype))


@law(
    applies=lambda method: method.neutral is not None,
    draw=lambda method: cases(method, count=1, fixed={**defaults(method), **(method.neutral or {})}),
)
def one_model_is_kept_by_neutral_parameters(method: Method, case: Case) -> None:
    assert_close(case.merged(method), case.models[0], case.largest(), steps=8)


def equal_models(method: Method) -> st.SearchStrategy[Case]:
    """Any weights; the other numbers and the flags that say whether weights are shares at their defaults."""
    kept = {
        name: value
        for name, value in defaults(method).items()
        if name != "weight" and (not isinstance(value, bool) or name.startswith("normalize"))
    }
    return cases(method, fixed=kept).map(lambda case: replace(case, models=case.models[:1] * len(case.models)))


@law(applies=lambda method: method.average, draw=equal_models)
def equal_models_average_to_that_model(method: Method, case: Case) -> None:
    assert_close(case.merged(method), case.models[0], 16 * case.largest(), steps=16)


@law(draw=lambda method: cases(method, empty=True, mixed=True))
def keeps_shape_and_widens_dtype(method: Method, case: Case) -> None:
    merged = case.merged(method)
    dtypes = [tensor.dtype for tensor in (*case.models, *([] if case.base is None else [case.base]))]
    assert merged.shape == case.models[0].shape
    assert merged.dtype == reduce(torch.promote_types, dtypes, torch.float32)


def extreme(shape: tuple[int, ...], count: int, seed: int) -> list[Tensor]:
    """Zeros, constants, duplicates, opposites, values up to 1e18 and down to 1e-20, mixed."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(shape, generator=generator, dtype=torch.float64).clamp(-1, 1)
    kinds = [torch.zeros(shape, dtype=torch.float64), torch.ones(shape, dtype=torch.float64), random, -random]
    kinds += [kind * size for kind in kinds[1:] for size in (1e18, 1e-20)]
    kinds += [torch.where(random > 0.5, 1e18, random * 1e-20)]
    return [kinds[int(torch.randint(len(kinds), (), generator=generator))] for _ in range(count + 1)]


@law(draw=lambda method: cases(method, values=[extreme, tied], dtypes=(torch.bfloat16, *FLOAT32_UP)))
def is_finite_on_extreme_values(method: Method, case: Case) -> None:
    assert case.merged(method).isfinite().all()


def untied(method: Method) -> st.SearchStrategy[Case]:
    return cases(method, values=[normal], dtypes=FLOAT32_UP)


def settled(method: Method) -> st.SearchStrategy[Case]:
    """Where iterations go on until they settle, to the precision of float32."""
    fixed = {name: value for name, value in defaults(method).items() if name in SAFEGUARDS}
    return cases(method, values=[normal], dtypes=[torch.float32], fixed=fixed)


@law(applies=lambda method: method.symmetric and method.most != 1, draw=settled)
def order_of_models_does_not_matter(method: Method, case: Case) -> None:
    merged = case.merged(method)
    scale = 16 * max(case.largest(), merged.abs().max().item())
    for shift in range(1, len(case.models)):
        turned = {n: [*v[shift:], *v[:shift]] if isinstance(v, list) else v for n, v in case.params.items()}
        other = replace(case, models=(*case.models[shift:], *case.models[:shift]), params=turned)
        assert_close(other.merged(method), merged, scale)


@law(applies=lambda method: method.homogeneous, draw=settled)
def scaling_all_scales_the_merge(method: Method, case: Case) -> None:
    merged = case.merged(method)
    for factor in (0.25, 8.0):
        other = case.mapped(lambda tensor, factor=factor: tensor * factor)  # type: ignore[misc]
        given = {**defaults(method), **case.params}
        sizes = {p.name: given[p.name] * factor for p in method.params.values() if p.bounds.scaled}
        scaled = other.having(**sizes).merged(method)
        assert_close(scaled, merged * factor, 16 * factor * max(case.largest(), merged.abs().max().item()))


@law(applies=lambda method: method.homogeneous, draw=untied)
def negating_all_negates_the_merge(method: Method, case: Case) -> None:
    merged = case.merged(method)
    assert_close(case.mapped(torch.neg).merged(method), -merged, merged.abs().max().item())


@law(applies=weighs, draw=untied)
def a_model_of_no_weight_has_no_say(method: Method, case: Case) -> None:
    if len(case.models) > 1:
        mute = case.having(weight=[*[abs(w) + 0.25 for w in case.params["weight"][:-1]], 0.0])
        other = replace(mute, models=(*mute.models[:-1], 3 - mute.models[0]))
        assert_close(other.merged(method), mute.merged(method), 8 * max(mute.largest(), other.largest()))


@law(draw=None)
def every_input_counts(method: Method, case: Case) -> None:
    other = example(method, dense=True)
    merged = case.merged(method)
    for place in range(len(case.models)):
        models = (*case.models[:place], other.models[place], *case.models[place + 1 :])
        assert not torch.equal(merged, replace(case, models=models).merged(method)), f"model {place} is ignored"
    if case.base is not None:
        assert not torch.equal(merged, replace(case, base=case.base + 1).merged(method)), "the base is ignored"


@law(applies=lambda method: bool(method.params), draw=None)
def every_parameter_counts(method: Method, case: Case) -> None:
    for parameter in method.params.values():
        if parameter.kind == "list" and not guesses(parameter, len(case.models)):
            continue
        each = parameter.per_model and len(case.models) > 1
        assert _responds(method, case, parameter.name, each=each), f"{parameter.name} is ignored"


def _responds(method: Method, case: Case, name: str, *, each: bool = False) -> bool:
    """Whether some values of a parameter, beside some values of the others, make a difference.

    each: whether it matters which model has which value. Of a parameter that only guards: whether it takes some values
    and refuses others.
    """
    spread = len(case.models)
    tried = guesses(method.parameter(name), spread)
    if method.parameter(name).bounds.guard:
        return len({_takes(method, case.having(**{name: value})) for value in tried}) == 2
    for context in (*contexts(method, spread), *far(method, spread)):
        found: list[Tensor] = []
        for value in tried:
            given = [[value, *tried[:1] * (spread - 1)], [*tried[:1] * (spread - 1), value]] if each else [value]
            try:
                found += [replace(case, params={**context, name: one}).merged_beside(method) for one in given]
            except CuveeError:  # numbers that do not fit together
                continue
            pairs = [found[-2:]] if each else [[found[0], found[-1]]]
            if any(not torch.equal(*pair) for pair in pairs):
                return True
    return False


def _takes(method: Method, case: Case) -> bool:
    try:
        case.merged(method)
    except CuveeError:
        return False
    return True


@law(draw=None)
def slopes_are_right(method: Method, case: Case) -> None:
    """In every number but stepped ones, and in the inputs; away from ties."""
    dense = example(method, dense=True, dtype=torch.float64, shape=(3, 4))
    found = [each for each in contexts(method, len(dense.models)) if _takes(method, replace(dense, params=each))]
    for context in found[:: max(1, len(found) // 4)]:
        here = replace(dense, params=context)
        inputs = [*here.models, *([] if here.base is None else [here.base])]

        def by_inputs(*given: Tensor, here: Case = here) -> Tensor:
            base = given[-1] if here.base is not None else None
            return replace(here, models=given[: len(here.models)], base=base).merged(method)

        assert _gradcheck(by_inputs, inputs), f"in the inputs, with {context}"
        for p in method.params.values():
            if p.bounds.stepped or p.bounds.guard or not (p.kind == "number" or p.each):
                continue

            several = p.per_model or p.each

            def by_number(*given: Tensor, here: Case = here, name: str = p.name, own: bool = several) -> Tensor:
                return here.having(**{name: list(given) if own else given[0]}).merged(method)

            count = len(here.models) if several else 1
            start = [torch.tensor(0.6 + 0.1 * i, dtype=torch.float64) for i in range(count)]
            assert _gradcheck(by_number, start), f"in {p.name}, with {context}"


def _gradcheck(function: Any, inputs: list[Tensor]) -> bool:
    leaves = tuple(tensor.clone().requires_grad_() for tensor in inputs)
    return torch.autograd.gradcheck(function, leaves, raise_exception=False)


@law(applies=lambda method: wants(method, "bits"), draw=None)
def masks_are_drawn_by_name_place_and_seed(method: Method, case: Case) -> None:
    assert case.base is not None
    base, change = torch.zeros(400), torch.linspace(1, 2, 400)
    count = len(case.models)

    def draw(names: str = "ab", seed: int = 0, **more: Any) -> dict[str, Tensor]:
        models = [dict.fromkeys(names, change) for _ in range(count)]
        drawn: dict[str, Tensor] = method(models, dict.fromkeys(names, base), seed=seed, **{**case.params, **more})
        return drawn

    first = draw()
    assert all(torch.equal(first[name], draw("ba")[name]) for name in first), "order of tensors"
    assert torch.equal(first["a"], draw("a")["a"]), "other tensors"
    assert not torch.equal(first["a"], first["b"]), "two tensors share a mask"
    assert not torch.equal(first["a"], draw(seed=1)["a"]), "the seed is ignored"
    if weighs(method) and count > 1:
        alone = [draw("a", weight=[float(i == place) for i in range(count)])["a"] for place in range(2)]
        assert not torch.equal(*alone), "two models share a mask"
