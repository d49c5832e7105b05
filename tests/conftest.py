"""Booted fleets for tests, a watch over their underlay, and what is to be seen of them when a test fails.

    def test_something(fleet, inventory_copy):
        lab = fleet(inventory_copy("lab"))
        lab.exec("lab-1", "ip link")

A module's lab is booted once, by the first test that asks for it, and removed after the last. A module that asks for
`shared_fleet` borrows a fleet that is deployed to already (`shared.py`). As long as a module has a lab a watch looks at
every frame on its underlay: a test during which a canary, a private name or anything but WireGuard, SSH and neighbour
discovery was seen there fails. What a module's tests themselves send over the underlay they name in
`UNDERLAY`, a tcpdump filter. Where they send so much that frames may escape the watch, `FLOODS` says what.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import re
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from privnet.lab import Lab, LabError
from security.watch import Watch
from shared import SharedFleet
from tiers import remember, sort_into_tiers

HERE = Path(__file__).parent
REPOSITORY = HERE.parent
LONGEST = ("private_network", "kill_anywhere", "rollback", "attacks", "drift", "changes", "audit", "barriers")
"""Modules that begin first, so that two processes end at about the same time."""
SEED = "PRIVNET_FAULT_SEED"
SECURITY_SECONDS = "PRIVNET_SECURITY_SECONDS"
"""How long tests/security may take. No test can tell whether the machine does anything else: who sets this says that it
does not."""
LABS: pytest.StashKey[dict[str, Lab]] = pytest.StashKey()
WATCHES: pytest.StashKey[dict[str, Watch]] = pytest.StashKey()

Fleet = Callable[..., Lab]


def pytest_configure() -> None:
    """All faults of a run of the tests are drawn by one seed; processes that run some of them have it from here."""
    os.environ.setdefault(SEED, str(random.SystemRandom().randrange(10**6)))


def pytest_report_header() -> str:
    return f"{SEED}={os.environ[SEED]}"


def _security_seconds(config: pytest.Config) -> float:
    """From the first test on hosts of tests/security to the end of the last, with their labs' boot and end."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    reports = [report for reports in terminal.stats.values() for report in reports] if terminal else []
    run = [report for report in reports if isinstance(report, pytest.TestReport)]
    run = [report for report in run if report.nodeid.startswith("tests/security/") and "lab" in report.keywords]
    return max(report.stop for report in run) - min(report.start for report in run) if run else 0.0


