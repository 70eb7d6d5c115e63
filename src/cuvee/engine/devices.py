"""Devices that the arithmetic may run on."""

from __future__ import annotations

from cuvee.core import CuveeError


def check_device(device: str) -> None:
    """Raises CuveeError for a device that this machine, or this version, does not have."""
    if device != "cpu":
        raise CuveeError(f"--device {device}: this version computes on the CPU only. Leave the option out.")
