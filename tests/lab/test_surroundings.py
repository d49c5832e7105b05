"""What a host brings along that private networks cannot live with, or that takes them down later, on real hosts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import PYINFRA, deploy

from privnet.lab import Lab

DROP_IN = "/run/systemd/system/{}.d/broken.conf"


@pytest.fixture(scope="module")
def lab(fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]) -> Lab:
    """Three hosts with the private networks of the example."""
    lab = fleet(inventory_copy("lab"))
    deploy(lab)
    return lab


def privnet(lab: Lab, *words: str) -> tuple[int, str]:
    """The exit code of `privnet …`, and all that it said."""
    command = [str(PYINFRA.with_name("privnet")), *words]
    environment = os.environ | {"PRIVNET_LAB": lab.name}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("unit", ["privnet-container@.service", "wg-quick@privnet.service"])
def test_a_unit_that_fails_says_why(lab: Lab, unit: str) -> None:
    path = DROP_IN.format(unit)
    lines = ("[Service]", "ExecStart=", "ExecStart=/bin/sh -c 'echo the \\033[31mcause is here >&2; exit 7'")
    lab.exec("lab-2", f"mkdir -p {path.rpartition('/')[0]}; cat > {path}", input="\n".join(lines) + "\n")
    lab.exec("lab-2", "systemctl daemon-reload; systemctl stop wg-quick@privnet.service 'privnet-container@*'")
    try:
        failed = deploy(lab, check=False)
    finally:
        lab.exec("lab-2", f"rm {path}; systemctl daemon-reload")
    assert failed.code == 1
    name = unit.partition("@")[0]
    assert f"lab-2: {name}@" in failed.output and "the \\x1b[31mcause is here\n" in failed.output
    deploy(lab)
    assert deploy(lab).changed == {}


@pytest.mark.parametrize("shell", ["/bin/tcsh", "/bin/rbash"])
def test_any_login_shell_will_do(lab: Lab, tmp_path: Path, shell: str) -> None:
    lab.exec("lab-2", f"usermod -s {shell} root; ip link delete dev pnx4096")
    try:
        assert privnet(lab, "deploy", str(lab.inventory), "-y")[0] == 0
        audited = privnet(lab, "audit", str(lab.inventory), "--quick")
        config = str(lab.ssh_config)
        imported = privnet(lab, "import", "root@lab-2", "--ssh-config", config, "--output", str(tmp_path / "again"))
    finally:
        lab.exec("lab-2", "usermod -s /bin/bash root")
    assert (audited[0], "not possible" in audited[1]) == (0, False)
    assert "2 private networks" in imported[1].splitlines()[0], imported


@pytest.mark.parametrize("words", ["audit {}", "audit {} 2>&1", "deploy {} -y 2>&1", "plan {} --live"])
def test_an_output_that_nobody_reads_ends_nothing_with_a_traceback(lab: Lab, words: str) -> None:
    lab.exec("lab-2", "ip link delete dev pnx4096")
    command = f"{PYINFRA.with_name('privnet')} {words.format(lab.inventory)} | head -1"
    environment = os.environ | {"PRIVNET_LAB": lab.name}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert "Broken" not in done.stderr and "Traceback" not in done.stderr and "INTERNALERROR" not in done.stderr
    # A run goes on to its end, whoever has read that it began.
    there = lab.exec("lab-2", "ip link show dev pnx4096", check=False).returncode == 0
    assert there == words.startswith("deploy")
    deploy(lab)
