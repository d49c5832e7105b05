"""A fleet with two declarations, between which runs go to and fro, and what a fault does to one of them."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import line
import points
from kernel import difference, dump
from points import Point, command_at, points_of, ways_back
from runs import DEPLOY, Result, container_of, deploy, removals_of
from witness import Flow, Seen, Witnesses

from privnet.check import removal
from privnet.deploy import command
from privnet.deploy.outcome import VARIABLE
from privnet.lab import Lab
from privnet.store import load_lock

HERE = Path(__file__).parent
SECONDS = 20
"""``policy.rollback``: longer than from a fault to the next run's wave, or who runs again would meet the timer."""
DISK_MIB = 160
"""Of each host, for everything that it writes; a run wants 50 MiB free."""

STOREFRONT = "ap-a71da13f-7c70-4c00-a644-eee8558d8053"
BILLING = "ap-0c8b7a52-93a4-4f39-9b1d-2f6f3a1c7d10"
PAGES = "ap-5d2e9c14-0b7a-4f66-8c3d-91f4a7e60b25"
NIGHT = "ap-3f1c6a90-2b44-4c1e-9a55-6d0e8b7c2f13"
EXTRA = "ap-9d4b1e07-6c2f-4d3a-8b7e-15a0c3f2d846"

FLEET = f"""\
fleet: lab
lab: true
policy: {{address_quarantine: 0s, removal_guard: 50%, rollback: {SECONDS}s}}
hosts:
  lab-1: {{address: 192.0.2.11, zone: a}}
  lab-2: {{address: 192.0.2.12, zone: b}}
  lab-3: {{address: 192.0.2.13, zone: b, ssh: {{user: deploy}}}}
  lab-4: {{address: 192.0.2.14, zone: a}}
"""
_PROJECT = """\
project: {name}
private_network:
  id: pn-{id}-d05e-40ea-bf63-c4f8a75a9d8c
  terms: {{accepted_by: ops@{name}.example, accepted_on: 2025-09-25, version: beta-1}}
applications:
"""
# From one to the other a container moves, one goes, one comes, a network comes or goes, one comes to a host or leaves
# it, and two hosts (lab-2 and lab-4) become peers or cease to be. `night` is what no run concerns.
WAYS: dict[str, dict[str, dict[str, str]]] = {
    "there": {
        "shop": {STOREFRONT: "{web: [lab-1, lab-3], cron: [lab-2]}", BILLING: "{web: [lab-2, lab-4]}"},
        "blog": {PAGES: "{web: [lab-1], worker: [lab-3, lab-4]}"},
        "night": {NIGHT: "{web: [lab-1, lab-2, lab-3], worker: [lab-2, lab-2, lab-2, lab-2]}"},
        "extra": {EXTRA: "{web: [lab-1, lab-2]}"},
    },
    "back": {
        "shop": {STOREFRONT: "{web: [lab-1, lab-2], worker: [lab-1]}", BILLING: "{web: [lab-2]}"},
        "blog": {PAGES: "{web: [lab-1, lab-3], worker: [lab-3, lab-4]}"},
        "night": {NIGHT: "{web: [lab-1, lab-2, lab-3], worker: [lab-2, lab-2, lab-2, lab-2]}"},
    },
}
OTHER = {"there": "back", "back": "there"}
UNCONCERNED = {
    Flow(f"1.web.{NIGHT}", f"2.web.{NIGHT}", ("lab-1", "lab-2")): ("lab-1", "lab-2"),
    Flow(f"2.web.{NIGHT}", f"3.web.{NIGHT}", ("lab-2", "lab-3")): ("lab-2", "lab-3"),
    Flow(f"3.web.{NIGHT}", f"1.web.{NIGHT}", ("lab-3", "lab-1")): ("lab-3", "lab-1"),
}
"""Nothing of them is lost, whatever becomes of the run; from where to where. Whichever host is off, one is left."""
CROSSING = Flow(f"1.web.{BILLING}", f"1.web.{STOREFRONT}", (f"3.worker.{NIGHT}", f"4.worker.{NIGHT}", "lab-1"))
FLOWS = (*UNCONCERNED, CROSSING)
NEIGHBOUR = CROSSING.strangers[0]
"""In another network than who tries to reach it, and on the same host."""

