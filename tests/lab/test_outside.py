"""Names outside, on hosts that have DNS servers of their own, no IPv6, or a firewall; and without them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from runs import SHOP, STOREFRONT, deploy, inside, plan_of, replace_once

from privnet.lab import Lab
from privnet.lab.process import wait_until

UNDERLAY = "host 192.0.2.252 and (port 53 or port 5353)"

DOMAIN = "private-network.internal"
PRIVATE = f"1.worker.{STOREFRONT}.{SHOP}.{DOMAIN}"
OURS, THEIRS = "11.22.33.44", "66.66.66.66"
"""What dns.upstream says of any name, and what another server of a host does."""
HOSTS = {"lab-1": f"1.web.{STOREFRONT}", "lab-2": f"2.web.{STOREFRONT}", "lab-3": f"1.worker.{STOREFRONT}"}
"""A container of the shop on each host."""
FORWARDER = f"privnet-forwarder@{SHOP}"

# Both answer every name with their address, by UDP and by TCP.
SERVER = """
import socket, struct, sys, threading
def answer(data):
    end = data.index(b"\\0", 12) + 5
    found = b"\\xc0\\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton("66.66.66.66")
    return data[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0) + data[12:end] + found
def udp(s):
    while True:
        data, who = s.recvfrom(4096)
        s.sendto(answer(data), who)
def tcp(s):
    while True:
        c, _ = s.accept()
        reply = answer(c.recv(4096)[2:])
        c.sendall(struct.pack("!H", len(reply)) + reply)
        c.close()
for kind, serve in ((socket.SOCK_DGRAM, udp), (socket.SOCK_STREAM, tcp)):
    s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((sys.argv[1], 53))
    if kind == socket.SOCK_STREAM:
        s.listen()
    threading.Thread(target=serve, args=(s,)).start()
print("ready", flush=True)
"""
DNSMASQ = "/usr/sbin/dnsmasq -k -C /dev/null --no-resolv --no-hosts --pid-file= --user=root --address=/#/66.66.66.66"
SERVERS = {
    # The wildcard address, as Debian's dnsmasq and many others.
    "dnsmasq": DNSMASQ,
    # Each address, also of interfaces to come, as BIND 9 with Debian's configuration.
    "every-address": f"{DNSMASQ} --bind-dynamic --interface=*",
    "wildcard": "/usr/bin/python3 /root/server.py ::",
}


@pytest.fixture(scope="module")
def lab(fleet, inventory_copy) -> Lab:
    """Hosts on which privnet has never been."""
    lab = fleet(inventory_copy("lab"))
    replace_once(lab.inventory / "fleet.yaml", "lab: true\n", "lab: true\ndns: {upstream: [192.0.2.252]}\n")
    for host in HOSTS:
        lab.exec(host, "cat > /root/server.py", input=SERVER)
    return lab


@pytest.fixture(scope="module", autouse=True)
def upstream(lab: Lab) -> Iterator[None]:
    """A resolver outside the fleet: known names, and none that it refuses."""
    with answering(lab, f"--address=/#/{OURS}"):
        yield


@contextmanager
def answering(lab: Lab, *options: str) -> Iterator[None]:
    command = ["dnsmasq", "-k", "-C", "/dev/null", "--no-hosts", "--no-resolv", "--pid-file=", "--user=root"]
    with subprocess.Popen(lab.argv("outsider", [*command, "--bind-dynamic", *options])) as process:
        time.sleep(0.5)
        try:
            yield
        finally:
            process.terminate()


def ask(lab: Lab, host: str, *words: str) -> str:
    """What a container is answered, in few words."""
    command = ("dig", "+noall", "+comments", "+answer", "+tries=1", "+time=4", *words)
    text = inside(lab, HOSTS[host], *command, check=False)
    status = re.search(r"status: (\w+)", text)
    values = sorted(line.split()[4] for line in text.splitlines() if line and line[0] != ";")
    return " ".join(values) or (status[1] if status else "nothing")


def outside(lab: Lab, host: str) -> dict[str, str]:
    """Names outside as a container is answered, over UDP and TCP."""
    return {protocol: ask(lab, host, f"+{protocol}", f"{protocol}.example.org") for protocol in ("notcp", "tcp")}


RIGHT = {"notcp": OURS, "tcp": OURS}


def of_host(lab: Lab, host: str) -> dict[str, str]:
    """The host's own server, asked there."""
    script = "for over in notcp tcp; do dig +$over +short +tries=1 +time=2 @127.0.0.1 x.example.org; done"
    found = lab.exec(host, script, check=False).stdout.split()
    return dict(zip(("notcp", "tcp"), found, strict=False))


