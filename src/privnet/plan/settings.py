"""The settings of a fleet that traffic feels, as the lock file keeps them for a later plan to compare."""

from __future__ import annotations

from privnet.model.fleet import Fleet
from privnet.model.lock import HostSettings, SettingsLock


def settings_of(fleet: Fleet) -> SettingsLock:
    """What ``fleet.yaml`` sets now. Logins, zones and policies are not in it: no flow depends on them."""
    hosts = sorted(fleet.hosts.items())
    return SettingsLock(
        domain=fleet.domain,
        wireguard_mesh=fleet.wireguard.mesh,
        wireguard_port=fleet.wireguard.port,
        vxlan_port=fleet.vxlan.port,
        dns_ttl=fleet.dns.ttl,
        dns_upstream=fleet.dns.upstream,
        dns_internal=fleet.dns.internal,
        hosts={name: HostSettings(host.address, host.endpoint, host.mtu, host.state) for name, host in hosts},
    )
