"""What lab tests do with a fleet: run pyinfra on it, edit its declaration, enter containers, keep traffic flowing."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import warm
from privnet.check import removal
from privnet.compiler import compile_fleet
from privnet.lab import Lab
from privnet.plan.containers import Container
from privnet.plan.host import Plan
from privnet.plan.overlay import Network
from security.watch import CANARY

REPOSITORY = Path(__file__).parents[2]
PYINFRA = Path(sys.executable).parent / "pyinfra"
DEPLOY = REPOSITORY / "deploys" / "private_network.py"

SHOP = "pn-ad0fd6a1-d05e-40ea-bf63-c4f8a75a9d8c"
BLOG = "pn-77b1c0de-4a1f-4a53-8f0e-6f1d2b9c3a47"
STOREFRONT = "ap-a71da13f-7c70-4c00-a644-eee8558d8053"
BILLING = "ap-0c8b7a52-93a4-4f39-9b1d-2f6f3a1c7d10"
PAGES = "ap-5d2e9c14-0b7a-4f66-8c3d-91f4a7e60b25"


SAME = {
    "prepare one host": "prepare host",
    "switch on one host": "switch what has moved",
    "retire on one host": "retire what is gone",
    "connect anew": "confirm",
    "confirm what was taken away": "confirm",
}
"""Operations that do the same to some of the hosts, earlier or later."""


@dataclass(frozen=True)
class Result:
    """One pyinfra run. ``json`` is its report, without a plan when it ran with ``-y``."""

    code: int
    output: str
    json: dict[str, Any]
    seconds: float

    @property
    def changed(self) -> dict[str, list[str]]:
        """Hosts changed by each operation, by its short name; what is done on one host first counts to the same."""
        operations = self.json["results"]["operations"] if self.json.get("results") else []
        found: dict[str, list[str]] = {}
        for operation in operations:
            name = operation["name"].rpartition(" | ")[2].removesuffix(" to one host")
            name = SAME.get(name, name)
            if operation["success"]:
                found[name] = sorted([*found.get(name, ()), *operation["success"]])
        return found


def deploy(lab: Lab, *arguments: str, check: bool = True, allow: bool = False, cold: bool = False) -> Result:
    """``pyinfra --json -y INVENTORY deploys/private_network.py``; ``allow``: it is told what it removes."""
    return pyinfra(lab, "--json", "-y", *arguments, check=check, allow=allow, cold=cold)


def pyinfra(lab: Lab, *arguments: str, check: bool = True, allow: bool = False, cold: bool = False) -> Result:
    """pyinfra on a lab's inventory, with exactly these arguments.

    :param allow: it is told how much it removes
    :param cold: it is begun as a person begins it, to measure how long that takes; otherwise see :mod:`warm`
    """
    environment = {**os.environ, "PRIVNET_LAB": lab.name, "PYINFRA_PROGRESS": "off"}
    if allow:
        environment[removal.ALLOW] = str(removals_of(lab))
    words = [*arguments, str(lab.inventory.with_suffix(".py")), str(DEPLOY)]
    limit = 300 * lab.patience
    begun = time.monotonic()
    if cold:
        streams: dict[str, Any] = {"capture_output": True, "stdin": subprocess.DEVNULL}
        done = subprocess.run([str(PYINFRA), *words], text=True, env=environment, timeout=limit, cwd="/", **streams)
    else:
        done = warm.run(words, environment, timeout=limit)
    seconds = time.monotonic() - begun
    if check and done.returncode != 0:
        raise AssertionError(f"pyinfra ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    report = json.loads(done.stdout) if "--json" in arguments and done.stdout.startswith("{") else {}
    return Result(done.returncode, done.stdout + done.stderr, report, seconds)


def begin(lab: Lab) -> subprocess.Popen[str]:
    """A run that has begun, and whose output is to be read."""
    environment = {**os.environ, "PRIVNET_LAB": lab.name, "PYINFRA_PROGRESS": "off", "PYTHONUNBUFFERED": "1"}
    command = [str(PYINFRA), "-y", str(lab.inventory.with_suffix(".py")), str(DEPLOY)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, stdin=subprocess.DEVNULL
    )


def killed_at(lab: Lab, stage: str) -> str:
    """A run whose control machine dies when a stage begins; what it had printed."""
    with begin(lab) as process:
        printed = ""
        for line in process.stdout or ():
            printed += line
            if f"| {stage}" in line:
                process.kill()
                break
    assert f"| {stage}" in printed, printed
    return printed


def plan_of(lab: Lab) -> Plan:
    """What the lab's inventory says now, with the keys that the lock file has."""
    return compile_fleet(lab.inventory).plan


