"""A merge of adapters that is not written yet: each module is made when its tensors are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from cuvee.core import Buffer, Checkpoint, CuveeError, Stamp, TensorSpec
from cuvee.kernels.lowrank import Loss
from cuvee.kernels.process import settled
from cuvee.methods._updates import apply
from cuvee.plan.plan import Output
from cuvee.structures.adapters.planning import AdapterPlan, Module, Saved
from cuvee.structures.adapters.source import Adapter


class MergedAdapter(Checkpoint):
    """Tensors of an adapter merge, bitwise what is written. It holds one module at a time."""

    def __init__(self, plan: AdapterPlan) -> None:
        self.plan = plan
        self.label = f"merge by {plan.recipe.merge_method}"
        self.losses: dict[str, Loss] = {}  # module -> what its approximation left out, once it was made
        self._outputs = {output.name: output for output in plan.outputs}
        self._makers: dict[str, Module | Saved] = {}
        for module in plan.modules:
            self._makers.update(dict.fromkeys(filter(None, (module.a[0], module.b[0], module.bias)), module))
        self._makers.update({each.name: each for each in plan.saved})
        self._held: tuple[Any, dict[str, Tensor]] = (None, {})

    def names(self) -> Sequence[str]:
        return list(self._outputs)

    def spec(self, name: str) -> TensorSpec:
        return self._outputs[name].spec

    def config(self) -> dict[str, Any]:
        """adapter_config.json."""
        return dict(self.plan.adapter_config)

    def stamps(self) -> Mapping[Path, Stamp]:
        return {path: stamp for each in self.plan.checkpoints for path, stamp in each.stamps().items()}

    def identity(self) -> dict[str, Any]:
        inputs = {str(place): each.identity() for place, each in enumerate(self.plan.checkpoints)}
        return {"merge": self.plan.hash, "inputs": inputs}

    def read(self, name: str, span: tuple[int, int] | None = None, into: Buffer | None = None) -> Tensor:
        maker = self._makers[name]
        if self._held[0] is not maker:
            with settled():
                self._held = maker, self._made(maker)
        tensor = self._held[1][name]
        return tensor if span is None else tensor.reshape(-1)[span[0] : span[1]]

    def chunk(self, output: Output, chunk: int) -> bytearray:
        """Bytes of one chunk, as they are written."""
        flat = self.read(output.name, output.grid.chunks()[chunk]).contiguous()
        return bytearray(flat.view(torch.uint8).numpy())

    def _made(self, maker: Module | Saved) -> dict[str, Tensor]:
        made = self._module(maker) if isinstance(maker, Module) else {maker.name: self._average(maker)}
        return {name: tensor.to(self.spec(name).dtype).contiguous() for name, tensor in made.items()}

    @property
    def _adapters(self) -> Sequence[Adapter]:
        return cast("Sequence[Adapter]", self.plan.checkpoints)

    def _module(self, module: Module) -> dict[str, Tensor]:
        updates = [adapter.update(module.name, module.shape) for adapter in self._adapters]
        plan = self.plan
        try:
            merged = apply(plan.method, updates, module.target, module.params, key=module.key, seed=plan.seed)
        except (CuveeError, RuntimeError) as error:
            raise CuveeError(f"{module.name}: {error}") from None
        if merged.loss is not None:
            self.losses[module.name] = merged.loss
        (a, a_shape), (b, b_shape) = module.a, module.b
        made = {a: merged.right.reshape(a_shape), b: merged.left.reshape(b_shape)}
        return made if module.bias is None else {**made, module.bias: self._bias(module)}

    def _bias(self, module: Module) -> Tensor:
        """What `lora_bias` adds to the layer's bias: summed where the method sums updates, else averaged."""
        weights = module.params.get("weight", (1.0,) * len(module.parts))
        average = module.params.get("normalize", "weight" not in module.params)
        total = torch.zeros(module.shape[0], dtype=torch.float64)
        for adapter, parts, weight in zip(self._adapters, module.parts, weights, strict=True):
            if parts and parts.bias:
                total += weight * parts.outline.scale * adapter.read(parts.bias).to(torch.float64)
        return total / (module.target.scale * (sum(weights) if average else 1.0))

    def _average(self, saved: Saved) -> Tensor:
        """The weighted average, in float32, or float64 where an adapter has it; the first where it is no number."""
        dtype = torch.promote_types(self.spec(saved.name).dtype, torch.float32)
        (first, name), *rest = saved.sources
        tensor = self._adapters[first].read(name)
        if not tensor.is_floating_point():
            return tensor
        total = saved.weights[0] * tensor.to(dtype)
        for (index, name), weight in zip(rest, saved.weights[1:], strict=True):
            total += weight * self._adapters[index].read(name).to(dtype)
        return total
