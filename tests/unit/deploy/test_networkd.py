"""Which of a host's own files would set up devices of private networks, by their [Match]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from answers import answer, text

from privnet.deploy.networkd import obstacles
from privnet.deploy.state import HostState, parse_snapshot
from privnet.plan.host import HostPlan, Plan

FIT = [
    "Name=*", "Name=e* pn*", "Name=pnx7000000", "Name=!eth* lo", "OriginalName=*", "Name=*;Type=bridge", "Type=vxlan",
    "Type=ether", "Kind=veth", "Kind=vx*", "Kind=*", "Driver=bridge", "Driver=veth br*", "Type=!loopback", "Kind=!veth",
    "Property=INTERFACE=pnb7000000", "Name=*;Host=h1", "Name=eth0;Name=*", "Name=eth0;Name=;Type=bridge",
    "Name=p[a-n]*", "Name=*;Virtualization=container", "Name=*;Property=ID_BUS=x", "Name=privnet",
    "Name=pnc*;Driver=veth", "Host=h1", "Name=;Host=x", "Virtualization=vm", "KernelCommandLine=x",
    "Architecture=arm64", "KernelVersion=6.*", "Firmware=uefi", "Credential=x",
]  # fmt: skip
FIT_NOT = [
    "Name=e*", "Name=eth0 wlan0", "Type=wlan", "Name=ve-*;Driver=veth", "Name=*;MACAddress=52:54:00:00:00:01",
    "Name=!*", "Name=*;Path=pci-*", "Kind=dummy", "Virtualization=container;Name=host0", "", "Name=",
    "Host=;Name=", "Host=h1;Name=eth0",
    "Name=!pn* privnet", "Name=*;Type=wlan", "Driver=virtio_net", "Name=*;Kind=tun",
    "PermanentMACAddress=52:54:00:00:00:01",
]  # fmt: skip
CHANGES = ["Name=lan", "MACAddress=52:54:00:00:00:01", "MTUBytes=9000", "MACAddressPolicy=random"]


@pytest.fixture
def plan(planned: Callable[..., Plan]) -> HostPlan:
    return planned(shop=["h1", "h2"]).hosts["h1"]


def state(plan: HostPlan, path: str, match: str, more: tuple[str, ...] = ()) -> HostState:
    sections = answer(plan)
    sections["networkd"] = [f"{path}\t\t", *(f"{path}\tMatch\t{line}" for line in match.split(";") if line), *more]
    found = parse_snapshot(text(sections))
    assert isinstance(found, HostState), found
    # A kernel without WireGuard has a device of another kind.
    return replace(found, kernel_wireguard=True)


@pytest.mark.parametrize("match", FIT)
def test_a_file_that_fits_a_device_of_ours_and_comes_first_is_said(plan: HostPlan, match: str) -> None:
    found = [*obstacles(plan, state(plan, "/etc/systemd/network/01-own.network", match))]
    assert len(found) == 1 and "/etc/systemd/network/01-own.network, which comes before" in found[0]
    # The twin: after ours it is never asked about a device of ours.
    assert [*obstacles(plan, state(plan, "/etc/systemd/network/05-q.network", match))] == []


@pytest.mark.parametrize("match", FIT_NOT)
def test_a_file_for_other_devices_is_none_of_our_business(plan: HostPlan, match: str) -> None:
    assert [*obstacles(plan, state(plan, "/etc/systemd/network/01-own.network", match))] == []


@pytest.mark.parametrize("line", CHANGES)
def test_a_link_file_that_changes_devices_of_ours_is_said(plan: HostPlan, line: str) -> None:
    path = "/etc/systemd/network/90-own.link"
    said = [*obstacles(plan, state(plan, path, "OriginalName=*", (f"{path}\tLink\t{line}",)))]
    assert len(said) == 1 and said[0].startswith("udev would rename devices of private networks, or change their MAC")
    for match, more in (("OriginalName=e*", line), ("OriginalName=*", "NamePolicy=keep"), ("OriginalName=*", "Name=")):
        assert [*obstacles(plan, state(plan, path, match, (f"{path}\tLink\t{more}",)))] == []
