"""Whether a host is the one that the lock file knows, and was changed by that lock file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from privnet.audit.actual import Actual
from privnet.audit.finding import Deviation
from privnet.model.lock import Version

CLOCK_SECONDS = 120
"""A run leaves a host alone whose clock is further away."""


def identity(key: str | None, versions: Sequence[Version], actual: Actual, now: float) -> Iterator[Deviation]:
    """What is said of the host as a whole.

    :param key: its public key in the lock file
    :param versions: those that the lock file knows of, itself the last
    :param now: this machine's clock
    """
    running = actual.wireguard.public_key if actual.wireguard else None
    if key is not None and running is not None and running != key:
        yield Deviation("WireGuard key", key, running)
    away = round(actual.clock - now)
    if abs(away) > CLOCK_SECONDS:
        side = "ahead of" if away > 0 else "behind"
        yield Deviation("clock", f"within {CLOCK_SECONDS} s of this machine's", f"{abs(away)} s {side} it")
    serial, _, rest = actual.applied.partition(" ")
    if not serial.isascii() or not serial.isdigit() or not versions:
        return
    checksums = {version.checksum for version in versions if version.serial == int(serial)}
    last = versions[-1].serial
    if int(serial) > last or (checksums and rest.partition(" ")[0] not in checksums):
        planned = f"serial {last}, or one that it comes from"
        yield Deviation("lock file by which it was changed last", planned, f"serial {serial} of another one")
