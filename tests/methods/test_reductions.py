"""A method with its own step switched off is another method; and what holds for it whatever the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from cuvee import methods
from cuvee.kernels.blocks import take_turns

ties, consensus, cabs, widen = (methods.get(name) for name in ("ties", "consensus", "cabs", "widen"))


def drawn(*shape: int, count: int, seed: int = 0) -> list[Tensor]:
    """A base and models around it, in float64."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator, dtype=torch.float64)
    return [base, *(base + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count))]


def summed(base: Tensor, models: Sequence[Tensor]) -> Tensor:
    merged: Tensor = methods.get("task_arithmetic")(models, base)
    return merged


@pytest.mark.parametrize("inner", ["task_arithmetic", "ties"])
def test_consensus_of_none_is_the_inner_merge_and_of_too_many_the_base(inner: str) -> None:
    base, *models = drawn(40, 9, count=3)
    plain = ties(models, base, density=0.2, scope="model", aggregate="sum") if inner == "ties" else summed(base, models)
    assert torch.equal(consensus(models, base, min_agree=0, inner=inner), plain)
    assert torch.equal(consensus(models, base, min_agree=4, inner=inner), base)


@pytest.mark.parametrize("mask_lambda", [0.1, 0.4, 3.0])
def test_consensus_keeps_what_one_model_alone_changed(mask_lambda: float) -> None:
    base, *models = drawn(60, count=3)
    owner = torch.arange(60) % 3
    models = [torch.where(owner == place, model, base) for place, model in enumerate(models)]
    assert torch.equal(consensus(models, base, min_agree=1, mask_lambda=mask_lambda), summed(base, models))
    assert torch.equal(consensus(models, base, min_agree=2, mask_lambda=mask_lambda), base)


def test_consensus_without_margin_counts_every_change() -> None:
    base, *models = drawn(60, count=2)
    models[1] = torch.where(torch.arange(60) < 20, base, models[1])
    merged = consensus(models, base, min_agree=2, mask_lambda=0)
    assert torch.equal(merged, torch.where(torch.arange(60) < 20, base, summed(base, models)))


def test_emr_makes_models_anew_that_never_disagree() -> None:
    base, model, _ = drawn(30, count=2)
    emr = methods.get("emr")
    assert torch.equal(emr([model], base), base + (model - base))
    shared = [base + scale * (model - base).abs() for scale in (1.0, 3.0)]
    for task, made in enumerate(shared):
        torch.testing.assert_close(emr(shared, base, task=task), made)


def test_emr_compares_means_or_sums() -> None:
    """Changes of -4 and of 1, 1, 1; the second model outvotes the first of them."""
    base = {"one": torch.zeros(1), "three": torch.zeros(3)}
    first = {"one": torch.tensor([-4.0]), "three": torch.ones(3)}
    second = {"one": torch.tensor([8.0]), "three": torch.zeros(3)}
    means, sums = (
        methods.get("emr")([first, second], base, task=0, rescale_scope=scope) for scope in ("tensor_means", "model")
    )
    assert means["three"].tolist() == [5.0] * 3  # (4 + 1) / 1
    assert sums["three"].tolist() == pytest.approx([7 / 3] * 3)  # (4 + 3) / 3
    assert means["one"].tolist() == sums["one"].tolist() == [0.0]


def test_cabs_that_keeps_all_adds_all() -> None:
    base, model = drawn(7, 5, count=1)
    assert torch.equal(cabs([model], base, n=4, m=4), summed(base, [model]))


@pytest.mark.parametrize(("n", "m", "count"), [(1, 4, 3), (2, 8, 4), (3, 32, 2), (3, 7, 2)])
@pytest.mark.parametrize("size", [224, 229])
def test_cabs_gives_each_model_entries_of_its_own(n: int, m: int, count: int, size: int) -> None:
    _, *vectors = drawn(size, count=count)
    taken = [kept != 0 for kept in take_turns(tuple(vectors), n, m)]
    assert int(torch.stack(taken).sum(0).max()) == 1
    full = size // m * m
    for mask in taken:
        assert (mask[:full].view(-1, m).sum(-1) == n).all()
    assert int(taken[0][full:].sum()) == math.ceil(n * (size - full) / m)


