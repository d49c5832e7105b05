"""What can go wrong with a running fleet, or be asked of it: one run puts it right, and the next has nothing to do."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kernel import difference, dump
from runs import (
    BILLING,
    BLOG,
    DEPLOY,
    PAGES,
    PYINFRA,
    STOREFRONT,
    assert_lossless,
    assert_reachable,
    deploy,
    edit,
    flowing,
    give_application,
    network_of,
    plan_of,
    pyinfra,
    replace_once,
    take_application,
)

from privnet.lab import Lab

pytestmark = pytest.mark.lab

HOSTS = ("lab-1", "lab-2", "lab-3")
UNDERLAY = "udp port 51900 or icmp"  # a test changes WireGuard's port; who knows it first is told that it is closed
REPLACEMENT = "pn-11111111-2222-4333-8444-555555555555"


@pytest.fixture(scope="module")
def lab(shared_fleet) -> Lab:
    """Three hosts, deployed to."""
    lab = shared_fleet("lab")
    assert deploy(lab).changed == {}
    return lab


@pytest.fixture
def declaration(lab: Lab):
    """The declaration may be changed at will; afterwards it is as before."""
    before = {path: path.read_text() for path in lab.inventory.rglob("*.yaml") if "lock" not in path.name}
    yield lab.inventory
    for path in lab.inventory.rglob("*.yaml"):
        if "lock" not in path.name and path not in before:
            path.unlink()
    for path, text in before.items():
        path.write_text(text)


# --- secrets -------------------------------------------------------------------------------------------


@pytest.mark.proves("P10")
def test_no_private_key_is_ever_printed(lab: Lab) -> None:
    lab.exec("lab-1", "systemctl stop wg-quick@privnet.service; rm /etc/privnet/mesh.conf")
    key = lab.exec("lab-1", "cat /etc/wireguard/privnet.key").stdout.strip()
    loud = pyinfra(lab, "-y", "-vvv", "--debug", "--diff")
    assert "wg-quick@privnet" in loud.output, "the twin: the output has the commands"
    assert key not in loud.output
    assert key not in lab.exec("lab-1", "journalctl --no-pager -b").stdout


# --- the accident ---------------------------------------------------------------------------------------


def _emptied_file(inventory: Path, elsewhere: Path) -> Path:
    (inventory / "projects" / "blog.yaml").write_text("")
    return inventory


def _wrong_directory(inventory: Path, elsewhere: Path) -> Path:
    (elsewhere / "empty").mkdir()
    shutil.copy(inventory.with_suffix(".py"), elsewhere / "empty.py")
    return elsewhere / "empty"


def _glob_that_matched_nothing(inventory: Path, elsewhere: Path) -> Path:
    for path in (inventory / "projects").iterdir():
        path.unlink()
    return inventory


ACCIDENTS: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "an emptied file": (_emptied_file, "PN110"),
    "the wrong directory": (_wrong_directory, "PN101"),
    "a glob that matched nothing": (_glob_that_matched_nothing, "PN601"),
}


@pytest.mark.proves("P9", "removal guard")
@pytest.mark.parametrize("what", ACCIDENTS)
def test_what_looks_like_the_wish_to_remove_everything_changes_no_host(
    lab: Lab, declaration, tmp_path: Path, what: str
) -> None:
    deploy(lab, allow=True)
    lock = lab.inventory / "privnet.lock.yaml"
    before, known = dump(lab), lock.read_bytes()
    assert all(any(".ap-" in line for line in lines) for lines in before.values()), "the twin: there is a lot to lose"
    accident, code = ACCIDENTS[what]
    directory = accident(lab.inventory, tmp_path)
    privnet = Path(sys.executable).parent / "privnet"
    commands = {
        2: [str(privnet), "deploy", str(directory), "-y"],
        1: [str(PYINFRA), "-y", str(directory.with_suffix(".py")), str(DEPLOY)],
    }
    for wanted, command in commands.items():
        environment = {**os.environ, "PRIVNET_LAB": lab.name, "PYINFRA_PROGRESS": "off"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
        assert (done.returncode, f"error[{code}]" in done.stderr) == (wanted, True), done.stdout + done.stderr
        assert "No host was contacted." in done.stderr
    assert difference(before, dump(lab)) == ""
    assert lock.read_bytes() == known


# --- a run that is cut short ----------------------------------------------------------------------------


@pytest.mark.proves("P7")
@pytest.mark.parametrize("seconds", [1.5, 2.2, 3.0])
def test_a_killed_run_is_finished_by_the_next(lab: Lab, declaration, seconds: float) -> None:
    edit(lab, "shop", "web: [lab-1, lab-2]", "web: [lab-2, lab-1]")
    block = take_application(lab, "shop", BILLING)
    give_application(lab, "blog", block.replace("{count: 2, spread: zone}", "[lab-3, lab-1]"))
    with flowing(lab, (f"1.web.{PAGES}", f"1.worker.{PAGES}")) as flows:
        environment = {**os.environ, "PRIVNET_LAB": lab.name, "PYINFRA_PROGRESS": "off"}
        command = [str(PYINFRA), "-y", str(lab.inventory.with_suffix(".py")), str(DEPLOY)]
        run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        time.sleep(seconds)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        deploy(lab)
    assert_lossless(flows)
    assert deploy(lab).changed == {}
    assert_reachable(lab)
    for host in HOSTS:
        assert lab.exec(host, "ls -d /etc/privnet/.stage.*", check=False).stdout == ""
        planned = {port.netns for overlay in plan_of(lab).hosts[host].overlays for port in overlay.ports}
        assert set(lab.exec(host, "ls /run/netns").stdout.split()) == planned


# --- changes of the declaration ---------------------------------------------------------------------------


def fleet_says(text: str) -> Callable[[Lab], None]:
    def change(lab: Lab) -> None:
        with (lab.inventory / "fleet.yaml").open("a") as file:
            file.write(f"\n{text}\n")

    return change


def _small_mtu(lab: Lab) -> None:
    replace_once(lab.inventory / "fleet.yaml", "192.0.2.11, zone: a", "192.0.2.11, zone: a, mtu: 1300")


def _exchanged_vnis(lab: Lab) -> None:
    edit(lab, "shop", "  terms:", f"  vni: {network_of(lab, BLOG).vni}\n  terms:")
    edit(lab, "blog", "  terms:", "  vni: 7000\n  terms:")


def _exchanged_hosts(lab: Lab) -> None:
    edit(lab, "shop", "web: [lab-1, lab-2]", "web: [lab-2, lab-1]")


def _migrated_and_moved(lab: Lab) -> None:
    block = take_application(lab, "shop", BILLING)
    give_application(lab, "blog", block.replace("{count: 2, spread: zone}", "[lab-3, lab-1]"))


def _replaced_project(lab: Lab) -> None:
    old = lab.inventory / "projects" / "blog.yaml"
    text = old.read_text().replace("project: blog", "project: other").replace(BLOG, REPLACEMENT)
    old.with_name("other.yaml").write_text(text)
    old.unlink()


def _network_without_containers(lab: Lab) -> None:
    edit(lab, "blog", "web: [lab-1, lab-2]", "web: []")
    edit(lab, "blog", "worker: [lab-3]", "worker: []")


def _host_without_containers(lab: Lab) -> None:
    for project in ("shop", "blog"):
        path = lab.inventory / "projects" / f"{project}.yaml"
        text = path.read_text().replace("[lab-3]", "[lab-1]")
        path.write_text(text.replace("{count: 2, spread: zone}", "[lab-1, lab-2]"))


def _one_host(lab: Lab) -> None:
    path = lab.inventory / "fleet.yaml"
    path.write_text(re.sub(r"  lab-[23]:.*\n", "", path.read_text()))
    for project in ("shop", "blog"):
        path = lab.inventory / "projects" / f"{project}.yaml"
        path.write_text(re.sub("lab-[23]", "lab-1", path.read_text()))


IN_BLOG, IN_SHOP = (f"1.web.{PAGES}", f"1.worker.{PAGES}"), (f"1.web.{STOREFRONT}", f"1.worker.{STOREFRONT}")

CHANGES: dict[str, tuple[Callable[[Lab], None], tuple[str, str] | None]] = {
    "an MTU too small for IPv6": (_small_mtu, None),
    "WireGuard's port": (fleet_says("wireguard: {port: 51900}"), None),
    "VXLAN's port": (fleet_says("vxlan: {port: 4790}"), None),
    "the mesh's prefix": (fleet_says("wireguard: {mesh: 100.65.0.0/16}"), None),
    "the networks' prefix": (fleet_says("network: {cidr: 10.241.4.0/24}"), None),
    "VNIs that go round": (_exchanged_vnis, None),
    "names' time to live and domain": (fleet_says("dns: {ttl: 9}\ndomain: other.internal"), IN_BLOG),
    "names outside": (fleet_says("dns: {upstream: [192.0.2.250]}"), IN_BLOG),
    "two containers change places": (_exchanged_hosts, IN_BLOG),
    "an application goes to another network and host": (_migrated_and_moved, IN_BLOG),
    "a project takes another's applications": (_replaced_project, IN_SHOP),
    "a network without containers": (_network_without_containers, IN_SHOP),
    "a host without containers": (_host_without_containers, None),
    "one host alone": (_one_host, None),
}


@pytest.mark.parametrize("what", CHANGES)
def test_one_run_makes_it_so(lab: Lab, declaration, what: str) -> None:
    change, other = CHANGES[what]
    with flowing(lab, *([other] if other else [])) as flows:
        change(lab)
        deploy(lab, allow=True)  # also what the test before has added
    assert_lossless(flows)
    assert deploy(lab).changed == {}
    assert_reachable(lab)
    assert_nothing_stale(lab)


def assert_nothing_stale(lab: Lab) -> None:
    """Each host has the devices, namespaces, units and files of its plan, and none beside them."""
    for name, plan in plan_of(lab).hosts.items():
        ports = [port for overlay in plan.overlays for port in overlay.ports]
        links = {n for o in plan.overlays for n in (o.network.bridge, o.network.vxlan)}
        links |= {port.name for port in ports}
        asked = r"""
            ls /sys/class/net | grep -E '^pn[bxcu]'; echo ==; ls /run/netns; echo ==; ls /etc/netns; echo ==
            systemctl list-units --all --plain --no-legend 'privnet-container@*' | awk '{print $1}'; echo ==
            ip route show type unreachable; echo ==
            ls /run/privnet | grep names; echo ==; wg show privnet listen-port; echo ==
            ls /etc/privnet/overlay | grep conf; echo ==
            systemctl list-units --plain --no-legend 'privnet-forwarder*.socket' | awk '{print $1}'"""
        found = [set(part.split("\n")) - {""} for part in lab.exec(name, asked, check=False).stdout.split("==\n")]
        networks = {overlay.network.id for overlay in plan.overlays}
        assert found[0] == links, name
        assert found[1] == {port.netns for port in ports}, name
        assert found[2] == {port.netns for port in ports} - networks, name
        assert found[3] == {f"privnet-container@{port.name}.service" for port in ports}, name
        assert {line.strip() for line in found[4]} == {f"unreachable {plan.mesh.prefix} metric 4294967295"}, name
        assert found[5] == {f"names.{n}" for n in networks}, name
        assert found[6] == {str(plan.mesh.port)}, name
        assert found[7] == {f"{overlay.network.vni}.conf" for overlay in plan.overlays}, name
        asking = networks if plan.outside.upstream else set()
        assert found[8] == {f"privnet-forwarder@{network}.socket" for network in asking}, name
