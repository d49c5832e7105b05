"""The whole way on three real hosts: from empty machines to private networks, and every change after that."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest
from runs import (
    BILLING,
    BLOG,
    LISTEN,
    PAGES,
    PROBE,
    SHOP,
    STOREFRONT,
    assert_lossless,
    container_of,
    count_questions,
    deploy,
    edit,
    flowing,
    give_application,
    inside,
    listener,
    listening,
    network_of,
    plan_of,
    probe,
    pyinfra,
    questions,
    take_application,
)

from privnet.lab import Lab

# A host looks for a container, in vain: its default route takes that to the underlay.
UNDERLAY = "src net 192.0.2.0/24 and dst net 10.240.0.0/22"

pytestmark = pytest.mark.lab

HOSTS = ("lab-1", "lab-2", "lab-3")
DOMAIN = "private-network.internal"


@pytest.fixture(scope="module")
def lab(fleet, inventory_copy) -> Lab:
    """Three empty hosts with sshd alone, deployed to once."""
    lab = fleet(inventory_copy("lab"))
    for host in HOSTS:
        assert lab.exec(host, "ls /etc/privnet", check=False).returncode != 0
        count_questions(lab, host)
    dry = pyinfra(lab, "--json", "--dry")
    assert not (lab.inventory / "privnet.lock.yaml").exists(), "a dry run has written the lock file"
    assert any(operation["hosts_with_change"] for operation in dry.json["plan"])
    first = deploy(lab, cold=True)
    assert first.seconds < 60
    assert first.changed["prepare host"] == first.changed["add what is new"] == [*HOSTS]
    return lab


# --- first and second run -----------------------------------------------------------------------------


@pytest.mark.proves("P11", "idempotent runs")
def test_the_second_run_changes_nothing_and_asks_each_host_once(lab: Lab) -> None:
    before = {host: questions(lab, host) for host in HOSTS}
    lock = (lab.inventory / "privnet.lock.yaml").read_bytes()
    second = deploy(lab, cold=True)
    assert second.changed == {}
    assert {host: questions(lab, host) - before[host] for host in HOSTS} == dict.fromkeys(HOSTS, 1)
    assert (lab.inventory / "privnet.lock.yaml").read_bytes() == lock
    assert second.seconds < 10


PAIR = """\
project: pair
private_network:
  id: pn-5c0e7a34-2b61-4d0f-9a55-0f3c1de86b12
  terms: {accepted_by: ops@pair.example, accepted_on: 2025-10-02, version: beta-1}
applications:
  ap-3e1a9d70-6c42-4b8e-8f17-b2d40c95a6e1:
    formation: {web: [lab-1, lab-2]}
"""


def test_a_container_more_concerns_the_hosts_of_its_network_alone(lab: Lab) -> None:
    """At most three executions there after the question; on the third host, which is in other networks, none."""
    project = lab.inventory / "projects" / "pair.yaml"
    project.write_text(PAIR)
    deploy(lab)
    project.write_text(PAIR.replace("[lab-1, lab-2]", "[lab-1, lab-2, lab-2]"))
    before = {host: questions(lab, host) for host in HOSTS}
    assert deploy(lab).changed["confirm"] == ["lab-1", "lab-2"]
    asked = {host: questions(lab, host) - before[host] for host in HOSTS}
    assert asked["lab-3"] == 1
    assert 2 < asked["lab-1"] <= 4 and 2 < asked["lab-2"] <= 4
    assert "3.web.ap-3e1a9d70-6c42-4b8e-8f17-b2d40c95a6e1" in lab.exec("lab-2", "ls /run/netns").stdout
    project.unlink()
    deploy(lab, allow=True)


@pytest.mark.proves("P11")
def test_a_dry_run_of_a_finished_fleet_finds_nothing(lab: Lab) -> None:
    dry = pyinfra(lab, "--json", "--dry")
    assert [operation["name"] for operation in dry.json["plan"] if operation["hosts_with_change"]] == []


@pytest.mark.proves("P10")
def test_every_unit_is_well_and_no_key_is_in_a_file_of_the_control_machine(lab: Lab) -> None:
    for host in HOSTS:
        assert lab.exec(host, "systemctl --failed --no-legend --plain").stdout == ""
        key = lab.exec(host, "cat /etc/wireguard/privnet.key; stat -c %a%U /etc/wireguard/privnet.key").stdout.split()
        assert key[1] == "600root"
        for path in lab.inventory.rglob("*"):
            assert not path.is_file() or key[0] not in path.read_text()
        assert lab.exec(host, "stat -c %a /etc/wireguard/privnet.conf").stdout.strip() == "600"


# --- names --------------------------------------------------------------------------------------------


def dig(lab: Lab, slot: str, *arguments: str, tcp: bool = False) -> tuple[str, list[str], list[int]]:
    """(status, answers, TTLs) of a question asked with the container's own resolv.conf."""
    options = ["+tcp"] if tcp else ["+notcp"]
    text = inside(lab, slot, "dig", "+noall", "+comments", "+answer", "+tries=1", "+time=2", *options, *arguments)
    status = re.search(r"status: (\w+)", text)
    answers = [line.split() for line in text.splitlines() if line and not line.startswith(";")]
    assert status is not None, text
    return status[1], sorted(words[4] for words in answers), [int(words[1]) for words in answers]


