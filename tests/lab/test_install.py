"""A host with nothing but sshd: the run itself installs what it needs, as root and through sudo."""

from __future__ import annotations

import pytest
from runs import BLOG, PAGES, container_of, deploy, listening, probe

from privnet.lab import Lab


@pytest.mark.parametrize("bare", ["lab-1", "lab-3"], ids=["as root", "with sudo"])
def test_a_bare_host_gets_its_packages_from_the_run(fleet, inventory_copy, bare: str) -> None:
    lab: Lab = fleet(inventory_copy("lab"), bare=(bare,), name=bare)
    tools = "command -v wg nft dnsmasq wireguard-go python3 dig || true"
    assert lab.exec(bare, tools).stdout == "", "the test needs a host without any of them"
    first = deploy(lab)
    assert bare in first.changed["prepare host"]
    for tool in ("wg", "nft", "dnsmasq"):
        assert lab.exec(bare, f"command -v {tool}").returncode == 0
    assert lab.exec(bare, "systemctl --failed --no-legend --plain").stdout == ""
    assert lab.exec(bare, "ss -Hltun 'sport = 53'", check=False).stdout == "", "no DNS server of the host's own"
    # It serves: another host's container is answered by name through its resolver, with what a bare host has.
    local = next(slot for slot in (f"1.web.{PAGES}", f"1.worker.{PAGES}") if container_of(lab, slot).host == bare)
    other = f"2.web.{PAGES}"
    with listening(lab, other):
        name = f"{other}.{BLOG}.private-network.internal"
        script = (
            "use Socket; my $a = inet_aton($ARGV[0]) or die 'no name'; socket(my $s, PF_INET, SOCK_STREAM, 0);"
            "connect($s, sockaddr_in(80, $a)) or die $!; syswrite($s, 'hello'); sysread($s, my $r, 5); print $r"
        )
        said = lab.exec(bare, ["ip", "netns", "exec", local, "perl", "-e", script, name])
    assert said.stdout == "hello"
    assert deploy(lab).changed == {}
    with listening(lab, other):
        assert probe(lab, other, "tcp", container_of(lab, other).address) == "REACHED"