ROLLBACK = ("rollback-shell", "rollback-disk", "rollback-power", "rollback-full")
"""The run is dead, and something more happens to a host that takes its wave back; ``full``: it boots without room."""
RETRY = 12
"""Seconds after which a host that had no room to go back has tried again."""
CUTS = ("power", "rollback-power", "rollback-full")
"""Those that switch a host off."""
LINE = "line"
"""All packets between the operator and the host are dropped, until the run has ended and the host has rolled back."""
KINDS = ("control", "channel", LINE, "shell", "power", "disk", *ROLLBACK)
RUN_SECONDS = 600
"""For a run that is struck: where a line is dead, it waits for the host as long as it waits for any program."""


def declare(directory: Path, way: str) -> None:
    """Write the declaration to which a run of that way goes."""
    (directory / "projects").mkdir(parents=True, exist_ok=True)
    (directory / "fleet.yaml").write_text(FLEET)
    for path in (directory / "projects").iterdir():
        path.unlink()
    for name, applications in WAYS[way].items():
        text = _PROJECT.format(name=name, id=f"{name.encode().hex():0<8.8}")
        text += "".join(f"  {app}: {{formation: {formation}}}\n" for app, formation in applications.items())
        (directory / "projects" / f"{name}.yaml").write_text(text)


# --- disks that can be filled -----------------------------------------------------------------------