def audit(lab: Lab, host: str) -> dict[str, list[str]]:
    """What is not as planned on a host and no consequence, by check."""
    report = lab.inventory.parent / "audit.json"
    words = (str(lab.inventory), "--host", host, "--quick", "--json", str(report))
    environment = {**os.environ, "PRIVNET_LAB": lab.name}
    command = [sys.executable, "-m", "privnet.audit", *words]
    subprocess.run(command, env=environment, check=False, capture_output=True, cwd="/")
    checks = json.loads(report.read_text())["hosts"][host]
    told = {
        check: [f"{each['subject']}: {each['expected']}, {each['actual']}" for each in found["deviations"]]
        for check, found in checks.items()
    }
    return {check: each for check, each in told.items() if each}


def start(lab: Lab, host: str, kind: str) -> None:
    """A DNS server of the host's own, which a boot starts as early as it can."""
    unit = f"""[Unit]
DefaultDependencies=no
[Service]
ExecStart={SERVERS[kind]}
[Install]
WantedBy=sysinit.target
"""
    lab.exec(host, f"cat > /etc/systemd/system/other-{kind}.service", input=unit)
    lab.exec(host, f"systemctl daemon-reload; systemctl enable --now other-{kind} 2> /dev/null; sleep 1")


def stop(lab: Lab, host: str) -> None:
    gone = "rm -f /etc/systemd/system/other-* /etc/systemd/system/*.wants/other-*; systemctl daemon-reload"
    lab.exec(host, f"systemctl stop 'other-*'; {gone}")


def test_a_host_may_have_a_dns_server_of_its_own_before_and_after(lab: Lab) -> None:
    for host, kind in zip(HOSTS, SERVERS, strict=True):
        start(lab, host, kind)
    deploy(lab)
    assert deploy(lab).changed == {}
    for host in HOSTS:
        assert of_host(lab, host) == {"notcp": THEIRS, "tcp": THEIRS}, f"the twin: {host}'s own server answers"
        assert outside(lab, host) == RIGHT, host
        stop(lab, host)
    # The other order: what comes later finds its port free.
    for host, kind in zip(reversed(HOSTS), SERVERS, strict=True):
        start(lab, host, kind)
        assert of_host(lab, host) == {"notcp": THEIRS, "tcp": THEIRS}, host
        assert outside(lab, host) == RIGHT, host


def test_a_boot_changes_nothing_of_who_answers(lab: Lab) -> None:
    for host in HOSTS:
        lab.reboot(host)
    for host in HOSTS:
        assert of_host(lab, host) == {"notcp": THEIRS, "tcp": THEIRS}, f"the twin: {host}'s own server answers"
        assert outside(lab, host) == RIGHT, host
        assert ask(lab, host, PRIVATE) not in ("nothing", "SERVFAIL", "REFUSED")
        stop(lab, host)
    assert deploy(lab).changed == {}


DROPS = "table inet own { chain in { type filter hook input priority 0; policy drop; ct state established accept; }; }"


def test_a_firewall_that_lets_nobody_in_keeps_no_name_away(lab: Lab) -> None:
    ssh_and_mesh = "nft insert rule inet own in tcp dport 22 accept; nft insert rule inet own in udp dport 51820 accept"
    lab.exec("lab-1", f"nft '{DROPS}'; {ssh_and_mesh}")
    try:
        assert outside(lab, "lab-1") == RIGHT
    finally:
        lab.exec("lab-1", "nft delete table inet own")


# As the kernel's parameter leaves a host: no file to switch it, and no socket for it.
NO_IPV6 = """[Unit]
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1'
[Install]
WantedBy=sysinit.target
"""


@pytest.mark.parametrize("before", [True, False], ids=["before the first deploy", "on a deployed host"])
def test_a_host_needs_no_ipv6(lab: Lab, fleet, inventory_copy, before: bool) -> None:
    """`all.disable_ipv6` and `default.disable_ipv6`, from the host's start on."""
    if before:
        lab = fleet(inventory_copy("lab"), name="no-ipv6")
        replace_once(lab.inventory / "fleet.yaml", "lab: true\n", "lab: true\ndns: {upstream: [192.0.2.252]}\n")
    lab.exec("lab-1", "cat > /etc/systemd/system/no-ipv6.service", input=NO_IPV6)
    lab.exec("lab-1", "systemctl daemon-reload; systemctl enable --now no-ipv6 2> /dev/null")
    try:
        with answering(lab, f"--address=/#/{OURS}") if before else contextlib.nullcontext():
            deploy(lab)
            for _ in range(2):
                assert lab.exec("lab-1", "cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6").stdout == "1\n"
                assert outside(lab, "lab-1") == RIGHT
                assert ask(lab, "lab-1", PRIVATE) not in ("nothing", "SERVFAIL", "REFUSED")
                assert audit(lab, "lab-1") == {}
                lab.reboot("lab-1")
            assert deploy(lab).changed == {}
    finally:
        lab.exec("lab-1", "systemctl disable no-ipv6; rm /etc/systemd/system/no-ipv6.service")
        lab.reboot("lab-1")


