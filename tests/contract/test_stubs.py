"""The laws have teeth: methods that cheat break one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cuvee import methods
from cuvee.methods import Method
from cuvee.testing import broken
from cuvee.testing.cases import guesses

NAMES = methods.for_tensors()


def first_model(models: list[Tensor], base: Tensor | None) -> Tensor:
    return models[0]


def mean(models: list[Tensor], base: Tensor | None) -> Tensor:
    return torch.stack([model.float() for model in models]).mean(0)


def zeros(models: list[Tensor], base: Tensor | None) -> Tensor:
    return torch.zeros_like(models[0])


def the_base(models: list[Tensor], base: Tensor | None) -> Tensor:
    return models[-1] if base is None else base


class Cheat(Method):
    """A method with another's signature and its own answer."""

    answer: Callable[..., Any]

    def __call__(self, models: Any, base: Any = None, *, seed: int = 0, **params: Any) -> Any:
        return self.answer(super().__call__, models, base, seed, params)


def cheat(method: Method, answer: Callable[..., Any]) -> Cheat:
    made = Cheat(**{field: getattr(method, field) for field in method.__dataclass_fields__})
    object.__setattr__(made, "answer", answer)
    return made


def replaced(stub: Callable[..., Tensor]) -> Callable[..., Any]:
    def answer(honest: Callable[..., Any], models: Any, base: Any, seed: int, params: Any) -> Any:
        wanted = honest(models, base, seed=seed, **params)  # what is refused stays refused
        if isinstance(wanted, dict):
            return {
                name: stub([model[name] for model in models], None if base is None else base[name]).to(value.dtype)
                for name, value in wanted.items()
            }
        return stub(list(models), base).to(wanted.dtype)

    return answer


def ignoring(name: str, held: Any) -> Callable[..., Any]:
    def answer(honest: Callable[..., Any], models: Any, base: Any, seed: int, params: Any) -> Any:
        honest(models, base, seed=seed, **params)
        return honest(models, base, seed=seed, **{**params, name: held})

    return answer


@pytest.mark.parametrize("stub", [first_model, mean, zeros, the_base], ids=lambda stub: stub.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_a_stub_breaks_a_law(name: str, stub: Callable[..., Tensor]) -> None:
    assert broken(cheat(methods.get(name), replaced(stub))) is not None


PARAMETERS = [(n, p.name) for n in NAMES for p in methods.get(n).params.values() if not p.bounds.guard]


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_a_method_that_ignores_a_parameter_breaks_a_law(name: str, parameter: str) -> None:
    method = methods.get(name)
    declared = method.params[parameter]
    held = guesses(declared, 3)[0] if declared.required else declared.bounds.default
    assert broken(cheat(method, ignoring(parameter, held))) is not None


def test_the_laws_are_a_test_class_for_anyone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from cuvee.methods import Tensors, method, param, Number
        from cuvee.testing import MethodContract

        @method(paper="none")
        def outer(base, deltas: Tensors, *, gain: Number = param(1.0, "scale")):
            "Adds changes."
            return base + gain * sum(deltas)

        @method(paper="none")
        def deaf(base, deltas: Tensors, *, gain: Number = param(1.0, "scale")):
            "Forgets its parameter."
            return base + sum(deltas)

        class TestOuter(MethodContract):
            method = outer

        class TestDeaf(MethodContract):
            method = deaf
        """
    )
    result = pytester.runpytest_subprocess("-q")
    result.stdout.fnmatch_lines(["FAILED *TestDeaf*every_parameter_counts*", "1 failed, *"])