@pytest.mark.proves("names")
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_every_form_of_a_name(lab: Lab, tcp: bool) -> None:
    slot = f"1.worker.{STOREFRONT}"
    suffix = f"{STOREFRONT}.{SHOP}.{DOMAIN}."
    web = sorted(c.address for c in network_of(lab, SHOP).containers if c.slot.endswith(f"web.{STOREFRONT}"))
    worker = container_of(lab, slot).address
    assert len(web) == 2
    forms = {
        suffix: web,
        f"web.{suffix}": web,
        f"WEB.{suffix.upper()}": web,
        f"1.web.{suffix}": [container_of(lab, f"1.web.{STOREFRONT}").address],
        f"2.web.{suffix}": [container_of(lab, f"2.web.{STOREFRONT}").address],
        f"worker.{suffix}": [worker],
        f"1.worker.{suffix}": [worker],
    }
    for name, addresses in forms.items():
        status, answers, ttls = dig(lab, slot, name, tcp=tcp)
        assert (status, answers) == ("NOERROR", addresses), name
        assert set(ttls) == {5}
        assert dig(lab, slot, name, "AAAA", tcp=tcp)[:2] == ("NOERROR", []), name
    assert dig(lab, slot, "-x", worker, tcp=tcp)[:2] == ("NOERROR", [f"1.worker.{suffix}"])


@pytest.mark.proves("names")
def test_names_that_do_not_exist_or_are_of_another_network(lab: Lab) -> None:
    slot = f"1.worker.{STOREFRONT}"
    for name in (
        f"3.web.{STOREFRONT}.{SHOP}.{DOMAIN}.",
        f"cron.{STOREFRONT}.{SHOP}.{DOMAIN}.",
        f"web.{PAGES}.{SHOP}.{DOMAIN}.",
        f"web.{PAGES}.{BLOG}.{DOMAIN}.",
        f"nothing.{DOMAIN}.",
    ):
        assert dig(lab, slot, name)[:2] == ("NXDOMAIN", []), name
    assert dig(lab, slot, "www.example.com.")[0] == "REFUSED"
    # The twin: the name of the other network is a name, for a container of that network.
    assert dig(lab, f"1.worker.{PAGES}", f"web.{PAGES}.{BLOG}.{DOMAIN}.")[0] == "NOERROR"


# --- reach --------------------------------------------------------------------------------------------


@pytest.mark.proves("P2", "private networks")
def test_containers_of_a_network_reach_each_other_by_name_on_any_port(lab: Lab) -> None:
    slots = [container.slot for container in network_of(lab, SHOP).containers]
    mtu = network_of(lab, SHOP).mtu
    with listening(lab, *slots):
        for source in slots:
            for target in slots:
                name = f"{target}.{SHOP}.{DOMAIN}"
                assert probe(lab, source, "tcp", name, 5432) == "REACHED", (source, target)
                # The largest datagram of the network, not to be fragmented: IPv4 header 20, UDP header 8.
                assert probe(lab, source, "udp", name, 9999, mtu - 28) == "REACHED", (source, target)
        first, last = slots[0], slots[-1]
        assert probe(lab, first, "tcp", container_of(lab, last).address, 80, 300_000) == "REACHED"
        assert probe(lab, first, "udp", container_of(lab, last).address, 80, mtu - 27) == "NOTHING"


