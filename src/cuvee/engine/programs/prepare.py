"""Which outputs of a plan are compiled, and making the bundles that are missing."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Literal, NamedTuple

from cuvee.core import BLOCK, CuveeError
from cuvee.engine import child
from cuvee.engine.programs.build import Order
from cuvee.engine.programs.bundle import FILE, folder_of, load
from cuvee.engine.programs.structure import bundle_key, program_length, read_dtypes
from cuvee.kernels import native
from cuvee.plan.memory import Room
from cuvee.plan.plan import CPU, SMALL, Output, Plan
from cuvee.store.cache import holds, publish

Mode = Literal["auto", "always", "never"]

BUILD = 15.0
"""Seconds of a processor that a bundle takes, at first, and each of its programs once more."""

SAVED = 1.2e-9
"""Seconds of a processor that a program saves, for each entry, input and pass."""


class Need(NamedTuple):
    """A bundle that a plan could use."""

    order: Order
    entries: int  # of all outputs that would use it


def needs(plan: Plan, room: Room) -> dict[str, Need]:
    """The bundles that a plan could use, by key."""
    found: dict[str, Need] = {}
    for output in plan.outputs:
        key = key_of(plan, output, room)
        if key is not None:
            held = found.get(key)
            entries = output.spec.numel + (held.entries if held else 0)
            found[key] = Need(Order(output, read_dtypes(output, plan.checkpoints)), entries)
    return found


def key_of(plan: Plan, output: Output, room: Room) -> str | None:
    """The key of an output's bundle, or None where it is not compiled."""
    blocks = program_length(output) // BLOCK
    if output.spec.numel < SMALL or room.tile_entries(output) < blocks * output.grid.block:
        return None
    return bundle_key(output, read_dtypes(output, plan.checkpoints))


def missing(found: Mapping[str, Need]) -> dict[str, Need]:
    return {key: need for key, need in found.items() if not holds(folder_of(key) / FILE)}


def compiled(
    plan: Plan,
    room: Room,
    workers: int,
    mode: Mode = "auto",
    *,
    begun: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> Plan:
    """The plan as `chosen` gives it; the bundles that it lacks are made.

    Where they cannot be had, auto goes on without, unless a merge was begun with them. Raises CuveeError.
    """
    planned = chosen(plan, room, mode, begun=begun)
    if not planned.compiled:
        return plan
    try:
        ensure(planned, room, workers, tell)
    except CuveeError as error:
        if mode == "always" or begun == planned.hash:
            raise
        if tell:
            tell(f"without compiled programs: {error}")
        return plan
    return planned


def chosen(plan: Plan, room: Room, mode: Mode = "auto", *, begun: str | None = None) -> Plan:
    """The plan, with compiled tiles where the mode says so.

    begun: the hash of a plan that an output folder holds; auto goes on as that was begun. Programs are for the CPU.
    """
    if plan.device != CPU:
        if mode == "always":
            raise CuveeError(f"--compile always: programs are for the CPU, not for {plan.device}.")
        return plan
    wanted = replace(plan, compiled=True)
    if mode == "always" or (mode == "auto" and begun == wanted.hash):
        return wanted
    return wanted if mode == "auto" and begun != plan.hash and pays(plan, room) else plan


def pays(plan: Plan, room: Room) -> bool:
    """Whether programs save more time than making those that are missing takes."""
    found = needs(plan, room)
    lacking = missing(found)
    if not found or (lacking and compiler() is None):
        return False
    cost = sum(BUILD * (2 + len(need.order.output.steps)) for need in lacking.values())
    saved = sum(SAVED * need.entries * len(need.order.dtypes) * need.order.output.passes for need in found.values())
    return saved > cost


@cache
def compiler() -> str | None:
    """The C++ compiler that programs are made with."""
    names = [os.environ.get("CXX"), "g++", "clang++", "c++"]
    return next((path for name in names if name and (path := shutil.which(name))), None)


def ensure(plan: Plan, room: Room, workers: int, tell: Callable[[str], None] | None = None) -> None:
    """Make the bundles that a plan lacks, `workers` at a time, and load all. Raises CuveeError where it cannot be."""
    found = needs(plan, room)
    waiting = missing(found)
    if waiting:
        _make(waiting, workers, tell)
    for key in found:
        load(key)


def _make(waiting: Mapping[str, Need], workers: int, tell: Callable[[str], None] | None) -> None:
    if (made_by := compiler()) is None:
        raise CuveeError("--compile always needs a C++ compiler: install g++, or leave the option out.")
    if tell:
        tell(f"Compiling {len(waiting)} kind{'s' if len(waiting) > 1 else ''} of tile, once for this machine")
    native.make(made_by)
    todo = list(waiting.items())
    while todo:
        together, todo = todo[:workers], todo[workers:]
        _build(dict(together))


def _build(waiting: Mapping[str, Need]) -> None:
    with contextlib.ExitStack() as stack:
        running = []
        for key, need in waiting.items():
            draft = stack.enter_context(publish(folder_of(key), private=True))
            process = child.start(
                "cuvee.engine.programs.build",
                str(draft),
                options=["-W", "ignore"],
                environment={"OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            running.append((process, draft, pickle.dumps(need.order)))
        for process, draft, order in running:
            _, errors = process.communicate(order)
            if not (draft / FILE).exists():
                last = errors.decode(errors="replace").strip().splitlines()[-1:]
                (draft / FILE).write_text(json.dumps({"programs": [], "reason": "".join(last) or "the compiler died"}))


def reasons(plan: Plan, room: Room) -> list[str]:
    """Why some outputs run as they are although their plan is compiled."""
    found = [load(key).reason for key in needs(plan, room) if holds(folder_of(key) / FILE)]
    return [reason for reason in dict.fromkeys(found) if reason]
