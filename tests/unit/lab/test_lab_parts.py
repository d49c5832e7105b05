"""Parts of the lab that need no lab: names, addresses, process identity, copies, what is missing."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from privnet.lab import LabError, archive, image, process, requirements, settings, underlay
from privnet.lab.cli import app
from privnet.lab.fleet import LabHost, read_fleet, rehearse
from privnet.lab.process import Process
from privnet.lab.settings import Settings, check_host_name, port_name, ssh_config_of
from privnet.lab.underlay import BRIDGE, Underlay, pair_batch, port_batch


def host(name: str, *addresses: str) -> LabHost:
    return LabHost(name, tuple(ipaddress.ip_address(text) for text in addresses))


# names


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a/b", "..", "a b", "x" * 33])
def test_a_lab_name_that_would_not_fit_in_paths_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="cannot be the name of a lab"):
        Settings(name)


def test_the_lab_is_named_by_argument_then_environment_then_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRIVNET_LAB", raising=False)
    assert Settings.chosen().name == "lab"
    monkeypatch.setenv("PRIVNET_LAB", "second")
    assert Settings.chosen().name == "second"
    assert Settings.chosen("third").name == "third"


def test_names_of_one_lab_are_never_another_labs() -> None:
    assert Settings("a-b").namespace("c") != Settings("a").namespace("b-c")
    assert Settings("a-b").scope("c") != Settings("a").scope("b-c")


def test_port_names_fit_the_kernel_and_stay_different() -> None:
    names = ["lab-1", "x" * 15, "rack-12-node-001", "rack-12-node-002", "h" * 63]
    ports = [port_name(name) for name in names]
    assert ports[0] == "p-lab-1"
    assert all(len(port) <= 15 for port in ports)
    assert len(set(ports)) == len(ports)


APART = """
mount --make-rprivate / && mkdir -p /run/netns && mount -t tmpfs none /run/netns && exec ip -batch -
"""
IN_ISSUES = {"master", "group", "dev", "mtu", "name", "type", "link", "vf", "a", "b", "lo", "all", "default", BRIDGE}


def words_of_ip() -> set[str]:
    """Words in ip(8) and its help that could be the name of a host: its keywords, and names of types and protocols."""
    program = Path(shutil.which("ip") or "").resolve().read_bytes()
    helps = [subprocess.run(["ip", what, "help"], capture_output=True).stderr for what in ("link", "address", "route")]
    label = rb"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
    found = [*re.findall(rb"(?<=\0)" + label + rb"(?=\0)", program), *re.findall(rb"\b" + label, b" ".join(helps))]
    return {word.decode() for word in found}


def batched(lines: list[str]) -> subprocess.CompletedProcess[str]:
    """What `ip -batch` says in a network namespace of its own, which ends with it."""
    command = ["unshare", "--mount", "--net", "sh", "-c", APART]
    return subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_no_word_of_ip_as_a_host_s_name_is_taken_for_one() -> None:
    """Each is made and set; those that once failed are ports of the underlay's bridge, too, and are removed."""
    lab = Settings("x")
    words = sorted(words_of_ip())
    assert len(words) > 300 and words_of_ip() >= {"master", "group", "dev", "mtu", "name", "type", "vf"}
    made = [f"netns add {lab.namespace('fabric')}"]
    for word in {*IN_ISSUES, *words[::20]}:
        made += [f"netns add {lab.namespace(word)}", pair_batch(lab, word).rstrip()]
    ran = batched(made)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    # The other commands are executed inside of the fabric's namespace; here the port is made where they are.
    here = [f"link add name {BRIDGE} type bridge"]
    for word in {*IN_ISSUES, *words[::5]}:
        here += [f"link add name {port_name(word)} type bridge", f"link set dev {port_name(word)} down"]
    for word in IN_ISSUES:
        gone = f"link delete dev {port_name(word)}"
        here += [gone, f"link add name {port_name(word)} type veth peer name eth0", port_batch(word).rstrip(), gone]
    ran = batched(here)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    # The twin: as it was.
    for word in ("master", "a", "vf", "lo"):
        assert batched([f"link add {word} type veth peer name eth0"]).returncode != 0


@pytest.mark.parametrize("name", ["operator", "outsider", "fabric"])
def test_a_host_with_a_name_of_the_labs_own_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="for itself"):
        check_host_name(name)


# underlay