def test_cabs_shares_entries_only_where_it_must() -> None:
    _, *vectors = drawn(240, count=3)
    first, second, third = ((kept != 0).view(-1, 8) for kept in take_turns(tuple(vectors), 3, 8))
    assert not (first & second).any()
    assert (third & ~(first | second)).sum(-1).tolist() == [2] * 30
    for row, (mask, other) in enumerate(zip(third, first | second, strict=True)):
        held = vectors[2].view(-1, 8)[row].abs().masked_fill(~other, 0)
        assert mask[held.argmax()]
        assert int(mask.sum()) == 3


def test_widen_counts_all_columns_fully_or_shares_them_out() -> None:
    base, *models = drawn(12, 30, count=3)
    torch.testing.assert_close(widen(models, base, above_average_ratio=-1.0), summed(base, models))
    same = [models[0]] * 3
    torch.testing.assert_close(widen(same, base, above_average_ratio=100.0), models[0])
    assert torch.equal(widen(models[:1], base), summed(base, models[:1]))


@pytest.mark.parametrize("factor", [1.0, 1000.0])
def test_widen_bounds_weights_whatever_the_size_of_a_change(factor: float) -> None:
    base, one, other = drawn(12, 30, count=2)
    models = [base + factor * (one - base), base + (other - base).roll(1, 0) * 0]
    weight = ((widen(models, base) - base) / (models[0] - base)).mean(0)
    assert weight.min() >= 1 / (1 + math.e) - 1e-6
    assert weight.max() <= 1 + 1e-6


def test_widen_takes_an_embedding_by_its_tokens_and_a_head_by_its_inputs() -> None:
    base, *models = drawn(50, 8, count=2)

    def merged(name: str, *, turned: bool) -> Tensor:
        given = [{name: tensor.T.contiguous() if turned else tensor} for tensor in (base, *models)]
        found: Tensor = widen(given[1:], given[0])[name]
        return found.T if turned else found

    token = merged("model.embed_tokens.weight", turned=False)
    torch.testing.assert_close(token, merged("layers.0.weight", turned=True))
    head = merged("lm_head.weight", turned=False)
    torch.testing.assert_close(head, merged("layers.0.weight", turned=False))
    assert not torch.equal(token, head)


def test_widen_takes_a_kernel_for_a_matrix_and_leaves_columns_of_nothing_in_peace() -> None:
    base, *models = drawn(6, 5, 3, 3, count=2)
    flat = widen([model.reshape(6, 45) for model in models], base.reshape(6, 45))
    assert torch.equal(widen(models, base), flat.reshape(6, 5, 3, 3))
    for tensor in (base, *models):
        tensor[:, 0] = 0
    assert (widen(models, base)[:, 0] == 0).all()


def test_widen_weighs_vectors_by_the_size_of_each_change() -> None:
    base, *models = drawn(9, count=2)
    sizes = torch.stack([(model - base).abs() for model in models])
    weight = torch.where(sizes > 1.5 * sizes.mean(1, keepdim=True), 0.7, torch.softmax(sizes, 0))
    expected = base + sum(w * (model - base) for w, model in zip(weight, models, strict=True))
    torch.testing.assert_close(widen(models, base, above_average_ratio=1.5, calibration=0.7), expected)


def test_varm_squares_and_falls_back_by_the_tensor() -> None:
    base, one, other = drawn(20, count=2)
    varm = methods.get("varm")
    twice = base + 2 * (one - base)
    torch.testing.assert_close(varm([one, twice], base), base + 1.8 * (one - base))  # (1 + 4 x 2) / 5
    given = [{"moved": model, "still": still} for model, still in ((one, base), (other, other))]
    merged = varm(given, {"moved": base, "still": base})
    torch.testing.assert_close(merged["still"], (base + other) / 2)
    assert not torch.allclose(merged["moved"], (one + other) / 2)


@pytest.mark.parametrize(("temperature", "share"), [(1e9, 1 / 3), (1e-3, 1.0)])
def test_lm_cocktail_goes_from_the_mean_to_the_best(temperature: float, share: float) -> None:
    _, *models = drawn(20, count=3)
    merged = methods.get("lm_cocktail")(models, losses=[1.2, 2.0, 3.5], temperature=temperature)
    torch.testing.assert_close(merged, share * models[0] + (1 - share) / 2 * (models[1] + models[2]))


@pytest.mark.parametrize("scheme", ["sma", "wma", "ema"])
def test_averages_of_checkpoints_go_on_from_a_state(scheme: str) -> None:
    _, *models = drawn(20, count=5)
    average = methods.get("checkpoint_average")
    state = average(models[:2], scheme=scheme)
    state = average([state, models[2]], scheme=scheme, arrived=2)
    torch.testing.assert_close(average([state, *models[3:]], scheme=scheme, arrived=3), average(models, scheme=scheme))