@pytest.mark.proves("P2", "private networks")
def test_networks_with_the_same_addresses_do_not_see_each_other(lab: Lab) -> None:
    shop, blog = network_of(lab, SHOP), network_of(lab, BLOG)
    assert shop.cidr == blog.cidr
    both = {c.address for c in shop.containers} & {c.address for c in blog.containers}
    assert both, "the test needs an address that both networks use"
    only_shop = sorted({c.address for c in shop.containers} - {c.address for c in blog.containers})
    with listening(lab, *(c.slot for c in shop.containers)):
        assert probe(lab, f"1.web.{STOREFRONT}", "tcp", only_shop[0]) == "REACHED"
        for container in blog.containers:
            for address in [*only_shop, *both - {container.address}]:
                for kind in ("tcp", "udp"):
                    answer = probe(lab, container.slot, kind, address)
                    # An address of its own network refuses: nobody listens there. The other network's is not there.
                    assert answer == ("NOTHING" if address in only_shop else "REFUSED"), (container.slot, address)


@pytest.mark.proves("P2")
def test_host_and_container_do_not_reach_each_other(lab: Lab) -> None:
    slot = f"1.web.{STOREFRONT}"
    container = container_of(lab, slot)
    script = ["python3", "-c", PROBE, "tcp"]
    with listening(lab, slot), listener(lab, container.host, ["python3", "-c", LISTEN, "8080"]):
        assert lab.exec(container.host, [*script, container.address, "80", "64"]).stdout.startswith("NOTHING")
        host = lab.exec(container.host, [*script, "192.0.2.11", "8080", "64"]).stdout
        assert host.startswith("REACHED"), "the twin: the host's listener is there"
        assert probe(lab, f"2.web.{STOREFRONT}", "tcp", container.address) == "REACHED"
        for address in ("192.0.2.11", "100.64.0.1", "10.240.0.1"):
            answer = probe(lab, slot, "tcp", address, 8080)
            assert answer == ("REFUSED" if address == "10.240.0.1" else "NOTHING"), address
    for host in HOSTS:
        assert lab.exec(host, "ip -o -4 addr show | grep -E ' (pn[bxc])' || true").stdout == ""
        assert lab.exec(host, "ip route show table all | grep -E '^10[.]240' || true").stdout == ""


@pytest.mark.proves("P1")
def test_the_underlay_sees_wireguard_ssh_and_arp_alone(lab: Lab, tmp_path: Path, watch) -> None:
    pcap = tmp_path / "underlay.pcap"
    slots = [container.slot for container in network_of(lab, SHOP).containers]
    planted = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
        "s.sendto(b'privnet-canary-80', ('192.0.2.12', 4000))"
    )
    with lab.capture(pcap), listening(lab, *slots):
        for target in slots[1:]:
            assert probe(lab, slots[0], "tcp", container_of(lab, target).address) == "REACHED"
        clean = pcap_lines(lab, pcap, "not arp and not icmp6 and not (udp port 51820) and not (tcp port 22)")
        assert clean == [], "something other than WireGuard, SSH and neighbour discovery crossed the underlay"
        assert pcap_lines(lab, pcap, "udp port 51820"), "the capture has not seen the mesh at all"
        assert b"privnet-canary" not in pcap.read_bytes()
        # The twin: a clear packet between two hosts is seen, and so is its canary.
        with watch(lab).planting() as seen:
            lab.exec("lab-1", ["python3", "-c", planted])
            time.sleep(0.5)
        assert any("privnet-canary" in line for line in seen.lines), "the watch over every lab has not seen it"
        assert pcap_lines(lab, pcap, "udp port 4000")
        assert b"privnet-canary" in pcap.read_bytes()


def pcap_lines(lab: Lab, pcap: Path, expression: str) -> list[str]:
    """The packets of a capture so far that match."""
    command = ["tcpdump", "-nn", "-r", str(pcap), expression]
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()


# --- change -------------------------------------------------------------------------------------------