def removals_of(lab: Lab) -> int:
    """How many containers, networks and hosts a run would remove now: the number that it has to be told."""
    fleet = compile_fleet(lab.inventory)
    return removal.removals(fleet.known, fleet.lock).number


def network_of(lab: Lab, network: str) -> Network:
    return plan_of(lab).networks[network]


def container_of(lab: Lab, slot: str) -> Container:
    """The container of a slot (``1.web.ap-…``), wherever it is placed."""
    networks = plan_of(lab).networks.values()
    return next(c for network in networks for c in network.containers if c.slot == slot)


def inside(lab: Lab, slot: str, *command: str, check: bool = True, timeout: float = 60) -> str:
    """What a command prints in a container's namespace."""
    host = container_of(lab, slot).host
    return lab.exec(host, ["ip", "netns", "exec", slot, *command], check=check, timeout=timeout).stdout


def edit(lab: Lab, project: str, old: str, new: str) -> None:
    """Replace a text that stands exactly once in a project's file."""
    replace_once(lab.inventory / "projects" / f"{project}.yaml", old, new)


def replace_once(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    if text.count(old) != 1:
        raise AssertionError(f"{path}: {old!r} stands {text.count(old)} times")
    path.write_text(text.replace(old, new))


def take_application(lab: Lab, project: str, application: str) -> str:
    """Cut an application's block out of a project's file; what was cut."""
    path = lab.inventory / "projects" / f"{project}.yaml"
    text = path.read_text()
    found = re.search(rf"^  {application}:\n(?:    .*\n|\n)*", text, re.MULTILINE)
    if found is None:
        raise AssertionError(f"{path} has no application {application}")
    path.write_text(text.replace(found[0], ""))
    return found[0]


def give_application(lab: Lab, project: str, block: str) -> None:
    """Append an application's block to a project's file."""
    path = lab.inventory / "projects" / f"{project}.yaml"
    path.write_text(path.read_text().rstrip("\n") + "\n" + block)


# --- traffic ----------------------------------------------------------------------------------------


@dataclass
class Flow:
    """A ping at 100/s, and what became of it."""

    process: subprocess.Popen[str]
    what: str
    sent: int = 0
    lost: int = 0


@contextmanager
def flowing(lab: Lab, *pairs: tuple[str, str]) -> Iterator[list[Flow]]:
    """Pings at 100/s between (slot, slot), from before the block to after it; the counts are there at its end."""
    flows = [_start(lab, source, target) for source, target in pairs]
    time.sleep(0.5)
    try:
        yield flows
        time.sleep(0.5)
    finally:
        for flow in flows:
            flow.process.stdin.close()  # type: ignore[union-attr]
        for flow in flows:
            _finish(flow)


WATCHED = ("-p", CANARY.hex())
"""Options of ping(8): the watch over the underlay finds the payload, should it ever be there in clear."""
# The program ends when its standard input does; a signal would end the way into the host, not the ping.
_PINGER = r"""
said=$(mktemp)
ping -n -i 0.01 -w 300 "$@" > "$said" & ping=$!
cat > /dev/null; kill -INT $ping; wait $ping
awk '/ bytes from / && match($0, /icmp_seq=[0-9]+/) {
    number = substr($0, RSTART + 9, RLENGTH - 9) + 0
    if (!(number in seen)) { seen[number]; answered++ }
    if (number > last) last = number
} / packets transmitted, / { sent = $1 } END { print sent + 0, answered + 0, last + 0 }' "$said"
rm "$said"
"""
ON_THEIR_WAY = 30
"""So many pings at most had no time to be answered when the flow ended: those of 0.3 s, of the 0.5 s after a block."""


def _start(lab: Lab, source: str, target: str) -> Flow:
    sender, address = container_of(lab, source), container_of(lab, target).address
    command = ["ip", "netns", "exec", source, "bash", "-c", _PINGER, "pinger", *WATCHED, address]
    process = subprocess.Popen(
        lab.argv(sender.host, command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Flow(process, f"{source} → {target}")


def _finish(flow: Flow) -> None:
    output = flow.process.stdout.read() if flow.process.stdout else ""
    flow.process.wait(timeout=30)
    found = re.fullmatch(r"(\d+) (\d+) (\d+)", output.strip())
    if found is None:
        raise AssertionError(f"{flow.what}: the pinger said {output!r}")
    flow.sent, answered, last = map(int, found.groups())
    flow.lost = (last if flow.sent - last <= ON_THEIR_WAY else flow.sent) - answered


def assert_lossless(flows: list[Flow], at_least: int = 100) -> None:
    """Nothing was lost, and enough was sent to say so."""
    for flow in flows:
        assert flow.sent >= at_least, f"{flow.what}: only {flow.sent} pings were sent"
        assert flow.lost == 0, f"{flow.what}: {flow.lost} of {flow.sent} pings lost"


# A listener and a prober that need nothing but python3; a refusal counts as reached, since the packet arrived.
LISTEN = """
import selectors, socket, sys
selector = selectors.DefaultSelector()
selector.register(sys.stdin, 1, "end")
for port in map(int, sys.argv[1].split(",")):
    tcp = socket.create_server(("0.0.0.0", port)); selector.register(tcp, 1, "tcp")
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("0.0.0.0", port))
    selector.register(udp, 1, "udp")
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        if key.data == "end":
            sys.exit()
        elif key.data == "udp":
            data, address = key.fileobj.recvfrom(65536); key.fileobj.sendto(data, address)
        else:
            peer, _ = key.fileobj.accept(); peer.settimeout(2)
            while True:
                try:
                    data = peer.recv(65536)
                except OSError:
                    break
                if not data:
                    break
                peer.sendall(data)
            peer.close()
"""

PROBE = """
import socket, sys
kind, target, port, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
token = (b"privnet-canary-" + bytes(str(port), "ascii")).ljust(size, b".")
try:
    if kind == "tcp":
        with socket.create_connection((target, port), 2) as s:
            s.sendall(token); got = b""
            while len(got) < size:
                part = s.recv(65536)
                if not part: break
                got += part
    else:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(2); s.setsockopt(socket.IPPROTO_IP, 10, 2)
            s.connect((target, port)); s.send(token); got = s.recv(65536)
    print("REACHED" if got == token else "BROKEN")
except ConnectionRefusedError:
    print("REFUSED")
except (TimeoutError, OSError) as error:
    print("NOTHING", type(error).__name__)
"""


@contextmanager
def listening(lab: Lab, *slots: str, ports: tuple[int, ...] = (80, 5432, 9999)) -> Iterator[None]:
    """TCP and UDP echo on these ports of these containers."""
    with contextlib.ExitStack() as stack:
        for slot in slots:
            command = ["ip", "netns", "exec", slot, "python3", "-c", LISTEN, ",".join(map(str, ports))]
            stack.enter_context(listener(lab, container_of(lab, slot).host, command))
        yield


@contextmanager
def listener(lab: Lab, host: str, command: list[str]) -> Iterator[None]:
    """A listener on a host (or ``operator``, ``outsider``), which ends when its standard input does."""
    argv = lab.argv(host, command)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        ready = process.stdout.readline() if process.stdout else ""
        if ready != "ready\n":
            raise AssertionError(f"{host}: the listener said {ready!r}")
        yield


def probe(lab: Lab, slot: str, kind: str, target: str, port: int = 80, size: int = 64) -> str:
    """``REACHED``, ``REFUSED`` or ``NOTHING`` for one TCP or UDP probe from a container."""
    return inside(lab, slot, "python3", "-c", PROBE, kind, target, str(port), str(size)).split()[0]


def assert_reachable(lab: Lab) -> None:
    """The first container of each network reaches all others of it, by name."""
    for network in plan_of(lab).networks.values():
        names = [f"{c.slot}.{network.names.suffix}" for c in network.containers]
        if names:
            loop = f"for n; do ping {' '.join(WATCHED)} -c 1 -W 3 -q $n > /dev/null || echo $n; done"
            assert inside(lab, network.containers[0].slot, "sh", "-c", loop, "ping", *names) == ""


def questions(lab: Lab, host: str) -> int:
    """SSH executions that a host has seen since its sshd logs them; see :func:`count_questions`."""
    log = lab.exec(host, "journalctl -u ssh -o cat --no-pager | grep -c '^Starting session: command' || true").stdout
    return int(log)


def count_questions(lab: Lab, host: str) -> None:
    """Let a host's sshd log each execution."""
    lab.exec(host, "echo 'LogLevel VERBOSE' > /etc/ssh/sshd_config.d/verbose.conf && systemctl reload ssh")


def assert_nothing_installed(lab: Lab, host: str) -> None:
    """A host on which privnet has never been, and none of what it needs."""
    for program in ("wg", "nft", "dnsmasq"):
        assert lab.exec(host, f"command -v {program}", check=False).returncode != 0, program
    assert lab.exec(host, "ls /etc/privnet", check=False).returncode != 0


_PROJECT = """\
project: {name}
private_network:
  id: pn-{digit}0000000-d05e-40ea-bf63-c4f8a75a9d8c
  terms: {{accepted_by: ops@{name}.example, accepted_on: 2025-09-25, version: beta-1}}
applications:
  ap-{digit}0000000-7c70-4c00-a644-eee8558d8053: {{formation: {{web: {places}}}}}
"""


def project(name: str, digit: int, places: str) -> str:
    """A project's file: one application with a network of its own, whose ``web`` is on these hosts."""
    return _PROJECT.format(name=name, digit=digit, places=places)
