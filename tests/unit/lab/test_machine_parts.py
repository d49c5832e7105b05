"""Parts of machines that need none: what their uplink is told, how they are to run, and what is missing for them."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
from pathlib import Path

import pytest

from privnet.lab import LabError, accelerator, image, requirements
from privnet.lab.accelerator import KVM, TCG
from privnet.lab.fleet import LabHost
from privnet.lab.kinds import host_of
from privnet.lab.nspawn import NspawnHost
from privnet.lab.qemu import Machine
from privnet.lab.settings import Settings
from privnet.lab.underlay import Underlay, networkd_file


def host(name: str, *addresses: str) -> LabHost:
    return LabHost(name, tuple(ipaddress.ip_address(text) for text in addresses))


UPLINK = """\
[Match]
Name=eth0

[Link]
MTUBytes=9000

[Network]
IPv6AcceptRA=no
LLMNR=no
MulticastDNS=no
LLDP=no

[Address]
Address=198.51.100.7/32

[Address]
Address=203.0.113.9/32

[Address]
Address=2001:db8::7/128
DuplicateAddressDetection=none

[Route]
Destination=198.51.100.0/24
Scope=link
PreferredSource=203.0.113.9

[Route]
Destination=203.0.113.0/24
Scope=link
PreferredSource=203.0.113.9

[Route]
Destination=2001:db8::/64
PreferredSource=2001:db8::7

[Route]
Gateway=198.51.100.254
GatewayOnLink=yes
PreferredSource=203.0.113.9

[Route]
Gateway=2001:db8::fffe
GatewayOnLink=yes
PreferredSource=2001:db8::7
"""


def test_networkd_is_told_what_an_nspawn_host_is_given() -> None:
    """A translated endpoint comes last: what the host sends carries it."""
    both = host("b", "198.51.100.7", "203.0.113.9", "2001:db8::7")
    assert networkd_file(both.addresses, 9000, Underlay.around([both])) == UPLINK


def test_the_kind_of_a_host_is_that_of_its_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privnet.lab.settings.STATE_ROOT", tmp_path)
    lab, declared = Settings("kinds"), host("a", "192.0.2.11")
    directory = lab.host_directory("a")
    assert isinstance(host_of(lab, declared), NspawnHost)
    directory.mkdir(parents=True)
    for kind in (NspawnHost, Machine):
        (directory / "kind").write_text(f"{kind.kind}\n")
        assert type(host_of(lab, declared)) is kind


def test_the_answer_about_kvm_is_remembered_until_the_machine_reboots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, memory, said = tmp_path / "kvm", tmp_path / "accelerator.json", list[str]()
    kernel = tmp_path / "vmlinuz"
    monkeypatch.setattr(accelerator, "DEVICE", device)
    assert accelerator.choose(kernel, said.append, memory) == TCG
    assert said == [f"machines run without KVM, several times slower: there is no {device}"]
    assert accelerator.choose(kernel, said.append, memory) == TCG
    assert len(said) == 1
    remembered = json.loads(memory.read_text())
    memory.write_text(json.dumps({**remembered, "accelerator": "kvm"}))
    assert accelerator.choose(kernel, said.append, memory) == KVM
    memory.write_text(json.dumps({**remembered, "accelerator": "kvm", "boot": "an earlier one"}))
    assert accelerator.choose(kernel, said.append, memory) == TCG
    assert len(said) == 2


def test_what_machines_need_is_asked_for_only_where_there_are_some(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for program in (*requirements.PROGRAMS, "unshare"):
        (tmp_path / program).symlink_to(shutil.which("true") or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError) as error:
        requirements.check(machines=True)
    assert str(error.value) == (
        "this machine cannot run a lab:\n"
        "  - the program qemu-system-x86_64 is not installed\n"
        "      apt-get install --no-install-recommends qemu-system-x86\n"
        "  - the program mkfs.ext4 is not installed\n"
        "      apt-get install e2fsprogs\n"
        "  = help: `make setup` installs missing packages, `make test-machines` also QEMU"
    )
    requirements.check()


def test_a_machine_has_a_kernel_and_no_other_wireguard() -> None:
    machine, full = image.machine("trixie"), image.full("trixie")
    assert "linux-image-cloud-amd64" in machine.packages
    assert not any(name.startswith("wireguard-go") for name in machine.packages)
    assert machine.releases == ("trixie",)
    assert machine.digest not in (full.digest, image.machine("bookworm").digest)
