"""The lab itself: what the other lab tests, and people, rely on."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import lab_name
from privnet.lab import Lab, LabError, settings, underlay
from privnet.lab.process import Process, wait_until
from privnet.lab.settings import ssh_config_of

# These tests are about the underlay itself, and send what they like.
UNDERLAY = "ip or ip6 or arp"  # a host comes whose network the underlay did not have

# Two subnets and IPv6, an endpoint beside the address, jumbo frames, another port and user.
FLEET = """\
fleet: trial
lab: true
hosts:
  alpha: {address: 192.0.2.11}
  beta: {address: 198.51.100.7, endpoint: "203.0.113.9:51820", mtu: 9000, ssh: {user: admin, port: 2222}}
  gamma: {address: "2001:db8::11", mtu: 9000}
  empty: {address: 192.0.2.14}
"""
TOOLS = ("dig", "ping", "arping", "nc", "curl", "tcpdump", "iperf3", "python3", "nft", "wg", "wireguard-go", "dnsmasq")


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inventory") / "trial"
    directory.mkdir()
    (directory / "fleet.yaml").write_text(FLEET)
    return directory


@pytest.fixture(scope="module")
def before() -> str:
    """The machine's own network as it was before any lab."""
    return own_network()


@pytest.fixture(scope="module")
def lab(before: str, fleet: Callable[..., Lab], trial: Path) -> Lab:
    return fleet(trial, bare=("empty",), releases={"gamma": "trixie"})


def own_network() -> str:
    asked = [["ip", "-json", "link"], ["ip", "-json", "route"], ["nft", "list", "ruleset"]]
    answers = [subprocess.run(argv, capture_output=True, text=True, check=True).stdout for argv in asked]
    return "\n".join(line for line in answers)


def ssh(lab: Lab, host: str, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    argv = ["ssh", "-F", str(lab.ssh_config), "-o", "BatchMode=yes", *options, host, command]
    return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)


def cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "privnet.lab", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )


def pids(lab: Lab) -> dict[str, int | None]:
    return {status.name: status.pid for status in lab.status()}


def test_every_host_is_running_without_a_failed_unit(lab: Lab) -> None:
    assert {status.name: status.state for status in lab.status()} == dict.fromkeys(lab.hosts, "running")


@pytest.mark.parametrize(("host", "user"), [("alpha", "root"), ("beta", "admin"), ("gamma", "root")])
def test_ssh_reaches_a_host_by_its_name_as_the_declared_user(lab: Lab, host: str, user: str) -> None:
    answer = ssh(lab, host, "hostname; id -un; sudo -n id -u")
    assert answer.stdout.split() == [host, user, "0"], answer.stderr


def test_ssh_reaches_the_ordinary_user_deploy_on_any_host(lab: Lab) -> None:
    assert ssh(lab, "alpha", "id -un; sudo -n id -u", "-l", "deploy").stdout.split() == ["deploy", "0"]


def test_ssh_refuses_a_host_with_another_key(lab: Lab, tmp_path: Path) -> None:
    other = tmp_path / "known_hosts"
    other.write_text(lab.settings.known_hosts.read_text().replace("AAAAC3", "AAAAC3", 1).replace("ssh-", "ecdsa-"))
    answer = ssh(lab, "alpha", "true", "-o", f"UserKnownHostsFile={other}")
    assert answer.returncode == 255
    assert "Host key verification failed" in answer.stderr


