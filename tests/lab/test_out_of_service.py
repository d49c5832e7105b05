"""A host that is dead holds what moves in its networks, until the fleet goes on without it; and how it comes back."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from meter import Flow, assert_unharmed, metering
from runs import (
    BLOG,
    PAGES,
    PYINFRA,
    SHOP,
    STOREFRONT,
    WATCHED,
    assert_reachable,
    container_of,
    deploy,
    edit,
    inside,
    plan_of,
    replace_once,
)

from privnet.compiler import compile_fleet
from privnet.lab import Lab

pytestmark = pytest.mark.alone

THERE, BACK = Flow(f"1.web.{PAGES}", f"2.web.{PAGES}"), Flow(f"2.web.{PAGES}", f"1.web.{PAGES}")
"""Between the two living hosts, in a network that the dead one is in."""
MOVES = f"2.web.{STOREFRONT}"
"""From lab-2 to lab-1; the dead host is in its network, too."""
DEAD = f"1.worker.{PAGES}"


@pytest.fixture(scope="module")
def lab(fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]) -> Lab:
    lab = fleet(inventory_copy("lab"))
    deploy(lab)
    return lab


def privnet(lab: Lab, command: str, *arguments: str) -> tuple[int, str]:
    """How `privnet COMMAND INVENTORY` ends, and what it says."""
    done = subprocess.run(
        [str(PYINFRA.with_name("privnet")), command, str(lab.inventory), *arguments],
        env={**os.environ, "PRIVNET_LAB": lab.name, "PYINFRA_PROGRESS": "off"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    print(done.stdout, done.stderr)
    return done.returncode, done.stdout + done.stderr


def declare(lab: Lab, old: str, new: str) -> None:
    """Change what fleet.yaml says of lab-3."""
    fleet = "lab-3: {address: 192.0.2.13, zone: b, "
    replace_once(lab.inventory / "fleet.yaml", f"{fleet}{old}ssh:", f"{fleet}{new}ssh:")


def runs_on(lab: Lab, host: str, slot: str) -> bool:
    return lab.exec(host, ["test", "-e", f"/run/netns/{slot}"], check=False).returncode == 0


@pytest.mark.proves("P16", "moves and migrations")
def test_a_move_between_living_hosts_completes_when_the_dead_one_is_out_and_it_comes_back_by_a_run(lab: Lab) -> None:
    address = container_of(lab, DEAD).address
    lock = compile_fleet(lab.inventory).known
    key, mesh = lock.hosts["lab-3"].wireguard, plan_of(lab).hosts["lab-3"].mesh.address
    lab.kill("lab-3")
    with metering(lab, THERE, BACK) as meter:
        # The twin: while the dead host is expected, the old place of what moves is kept for it.
        edit(lab, "shop", "web: [lab-1, lab-2]", "web: [lab-1, lab-1]")
        with meter.during("a move, and the dead host is expected") as seen:
            code, said = privnet(lab, "deploy", "-y")
        assert code == 3
        assert f"held back: {MOVES} in {SHOP} goes to lab-1, but lab-3 has not answered, and may still send to" in said
        assert "A host that stays away holds back moves until fleet.yaml says `state: out` of it" in said
        assert runs_on(lab, "lab-1", MOVES) and runs_on(lab, "lab-2", MOVES)
        assert_unharmed(seen)

        declare(lab, "", "state: out, ")
        code, said = privnet(lab, "plan", "--live")
        assert "~ setting hosts.lab-3.state: in → out" in said and "2 of 2 hosts answered" in said
        assert re.search(r"outage, flows of containers on the host: the other hosts drop it", said)
        with meter.during("without the dead host") as seen:
            code, said = privnet(lab, "deploy", "-y")
        assert (code, said.count("lab-3  ")) == (0, 0), "no run goes there"
        assert "DONE: 2 hosts as planned" in said and "warning[PN706]: " in said
        assert_unharmed(seen)
        assert runs_on(lab, "lab-1", MOVES) and not runs_on(lab, "lab-2", MOVES)
        for host in ("lab-1", "lab-2"):
            assert key not in lab.exec(host, "wg show privnet peers | sort").stdout
            assert mesh not in lab.exec(host, "nft list ruleset; bridge fdb").stdout
        name = f"{DEAD}.{BLOG}.private-network.internal"
        assert inside(lab, THERE.source, "getent", "ahostsv4", name, check=False) == ""
        assert_reachable(lab)
        assert deploy(lab).changed == {}
        code, said = privnet(lab, "audit")
        assert code == 0 and "lab-3" not in said

        # On again it is shut out, whatever it still believes, and no run goes there.
        lab.start("lab-3")
        ping = ["ip", "netns", "exec", DEAD, "ping", *WATCHED, "-c", "2", "-W", "1"]
        target = container_of(lab, THERE.source).address
        assert lab.exec("lab-3", [*ping, target], check=False).returncode == 1
        before = lab.exec("lab-3", "cat /etc/privnet/applied; wg show privnet peers | sort").stdout
        assert deploy(lab).changed == {}
        assert lab.exec("lab-3", "cat /etc/privnet/applied; wg show privnet peers | sort").stdout == before

        declare(lab, "state: out, ", "")
        with meter.during("the host is back") as seen:
            code, said = privnet(lab, "deploy", "-y")
        assert code == 0 and "DONE: 3 hosts as planned" in said
        assert_unharmed(seen)
    assert container_of(lab, DEAD).address == address
    assert lab.exec("lab-3", [*ping, target]).returncode == 0
    assert_reachable(lab)
    assert deploy(lab).changed == {}
    code, said = privnet(lab, "audit")
    assert code == 0 and "lab-3" in said


def test_a_host_that_fails_and_is_first_by_name_stops_one_run_and_no_other(lab: Lab) -> None:
    """What fails there has nothing to do with the change, and the next run knows it."""
    lab.exec("lab-1", "mount --bind /etc/privnet /etc/privnet; mount -o remount,bind,ro /etc/privnet")
    try:
        edit(lab, "blog", "web: [lab-1, lab-2]", "web: [lab-1, lab-2, lab-3]")
        code, said = privnet(lab, "deploy", "-y")
        assert (
            code == 1 and "nothing else is changed: lab-1, the first host of this change, has failed. The next" in said
        )
        code, said = privnet(lab, "deploy", "-y")
        assert code == 1 and "lab-1  failed" in said
        assert {"lab-2", "lab-3"} == set(re.findall(r"(lab-\d)  changed and confirmed", said))
    finally:
        lab.exec("lab-1", "umount /etc/privnet")
    deploy(lab)
    assert_reachable(lab)
