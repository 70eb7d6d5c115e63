"""A law: what every method obeys, as a plain function of a method and a case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cuvee.methods import Method
from cuvee.testing.cases import Case, cases, example

Check = Callable[[Method, Case], None]

EXAMPLES = 20
"""Cases that are drawn for each law and method."""


@dataclass(frozen=True)
class Law:
    """A check, the methods that it is for, and the cases that it is made on. The check raises AssertionError."""

    name: str
    check: Check
    applies: Callable[[Method], bool]
    draw: Callable[[Method], st.SearchStrategy[Case]] | None

    def __repr__(self) -> str:
        return self.name


def law(
    *,
    applies: Callable[[Method], bool] = lambda method: True,
    draw: Callable[[Method], st.SearchStrategy[Case]] | None = cases,
) -> Callable[[Check], Law]:
    """Make a law of a check. draw: None for one fixed example."""
    return lambda check: Law(check.__name__, check, applies, draw)


def obey(law: Law, method: Method, *, examples: int = EXAMPLES) -> None:
    """Raises AssertionError, with the smallest case found, when the method breaks the law."""
    if law.draw is None:
        law.check(method, example(method))
        return
    _search(law, method, examples, [Phase.explicit, Phase.generate, Phase.shrink])


def breaks(law: Law, method: Method, *, examples: int = EXAMPLES) -> bool:
    """Whether a case is found on which the method breaks the law."""
    try:
        if law.draw is None:
            law.check(method, example(method))
        else:
            _search(law, method, examples, [Phase.generate])
    except AssertionError:
        return True
    return False


def _search(law: Law, method: Method, examples: int, phases: list[Phase]) -> None:
    assert law.draw is not None
    quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.differing_executors]

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=quiet,
        report_multiple_bugs=False,
    )
    @given(law.draw(method))
    def run(case: Case) -> None:
        law.check(method, case)

    run()


def assert_close(got: Tensor, wanted: Tensor, scale: float, steps: float = 256) -> None:
    """Within so many rounding steps of numbers as large as `scale`, in the dtype of `got`."""
    assert got.shape == wanted.shape
    if got.numel():
        off = (got.to(torch.float64) - wanted.to(torch.float64)).abs().max().item()
        assert off <= steps * torch.finfo(got.dtype).eps * max(scale, torch.finfo(got.dtype).tiny), f"off by {off:g}"
