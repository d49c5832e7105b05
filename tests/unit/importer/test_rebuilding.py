"""A declaration and a lock file, lost and rebuilt from the files that a deploy would have put on the hosts.

No SSH here: what ``answer.sh`` would print is put together from the managed files. ``tests/lab/test_import.py`` asks
real hosts.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bench.fleets import write_fleet as write_bench_fleet
from privnet.compiler import Compiled, compile_fleet, render_fleet
from privnet.diagnostics import DeclarationError
from privnet.importer.answer import SECTIONS, Answer, Unusable, parse_answer
from privnet.importer.ask import Target, program
from privnet.importer.merge import Rebuilt, merge
from privnet.importer.write import write_fleet
from privnet.load import read_declaration
from privnet.model.lock import HostLock, Version
from privnet.plan.record import duration
from privnet.render import ManagedFile
from privnet.store import load_lock, lock_path, lock_text, save_lock

ROOT = Path(__file__).parents[3]
NOW = 1_790_000_000
KEY = "{:042d}A="
SEED = random.SystemRandom().randrange(2**32)


# --- what hosts would answer ----------------------------------------------------------------------


def said(compiled: Compiled, files: Mapping[str, ManagedFile], name: str, serial: int) -> dict[str, list[str]]:
    """The parts of a host's answer, after a deploy of ``compiled`` with these files."""
    lock = compiled.lock.hosts[name]
    text = {path.removeprefix("/etc/privnet/"): file.text for path, file in files.items()}
    ports = [dict(line.split("=") for line in t.splitlines()) for p, t in text.items() if p.startswith("containers/")]
    fdb = "".join(t for path, t in text.items() if path.endswith(".fdb"))
    mesh = re.findall(r"^PublicKey = (.*)$|^AllowedIPs = (.*)$", text["mesh.conf"], re.MULTILINE)
    words = [key or address for key, address in mesh]
    return {
        "user": ["0"],
        "record": text["record.json"].splitlines(),
        "applied": [f"{serial} {'0' * 64} run-1"],
        "key": [lock.wireguard or ""],
        "peers": [f"{key} {address}" for key, address in zip(words[::2], words[1::2], strict=True)],
        "forwarding": [f"{w[2]} {w[4]} {w[6]}" for w in map(str.split, fdb.splitlines())],
        "containers": [f"{port['NETNS']} {port['ADDRESS']}" for port in ports if ".ap-" in port["NETNS"]],
        "end": [],
    }


def answer(parts: Mapping[str, list[str]]) -> Answer:
    lines = (line for name in SECTIONS for line in ("", f"##privnet {name}", *parts[name]))
    return parse_answer("\n".join([*lines, ""]).encode())


@dataclass
class Lost:
    """A deployed fleet, and what its hosts remember."""

    directory: Path
    compiled: Compiled
    parts: dict[str, dict[str, list[str]]]

    def target(self, name: str) -> Target:
        return Target(self.compiled.declaration.fleet.hosts[name].address)

    def asked(self, *silent: str) -> dict[Target, Answer | Unusable]:
        why = Unusable("did not answer (Connection timed out)")
        return {self.target(n): why if n in silent else answer(parts) for n, parts in self.parts.items()}

    def rebuilt(self, output: Path, *silent: str) -> tuple[Rebuilt, Compiled]:
        rebuilt = merge(self.asked(*silent))
        return rebuilt, write_fleet(output, rebuilt)

    def record(self, name: str, change: Callable[[dict[str, object]], object]) -> None:
        """Let a host remember something else."""
        data = json.loads("\n".join(self.parts[name]["record"]))
        change(data)
        self.parts[name]["record"] = [json.dumps(data)]


