"""Names at size, and names outside: answers too large for UDP, and resolvers that ask upstream."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from runs import SHOP, STOREFRONT, deploy, inside, network_of, replace_once

from privnet.lab import Lab

# Names outside, asked of the outsider.
UNDERLAY = "host 192.0.2.252 and port 53"

DOMAIN = "private-network.internal"
ASKER = f"1.web.{STOREFRONT}"


@pytest.fixture(scope="module")
def lab(shared_fleet) -> Lab:
    return shared_fleet("lab")


def ask(lab: Lab, *arguments: str) -> tuple[str, list[str]]:
    """(status, answers) as the container's own resolv.conf gives them; dig falls back to TCP by itself."""
    text = inside(lab, ASKER, "dig", "+noall", "+comments", "+answer", "+tries=1", "+time=3", *arguments)
    status = re.search(r"status: (\w+)", text)
    assert status is not None, text
    answers = [line.split()[4] for line in text.splitlines() if line and not line.startswith(";")]
    return status[1], answers


@pytest.fixture
def upstream(lab: Lab) -> Iterator[Path]:
    """A resolver outside the fleet that logs what it is asked."""
    log = lab.inventory.parent / "upstream.log"
    options = ["--address=/example.com/11.22.33.44", "--address=/rebind.example/10.240.0.3", "--address=/#/11.0.0.1"]
    command = ["dnsmasq", "-k", "-C", "/dev/null", "--no-hosts", "--no-resolv", "--pid-file=", "--log-facility=-"]
    with (
        log.open("w") as file,
        subprocess.Popen(
            lab.argv("outsider", [*command, "--log-queries", "--user=root", "--bind-dynamic", *options]), stderr=file
        ) as process,
    ):
        time.sleep(0.5)
        yield log
        process.terminate()


@pytest.mark.proves("names outside")
def test_other_names_resolve_through_upstream_and_private_ones_never_reach_it(lab: Lab, upstream: Path) -> None:
    assert ask(lab, "www.example.com.")[0] == "REFUSED"
    fleet_file = lab.inventory / "fleet.yaml"
    before = fleet_file.read_text()
    fleet_file.write_text(before + "dns: {upstream: [192.0.2.252]}\n")
    deploy(lab)
    assert deploy(lab).changed == {}
    assert ask(lab, "www.example.com.") == ("NOERROR", ["11.22.33.44"])
    assert ask(lab, "rebind.example.")[1] == [], "an answer from outside must not point into a private network"
    for name in (
        f"nothing.{DOMAIN}.",
        f"web.{STOREFRONT}.pn-00000000-0000-4000-8000-000000000000.{DOMAIN}.",
        f"{DOMAIN}.",
    ):
        assert ask(lab, name)[1] == [], name
    assert ask(lab, f"web.{STOREFRONT}.{SHOP}.{DOMAIN}.")[0] == "NOERROR"
    assert ask(lab, "-x", "10.240.3.77") == ("NXDOMAIN", [])
    log = upstream.read_text()
    assert "query[A] www.example.com" in log, "the twin: what is asked outside is seen"
    assert "private-network" not in log
    assert "10.in-addr.arpa" not in log
    # A container reaches the forwarder through its resolver's answers alone.
    fleet_file.write_text(before)
    deploy(lab)
    assert ask(lab, "www.example.com.")[0] == "REFUSED"
    for host in ("lab-1", "lab-2", "lab-3"):
        assert "forwarder" not in lab.exec(host, "ls /etc/privnet/lib").stdout
        assert "forwarder" not in lab.exec(host, "systemctl list-units --plain --no-legend 'privnet-*'").stdout
    assert deploy(lab).changed == {}


def test_a_resolver_without_its_hosts_file_says_no_and_asks_nobody(lab: Lab, upstream: Path) -> None:
    fleet_file = lab.inventory / "fleet.yaml"
    replace_once(fleet_file, "lab: true\n", "lab: true\ndns: {upstream: [192.0.2.252]}\n")
    deploy(lab)
    lab.exec("lab-1", f"rm /etc/privnet/names/{SHOP}.hosts && systemctl restart privnet-dns@{SHOP}", check=False)
    time.sleep(1)
    name = f"web.{STOREFRONT}.{SHOP}.{DOMAIN}."
    assert ask(lab, name) == ("NXDOMAIN", [])
    assert "private-network" not in upstream.read_text()
    assert "switch what has moved" in deploy(lab).changed
    assert ask(lab, name)[0] == "NOERROR"
    edit_back = "lab: true\ndns: {upstream: [192.0.2.252]}\n"
    replace_once(fleet_file, edit_back, "lab: true\n")
    deploy(lab)


# Last, since every run takes longer with two hundred containers more.


@pytest.mark.parametrize("count", [25, 70, 200])
def test_every_address_of_a_large_type_is_answered(lab: Lab, count: int) -> None:
    hosts = ", ".join(f"lab-{1 + number % 3}" for number in range(count))
    path = lab.inventory / "projects" / "shop.yaml"
    path.write_text(re.sub(r"( {6}worker: )\[.*\]", rf"\1[{hosts}]", path.read_text()))
    run = deploy(lab)
    print(f"{count} containers: deployed in {run.seconds:.1f} s")
    name = f"worker.{STOREFRONT}.{SHOP}.{DOMAIN}."
    expected = sorted(c.address for c in network_of(lab, SHOP).containers if c.process_type == "worker")
    assert len(expected) == count
    for options in (["+noedns"], ["+edns=0"], ["+tcp"]):
        status, answers = ask(lab, *options, name)
        assert (status, sorted(answers)) == ("NOERROR", expected), options
    # glibc asks without EDNS0 and sees the answer cut at 512 bytes; it must find the rest over TCP.
    resolved = inside(lab, ASKER, "getent", "ahostsv4", name.rstrip("."))
    assert {line.split()[0] for line in resolved.splitlines()} == set(expected)
    cut = inside(lab, ASKER, "dig", "+noedns", "+ignore", "+notcp", name)
    assert (" tc" in next(line for line in cut.splitlines() if "flags:" in line)) == (count > 24)
    assert deploy(lab).changed == {}


def test_twenty_clients_ask_over_tcp_at_once(lab: Lab) -> None:
    name = f"worker.{STOREFRONT}.{SHOP}.{DOMAIN}."
    script = f"for i in $(seq 60); do dig +tcp +short +tries=1 +time=5 {name} | wc -l & done; wait"
    counts = inside(lab, ASKER, "sh", "-c", script).split()
    assert counts == [str(len([c for c in network_of(lab, SHOP).containers if c.process_type == "worker"]))] * 60