def test_no_private_name_goes_with_the_way_outside(lab: Lab) -> None:
    """A forwarder that cannot run, from a boot on: private names are answered, the audit says so, a run repairs it."""
    private = ask(lab, "lab-2", PRIVATE)
    lab.exec("lab-2", "echo 'exit 1' > /etc/privnet/lib/forwarder.pl")
    lab.reboot("lab-2")
    assert ask(lab, "lab-2", PRIVATE) == private
    begun = time.monotonic()
    assert OURS not in outside(lab, "lab-2").values()
    tries = lab.exec("lab-2", f"journalctl -b -u {FORWARDER}.service -o cat | grep -c Started", check=False).stdout
    assert 0 < int(tries) <= 6 * (time.monotonic() - begun) + 6, "tried again, and not without end"
    found = audit(lab, "lab-2")
    assert found.keys() == {"files"}, found
    assert ask(lab, "lab-2", PRIVATE) == private
    deploy(lab)
    assert outside(lab, "lab-2") == RIGHT
    assert audit(lab, "lab-2") == {}


def test_an_upstream_that_is_away_is_a_deviation_and_private_names_go_on(lab: Lab) -> None:
    private = ask(lab, "lab-3", PRIVATE)
    lab.exec("lab-3", "ip route add blackhole 192.0.2.252")
    try:
        assert ask(lab, "lab-3", PRIVATE) == private
        found = audit(lab, "lab-3")
        assert found.keys() == {"names"}, found
        told = [each.partition(":")[0] for each in found["names"] if SHOP in each]
        assert told == [f"dns.upstream over {protocol} in {SHOP}" for protocol in ("UDP", "TCP")]
        lab.reboot("lab-3")
    finally:
        lab.exec("lab-3", "ip route del blackhole 192.0.2.252", check=False)
    assert ask(lab, "lab-3", PRIVATE) == private
    assert outside(lab, "lab-3") == RIGHT


def test_a_sandbox_that_cannot_be_made_for_a_while_needs_no_run_afterwards(lab: Lab) -> None:
    """Where /tmp takes no file, systemd starts no program that has devices of its own."""
    lab.exec("lab-1", "mount -t tmpfs -o size=4k,nr_inodes=3 none /tmp; touch /tmp/a /tmp/b")
    try:
        lab.exec("lab-1", f"systemctl stop --job-mode=ignore-dependencies {FORWARDER}.service")
        assert OURS not in outside(lab, "lab-1").values(), "the twin: it cannot start"
    finally:
        lab.exec("lab-1", "umount /tmp")
    assert outside(lab, "lab-1") == RIGHT
    assert audit(lab, "lab-1") == {}


def test_a_forwarder_that_has_not_started_yet_asks_nobody(lab: Lab) -> None:
    """Until it has become the forwarder, the process has the words of systemd. Opening the FIFO keeps it so."""
    drop_in = f"/run/systemd/system/{FORWARDER}.service.d"
    lines = "[Service]\nExecStopPost=\nStandardInput=file:/run/wait\n"
    lab.exec("lab-1", f"mkfifo /run/wait; mkdir -p {drop_in}; cat > {drop_in}/zz.conf", input=lines)
    lab.exec("lab-1", f"systemctl daemon-reload; systemctl restart --no-block {FORWARDER}.service")
    comm = f"cat /proc/$(systemctl show --property=MainPID --value {FORWARDER}.service)/comm"
    try:
        assert wait_until(lambda: lab.exec("lab-1", comm, check=False).stdout == "(perl)\n", 30)
        lab.exec("lab-1", f"rm -r {drop_in}; systemctl daemon-reload")
        assert "resolvers" not in audit(lab, "lab-1")
        assert deploy(lab).changed == {}
    finally:
        lab.exec("lab-1", f"timeout 30 sh -c ': > /run/wait'; rm /run/wait; systemctl restart {FORWARDER}.service")
    assert outside(lab, "lab-1") == RIGHT
    assert audit(lab, "lab-1") == {}


