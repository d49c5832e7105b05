"""From a directory to files: phases stop one another, nothing is written, nobody is asked."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from privnet.compiler import compile_fleet, render_fleet
from privnet.diagnostics import DeclarationError
from privnet.model.lock import forget_host_keys
from privnet.store import load_lock, lock_path, save_lock

Written = Callable[..., Path]


@pytest.fixture
def fleet(fleets: Any, written: Written) -> Path:
    project = fleets.project("shop", {"a": {"web": ["h1", "h2"]}})
    return written({"hosts": fleets.hosts("h1", "h2")}, {"shop": project})


def codes(directory: Path) -> list[str]:
    with pytest.raises(DeclarationError) as caught:
        compile_fleet(directory)
    return [problem.code for problem in caught.value.problems]


def test_the_lock_on_disk_and_the_one_to_be_are_told_apart(fleet: Path) -> None:
    compiled = compile_fleet(fleet)
    assert compiled.known.serial == 0
    assert compiled.lock_changed
    save_lock(fleet, compiled.lock)
    again = compile_fleet(fleet)
    assert not again.lock_changed
    assert again.lock == load_lock(fleet, "test")


def test_compiling_and_rendering_write_nothing(fleet: Path) -> None:
    before = {path: path.read_bytes() for path in fleet.rglob("*") if path.is_file()}
    render_fleet(compile_fleet(fleet).plan)
    assert {path: path.read_bytes() for path in fleet.rglob("*") if path.is_file()} == before


def test_a_phase_reports_all_of_its_problems_and_stops_the_next(fleet: Path, fleets: Any) -> None:
    fleets.write(fleet, {"hosts": fleets.hosts("h3")}, {"blog": {"projct": "blog"}})
    assert codes(fleet) == ["PN202"]
    (fleet / "projects" / "blog.yaml").unlink()
    assert codes(fleet) == ["PN301", "PN301"]


def test_a_damaged_lock_file_is_refused_before_anything_is_checked(fleet: Path, fleets: Any) -> None:
    save_lock(fleet, compile_fleet(fleet).lock)
    lock_path(fleet).write_text(lock_path(fleet).read_text().replace("10.240.0.2", "10.240.0.9"))
    fleets.write(fleet, {"hosts": fleets.hosts("h3")}, {})
    assert codes(fleet) == ["PN501"]


def test_the_garbage_collector_is_left_as_it_was(fleet: Path) -> None:
    assert gc.isenabled()
    render_fleet(compile_fleet(fleet).plan)
    assert gc.isenabled()
    gc.disable()
    try:
        compile_fleet(fleet)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_bytes_do_not_depend_on_the_process_its_place_or_its_environment(fleet: Path, tmp_path: Path) -> None:
    save_lock(fleet, compile_fleet(fleet).lock)
    program = (
        "import hashlib, sys; from pathlib import Path; from privnet.compiler import compile_fleet, render_fleet; "
        "files = render_fleet(compile_fleet(Path(sys.argv[1])).plan); "
        "print(hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest())"
    )
    found = set()
    for seed, place, zone in (("0", tmp_path, "UTC"), ("1", Path("/"), "Asia/Tokyo"), ("2", fleet, "America/Lima")):
        environment = {"PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": "C" if seed == "0" else "C.UTF-8"}
        command = [sys.executable, "-c", program, str(fleet)]
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1


def test_a_host_s_key_reaches_its_peers_and_no_one_else(fleet: Path, fleets: Any) -> None:
    fleets.write(fleet, {"hosts": fleets.hosts("h1", "h2", "h3")}, {})
    lock = compile_fleet(fleet).lock
    hosts = {name: replace(host, wireguard=name[1] * 42 + "A=") for name, host in lock.hosts.items()}
    save_lock(fleet, replace(lock, hosts=hosts))
    meshes = {
        name: next(file.text for file in files if file.path == "/etc/privnet/mesh.conf")
        for name, files in render_fleet(compile_fleet(fleet).plan).items()
    }
    assert hosts["h2"].wireguard in meshes["h1"]
    assert hosts["h1"].wireguard in meshes["h2"]
    assert "[Peer]" not in meshes["h3"]
    assert all(hosts[name].wireguard not in text for name, text in meshes.items())
    assert forget_host_keys(load_lock(fleet, "test")).hosts["h1"].wireguard is None