@pytest.mark.proves("P12", "moves and migrations")
def test_a_moved_container_keeps_its_address_and_disturbs_nobody(lab: Lab) -> None:
    slot = f"2.web.{STOREFRONT}"
    before = container_of(lab, slot)
    others = [
        (f"1.web.{STOREFRONT}", f"1.worker.{STOREFRONT}"),
        (f"2.web.{BILLING}", f"1.worker.{STOREFRONT}"),
        (f"1.web.{PAGES}", f"1.worker.{PAGES}"),
    ]
    # How long a run takes that finds nothing to do is the machine's own; this one sends three programs more.
    idle = deploy(lab, cold=True).seconds
    edit(lab, "shop", "web: [lab-1, lab-2]", "web: [lab-1, lab-3]")
    asked = {host: questions(lab, host) for host in HOSTS}
    with flowing(lab, *others) as flows:
        result = deploy(lab, cold=True)
    print(f"a run that moves a container: {result.seconds:.1f} s, one that does nothing: {idle:.1f} s")
    assert result.seconds < max(10, 5 * idle)
    assert_lossless(flows)
    after = container_of(lab, slot)
    assert (before.host, after.host) == ("lab-2", "lab-3")
    assert after.address == before.address
    assert max(questions(lab, host) - asked[host] for host in HOSTS) <= 4
    assert f"/run/netns/{slot}" in lab.exec("lab-3", "ls -d /run/netns/*").stdout
    assert slot not in lab.exec("lab-2", "ls /run/netns /etc/netns; grep -rl 1 /etc/privnet/containers").stdout
    with listening(lab, slot):
        for source in (f"1.web.{STOREFRONT}", f"1.worker.{STOREFRONT}", f"2.web.{BILLING}"):
            assert probe(lab, source, "tcp", f"{slot}.{SHOP}.{DOMAIN}") == "REACHED"
    assert deploy(lab).changed == {}


@pytest.mark.proves("P5", "P12", "moves and migrations")
def test_a_migrated_application_leaves_nothing_behind(lab: Lab) -> None:
    old = {c.slot: c for c in network_of(lab, SHOP).containers if c.application == BILLING}
    block = take_application(lab, "shop", BILLING)
    give_application(lab, "blog", block)
    flows = [(f"1.web.{STOREFRONT}", f"2.web.{STOREFRONT}"), (f"1.web.{PAGES}", f"1.worker.{PAGES}")]
    with flowing(lab, *flows) as flowed:
        deploy(lab)
    assert_lossless(flowed)
    new = {c.slot: c for c in network_of(lab, BLOG).containers if c.application == BILLING}
    assert set(new) == set(old)
    shop = network_of(lab, SHOP)
    for host in HOSTS:
        traces = lab.exec(host, f"grep -rl {BILLING} /etc/privnet/names /etc/privnet/containers || true").stdout
        assert SHOP not in traces
        for container in old.values():
            assert container.mac not in lab.exec(host, f"bridge fdb show | grep pnx{shop.vni} || true").stdout
            assert f" {container.address} " not in lab.exec(host, f"ip neigh show dev pnx{shop.vni} || true").stdout
            assert container.port not in lab.exec(host, "ip -br link; nft list set bridge privnet ports").stdout
            assert (
                f"0x{shop.vni:x} . 0x{int(container.mac.replace(':', ''), 16):x}"
                not in lab.exec(host, "nft list set inet privnet speakers").stdout
            )
    asker = f"1.worker.{STOREFRONT}"
    assert dig(lab, asker, f"web.{BILLING}.{SHOP}.{DOMAIN}.")[0] == "NXDOMAIN"
    assert dig(lab, f"1.worker.{PAGES}", f"web.{BILLING}.{BLOG}.{DOMAIN}.")[1] == sorted(
        c.address for c in new.values()
    )
    with listening(lab, f"1.web.{BILLING}"):
        target = new[f"1.web.{BILLING}"].address
        assert probe(lab, f"1.worker.{PAGES}", "tcp", target) == "REACHED"
        assert probe(lab, asker, "tcp", old[f"1.web.{BILLING}"].address) == "NOTHING"
    assert deploy(lab).changed == {}


