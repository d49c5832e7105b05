"""What a declaration can do to a host, and what it cannot; and an application that lives where it says."""

from __future__ import annotations

import pytest
from runs import SHOP, STOREFRONT, container_of, count_questions, deploy, edit, inside, network_of, questions

from privnet.lab import Lab

HOSTS = ("lab-1", "lab-2", "lab-3")
# A host looks for a container, in vain: its default route takes that to the underlay.
UNDERLAY = "src net 192.0.2.0/24 and dst net 10.240.0.0/22"


@pytest.fixture(scope="module")
def lab(shared_fleet) -> Lab:
    """Three hosts, deployed to."""
    return shared_fleet("lab")


@pytest.mark.proves("P8")
def test_a_wrong_declaration_is_refused_before_any_host_is_asked(lab: Lab) -> None:
    for host in HOSTS:
        count_questions(lab, host)
    before = {host: questions(lab, host) for host in HOSTS}
    edit(lab, "shop", "worker: [lab-3]", "worker: [lab-33]")
    refused = deploy(lab, check=False)
    assert refused.code != 0
    assert 'error[PN301]: the fleet has no host "lab-33"' in refused.output
    assert "projects/shop.yaml:15:16" in refused.output and "help: did you mean `lab-3`?" in refused.output
    assert {host: questions(lab, host) for host in HOSTS} == before
    edit(lab, "shop", "worker: [lab-33]", "worker: [lab-3]")
    assert deploy(lab).changed == {}
    asked = {host: questions(lab, host) - before[host] for host in HOSTS}
    assert asked == dict.fromkeys(HOSTS, 1), "the twin: a right declaration asks each host"


RUNS = "$(touch /etc/intruder)`touch /etc/intruder`'; touch /etc/intruder; ' & # {{ 7 * 7 }} %n"
"""What a shell, a unit or a template would run."""
OURS = (
    r"^/(etc|var/lib)/privnet(/|$)|^/etc/(systemd|wireguard)/.*privnet|^/etc/netns/|^/(dev|proc|run|sys|tmp|var/log)/"
)
CHANGED = f"find / -xdev -newer /root/before -type f | grep -vE '{OURS}' | sort"


@pytest.mark.proves("P6")
def test_text_of_a_declaration_runs_nowhere_and_writes_nothing_of_others(lab: Lab) -> None:
    for host in HOSTS:
        lab.exec(host, "sleep 0.1; touch /root/before; sleep 0.1; touch /etc/seen")
        assert lab.exec(host, CHANGED).stdout == "/etc/seen\n", "the twin: what is written beside ours is seen"
        lab.exec(host, "rm /etc/seen")
    edit(lab, "shop", "name: storefront", f'name: "{RUNS}"')
    edit(lab, "shop", "accepted_by: ops@shop.example", f'accepted_by: "{RUNS}"')
    edit(lab, "shop", "worker: [lab-3]", "worker: [lab-3, lab-2, lab-1]")
    changed = deploy(lab).changed
    assert {host for hosts in changed.values() for host in hosts} == {*HOSTS}
    for host in HOSTS:
        assert lab.exec(host, CHANGED, check=False).stdout == ""
        # It is there as data alone, for `privnet import`.
        assert lab.exec(host, "grep -rl intruder /etc /run/systemd").stdout == "/etc/privnet/record.json\n"


SERVE = "python3 -m http.server 8080 --directory /usr/share/doc/nftables"
FETCH = "import sys, urllib.request as u; print(u.urlopen(f'http://{sys.argv[1]}:8080', timeout=2).status)"


@pytest.mark.proves("P15")
def test_a_service_in_a_namespace_is_reached_by_name_and_has_no_other_way(lab: Lab) -> None:
    slot, client = f"1.web.{STOREFRONT}", f"1.worker.{STOREFRONT}"
    container = container_of(lab, slot)
    unit = f"systemd-run --quiet --unit=app --property=NetworkNamespacePath=/run/netns/{slot}"
    lab.exec(container.host, f"{unit} {SERVE}")
    try:
        wait = f"until ip netns exec {slot} ss -lnt | grep -q :8080; do sleep 0.1; done"
        lab.exec(container.host, wait, timeout=20)
        fetch = ["python3", "-c", FETCH]
        assert inside(lab, client, *fetch, f"{slot}.{SHOP}.private-network.internal") == "200\n"
        for outside in (container.host, "outsider"):
            assert "timed out" in lab.exec(outside, [*fetch, container.address], check=False).stderr
        # Its only way leads into its network.
        assert inside(lab, slot, "ip", "-o", "link").count("\n") == 2
        assert inside(lab, slot, "ip", "route").split()[:3] == [str(network_of(lab, SHOP).cidr), "dev", "pn0"]
        assert inside(lab, slot, "ip", "route").count("\n") == 1
    finally:
        lab.exec(container.host, "systemctl stop app")