def test_pyinfra_reaches_all_hosts(lab: Lab, tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.py"
    inventory.write_text(f"hosts = ({list(lab.hosts)!r}, {{'ssh_config_file': {str(lab.ssh_config)!r}}})\n")
    answer = pyinfra(inventory, "exec", "--", "hostname")
    assert answer.returncode == 0, answer.stderr
    said = [line.split() for line in (answer.stdout + answer.stderr).splitlines()]
    for host in lab.hosts:
        assert [f"[{host}]", host] in said


def test_a_fresh_host_runs_nothing_but_sshd_and_systemd(lab: Lab) -> None:
    for host in lab.hosts:
        enabled = lab.exec(host, "cd /etc/systemd/system; find . -path '*.wants/*.service' -printf '%f\\n'").stdout
        expected = {"getty@tty1.service", "ssh.service", "systemd-pstore.service"}
        assert set(enabled.split()) - {"sshd-keygen.service"} == expected  # of Debian 13: makes keys that are missing
        listening = lab.exec(host, "cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == \"0A\" {print $2}'").stdout
        ports = {int(line.rpartition(":")[2], 16) for line in listening.split()}
        assert ports == ({22, 2222} if host == "beta" else {22})
        assert lab.exec(host, "cat /proc/net/udp /proc/net/udp6 | grep -v local_address", check=False).stdout == ""


def test_a_host_carries_what_the_deploy_needs_and_what_people_look_with(lab: Lab) -> None:
    found = lab.exec("alpha", ["which", *TOOLS]).stdout.split()
    assert [Path(path).name for path in found] == list(TOOLS)


def test_a_bare_host_has_none_of_it_and_can_install_it(lab: Lab) -> None:
    assert lab.exec("empty", ["which", *TOOLS], check=False).stdout == ""
    lab.exec("empty", "apt-get -q update && apt-get -qy install nftables wireguard-tools dnsmasq-base", timeout=120)
    assert lab.exec("empty", "nft --version && wg --version && dnsmasq --version").returncode == 0


def test_a_host_runs_the_release_it_was_given(lab: Lab) -> None:
    release = {host: lab.exec(host, ". /etc/os-release; echo $VERSION_CODENAME").stdout.strip() for host in lab.hosts}
    assert release == {"alpha": "bookworm", "beta": "bookworm", "gamma": "trixie", "empty": "bookworm"}
    assert {status.name: status.release for status in lab.status()} == release


def test_another_release_for_a_disk_that_is_there_is_refused(lab: Lab, trial: Path) -> None:
    with pytest.raises(LabError, match="host alpha has a disk of Debian bookworm, not trixie"):
        Lab(trial, name=lab.name).up("alpha", releases={"alpha": "trixie"})
    Lab(trial, name=lab.name).up("gamma", releases={"gamma": "trixie"})


SENDS = "ping -c 1 -W 2 192.0.2.14"
OPENS_TUN = "exec 3<>/dev/net/tun"


@pytest.mark.parametrize("host", ["alpha", "gamma"])
@pytest.mark.parametrize(
    ("does", "property"), [(SENDS, "IPAddressDeny=any"), (OPENS_TUN, "DevicePolicy=closed")], ids=["sends", "opens tun"]
)
def test_filters_of_a_unit_that_the_kernel_runs_as_bpf_are_in_force(
    lab: Lab, host: str, does: str, property: str
) -> None:
    if host == "gamma":
        does = does.replace("192.0.2.14", "2001:db8::fffd")

    def run(*options: str) -> int:
        return lab.exec(host, ["systemd-run", "-q", "--wait", *options, "sh", "-c", does], check=False).returncode

    assert run() == 0
    assert run("-p", property) != 0


def test_every_host_has_an_identity_of_its_own(lab: Lab) -> None:
    for identity in ("cat /etc/machine-id", "cat /etc/ssh/ssh_host_ed25519_key.pub", "cat /sys/class/net/eth0/address"):
        seen = [lab.exec(host, identity).stdout.strip() for host in lab.hosts]
        assert all(seen) and len(set(seen)) == len(seen)


def test_hosts_in_different_subnets_reach_each_other(lab: Lab) -> None:
    for source, target in [
        ("alpha", "198.51.100.7"),
        ("alpha", "203.0.113.9"),
        ("beta", "192.0.2.11"),
        ("operator", "192.0.2.11"),
        ("outsider", "203.0.113.9"),
        ("operator", "2001:db8::11"),
    ]:
        lab.exec(source, ["ping", "-c1", "-W2", target])


def test_nothing_in_the_lab_reaches_this_machine_nor_the_other_way_round(lab: Lab, before: str) -> None:
    addresses = json.loads(subprocess.run(["ip", "-json", "-4", "address"], capture_output=True, check=True).stdout)
    own = [info["local"] for link in addresses for info in link["addr_info"] if info["local"] != "127.0.0.1"]
    assert own, "this machine has an address, so there is something that could be reached"
    for address in own:
        subprocess.run(["ping", "-c1", "-W1", address], check=True, capture_output=True)
        for source in ("alpha", "outsider", "operator"):
            assert lab.exec(source, ["ping", "-c1", "-W1", address], check=False).returncode == 1
    assert own_network() == before


def test_a_name_that_the_lab_does_not_know_is_not_looked_for_elsewhere(lab: Lab) -> None:
    """A server on this machine stands for production: outside of the lab it answers, from the lab it does not."""
    server = subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "22122"], stderr=subprocess.PIPE
    )
    try:
        reached = ["nc", "-z", "127.0.0.1", "22122"]
        assert wait_until(lambda: subprocess.run(reached, check=False).returncode == 0, 10)
        answer = ssh(lab, "127.0.0.1", "true", "-p", "22122")
        assert answer.returncode == 255
        assert "banner" not in answer.stderr
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate()


