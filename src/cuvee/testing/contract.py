"""All laws, and the test class made of them."""

from __future__ import annotations

import pytest

from cuvee.methods import Method
from cuvee.testing import laws, refusals
from cuvee.testing.law import Law, breaks, obey

LAWS = tuple(each for module in (laws, refusals) for each in vars(module).values() if isinstance(each, Law))
"""Every law, in the order in which a reader meets them."""


def binding(method: Method) -> list[Law]:
    """The laws that are for this method."""
    return [law for law in LAWS if law.applies(method)]


def broken(method: Method, *, examples: int = 5) -> Law | None:
    """A law that the method breaks, if one is found; those on a fixed case are tried first."""
    laws = sorted(binding(method), key=lambda law: law.draw is not None)
    return next((law for law in laws if breaks(law, method, examples=examples)), None)


class MethodContract:
    """Tests of one method: subclass it and set `method`."""

    method: Method

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        if "law" in metafunc.fixturenames:
            metafunc.parametrize("law", binding(cls.method), ids=repr)

    def test_obeys(self, law: Law) -> None:
        obey(law, self.method)
