"""The declaration as frozen, checked objects.

Each knows its own rules; rules across documents are in ``privnet.check``.
"""

from privnet.model.application import Application, Spread
from privnet.model.decision import Override
from privnet.model.fleet import (
    Dns,
    Fleet,
    Host,
    NetworkDefaults,
    Policy,
    Ssh,
    Vxlan,
    WireGuard,
)
from privnet.model.identifiers import Invalid, Prefix, VniRange, format_address, parse_address
from privnet.model.network import PrivateNetwork, Terms
from privnet.model.project import Project

__all__ = [
    "Application",
    "Dns",
    "Fleet",
    "Host",
    "Invalid",
    "NetworkDefaults",
    "Override",
    "Policy",
    "Prefix",
    "PrivateNetwork",
    "Project",
    "Spread",
    "Ssh",
    "Terms",
    "VniRange",
    "Vxlan",
    "WireGuard",
    "format_address",
    "parse_address",
]
