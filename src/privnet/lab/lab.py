"""The lab: `Lab(inventory).up()` boots the hosts that an inventory declares."""

from __future__ import annotations

import fcntl
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from privnet.lab import access, image, process, requirements, underlay
from privnet.lab.archive import DEFAULT_RELEASE, check_release
from privnet.lab.capture import Capture
from privnet.lab.errors import LabError
from privnet.lab.fleet import LabFleet, LabHost, forget_lock, read_fleet, rehearse
from privnet.lab.host import DiskSource, Host, execute
from privnet.lab.image import Say
from privnet.lab.kinds import host_of
from privnet.lab.nspawn import NspawnHost
from privnet.lab.qemu import Machine
from privnet.lab.settings import DEFAULT_NAME, ENVIRONMENT, FABRIC, RESERVED, Settings, running_labs
from privnet.lab.underlay import Underlay

# More at once only makes each of them slower.
_PARALLEL_BOOTS: Final = 8


@dataclass(frozen=True, slots=True)
class HostStatus:
    """What `privnet lab status` shows of a host; `pid` and `uptime` (seconds) are None while it is off."""

    name: str
    state: str
    kind: str
    release: str
    address: str
    pid: int | None
    uptime: float | None


@dataclass(frozen=True, slots=True)
class _Description:
    """What a lab runs, kept in its state directory."""

    source: Path
    inventory: Path
    fleet: str
    underlay: Underlay
    hosts: tuple[LabHost, ...]

    @property
    def rehearsal(self) -> bool:
        return self.source != self.inventory

    def to_json(self) -> dict[str, Any]:
        return {
            "source": str(self.source),
            "inventory": str(self.inventory),
            "fleet": self.fleet,
            "underlay": self.underlay.to_json(),
            "hosts": {host.name: host.to_json() for host in self.hosts},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> _Description:
        return cls(
            source=Path(data["source"]),
            inventory=Path(data["inventory"]),
            fleet=data["fleet"],
            underlay=Underlay.from_json(data["underlay"]),
            hosts=tuple(LabHost.from_json(name, host) for name, host in data["hosts"].items()),
        )


def _silent(_: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class _Disks:
    """What disks are to be made where one is missing: without packages, for a machine, or of another release."""

    bare: frozenset[str]
    machines: frozenset[str]
    releases: dict[str, str]

    @property
    def named(self) -> list[str]:
        return sorted({*self.bare, *self.machines, *self.releases})

    def kind(self, host: str) -> type[Host]:
        return Machine if host in self.machines else NspawnHost

    def source(self, host: str, say: Say) -> DiskSource:
        release = self.releases.get(host, DEFAULT_RELEASE)
        if host in self.machines:
            return DiskSource(image.ready(image.machine(release), say), release)
        chosen = image.bare(release) if host in self.bare else image.full(release)
        archive = image.package_archive(say, release) if host in self.bare else None
        return DiskSource(image.ready(chosen, say), release, archive)


class Lab:
    """The lab called `name` (else PRIVNET_LAB, else `lab`).

    `inventory` is needed to bring it up; a lab that is up knows its own. `say` gets a line for each step that
    takes a while. All methods raise LabError, with what to do, when the lab cannot do as asked.
    """

    def __init__(self, inventory: Path | None = None, *, name: str | None = None, say: Say = _silent) -> None:
        self.settings = Settings.chosen(name)
        self.say = say
        self._source = inventory.resolve() if inventory else None

    # what there is

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def exists(self) -> bool:
        return self.settings.description.is_file()

    @property
    def ssh_config(self) -> Path:
        """For `ssh -F` and pyinfra's `ssh_config_file`."""
        return self.settings.ssh_config

    @property
    def inventory(self) -> Path:
        """The inventory directory to deploy from: the one given, or the copy that a rehearsal runs on."""
        return self._described().inventory

    @property
    def source(self) -> Path:
        """The inventory directory that the lab was brought up with."""
        return self._described().source

    @property
    def rehearsal(self) -> bool:
        """Whether the lab plays a fleet that lives elsewhere."""
        return self._described().rehearsal

    @property
    def underlay(self) -> Underlay:
        return self._described().underlay

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names of the hosts that have a disk in this lab."""
        return tuple(host.name for host in self._described().hosts)

    @property
    def patience(self) -> float:
        """How many times longer something takes in the slowest of its hosts than in one without a kernel of its own."""
        return max((host_of(self.settings, host).patience for host in self._described().hosts), default=1.0)

    def machine(self, host: str) -> Host:
        """The host of that name."""
        for known in self._described().hosts:
            if known.name == host:
                return host_of(self.settings, known)
        raise LabError(
            f"lab {self.name!r} has no host {host!r}; it has {', '.join(self.hosts) or 'none'}",
            help="`privnet lab up` starts hosts that the inventory has gained",
        )

    def status(self) -> list[HostStatus]:
        """One entry per host, in the inventory's order."""
        return [self._status(host_of(self.settings, host)) for host in self._described().hosts]

    def _status(self, machine: Host) -> HostStatus:
        address = str(machine.host.addresses[0])
        init = machine.init
        if init is None:
            return HostStatus(machine.name, "off", machine.kind, machine.release, address, None, None)
        asked = machine.exec(["systemctl", "is-system-running"], check=False, timeout=10)
        state = asked.stdout.strip() or "starting"
        return HostStatus(machine.name, state, machine.kind, machine.release, address, init.pid, machine.age())

    # up and down

    def up(
        self,
        *hosts: str,
        bare: Sequence[str] = (),
        machines: Sequence[str] = (),
        releases: Mapping[str, str] | None = None,
    ) -> None:
        """Start the named hosts, or all that the inventory declares; what runs already is left alone.

        Hosts in `bare` get a disk with nothing but systemd, sshd and sudo, and a local apt archive that holds
        what the deploy installs. Those in `machines` run in QEMU, on a kernel of their own. `releases` says of which
        Debian release a host's disk is to be made.
        """
        requirements.check(machines=bool(machines))
        raised = requirements.make_room()
        if raised:
            self.say(raised)
        with self._changing():
            fleet = read_fleet(self._wanted_source())
            disks = _Disks(frozenset(bare), frozenset(machines), dict(releases or {}))
            wanted = self._selection(fleet, hosts, disks.named)
            self._check_disks(disks)
            self.settings.state.mkdir(parents=True, exist_ok=True)
            description = self._describe_with(fleet, wanted)
            self._prepare_inventory(fleet, description)
            started = self._start_missing(description, wanted, disks)
            self._wait(wanted, started)

    def _wanted_source(self) -> Path:
        if self.exists:
            self._check_source(f"give this one a lab of its own, with `--name` or {ENVIRONMENT}")
            return self._described().source
        if self._source is None:
            raise LabError(f"lab {self.name!r} is not up, and no inventory is named", help="name a directory")
        return self._source

    def _check_source(self, help: str) -> None:
        """Leave the lab of another fleet alone."""
        if self._source is None or not self.exists or self._source == (running := self._described().source):
            return
        removes = f"`privnet lab down --name {self.name}` removes the hosts of that fleet"
        raise LabError(f"lab {self.name!r} runs another fleet, {running}", help=f"{help}; {removes}")

    def _check_disks(self, disks: _Disks) -> None:
        """A disk keeps its release and its kind: refuse to have asked for another in vain."""
        for name in sorted(disks.bare & disks.machines):
            raise LabError(f"host {name} cannot be a machine and bare: a machine has what a deploy needs")
        for name in disks.named:
            machine = host_of(self.settings, _nameless(name))
            release = check_release(disks.releases.get(name, machine.release or DEFAULT_RELEASE))
            if machine.has_disk and machine.release != release:
                raise self._has_other_disk(name, f"a disk of Debian {machine.release}, not {release}")
            if machine.has_disk and name in disks.machines and machine.kind != Machine.kind:
                raise self._has_other_disk(name, "the disk of an nspawn host, not of a machine")

    def _has_other_disk(self, name: str, what: str) -> LabError:
        return LabError(f"host {name} has {what}", help=f"`privnet lab down --name {self.name}` throws it away")

    def _selection(self, fleet: LabFleet, names: Sequence[str], with_disk: Sequence[str]) -> list[LabHost]:
        by_name = {host.name: host for host in fleet.hosts}
        for name in [*names, *with_disk]:
            if name not in by_name:
                known = ", ".join(by_name)
                raise LabError(f"{fleet.directory}/fleet.yaml declares no host {name!r}; it has {known}")
        return [by_name[name] for name in dict.fromkeys([*names, *with_disk])] if names else list(fleet.hosts)

    def _describe_with(self, fleet: LabFleet, wanted: Sequence[LabHost]) -> _Description:
        """What the lab is to be: the hosts it has, as now declared, and the wanted ones."""
        before = self._described() if self.exists else None
        declared = {host.name: host for host in fleet.hosts}
        hosts = {host.name: declared.get(host.name, host) for host in before.hosts} if before else {}
        hosts |= {host.name: host for host in wanted}
        order = [*declared, *(name for name in hosts if name not in declared)]
        all_hosts = tuple(hosts[name] for name in order if name in hosts)
        inventory = fleet.directory if fleet.lab else self.settings.inventory / fleet.directory.name
        network = Underlay.around(all_hosts, before.underlay if before else None)
        return _Description(fleet.directory, inventory, fleet.name, network, all_hosts)

    def _prepare_inventory(self, fleet: LabFleet, description: _Description) -> None:
        fresh = not any(host_of(self.settings, host).has_disk for host in description.hosts)
        if description.rehearsal:
            rehearse(fleet, description.inventory)
        elif fresh and forget_lock(fleet.directory):
            self.say("all disks are new: forgot the lock file, which was about hosts that are gone")

    def _start_missing(self, description: _Description, wanted: Sequence[LabHost], disks: _Disks) -> list[str]:
        before = {host.name: host for host in self._described().hosts} if self.exists else {}
        missing = [host.name for host in wanted if not host_of(self.settings, host).has_disk]
        sources = {name: disks.source(name, self.say) for name in missing}
        public_key = access.make_key(self.settings)
        underlay.build(self.settings, description.underlay)
        # From here on `down` has something to remove, also if this process is killed.
        self._write(description)
        started = []
        for host in description.hosts:
            machine = host_of(self.settings, host)
            if machine.keeper is not None:
                machine.reconfigure(description.underlay, renumber=before.get(host.name) != host)
            elif host in wanted:
                if host.name in sources:
                    machine = disks.kind(host.name)(self.settings, host)
                    machine.make_disk(sources[host.name], public_key)
                machine.start(description.underlay, self.say)
                started.append(machine.name)
        access.write_configuration(self.settings, self._with_disk(description))
        return started

    def _with_disk(self, description: _Description) -> list[Host]:
        machines = [host_of(self.settings, host) for host in description.hosts]
        for machine in machines:
            if machine.has_disk:
                machine.mount()
        return [machine for machine in machines if machine.has_disk]

    def _wait(self, hosts: Sequence[LabHost], started: Sequence[str]) -> None:
        """Wait for all of them: one that was not started here may still be booting."""
        if started:
            self.say(f"booting {', '.join(started)}")
        with ThreadPoolExecutor(_PARALLEL_BOOTS) as pool:
            for machine in pool.map(self._wait_for, hosts):
                if machine.name in started:
                    self.say(f"{machine.name} is up at {machine.host.addresses[0]}")

    def _wait_for(self, host: LabHost) -> Host:
        machine = host_of(self.settings, host)
        machine.wait_booted()
        self._wait_for_ssh(machine)
        return machine

    def _wait_for_ssh(self, machine: Host) -> None:
        target = [str(machine.host.addresses[0]), str(machine.host.ssh_port)]
        probe = [*self._enter("operator"), "nc", "-z", "-w", "1", *target]
        if not process.wait_until(lambda: not process.run(probe, check=False).returncode, 15 * machine.patience):
            where = " port ".join(target)
            raise LabError(f"sshd of host {machine.name} does not answer the operator at {where}")

    def down(self) -> None:
        """Remove hosts, disks, namespaces, mounts and files of this lab; also what a crash of `up` left.

        When an inventory was named: unless the lab runs another one.
        """
        with self._changing():
            self._check_source("nothing was removed")
            directories = self.settings.state / "hosts"
            names = [entry.name for entry in directories.iterdir()] if directories.is_dir() else []
            if names:
                self.say(f"switching off {', '.join(sorted(names))}")
            with ThreadPoolExecutor(_PARALLEL_BOOTS) as pool:
                for _ in pool.map(lambda name: host_of(self.settings, _nameless(name)).discard(), names):
                    pass
            for namespace in underlay.namespaces(self.settings):
                underlay.remove_namespace(namespace)
            if self.exists and not self.rehearsal and forget_lock(self.inventory):
                self.say("forgot the lock file: the hosts that it was about are gone")
            if self.settings.state.is_dir():
                shutil.rmtree(self.settings.state)

    def add_host(self, host: str, *, bare: bool = False, machine: bool = False, release: str = DEFAULT_RELEASE) -> None:
        """Start a host that the inventory has gained."""
        self.up(host, bare=[host] if bare else [], machines=[host] if machine else [], releases={host: release})

    def remove_host(self, host: str) -> None:
        """Switch a host off and throw its disk away. The inventory is not touched."""
        with self._changing():
            machine = self.machine(host)
            machine.discard()
            old = self._described()
            left = tuple(known for known in old.hosts if known.name != host)
            new = _Description(old.source, old.inventory, old.fleet, old.underlay, left)
            self._write(new)
            access.write_configuration(self.settings, self._with_disk(new))

    # one host

    def reboot(self, host: str) -> None:
        """Reboot in order, into a new network namespace, and wait until the host is up again."""
        machine = self.machine(host)
        before = machine.reboot()
        machine.wait_booted(previous=before)
        self._wait_for_ssh(machine)

    def kill(self, host: str) -> None:
        """Cut the host's power: no process of it ends in order, its uplink goes dead; its disk stays."""
        self.machine(host).kill()

    def stop(self, host: str) -> None:
        """Shut the host down in order; its disk stays."""
        self.machine(host).power_off()

    def start(self, host: str) -> None:
        """Switch on a host that is off, and wait until it is up. One that runs is left alone."""
        with self._changing():
            machine = self.machine(host)
            if machine.keeper is None:
                machine.start(self.underlay, self.say)
                self._wait([machine.host], [host])

    def exec(
        self,
        host: str,
        command: Sequence[str] | str,
        *,
        check: bool = True,
        timeout: float | None = 60,
        input: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root in a host, or in the namespace of `operator`, `outsider` or `fabric`.

        :param command: words, or a string for `sh -c`
        :param check: raise subprocess.CalledProcessError, which shows the output, on any status but 0
        :param timeout: seconds, in a machine as many times as many as it is slower; then the command is ended and
            subprocess.TimeoutExpired raised
        :param input: text for its standard input
        """
        if host in RESERVED:
            return execute(self.argv(host, command), check=check, timeout=timeout, input=input)
        return self.machine(host).exec(_words(command), check=check, timeout=timeout, input=input)

    def argv(self, host: str, command: Sequence[str] | str) -> list[str]:
        """The program that `exec` runs: for a Popen of one's own, such as a ping in the background."""
        if host in RESERVED:
            self._described()
            return [*self._enter(host), *_words(command)]
        return self.machine(host).argv(_words(command))

    @contextmanager
    def capture(self, file: Path, expression: str = "") -> Iterator[Capture]:
        """Record what crosses the underlay, between any two places, into a pcap file while the block runs.

        :param expression: a tcpdump filter; nothing records all
        """
        with Capture.running(self._enter(FABRIC), file, expression) as capture:
            yield capture

    # for people

    def deploy_command(self) -> str:
        """What deploys to this lab."""
        command = shlex.join([_beside_python("privnet"), "deploy", f"{_relative(self.inventory)}"])
        return command if self.rehearsal or self.name == DEFAULT_NAME else f"PRIVNET_LAB={self.name} {command}"

    def report(self) -> str:
        """State, journal's end, mesh, links, tables and guard of each host: for a failed test."""
        return "\n".join(self._report(status) for status in self.status())

    def _report(self, status: HostStatus) -> str:
        title = f"==== {status.name}: {status.state}, {status.address}"
        if status.pid is None:
            return f"{title}\n{_tail(self.machine(status.name).console)}"
        parts = [title]
        for command in _REPORT:
            try:
                answer = self.exec(status.name, f"{command} 2>&1", check=False, timeout=REPORT_SECONDS).stdout.rstrip()
            except subprocess.TimeoutExpired:
                answer = f"no answer in {REPORT_SECONDS} s"
            if answer:
                parts.append(f"---- {command}\n{answer}")
        return "\n".join(parts)

    # inside

    def _enter(self, who: str) -> list[str]:
        return ["ip", "netns", "exec", self.settings.namespace(who)]

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One change of a lab at a time."""
        self.settings.lock.parent.mkdir(parents=True, exist_ok=True)
        with self.settings.lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.say(f"waiting for another command that changes lab {self.name!r}")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _described(self) -> _Description:
        try:
            text = self.settings.description.read_text()
        except FileNotFoundError:
            others = [name for name in running_labs() if name != self.name]
            help = f"up are: {', '.join(others)} (--name or {ENVIRONMENT} chooses)" if others else "privnet lab up"
            raise LabError(f"lab {self.name!r} is not up", help=help) from None
        return _Description.from_json(json.loads(text))

    def _write(self, description: _Description) -> None:
        new = self.settings.description.with_suffix(".new")
        new.write_text(json.dumps(description.to_json(), indent=2) + "\n")
        new.replace(self.settings.description)


# `ruleset` without the sets' elements would hide the guard's (peer, VNI, address) triples.
REPORT_SECONDS = 20
"""How long a report waits for each answer of a host."""
_REPORT: Final = (
    "systemctl --failed --no-legend --plain",
    "journalctl --no-pager --quiet --lines=40 --priority=info",
    "wg show all | sed 's/private key.*/private key: (hidden)/'",
    "ip -brief -details link",
    "ip -brief address",
    "ip route",
    "ip neighbour",
    "bridge fdb show",
    "ip netns list",
    "nft list ruleset",
)


def _words(command: Sequence[str] | str) -> list[str]:
    return ["sh", "-c", command] if isinstance(command, str) else list(command)


def _nameless(name: str) -> LabHost:
    """A host of which only the directory is left: enough to remove it."""
    return LabHost(name, ())


def _tail(file: Path, lines: int = 20) -> str:
    return "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) if file.is_file() else ""


def _beside_python(program: str) -> str:
    beside = Path(sys.executable).with_name(program)
    return str(_relative(beside)) if beside.exists() else program


def _relative(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
