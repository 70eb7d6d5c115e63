"""Devices that the arithmetic may run on: the CPU, which computes where it reads, or one with memory of its own."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from cuvee.core import CuveeError
from cuvee.plan.plan import CPU, Plan

KINDS = ("cuda",)
"""Devices beside the CPU."""

CONTEXT = 512 << 20
"""Bytes of a device that each process takes before it computes."""

SPARE = 0.8
"""Share of what is free that a merge may take: the allocator's own needs come beside it."""


class Mark(Protocol):
    """A moment in a stream of work."""

    def synchronize(self) -> None:
        """Wait until all that was begun before is done."""


class Device:
    """A device with memory of its own, as the stages of a tile use it. Here copies are plain, and done at once."""

    def __init__(self, place: torch.device) -> None:
        self.place = place

    def pinned(self, size: int) -> Tensor:
        """Bytes of host memory that the device copies from and to by itself. uint8, 1-D."""
        return torch.empty(size, dtype=torch.uint8, device=CPU)

    def aside(self) -> AbstractContextManager[object]:
        """What is begun inside runs beside the other work."""
        return nullcontext()

    def mark(self) -> Mark:
        """This moment."""
        return _Past()

    def follow(self, mark: Mark) -> None:
        """What is begun from now on waits for a mark; the host does not."""


class Cuda(Device):
    """A GPU: tiles are copied on a stream of their own."""

    def __init__(self, place: torch.device) -> None:
        super().__init__(place)
        self._copies = torch.cuda.Stream(place)  # type: ignore[no-untyped-call]

    def pinned(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, device=CPU, pin_memory=True)

    def aside(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._copies)

    def mark(self) -> Mark:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.place))
        return event

    def follow(self, mark: Mark) -> None:
        torch.cuda.current_stream(self.place).wait_event(mark)  # type: ignore[arg-type]


class _Past:
    """A moment whose work is done."""

    def synchronize(self) -> None:
        pass


def check_device(name: str) -> None:
    """Raises CuveeError, with what torch sees, for a device that this machine does not have."""
    kind, colon, index = name.partition(":")
    if name == CPU:
        return
    if kind not in KINDS or (colon and not index.isdecimal()):
        raise CuveeError(f"--device {name}: there is no such device. Write cpu, cuda, or cuda:1 for the second one.")
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        raise CuveeError(f"--device {name}: this torch has no CUDA. Install a build that has, or leave the option out.")
    count = torch.cuda.device_count()
    if not count:
        raise CuveeError(f"--device {name}: torch finds no CUDA device. Leave the option out.")
    if int(index or 0) >= count:
        raise CuveeError(f"--device {name}: this machine has {count}, counted from cuda:0.")


def device_of(name: str) -> Device:
    """The device of a name that `check_device` lets pass, other than the CPU."""
    return Cuda(_place(name))


def _place(name: str) -> torch.device:
    kind, _, index = name.partition(":")
    return torch.device(kind, int(index or 0))


def is_here(name: str) -> bool:
    """Whether this machine has a device."""
    try:
        check_device(name)
    except CuveeError:
        return False
    return True


def placed(plan: Plan, name: str | None, *, begun: str | None = None) -> Plan:
    """The plan on a device; without a name where a merge was begun, else on the CPU. Raises CuveeError.

    begun: the hash of a plan that an output folder holds.
    """
    if name is None:
        name = next((kind for kind in KINDS if replace(plan, device=kind).hash == begun), CPU)
    check_device(name)
    return plan if name == plan.device else replace(plan, device=name)


def memory_of(name: str, workers: int) -> int | None:
    """Bytes of a device for each of some processes; None for the CPU, which has no memory of its own."""
    if name == CPU:
        return None
    free, _ = torch.cuda.mem_get_info(_place(name))
    return max(0, int(SPARE * (free - workers * CONTEXT)) // workers)
