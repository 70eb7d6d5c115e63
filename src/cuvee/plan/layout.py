"""Where each output tensor goes: shards named as Hugging Face does, headers final before any data moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cuvee.plan.plan import Output, Shard
from cuvee.store.header import encode_header

SHARD_SIZE = 5_000_000_000
"""Bytes of tensor data in one file, as transformers has it."""


SIDES = "cuvee"
"""Folder of side tensors in the output folder."""


def lay_out(
    outputs: Sequence[Output], metadata: Mapping[str, str], shard_size: int = SHARD_SIZE
) -> tuple[tuple[Output, ...], tuple[Shard, ...]]:
    """Give each output its shard and offset. A tensor larger than `shard_size` has a shard of its own."""
    groups: list[list[Output]] = [[]]
    filled = 0
    for output in (output for output in outputs if not output.side):
        if groups[-1] and filled + output.spec.nbytes > shard_size:
            groups.append([])
            filled = 0
        groups[-1].append(output)
        filled += output.spec.nbytes
    placed: list[Output] = []
    shards: list[Shard] = []
    files = [shard_name(number, len(groups)) for number in range(len(groups))]
    sides = list(dict.fromkeys(output.side for output in outputs if output.side))
    groups += [[output for output in outputs if output.side == side] for side in sides]
    files += [f"{SIDES}/{side}.safetensors" for side in sides]
    for number, group in enumerate(groups):
        aligned = sorted(group, key=lambda output: -output.spec.dtype.itemsize)
        header, offsets = encode_header([(o.stored, o.spec) for o in aligned], metadata)
        size = len(header) + sum(o.spec.nbytes for o in aligned)
        shards.append(Shard(files[number], header, size, side=group[0].side if group else ""))
        placed += [replace(o, shard=number, offset=at) for o, at in zip(aligned, offsets, strict=True)]
    return tuple(placed), tuple(shards)


def shard_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number + 1:05}-of-{count:05}.safetensors"
