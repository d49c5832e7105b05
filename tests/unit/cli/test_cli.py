"""What is typed, what is answered, and with which exit code."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from privnet.cli import app
from privnet.compiler import compile_fleet
from privnet.progress import Progress, save_progress
from privnet.store import lock_checksum, save_lock

ROOT = Path(__file__).parents[3]
PROGRAM = "from privnet.cli import main; main()"
RUNNER = CliRunner()


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def typed(*arguments: str | Path, cwd: Path = ROOT) -> Done:
    """`privnet` with arguments, away from a terminal; in this process, since starting one takes half a second."""
    with contextlib.chdir(cwd):
        result = RUNNER.invoke(app, [*map(str, arguments)], prog_name="privnet", catch_exceptions=False)
    return Done(result.exit_code, result.stdout, result.stderr)


def fine(*arguments: str | Path, cwd: Path = ROOT) -> str:
    done = typed(*arguments, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(*arguments: str | Path, cwd: Path = ROOT) -> str:
    done = typed(*arguments, cwd=cwd)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


@pytest.fixture
def shop(fleets: Any, written: Callable[..., Path]) -> Path:
    """Two hosts, and a network with a container on each."""
    project = fleets.project("shop", {"a": {"web": ["h1", "h2"]}})
    return written({"hosts": fleets.hosts("h1", "h2")}, {"shop": project})


def deployed(directory: Path) -> Path:
    """With the lock file that a deploy would have left, and what it writes down beside it."""
    lock = save_lock(directory, compile_fleet(directory).lock)
    save_progress(directory, lock.fleet, {name: Progress(lock.serial, lock_checksum(lock)) for name in lock.hosts})
    return directory


# --- check ----------------------------------------------------------------------------------------


def test_check_says_one_line_when_all_is_well(shop: Path) -> None:
    counts = "2 hosts, 1 project, 1 private network, 2 containers"
    assert fine("check", shop) == f"{shop}: {counts}; no lock file yet: the first deploy writes it\n"
    deployed(shop)
    assert fine("check", shop) == f"{shop}: {counts}; lock file up to date\n"


def test_check_sees_that_the_lock_file_would_be_extended(shop: Path, fleets: Any) -> None:
    deployed(shop)
    fleets.write(shop, {"hosts": fleets.hosts("h1", "h2", "h3")}, {})
    assert fine("check", shop).endswith("; lock file would be extended\n")


def test_check_writes_nothing(shop: Path) -> None:
    before = sorted(shop.rglob("*"))
    fine("check", shop)
    fine("plan", shop)
    fine("names", shop)
    assert sorted(shop.rglob("*")) == before


def test_check_refuses_with_all_problems_and_code_2(shop: Path, fleets: Any) -> None:
    fleets.write(shop, {"hosts": fleets.hosts("h1")}, {})
    text = refused("check", shop)
    assert 'error[PN301]: the fleet has no host "h2"' in text
    assert text.endswith("No host was contacted.\n")


def test_problems_as_json_go_to_standard_output(shop: Path, fleets: Any) -> None:
    fleets.write(shop, {"hosts": fleets.hosts("h1")}, {})
    for command in ("check", "plan", "names"):
        done = typed(command, shop, "--format", "json")
        assert (done.returncode, done.stderr) == (2, "")
        assert [problem["code"] for problem in json.loads(done.stdout)["problems"]] == ["PN301"]
    assert json.loads(fine("check", ROOT / "inventory/lab", "--format", "json"))["problems"] == []


# --- which inventory ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ((), "no inventory was given\n   = help: fleets here: inventory/test\n"),
        (("inventory/tets",), "inventory/tets does not exist\n   = help: did you mean `inventory/test`?\n"),
        (("inventory/test.py",), "inventory/test.py is not a directory\n   = help: did you mean `inventory/test`?\n"),
        (("inventory/test/fleet.yaml",), "is not a directory\n   = help: did you mean `inventory/test`?\n"),
        (("inventory",), "inventory is not the directory of a fleet: it has no fleet.yaml\n"),
        (("nowhere/at/all",), "nowhere/at/all does not exist\n   = help: fleets here: inventory/test\n"),
        (("in\x1b[31mventory",), "in\\x1b[31mventory does not exist\n"),
    ],
)
def test_an_inventory_that_is_not_there(shop: Path, given: tuple[str, ...], answer: str) -> None:
    (shop.parent / "test.py").touch()
    for command in ("check", "plan", "names"):
        text = refused(command, *given, cwd=shop.parents[1])
        assert text.startswith("error[PN101]: ")
        assert answer in text


def test_options_that_do_not_exist() -> None:
    assert "No such option" in refused("check", "--nonsense")
    assert "No such command" in refused("nonsense")


def test_a_directory_that_may_not_be_written_to(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = typed("render", shop, "--output", tmp_path / "file" / "below")
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path / 'file' / 'below'}: Not a directory\n"


# --- plan -----------------------------------------------------------------------------------------


def test_plan_shows_hosts_networks_and_numbers(shop: Path) -> None:
    text = fine("plan", shop)
    assert "fleet test: 2 hosts, 1 project, 1 private network, 2 containers\n" in text
    assert "  VNI 7000000  10.240.0.0/22  MTU 1390  2 containers on 2 hosts\n" in text
    assert "host h1  mesh 100.64.0.1       1 peer  1 container  in VNI 7000000\n" in text
    assert text.endswith("No lock file yet: everything is new, and the first deploy writes these numbers down.\n")


def test_plan_shows_what_differs_from_the_lock_file(shop: Path, fleets: Any) -> None:
    deployed(shop)
    text = fine("plan", shop)
    assert text.endswith("\n\nNothing differs from the lock file (serial 1).\n") and len(text.splitlines()) == 3
    assert "host h1  mesh 100.64.0.1" in fine("plan", "--all", shop)
    project = fleets.project("shop", {"a": {"web": ["h2", "h2", "h3"]}, "b": {"web": []}})
    new = fleets.project("blog", {})
    fleets.write(shop, {"hosts": fleets.hosts("h2", "h3")}, {"shop": project, "blog": new})
    lines = fine("plan", shop).split("Differs from the lock file (serial 1); impact at most: outage\n")[1].splitlines()
    pn, blog, a = fleets.network("shop")["id"], fleets.network("blog")["id"], fleets.ap("a")
    assert lines == [
        "  + host h3: mesh 100.64.0.3",
        f"  + application {fleets.ap('b')}: project shop",
        "  - host h1: was mesh 100.64.0.1",
        "      none: its containers are with their networks below; what still runs on it is cut off from all others",
        f"private network {blog} of project blog, VNI 7000001",
        f"  + network {blog}: project blog, VNI 7000001, 10.240.0.0/22",
        f"private network {pn} of project shop, VNI 7000000",
        f"  + container 3.web.{a}: 10.240.0.4 on h3",
        f"  ~ container 1.web.{a}: h1 → h2, keeps 10.240.0.2",
        "      outage, flows of the moved container: from the moment it is switched until its process runs on the new "
        "host; it keeps address and names",
        "hosts",
        "  h2  1 container more, + peer h3, - peer h1, new entries in VNI 7000000",
        "  h3  1 container more, + peer h2, enters VNI 7000000",
        "1 number in quarantine: `privnet plan --format json` lists them.",
        "Removes 0 of 2 containers, 0 of 1 private network, 1 of 2 hosts.",
        "REFUSED unless told: 50% of the hosts (PN601). If all of it is meant: at a terminal `privnet deploy` asks, a "
        "saved plan needs no number, elsewhere `privnet deploy … --allow-removals 1`",
    ]


def test_a_plan_is_saved_through_no_link(shop: Path, tmp_path: Path) -> None:
    target, out = tmp_path / "mine", tmp_path / "change.plan"
    target.write_text("not privnet's\n")
    out.symlink_to(target)
    assert f"{out} is a symbolic link, and what it leads to would be overwritten" in refused("plan", shop, "--out", out)
    assert target.read_text() == "not privnet's\n"
    # The twin: what is there under its own name is overwritten.
    assert typed("plan", shop, "--out", target).returncode == 0
    assert "privnet's" not in target.read_text()


def test_plan_shows_an_application_that_changed_its_project(shop: Path, fleets: Any) -> None:
    deployed(shop)
    moved = {"shop": fleets.project("shop", {}), "blog": fleets.project("blog", {"a": {"web": ["h1", "h2"]}})}
    fleets.write(shop, {"hosts": fleets.hosts("h1", "h2")}, moved)
    text = fine("plan", shop)
    shop_part, blog_part = (text.partition(f"private network {fleets.network(name)['id']}")[2] for name in moved)
    assert f"  ~ application {fleets.ap('a')}: project shop → project blog\n" in text
    assert f"  + container 1.web.{fleets.ap('a')}: 10.240.0.2 on h1\n" in blog_part
    assert f"  - container 1.web.{fleets.ap('a')}: was 10.240.0.2 on h1\n" in shop_part
    assert "outage, flows of the application in its old network" in text
    assert "REFUSED" not in text and "Removes" not in text


def test_a_refused_plan_is_shown_with_its_number_and_is_no_failure(shop: Path) -> None:
    deployed(shop)
    (shop / "projects" / "shop.yaml").unlink()
    last = fine("plan", shop).splitlines()[-1]
    assert last.startswith("REFUSED unless told: 1 whole private network and 100% of the containers (PN601)")
    assert last.endswith("--allow-removals 3`")
    data = json.loads(fine("plan", shop, "--format", "json"))
    assert data["removals"]["number"] == 3
    assert data["removals"]["guard"] == {
        "percent": 10,
        "refused": ["1 whole private network", "100% of the containers"],
    }
    assert {change["impact"]["label"] for change in data["changes"] if change["kind"] == "container"} == {"outage"}


def test_a_large_plan_is_counted(written: Callable[..., Path], fleets: Any) -> None:
    hosts = fleets.hosts(*(f"h{number}" for number in range(40)))
    projects = {f"p{n}": fleets.project(f"p{n}", {f"a{n}": {"web": [f"h{n}", "h0"]}}) for n in range(35)}
    directory = written({"hosts": hosts}, projects)
    text = fine("plan", directory)
    assert "35 private networks, VNI 7000000 to 7000034\n" in text
    assert "40 hosts, each with 0 to 34 peers\n" in text
    deployed(directory)
    more = {name: fleets.project(name, {f"a{name[1:]}": {"web": ["h0"] * 3}}) for name in projects}
    fleets.write(directory, {"hosts": hosts}, more)
    text = fine("plan", directory)
    assert "  + 35 containers new\n  ~ 34 containers changed\n" in text
    assert "35 hosts with changes: containers come to 1 of them and go from 34\n" in text
    assert len(text.splitlines()) < 15


def test_plan_as_json_has_everything(shop: Path, fleets: Any) -> None:
    data = json.loads(fine("plan", shop, "--format", "json"))
    assert data["hosts"]["h1"] == {
        "mesh": "100.64.0.1",
        "mtu": 1440,
        "peers": ["h2"],
        "without_key": ["h2"],
        "networks": [fleets.network("shop")["id"]],
        "containers": 1,
    }
    (network,) = data["networks"].values()
    assert network["containers"][f"1.web.{fleets.ap('a')}"] == {"address": "10.240.0.2", "host": "h1"}
    assert {change["sign"] for change in data["changes"]} == {"+"}


# --- names ----------------------------------------------------------------------------------------


def test_names_has_all_five_forms_and_the_reverse_ones(written: Callable[..., Path], fleets: Any) -> None:
    formation = {"web": ["h1", "h2"], "worker": ["h1"], "cron": []}
    project = fleets.project("shop", {"a": formation, "b": {"worker": ["h2"]}})
    directory = written({"hosts": fleets.hosts("h1", "h2")}, {"shop": project})
    data = json.loads(fine("names", directory, "--format", "json"))
    suffix = f"{fleets.network('shop')['id']}.private-network.internal."
    a, b = f"{fleets.ap('a')}.{suffix}", f"{fleets.ap('b')}.{suffix}"
    answers = {entry["name"]: (entry["type"], entry["answers"], entry["hosts"]) for entry in data}
    shown = dict(zip(("1.web", "2.web", "1.worker"), _addresses(answers, a), strict=True))
    both = [shown["1.web"], shown["2.web"]]
    assert answers[a] == ("A", both, ["h1", "h2"])
    assert answers[f"web.{a}"] == ("A", both, ["h1", "h2"])
    assert answers[f"1.web.{a}"] == ("A", both[:1], ["h1"])
    assert answers[f"worker.{a}"] == ("A", [shown["1.worker"]], ["h1"])
    assert answers[f"1.worker.{a}"] == ("A", [shown["1.worker"]], ["h1"])
    assert answers[f"cron.{a}"] == answers[b] == ("NODATA", [], [])
    reverse = ".".join(reversed(both[0].split("."))) + ".in-addr.arpa."
    assert answers[reverse] == ("PTR", [f"1.web.{a}"], ["h1"])
    assert len(answers) == len(data)


def _addresses(answers: dict[str, Any], application: str) -> Iterator[str]:
    for name in ("1.web", "2.web", "1.worker"):
        yield answers[f"{name}.{application}"][1][0]


def test_names_as_a_table_never_wraps(shop: Path, fleets: Any) -> None:
    head, first, *_ = fine("names", shop).splitlines()
    assert head.split() == ["NAME", "TYPE", "ADDRESSES", "HOST"]
    suffix = f"{fleets.network('shop')['id']}.private-network.internal."
    assert first.split() == [f"{fleets.ap('a')}.{suffix}", "A", "10.240.0.2", "10.240.0.3", "h1", "h2"]


def test_names_of_vnis(shop: Path, fleets: Any) -> None:
    deployed(shop)
    (shop / "projects" / "shop.yaml").unlink()
    fleets.write(shop, {"hosts": fleets.hosts("h1", "h2")}, {"blog": fleets.project("blog", {})})
    rows = [line.split() for line in fine("names", shop, "--vni").splitlines()]
    assert rows == [
        ["VNI", "NETWORK", "PROJECT"],
        ["7000000", "in", "quarantine"],
        ["7000001", fleets.network("blog")["id"], "blog"],
    ]
    assert [entry["vni"] for entry in json.loads(fine("names", shop, "--vni", "--format", "json"))] == [
        7000000,
        7000001,
    ]


def test_an_output_that_nobody_reads_to_its_end(written: Callable[..., Path], fleets: Any) -> None:
    project = fleets.project("shop", {"a": {f"t{number}": ["h1"] * 50 for number in range(16)}})
    directory = written({"hosts": fleets.hosts("h1")}, {"shop": project})
    command = f"{sys.executable} -c '{PROGRAM}' names {directory} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("NAME")
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [("check",), ("plan",), ("names",), ("report",), ("check", "--format", "json")])
@pytest.mark.parametrize("streams", ["", "2>&1"])
def test_an_output_that_nobody_reads_at_all(shop: Path, arguments: tuple[str, ...], streams: str) -> None:
    words = " ".join([arguments[0], str(shop), *arguments[1:]])
    command = f"( {sys.executable} -c '{PROGRAM}' {words} {streams}; echo ended with $? >&3 ) 3>&2 | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("", "ended with 1\n")


# --- render ---------------------------------------------------------------------------------------


def tree(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
        for path in directory.rglob("*")
        if (path.is_symlink() or path.is_file()) and path.name != ".privnet-render"
    }


def test_render_writes_each_host_s_files(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fine("render", shop, "--output", out)
    files = tree(out)
    assert {name.split("/")[0] for name in files} == {"h1", "h2"}
    assert "table inet privnet" in files["h1/etc/privnet/guard.nft"]
    wanted = "h1/etc/systemd/system/privnet-networks.target.wants/privnet-overlay@7000000.service"
    assert files[wanted] == "-> ../privnet-overlay@.service"
    assert (out / "h1/etc/privnet/guard.nft").stat().st_mode & 0o777 == 0o644
    assert "unchanged" in fine("render", shop, "--output", out)
    assert tree(out) == files


def test_render_removes_what_an_earlier_render_wrote(shop: Path, tmp_path: Path, fleets: Any) -> None:
    out = tmp_path / "out"
    fine("render", shop, "--output", out)
    (out / "h1" / "note.txt").write_text("mine")
    fleets.write(shop, {"hosts": fleets.hosts("h1")}, {"shop": fleets.project("shop", {"a": {"web": ["h1"]}})})
    fine("render", shop, "--output", out)
    assert {name.split("/")[0] for name in tree(out)} == {"h1"}
    assert not (out / "h2").exists()
    assert (out / "h1" / "note.txt").read_text() == "mine"
    fine("render", shop, "--output", tmp_path / "fresh")
    assert tree(out).keys() - {"h1/note.txt"} == tree(tmp_path / "fresh").keys()


def test_render_of_one_host_leaves_the_others(shop: Path, tmp_path: Path, fleets: Any) -> None:
    out = tmp_path / "out"
    fine("render", shop, "--output", out)
    before = tree(out)
    fleets.write(shop, {"hosts": fleets.hosts("h1", "h2")}, {"shop": fleets.project("shop", {})})
    fine("render", shop, "--host", "h1", "--output", out)
    after = tree(out)
    assert {n: t for n, t in after.items() if n.startswith("h2/")} == {
        n: t for n, t in before.items() if n.startswith("h2/")
    }
    assert not [name for name in after if name.startswith("h1/etc/netns")]


def test_render_repairs_a_file_that_was_changed(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fine("render", shop, "--output", out)
    before = tree(out)
    changed = out / "h1/etc/privnet/guard.nft"
    changed.write_text("flush ruleset")
    link = out / "h1/etc/privnet/mesh.conf"
    link.unlink()
    link.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("untouched")
    assert "2 files written" in fine("render", shop, "--output", out)
    assert tree(out) == before
    assert (tmp_path / "elsewhere").read_text() == "untouched"


def test_render_refuses_a_directory_that_is_not_its_own(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "file").touch()
    text = refused("render", shop, "--output", tmp_path / "home")
    assert "is not empty and was not made by `privnet render`" in text
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["file"]


def test_render_does_not_remove_outside_its_directory(shop: Path, tmp_path: Path) -> None:
    out, precious = tmp_path / "out", tmp_path / "precious"
    fine("render", shop, "--output", out)
    precious.write_text("mine")
    manifest = out / ".privnet-render"
    manifest.write_text(manifest.read_text() + f"../precious\nh9/../../precious\n{precious}\n")
    fine("render", shop, "--output", out)
    assert precious.read_text() == "mine"


def test_a_limit_that_means_no_host_is_told_with_the_groups(fleets: Any, written: Callable[..., Path]) -> None:
    """A zone's name is not its group's: a group is a variable of pyinfra's inventory."""
    hosts = {name: {**host, "zone": "par-b"} for name, host in fleets.hosts("h1", "h2").items()}
    fleet = written({"hosts": hosts}, {"shop": fleets.project("shop", {"a": {"web": ["h1"]}})})
    there = "; its hosts are h1, h2; its groups are fleet, zone_par_b\n"
    said = {
        "par-b": there,
        "zone-par-b": f"; did you mean `zone_par_b`?{there}",
        "h11": f"; did you mean `h1`?{there}",
        "x*": there,
    }
    for limit, text in said.items():
        told = f'error: the fleet has no host or group "{limit}"{text}'
        assert refused("deploy", fleet, "-y", "--limit", limit) == told