DRIFTS = {
    "the sockets are closed": (f"systemctl stop {FORWARDER}.socket", "units"),
    "the sockets are elsewhere": (
        f"mkdir -p /run/systemd/system/{FORWARDER}.socket.d && cd /run/systemd/system/{FORWARDER}.socket.d &&"
        " printf '[Socket]\\nListenDatagram=\\nListenStream=\\nListenStream=127.0.0.1:53\\n' > zz.conf &&"
        f" systemctl daemon-reload && systemctl restart {FORWARDER}.socket && rm -r ../{FORWARDER}.socket.d &&"
        " systemctl daemon-reload",
        "resolvers",
    ),
    "another server is asked": (
        f"mkdir -p /run/systemd/system/{FORWARDER}.service.d && cd /run/systemd/system/{FORWARDER}.service.d &&"
        " printf '[Service]\\nExecStart=\\nExecStart=/usr/bin/perl /etc/privnet/lib/forwarder.pl 192.0.2.253#53\\n'"
        f" > zz.conf && systemctl daemon-reload && systemctl restart {FORWARDER}.service &&"
        f" rm -r ../{FORWARDER}.service.d && systemctl daemon-reload",
        "resolvers",
    ),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_what_the_audit_says_of_a_forwarder_a_run_repairs(lab: Lab, drift: str) -> None:
    command, check = DRIFTS[drift]
    lab.exec("lab-1", command)
    found = audit(lab, "lab-1")
    assert check in found, found
    deploy(lab)
    assert audit(lab, "lab-1") == {}
    assert outside(lab, "lab-1") == RIGHT


def test_another_program_where_a_resolver_answers_is_told_and_refused(lab: Lab) -> None:
    """UDP has the last one who binds an address answer, if both let others bind it."""
    resolver = plan_of(lab).networks[SHOP].resolver
    unit = f"systemd-run --quiet --unit=stranger -p NetworkNamespacePath=/run/netns/{SHOP}"
    lab.exec("lab-2", f"{unit} /usr/bin/python3 /root/server.py {resolver}; sleep 0.5")
    try:
        assert ask(lab, "lab-2", "+notcp", PRIVATE) == THEIRS, "the twin: it answers"
        pid = lab.exec("lab-2", "systemctl show -P MainPID stranger").stdout.strip()
        subject = f"udp port 53 of {resolver} in namespace {SHOP}"
        told = f"{subject}: privnet-dns@{SHOP}.service, python3 (process {pid})"
        assert audit(lab, "lab-2")["resolvers"] == [told]
        refused = deploy(lab, check=False)
        assert refused.json["results"]["failed_hosts"] == ["lab-2"]
        assert (
            f"lab-2: another program, python3 (process {pid}), answers at UDP port 53 of {resolver} in the network "
            f"namespace {SHOP}, where only privnet's resolver may: `ip netns pids {SHOP}` shows who is there; end it, "
            "then run again\n"
        ) in refused.output
    finally:
        lab.exec("lab-2", "systemctl stop stranger")
    assert audit(lab, "lab-2") == {}
    assert deploy(lab).changed == {}


# Last, since the upstream is another one then.


def test_an_upstream_that_refuses_names_of_others_is_as_planned(lab: Lab) -> None:
    fleet_file = lab.inventory / "fleet.yaml"
    replace_once(fleet_file, "192.0.2.252", "192.0.2.252#5353")
    with answering(lab, "--port=5353", "--address=/corp.example/11.1.1.1"):
        deploy(lab)
        assert deploy(lab).changed == {}
        assert ask(lab, "lab-1", "x.corp.example") == "11.1.1.1"
        assert ask(lab, "lab-1", "www.example.com") == "REFUSED"
        assert audit(lab, "lab-1") == {}


def test_private_addresses_are_answered_for_names_of_internal_domains_alone(lab: Lab) -> None:
    """But for those of the network that asks; a shared one (RFC 6598) is answered for every name then."""
    records = {"db.corp.example": "10.1.2.3", "db.other.example": "10.1.2.4", "corp.example.org": "192.168.1.1"}
    records |= {
        "own.corp.example": "10.240.0.77",
        "shared.corp.example": "100.64.7.7",
        "v4.corp.example": "192.168.7.7",
    }
    fleet_file = lab.inventory / "fleet.yaml"
    options = [f"--address=/{name}/{address}" for name, address in records.items()]
    with answering(lab, "--port=5353", *options):
        before = {name: ask(lab, "lab-1", name) for name in records}
        assert set(before.values()) <= {"NOERROR", "NXDOMAIN"}, before
        replace_once(fleet_file, "[192.0.2.252#5353]", "[192.0.2.252#5353], internal: [corp.example]")
        deploy(lab)
        assert deploy(lab).changed == {}
        after = {name: ask(lab, "lab-1", name) for name in records}
        assert after == {
            **before,
            **{name: records[name] for name in ("db.corp.example", "shared.corp.example", "v4.corp.example")},
        }
        assert ask(lab, "lab-1", "+tcp", "db.corp.example") == "10.1.2.3"
        # The audit asks for the domain itself, of which this server knows no address.
        assert audit(lab, "lab-1") == {}
