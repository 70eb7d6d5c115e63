"""Every method of the registry that merges tensors obeys every law that is for it."""

from __future__ import annotations

import pytest

from cuvee import methods
from cuvee.testing import Law, binding, obey

PAIRS = [(name, law) for name in methods.for_tensors() for law in binding(methods.get(name))]


@pytest.mark.parametrize(("name", "law"), PAIRS, ids=[f"{name}-{law}" for name, law in PAIRS])
def test_method_obeys(name: str, law: Law) -> None:
    obey(law, methods.get(name))
