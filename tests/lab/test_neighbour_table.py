"""One neighbour table serves all namespaces of a kernel: with the plan's limits nobody keeps another one from his.

A lab host is a container of this machine, so the limits are this machine's. The test sets what a host's own program
would set there, and puts back what was.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

import pytest
from runs import deploy, network_of, plan_of, project

from privnet.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.alone]

LIMITS = Path("/proc/sys/net/ipv4/neigh/default")
KERNEL = {"gc_thresh2": 512, "gc_thresh3": 1024}
"""What a kernel has by itself."""
CONTAINERS = 200

# A socket in each namespace; each sends one datagram to each other one. Prints how many arrived.
HONEST = """
import ctypes, json, select, socket, sys, time
places = json.loads(sys.argv[1])
libc = ctypes.CDLL(None)
sockets = []
for namespace, address in places:
    with open(f"/run/netns/{namespace}") as file:
        assert libc.setns(file.fileno(), 0x40000000) == 0
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, 33, 4000000)  # SO_RCVBUFFORCE
    one.setsockopt(socket.SOL_SOCKET, 32, 4000000)  # SO_SNDBUFFORCE
    one.bind((address, 7))
    one.setblocking(False)
    sockets.append(one)
poll = select.epoll()
by = {one.fileno(): one for one in sockets}
for number in by:
    poll.register(number, select.EPOLLIN)
arrived = sent = 0
def take(wait):
    global arrived
    ready = poll.poll(wait)
    for number, _ in ready:
        try:
            while by[number].recv(10):
                arrived += 1
        except BlockingIOError:
            pass
    return ready
for one, (_, own) in zip(sockets, places):
    for _, address in places:
        if address != own:
            sent += 1
            try:
                one.sendto(b"x", (address, 7))
            except OSError:
                pass  # no room for one more neighbour
    take(0)
until = time.monotonic() + 8
while time.monotonic() < until and arrived < sent:
    take(0.2)
print(json.dumps([sent, arrived]))
"""

# Without privileges: one datagram to each address of its prefix, again and again, until standard input ends.
SCAN = """
import ipaddress, select, socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.setblocking(False)
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    for address in ipaddress.IPv4Network(sys.argv[1]).hosts():
        try:
            one.sendto(b"x", (str(address), 9))
        except OSError:
            pass
"""


@pytest.fixture(scope="module")
def lab(fleet, tmp_path_factory) -> Lab:
    """A host with 200 containers of one network, and one of another, which scans."""
    inventory = tmp_path_factory.mktemp("dense") / "dense"
    (inventory / "projects").mkdir(parents=True)
    (inventory / "fleet.yaml").write_text("fleet: dense\nlab: true\nhosts:\n  lab-1: {address: 192.0.2.11}\n")
    (inventory / "projects" / "many.yaml").write_text(project("many", 1, f"[{', '.join(['lab-1'] * CONTAINERS)}]"))
    (inventory / "projects" / "scanner.yaml").write_text(project("scanner", 2, "[lab-1, lab-1]"))
    inventory.with_suffix(".py").write_text(
        "from privnet.deploy.inventory import groups as _groups\n\nglobals().update(_groups())\n"
    )
    lab: Lab = fleet(inventory)
    deploy(lab)
    return lab


@contextmanager
def limits(**values: int) -> Iterator[None]:
    before = {name: (LIMITS / name).read_text() for name in values}
    try:
        for name, value in values.items():
            (LIMITS / name).write_text(str(value))
        yield
    finally:
        for name, text in before.items():
            (LIMITS / name).write_text(text)


@contextmanager
def scanning(lab: Lab) -> Iterator[None]:
    network = next(n for n in plan_of(lab).networks.values() if n.project == "scanner")
    words = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        "python3",
        "-c",
        SCAN,
    ]
    command = ["ip", "netns", "exec", network.containers[0].slot, *words, str(network.cidr)]
    with subprocess.Popen(lab.argv("lab-1", command), stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        yield
        process.communicate("end\n", timeout=30)


def lost(lab: Lab) -> tuple[int, int]:
    """How many datagrams of the honest containers were sent, and did not arrive."""
    network = next(n for n in plan_of(lab).networks.values() if n.project == "many")
    places = json.dumps([(c.slot, c.address) for c in network_of(lab, network.id).containers])
    lab.exec("lab-1", "ip -all netns exec ip neigh flush dev pn0 nud all", check=False)
    done = lab.exec("lab-1", ["python3", "-c", HONEST, places], timeout=240)
    sent, arrived = json.loads(done.stdout)
    return sent, sent - arrived


def test_two_hundred_containers_and_a_scanner(lab: Lab) -> None:
    table = plan_of(lab).hosts["lab-1"].neighbour_table
    assert table.ipv4 >= (CONTAINERS + 4) * 1024
    with limits(gc_thresh3=table.ipv4, gc_thresh2=table.ipv4 // 2), scanning(lab):
        sent, missing = lost(lab)
    assert sent == CONTAINERS * (CONTAINERS - 1)
    assert missing == 0
    # The twin: as a kernel is by itself.
    with limits(**KERNEL):
        sent, missing = lost(lab)
    assert missing > sent / 3
