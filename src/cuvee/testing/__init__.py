"""The contract of merge methods as a test class: subclass it, and your method gets the examination that ours get.

    from cuvee.testing import MethodContract

    class TestMine(MethodContract):
        method = mine

Needs pytest and hypothesis, which are not installed with cuvee: `pip install pytest hypothesis`.
"""

from __future__ import annotations

from importlib.util import find_spec

from cuvee.core import CuveeError

for needed in ("pytest", "hypothesis"):
    if find_spec(needed) is None:
        raise CuveeError("cuvee.testing needs pytest and hypothesis:  pip install pytest hypothesis")

from cuvee.testing.cases import Case, example  # noqa: E402
from cuvee.testing.contract import LAWS, MethodContract, binding, broken  # noqa: E402
from cuvee.testing.law import Law, obey  # noqa: E402

__all__ = ["LAWS", "Case", "Law", "MethodContract", "binding", "broken", "example", "obey"]