def test_uplinks_have_the_declared_mtu(lab: Lab) -> None:
    full = ["ping", "-c1", "-W2", "-M", "do", "-s"]
    lab.exec("alpha", [*full, str(1500 - 28), "198.51.100.7"])
    assert lab.exec("alpha", [*full, str(1500 - 27), "198.51.100.7"], check=False).returncode != 0
    assert lab.exec("beta", "cat /sys/class/net/eth0/mtu").stdout == "9000\n"
    # 9000 bytes leave beta and die at the door of alpha, which takes 1500.
    assert lab.exec("beta", [*full, str(1500 - 28), "192.0.2.11"]).returncode == 0
    assert lab.exec("beta", [*full, str(9000 - 28), "192.0.2.11"], check=False).returncode == 1


def test_a_namespace_made_in_a_host_can_be_entered_and_holds_links(lab: Lab) -> None:
    lab.exec(
        "alpha",
        """set -e
        ip netns add one; ip netns add two
        ip link add va netns one type veth peer name vb netns two
        ip -n one address add 10.9.0.1/24 dev va; ip -n one link set va up
        ip -n two address add 10.9.0.2/24 dev vb; ip -n two link set vb up
        ip netns exec one ping -c1 -W2 10.9.0.2
        ip netns exec one ip netns exec two ping -c1 -W2 10.9.0.1
        systemd-run --quiet --wait --pipe -p NetworkNamespacePath=/run/netns/one ping -c1 -W2 10.9.0.2
        ip netns delete one; ip netns delete two
        """,
    )


def test_nftables_counts_and_drops_in_every_family_we_use(lab: Lab) -> None:
    rules = (
        "table inet t { chain c { type filter hook output priority 0; ip daddr 192.0.2.253 counter drop; }; }\n"
        "table bridge t { chain c { type filter hook forward priority 0; counter; }; }\n"
    )
    lab.exec("alpha", ["ping", "-c1", "-W1", "192.0.2.253"])
    lab.exec("alpha", ["nft", "-f", "-"], input=rules)
    assert lab.exec("alpha", ["ping", "-c1", "-W1", "192.0.2.253"], check=False).returncode != 0
    assert "packets 1 " in lab.exec("alpha", "nft list table inet t").stdout
    lab.exec("alpha", "nft delete table inet t; nft delete table bridge t")


