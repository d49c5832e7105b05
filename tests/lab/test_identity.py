"""A host is known by its keys: a reinstalled one is let in again only when a person says so."""

from __future__ import annotations

import pytest
from runs import BLOG, PAGES, assert_lossless, container_of, deploy, flowing, listening, probe
from typer.testing import CliRunner

from privnet.cli import app
from privnet.lab import Lab


@pytest.mark.proves("reinstalled hosts")
def test_a_host_with_another_key_is_refused_until_it_is_forgotten(shared_fleet) -> None:
    lab: Lab = shared_fleet("lab")
    old = lab.exec("lab-2", "wg show privnet public-key").stdout.strip()
    # The key of another machine: what a reinstalled host, or one that only has its address, would have.
    lab.exec("lab-2", "umask 077; wg genkey > /etc/wireguard/privnet.key")
    flow = (f"1.web.{PAGES}", f"1.worker.{PAGES}")
    with flowing(lab, flow) as flows:
        refused = deploy(lab, check=False)
    assert_lossless(flows)
    assert refused.code == 1
    assert "another machine answers at its address, or it was reinstalled" in refused.output
    # As seen from the directory that pyinfra was started in, which is / here.
    assert f"privnet forget {lab.inventory.relative_to('/')} lab-2" in refused.output
    for host in ("lab-1", "lab-3"):
        assert old in lab.exec(host, "wg show privnet peers").stdout, "nothing may change for the others"
    done = CliRunner().invoke(app, ["forget", str(lab.inventory), "lab-2"])
    assert done.exit_code == 0, done.output
    deploy(lab)
    new = lab.exec("lab-2", "wg show privnet public-key").stdout.strip()
    assert new != old
    for host in ("lab-1", "lab-3"):
        peers = lab.exec(host, "wg show privnet peers; cat /etc/wireguard/privnet.conf").stdout
        assert new in peers and old not in peers
    with listening(lab, f"2.web.{PAGES}"):
        assert container_of(lab, f"2.web.{PAGES}").host == "lab-2"
        name = f"2.web.{PAGES}.{BLOG}.private-network.internal"
        assert probe(lab, f"1.worker.{PAGES}", "tcp", name) == "REACHED"
    assert deploy(lab).changed == {}


@pytest.mark.hostless
def test_what_the_lock_file_does_not_know_is_not_forgotten(inventory_copy) -> None:
    directory = inventory_copy("lab")
    nothing = CliRunner().invoke(app, ["forget", str(directory), "lab-9"])
    assert nothing.exit_code == 2
    assert "the lock file knows no host 'lab-9'" in nothing.output