def deploy(directory: Path, serial: int = 12) -> Lost:
    """A fleet as a deploy leaves it: every host has its keys, its files and its containers."""
    lock = compile_fleet(directory, NOW).lock
    hosts = {name: HostLock(host.mesh, KEY.format(number)) for number, (name, host) in enumerate(lock.hosts.items(), 1)}
    lock_path(directory).write_text(lock_text(replace(lock, hosts=hosts, serial=serial)))
    compiled = compile_fleet(directory, NOW)
    files = {name: {file.path: file for file in own} for name, own in render_fleet(compiled.plan).items()}
    return Lost(directory, compiled, {n: said(compiled, own, n, serial) for n, own in files.items()})


@pytest.fixture
def lost(tmp_path: Path) -> Callable[[str], Lost]:
    def make(name: str) -> Lost:
        directory = tmp_path / "before" / name
        if name == "generated":
            write_bench_fleet(directory, 24, 8, 90, spread=True)
        else:
            source = ROOT / "tests" / "golden" / "wide" / "in" if name == "wide" else ROOT / "inventory" / name
            shutil.copytree(source, directory, ignore=shutil.ignore_patterns("privnet.lock.yaml"))
        return deploy(directory)

    return make


def files_of(compiled: Compiled) -> dict[str, tuple[ManagedFile, ...]]:
    return render_fleet(compiled.plan)


# --- nothing lost ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lab", "prod", "wide", "generated"])
def test_what_is_rebuilt_is_what_was_lost(lost: Callable[[str], Lost], tmp_path: Path, name: str) -> None:
    before = lost(name)
    output = tmp_path / "after" / name
    rebuilt, compiled = before.rebuilt(output)
    assert rebuilt.remarks == []
    assert not compiled.lock_changed, "a plan right after shows a change"
    assert files_of(compile_fleet(output, NOW)) == files_of(before.compiled), "a run right after changes a host"
    old, new = before.compiled.declaration, read_declaration(output)
    assert new.fleet == old.fleet
    remembered = [p for p in old.projects if p.private_network and any(a.formation for a in p.applications.values())]
    assert list(new.projects) == remembered
    assert lock_path(output).read_text() == without_the_unremembered(before)
    assert (output.with_name(f"{name}.py")).read_text() == (ROOT / "inventory" / "lab.py").read_text()


def without_the_unremembered(before: Lost) -> str:
    lock = before.compiled.lock
    kept = {network.project for network in lock.networks.values() if network.slots}
    return lock_text(
        replace(
            lock,
            serial=13,
            networks={name: network for name, network in lock.networks.items() if network.slots},
            applications={name: project for name, project in lock.applications.items() if project in kept},
            quarantine=(),
            history=(Version(12, "0" * 64),),
        )
    )


def test_what_is_rebuilt_can_be_lost_and_rebuilt_again(lost: Callable[[str], Lost], tmp_path: Path) -> None:
    lost("wide").rebuilt(tmp_path / "one" / "wide")
    deploy(tmp_path / "one" / "wide").rebuilt(tmp_path / "two" / "wide")
    declared = [path for path in (tmp_path / "one").rglob("*.yaml") if path != lock_path(path.parent)]
    assert len(declared) > 2
    for path in declared:
        assert path.read_text() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_text(), path


