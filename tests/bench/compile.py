"""Time and peak memory of each phase of a compile, in a fresh process.

    python -m tests.bench.compile --hosts 1000 --networks 1000 --containers 10000 [--spread] [--lock]
    python -m tests.bench.compile --hosts 100 --networks 100 --containers 1000 --output DIR     # writes the YAML only

Seconds are those of this machine at this moment; compare with the line `json.loads`, which is measured in the same run.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .fleets import write_fleet

NOW = 1_790_000_000
COMMANDS = (("check",), ("plan", "--format", "json"), ("render", "--output"))


def main() -> None:
    arguments = _arguments()
    if arguments.measure:
        measure(arguments.measure)
    elif arguments.output:
        write_fleet(arguments.output, *_size(arguments), spread=arguments.spread)
    else:
        _run(arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--networks", type=int, default=1000)
    parser.add_argument("--containers", type=int, default=10000)
    parser.add_argument("--spread", action="store_true", help="containers are placed by privnet")
    parser.add_argument("--lock", action="store_true", help="every number was given before, every host has a key")
    parser.add_argument("--commands", action="store_true", help="also whole commands, interpreter included")
    parser.add_argument("--output", type=Path, help="write the fleet there and measure nothing")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _size(arguments: argparse.Namespace) -> tuple[int, int, int]:
    return arguments.hosts, arguments.networks, arguments.containers


def _run(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fleet = Path(folder) / "fleet"
        write_fleet(fleet, *_size(arguments), spread=arguments.spread)
        if arguments.lock:
            # In a process of its own: a child inherits the peak of memory.
            program = "import sys; from pathlib import Path; from tests.bench.compile import lock_fleet; "
            subprocess.run([sys.executable, "-c", f"{program}lock_fleet(Path(sys.argv[1]))", fleet], check=True)
        subprocess.run([sys.executable, "-m", "tests.bench.compile", "--measure", fleet], check=True)
        if arguments.commands:
            for command in COMMANDS:
                last = [str(Path(folder) / "out")] if command[-1] == "--output" else []
                _time_command([*command, *last], fleet)


def _time_command(command: list[str], fleet: Path) -> None:
    began = time.perf_counter()
    program = "from privnet.cli import main; main()"
    subprocess.run([sys.executable, "-c", program, *command, fleet], check=True, stdout=subprocess.DEVNULL)
    print(f"privnet {command[0]:8} {time.perf_counter() - began:8.3f} s   interpreter's start included")


def lock_fleet(directory: Path) -> None:
    """Write the lock file that a deploy would leave: every number, and a key for every host."""
    from dataclasses import replace

    from privnet.compiler import compile_fleet
    from privnet.model.lock import HostLock
    from privnet.store import save_lock

    lock = compile_fleet(directory, NOW).lock
    hosts = {
        name: HostLock(host.mesh, f"{number:042d}A=", f"ssh-ed25519 {'A' * 60}{number:08d}")
        for number, (name, host) in enumerate(lock.hosts.items())
    }
    save_lock(directory, replace(lock, hosts=hosts))


def measure(directory: Path) -> None:
    """Print a line for each phase. Memory is the process's peak so far."""
    clock = _Clock()
    from privnet.compiler import check, read_declaration, refuse, render_fleet
    from privnet.load import collector_off
    from privnet.plan.allocate import allocate
    from privnet.plan.host import plan_fleet
    from privnet.store import load_lock

    clock.lap("import")
    gc.freeze()
    with collector_off():
        declaration = read_declaration(directory)
        clock.lap("read")
        known = load_lock(directory, declaration.fleet.fleet)
        clock.lap("lock file")
        refuse(check(declaration, known), declaration)
        clock.lap("check")
        allocation = allocate(declaration, known, NOW)
        clock.lap("allocate")
        plan = plan_fleet(declaration, allocation.lock)
        clock.lap("plan")
        files = render_fleet(plan)
        clock.lap("render")
    clock.total()
    print(f"{sum(map(len, files.values())):,} files, {sum(len(f.text) for own in files.values() for f in own):,} bytes")
    _machine(declaration.sources)


def _machine(sources: dict[str, str]) -> None:
    text = json.dumps(dict(sources))
    began = time.perf_counter()
    json.loads(text)
    spent = time.perf_counter() - began
    print(f"json.loads of the declaration ({len(text):,} bytes) {spent * 1000:.2f} ms")


class _Clock:
    def __init__(self) -> None:
        self.began = self.last = self._now()

    def lap(self, phase: str) -> None:
        self._print(phase, self.last)
        self.last = self._now()

    def total(self) -> None:
        self._print("all", self.began)

    def _now(self) -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def _print(self, phase: str, since: tuple[float, float]) -> None:
        wall, cpu = (now - then for now, then in zip(self._now(), since, strict=True))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{phase:10} {wall:8.3f} s  cpu {cpu:8.3f} s  peak {peak:7.1f} MB")


if __name__ == "__main__":
    main()