def test_the_labs_own_addresses_avoid_those_of_hosts() -> None:
    hosts = [host("a", "192.0.2.254"), host("b", "192.0.2.252"), host("c", "198.51.100.7", "2001:db8::11")]
    chosen = Underlay.around(hosts)
    assert [str(address) for address in (*chosen.gateway, *chosen.operator, *chosen.outsider)] == [
        "192.0.2.253", "2001:db8::fffe", "192.0.2.251", "2001:db8::fffd", "192.0.2.250", "2001:db8::fffc",
    ]  # fmt: skip
    assert [str(subnet) for subnet in chosen.subnets] == ["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/64"]


def test_the_labs_own_addresses_stay_when_hosts_come_and_move_when_one_needs_them() -> None:
    first = Underlay.around([host("a", "192.0.2.11")])
    more = Underlay.around([host("a", "192.0.2.11"), host("b", "10.0.0.1")], first)
    assert more.operator == first.operator
    assert [str(subnet) for subnet in more.subnets] == ["10.0.0.0/24", "192.0.2.0/24"]
    taken = Underlay.around([host("a", str(first.operator[0]))], first)
    assert taken.operator != first.operator
    assert Underlay.from_json(more.to_json()) == more


def test_an_uplink_gets_only_routes_of_its_own_address_families() -> None:
    hosts = [host("a", "192.0.2.11"), host("b", "2001:db8::11")]
    network = Underlay.around(hosts)
    lines = underlay.uplink_batch(hosts[0].addresses, 1500, network)
    assert "address replace 192.0.2.11/32 dev eth0\n" in lines
    assert "2001:db8" not in lines
    assert "address replace 2001:db8::11/128 dev eth0 nodad\n" in underlay.uplink_batch(
        hosts[1].addresses, 1500, network
    )


# processes


