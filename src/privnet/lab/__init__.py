"""A real fleet on this machine: Debian hosts in systemd-nspawn or QEMU, on an underlay of their own.

`Lab` is what tests and `privnet lab` use. Read `lab.py` first; the other modules each own one thing:
`settings` (names and directories), `fleet` (what an inventory says of its hosts, and rehearsal copies),
`image` (root file systems), `underlay` (namespaces and addresses), `host` (one host's disk and
programs) with its two kinds `nspawn` and `qemu`, `accelerator` (KVM or not), `access` (SSH), `process`
(running programs, ending recorded processes), `requirements` (what a lab needs of the machine).
"""

from __future__ import annotations

from privnet.lab.errors import LabError
from privnet.lab.lab import Lab

__all__ = ["Lab", "LabError"]