def test_render_knows_its_hosts(shop: Path, tmp_path: Path) -> None:
    text = refused("render", shop, "--host", "h11", "--output", tmp_path / "out")
    assert text == 'error: the fleet has no host "h11"; did you mean `h1`?\n'
    text = refused("render", shop, "--host", "zzz", "--output", tmp_path / "out")
    assert text == 'error: the fleet has no host "zzz"; its hosts are h1, h2\n'
    assert not (tmp_path / "out").exists()


def test_a_host_that_is_out_of_service_is_named_as_that(shop: Path, fleets: Any, tmp_path: Path) -> None:
    """Not as one that there is not."""
    hosts = fleets.hosts("h1", "h2")
    fleets.write(deployed(shop), {"hosts": {**hosts, "h2": {**hosts["h2"], "state": "out"}}}, {})
    out = "h2 is out of service (`state: out` in fleet.yaml)"
    for words in (
        ("deploy", shop, "-y", "--limit", "h2"),
        ("render", shop, "--host", "h2", "--output", tmp_path / "o"),
    ):
        said = refused(*words)
        assert said.endswith(f"error: {out}, so no run goes there and it has no plan\n") and "PN706" in said
    said = refused("audit", shop, "--host", "h2")
    assert f"{out}: nothing is expected of it" in said


