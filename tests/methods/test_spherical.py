"""Averages on spheres, against their definitions on whole vectors, which need no Gram matrix."""

import pytest
import torch
from torch import Tensor

from cuvee import methods


def draw(count: int, *shape: int, spread: float = 0.5) -> tuple[Tensor, ...]:
    noise = torch.randn(count + 1, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return tuple(noise[0] + spread * n for n in noise[1:])


def on_arc(a: Tensor, b: Tensor, t: float) -> Tensor:
    angle = torch.acos(torch.dot(a, b) / a.norm() / b.norm())
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


def test_nuslerp_takes_rows_columns_or_all() -> None:
    a, b = draw(2, 4, 6)
    nuslerp = methods.get("nuslerp")
    whole = nuslerp([a, b], weight=[0.7, 0.3])
    rows = nuslerp([a, b], weight=[0.7, 0.3], nuslerp_flatten=False)
    columns = nuslerp([a, b], weight=[0.7, 0.3], nuslerp_flatten=False, nuslerp_row_wise=True)
    torch.testing.assert_close(whole.flatten(), on_arc(a.flatten(), b.flatten(), 0.3))
    torch.testing.assert_close(rows, torch.stack([on_arc(*pair, 0.3) for pair in zip(a, b, strict=True)]))
    torch.testing.assert_close(columns.T, torch.stack([on_arc(*pair, 0.3) for pair in zip(a.T, b.T, strict=True)]))


def test_karcher_balances_the_logarithms() -> None:
    models = draw(4, 30)
    mean = methods.get("karcher")(models, max_iter=50, tol=1e-12)
    at = mean / mean.norm()
    logs = []
    for model in models:
        unit = model / model.norm()
        angle = torch.acos(at @ unit)
        logs.append((unit - torch.cos(angle) * at) * angle / torch.sin(angle))
    assert torch.stack(logs).sum(0).norm() < 1e-7
    assert mean.norm().item() == pytest.approx(sum(m.norm().item() for m in models) / 4)


def test_karcher_of_two_is_their_slerp_at_equal_lengths() -> None:
    a, b = (v / v.norm() for v in draw(2, 30))
    torch.testing.assert_close(methods.get("karcher")([a, b]), methods.get("slerp")([b], a, t=0.5))


def test_multislerp_is_the_exponential_of_the_mean_tangent() -> None:
    models, weight = draw(3, 30), (0.5, 0.3, 0.4)
    units = [m / m.norm() for m in models]
    start = sum(w * u for w, u in zip(weight, units, strict=True)) / sum(weight)
    start = start / start.norm()
    tangent = sum(w * (u - (u @ start) * start) for w, u in zip(weight, units, strict=True)) / sum(weight)
    length = sum(w * m.norm() for w, m in zip(weight, models, strict=True)) / sum(weight)
    expected = length * (torch.cos(tangent.norm()) * start + torch.sinc(tangent.norm() / torch.pi) * tangent)
    torch.testing.assert_close(methods.get("multislerp")(models, weight=weight), expected, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("name", ["nuslerp", "multislerp"])
def test_a_base_moves_the_origin(name: str) -> None:
    a, b, base = draw(3, 4, 6)
    average = methods.get(name)
    torch.testing.assert_close(average([a, b], base), base + average([a - base, b - base]))


def test_model_stock_takes_each_row_as_a_tensor() -> None:
    *models, base = draw(4, 5, 7)
    stock = methods.get("model_stock")
    rows = [stock([m[i] for m in models], base[i]) for i in range(5)]
    torch.testing.assert_close(stock(models, base, filter_wise=True), torch.stack(rows))


@pytest.mark.parametrize("name", ["nuslerp", "multislerp", "karcher"])
def test_opposite_vectors_and_huge_ones_stay_finite(name: str) -> None:
    a = torch.tensor([1e18, -1e18, 3.0])
    assert methods.get(name)([a, -a]).isfinite().all()
    assert methods.get(name)([a, 1e-30 * a]).isfinite().all()
    assert methods.get(name)([a, 0 * a]).isfinite().all()


def test_exactly_opposite_models_meet_on_the_line() -> None:
    a = draw(1, 30)[0].float()
    torch.testing.assert_close(methods.get("nuslerp")([a, -a], weight=[0.7, 0.3]), 0.4 * a)


def test_weights_may_be_learned() -> None:
    a, b, c = draw(3, 10)
    weight = torch.tensor([0.5, 0.3, 0.4], dtype=torch.float64, requires_grad=True)
    for name, models in (("nuslerp", (a, b)), ("multislerp", (a, b, c))):
        average = methods.get(name)

        def merged(w: Tensor, average: methods.Method = average, models: tuple[Tensor, ...] = models) -> Tensor:
            return average(models, weight=w[: len(models)].unbind())

        assert torch.autograd.gradcheck(merged, (weight,))
