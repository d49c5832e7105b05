"""Every ordered pair of endpoints, over TCP, UDP and ICMP, against the oracle; and again after each kind of change."""

from __future__ import annotations

import time

import pytest

from lab.kernel import as_owner
from lab.runs import deploy, edit, give_application, take_application

from .oracle import PROTOCOLS
from .scene import ALONE, BLOG, PAGES, SHOP, SOLO, STOREFRONT, Scene

# Probes between hosts, operator and outsider, and from the container outside any network.
UNDERLAY = (
    "(src net 192.0.2.0/24 or src net 198.51.100.0/24) and "
    "(tcp portrange 20000-30000 or udp portrange 20000-30000 or icmp)"
)


def assert_as_declared(scene: Scene) -> None:
    """Twice: others are sought on one's own link, and through the host. What has been removed is probed as well."""
    scene.look()
    seconds = 0.0
    for as_neighbours in (True, False):
        scene.hostile(as_neighbours=as_neighbours)
        begun = time.monotonic()
        wrong = scene.matrix()
        seconds += time.monotonic() - begun
        print(f"{len(scene.everybody)} endpoints and {len(scene.gone)} of before probed in {seconds:.1f} s")
        if wrong and not any(" reaches " in line for line in wrong):
            # Two new peers that begin a handshake in the same moment refuse each other's, and try again after 5 s
            # (WireGuard whitepaper, 6.1 and 6.4): all probes begin in the same moment.
            time.sleep(6)
            wrong = scene.matrix()
        assert not wrong, "\n".join(wrong)
    assert seconds < 30


@pytest.mark.proves("P2", "private networks")
def test_as_declared(scene: Scene) -> None:
    assert_as_declared(scene)


@pytest.mark.proves("P2", cases=("same addresses",))
@pytest.mark.parametrize(("host", "other"), [("lab-3", SOLO), ("lab-1", BLOG)], ids=["same addresses", "others"])
def test_the_matrix_sees_a_way_that_must_not_be(scene: Scene, host: str, other: str) -> None:
    """The twin: two bridges joined on a host, whose guard carries frames between all ports."""
    scene.hostile(as_neighbours=True)
    ports = f"pnb{scene.vni(SHOP)} pnb{scene.vni(other)}"
    add = "set -- {}; ip link add j0 type veth peer name j1; ip link set j0 master $1 up; ip link set j1 master $2 up"
    scene.run(host, add.format(ports))
    forwarding = "until [ $(cat /sys/class/net/j0/brport/state /sys/class/net/j1/brport/state | grep -cx 3) = 2 ]"
    try:
        scene.run(host, f"n=0; {forwarding}; do n=$((n + 1)); [ $n -lt 100 ] || exit 1; sleep 0.1; done")
        assert scene.matrix() == [], "the guard carries frames of ports that are not planned"
        scene.run(host, as_owner("flush chain bridge privnet forward"))
        # Who had no answer to its ARP before may not ask again while one look takes.
        seen = any(" reaches " in line for _ in range(3) for line in scene.matrix())
    finally:
        scene.run(host, "ip link del j0; systemctl reload privnet-guard")
    assert seen


def test_the_matrix_sees_a_way_through_a_host(scene: Scene) -> None:
    """The twin: a host that forwards has an address in two networks, and its guard lets their frames in and out."""
    scene.hostile()
    source, target = scene[f"1.web.{STOREFRONT}"], scene[f"1.web.{PAGES}"]
    assert (source.place, target.place) == ("lab-1", "lab-1")
    assert scene.run("lab-1", "sysctl -n net.ipv4.ip_forward") == "1\n"
    address = "{0}/{1.prefixlen} dev pnb{2}"
    own = [address.format(scene.cidr(n)[-2], scene.cidr(n), scene.vni(n)) for n in (SHOP, BLOG)]
    give, take = ("; ".join(f"ip address {verb} {where}" for where in own) for verb in ("add", "del"))
    open_both = as_owner("flush chain bridge privnet input; flush chain bridge privnet output")
    with scene.watch().planting():  # the same way leads on to the underlay
        try:
            scene.run("lab-1", f"{give}; {open_both}")
            wrong = scene.matrix()
        finally:
            scene.run("lab-1", f"{take}; systemctl reload privnet-guard")
    assert {f"{source} reaches {target} over {protocol}" for protocol in PROTOCOLS} <= {*wrong}, wrong


def test_the_matrix_sees_a_way_that_is_missing(scene: Scene) -> None:
    scene.run("lab-2", f"ip link set pnx{scene.vni(SHOP)} down")
    try:
        wrong = scene.matrix()
    finally:
        scene.run("lab-2", f"systemctl restart privnet-overlay@{scene.vni(SHOP)}")
    assert any("does not reach" in line for line in wrong)


def test_the_matrix_sees_what_was_removed_and_is_still_there(scene: Scene) -> None:
    """The twin: a container that is declared no more, and no run has removed it."""
    project = scene.lab.inventory / "projects/shop.yaml"
    declared, removed = project.read_text(), scene[f"1.worker.{STOREFRONT}"]
    edit(scene.lab, "shop", "      worker: [lab-3]\n", "")
    try:
        scene.look()
        wrong = scene.matrix()
    finally:
        project.write_text(declared)
        scene.look()
    before = f"{removed} of before on {removed.place}"
    assert f"{before} has left its namespace behind" in wrong, wrong
    for protocol in PROTOCOLS:
        assert f"1.web.{STOREFRONT} reaches {before} over {protocol}" in wrong, wrong


@pytest.mark.parametrize("change", ["move", "scale up", "scale down", "migrate", "remove network", "remove host"])
def test_as_declared_after(scene: Scene, change: str) -> None:
    lab = scene.lab
    if change == "move":
        edit(lab, "shop", "web: [lab-1, lab-2]", "web: [lab-1, lab-3]")
    elif change == "scale up":
        edit(lab, "blog", "worker: [lab-2]", "worker: [lab-2, lab-3]")
    elif change == "scale down":
        edit(lab, "blog", "worker: [lab-2, lab-3]", "worker: [lab-2]")
    elif change == "migrate":
        give_application(lab, "blog", take_application(lab, "shop", STOREFRONT))
        give_application(lab, "shop", take_application(lab, "solo", ALONE))
    elif change == "remove network":
        (lab.inventory / "projects/solo.yaml").unlink()
        (lab.inventory / "projects/shop.yaml").unlink()
    else:
        edit(lab, "blog", "worker: [lab-3]", "worker: [lab-2]")
        edit(lab, "blog", "web: [lab-1, lab-3]", "web: [lab-1, lab-2]")
        fleet = lab.inventory / "fleet.yaml"
        fleet.write_text(fleet.read_text().replace("  lab-3: {address: 192.0.2.13, zone: b}\n", ""))
    deploy(lab, allow=True)
    assert_as_declared(scene)