@pytest.mark.proves("P5", "moves and migrations")
def test_scaling_up_and_down_and_to_nothing(lab: Lab) -> None:
    asker = f"1.worker.{STOREFRONT}"
    kept = {c.slot: c.address for c in network_of(lab, SHOP).containers}
    edit(lab, "shop", "      worker: [lab-3]", "      worker: [lab-3, lab-1, lab-2, lab-1]")
    with flowing(lab, (f"1.web.{STOREFRONT}", asker)) as flows:
        deploy(lab)
    assert_lossless(flows)
    grown = {c.slot: c.address for c in network_of(lab, SHOP).containers}
    assert kept.items() <= grown.items()
    assert len(grown) == len(kept) + 3
    assert len(dig(lab, asker, f"worker.{STOREFRONT}.{SHOP}.{DOMAIN}.")[1]) == 4
    edit(lab, "shop", "      worker: [lab-3, lab-1, lab-2, lab-1]", "      worker: [lab-3]\n      cron: []")
    deploy(lab)
    assert {c.slot: c.address for c in network_of(lab, SHOP).containers} == kept
    for host in HOSTS:
        assert "worker.ap-a71" not in lab.exec(host, "ls /run/netns /etc/netns").stdout.replace(asker, "")
    assert dig(lab, asker, f"cron.{STOREFRONT}.{SHOP}.{DOMAIN}.")[:2] == ("NOERROR", [])
    assert dig(lab, asker, f"2.worker.{STOREFRONT}.{SHOP}.{DOMAIN}.")[0] == "NXDOMAIN"
    assert deploy(lab).changed == {}


# --- hosts --------------------------------------------------------------------------------------------


@pytest.mark.proves("P13", "reboots")
@pytest.mark.parametrize("how", ["reboot", "power cut"])
def test_a_host_comes_back_by_itself(lab: Lab, how: str) -> None:
    flow = (f"1.web.{PAGES}", f"1.worker.{PAGES}")
    with flowing(lab, flow) as flows:
        if how == "reboot":
            lab.reboot("lab-2")
        else:
            lab.kill("lab-2")
            lab.start("lab-2")
    assert_lossless(flows)
    slot = next(c.slot for c in network_of(lab, BLOG).containers if c.host == "lab-2" and c.application == PAGES)
    deadline = time.monotonic() + 30
    with listening(lab, f"1.worker.{PAGES}"):
        name = f"1.worker.{PAGES}.{BLOG}.{DOMAIN}"
        while (
            "REACHED"
            not in lab.exec(
                "lab-2", ["ip", "netns", "exec", slot, "python3", "-c", PROBE, "tcp", name, "80", "64"], check=False
            ).stdout
        ):
            assert time.monotonic() < deadline, "30 s after its boot the host has no private network"
            time.sleep(0.5)
    assert lab.exec("lab-2", "systemctl --failed --no-legend --plain").stdout == ""
    count_questions(lab, "lab-2")
    assert deploy(lab).changed == {}


def test_limit_to_one_host_takes_no_peer_from_anyone(lab: Lab) -> None:
    peers = {host: lab.exec(host, "wg show privnet peers | sort").stdout for host in HOSTS}
    flow = (f"1.web.{PAGES}", f"1.worker.{PAGES}")
    with flowing(lab, flow) as flows:
        result = deploy(lab, "--limit", "lab-2")
    assert result.changed == {}
    assert_lossless(flows, at_least=50)
    assert {host: lab.exec(host, "wg show privnet peers | sort").stdout for host in HOSTS} == peers


@pytest.mark.proves("P16")
def test_a_host_that_is_down_does_not_stop_the_others(lab: Lab) -> None:
    lab.stop("lab-3")
    try:
        edit(lab, "blog", "      web: [lab-1, lab-2]", "      web: [lab-1, lab-2, lab-2]")
        result = deploy(lab, check=False)
        assert result.code == 1
        assert f"3.web.{PAGES}" in lab.exec("lab-2", "ls /run/netns").stdout
        assert lab.exec("lab-1", "wg show privnet peers").stdout.count("=") == 2, "a silent host has lost its place"
    finally:
        lab.start("lab-3")
        count_questions(lab, "lab-3")
    assert "add what is new" in deploy(lab).changed
    with listening(lab, f"3.web.{PAGES}"):
        assert probe(lab, f"1.worker.{PAGES}", "tcp", f"3.web.{PAGES}.{BLOG}.{DOMAIN}") == "REACHED"
    assert deploy(lab).changed == {}


