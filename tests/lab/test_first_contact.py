"""Whom a run talks to, by a person's own SSH files: first contact, renewed keys, keys that change in the middle."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from kernel import difference, dump
from person import Person
from runs import BLOG, PAGES, assert_lossless, flowing, listening, probe, replace_once

from privnet.lab import Lab
from privnet.model.lock import Lock

SECONDS = 40
FLOW = (f"1.web.{PAGES}", f"2.web.{PAGES}")
"""From lab-1 to lab-2."""
OLD_KEYS = "/root/old-keys"
PUT_AWAY = f"mkdir -p {OLD_KEYS} && mv /etc/ssh/ssh_host_* {OLD_KEYS}/"
NEW_KEYS = f"{PUT_AWAY} && ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key"
PUT_BACK = f"rm -f /etc/ssh/ssh_host_*; mv {OLD_KEYS}/* /etc/ssh/ && rm -r {OLD_KEYS}; systemctl restart ssh"


@pytest.fixture(scope="module")
def lab(fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]) -> Lab:
    inventory = inventory_copy("lab")
    replace_once(inventory / "fleet.yaml", "policy:\n", f"policy:\n  rollback: {SECONDS}s\n")
    return fleet(inventory)


@pytest.fixture(scope="module")
def person(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Person:
    """Somebody who has deployed the fleet, from an SSH directory with a key and nothing else."""
    found = Person(lab, tmp_path_factory.mktemp("person"))
    said = found.done("deploy", "INVENTORY", "-y")
    assert "DONE: 3 hosts as planned" in said and "known_hosts" not in said
    return found


@contextmanager
def other_ssh_keys(lab: Lab, host: str, make: str = NEW_KEYS) -> Iterator[str]:
    """A host whose SSH host keys were made anew; its ed25519 key."""
    lab.exec(host, f"{make} && systemctl restart ssh")
    try:
        yield _key(lab, host)
    finally:
        lab.exec(host, PUT_BACK)


def _key(lab: Lab, host: str, kind: str = "ed25519") -> str:
    return " ".join(lab.exec(host, f"cat /etc/ssh/ssh_host_{kind}_key.pub").stdout.split()[:2])


def _settle(person: Person, host: str) -> None:
    """The lock file has the key that the host has at present."""
    person.done("forget", "INVENTORY", host)
    person.done("deploy", "INVENTORY", "-y")


def test_a_first_run_writes_each_hosts_ssh_key_into_the_lock_file_and_into_no_other(person: Person, lab: Lab) -> None:
    assert {name: host.ssh for name, host in person.lock.hosts.items()} == {
        name: _key(lab, name) for name in ("lab-1", "lab-2", "lab-3")
    }
    assert not person.known_hosts.exists()
    assert "nothing to do: 3 hosts" in person.done("deploy", "INVENTORY", "-y")
    person.done("audit", "INVENTORY")


def test_a_host_with_renewed_ssh_keys_comes_back_and_its_peers_never_lose_it(person: Person, lab: Lab) -> None:
    """The whole time: refused, forgotten, while a run does not ask it, and known again."""
    peers = lab.exec("lab-1", "wg show privnet peers").stdout
    with flowing(lab, FLOW) as flows, other_ssh_keys(lab, "lab-2") as new:
        refused = person("deploy", "INVENTORY", "-y")
        assert refused.returncode != 0
        assert refused.stdout.count("PN508: it answers with another SSH host key than the lock file has") >= 1
        assert "`privnet forget real lab-2`, then run again" in refused.stdout
        person.done("forget", "INVENTORY", "lab-2")
        planned = person.done("plan", "INVENTORY")
        assert "~ key lab-2: WireGuard key " in planned and "only if it shows another key" in planned
        person.done("deploy", "INVENTORY", "-y", "--limit", "lab-1")
        assert lab.exec("lab-1", "wg show privnet peers").stdout == peers
        assert "DONE: 3 hosts as planned" in person.done("deploy", "INVENTORY", "-y")
        assert person.lock.hosts["lab-2"].ssh == new
        assert "Nothing differs" in person.done("plan", "INVENTORY")
    assert_lossless(flows)
    _settle(person, "lab-2")


def test_a_forgotten_host_with_another_wireguard_key_is_a_peer_again_in_one_run(person: Person, lab: Lab) -> None:
    old = lab.exec("lab-2", "wg show privnet public-key").stdout
    file = lab.exec("lab-2", "ls /etc/wireguard/privnet.key /etc/privnet/wireguard.key || true").stdout.split()[0]
    lab.exec("lab-2", f"umask 077; wg genkey > {file}")
    assert "PN508: its WireGuard key is " in person("deploy", "INVENTORY", "-y").stdout
    person.done("forget", "INVENTORY", "lab-2")
    person.done("deploy", "INVENTORY", "-y", "--limit", "lab-1")
    assert old.strip() in lab.exec("lab-1", "wg show privnet peers").stdout, "until it has shown another"
    person.done("deploy", "INVENTORY", "-y")
    new = lab.exec("lab-2", "wg show privnet public-key").stdout
    assert new != old
    for host in ("lab-1", "lab-3"):
        assert {line in lab.exec(host, "wg show privnet peers").stdout for line in (new, old)} == {True, False}
    with listening(lab, FLOW[1]):
        assert probe(lab, FLOW[0], "tcp", f"{FLOW[1]}.{BLOG}.private-network.internal") == "REACHED"


def test_a_server_that_shows_an_rsa_key_alone_is_known_by_it(person: Person, lab: Lab) -> None:
    """An ed25519 key lies in /etc/ssh all the same, as on every Debian."""
    conf = "/etc/ssh/sshd_config.d/rsa.conf"
    make = "ssh-keygen -q -t rsa -b 3072 -N '' -f /etc/ssh/ssh_host_rsa_key"
    rsa = f"{NEW_KEYS} && {make} && echo HostKey /etc/ssh/ssh_host_rsa_key > {conf}"
    with other_ssh_keys(lab, "lab-3", rsa):
        person.done("forget", "INVENTORY", "lab-3")
        person.done("deploy", "INVENTORY", "-y")
        assert person.lock.hosts["lab-3"].ssh == _key(lab, "lab-3", "rsa")
        assert "nothing to do: 3 hosts" in person.done("deploy", "INVENTORY", "-y")
        lab.exec("lab-3", f"rm {conf}")
    _settle(person, "lab-3")


SWAP = f"""
n=0; until [ -e /run/privnet/lease ]; do n=$((n + 1)); [ $n -lt 600 ] || exit 1; sleep 0.05; done
{NEW_KEYS} && systemctl restart ssh
"""


def test_a_host_whose_key_changes_in_the_middle_of_a_first_contact_is_not_confirmed(person: Person, lab: Lab) -> None:
    """What has another key now is another machine as far as anybody can tell: it is not what was changed."""
    person.done("forget", "INVENTORY", "lab-2")
    file = person.inventory / "projects" / "blog.yaml"
    before = file.read_text()
    file.write_text(before.replace("worker: [lab-3]", "worker: [lab-2]"))
    try:
        with subprocess.Popen(lab.argv("lab-2", ["sh", "-c", SWAP])) as swap:
            ended = person("deploy", "INVENTORY", "-y")
            assert swap.wait(10) == 0
        assert ended.returncode == 1, ended.stdout
        assert "PN508: it answers with another SSH host key than at the beginning of this run" in ended.stdout
    finally:
        file.write_text(before)
        lab.exec("lab-2", PUT_BACK)
    rested = "until [ ! -e /var/lib/privnet/armed ]; do sleep 0.5; done"
    lab.exec("lab-2", rested, timeout=5 * SECONDS)
    _settle(person, "lab-2")


def test_what_the_persons_own_ssh_refuses_is_refused(person: Person, lab: Lab) -> None:
    """Of a host that the lock file does not know; the file is named, and what takes it away works."""
    address, other = "192.0.2.12", _key(lab, "lab-1")
    person.done("forget", "INVENTORY", "lab-2")
    person.known_hosts.write_text(f"{address} {other}\n")
    refused = person("deploy", "INVENTORY", "-y").stdout
    assert "PN508: /root/.ssh/known_hosts line 1 has another SSH host key for it" in refused
    assert f"`ssh-keygen -f /root/.ssh/known_hosts -R {address}`" in refused
    subprocess.run(person.argv(["ssh-keygen", "-f", "/root/.ssh/known_hosts", "-R", address]), check=True)
    (person.system / "ssh_known_hosts").write_text(f"{address} {other}\n")
    refused = person("deploy", "INVENTORY", "-y").stdout
    assert "PN508: /etc/ssh/ssh_known_hosts line 1 has another SSH host key for it" in refused
    (person.system / "ssh_known_hosts").unlink()
    (person.ssh / "config").write_text("Host *\n  StrictHostKeyChecking yes\n")
    refused = person("deploy", "INVENTORY", "-y").stdout
    assert "PN508: no file of yours knows its SSH host key, and your SSH configuration says" in refused
    person.known_hosts.write_text(f"{address} {_key(lab, 'lab-2')}\n")
    person.done("deploy", "INVENTORY", "-y")
    for file in (person.known_hosts, person.ssh / "config"):
        file.unlink()
    assert "nothing to do: 3 hosts" in person.done("deploy", "INVENTORY", "-y")


def test_directories_that_cannot_be_written_stop_nothing(person: Person, tmp_path: Path) -> None:
    """Neither a run nor an audit; hosts are known by their keys all the same."""
    (tmp_path / "file").touch()
    for where in ("relative", f"{tmp_path}/file", "/proc/nowhere"):
        unusable = dict.fromkeys(("XDG_CACHE_HOME", "TMPDIR"), where) | {"HOME": "UNSET"}
        assert "nothing to do: 3 hosts" in person.done("deploy", "INVENTORY", "-y", environment=unusable)
        person.done("audit", "INVENTORY", "--quick", environment=unusable)
    assert not (person.inventory.parent / "relative").exists()
    with other_ssh_keys(lab=person.lab, host="lab-2"):
        assert "PN508" in person("audit", "INVENTORY", "--quick").stdout, "the twin"


LIMIT = """
table inet limited {
    set seen { type ipv4_addr; flags dynamic,timeout; timeout 60s; }
    chain input {
        type filter hook input priority 0;
        tcp dport 22 ct state new add @seen { ip saddr limit rate over 4/minute burst 2 packets } \
            counter reject with tcp reset
    }
}
"""


def test_a_limit_on_new_connections_takes_no_change_back(person: Person, lab: Lab) -> None:
    """As `ufw limit ssh` sets it."""
    file = person.inventory / "projects" / "blog.yaml"
    before = file.read_text()
    hosts = ("lab-1", "lab-2", "lab-3")
    for host in hosts:
        lab.exec(host, ["nft", "-f", "-"], input=LIMIT)
    try:
        file.write_text(before.replace("worker: [lab-3]", "worker: [lab-2]"))
        said = person.done("deploy", "INVENTORY", "-y")
        refused = [lab.exec(host, "nft list table inet limited").stdout for host in hosts]
        assert not all("counter packets 0 " in rules for rules in refused), "the limit was not met"
    finally:
        for host in hosts:
            lab.exec(host, "nft delete table inet limited")
    assert "DONE: 3 hosts as planned" in said and "A limit on new connections may be why" in said
    file.write_text(before)
    person.done("deploy", "INVENTORY", "-y")


def test_a_host_that_is_renamed_loses_no_packet(person: Person, lab: Lab) -> None:
    """Its containers stay, also those that privnet placed; the kernels of all hosts are as they were."""
    fleet, projects = person.inventory / "fleet.yaml", [*(person.inventory / "projects").glob("*.yaml")]
    person.done("deploy", "INVENTORY", "-y")
    texts = {file: file.read_text() for file in (fleet, *projects)}
    before, known = kernels(lab), person.lock
    rename(texts, "lab-2", "paris-2", f"{ZONE}, renamed_from: lab-2")
    with flowing(lab, FLOW, FLOW[::-1]) as flows:
        planned = person.done("plan", "INVENTORY", "--live")
        assert "~ rename paris-2: was host lab-2; it keeps its mesh address" in planned
        assert "impact at most: none" in planned and "impact: none, no flow" in planned
        assert "DONE: 3 hosts as planned" in person.done("deploy", "INVENTORY", "-y")
    assert_lossless(flows)
    assert difference(before, kernels(lab)) == ""
    assert person.lock.hosts["paris-2"] == known.hosts["lab-2"] and "lab-2" not in person.lock.hosts
    assert placed(person.lock, "paris-2") == placed(known, "lab-2") != set()
    assert "warning[PN707]: `paris-2` has its name already" in person.done("check", "INVENTORY")
    rename(texts, "lab-2", "paris-2", ZONE)
    assert "nothing to do: 3 hosts" in person.done("deploy", "INVENTORY", "-y")
    person.done("audit", "INVENTORY")
    # And back, as another rename.
    rename(texts, "lab-2", "lab-2", f"{ZONE}, renamed_from: paris-2")
    with flowing(lab, FLOW, FLOW[::-1]) as flows:
        person.done("deploy", "INVENTORY", "-y")
    assert_lossless(flows)
    assert person.lock.hosts == known.hosts
    for file, text in texts.items():
        file.write_text(text)


NAMED = re.compile("wg-quick: .*|file: .*/etc/privnet/(mesh[.]conf|record[.]json)( .*)?")
"""Files that have names of hosts in comments, or in what is not for the kernel."""


def kernels(lab: Lab) -> dict[str, list[str]]:
    """What the hosts are, but for those files."""
    return {host: [line for line in lines if not NAMED.fullmatch(line)] for host, lines in dump(lab).items()}


def placed(lock: Lock, host: str) -> set[str]:
    return {slot for network in lock.networks.values() for slot, at in network.slots.items() if at.host == host}


ZONE = "zone: b"


def rename(texts: Mapping[Path, str], old: str, new: str, more: str) -> None:
    """Write a fleet's files with another name for a host, and more in its line."""
    line = "{}: {{address: 192.0.2.12, {}}}"
    for file, text in texts.items():
        if file.name == "fleet.yaml":
            assert line.format(old, ZONE) in text
            file.write_text(text.replace(line.format(old, ZONE), line.format(new, more)))
        else:
            file.write_text(text.replace(old, new))