def network(value: float, layers: int = 6) -> dict[str, Tensor]:
    names = [f"model.layers.{i}.{part}" for i in range(layers) for part in ("attn.weight", "norm.weight")]
    return {name: torch.tensor([value + 1e-3]) for name in ("embed_tokens.weight", *names, "lm_head.weight")}


def test_layer_swap_takes_whole_layers_bit_by_bit() -> None:
    swap, language, task = methods.get("layer_swap"), network(1.0), network(2.0)
    none = dict.fromkeys(("bottom", "top", "bottom_transition", "top_transition"), 0)
    merged = swap([language, task], **none)
    assert all(torch.equal(each, (task if "layers" in name else language)[name]) for name, each in merged.items())
    assert swap([language, task], **{**none, "bottom": 6}) == language
    assert swap([task, task], **{**none, "bottom": 2, "top_transition": 2}) == task
    merged = swap([language, task], **{**none, "bottom": 2, "bottom_transition": 1, "top": 1})
    for name, each in merged.items():
        layer = int(name.split(".")[2]) if "layers" in name else 0
        expected = {0: language, 1: language, 5: language}.get(layer, task)[name]
        assert torch.equal(each, (language[name] + task[name]) / 2 if layer == 2 else expected)


PROJECTIONS = (
    "encoder.layer.1.attention.self.query.weight",
    "h.1.attn.c_attn.weight",
    "blocks.1.attn.qkv.bias",
    "layers.1.self_attn.in_proj_weight",
    "layers.1.self_attn.v_proj.weight",
    "encoder.block.1.layer.0.SelfAttention.k.weight",
    "h.1.self_attention.query_key_value.weight",
)
OTHERS = (
    "encoder.layer.1.attention.output.dense.weight",
    "h.1.attn.c_proj.weight",
    "layers.1.mixer.in_proj.weight",
    "layers.1.self_attn.o_proj.weight",
    "layers.1.mlp.up_proj.weight",
    "layers.1.self_attn.q_norm.weight",
)


def test_attention_merge_moves_queries_keys_and_values_alone() -> None:
    merge = methods.get("attention_merge")
    target, donor = ({name: torch.tensor([value]) for name in PROJECTIONS + OTHERS} for value in (0.1, 0.9))
    assert merge([target, donor], lambda_=1) == target
    for layers, moved in (([], True), ([1], True), ([0], False)):
        merged = merge([target, donor], lambda_=0, layers=layers)
        for name, each in merged.items():
            assert torch.equal(each, (donor if moved and name in PROJECTIONS else target)[name]), name


def test_pcb_does_not_look_at_places_and_two_alike_are_one() -> None:
    base, *models = drawn(500, count=3)
    pcb, order = methods.get("pcb"), torch.randperm(500, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pcb(models, base)[order], pcb([model[order] for model in models], base[order]))
    halves = [{"a": tensor[:100], "b": tensor[100:]} for tensor in (base, *models)]
    merged = pcb(halves[1:], halves[0])
    assert torch.equal(torch.cat([merged["a"], merged["b"]]), pcb(models, base))
    apart = pcb(halves[1:], halves[0], scope="tensor")
    assert not torch.equal(apart["a"], merged["a"])
    one = pcb(models[:1], base)
    two = pcb([models[0]] * 2, base)
    torch.testing.assert_close(one, two)


def test_ties_with_hardly_any_slack_is_ties_and_with_all_of_it_follows_one_model() -> None:
    base, *models = drawn(300, count=3)
    plain = ties(models, base, density=0.6)
    assert torch.equal(ties(models, base, density=0.6, slack=[0, 1e-12, 0]), plain)
    pair = models[:2]
    kept = ties(pair, base, slack=[0, 1e9])
    changes = [model - base for model in pair]
    conflict = changes[0] * changes[1] < 0
    torch.testing.assert_close(kept[conflict], pair[1][conflict])
    assert torch.equal(kept[~conflict], ties(pair, base)[~conflict])


def test_both_models_having_slack_is_as_if_neither_had() -> None:
    base, one, other = drawn(300, count=2)
    other = base + (other - base) * ((one - base).square().sum() / (other - base).square().sum()).sqrt()
    torch.testing.assert_close(ties([one, other], base, slack=3.0), ties([one, other], base))