def give_small_disks(lab: Lab) -> None:
    """Move everything that the hosts have written to a small file system of each one's own."""
    for host in lab.hosts:
        machine = lab.machine(host)
        lab.kill(host)
        machine.unmount()
        aside = machine.directory.with_name(f"{host}.small")
        aside.mkdir()
        _sh("mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "none", str(aside))
        _sh("cp", "-a", f"{machine.directory}/.", str(aside))
        _sh("mount", "--bind", str(aside), str(machine.directory))
        _sh("umount", str(aside))
        aside.rmdir()
        machine.mount()
        lab.start(host)


def take_small_disks(lab: Lab) -> None:
    """Undo it, also after a test run that was interrupted. The hosts are off afterwards."""
    if lab.exists:
        for host in lab.hosts:
            lab.kill(host)
            machine = lab.machine(host)
            machine.unmount()
            while machine.directory.is_mount():
                _sh("umount", "--lazy", str(machine.directory))
    for aside in lab.settings.state.glob("hosts/*.small"):
        while aside.is_mount():
            _sh("umount", "--lazy", str(aside))
        aside.rmdir()


def fill(lab: Lab, host: str, leave: int = 0) -> None:
    """Only so many more bytes can be written there."""
    directory = lab.machine(host).directory
    room = shutil.disk_usage(directory).free - leave
    _sh("fallocate", "--length", str(room), str(directory / "fill"))


def free(lab: Lab, host: str) -> None:
    """Make room again."""
    (lab.machine(host).directory / "fill").unlink(missing_ok=True)


def _written(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _sh(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


# --- a run that is stopped --------------------------------------------------------------------------

_PAUSE = "mkdir {dir}/reached 2> /dev/null || exit 0; while [ -d {dir} ] && [ ! -e {dir}/go ]; do sleep 0.02; done"
# All between sshd, or systemd, and the line, at once: none of them tidies up.
_KILL = """mkdir {dir}/reached 2> /dev/null || exit 0
p=$PPID victims=
until grep -qx -e sshd -e systemd /proc/$p/comm; do victims="$victims $p"; p=$(awk '{{ print $4 }}' /proc/$p/stat); done
kill -9 $victims"""


@dataclass
class Ended:
    """A run that a fault has struck. ``code`` is negative when it was killed.

    :param said: what `privnet deploy` says at the end of such a run
    """

    code: int
    output: str
    outcome: dict[str, Any] | None
    seconds: float
    struck: bool
    said: str = ""


@dataclass
class Scene:
    """A lab, what it is after undisturbed runs, and what watches it.

    :param target: of each way, what the hosts are after it
    :param stations: of each way, what each host is before each of its executions, and at the end
    :param tours: of each way, every execution
    :param came: of each way, the places inside of programs that hosts come by
    :param came_back: of each way and host, the same on the way back, as far as somebody has looked
    :param struck: whether the last fault came to be
    """

    lab: Lab
    place: Path
    target: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    stations: dict[str, dict[str, list[list[str]]]] = field(default_factory=dict)
    tours: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    came: dict[str, set[Point]] = field(default_factory=dict)
    came_back: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    at: str = "back"
    struck: bool = False

    def __post_init__(self) -> None:
        self.witnesses = Witnesses(self.lab, FLOWS)

    def build(self) -> dict[str, dict[str, list[str]]]:
        """What the hosts are when each declaration is built from nothing, with the numbers and keys of the fleet."""
        declare(self.lab.inventory, "back")
        deploy(self.lab)
        new = {"back": dump(self.lab)}
        for host in self.lab.hosts:
            self.keys[host] = self.lab.exec(host, "cat /etc/wireguard/privnet.key").stdout.strip()
        self.run("there")
        for host in self.lab.hosts:
            self.lab.remove_host(host)
            self.lab.add_host(host)
            left = [line for line in dump(self.lab, host)[host] if line.startswith(("peer: ", "link: ", "file: "))]
            assert not left, f"{host} is not new: {left}"
            keep = "umask 077; cat > /etc/wireguard/privnet.key"
            self.lab.exec(host, ["sh", "-euc", keep], input=f"{self.keys[host]}\n")
        deploy(self.lab)
        return {**new, "there": dump(self.lab)}

    def learn(self, new: dict[str, dict[str, list[str]]]) -> None:
        """Go there and back undisturbed, stop before every execution to see what the hosts are.

        :param new: of each way, what they are to be at its end
        """
        self.run("back")
        for way in WAYS:
            self._tour(way)
            changed = differs(new[way], self.target[way])
            assert not changed, f"{way} is not what it is when it is built from nothing:\n{changed}"
        self.witnesses.begin()

    def _tour(self, way: str) -> None:
        declare(self.lab.inventory, way)
        place = self._clean()
        for name in ("stops", "notes"):
            (place / name).touch()
        for host in self.lab.hosts:
            self._there(host).mkdir()
        stations: dict[str, list[list[str]]] = {host: [] for host in self.lab.hosts}
        with self._started(place) as run:
            while run.poll() is None:
                for reached in sorted(place.glob("reached.*")):
                    host = reached.name.split(".")[1]
                    self._give_time()
                    stations[host].append(dump(self.lab, host)[host])
                    reached.rename(place / reached.name.replace("reached", "go"))
                time.sleep(0.02)
        assert run.returncode == 0, (place / "output").read_text()
        self.tours[way] = [json.loads(line) for line in (place / "tour").read_text().splitlines()]
        self.came[way] = set()
        for host in self.lab.hosts:
            self.came[way] |= {Point(way, host, execution, where) for execution, where in self._came(host)}
            shutil.rmtree(self._there(host))
        self.target[way] = dump(self.lab)
        for host, lines in self.target[way].items():
            stations[host].append(lines)
        self.stations[way] = {host: [_rested(lines) for lines in found] for host, found in stations.items()}
        self.at = way

    def _give_time(self) -> None:
        """Looking at the hosts takes long on a busy machine; none of them shall roll back meanwhile."""
        later = "$(($(cut -d . -f 1 /proc/uptime) + 300))"
        for host in self.lab.hosts:
            # A host that is being confirmed at this moment needs none.
            self.lab.exec(host, f"cd /var/lib/privnet/armed && [ -e deadline ] && echo {later} > deadline", check=False)

    def points(self, way: str, kind: str) -> list[Point]:
        """Every place of a way at which a fault of that kind can strike."""
        if kind == "rollback-full":
            return sorted({replace(point, place="after") for point in ways_back(way, self.tours[way])})
        if kind in ROLLBACK:
            return [*ways_back(way, self.tours[way])]
        found = [*points_of(way, self.tours[way])]
        if kind == "shell":
            return [point for point in found if point.inside]
        return [point for point in found if kind != "disk" or point.place != "after"]

    def on_the_way(self, kind: str, points: Sequence[Point]) -> list[Point]:
        """Those of some places that a host comes by, as far as that is known."""
        if kind in ROLLBACK:
            known = self.came_back
            return [p for p in points if not p.inside or p.place in known.get((p.way, p.host), {p.place})]
        return [point for point in points if not point.inside or point in self.came[point.way]]

    def commands(self, kind: str) -> list[list[Point]]:
        """All places of a kind, those together where the same is done: on another host, in another wave, or way."""
        groups: dict[str, list[Point]] = {}
        for way in WAYS:
            steps = {(step["host"], step["execution"]): step for step in self.tours[way]}
            for point in self.points(way, kind):
                groups.setdefault(command_at(point, steps[point.host, point.execution]), []).append(point)
        return [groups[name] for name in sorted(groups)]

    def _there(self, host: str) -> Path:
        """Where a host looks whether it is to stop, or to write down by what it comes."""
        init = self.lab.machine(host).init
        assert init is not None, f"{host} is off"
        return Path(f"/proc/{init.pid}/root") / Path(points.STOP).parent.relative_to("/")

    def _came(self, host: str) -> list[tuple[int, str]]:
        """Execution and place of every line that a host has written down."""
        noted = self._there(host) / Path(points.CAME).name
        pairs = (line.split("/", 1) for line in noted.read_text().splitlines()) if noted.exists() else ()
        return [(int(execution), place) for execution, place in pairs]

    # a fault

    def strike(self, kind: str, point: Point) -> Ended:
        """Run until that point, let the fault happen there, and see how the run ends."""
        declare(self.lab.inventory, point.way)
        place = self._clean()
        (place / "point").write_text(str(point))
        there = self._prepare(kind, point) if point.inside else place
        begun = time.monotonic()
        if kind in ROLLBACK:
            return self._strike_again(kind, point, place, there / "reached")
        with self._started(place) as run:
            struck = self._until(run, there / "reached")
            if struck:
                self._let_happen(kind, point, run)
                if kind != "power" or not point.inside:
                    (there / "go").touch()
                if kind == LINE:
                    self._rest(point.host, SECONDS + 40)
            code = run.wait(timeout=RUN_SECONDS)
        self.at = "?"
        outcome = json.loads((place / "outcome").read_text()) if (place / "outcome").exists() else None
        found = command.Ended(code, False, command.read_outcome(_written(place / "outcome")))
        judged = command.judge(found, self.lab.hosts, False, SECONDS)
        said = "\n".join(judged.lines)
        return Ended(code, (place / "output").read_text(), outcome, time.monotonic() - begun, struck, said)

    def _strike_again(self, kind: str, point: Point, place: Path, reached: Path) -> Ended:
        """Kill the run after that execution, and then what happens while the host rolls back."""
        begun = time.monotonic()
        (place / "afterwards").touch()
        (place / "notes").touch()
        with self._started(place) as run:
            assert self._until(run, place / "reached"), (place / "output").read_text()
            run.kill()
            run.wait()
        self.at = "?"
        if kind == "rollback-full":
            self.lab.kill(point.host)
            fill(self.lab, point.host, leave=2**20)  # the lab itself writes a host's name
            self.lab.start(point.host)
            time.sleep(RETRY)
            struck = self._is_armed(point.host)
            return Ended(-signal.SIGKILL, (place / "output").read_text(), None, time.monotonic() - begun, struck)
        while not (struck := reached.exists()) and self._is_armed(point.host):
            assert time.monotonic() < begun + 120, f"{point.host} does not go back"
            time.sleep(0.1)
        if not struck:
            # The lines of a wave stand beside them, and are those of other places.
            back = {at.place for at in ways_back(point.way, self.tours[point.way])}
            self.came_back[point.way, point.host] = back & {where for _, where in self._came(point.host)}
        if kind == "rollback-power":
            self.lab.kill(point.host)
        else:
            if kind == "rollback-disk" and struck:
                fill(self.lab, point.host)
                (reached.parent / "go").touch()
                time.sleep(RETRY)
                free(self.lab, point.host)
            self.rested()
        return Ended(-signal.SIGKILL, (place / "output").read_text(), None, time.monotonic() - begun, struck)

    def _is_armed(self, host: str) -> bool:
        return self.lab.exec(host, "test -e /var/lib/privnet/armed", check=False).returncode == 0

    def _is_at_work(self, host: str) -> bool:
        """Whether a program is: it outlives who has sent it, and may have armed nothing yet."""
        lock = "/run/privnet/program.lock"
        return self.lab.exec(host, f"test -e {lock} && ! flock -n {lock} true", check=False).returncode == 0

    def _prepare(self, kind: str, point: Point) -> Path:
        there = self._there(point.host)
        shutil.rmtree(there, ignore_errors=True)
        there.mkdir()
        program = (_KILL if kind.endswith("shell") else _PAUSE).format(dir=Path(points.STOP).parent)
        (there / Path(points.STOP).name).write_text(f"{program}\n")
        return there

    def _let_happen(self, kind: str, point: Point, run: subprocess.Popen[bytes]) -> None:
        if kind == "control":
            run.kill()
            run.wait()
        elif kind == "channel":
            self._cut(point.host, run)
        elif kind == LINE:
            line.cut(self.lab, point.host)
        elif kind == "power":
            self.lab.kill(point.host)
        elif kind == "disk":
            fill(self.lab, point.host)

    def _cut(self, host: str, run: subprocess.Popen[bytes]) -> None:
        """End the ways from this run to that host: for both sides the connection is gone."""
        address = str(self.lab.machine(host).host.addresses[0])
        ask = ["ps", "-o", "pid=,args=", "--ppid", str(run.pid)]
        listed = subprocess.run(ask, capture_output=True, text=True).stdout
        ways = [int(pid) for pid in re.findall(rf"^ *(\d+) .*nc -n {re.escape(address)} \d+$", listed, re.MULTILINE)]
        assert ways, f"no connection to {host}:\n{listed}"
        for pid in ways:
            os.kill(pid, signal.SIGKILL)

    def repair(self, kind: str, point: Point) -> None:
        """What a person would do: switch the host on again, make room, mend the line."""
        if kind == LINE:
            line.mend(self.lab)
        if kind.endswith("power"):
            self.lab.start(point.host)
        if kind in ("disk", "rollback-full"):
            free(self.lab, point.host)
        init = self.lab.machine(point.host).init
        shutil.rmtree(f"/proc/{init.pid}/root{Path(points.STOP).parent}" if init else "", ignore_errors=True)

    def rested(self, timeout: float = SECONDS + 40) -> dict[str, list[str]]:
        """Wait until no host has anything to take back any more; what they are then."""
        begun = time.monotonic()
        for host in self.lab.hosts:
            self._rest(host, begun + timeout - time.monotonic())
        return {host: _rested(lines) for host, lines in dump(self.lab).items()}

    def _rest(self, host: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._is_at_work(host) or self._is_armed(host):
            assert time.monotonic() < deadline, f"{host} has not rolled back after {seconds:.0f} s"
            time.sleep(1)

    # the next runs

    def run(self, way: str, check: bool = True) -> Result:
        """A plain run."""
        declare(self.lab.inventory, way)
        done = deploy(self.lab, check=check, allow=True)
        self.at = way if done.code == 0 else "?"
        return done

    def seen(self) -> tuple[list[Seen], dict[str, int]]:
        """What the witnesses have seen since they were asked last; nothing of those that have lost power."""
        return self.witnesses.cut()

    def bridge_of(self, host: str, slot: str) -> str:
        """The bridge that a container's port is on."""
        port = container_of(self.lab, slot).port
        return Path(self.lab.exec(host, f"readlink /sys/class/net/{port}/master").stdout.strip()).name

    def watch_again(self) -> None:
        """Witnesses that went with their host begin anew."""
        if not self.witnesses.alive:
            self.witnesses.end()
            self.witnesses.begin()

    def secrets(self, *texts: str) -> list[str]:
        """Places outside its own where a host's private key is."""
        forms = {host: written(key) for host, key in self.keys.items()}
        said = "\n".join(texts).encode()
        found = [f"an output has the key of {host}" for host, ones in forms.items() if any(one in said for one in ones)]
        for path in [*self.lab.inventory.rglob("*"), *self.place.rglob("*")]:
            if path.is_file():
                data = path.read_bytes()
                found += [f"{path} has the key of {h}" for h, ones in forms.items() if any(f in data for f in ones)]
        for host, key in self.keys.items():
            # Its own place is its key file and the mesh's configuration; what a run was killed beside may be a copy.
            places = self.lab.exec(host, ["python3", "-c", _SEARCH], input=f"{key}\n").stdout.splitlines()
            found += [f"{host}: {path} has its key" for path in places]
        return found

    def lock_is_whole(self) -> None:
        """It parses, and its checksum is right: anything else raises."""
        load_lock(self.lab.inventory, "lab")

    def _clean(self) -> Path:
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        return self.place

    @contextmanager
    def _started(self, place: Path) -> Iterator[subprocess.Popen[bytes]]:
        environment = {
            **os.environ,
            "PRIVNET_LAB": self.lab.name,
            "PYINFRA_PROGRESS": "off",
            "PRIVNET_TEST_FAULT": str(place),
            removal.ALLOW: str(removals_of(self.lab)),
            VARIABLE: str(place / "outcome"),
        }
        script = [sys.executable, str(HERE / "faulty_pyinfra.py")]
        command = [*script, "-y", str(self.lab.inventory.with_suffix(".py")), str(DEPLOY)]
        with (place / "output").open("wb") as output:
            run = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment, cwd="/"
            )
            try:
                yield run
            finally:
                if run.poll() is None:
                    run.kill()
                    run.wait()

    def _until(self, run: subprocess.Popen[bytes], reached: Path, timeout: float = 120) -> bool:
        deadline = time.monotonic() + timeout
        while not reached.exists():
            if run.poll() is not None:
                return False
            assert time.monotonic() < deadline, f"{reached} is not reached"
            time.sleep(0.01)
        return True


def written(key: str) -> list[bytes]:
    """The forms in which a key can be met: as WireGuard prints it, in hexadecimal, and as it is."""
    raw = base64.b64decode(key)
    return [key.encode(), raw.hex().encode(), raw.hex().upper().encode(), raw]


# Reads the key from its standard input; what cannot be read ends it with an error, which is no silence. Files that go
# meanwhile are none, and what is no file has nothing in it.
_SEARCH = r"""
import base64, os, stat, subprocess, sys
key = sys.stdin.readline().strip()
raw = base64.b64decode(key)
forms = [key.encode(), raw.hex().encode(), raw.hex().upper().encode(), raw]
assert len(raw) == 32 and forms[0] in open("/etc/wireguard/privnet.key", "rb").read(), "no key to look for"
def fail(error):
    if not isinstance(error, (FileNotFoundError, ProcessLookupError)):
        raise error
for top in ("/etc", "/run", "/tmp", "/root", "/home", "/var/lib/privnet", "/var/log", "/var/tmp"):
    for folder, folders, names in os.walk(top, onerror=fail):
        if folder == "/run/netns":
            continue
        for name in names:
            path = os.path.join(folder, name)
            if path in ("/etc/wireguard/privnet.key", "/etc/wireguard/privnet.conf"):
                continue
            try:
                if not stat.S_ISREG(os.lstat(path).st_mode):
                    continue
                data = open(path, "rb").read()
            except OSError as error:
                fail(error)
                continue
            if any(form in data for form in forms):
                print(path)
ask = ["journalctl", "--no-pager", "--quiet", "--all", "--output=export"]
journal = subprocess.run(ask, stdout=subprocess.PIPE, check=True).stdout
if any(form in journal for form in forms):
    print("the journal")
"""


REMEDY = re.compile(r"[Tt]he same command again|[Rr]un again|Wait for its end|privnet (forget|import|deploy) ")
"""What to do, in a sentence about a host or the whole run."""
LOCKED = re.compile(r"\bunder way\b|\blease\b|another run is at work|run \S+ of \S+ has it")
HOLDER = re.compile(r"run \S+ of \S+@\S+ has it since \d+ s|run \S+ of \S+@\S+, process \d+,|its lease is damaged")


def told(ended: Ended, point: Point, hosts: Sequence[str]) -> list[str]:
    """What is wrong with what a run said at its end (I8); nothing when it was killed before it could."""
    if ended.outcome is None:
        return [] if ended.code < 0 else ["it has left no outcome"]
    found = []
    states = {name: host["state"] for name, host in ended.outcome["hosts"].items()}
    if set(states) != set(hosts):
        found.append(f"the outcome names {sorted(states)}")
    undone = [name for name, state in states.items() if state not in ("changed", "unchanged")]
    if ended.code == 0 and undone:
        found.append(f"it ended with 0, and {undone} are not done: {states}")
    if ended.code > 0:
        if not undone:
            found.append(f"it ended with {ended.code}, and every host is done: {states}")
        for name in undone:
            why = ended.outcome["hosts"][name]["why"]
            if not why and states[name] != "unreached":
                found.append(f"{name} is {states[name]}, and nobody says why")
            if name not in ended.output:
                found.append(f"{name} is {states[name]}, and the output does not name it")
            if not re.search(rf"(?m)\b{name}\b", ended.said):
                found.append(f"{name} is {states[name]}, and the end does not name it:\n{ended.said}")
            if LOCKED.search(why) and not HOLDER.search(why):
                found.append(f"{name} is {states[name]}: somebody has it, and nobody says who, and since when: {why}")
        if not REMEDY.search(ended.said):
            found.append(f"{undone} are not done, and nobody says what to do:\n{ended.said}")
        if (ended.outcome["stopped"] or {}).get("kind") == "locked" and not HOLDER.search(ended.said):
            found.append(f"it stopped since somebody has it, and nobody says who, and since when:\n{ended.said}")
    # paramiko tells one of its own when the way to a host breaks: it is a program in the lab, not a socket.
    if re.search(r'File "[^"]*/privnet/', ended.output):
        found.append("a traceback: " + ended.output.partition("Traceback")[2])
    return found


def _rested(lines: list[str]) -> list[str]:
    """Without what a program that was killed has unpacked, and a lease: these go with the next program there."""
    return [line for line in lines if not line.startswith("left: ") and "/etc/privnet/.stage." not in line]


def differs(a: dict[str, list[str]], b: dict[str, list[str]]) -> str:
    """What two dumps differ in."""
    return difference(a, b)
