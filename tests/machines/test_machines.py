"""Hosts with kernels of their own: what the lab does with them.

Debian 12 on lab-1 and Debian 13 on lab-3 are machines, lab-2 is in systemd-nspawn. They boot once.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from privnet.lab import Lab, LabError, accelerator
from privnet.lab.qemu import Machine

UNDERLAY = "icmp"

MACHINES = {"lab-1": ("bookworm", "12"), "lab-3": ("trixie", "13")}


@pytest.fixture(scope="module")
def fresh(fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]) -> Lab:
    """The fleet before anything was deployed to it."""
    releases = {host: release for host, (release, _) in MACHINES.items()}
    return fleet(inventory_copy("lab"), machines=tuple(MACHINES), releases=releases)


# --- the lab ------------------------------------------------------------------------------------------


def test_hosts_of_both_kinds_are_in_one_lab(fresh: Lab) -> None:
    seen = {status.name: (status.state, status.kind, status.release) for status in fresh.status()}
    machines = {host: ("running", "machine", release) for host, (release, _) in MACHINES.items()}
    assert seen == {**machines, "lab-2": ("running", "nspawn", "bookworm")}
    for source, target in [("lab-1", "192.0.2.13"), ("lab-3", "192.0.2.12"), ("lab-2", "192.0.2.11")]:
        fresh.exec(source, ["ping", "-c1", "-W5", target])


@pytest.mark.parametrize(("host", "debian"), [(host, version) for host, (_, version) in MACHINES.items()])
def test_a_machine_is_what_debian_ships(fresh: Lab, host: str, debian: str) -> None:
    """Its own kernel with WireGuard, cgroup v2, AppArmor, and networkd and resolved in charge of its uplink."""
    asked = {
        "cat /etc/debian_version": f"{debian}.",
        "uname --kernel-release": "-cloud-amd64",
        "modinfo --field name wireguard": "wireguard",
        "stat --file-system --format=%T /sys/fs/cgroup": "cgroup2fs",
        "cat /sys/kernel/security/lsm": "apparmor",
        "cat /sys/module/apparmor/parameters/enabled": "Y",
        "networkctl --no-legend list eth0": "configured",
        "systemctl is-active systemd-networkd systemd-resolved systemd-logind": "active\nactive\nactive",
        "systemctl list-unit-files wireguard-go.service; command -v wireguard-go || echo none": "none",
    }
    for command, expected in asked.items():
        assert expected in fresh.exec(host, command).stdout, command
    assert fresh.exec(host, "uname -r").stdout != fresh.exec("lab-2", "uname -r").stdout


@pytest.mark.parametrize("host", MACHINES)
def test_exec_passes_words_input_output_and_status_through(fresh: Lab, host: str) -> None:
    words = ["sh", "-c", 'cat; printf "%s|" "$@"; echo err >&2; exit 7', "sh", "a  b", "$HOME", "it's", ""]
    answer = fresh.exec(host, words, check=False, input="in|")
    assert (answer.returncode, answer.stdout, answer.stderr) == (7, "in|a  b|$HOME|it's||", "err\n")
    with pytest.raises(subprocess.CalledProcessError, match="status 7"):
        fresh.exec(host, "exit 7")


def test_what_takes_too_long_is_ended_in_the_machine_too(fresh: Lab) -> None:
    patience = fresh.machine("lab-1").patience
    with pytest.raises(subprocess.TimeoutExpired):
        fresh.exec("lab-1", "exec sleep 4321", timeout=3 / patience)
    assert fresh.exec("lab-1", "pgrep -f '[s]leep 4321'").stdout, "the twin: it is seen while it runs"
    time.sleep(7)
    assert fresh.exec("lab-1", "pgrep -f '[s]leep 4321'", check=False).returncode == 1


def test_the_declared_user_of_a_machine_logs_in_by_its_name(fresh: Lab) -> None:
    ssh = ["ssh", "-F", str(fresh.ssh_config), "-o", "BatchMode=yes", "lab-3", "hostname; id -un; sudo -n id -u"]
    answer = subprocess.run(ssh, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    assert answer.stdout.split() == ["lab-3", "deploy", "0"], answer.stderr


def test_a_power_cut_loses_what_was_not_on_the_disk_and_a_start_boots_what_was(fresh: Lab, tmp_path: Path) -> None:
    fresh.exec("lab-1", "echo kept >/var/tmp/kept && sync && echo lost >/var/tmp/lost; touch /run/gone")
    fresh.kill("lab-1")
    assert {status.name: status.state for status in fresh.status()}["lab-1"] == "off"
    assert fresh.exec("lab-2", ["ping", "-c1", "-W1", "192.0.2.11"], check=False).returncode == 1
    with pytest.raises(LabError, match="is not running"):
        fresh.exec("lab-1", "true")
    with fresh.capture(tmp_path / "boot.pcap", "host 192.0.2.11") as seen:
        fresh.start("lab-1")
        fresh.exec("lab-2", ["ping", "-c1", "-W5", "192.0.2.11"])
    assert seen.count("icmp") == 2
    left = fresh.exec("lab-1", "ls /var/tmp/kept /var/tmp/lost /run/gone 2>/dev/null", check=False).stdout
    assert left.split() == ["/var/tmp/kept"]


def test_a_reboot_starts_the_kernel_anew(fresh: Lab) -> None:
    before = fresh.exec("lab-3", "cat /proc/sys/kernel/random/boot_id; ip link add left type dummy").stdout
    process = fresh.machine("lab-3").keeper
    fresh.reboot("lab-3")
    assert fresh.exec("lab-3", "cat /proc/sys/kernel/random/boot_id").stdout != before
    assert fresh.exec("lab-3", "ip link show left", check=False).returncode == 1
    assert fresh.machine("lab-3").keeper == process, "as a machine it is on all the time"


def test_a_disk_keeps_its_kind(fresh: Lab) -> None:
    with pytest.raises(LabError) as refused:
        fresh.up(machines=["lab-2"])
    assert str(refused.value) == (
        "host lab-2 has the disk of an nspawn host, not of a machine\n"
        f"  = help: `privnet lab down --name {fresh.name}` throws it away"
    )
    with pytest.raises(LabError) as refused:
        fresh.up(machines=["lab-1"], bare=["lab-1"])
    assert str(refused.value) == "host lab-1 cannot be a machine and bare: a machine has what a deploy needs"


def test_an_accelerator_is_tried_with_the_kernel_that_it_is_to_run(fresh: Lab) -> None:
    """The twin is TCG, which works everywhere; what has not come up in time does not work."""
    machine = fresh.machine("lab-1")
    assert isinstance(machine, Machine)
    kernel = machine.directory / "vmlinuz"
    assert accelerator.probe(accelerator.TCG, kernel, 120) == ""
    late = accelerator.probe(accelerator.TCG, kernel, 1)
    assert late == "with tcg Debian's kernel has not come up within 1 s"
    nothing = accelerator.probe(accelerator.TCG, machine.console, 20)
    assert nothing.startswith("with tcg Debian's kernel does not come up; QEMU says: ")
