"""The program that asks a host's peers, in a network namespace whose own addresses play the peers."""

from __future__ import annotations

import subprocess
from importlib import resources
from pathlib import Path

PROGRAM = resources.files("privnet") / "host/peers.pl"
WG = """#!/bin/sh
case $3 in
latest-handshakes) sed 's/ .*/\\t0/' {peers} ;;
allowed-ips) sed 's/ /\\t/' {peers} ;;
transfer) n=$(cat {peers}.read 2> /dev/null || echo 0); echo $((n + 32 * {more})) > {peers}.read
	sed "s/ .*/\\t$n\\t0/" {peers} ;;
esac
"""
# 127.0.0.3 takes no large packet, and nobody is at 198.51.100.9.
NETWORK = """
ip link set lo name privnet up
ip route add local 127.0.0.3 dev privnet mtu lock 600
exec "$@"
"""
FIRST, SECOND, THIRD, NOBODY = "A= 127.0.0.2/32", "B= 127.0.0.3/32", "C= 127.0.0.4/32", "D= 198.51.100.9/32"


def asked(
    folder: Path, peers: list[str], *words: str, sizes: dict[str, int] | None = None, more: bool = False
) -> list[str]:
    """What the program says of these peers, to which packets of these sizes go; WireGuard hears ``more`` of them."""
    (folder / "peers").write_text("".join(f"{peer}\n" for peer in peers))
    (folder / "wg").write_text(WG.format(peers=folder / "peers", more=int(more)))
    (folder / "wg").chmod(0o755)
    program = folder / "peers.pl"
    program.write_text(PROGRAM.read_text().replace("/etc/privnet/overlay", str(folder)))
    for number, (address, size) in enumerate((sizes or {}).items()):
        (folder / f"{number}.fdb").write_text(f"fdb replace 02:70:0a:f0:00:03 dev pnx1 dst {address} self static\n")
        (folder / f"{number}.conf").write_text(f"BRIDGE=pnb1\nMTU={size - 50}\n")
    command = ["unshare", "--map-root-user", "--net", "sh", "-c", NETWORK, "net", "perl", str(program), *words]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={"PATH": f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_it_says_who_answers(tmp_path: Path) -> None:
    assert asked(tmp_path, [FIRST, SECOND, NOBODY], "answering", "1") == ["A= 127.0.0.2 small", "B= 127.0.0.3 small"]
    assert asked(tmp_path, [], "answering", "60") == []


def test_it_says_how_large_a_packet_may_be(tmp_path: Path) -> None:
    sizes = {"127.0.0.2": 1440, "127.0.0.3": 1440}
    found = asked(tmp_path, [FIRST, SECOND, THIRD], "answering", "1", sizes=sizes)
    assert found == ["A= 127.0.0.2 large", "B= 127.0.0.3 small", "C= 127.0.0.4 small"]


def test_who_answered_before_and_does_not_any_more_is_lost(tmp_path: Path) -> None:
    before = tmp_path / "answering"
    before.write_text("A= 127.0.0.2 large\nD= 198.51.100.9 small\n")
    assert asked(tmp_path, [FIRST, NOBODY], "lost", "1", str(before)) == ["lost 198.51.100.9 silent"]
    # By its key where its address is another, and by its address where its key is.
    assert asked(tmp_path, ["A= 198.51.100.9/32"], "lost", "1", str(before)) == ["lost 198.51.100.9 silent"]
    assert asked(tmp_path, ["E= 198.51.100.9/32"], "lost", "1", str(before)) == ["lost 198.51.100.9 silent"]


def test_a_large_packet_that_was_answered_before_and_is_not_any_more_is_lost(tmp_path: Path) -> None:
    before, sizes = tmp_path / "answering", {"127.0.0.3": 1440}
    before.write_text("B= 127.0.0.3 large\n")
    assert asked(tmp_path, [SECOND], "lost", "1", str(before), sizes=sizes) == ["lost 127.0.0.3 small"]
    # The twins: it was not before, or is no larger than what passes.
    before.write_text("B= 127.0.0.3 small\n")
    assert asked(tmp_path, [SECOND], "lost", "60", str(before), sizes=sizes) == []
    before.write_text("B= 127.0.0.3 large\n")
    assert asked(tmp_path, [SECOND], "lost", "60", str(before), sizes={"127.0.0.3": 600}) == []


def test_who_was_silent_before_or_is_no_peer_any_more_is_not_lost(tmp_path: Path) -> None:
    before = tmp_path / "answering"
    before.write_text("D= 198.51.100.9 small\n")
    assert asked(tmp_path, [FIRST], "lost", "60", str(before)) == []
    before.write_text("A= 127.0.0.2 small\n")
    assert asked(tmp_path, [FIRST, NOBODY], "lost", "60", str(before)) == []
    # Before a host's first change there was nobody.
    assert asked(tmp_path, [FIRST, NOBODY], "lost", "60", str(tmp_path / "none")) == []


def test_a_thousand_peers_are_asked_at_once(tmp_path: Path) -> None:
    peers = [f"K{n}= 127.1.{n // 250}.{n % 250 + 1}/32" for n in range(1000)]
    assert len(asked(tmp_path, peers, "answering", "60")) == 1000


def test_who_answers_no_ping_is_known_by_what_wireguard_hears(tmp_path: Path) -> None:
    """A host may have been told to ignore them."""
    before = tmp_path / "answering"
    assert asked(tmp_path, [NOBODY], "answering", "1", more=True) == ["D= 198.51.100.9 heard"]
    before.write_text("D= 198.51.100.9 heard\n")
    assert asked(tmp_path, [NOBODY], "lost", "60", str(before), more=True) == []
    assert asked(tmp_path, [NOBODY], "lost", "13", str(before)) == ["lost 198.51.100.9 silent"]
    # WireGuard needs more time than that to answer by itself.
    assert asked(tmp_path, [NOBODY], "lost", "3", str(before)) == []
