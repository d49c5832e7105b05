"""Hosts with kernels of their own: what the lab does with them, and that private networks hold on real Debian kernels.

lab-2 is a machine with Debian 12 and lab-3 one with Debian 13. lab-1 is in systemd-nspawn: a run changes the first host
alone and then all others at once, so two machines that translate share two processors. All tests share these hosts, in
this order. lab-2 has no IPv6 from its second boot to its third, the first deploy among what comes between. The last
change of the mesh moves its endpoints to IPv6.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from lab.kernel import difference, dump, until_rested
from lab.runs import (
    SHOP,
    STOREFRONT,
    Result,
    assert_reachable,
    deploy,
    edit,
    inside,
    killed_at,
    plan_of,
    replace_once,
)
from machines.mesh import (
    MTU,
    MTU_OVER_IPV6,
    PORT_AND_MTU,
    PREFIX_AND_IPV6,
    assert_whole_packets_arrive,
    declare,
    follow_on_the_underlay,
)
from machines.outside import ANSWER, NAME, answering, audited
from machines.sandboxes import REFUSED, done_with_and_without
from privnet.lab import Lab, LabError, accelerator
from privnet.lab.process import wait_until
from privnet.lab.qemu import Machine
from security import frames
from security.attacks import PEER_RULE
from security.oracle import OUTSIDER
from security.scene import Scene
from security.test_sandboxes import units
from security.watch import Watch

# Names outside, asked of the outsider. A test changes WireGuard's port; who knows it first is told that it is closed.
# A host comes whose subnet the underlay did not have.
UNDERLAY = "(host 192.0.2.252 and port 53) or udp port 51900 or udp port 9 or icmp or arp net 10.77.0.0/24"
ROLLBACK = 300
"""Seconds after which a change that nobody confirms is taken back: longer than a wave takes on the slowest machine."""
PAIRS = 20
T = TypeVar("T")

MACHINES = {"lab-2": ("bookworm", "12"), "lab-3": ("trixie", "13")}
CONTAINERS = {"lab-2": f"2.web.{STOREFRONT}", "lab-3": f"1.worker.{STOREFRONT}"}
"""One on each machine, in one network. Of this network lab-1 has the container `1.web`."""


@pytest.fixture(scope="module")
def fresh(fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]) -> Lab:
    """The fleet before anything was deployed to it."""
    releases = {host: release for host, (release, _) in MACHINES.items()}
    return fleet(inventory_copy("lab"), machines=tuple(MACHINES), releases=releases)


def machine_of(lab: Lab, host: str) -> Machine:
    machine = lab.machine(host)
    assert isinstance(machine, Machine)
    return machine


def at_once(ask: Callable[[str], T], whom: Iterable[str]) -> list[T]:
    """Of both machines: each has a processor to itself where QEMU translates."""
    with ThreadPoolExecutor() as pool:
        return [*pool.map(ask, whom)]


def boot_of(lab: Lab, host: str) -> str:
    return lab.exec(host, "cat /proc/sys/kernel/random/boot_id").stdout


def has_ipv6(lab: Lab, host: str) -> bool:
    return lab.exec(host, "test -e /proc/sys/net/ipv6", check=False).returncode == 0


# --- the lab ------------------------------------------------------------------------------------------


def test_hosts_of_both_kinds_are_in_one_lab(fresh: Lab) -> None:
    seen = {status.name: (status.state, status.kind, status.release) for status in fresh.status()}
    machines = {host: ("running", "machine", release) for host, (release, _) in MACHINES.items()}
    assert seen == {**machines, "lab-1": ("running", "nspawn", "bookworm")}
    for source, target in [("lab-2", "192.0.2.13"), ("lab-3", "192.0.2.11"), ("lab-1", "192.0.2.12")]:
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
    assert fresh.exec(host, "uname -r").stdout != fresh.exec("lab-1", "uname -r").stdout


@pytest.mark.parametrize("host", MACHINES)
def test_exec_passes_words_input_output_and_status_through(fresh: Lab, host: str) -> None:
    words = ["sh", "-c", 'cat; printf "%s|" "$@"; echo err >&2; exit 7', "sh", "a  b", "$HOME", "it's", ""]
    answer = fresh.exec(host, words, check=False, input="in|")
    assert (answer.returncode, answer.stdout, answer.stderr) == (7, "in|a  b|$HOME|it's||", "err\n")
    with pytest.raises(subprocess.CalledProcessError, match="status 7"):
        fresh.exec(host, "exit 7")


def test_what_takes_too_long_is_ended_in_the_machine_too(fresh: Lab) -> None:
    patience = fresh.machine("lab-2").patience
    with pytest.raises(subprocess.TimeoutExpired):
        fresh.exec("lab-2", "echo $$ >/run/begun; exec sleep 4321", timeout=10 / patience)
    process = fresh.exec("lab-2", "cat /run/begun").stdout.strip()
    runs = ["test", "-d", f"/proc/{process}"]
    assert wait_until(lambda: fresh.exec("lab-2", runs, check=False).returncode == 1, 20 * patience)
    fresh.exec("lab-2", "sleep 4321 & test -d /proc/$! && kill $!")


def test_the_declared_user_of_a_machine_logs_in_by_its_name(fresh: Lab) -> None:
    ssh = ["ssh", "-F", str(fresh.ssh_config), "-o", "BatchMode=yes", "lab-3", "hostname; id -un; sudo -n id -u"]
    answer = subprocess.run(ssh, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    assert answer.stdout.split() == ["lab-3", "deploy", "0"], answer.stderr


def test_a_power_cut_loses_what_was_not_on_the_disk_and_a_start_boots_what_was(fresh: Lab, tmp_path: Path) -> None:
    fresh.exec("lab-2", "echo kept >/var/tmp/kept && sync && echo lost >/var/tmp/lost; touch /run/gone")
    fresh.kill("lab-2")
    assert {status.name: status.state for status in fresh.status()}["lab-2"] == "off"
    assert fresh.exec("lab-1", ["ping", "-c1", "-W1", "192.0.2.12"], check=False).returncode == 1
    with pytest.raises(LabError, match="is not running"):
        fresh.exec("lab-2", "true")
    machine_of(fresh, "lab-2").parameters.write_text("ipv6.disable=1\n")
    with fresh.capture(tmp_path / "boot.pcap", "host 192.0.2.12") as seen:
        fresh.start("lab-2")
        fresh.exec("lab-1", ["ping", "-c1", "-W5", "192.0.2.12"])
    assert seen.count("icmp") == 2
    left = fresh.exec("lab-2", "ls /var/tmp/kept /var/tmp/lost /run/gone 2>/dev/null", check=False).stdout
    assert left.split() == ["/var/tmp/kept"]
    assert [has_ipv6(fresh, host) for host in MACHINES] == [False, True], "a kernel does as its parameters say"


def test_a_machine_that_runs_is_told_of_a_subnet_that_came_later(fresh: Lab) -> None:
    fleet_file = fresh.inventory / "fleet.yaml"
    before = fleet_file.read_text()
    ping = ["ping", "-c1", "-W5", "10.77.0.5"]
    assert fresh.exec("lab-2", ping, check=False).returncode != 0
    fleet_file.write_text(before + "  late: {address: 10.77.0.5}\n")
    try:
        fresh.add_host("late")
        reached = wait_until(lambda: fresh.exec("lab-2", ping, check=False).returncode == 0, 20 * fresh.patience)
        assert reached, fresh.exec("lab-2", "ip route").stdout
        fresh.remove_host("late")
    finally:
        fleet_file.write_text(before)


def test_a_disk_keeps_its_kind(fresh: Lab) -> None:
    with pytest.raises(LabError) as refused:
        fresh.up(machines=["lab-1"])
    assert str(refused.value) == (
        "host lab-1 has the disk of an nspawn host, not of a machine\n"
        f"  = help: `privnet lab down --name {fresh.name}` throws it away"
    )
    with pytest.raises(LabError) as refused:
        fresh.up(machines=["lab-2"], bare=["lab-2"])
    assert str(refused.value) == "host lab-2 cannot be a machine and bare: a machine has what a deploy needs"


def test_an_accelerator_is_tried_with_the_kernel_that_it_is_to_run(fresh: Lab) -> None:
    """The twin is TCG, which works everywhere; what has not come up in time does not work."""
    machine = machine_of(fresh, "lab-2")
    kernel = machine.directory / "vmlinuz"
    assert accelerator.probe(accelerator.TCG, kernel, 300) == ""
    late = accelerator.probe(accelerator.TCG, kernel, 1)
    assert late == "with tcg Debian's kernel has not come up within 1 s"
    nothing = accelerator.probe(accelerator.TCG, machine.console, 20)
    assert nothing.startswith("with tcg Debian's kernel does not come up; QEMU says: ")


# --- sandboxes ----------------------------------------------------------------------------------------


def test_a_real_kernel_enforces_each_line_of_the_sandboxes(fresh: Lab) -> None:
    written = {line for text in units().values() for line in text.splitlines()}
    assert REFUSED.keys() <= written, "a line that no unit has"
    without = [f"without {line}" for line in REFUSED]
    assert at_once(lambda host: done_with_and_without(fresh, host), MACHINES) == [without, without]


# --- private networks ---------------------------------------------------------------------------------


KERNEL = (512, 1024)
"""Above how many neighbours a kernel forgets some, and how many it knows at most, by itself."""


def neighbours_of(lab: Lab, host: str) -> tuple[int, int]:
    """The same on a host."""
    said = lab.exec(host, "cd /proc/sys/net/ipv4/neigh/default && cat gc_thresh2 gc_thresh3").stdout
    soft, hard = map(int, said.split())
    return soft, hard


def assert_room_for_neighbours(lab: Lab) -> None:
    """The limits of a machine's kernel are those of its plan."""
    for host in MACHINES:
        entries = plan_of(lab).hosts[host].neighbour_table.ipv4
        assert neighbours_of(lab, host) == (entries // 2, entries) > KERNEL


@pytest.fixture(scope="module")
def first(fresh: Lab) -> Result:
    """The first deploy; names outside are asked of the outsider."""
    fleet_file = fresh.inventory / "fleet.yaml"
    replace_once(fleet_file, "policy:\n", f"policy:\n  rollback: {ROLLBACK}s\n")
    # The oracle reads no placement that privnet has to find.
    edit(fresh, "shop", "web: {count: 2, spread: zone}", "web: [lab-2, lab-1]")
    fleet_file.write_text(fleet_file.read_text() + f"dns: {{upstream: [{OUTSIDER}]}}\n")
    assert {neighbours_of(fresh, host) for host in MACHINES} == {KERNEL}, "the twin of what a deploy makes of them"
    done = deploy(fresh)
    assert done.changed["prepare host"] == [*fresh.hosts]
    return done


@pytest.fixture(scope="module")
def lab(fresh: Lab, first: Result) -> Lab:
    """The same fleet, deployed to."""
    return fresh


def test_the_second_run_changes_nothing(lab: Lab) -> None:
    assert deploy(lab).changed == {}


def test_a_deploy_raises_the_limits_of_the_kernels_neighbour_table(lab: Lab) -> None:
    assert_room_for_neighbours(lab)


def test_everybody_reaches_everybody_and_the_audit_finds_no_deviation(lab: Lab) -> None:
    assert_reachable(lab)
    audit = audited(lab)
    if "dns.upstream over " in audit.stdout:
        # The audit waits as long as a real host takes; a busy machine that translates may be late, but not each time.
        audit = audited(lab)
    assert audit.returncode == 0, audit.stdout + audit.stderr


def test_the_mesh_is_the_kernels_where_it_has_wireguard(lab: Lab) -> None:
    """No package is installed for it, no process is left behind, and the unit has done its work all the same."""
    for host in MACHINES:
        assert '"info_kind":"wireguard"' in lab.exec(host, "ip -json -details link show privnet").stdout
        shown = lab.exec(host, "systemctl show --property=ActiveState,SubState,MainPID wg-quick@privnet").stdout
        assert shown.split() == ["MainPID=0", "ActiveState=active", "SubState=exited"]
        assert lab.exec(host, "cat /sys/class/net/privnet/tun_flags", check=False).returncode != 0
        assert lab.exec(host, "dpkg-query --show wireguard-go", check=False).returncode != 0
    assert '"info_kind":"tun"' in lab.exec("lab-1", "ip -json -details link show privnet").stdout, "the twin"


@pytest.mark.parametrize("host", MACHINES)
def test_apparmor_confines_no_program_of_ours(lab: Lab, host: str) -> None:
    """None of Debian's profiles is for one of them. The twin is tcpdump, which has one."""
    processes = "systemctl show --property=MainPID --value 'privnet-*' | grep -vx -e 0 -e ''"
    ours = lab.exec(host, f"for pid in $({processes}); do cat /proc/$pid/attr/current; done").stdout.split("\n")
    assert len(ours) > 2 and {*ours} == {"unconfined", ""}
    begun = "tcpdump -i lo -w /dev/null 2>/dev/null &"
    twin = f"{begun} until grep tcpdump /proc/$!/attr/current; do sleep 1; done; kill $!"
    assert lab.exec(host, twin).stdout == "tcpdump (enforce)\n"


def test_names_outside_are_answered_in_containers_of_machines(lab: Lab) -> None:
    asked = ["dig", "+short", "+time=10", f"{NAME}."]
    with answering(lab):
        answers = at_once(lambda slot: inside(lab, slot, *asked, "+tries=3"), CONTAINERS.values())
        assert answers == [f"{ANSWER}\n"] * 2
    answers = at_once(lambda slot: inside(lab, slot, *asked, "+tries=1", check=False), CONTAINERS.values())
    assert ANSWER not in "".join(answers), "the twin: nobody else answers"


def test_a_reboot_and_a_power_cut_restore_all_networks(lab: Lab) -> None:
    before, boot, process = dump(lab), boot_of(lab, "lab-3"), lab.machine("lab-3").keeper
    lab.kill("lab-2")
    machine_of(lab, "lab-2").parameters.unlink()
    at_once(lambda host: lab.reboot(host) if host == "lab-3" else lab.start(host), MACHINES)
    assert boot_of(lab, "lab-3") != boot and lab.machine("lab-3").keeper == process, "it is on all the time"
    assert has_ipv6(lab, "lab-2"), "and nothing of ours uses it"
    assert difference(before, dump(lab)) == ""
    assert_reachable(lab)
    assert_room_for_neighbours(lab)
    assert deploy(lab).changed == {}


def test_a_mesh_interface_that_was_deleted_is_told_and_comes_back_with_a_run(lab: Lab) -> None:
    """No process has ended, so systemd has nothing to start again, unlike wireguard-go's unit."""
    before = dump(lab)
    lab.exec("lab-3", "ip link delete privnet")
    audit = audited(lab, "--quick")
    assert audit.returncode == 1 and "privnet" in audit.stdout, audit.stdout + audit.stderr
    deploy(lab)
    assert difference(before, dump(lab)) == ""
    assert_reachable(lab)


def test_each_machine_rolls_back_by_itself_when_the_control_machine_dies(lab: Lab, first: Result) -> None:
    """After a wave that has changed the mesh too, which kernel WireGuard follows back."""
    soon = 30 + int(first.seconds) // 2  # longer than a wave takes on a machine as busy as this one
    declared = {path: path.read_text() for path in lab.inventory.rglob("*.yaml") if "lock" not in path.name}
    before = dump(lab)
    declare(lab, PORT_AND_MTU)
    replace_once(lab.inventory / "fleet.yaml", f"rollback: {ROLLBACK}s", f"rollback: {soon}s")
    edit(lab, "shop", "web: [lab-1, lab-2]", "web: [lab-1, lab-3]")
    killed_at(lab, "switch what has moved")
    during = dump(lab)
    for host in MACHINES:
        assert {"left: /var/lib/privnet/armed", f"mesh: mtu {MTU}"} <= {*during[host]}, "the twin"
    until_rested(lab, within=2 * ROLLBACK)
    assert difference(before, dump(lab)) == ""
    off = "cat /proc/sys/net/ipv6/conf/privnet/disable_ipv6"
    assert at_once(lambda host: lab.exec(host, off).stdout, MACHINES) == ["1\n", "1\n"]
    for path, text in declared.items():
        path.write_text(text)
    assert_reachable(lab)


def test_a_change_of_the_mesh_is_followed_by_kernel_wireguard(lab: Lab) -> None:
    """Port, MTU, prefix and endpoints, in one run."""
    declare(lab, PORT_AND_MTU)
    declare(lab, PREFIX_AND_IPV6)
    follow_on_the_underlay(lab)
    deploy(lab)
    assert_reachable(lab)
    for host, plan in plan_of(lab).hosts.items():
        mesh = plan.mesh
        assert (mesh.port, mesh.prefix, mesh.mtu) == (51900, "100.127.0.0/16", MTU_OVER_IPV6)
        asked = "wg show privnet listen-port; ip -brief address show privnet; ip link show privnet"
        shown = lab.exec(host, asked).stdout
        assert shown.split()[0] == str(mesh.port)
        assert f" {mesh.address}/{mesh.length} " in shown and f" mtu {mesh.mtu} " in shown
        peers = lab.exec(host, "wg show privnet endpoints").stdout.split()[1::2]
        assert sorted(peers) == sorted(peer.endpoint for peer in mesh.peers)
    assert_whole_packets_arrive(lab, *CONTAINERS.values())
    assert deploy(lab).changed == {}


# --- attacks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("attacker", "victim"), [("lab-3", "lab-2"), ("lab-2", "lab-3")])
def test_datagrams_that_a_peer_sends_together_come_to_the_guard_one_by_one(
    lab: Lab, watch: Callable[[Lab], Watch], attacker: str, victim: str
) -> None:
    """Decision 0016: a taken-over host sends pairs as one (UDP_SEGMENT), an honest frame and a forged one behind it.

    The kernel joins what it has decrypted, but by VXLAN's rules. The honest ones are the twin: all of them arrive.
    """
    scene = Scene(lab, lambda: watch(lab))
    scene.look()
    own, to = (scene[CONTAINERS[host]] for host in (attacker, victim))
    mac, to_mac, other = scene.mac(own), scene.mac(to), scene[f"1.web.{STOREFRONT}"]
    honest = frames.datagram("honest", mac, own.address, to_mac, to.address)
    forged = frames.datagram("forged", mac, other.address, to_mac, to.address)
    pair = b"".join(frames.vxlan(scene.vni(SHOP), frame) for frame in (honest, forged))
    with scene.dropping(victim, PEER_RULE, PAIRS):
        with scene.sniffing(to) as found:
            scene.send_datagrams(
                scene[attacker], scene.mesh(victim), [pair] * PAIRS, pause=0.05, segment=len(pair) // 2
            )
        assert found[to].count("planted-honest") == PAIRS
        assert "planted-forged" not in found[to]