def test_wireguard_vxlan_and_networkd_work_between_hosts(lab: Lab) -> None:
    """The data plane by hand, in its thinnest form: a ping through VXLAN through WireGuard."""
    public = {
        host: lab.exec(host, "umask 077; wg genkey >/root/key; wg pubkey </root/key").stdout
        for host in ("alpha", "beta")
    }
    for host, own, peer, other, endpoint in [
        ("alpha", "100.64.0.1", "100.64.0.2", "beta", "203.0.113.9"),
        ("beta", "100.64.0.2", "100.64.0.1", "alpha", "192.0.2.11"),
    ]:
        configuration = (
            f"[Interface]\nAddress = {own}/16\nListenPort = 51820\nTable = off\nMTU = 1440\nPrivateKey = KEY\n"
            f"[Peer]\nPublicKey = {public[other].strip()}\nAllowedIPs = {peer}/32\nEndpoint = {endpoint}:51820\n"
        )
        lab.exec(
            host,
            ["sh", "-c", 'umask 077; sed "s|KEY|$(cat /root/key)|" >/etc/wireguard/wgtry.conf'],
            input=configuration,
        )
        units = (
            ("10-br.netdev", "[NetDev]\nName=brtry\nKind=bridge\n"),
            (
                "10-vx.netdev",
                f"[NetDev]\nName=vxtry\nKind=vxlan\n[VXLAN]\nVNI=4096\nLocal={own}\nRemote={peer}\nDestinationPort=4789\nIndependent=yes\n",
            ),
            (
                "20-br.network",
                f"[Match]\nName=brtry\n[Network]\nAddress=10.9.0.{own[-1]}/24\nConfigureWithoutCarrier=yes\n",
            ),
            ("20-vx.network", "[Match]\nName=vxtry\n[Network]\nBridge=brtry\n"),
        )
        for name, text in units:
            lab.exec(host, ["tee", f"/etc/systemd/network/{name}"], input=text)
        lab.exec(host, "systemctl start wg-quick@wgtry systemd-networkd")
    assert lab.exec("alpha", "networkctl --no-legend list eth0").stdout.split()[-1] == "unmanaged"
    ping = ["ping", "-c1", "-W1", "10.9.0.2"]
    assert wait_until(lambda: lab.exec("alpha", ping, check=False).returncode == 0, 15, interval=0.2)
    lab.exec("alpha", ["ping", "-c1", "-W2", "203.0.113.9"])  # the uplink has outlived networkd's start
    for host in ("alpha", "beta"):
        lab.exec(host, "systemctl stop wg-quick@wgtry; rm /etc/systemd/network/* /etc/wireguard/wgtry.conf")


def test_a_reboot_keeps_the_disk_and_nothing_of_the_kernels_state(lab: Lab) -> None:
    keep = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub /root/note"
    lab.exec("alpha", "echo kept >/root/note; ip link add leftover type bridge; nft add table inet leftover")
    kept, old = lab.exec("alpha", keep).stdout, pids(lab)
    lab.reboot("alpha")
    assert lab.exec("alpha", keep).stdout == kept
    assert "leftover" not in lab.exec("alpha", "ip link; nft list ruleset").stdout
    assert pids(lab)["alpha"] != old.pop("alpha")
    assert old.items() <= pids(lab).items()
    assert ssh(lab, "alpha", "true").returncode == 0


def test_a_host_that_reboots_itself_comes_back(lab: Lab) -> None:
    init = lab.machine("alpha").init
    assert init is not None
    lab.exec("alpha", "ip link add leftover type bridge")
    lab.exec("alpha", ["systemctl", "reboot"], check=False)
    assert init.wait(30)
    lab.machine("alpha").wait_booted(previous=init)
    assert "leftover" not in lab.exec("alpha", "ip link").stdout


def test_a_power_cut_silences_a_host_and_keeps_its_disk(lab: Lab) -> None:
    lab.exec("gamma", "echo kept >/root/note; sync")
    lab.exec("operator", ["ping", "-c1", "-W1", "2001:db8::11"])
    lab.kill("gamma")
    assert lab.exec("operator", ["ping", "-c1", "-W1", "2001:db8::11"], check=False).returncode == 1
    assert {status.name: status.state for status in lab.status()}["gamma"] == "off"
    with pytest.raises(LabError, match="host gamma is not running"):
        lab.exec("gamma", "true")
    lab.start("gamma")
    assert lab.exec("gamma", "cat /root/note").stdout == "kept\n"


