"""What a host brings along that private networks cannot live with, or that takes them down later, on real hosts."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runs import PYINFRA, STOREFRONT, assert_lossless, assert_reachable, deploy, flowing, plan_of

from privnet.lab import Lab

DROP_IN = "/run/systemd/system/{}.d/zz-broken.conf"
"""It comes after ours, whose `ExecStart=` would take its place otherwise."""


@pytest.fixture(scope="module")
def lab(fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]) -> Lab:
    """Three hosts with the private networks of the example."""
    lab = fleet(inventory_copy("lab"))
    deploy(lab)
    return lab


def vxlan(lab: Lab) -> str:
    """A VXLAN device of `lab-2`."""
    return plan_of(lab).hosts["lab-2"].overlays[0].network.vxlan


def privnet(lab: Lab, *words: str) -> tuple[int, str]:
    """The exit code of `privnet …`, and all that it said."""
    command = [str(PYINFRA.with_name("privnet")), *words]
    environment = os.environ | {"PRIVNET_LAB": lab.name}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("unit", ["privnet-container@.service", "wg-quick@privnet.service"])
def test_a_unit_that_fails_says_why(lab: Lab, unit: str) -> None:
    path = DROP_IN.format(unit)
    lines = ("[Service]", "ExecStart=", "ExecStart=/bin/sh -c 'echo the \\033[31mcause is here >&2; exit 7'")
    lab.exec("lab-2", f"mkdir -p {path.rpartition('/')[0]}; cat > {path}", input="\n".join(lines) + "\n")
    lab.exec("lab-2", "systemctl daemon-reload; systemctl stop wg-quick@privnet.service 'privnet-container@*'")
    try:
        failed = deploy(lab, check=False)
    finally:
        lab.exec("lab-2", f"rm {path}; systemctl daemon-reload")
    assert failed.code == 1
    name = unit.partition("@")[0]
    assert f"lab-2: {name}@" in failed.output and "the \\x1b[31mcause is here\n" in failed.output
    deploy(lab)
    assert deploy(lab).changed == {}


NOISE = "echo Welcome; echo warning >&2; printf 'no end of a line'"


@pytest.mark.parametrize("user", ["root", "deploy"])
@pytest.mark.parametrize("shell", ["/bin/tcsh", "/bin/rbash", "/bin/dash", "/bin/bash"])
def test_any_login_shell_will_do(lab: Lab, tmp_path: Path, shell: str, user: str) -> None:
    """As root and by sudo; that of bash talks, as sshd lets it read ~/.bashrc."""
    host = "lab-2" if user == "root" else "lab-3"
    home = lab.exec(host, f"getent passwd {user} | cut -d : -f 6").stdout.strip()
    lab.exec(host, f"cp {home}/.bashrc {home}/.kept || :; {{ echo {shlex.quote(NOISE)}; }} > {home}/.bashrc")
    lab.exec(host, f"usermod -s {shell} {user}; ip link delete dev {vxlan(lab)}")
    try:
        assert privnet(lab, "deploy", str(lab.inventory), "-y")[0] == 0
        audited = privnet(lab, "audit", str(lab.inventory), "--quick")
        there = ("--ssh-config", str(lab.ssh_config), "--output", str(tmp_path / "again"))
        imported = privnet(lab, "import", f"{user}@{host}", *there)
    finally:
        lab.exec(host, f"usermod -s /bin/bash {user}; rm {home}/.bashrc; mv {home}/.kept {home}/.bashrc || :")
    assert (audited[0], "not possible" in audited[1]) == (0, False), audited
    assert "2 private networks" in imported[1].splitlines()[0], imported


def test_what_sudo_says_is_said_by_a_run_an_audit_and_an_import(lab: Lab, tmp_path: Path) -> None:
    rules = "/etc/sudoers.d"
    lab.exec("lab-3", f"mv {rules} {rules}.aside; mkdir {rules}; echo 'deploy ALL=(ALL) ALL' > {rules}/deploy")
    try:
        ran = privnet(lab, "deploy", str(lab.inventory), "-y")[1]
        audited = privnet(lab, "audit", str(lab.inventory), "--quick")[1]
        there = ("--ssh-config", str(lab.ssh_config), "--output", str(tmp_path / "again"))
        imported = privnet(lab, "import", "root@lab-1", "deploy@lab-3", *there)[1]
    finally:
        lab.exec("lab-3", f"rm -r {rules}; mv {rules}.aside {rules}")
    for said in (ran, audited, imported):
        assert "sudo: a password is required: let this user use sudo without a password" in said, said


@pytest.mark.parametrize("words", ["audit {}", "audit {} 2>&1", "deploy {} -y 2>&1", "plan {} --live"])
def test_an_output_that_nobody_reads_ends_nothing_with_a_traceback(lab: Lab, words: str) -> None:
    lab.exec("lab-2", f"ip link delete dev {vxlan(lab)}")
    command = f"{PYINFRA.with_name('privnet')} {words.format(lab.inventory)} | head -1"
    environment = os.environ | {"PRIVNET_LAB": lab.name}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert "Broken" not in done.stderr and "Traceback" not in done.stderr and "INTERNALERROR" not in done.stderr
    # A run goes on to its end, whoever has read that it began.
    there = lab.exec("lab-2", f"ip link show dev {vxlan(lab)}", check=False).returncode == 0
    assert there == words.startswith("deploy")
    deploy(lab)


NETWORK = "/etc/systemd/network/{}.network"
UPLINK = "[Match]\\nName=eth0\\n[Link]\\nUnmanaged=yes\\n"
EVERY = "[Match]\\nName=*\\n[Network]\\nDHCP=yes\\n"


def ports(lab: Lab, host: str) -> set[str]:
    """Devices of ours that are ports of a bridge of ours."""
    lines = lab.exec(host, "bridge -o link show").stdout.splitlines()
    return {line.split()[1].rstrip(":").partition("@")[0] for line in lines if " master pnb" in line}


@pytest.mark.parametrize("name", ["10-all", "50-all"])
def test_a_file_for_every_device_leaves_bridges_whole_over_a_restart(lab: Lab, name: str) -> None:
    lab.exec("lab-2", f"printf '{EVERY}' > {NETWORK.format(name)}; printf '{UPLINK}' > {NETWORK.format('00-up')}")
    try:
        deploy(lab)
        before = ports(lab, "lab-2")
        lab.exec("lab-2", "systemctl restart systemd-networkd.service; sleep 2")
        assert ports(lab, "lab-2") == before != set()
        assert deploy(lab).changed == {}
        assert_reachable(lab)
        # The twin: one that comes before ours is refused, with nothing changed.
        lab.exec("lab-2", f"mv {NETWORK.format(name)} {NETWORK.format('01-all')}")
        lab.exec("lab-2", f"ip link delete dev {vxlan(lab)}")
        refused = deploy(lab, check=False)
        assert f"privnet: lab-2: networkd would set up devices of private networks by {NETWORK.format('01-all')}" in (
            refused.output
        )
        lab.exec("lab-2", "networkctl reload; systemctl restart systemd-networkd.service; sleep 2")
        assert ports(lab, "lab-2") != before
        audited = privnet(lab, "audit", str(lab.inventory), "--quick")[1]
        assert f"set up by: expected no file of others, actual {NETWORK.format('01-all')}" in audited
    finally:
        lab.exec(
            "lab-2",
            f"rm -f {NETWORK.format('*-all')} {NETWORK.format('00-up')}; systemctl restart systemd-networkd.service",
        )
    deploy(lab)
    assert deploy(lab).changed == {}


def test_files_with_the_names_of_before_give_way_without_loss(lab: Lab) -> None:
    """They began with 60-, so that a file of others for every device came first."""
    older = "cd /etc/systemd/network; for f in 05-privnet-[0-9]*; do mv $f 60-${f#05-}; done; networkctl reload"
    for host in lab.hosts:
        lab.exec(host, older)
    devices = "cat /sys/class/net/pn[bx]*/ifindex"
    before = lab.exec("lab-2", devices).stdout
    with flowing(lab, (f"1.web.{STOREFRONT}", f"2.web.{STOREFRONT}")) as flows:
        deploy(lab)
    assert_lossless(flows)
    assert lab.exec("lab-2", devices).stdout == before
    assert "60-privnet" not in lab.exec("lab-2", "ls /etc/systemd/network").stdout
    assert deploy(lab).changed == {}


@pytest.mark.parametrize("unit", ["systemd-networkd.service", "wg-quick@.service"])
def test_a_masked_unit_that_is_needed_is_said_before_the_first_change(lab: Lab, unit: str) -> None:
    lab.exec("lab-2", f"systemctl mask {unit}; ip link delete dev {vxlan(lab)}")
    try:
        refused = deploy(lab, check=False)
        assert f"privnet: lab-2: its {unit} is masked, and private networks need it: `systemctl unmask {unit}`" in (
            refused.output
        )
        assert lab.exec("lab-2", f"ip link show dev {vxlan(lab)}", check=False).returncode != 0
    finally:
        lab.exec("lab-2", f"systemctl unmask {unit}; systemctl daemon-reload")
    # The twin: the remedy is one.
    deploy(lab)
    assert deploy(lab).changed == {}


def undeployed(lab: Lab, host: str) -> None:
    """A host that has no mesh, overlay or port of ours: as new ones are, but for its key."""
    lab.exec(host, "systemctl stop 'privnet-*' wg-quick@privnet.service; rm /etc/systemd/network/05-privnet-*-*")
    lab.exec(
        host, "networkctl reload; for d in $(ls /sys/class/net | grep '^pn[bxcu]'); do ip link delete dev $d; done"
    )


@pytest.fixture
def without_mesh(lab: Lab) -> Iterator[str]:
    """A host on which everything is new; afterwards the fleet is as planned."""
    undeployed(lab, "lab-2")
    yield "lab-2"
    deploy(lab)
    assert deploy(lab).changed == {}
    assert_reachable(lab)


def refused(lab: Lab, host: str) -> str:
    """What a run says of a host that it leaves alone, on which it must not have changed anything."""
    before = lab.exec(host, "ip -d link; ls -lR --time-style=full-iso /etc").stdout
    run = deploy(lab, check=False)
    assert run.code == 1
    assert lab.exec(host, "ip -d link; ls -lR --time-style=full-iso /etc").stdout == before
    return next(line for line in run.output.splitlines() if f"privnet: {host}: " in line)


@pytest.mark.parametrize("name", ["elsewhere", "engine"])
def test_an_overlay_that_was_moved_to_another_namespace_keeps_its_port(lab: Lab, without_mesh: str, name: str) -> None:
    """As engines of a swarm make theirs: the port stays that of the host, and no process has it."""
    lab.exec(without_mesh, "mkdir -p /run/docker/netns; ip netns add elsewhere")
    make = "ip link add vx-swarm type vxlan id 4096 dstport 4789 local 192.0.2.12; ip link set vx-swarm netns elsewhere"
    lab.exec(without_mesh, f"{make}; ip netns exec elsewhere ip link set vx-swarm up")
    if name == "engine":
        at = "/run/docker/netns/1-x7k2"
        lab.exec(without_mesh, f"touch {at}; mount --bind /run/netns/elsewhere {at}")
    try:
        said = refused(lab, without_mesh)
    finally:
        lab.exec(
            without_mesh, "umount /run/docker/netns/1-x7k2; ip netns delete elsewhere; rm -r /run/docker", check=False
        )
    if name == "engine":
        assert (
            "its VXLAN device vx-swarm (VNI 4096) in namespace 1-x7k2 of a container engine uses UDP port 4789" in said
        )
    else:
        assert "something there uses UDP port 4789, which the overlays need: `ss -lunp` shows which program" in said


WAYS = {
    "a blackhole": ("ip route add blackhole 192.0.2.11", "ip route del 192.0.2.11", "no route to lab-1 (192.0.2.11)"),
    "a prohibition": ("ip route add prohibit 192.0.2.13", "ip route del 192.0.2.13", "no route to lab-3 (192.0.2.13)"),
    "a small device": (
        "ip link set dev eth0 mtu 1400",
        "ip link set dev eth0 mtu 1500",
        "its way to lab-1 (192.0.2.11), lab-3 (192.0.2.13) by eth0 takes packets of 1400 bytes at most, ",
    ),
    "a small path": (
        "ip route add 192.0.2.11/32 dev eth0 mtu lock 1420",
        "ip route del 192.0.2.11/32",
        "its way to lab-1 (192.0.2.11) by eth0 takes packets of 1420 bytes at most, and the declaration says ",
    ),
    "another source": (
        "ip addr add 192.0.2.99/32 dev eth0; ip route add 192.0.2.11/32 dev eth0 src 192.0.2.99",
        "ip route del 192.0.2.11/32; ip addr del 192.0.2.99/32 dev eth0",
        "it would speak to lab-1 (192.0.2.11) from 192.0.2.99, and peers hear it from 192.0.2.12 alone",
    ),
    "a peer's address": (
        "ip addr add 192.0.2.11/32 dev lo",
        "ip addr del 192.0.2.11/32 dev lo",
        "it has the address of lab-1 (192.0.2.11) itself",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WAYS)
def test_a_way_to_a_peer_that_is_none_is_said_before_the_first_change(lab: Lab, without_mesh: str, what: str) -> None:
    broken, mended, sentence = WAYS[what]
    lab.exec(without_mesh, broken)
    try:
        assert sentence in refused(lab, without_mesh)
    finally:
        lab.exec(without_mesh, mended)


def test_a_mesh_that_runs_goes_on_beside_a_route_that_is_lost(lab: Lab) -> None:
    lab.exec("lab-2", "ip route add prohibit 192.0.2.13/32")
    try:
        assert deploy(lab).changed == {}
    finally:
        lab.exec("lab-2", "ip route del 192.0.2.13/32")