@pytest.mark.proves("P5", "P12", "hosts come and go")
def test_a_host_is_added_and_removed(lab: Lab) -> None:
    fleet_file = lab.inventory / "fleet.yaml"
    with_three = fleet_file.read_text()
    fleet_file.write_text(with_three.replace("  lab-3:", "  lab-4: {address: 192.0.2.14, zone: a}\n  lab-3:"))
    lab.up()
    edit(lab, "shop", "      cron: []", "      cron: [lab-4]")
    flow = (f"1.web.{STOREFRONT}", f"1.worker.{STOREFRONT}")
    with flowing(lab, flow) as flows:
        deploy(lab)
    assert_lossless(flows)
    slot = f"1.cron.{STOREFRONT}"
    with listening(lab, slot):
        for host in ("lab-1", "lab-3"):
            source = next(c.slot for c in network_of(lab, SHOP).containers if c.host == host)
            assert probe(lab, source, "tcp", f"{slot}.{SHOP}.{DOMAIN}") == "REACHED"
    key = plan_of(lab).hosts["lab-1"].mesh.peers[-1].public_key
    assert key in lab.exec("lab-1", "wg show privnet peers").stdout
    address = container_of(lab, slot).address
    # The host goes, and it does not cooperate: it keeps its files, its keys and its containers.
    edit(lab, "shop", "      cron: [lab-4]", "      cron: []")
    fleet_file.write_text(with_three)
    with flowing(lab, flow) as flows:
        deploy(lab)
    assert_lossless(flows)
    worker = container_of(lab, f"1.worker.{STOREFRONT}")
    with listening(lab, worker.slot):
        assert probe(lab, f"1.web.{STOREFRONT}", "tcp", worker.address) == "REACHED"
        evicted = lab.exec(
            "lab-4", ["ip", "netns", "exec", slot, "python3", "-c", PROBE, "tcp", worker.address, "80", "64"]
        )
        assert evicted.stdout.startswith("NOTHING")
    for host in HOSTS:
        assert key not in lab.exec(host, "wg show privnet peers; cat /etc/wireguard/privnet.conf").stdout
        assert "100.64.0.4" not in lab.exec(host, "bridge fdb; nft list ruleset; cat /etc/privnet/overlay/*").stdout
        names = f"ip neigh show dev {network_of(lab, SHOP).vxlan}; cat /etc/privnet/names/{SHOP}.hosts"
        assert f"{address} " not in lab.exec(host, names, check=False).stdout
    lab.remove_host("lab-4")
    assert deploy(lab).changed == {}


@pytest.mark.proves("P5", "P9")
def test_a_removed_network_leaves_nothing_on_any_host(lab: Lab) -> None:
    vni = network_of(lab, BLOG).vni
    path = lab.inventory / "projects" / "blog.yaml"
    text = path.read_text()
    path.unlink()
    refused = deploy(lab, check=False)
    assert refused.code == 1 and "PN601" in refused.output and "--allow-removals" in refused.output
    with flowing(lab, (f"1.web.{STOREFRONT}", f"1.worker.{STOREFRONT}")) as flows:
        deploy(lab, allow=True)
    assert_lossless(flows)
    for host in HOSTS:
        assert str(vni) not in lab.exec(host, "ip -br link; ls -R /etc/privnet /etc/systemd/network").stdout
        assert BLOG not in lab.exec(host, "ls -R /etc/systemd/system /etc/privnet /run/netns /run/privnet").stdout
        assert PAGES not in lab.exec(host, "ls /etc/netns /run/netns").stdout
        units = "systemctl list-units --all --plain --no-legend 'privnet-*'"
        assert BLOG not in lab.exec(host, units).stdout
        assert f"0x{vni:x}" not in lab.exec(host, "nft list ruleset").stdout
    assert deploy(lab).changed == {}
    path.write_text(text)
    deploy(lab)
    with listening(lab, f"1.worker.{PAGES}"):
        assert probe(lab, f"1.web.{PAGES}", "tcp", f"1.worker.{PAGES}.{BLOG}.{DOMAIN}") == "REACHED"
    assert deploy(lab).changed == {}
