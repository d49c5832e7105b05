"""A host whose units do not run as its files say: one run makes it what the plan says, and says so only then."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from runs import (
    SHOP,
    STOREFRONT,
    assert_reachable,
    container_of,
    count_questions,
    deploy,
    edit,
    inside,
    plan_of,
    questions,
)
from test_drift import audit
from test_rollback import privnet_deploy
from typer.testing import CliRunner

from privnet.cli import app
from privnet.lab import Lab

pytestmark = pytest.mark.lab

STOPPED = "systemctl stop 'privnet-*' wg-quick@privnet.service"
MOVED = ("web: [lab-1, lab-2]", "web: [lab-1, lab-3]")
OLD = f"2.web.{STOREFRONT}"
OURS = "/etc/privnet /etc/netns /etc/systemd/system /etc/systemd/network /etc/wireguard /var/lib/privnet"


@pytest.fixture(scope="module")
def lab(fleet, inventory_copy) -> Iterator[Lab]:
    """Three hosts with containers and one without."""
    inventory = inventory_copy("lab")
    file = inventory / "fleet.yaml"
    file.write_text(file.read_text().replace("  lab-3:", "  lab-4: {address: 192.0.2.14, zone: a}\n  lab-3:"))
    lab = fleet(inventory)
    for host in lab.hosts:
        count_questions(lab, host)
    deploy(lab)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIVNET_LAB", lab.name)
        yield lab


def holders(lab: Lab, slot: str) -> list[str]:
    """Hosts with a namespace of a container that has its address; another network has the same addresses."""
    look, address = f"ip -n {slot} -o -4 addr show dev pn0", container_of(lab, slot).address
    return [host for host in plan_of(lab).hosts if f" {address}/" in lab.exec(host, look, check=False).stdout]


def assert_done_by(lab: Lab, done) -> None:
    """One run was enough: it said so, the audit agrees, and the next one finds nothing."""
    assert done.returncode == 0 and "DONE: 4 hosts as planned" in done.stdout, done.stdout + done.stderr
    assert {host: found for host in plan_of(lab).hosts if (found := audit(lab, host))} == {}
    assert deploy(lab).changed == {}


def _stop(lab: Lab) -> None:
    lab.exec("lab-2", STOPPED)


def _mask(lab: Lab) -> None:
    """The same, and the target is masked, though what is in /etc hides that."""
    lab.exec("lab-2", f"systemctl mask --quiet --runtime privnet-networks.target; {STOPPED}")


def _fail(lab: Lab) -> None:
    """A unit of the old plan has failed, and the target is inactive."""
    port = container_of(lab, OLD).port
    lab.exec("lab-2", f"systemctl stop privnet-networks.target; systemctl stop privnet-container@{port}.service")
    lab.exec("lab-2", "mkdir -p /run/systemd/system/privnet-namespace@.service.d")
    broken = "/run/systemd/system/privnet-namespace@.service.d/broken.conf"
    lab.exec("lab-2", f"printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' > {broken}; systemctl daemon-reload")
    lab.exec("lab-2", f"systemctl start privnet-container@{port}.service", check=False)
    lab.exec("lab-2", f"rm -r {broken.rpartition('/')[0]}; systemctl daemon-reload")


BEFORE: dict[str, Callable[[Lab], None]] = {
    "its units were stopped": _stop,
    "its units were stopped and the target is masked": _mask,
    "the container's units have failed and the target is inactive": _fail,
}


@pytest.mark.parametrize("what", BEFORE)
def test_a_container_leaves_a_host_whose_units_do_not_run(lab: Lab, what: str) -> None:
    assert holders(lab, OLD) == ["lab-2"]
    BEFORE[what](lab)
    edit(lab, "shop", *MOVED)
    try:
        before = questions(lab, "lab-2")
        done = privnet_deploy(lab)
        asked = questions(lab, "lab-2") - before
        assert holders(lab, OLD) == ["lab-3"]
        assert_done_by(lab, done)
        assert asked <= 4, "the question, two waves, and the confirmation, which asks once more"
        assert_reachable(lab)
    finally:
        edit(lab, "shop", *reversed(MOVED))
        deploy(lab)


def test_files_of_an_older_backup_start_nothing(lab: Lab) -> None:
    lab.exec("lab-2", f"tar -cf /root/backup.tar {OURS}")
    edit(lab, "shop", *MOVED)
    try:
        deploy(lab)
        lab.exec("lab-2", f"{STOPPED}; tar -C / -xf /root/backup.tar")
        done = privnet_deploy(lab)
        assert holders(lab, OLD) == ["lab-3"]
        assert_done_by(lab, done)
    finally:
        edit(lab, "shop", *reversed(MOVED))
        deploy(lab)


def test_a_copy_of_another_host_becomes_what_it_is_to_be(lab: Lab) -> None:
    """As its disk was when it was copied; its own key is new, as PN508 says."""
    lab.exec("lab-1", f"tar -cf /root/copy.tar {OURS}")
    lab.exec("lab-4", f"{STOPPED}; rm -rf /etc/privnet /var/lib/privnet")
    copy = lab.exec("lab-1", "base64 -w 0 /root/copy.tar").stdout
    lab.exec("lab-4", ["sh", "-c", "base64 -d | tar -C / -x"], input=copy)
    assert CliRunner().invoke(app, ["forget", str(lab.inventory), "lab-4"]).exit_code == 0
    refused = privnet_deploy(lab)
    assert refused.returncode == 1 and "PN508" in refused.stdout + refused.stderr
    lab.exec("lab-4", "rm /etc/wireguard/privnet.key")
    done = privnet_deploy(lab)
    assert holders(lab, f"1.web.{STOREFRONT}") == ["lab-1"]
    assert_done_by(lab, done)


def test_a_run_that_leaves_something_undone_does_not_say_that_it_is_done(lab: Lab) -> None:
    """Somebody stops what every run starts, as soon as it is started."""
    network = plan_of(lab).networks[SHOP]
    unit = f"privnet-overlay@{network.vni}.service"
    hook = "/run/systemd/system/privnet-dns@.service.d"
    stops = f"ExecStartPost=+/bin/systemctl stop --no-block {unit}"
    lab.exec("lab-2", f"mkdir -p {hook}; printf '[Service]\\n{stops}\\n' > {hook}/x.conf")
    try:
        lab.exec("lab-2", f"systemctl daemon-reload; systemctl stop privnet-dns@{SHOP}.service")
        done = privnet_deploy(lab)
        assert done.returncode == 3, done.stdout + done.stderr
        assert "lab-2  pending: it was changed, and is not as planned: a run would still" in done.stdout
        assert f"run systemctl start {unit}" in done.stdout
    finally:
        lab.exec("lab-2", f"rm -r {hook}; systemctl daemon-reload")
    assert_done_by(lab, privnet_deploy(lab))
    assert inside(lab, f"1.web.{STOREFRONT}", "true") == ""
