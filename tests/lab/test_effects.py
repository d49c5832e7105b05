"""Units that are active without their effect, and effects without their unit: one run repairs each, and cuts none."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from runs import PAGES, SHOP, STOREFRONT, assert_lossless, deploy, flowing, plan_of
from test_drift import audit, look

from privnet.lab import Lab

pytestmark = pytest.mark.lab

HOST = "lab-1"
MINE, NEIGHBOUR = f"1.web.{STOREFRONT}", f"1.web.{PAGES}"
"""Two containers of the host, in different networks, both with processes in their namespaces."""


def name_of(namespace: str) -> str:
    return f"/run/netns/{namespace}"


EFFECTS = {
    "a container's name unmounted": f"umount -l {name_of(MINE)}",
    "a container's name unmounted and removed": f"umount -l {name_of(MINE)}; rm {name_of(MINE)}",
    "the host's namespace over a container's": f"mount --bind /proc/1/ns/net {name_of(MINE)}",
    "another network's container over a container": f"mount --bind {name_of(NEIGHBOUR)} {name_of(MINE)}",
    "a container's name leads to another container": (
        f"umount -l {name_of(MINE)}; mount --bind {name_of(NEIGHBOUR)} {name_of(MINE)}"
    ),
    "a resolver's name unmounted": f"umount -l {name_of(SHOP)}",
    "a resolver's name unmounted, and its resolver restarted": (
        f"umount -l {name_of(SHOP)}; systemctl restart --no-block privnet-dns@{SHOP}.service; sleep 1"
    ),
    "the mesh brought up by hand": (
        "systemctl stop wg-quick@privnet.service; wg-quick up privnet; sh /etc/privnet/lib/mesh.sh greet; sleep 1"
    ),
    "the mesh brought up by hand, and its unit failed": (
        "mkdir -p /run/systemd/system/wg-quick@privnet.service.d; "
        "printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\nRestart=no\\n' > "
        "/run/systemd/system/wg-quick@privnet.service.d/zz.conf; systemctl daemon-reload; "
        "systemctl restart wg-quick@privnet.service; rm -r /run/systemd/system/wg-quick@privnet.service.d; "
        "systemctl daemon-reload; wg-quick up privnet; sh /etc/privnet/lib/mesh.sh greet; sleep 1"
    ),
    "a device of another kind in the mesh's place": (
        "systemctl stop wg-quick@privnet.service; ip link add privnet type dummy"
    ),
    "devices of an overlay whose unit is inactive": (
        "systemctl stop privnet-overlay@VNI.service; ip link set pnxVNI up; sleep 1"
    ),
    "the guard's unit stopped": "systemctl stop privnet-guard.service",
}
CUT = ("a device of another kind in the mesh's place", "the guard's unit stopped")
"""What cuts all flows between hosts by itself. Beside every other one they lose nothing until the end of the run."""
BY_HAND = re.compile("wg-quick@privnet.service loaded active (exited|running)")
"""wireguard-go that a hand has started stays no process of the unit that takes its interface over."""


@pytest.fixture(scope="module")
def lab(fleet, inventory_copy) -> Iterator[Lab]:
    lab = fleet(inventory_copy("lab"))
    deploy(lab)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIVNET_LAB", lab.name)
        yield lab


@pytest.fixture(scope="module")
def planned(lab: Lab) -> list[str]:
    assert audit(lab) == {}
    return look(lab)


@contextmanager
def living(lab: Lab, *slots: str) -> Iterator[None]:
    """A process in each namespace, as a container has one."""
    unit = "privnet-test-life"
    for number, slot in enumerate(slots):
        run = f"systemd-run --quiet --unit={unit}-{number} -p NetworkNamespacePath={name_of(slot)} sleep 600"
        lab.exec(HOST, run.replace("privnet-test", "test"))
    try:
        yield
    finally:
        lab.exec(HOST, "systemctl stop 'test-life-*'", check=False)


def pairs() -> tuple[tuple[str, str], ...]:
    """From other hosts to containers of this one, in both networks."""
    return (
        (f"1.worker.{STOREFRONT}", MINE),
        (f"2.web.{PAGES}", NEIGHBOUR),
        (f"1.worker.{PAGES}", NEIGHBOUR),
    )


@pytest.mark.parametrize("what", EFFECTS)
def test_one_run_repairs_it_and_cuts_nothing(lab: Lab, planned: list[str], what: str) -> None:
    command = EFFECTS[what].replace("VNI", str(plan_of(lab).networks[SHOP].vni))
    with living(lab, MINE, NEIGHBOUR):
        before = {slot: _namespace(lab, slot) for slot in (MINE, NEIGHBOUR)}
        lab.exec(HOST, command, check=False)
        assert look(lab) != planned, "the deviation changes nothing: the test sees nothing"
        assert audit(lab) != {}
        with flowing(lab, *pairs()) as flows:
            time.sleep(0.5)
            run = deploy(lab, check=False)
        assert run.code == 0, run.output
        assert "is not as planned" not in run.output
        if what in CUT:
            assert any(flow.lost for flow in flows), "the twin: what is cut is seen"
        else:
            assert_lossless(flows)
        assert {slot: _namespace(lab, slot) for slot in before} == before, "the process is where its container is"
        assert audit(lab) == {}
        assert _same(look(lab)) == _same(planned)
        assert deploy(lab).changed == {}


def _same(lines: list[str]) -> list[str]:
    return [BY_HAND.sub("wg-quick@privnet.service loaded active", line) for line in lines]


def _namespace(lab: Lab, slot: str) -> str:
    """The namespace that a container's name leads to."""
    return lab.exec(HOST, f"stat -L -c %i {name_of(slot)}").stdout


def test_a_name_whose_namespace_is_gone_gets_a_new_one(lab: Lab, planned: list[str]) -> None:
    """The twin: nobody lives in it, so with the name it goes."""
    lab.exec(HOST, f"umount -l {name_of(MINE)}")
    run = deploy(lab)
    assert "is not as planned" not in run.output
    assert _same(look(lab)) == _same(planned) and audit(lab) == {}
    assert deploy(lab).changed == {}