def test_a_process_id_given_again_is_not_the_same_process(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeping:
        real = Process.of(sleeping.pid)
        assert real is not None and real.alive
        impostor = Process(real.pid, real.started - 1)
        impostor.signal(signal.SIGKILL)
        impostor.record(tmp_path / "record")
        assert Process.read(tmp_path / "record") is None
        assert real.alive
        real.record(tmp_path / "record")
        assert Process.read(tmp_path / "record") == real
        real.signal(signal.SIGKILL)
        assert real.wait(5)
        assert Process.read(tmp_path / "record") is None


@pytest.mark.parametrize("content", ["", "12", "x y", "1 2 3"])
def test_half_a_record_is_no_process(tmp_path: Path, content: str) -> None:
    (tmp_path / "record").write_text(content)
    assert Process.read(tmp_path / "record") is None


def test_a_failing_program_is_quoted() -> None:
    with pytest.raises(LabError, match=r"status 3 from `sh -c 'echo no such luck; exit 3'`: no such luck"):
        process.run(["sh", "-c", "echo no such luck; exit 3"])


# inventories


PRODUCTION = """\
fleet: prod
{lab}hosts:
  a: {{address: 192.0.2.11, mtu: 9000, ssh: {{user: deploy, port: 2222}}}}
  b: {{address: 192.0.2.12, endpoint: "[2001:db8::7]:51820"}}
"""


@pytest.fixture
def production(tmp_path: Path) -> Path:
    directory = tmp_path / "prod"
    directory.mkdir()
    (directory / "fleet.yaml").write_text(PRODUCTION.format(lab=""))
    return directory


def test_hosts_are_read_with_all_their_underlay_addresses(production: Path) -> None:
    fleet = read_fleet(production)
    assert not fleet.lab
    assert [(one.name, [str(address) for address in one.addresses]) for one in fleet.hosts] == [
        ("a", ["192.0.2.11"]),
        ("b", ["192.0.2.12", "2001:db8::7"]),
    ]
    assert (fleet.hosts[0].mtu, fleet.hosts[0].user, fleet.hosts[0].ssh_port) == (9000, "deploy", 2222)


@pytest.mark.parametrize("line", ["", "lab: false\n", "lab : false # not yet\n"])
def test_a_copy_is_marked_as_a_fleet_of_the_lab(production: Path, tmp_path: Path, line: str) -> None:
    (production / "fleet.yaml").write_text(PRODUCTION.format(lab=line))
    copy = tmp_path / "copies" / "prod"
    rehearse(read_fleet(production), copy)
    assert read_fleet(copy).lab
    assert not read_fleet(production).lab
    assert (tmp_path / "copies" / "prod.py").is_file()


def test_a_copy_takes_new_yaml_and_keeps_what_runs_have_written(production: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copies" / "prod"
    rehearse(read_fleet(production), copy)
    of_runs = {
        name: f"{name} of the rehearsal\n" for name in ("privnet.lock.yaml", "privnet.progress.json", ".privnet/run")
    }
    (copy / ".privnet").mkdir()
    for name, text in of_runs.items():
        (copy / name).write_text(text)
    inode = (copy / ".privnet" / "run").stat().st_ino
    (production / "privnet.progress.json").write_text("of production's own hosts\n")
    (copy / "projects").mkdir()
    (copy / "projects" / "gone.yaml").write_text("project: gone\n")
    with (production / "fleet.yaml").open("a") as file:
        file.write("  c: {address: 192.0.2.13}\n")
    rehearse(read_fleet(production), copy)
    assert [one.name for one in read_fleet(copy).hosts] == ["a", "b", "c"]
    assert {name: (copy / name).read_text() for name in of_runs} == of_runs
    assert (copy / ".privnet" / "run").stat().st_ino == inode, "a run that is under way keeps its lock"
    assert not (copy / "projects").exists(), "the YAML is that of the inventory alone"


def test_the_users_own_shim_is_copied(production: Path, tmp_path: Path) -> None:
    production.with_suffix(".py").write_text("# the user's own\n")
    rehearse(read_fleet(production), tmp_path / "copies" / "prod")
    assert (tmp_path / "copies" / "prod.py").read_text() == "# the user's own\n"


def test_a_fleet_whose_lab_is_not_up_leads_nowhere(production: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVNET_LAB", "not-there")
    with pytest.raises(LabError, match="which is not up") as error:
        ssh_config_of(production)
    assert "privnet lab up" in error.value.help


def test_a_copy_belongs_to_the_lab_it_lies_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(settings, "STATE_ROOT", tmp_path)
    monkeypatch.setenv("PRIVNET_LAB", "another")
    assert settings.lab_of(tmp_path / "first" / "inventory" / "prod").name == "first"
    assert settings.lab_of(tmp_path.parent / "elsewhere").name == "another"


# the lab of another fleet


@pytest.fixture
def taken(production: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A lab called `taken` that rehearses `production`; nothing of it really runs."""
    monkeypatch.setattr(settings, "STATE_ROOT", tmp_path / "labs")
    monkeypatch.setattr(settings, "RUN_ROOT", tmp_path / "run")
    monkeypatch.setattr(requirements, "check", lambda **_: None)
    monkeypatch.setattr(requirements, "make_room", lambda: "")
    lab = Settings("taken")
    lab.state.mkdir(parents=True)
    described = {"source": str(production), "inventory": str(lab.inventory / "prod"), "fleet": "prod", "hosts": {}}
    network = Underlay.around(read_fleet(production).hosts).to_json()
    lab.description.write_text(json.dumps({**described, "underlay": network}))
    lab.ssh_config.touch()
    return lab


def test_the_lab_of_another_fleet_is_left_alone(taken: Settings, production: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "fleet.yaml").write_text(PRODUCTION.format(lab="lab: true\n"))
    before = taken.description.read_bytes()
    runs = f"lab 'taken' runs another fleet, {production}"
    removes = "`privnet lab down --name taken` removes the hosts of that fleet"
    for command, advice in (
        ("up", "give this one a lab of its own, with `--name` or PRIVNET_LAB"),
        ("down", "nothing was removed"),
    ):
        told = CliRunner().invoke(app, [command, str(other), "--name", "taken"])
        assert (told.exit_code, told.stderr) == (2, f"error: {runs}\n  = help: {advice}; {removes}\n")
        assert taken.description.read_bytes() == before
    # The twin: its own fleet, or none that is named.
    for words in ([str(production)], []):
        taken.state.mkdir(parents=True, exist_ok=True)
        taken.description.write_bytes(before)
        assert CliRunner().invoke(app, ["down", *words, "--name", "taken"]).exit_code == 0
        assert not taken.state.exists()


def test_a_fleet_is_not_deployed_to_the_lab_of_another(
    taken: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIVNET_LAB", "taken")
    with pytest.raises(LabError, match="is not what lab 'taken' runs") as error:
        ssh_config_of(tmp_path / "other")
    assert error.value.help == (
        f"give it a lab of its own, `privnet lab up {tmp_path}/other --name NAME`, and say NAME in PRIVNET_LAB; "
        "`privnet lab down --name taken` removes the hosts of the other fleet"
    )


# what is missing


def test_an_ordinary_user_is_told_to_become_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="only root may"):
        requirements.check()


def test_missing_programs_are_named_all_at_once_with_their_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError) as error:
        requirements.check()
    for expected in ("apt-get install systemd-container", "apt-get install mmdebstrap", "make setup"):
        assert expected in str(error.value)


# images


def test_another_list_of_packages_is_another_root_file_system() -> None:
    assert image.Image("x", ("a", "b")).digest == image.Image("x", ("b", "a")).digest
    assert image.Image("x", ("a", "b")).digest != image.Image("x", ("a", "b", "c")).digest
    assert image.Image("x", ("a",), "bookworm").path != image.Image("x", ("a",), "trixie").path


def test_an_image_knows_the_releases_that_its_packages_come_from() -> None:
    assert image.full("bookworm").releases == ("bookworm",)
    assert image.full("trixie").releases == ("trixie", "bookworm")  # wireguard-go
    assert image.bare("trixie").releases == ("trixie",)


BOOKWORM = """\
Packages|Debian|bookworm|http://archive.example/debian/|bookworm|main|/etc/apt/debian.gpg
Translations|Debian|bookworm|http://archive.example/debian/|bookworm|main|/etc/apt/debian.gpg
Packages|Debian|bookworm-security|http://archive.example/security/|stable-security|main|
Packages|Example|bookworm|http://other.example/|bookworm|main|
"""
TRIXIE = "Packages|Debian|trixie|http://archive.example/debian/|trixie|main|-----BEGIN PGP PUBLIC KEY BLOCK-----\n"


@pytest.mark.parametrize(
    ("known", "release", "expected"),
    [
        (
            BOOKWORM,
            "bookworm",
            "deb [signed-by=/etc/apt/debian.gpg] http://archive.example/debian/ bookworm main\n"
            "deb http://archive.example/security/ stable-security main\n",
        ),
        (
            BOOKWORM,
            "trixie",
            "deb [signed-by=/etc/apt/debian.gpg] http://archive.example/debian/ trixie main\n"
            "deb http://archive.example/security/ trixie-security main\n",
        ),
        (BOOKWORM + TRIXIE, "trixie", "deb http://archive.example/debian/ trixie main\n"),
        (TRIXIE, "bookworm", "deb http://archive.example/debian/ bookworm main\n"),
    ],
    ids=["own", "derived", "of two", "of a newer machine"],
)
def test_package_sources_of_a_release_are_this_machines_or_derived_from_them(
    known: str, release: str, expected: str
) -> None:
    assert archive.entries(known, release) == expected


def test_a_machine_without_a_source_of_debian_is_told_what_to_do() -> None:
    with pytest.raises(LabError) as refused:
        archive.entries("Packages|Ubuntu|noble|http://archive.example/|noble|main|\n", "bookworm")
    assert str(refused.value) == (
        "apt on this machine knows no package source of Debian, which lab hosts are made from\n"
        "  = help: add the Debian archive to /etc/apt/sources.list and run `apt-get update`"
    )


def test_a_release_that_lab_hosts_cannot_run_is_refused() -> None:
    with pytest.raises(LabError) as refused:
        archive.check_release("sid")
    assert str(refused.value) == (
        "lab hosts cannot run the release 'sid'; they can run bookworm (Debian 12), trixie (Debian 13)"
    )


def test_the_local_archives_index_describes_each_package(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    control = "Package: tiny\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <n@example>\nDescription: tiny\n"
    (tree / "DEBIAN" / "control").write_text(control)
    subprocess.run(
        ["dpkg-deb", "--build", str(tree), str(tmp_path / "tiny_1.0_all.deb")], check=True, capture_output=True
    )
    index = image._index(tmp_path)
    assert "Package: tiny\n" in index and "Filename: ./tiny_1.0_all.deb\n" in index
    assert f"Size: {(tmp_path / 'tiny_1.0_all.deb').stat().st_size}\n" in index


def test_the_module_runs_as_a_program() -> None:
    answer = subprocess.run([sys.executable, "-m", "privnet.lab", "--help"], capture_output=True, text=True)
    assert answer.returncode == 0
    for command in ("up", "down", "status", "exec", "reboot", "kill", "start", "capture"):
        assert f" {command} " in answer.stdout