def test_texts_for_people_come_back(written: Callable[..., Path], fleets, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Names that would be something else in YAML without quotes."""
    names = ['say "hi"', "a: b", "# no comment", "null", "Ünïcode ✓", "back\\slash", "1e3", "yes", "- item", "&a"]
    project = fleets.project("shop", {f"app{number}": {"web": ["a1"]} for number in range(len(names))})
    for application, name in zip(project["applications"].values(), names, strict=True):
        application["name"] = name
    project["private_network"]["terms"] = {"accepted_by": "Ö: #1", "accepted_on": "2025-01-01", "version": "1.0"}
    policy = {"address_quarantine": "5400s", "removal_guard": "25%"}
    before = deploy(written({"hosts": fleets.hosts("a1"), "policy": policy}, {"shop": project}))
    _, compiled = before.rebuilt(tmp_path / "after")
    assert compiled.declaration.projects == before.compiled.declaration.projects
    assert compiled.declaration.fleet == before.compiled.declaration.fleet


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (90, "90s"), (5400, "90m"), (7200, "2h"), (172800, "2d")])
def test_durations_in_their_largest_unit(seconds: int, text: str) -> None:
    assert duration(seconds) == text


# --- hosts out of service -------------------------------------------------------------------------


def out_of_service(directory: Path) -> Lost:
    """The golden fleet: `lab-3` is out, and has a container in each network."""
    source = ROOT / "tests" / "golden" / "out-of-service" / "in"
    shutil.copytree(source, directory, ignore=shutil.ignore_patterns("privnet.lock.yaml"))
    return deploy(directory)


def test_a_host_that_is_out_stays_out_with_its_numbers(tmp_path: Path) -> None:
    before = out_of_service(tmp_path / "before")
    rebuilt, compiled = before.rebuilt(tmp_path / "after")
    assert compiled.declaration.fleet.out == ("lab-3",)
    assert rebuilt.fleet.hosts["lab-3"].address == "192.0.2.13"
    assert compiled.lock.hosts["lab-3"].mesh == before.compiled.lock.hosts["lab-3"].mesh
    assert compiled.lock.networks == before.compiled.lock.networks
    after, files = files_of(compiled), files_of(before.compiled)
    assert {host: without_record(own) for host, own in after.items()} == {
        host: without_record(own) for host, own in files.items()
    }
    assert all("would change" not in remark and "sends its frames" not in remark for remark in rebuilt.remarks)


def test_a_host_that_answers_and_was_taken_out_meanwhile_stays_out(tmp_path: Path) -> None:
    """It remembers that it was in service: nobody has told it."""
    before = out_of_service(tmp_path / "before")
    fleet = tmp_path / "before" / "fleet.yaml"
    out = fleet.read_text()
    fleet.write_text(out.replace("state: out, ", ""))
    in_service = deploy(tmp_path / "before", serial=11)
    before.parts["lab-3"] = in_service.parts["lab-3"]
    _, compiled = before.rebuilt(tmp_path / "after")
    assert compiled.declaration.fleet.out == ("lab-3",)
    assert compiled.declaration.fleet.hosts["lab-3"].ssh.user == "deploy"


def test_a_canary_that_nobody_knows_is_left_out(tmp_path: Path) -> None:
    before = out_of_service(tmp_path / "before")
    for name in before.parts:
        before.record(name, lambda data: data["fleet"]["policy"].update(canary="lab-9"))  # type: ignore[index]
    rebuilt, compiled = before.rebuilt(tmp_path / "after")
    assert compiled.declaration.fleet.policy.canary is None
    assert "`policy.canary: lab-9` is left out: no host that answered knows this host" in rebuilt.remarks


# --- some hosts are silent ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lab", "prod", "wide"])
def test_any_one_host_may_be_silent(lost: Callable[[str], Lost], tmp_path: Path, name: str) -> None:
    """What the others know of it is enough for a run that changes nothing on them."""
    before = lost(name)
    for silent in before.parts:
        rebuilt, compiled = before.rebuilt(tmp_path / "after" / silent, silent)
        told = "\n".join(rebuilt.remarks)
        assert silent in told or str(before.target(silent)) in told
        assert "did not answer (Connection timed out)" in told
        assert not compiled.lock_changed
        after, files = files_of(compiled), files_of(before.compiled)
        settled = {host for host in files if host != silent}
        assert {host: without_record(after[host]) for host in settled} == {
            host: without_record(files[host]) for host in settled
        }
        known = compiled.lock.hosts.get(silent)
        if known is not None:
            assert known == before.compiled.lock.hosts[silent]
            fleet = (tmp_path / "after" / silent / "fleet.yaml").read_text()
            assert f"# {silent} did not say what it is. Not known:" in fleet
        else:
            assert "no host that answered knows it: it is not in the declaration" in told


def without_record(files: tuple[ManagedFile, ...]) -> dict[str, str]:
    return {file.path: file.text for file in files}


def test_a_host_that_was_not_asked_is_named(lost: Callable[[str], Lost], tmp_path: Path) -> None:
    before = lost("lab")
    asked = before.asked()
    del asked[before.target("lab-2")]
    rebuilt = merge(asked)
    assert any(remark.startswith("lab-2 was not asked: what others know") for remark in rebuilt.remarks)
    assert rebuilt.fleet.hosts["lab-2"].address == "192.0.2.12"


def test_a_silent_host_keeps_the_login_by_which_it_was_asked(lost: Callable[[str], Lost]) -> None:
    before = lost("prod")
    asked = before.asked()
    del asked[before.target("par-a-3")]
    asked[Target.parse("deploy@192.0.2.13:2222")] = Unusable("did not answer")
    host = merge(asked).fleet.hosts["par-a-3"]
    assert (host.ssh.user, host.ssh.port) == ("deploy", 2222)


def test_when_nobody_remembers_anything_nothing_is_written(lost: Callable[[str], Lost], tmp_path: Path) -> None:
    before = lost("lab")
    with pytest.raises(Unusable, match=r"no host remembers anything: 192\.0\.2\.11 did not answer"):
        before.rebuilt(tmp_path / "after", *before.parts)
    assert not (tmp_path / "after").exists()


# --- hosts disagree -------------------------------------------------------------------------------


def moved(before: Lost, serial: int) -> Lost:
    """The same fleet after 2.web of storefront moved from lab-2 to lab-3."""
    path = before.directory / "projects" / "shop.yaml"
    path.write_text(path.read_text().replace("web: [lab-1, lab-2]", "web: [lab-1, lab-3]"))
    return deploy(before.directory, serial)


def test_of_two_that_contradict_each_other_the_newer_is_right(lost: Callable[[str], Lost], tmp_path: Path) -> None:
    before = lost("lab")
    after = moved(before, 13)
    after.parts["lab-1"] = before.parts["lab-1"]  # it was away during the second run
    rebuilt, compiled = after.rebuilt(tmp_path / "after")
    assert not compiled.lock_changed
    assert files_of(compiled) == files_of(after.compiled)
    assert rebuilt.lock.serial == 14
    told = "\n".join(rebuilt.remarks)
    assert "lab-1 (serial 12) remembers private network pn-ad0fd6a1" in told
    assert "is recorded on lab-3, and lab-1 sends its frames to 100.64.0.2" in told


def test_a_network_that_only_one_host_still_remembers_is_kept_and_said(
    lost: Callable[[str], Lost], tmp_path: Path
) -> None:
    before = lost("lab")
    (before.directory / "projects" / "blog.yaml").unlink()
    after = deploy(before.directory, 13)
    after.parts["lab-1"] = before.parts["lab-1"]
    rebuilt, _ = after.rebuilt(tmp_path / "after")
    told = "\n".join(rebuilt.remarks)
    assert "of project blog is remembered by lab-1 (serial 12), and no longer by lab-2, lab-3: it is kept" in told
    assert (tmp_path / "after" / "projects" / "blog.yaml").exists()


def test_of_two_networks_with_one_application_the_newer_is_right(lost: Callable[[str], Lost], tmp_path: Path) -> None:
    """A migration that one host has not seen, on which nothing but the old network was."""
    before = lost("lab")
    shop, blog = (before.directory / "projects" / f"{name}.yaml" for name in ("shop", "blog"))
    block = re.search(r"^  ap-5d2e9c14-.*", blog.read_text(), re.MULTILINE | re.DOTALL)
    assert block
    shop.write_text(shop.read_text() + block[0])
    blog.unlink()
    after = deploy(before.directory, 13)
    after.parts["lab-1"] = before.parts["lab-1"]
    rebuilt, compiled = after.rebuilt(tmp_path / "after")
    assert files_of(compiled) == files_of(after.compiled)
    assert any("of project blog, which lab-1 (serial 12) remembers, is left out" in said for said in rebuilt.remarks)


def test_other_settings_of_an_older_host_are_said(lost: Callable[[str], Lost]) -> None:
    before = lost("lab")
    before.record("lab-2", lambda data: data["fleet"].update(dns={"ttl": 60}))  # type: ignore[attr-defined]
    before.parts["lab-2"]["applied"] = ["11 x"]
    rebuilt = merge(before.asked())
    assert rebuilt.fleet.dns.ttl == 5
    assert rebuilt.remarks == ["lab-2 remember other settings of the fleet than lab-1 (serial 12), whose are taken"]


def test_hosts_of_two_fleets_are_refused(lost: Callable[[str], Lost]) -> None:
    lab, prod = lost("lab"), lost("prod")
    with pytest.raises(Unusable, match=r"several fleets: lab \(lab-1, .*\), prod \(par-b-1\); give those of one"):
        merge({**lab.asked(), prod.target("par-b-1"): answer(prod.parts["par-b-1"])})


def test_a_copy_of_a_host_is_said(lost: Callable[[str], Lost]) -> None:
    before = lost("lab")
    copy = {**before.parts["lab-1"], "key": [KEY.format(99)], "applied": ["11 x"]}
    rebuilt = merge({**before.asked(), Target("192.0.2.99"): answer(copy)})
    assert "192.0.2.99 says that it is lab-1 (serial 11), and so does another machine" in rebuilt.remarks[0]
    assert rebuilt.lock.hosts["lab-1"].wireguard == KEY.format(1)


def test_a_host_asked_twice_is_one_host(lost: Callable[[str], Lost]) -> None:
    before = lost("lab")
    assert merge({**before.asked(), Target("lab-1.example"): answer(before.parts["lab-1"])}).remarks == []


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("containers", lambda lines: lines[1:], "is recorded on lab-1, and does not run there"),
        ("containers", lambda lines: [*lines, lines[0].replace("1.", "9.", 1)], "runs on lab-1, and is not recorded"),
        ("containers", lambda lines: [lines[0].replace("10.240", "10.241"), *lines[1:]], "has 10.241."),
        ("containers", lambda lines: [lines[0].split(" ")[0] + " ", *lines[1:]], "has no address there"),
        ("forwarding", lambda lines: lines[1:], "and lab-1 sends its frames nowhere"),
        ("forwarding", lambda lines: [lines[0].rsplit(" ", 1)[0] + " 100.64.9.9", *lines[1:]], "to 100.64.9.9"),
    ],
    ids=["gone", "stray", "renumbered", "bare", "not forwarded", "misdirected"],
)
def test_a_kernel_that_is_not_as_recorded_is_said(
    lost: Callable[[str], Lost], part: str, change: Callable[[list[str]], list[str]], told: str
) -> None:
    before = lost("lab")
    before.parts["lab-1"][part] = change(before.parts["lab-1"][part])
    remarks = merge(before.asked()).remarks
    assert len(remarks) == 1
    assert told in remarks[0]


# --- hosts are not trusted ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(version=2),
        lambda data: data.update(more=1),
        lambda data: data.pop("host"),
        lambda data: data["host"].update(name="../../etc"),
        lambda data: data["host"].update(mesh="100.64.0.1\n"),
        lambda data: data["host"]["declared"].update(address="127.0.0.1"),
        lambda data: data["host"]["declared"].update(ssh={"user": "root; reboot"}),
        lambda data: data["fleet"].update(fleet="a\nb"),
        lambda data: data["fleet"].update(dns={"ttl": "5"}, domain=["x"]),
        lambda data: data.update(networks={"pn-1": {}}),
        lambda data: next(iter(data["networks"].values())).update(vni=2**24),
        lambda data: next(iter(data["networks"].values()))["project"].update(project="../shop"),
        lambda data: next(iter(data["networks"].values())).update(hosts={"lab-1": "100.64.0.1 evil"}),
        lambda data: next(iter(data["networks"].values())).update(containers={"ap-1": {"web": []}}),
    ],
)
def test_a_record_that_no_privnet_wrote_is_refused(lost: Callable[[str], Lost], change: Callable[..., object]) -> None:
    before = lost("lab")
    before.record("lab-1", change)
    with pytest.raises(Unusable, match=r"^its record "):
        answer(before.parts["lab-1"])


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 1, "version": 1}', "[" * 100_000, "1" * 5000])
def test_what_is_no_record_is_refused(lost: Callable[[str], Lost], text: str) -> None:
    parts = lost("lab").parts["lab-1"]
    with pytest.raises(Unusable):
        answer({**parts, "record": [text] if text else []})


def test_a_damaged_answer_is_unusable_or_says_the_same(lost: Callable[[str], Lost]) -> None:
    """Bytes of a whole answer changed at random: refused with a sentence, or what is read has the shapes of a fleet."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    parts = lost("lab").parts["lab-1"]
    lines = (line for name in SECTIONS for line in (f"##privnet {name}", *parts[name]))
    whole = "\n".join(lines).encode()
    refused = 0
    for _ in range(400):
        at = rng.randrange(len(whole))
        damaged = whole[:at] + bytes([rng.randrange(256)]) + whole[at + rng.choice((0, 1, 40)) :]
        try:
            found = parse_answer(damaged)
        except Unusable as error:
            refused += 1
            assert str(error).isprintable()
            continue
        assert re.fullmatch("[a-z][a-z0-9-]*", found.name)
    assert refused > 100


def test_what_does_not_hold_is_not_written(lost: Callable[[str], Lost], tmp_path: Path) -> None:
    """Each host by itself is plausible; together they give one address to two hosts."""
    before = lost("lab")
    before.record("lab-2", lambda data: data["host"]["declared"].update(address="192.0.2.11"))  # type: ignore[index]
    with pytest.raises(Unusable, match=r"no declaration that holds: PN308: "):
        before.rebuilt(tmp_path / "after")
    assert not (tmp_path / "after").exists()
    assert list(tmp_path.glob("**/.after*")) == []


def test_two_hosts_with_one_key_are_refused(lost: Callable[[str], Lost], tmp_path: Path) -> None:
    before = lost("lab")
    before.parts["lab-2"]["key"] = before.parts["lab-1"]["key"]
    with pytest.raises(Unusable, match=r"PN502: .* gives one WireGuard key"):
        before.rebuilt(tmp_path / "after")


def test_a_host_without_root_or_record_says_so(lost: Callable[[str], Lost]) -> None:
    parts = lost("lab").parts["lab-1"]
    with pytest.raises(Unusable, match="do not run as root"):
        answer({**parts, "user": ["1000"]})
    with pytest.raises(Unusable, match=r"has no /etc/privnet/record\.json"):
        answer({**parts, "record": []})
    with pytest.raises(Unusable, match="not complete: end"):
        parse_answer(b"\n".join(f"##privnet {name}".encode() for name in SECTIONS[:-1]))


def test_a_rebuilt_lock_file_comes_from_all_by_which_hosts_were_changed(
    lost: Callable[[str], Lost], tmp_path: Path
) -> None:
    """Also from two copies of one serial: each of their hosts is changed by it again."""
    before = lost("lab")
    for name, (serial, digit) in {"lab-1": (12, "0"), "lab-2": (12, "f"), "lab-3": (9, "a")}.items():
        before.parts[name]["applied"] = [f"{serial} {digit * 64} run-1"]
    before.rebuilt(tmp_path / "after")
    lock = load_lock(tmp_path / "after", "lab")
    assert lock.serial == 13
    assert lock.history == (Version(9, "a" * 64), Version(12, "0" * 64), Version(12, "f" * 64))
    # One that does not say which it was is none of them.
    before.parts["lab-3"]["applied"] = ["9 x"]
    before.rebuilt(tmp_path / "again")
    assert load_lock(tmp_path / "again", "lab").history == lock.history[1:]


def test_a_serial_is_read_or_it_is_none(lost: Callable[[str], Lost]) -> None:
    parts = lost("lab").parts["lab-1"]
    for text, serial in (("7 abc r", 7), ("7", 7), ("x", 0), ("9" * 15, 0), ("-1 a b", 0)):
        assert answer({**parts, "applied": [text]}).serial == serial
    assert answer({**parts, "applied": []}).serial == 0


def test_without_any_serial_the_lock_file_begins_with_one(lost: Callable[[str], Lost], tmp_path: Path) -> None:
    before = lost("lab")
    for parts in before.parts.values():
        parts["applied"] = []
    rebuilt, _ = before.rebuilt(tmp_path / "after")
    assert load_lock(tmp_path / "after", "lab").serial == rebuilt.lock.serial == 1


# --- where it is written, and whom it asks --------------------------------------------------------


def test_nothing_is_overwritten(lost: Callable[[str], Lost], tmp_path: Path) -> None:
    before = lost("lab")
    rebuilt = merge(before.asked())
    with pytest.raises(Unusable, match="is there already, and nothing is overwritten"):
        write_fleet(before.directory, rebuilt)
    (tmp_path / "new.py").write_text("print('mine')\n")
    with pytest.raises(Unusable, match=r"new\.py is there already"):
        write_fleet(tmp_path / "new", rebuilt)
    (tmp_path / "empty").mkdir()
    write_fleet(tmp_path / "empty", rebuilt)
    assert (tmp_path / "empty" / "fleet.yaml").exists()
    assert (tmp_path / "empty").stat().st_mode & 0o777 == tmp_path.joinpath("empty", "projects").stat().st_mode & 0o777


def test_a_rebuilt_fleet_goes_on(lost: Callable[[str], Lost], tmp_path: Path) -> None:
    """It can be changed, saved and refused like any other."""
    lost("prod").rebuilt(tmp_path / "after")
    saved = save_lock(tmp_path / "after", load_lock(tmp_path / "after", "prod"))
    assert saved.serial == 14
    lock_path(tmp_path / "after").write_text("")
    with pytest.raises(DeclarationError):
        compile_fleet(tmp_path / "after")


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("192.0.2.1", Target("192.0.2.1")),
        ("root@192.0.2.1:2222", Target("192.0.2.1", "root", 2222)),
        ("2001:db8::1", Target("2001:db8::1")),
        ("deploy@[2001:db8::1]:22", Target("2001:db8::1", "deploy", 22)),
        ("lab-1", Target("lab-1")),
    ],
)
def test_whom_to_ask(text: str, target: Target) -> None:
    assert Target.parse(text) == target
    assert Target.parse(str(target)) == target
    assert target.argv(None)[-3:-1] == ["--", target.address]


@pytest.mark.parametrize("text", ["", "-oProxyCommand=reboot", "a b", "root@", "@a", "a@b@c", "h:0", "h:70000", "h;id"])
def test_nobody_to_ask(text: str) -> None:
    with pytest.raises(Unusable, match=r"is not \[USER@\]ADDRESS\[:PORT\]"):
        Target.parse(text)


def test_the_program_reads_no_private_key() -> None:
    """But through ``wg pubkey``, which prints the public one."""
    text = program().decode()
    lines = [line.strip() for line in text.splitlines() if re.search("[.]key|/etc/wireguard|[$]key", line)]
    assert lines == [
        "for key in $etc/wireguard.key /etc/wireguard/privnet.key; do",
        "[ ! -s $key ] || { wg pubkey < $key 2> /dev/null; break; }",
    ]