# --- the rest -------------------------------------------------------------------------------------


def test_schema_writes_schemas_once(tmp_path: Path) -> None:
    assert "fleet.schema.json written" in fine("schema", tmp_path / "schemas")
    assert fine("schema", tmp_path / "schemas") == f"{tmp_path / 'schemas'}: up to date\n"


def test_explain() -> None:
    assert fine("explain", "pn304").startswith("PN304: a VNI is used by two networks\n")
    assert fine("explain", "error[PN507]").startswith("PN507: ")
    assert "there is no code PN399" in refused("explain", "PN399")


def test_help_names_every_command_and_the_exit_codes() -> None:
    text = fine("--help")
    for command in ("check", "plan", "render", "names", "schema", "explain", "lab", "audit"):
        assert f"\n  {command} " in text
    assert "Exit codes: 0 fine, 1 failed, 2 the" in text
    for command in ("check", "plan", "render", "names", "schema", "explain", "lab", "audit"):
        assert "Usage: " in fine(command, "--help")


def test_commands_import_only_what_they_need() -> None:
    """Each of these costs more than a whole check of a small fleet."""
    heavy = ("pyinfra", "rich", "testinfra", "pytest", "jsonschema", "gevent", "paramiko")
    program = f"""
import sys
sys.argv = ["privnet", "check", "inventory/lab"]
from privnet.cli import main
try:
    main()
except SystemExit:
    pass
print(*(name for name in {heavy!r} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[1] == ""
    command = [sys.executable, "-c", f"import rich\n{program}"]
    twin = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert twin.stdout.splitlines()[1] == "rich"


def test_as_a_process_it_answers_with_its_exit_code(tmp_path: Path) -> None:
    for arguments, code in ((["check", str(ROOT / "inventory/lab")], 0), (["check", "nowhere"], 2), ([], 2)):
        command = [sys.executable, "-c", PROGRAM, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == code
        assert "Traceback" not in done.stderr