def test_stop_shuts_down_in_order(lab: Lab) -> None:
    lab.exec("gamma", ["systemd-run", "--quiet", "-p", "ExecStop=touch /root/stopped", "sleep", "infinity"])
    lab.stop("gamma")
    lab.start("gamma")
    assert lab.exec("gamma", ["test", "-e", "/root/stopped"]).returncode == 0


def test_exec_gives_status_output_and_input_and_ends_what_takes_too_long(lab: Lab) -> None:
    answer = lab.exec("alpha", ["sh", "-c", "cat; echo err >&2; exit 7"], input="in", check=False)
    assert (answer.returncode, answer.stdout, answer.stderr) == (7, "in", "err\n")
    with pytest.raises(subprocess.CalledProcessError, match="status 7"):
        lab.exec("alpha", "exit 7")
    with pytest.raises(subprocess.TimeoutExpired):
        lab.exec("alpha", "sleep 4321", timeout=0.5)
    assert wait_until(lambda: lab.exec("alpha", ["pgrep", "-f", "[s]leep 4321"], check=False).returncode == 1, 5)


def test_a_report_goes_on_when_a_host_does_not_answer(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privnet.lab.lab.REPORT_SECONDS", 1)
    slow = "printf '#!/bin/sh\\nexec sleep 60\\n' > /run/slow; chmod 0755 /run/slow; mount --bind /run/slow /usr/bin/wg"
    lab.exec("alpha", slow)
    report = lab.report()
    lab.exec("alpha", "umount /usr/bin/wg")
    wg, _, after = report.partition("==== beta")[0].partition("---- wg show all")[2].partition("----")
    assert "no answer in 1 s" in wg
    assert "ip -brief address" in after
    assert "no answer" not in lab.report()


def test_a_capture_sees_what_crosses_the_underlay_and_nothing_else(lab: Lab, tmp_path: Path) -> None:
    with lab.capture(tmp_path / "all.pcap") as seen:
        lab.exec("alpha", ["ping", "-c3", "-i0.1", "198.51.100.7"])
        lab.exec("alpha", ["ping", "-c3", "-i0.1", "192.0.2.11"])  # itself: stays inside
    assert seen.count("icmp[icmptype] == icmp-echo and dst host 198.51.100.7") == 3
    assert seen.count("icmp and dst host 192.0.2.11 and src host 192.0.2.11") == 0
    with lab.capture(tmp_path / "udp.pcap", "udp port 9") as seen:
        lab.exec("alpha", ["ping", "-c1", "203.0.113.9"])
    assert seen.count() == 0


def test_what_leaves_by_the_default_route_is_there_to_be_captured(lab: Lab, tmp_path: Path) -> None:
    with lab.capture(tmp_path / "leak.pcap") as seen:
        lab.exec("alpha", ["ping", "-c1", "-W1", "100.127.3.4"], check=False)
    assert seen.count("icmp and dst host 100.127.3.4") == 1


def test_up_again_starts_only_what_is_missing_and_new_hosts_are_reached_by_all(lab: Lab, trial: Path) -> None:
    old = pids(lab)
    lab.up()
    assert pids(lab) == old
    declared = trial / "fleet.yaml"
    declared.write_text(FLEET + "  late: {address: 10.77.0.5}\n")
    try:
        lab.add_host("late")
        assert old.items() <= pids(lab).items()
        lab.exec("alpha", ["ping", "-c1", "-W2", "10.77.0.5"])
        assert ssh(lab, "late", "hostname").stdout == "late\n"
        lab.remove_host("late")
        assert "late" not in lab.hosts
        assert ssh(lab, "late", "true").returncode == 255
        assert lab.exec("alpha", ["ping", "-c1", "-W1", "10.77.0.5"], check=False).returncode == 1
    finally:
        declared.write_text(FLEET)


def test_another_inventory_is_refused_while_one_is_up(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text(FLEET)
    for refused in (Lab(tmp_path, name=lab.name).up, Lab(tmp_path, name=lab.name).down):
        with pytest.raises(LabError, match="runs another fleet"):
            refused()
    assert lab.exists and {one.state for one in lab.status()} != {"off"}


def test_two_labs_with_the_same_hosts_do_not_meet(lab: Lab, fleet: Callable[..., Lab], trial: Path) -> None:
    old = pids(lab)
    other = fleet(trial, "alpha", name="other")
    assert other.name != lab.name
    lab.exec("alpha", "echo one >/root/which")
    other.exec("alpha", "echo two >/root/which")
    assert ssh(lab, "alpha", "cat /root/which").stdout == "one\n"
    assert ssh(other, "alpha", "cat /root/which").stdout == "two\n"
    assert other.exec("alpha", ["ping", "-c1", "-W1", "198.51.100.7"], check=False).returncode == 1  # not up there
    lab.exec("alpha", ["ping", "-c1", "-W1", "198.51.100.7"])
    other.down()
    assert pids(lab) == old


def test_the_command_line_passes_status_and_output_through(lab: Lab) -> None:
    answer = cli("exec", "alpha", "--", "sh", "-c", "echo out; echo err >&2; exit 7", PRIVNET_LAB=lab.name)
    assert (answer.returncode, answer.stdout, answer.stderr) == (7, "out\n", "err\n")
    assert cli("exec", "outsider", "--name", lab.name, "--", "ping", "-c1", "192.0.2.11").returncode == 0
    status = cli("status", "--name", lab.name)
    assert status.returncode == 0
    assert [line.split()[:5] for line in status.stdout.splitlines() if line.startswith("alpha")] == [
        ["alpha", "running", "nspawn", "bookworm", "192.0.2.11"]
    ]
    up = cli("up", "--name", lab.name, "--release", "alpha")
    refusal = "error: --release alpha: which release?\n  = help: --release alpha=trixie\n"
    assert (up.returncode, up.stderr) == (2, refusal)


def traces(name: str) -> list[str]:
    """Everything on this machine that carries a lab's name."""
    found = [entry.name for entry in underlay.NAMESPACES.iterdir() if f".{name}." in entry.name]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if f"/{name}/" in line]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/privnet-lab/{name}")]
    found += [str(settings.STATE_ROOT / name)] if (settings.STATE_ROOT / name).exists() else []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            found += [repr(words)] if any(f"/{name}/".encode() in word for word in words) else []
    return found


def test_down_leaves_nothing(trial: Path) -> None:
    lab = Lab(trial, name=lab_name("gone"))
    lab.up("alpha")
    assert len(traces(lab.name)) > 4
    lab.down()
    assert traces(lab.name) == []
    assert not lab.exists


def test_down_after_a_crash_leaves_nothing(trial: Path) -> None:
    """The keeper and nspawn are killed: the host goes on, an orphan of which only its namespace tells."""
    lab = Lab(trial, name=lab_name("crash"))
    lab.up("alpha")
    machine = lab.machine("alpha")
    init, nspawn = machine.init, Process.read(machine.directory / "nspawn.process")
    assert init is not None and nspawn is not None and machine.keeper is not None
    machine.keeper.signal(signal.SIGKILL)
    nspawn.signal(signal.SIGKILL)
    assert nspawn.wait(5) and not init.wait(0.5)
    lab.down()
    assert not init.alive
    assert traces(lab.name) == []


@pytest.mark.parametrize("after", [0.35, 0.5, 0.7, 1.0])
def test_up_after_a_killed_up_works(trial: Path, after: float) -> None:
    name = lab_name("killed")
    up = subprocess.Popen(
        [sys.executable, "-m", "privnet.lab", "up", str(trial), "--host", "alpha", "--host", "beta", "--name", name],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    time.sleep(after)
    up.kill()
    up.wait()
    lab = Lab(trial, name=name)
    try:
        lab.up("alpha", "beta")
        assert {status.state for status in lab.status()} == {"running"}
        lab.exec("alpha", ["ping", "-c1", "-W2", "198.51.100.7"])
        assert ssh(lab, "beta", "hostname").stdout == "beta\n"
    finally:
        lab.down()
    assert traces(name) == []


def test_a_lab_fleets_lock_file_is_forgotten_with_its_hosts(tmp_path: Path) -> None:
    inventory = tmp_path / "short"
    inventory.mkdir()
    (inventory / "fleet.yaml").write_text(FLEET)
    lock = inventory / "privnet.lock.yaml"
    said: list[str] = []
    lab = Lab(inventory, name=lab_name("forget"), say=said.append)
    lock.write_text("of hosts that are gone\n")
    try:
        lab.up("alpha")
        assert not lock.exists() and any("forgot the lock file" in line for line in said)
        lock.write_text("of these hosts\n")
        lab.kill("alpha")
        lab.up("alpha")
        assert lock.read_text() == "of these hosts\n"
    finally:
        lab.down()
    assert not lock.exists()


@pytest.mark.proves("rehearsal")
def test_a_rehearsal_runs_on_a_copy_and_leaves_the_original_alone(tmp_path: Path) -> None:
    production = tmp_path / "prod"
    production.mkdir()
    (production / "fleet.yaml").write_text(FLEET.replace("lab: true\n", "").replace("trial", "prod"))
    key = hashlib.sha256(b"production's own").hexdigest()
    write_lock(production, key)
    original = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in production.iterdir()}
    lab = Lab(production, name=lab_name("rehearsal"))
    try:
        lab.up("alpha")
        assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in production.iterdir()} == original
        assert lab.rehearsal and lab.source == production
        assert lab.inventory.is_relative_to(settings.STATE_ROOT / lab.name)
        assert "lab: true" in (lab.inventory / "fleet.yaml").read_text()
        locked = (lab.inventory / "privnet.lock.yaml").read_text()
        assert "mesh: 100.64.0.7" in locked
        assert "wireguard" not in locked and "ssh" not in locked
        assert str(lab.inventory) in lab.deploy_command()
        of_runs = [lab.inventory / name for name in ("privnet.lock.yaml", "privnet.progress.json")]
        for path in of_runs:
            path.write_text(f"what a run has written into {path.name}\n")
        lab.up("alpha")
        assert all(path.read_text() == f"what a run has written into {path.name}\n" for path in of_runs)
        of_runs[0].write_text(locked)
        # The copy leads to this lab whatever PRIVNET_LAB says; the original leads to no lab.
        assert ssh_config_of(lab.inventory) == lab.ssh_config
        with pytest.raises(LabError):
            ssh_config_of(production)
        shim = lab.inventory.with_suffix(".py")
        reached = pyinfra(shim, "--limit", "alpha", "exec", "--", "cat /etc/hostname; ls -d /srv")
        assert reached.returncode == 0 and "[alpha] alpha" in reached.stdout + reached.stderr
        kept = tmp_path / "kept" / shim.parent.relative_to(settings.STATE_ROOT)
        shutil.copytree(shim.parent, kept)
    finally:
        lab.down()
    # Without its lab a copy reaches nobody, wherever it lies.
    shutil.copytree(kept, shim.parent)
    try:
        refused = pyinfra(shim, "--limit", "alpha", "exec", "--", "true")
        assert refused.returncode != 0 and "which is not up" in refused.stdout + refused.stderr
        assert "Connected" not in refused.stdout + refused.stderr
    finally:
        shutil.rmtree(shim.parent.parent)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in production.iterdir()} == original


def pyinfra(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("pyinfra")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)


def write_lock(directory: Path, seed: str) -> None:
    from privnet.model.identifiers import parse_address
    from privnet.model.lock import HostLock, Lock
    from privnet.store import save_lock

    key = base64.b64encode(hashlib.sha256(seed.encode()).digest()).decode()
    host = HostLock(parse_address("100.64.0.7"), key, f"ssh-ed25519 {seed}")
    save_lock(directory, Lock(fleet="prod", hosts={"alpha": host}))