def _took_too_long(config: pytest.Config) -> bool:
    return _security_seconds(config) > float(os.environ.get(SECURITY_SECONDS, "inf"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.exitstatus == pytest.ExitCode.OK and _took_too_long(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if seconds := _security_seconds(config):
        allowed = os.environ.get(SECURITY_SECONDS)
        aim = f"{allowed} s are allowed" if allowed else f"with {SECURITY_SECONDS}=600 longer would fail"
        terminalreporter.write_line(f"tests/security took {seconds:.0f} s; {aim}", red=_took_too_long(config))


def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Tests on hosts come first, of them those that run alone last."""
    sort_into_tiers(items)
    remember(session, items)
    items.sort(key=_turn_of)


def _turn_of(item: pytest.Item) -> tuple[bool, bool, int]:
    module = item.path.stem.removeprefix("test_")
    place = LONGEST.index(module) if module in LONGEST else len(LONGEST)
    return item.get_closest_marker("lab") is None, item.get_closest_marker("alone") is not None, place


ALONE: pytest.StashKey[list[int]] = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """While the tests of a module marked `alone` run, no other process runs tests on hosts; it waits for whole modules.

    What they measure, as a packet that comes too late, is also what a machine does that has too much to do.
    """
    if not (item.get_closest_marker("lab") and "PYTEST_XDIST_WORKER" in os.environ):
        return (yield)
    held = item.session.stash.setdefault(ALONE, [])
    if not held:
        held += _turn(exclusive=item.get_closest_marker("alone") is not None)
    try:
        return (yield)
    finally:
        if nextitem is None or nextitem.path != item.path:
            while held:
                os.close(held.pop())


def _turn(exclusive: bool) -> list[int]:
    """Wait for it; its lock, held until it is closed. Who waits for all others keeps the door shut meanwhile."""
    door, turn = (os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for path in (REPOSITORY, HERE))
    fcntl.flock(door, fcntl.LOCK_EX)
    fcntl.flock(turn, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
    os.close(door)
    return [turn]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and item.get_closest_marker("lab"):
        for name, lab in item.session.stash.get(LABS, {}).items():
            report.sections.append((f"lab {name}", _state_of(lab)))
    return report


def _state_of(lab: Lab) -> str:
    try:
        return lab.report()
    except LabError as error:  # the test may be about a lab that is gone
        return str(error)


def lab_name(module: str, suffix: str = "") -> str:
    """`test-<checkout>-<module>`, short enough to be the name of a lab. Tests of two checkouts share no lab."""
    checkout = hashlib.sha256(bytes(REPOSITORY)).hexdigest()[:4]
    name = re.sub("[^a-z0-9]+", "-", f"{module.removeprefix('test_')} {suffix}".lower()).strip("-")
    if len(name) > 22:
        name = f"{name[:15]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    return f"test-{checkout}-{name}"


@contextmanager
def _watched(request: pytest.FixtureRequest) -> Iterator[Callable[[Lab], None]]:
    """Let a watch look at each lab that is given to it, until the end of the block."""
    watches = request.session.stash.setdefault(WATCHES, {})
    planted, floods = (getattr(request.module, name, "") for name in ("UNDERLAY", "FLOODS"))
    own: list[str] = []

    def watch(lab: Lab) -> None:
        if lab.name not in own:
            watches[lab.name] = Watch(lab, planted, floods)
            own.append(lab.name)

    yield watch
    seen = [line for name in own for line in watches.pop(name).end()]
    assert not seen, "\n".join(seen)


@pytest.fixture(scope="module")
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """`fleet(inventory_dir, *hosts, bare=[…], machines=[…], releases={…}, name="…")` boots this module's lab.

    Asked again, it starts what the inventory has gained. Another `name` is another lab beside it.
    """
    labs = request.session.stash.setdefault(LABS, {})
    own: list[str] = []

    def boot(
        inventory: Path,
        *hosts: str,
        bare: tuple[str, ...] = (),
        machines: tuple[str, ...] = (),
        releases: Mapping[str, str] | None = None,
        name: str = "",
    ) -> Lab:
        full_name = lab_name(request.module.__name__.rpartition(".")[2], name)
        if full_name not in own:
            Lab(name=full_name).down()  # what an interrupted run has left
            own.append(full_name)
        lab = labs[full_name] = Lab(inventory, name=full_name)
        lab.up(*hosts, bare=bare, machines=machines, releases=releases)
        watch(lab)
        return lab

    try:
        with _watched(request) as watch:
            yield boot
    finally:
        for name in own:
            Lab(name=name).down()
            labs.pop(name, None)


@pytest.fixture(scope="session")
def shared_fleets() -> Iterator[dict[str, SharedFleet]]:
    """The shared fleets of this process, by their inventory."""
    fleets: dict[str, SharedFleet] = {}
    yield fleets
    for fleet in fleets.values():
        fleet.end()


@pytest.fixture(scope="module")
def shared_fleet(
    request: pytest.FixtureRequest, shared_fleets: dict[str, SharedFleet], inventory_copy: Callable[[str | Path], Path]
) -> Iterator[Callable[..., Lab]]:
    """`shared_fleet("lab")` lends the hosts of inventory/lab, deployed to, to this module, which may change them.

    `shared_fleet(inventory, prepare)` prepares them after the deploy. An inventory is always prepared in the same way.
    """
    labs = request.session.stash.setdefault(LABS, {})
    lent: dict[str, SharedFleet] = {}

    def lend(original: str | Path, prepare: Callable[[Lab], object] = lambda _: None) -> Lab:
        name = lab_name("shared", f"{Path(original).name} {os.environ.get('PYTEST_XDIST_WORKER', '')}")

        def boot() -> Lab:
            Lab(name=name).down()  # what an interrupted run has left
            lab = labs[name] = Lab(inventory_copy(original), name=name)
            lab.up()
            return lab

        lent[name] = shared_fleets.setdefault(name, SharedFleet(boot, prepare))
        labs[name] = lab = lent[name].lend()
        watch(lab)
        return lab

    with _watched(request) as watch:
        yield lend
    for name, fleet in lent.items():
        labs.pop(name)
        if why := fleet.take_back():
            print(f"the shared fleet is not as it was, so the next module gets a new one:\n{why}")


@pytest.fixture(autouse=True)
def underlay_watched(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test during which something was seen on the underlay that must not be there."""
    yield
    if request.node.get_closest_marker("lab"):
        seen = [line for watch in request.session.stash.get(WATCHES, {}).values() for line in watch.seen()]
        assert not seen, "\n".join(seen)


@pytest.fixture(scope="module")
def watch(request: pytest.FixtureRequest) -> Callable[[Lab], Watch]:
    """`watch(lab)`: the watch over a lab's underlay, for a test that plants something there."""
    return lambda lab: request.session.stash[WATCHES][lab.name]


@pytest.fixture(scope="module")
def inventory_copy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str | Path], Path]:
    """`inventory_copy("lab")`: a copy of the repository's inventory/lab and its shim, to change at will."""

    def copy(name: str | Path) -> Path:
        directory = tmp_path_factory.mktemp("inventory")
        original = REPOSITORY / "inventory" / name
        shutil.copytree(original, directory / original.name, ignore=shutil.ignore_patterns("privnet.lock.yaml"))
        shutil.copy(original.with_suffix(".py"), directory)
        return directory / original.name

    return copy
