"""A run asks peers where a change may cut them off, and confirms nothing when one is lost."""

from __future__ import annotations

import json
from collections.abc import Callable

from test_runs import Fleet, Ran, fleet, states, withdrawn

from privnet.compiler import compile_fleet

__all__ = ["fleet"]


def endpoint(made: Fleet, host: str, to: str) -> None:
    """The others are to reach a host elsewhere."""
    file = made.directory / "fleet.yaml"
    declared = json.loads(file.read_text())
    declared["hosts"][host]["endpoint"] = to
    file.write_text(json.dumps(declared))


def lost(made: Fleet, *peers: str, how: str = "silent") -> dict[str, list[str]]:
    """What a host says that does not hear these peers any more."""
    hosts = compile_fleet(made.directory).plan.hosts
    return {"lost": [f"lost {hosts[peer].mesh.address} {how}" for peer in peers]}


def asking(ran: Ran) -> list[str]:
    """Hosts that were asked which peers they have lost."""
    return sorted(name for name, command in ran.executed if " privnet lost " in command)


def of_three(fleet: Callable[..., Fleet]) -> Fleet:
    """Three hosts that share a network; the second is to be reached elsewhere."""
    made = fleet(0, elsewhere=["h1", "h2", "h3"])
    endpoint(made, "h2", "192.0.2.22:51820")
    return made


CUT_OFF = (
    "the change would cut off peers that answered before it, so it is not confirmed: h2 (192.0.2.22:51820) does not "
    "answer h1, h3 over the mesh. Look at `endpoint`, `address` and ports in fleet.yaml, and at firewalls between "
    "the hosts"
)


def test_a_lost_peer_takes_the_change_back_everywhere(fleet: Callable[..., Fleet]) -> None:
    made = of_three(fleet)
    made.data |= {"h1": lost(made, "h2"), "h3": lost(made, "h2")}
    ran = made.run("--json", "-y")
    assert ran.code == 1
    assert ran.outcome["stopped"] == {"why": CUT_OFF, "kind": "failed"}
    assert withdrawn(ran) == ["h1", "h3"] and "h2" not in ran.programs
    assert not any(" privnet confirm " in command for _, command in ran.executed)
    assert ran.outcome["hosts"]["h1"]["why"] == f"it is as it was before: {CUT_OFF}"


def test_peers_are_asked_by_one_execution_more_and_no_connection(fleet: Callable[..., Fleet]) -> None:
    made = of_three(fleet)
    ran = made.run("--json", "-y")
    assert ran.code == 0, ran.stderr
    assert asking(ran) == ["h1", "h3"] and set(states(ran).values()) == {"changed"}
    # The question, the program, the peers, the confirmation. The second one writes down how it is declared.
    assert ran.asked == {"h1": 4, "h2": 3, "h3": 4}
    assert ran.connections == {"h1": 2, "h2": 2, "h3": 2}


def test_a_change_that_touches_no_tunnel_asks_no_peer(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    made.project("p0", 0, ["h1", "h3"])
    made.data |= {name: lost(made, "h1", "h2", "h3") for name in ("h1", "h2", "h3")}
    ran = made.run("--json", "-y")
    assert ran.code == 0, ran.stderr
    assert asking(ran) == [] and set(states(ran).values()) == {"changed"}


def test_who_trusts_ssh_asks_no_peer(fleet: Callable[..., Fleet]) -> None:
    made = of_three(fleet)
    made.settings(policy={"confirm": "ssh"})
    made.data |= {"h1": lost(made, "h2"), "h3": lost(made, "h2")}
    ran = made.run("--json", "-y")
    assert ran.code == 0, ran.stderr
    assert asking(ran) == []


def test_one_host_that_loses_a_peer_takes_back_the_others_too(fleet: Callable[..., Fleet]) -> None:
    """Some would keep a port, and some not."""
    made = fleet(0, elsewhere=["h1", "h2", "h3"])
    made.settings(wireguard={"port": 51821})
    made.data["h3"] = lost(made, "h2")
    ran = made.run("--json", "-y")
    assert ran.code == 1 and withdrawn(ran) == ["h1", "h2", "h3"]
    assert "h2 (192.0.2.2:51821) does not answer h3 over the mesh" in ran.outcome["stopped"]["why"]


def test_large_packets_that_are_lost_are_told_as_such(fleet: Callable[..., Fleet]) -> None:
    made = of_three(fleet)
    made.data["h1"] = lost(made, "h3", how="small")
    ran = made.run("--json", "-y")
    assert "h3 (192.0.2.3:51820) does not answer h1 large packets over the mesh. Look at `mtu`" in ran.stderr


def test_a_peer_that_has_failed_in_the_run_is_not_lost_by_it(fleet: Callable[..., Fleet]) -> None:
    made = fleet(0, 4, elsewhere=["h1", "h2", "h3", "h4"])
    endpoint(made, "h2", "192.0.2.22:51820")
    made.programs["h3"] = ["cannot: no"]
    made.data |= {"h1": lost(made, "h3"), "h4": lost(made, "h3")}
    ran = made.run("--json", "-y")
    assert states(ran) == {"h1": "changed", "h2": "changed", "h3": "failed", "h4": "changed"}


def test_a_peer_that_takes_no_connection_either_is_gone(fleet: Callable[..., Fleet]) -> None:
    """It has died while the run was under way: its peers are confirmed."""
    made = of_three(fleet)
    made.data |= {"h1": lost(made, "h2"), "h3": lost(made, "h2"), "h2": {"connections_at_most": 1}}
    made.settings(policy={"rollback": "10s"})
    ran = made.run("--json", "-y")
    assert states(ran) == {"h1": "changed", "h2": "failed", "h3": "changed"}
    assert ran.outcome["hosts"]["h2"]["why"] == "it answered when the run began, and now it takes no new connection"


def test_a_peer_that_refuses_a_connection_is_lost_by_the_change(fleet: Callable[..., Fleet]) -> None:
    """A limit on new connections refuses one, and takes the next: the host is there, and its peers do not hear it."""
    made = of_three(fleet)
    made.data |= {"h1": lost(made, "h2"), "h3": lost(made, "h2"), "h2": {"refuses": [2]}}
    ran = made.run("--json", "-y")
    assert ran.outcome["stopped"] == {"why": CUT_OFF, "kind": "failed"} and withdrawn(ran) == ["h1", "h3"]


def test_a_peer_that_the_run_does_not_reach_is_lost_by_the_change(fleet: Callable[..., Fleet]) -> None:
    """Its SSH server is down, and it has answered its peers until the change."""
    made = of_three(fleet)
    made.data |= {"h1": lost(made, "h2"), "h3": lost(made, "h2"), "h2": {"away": True}}
    ran = made.run("--json", "-y")
    assert ran.outcome["stopped"] == {"why": CUT_OFF, "kind": "failed"} and withdrawn(ran) == ["h1", "h3"]


def test_what_a_host_makes_up_is_no_loss(fleet: Callable[..., Fleet]) -> None:
    made = of_three(fleet)
    made.data["h1"] = {"lost": ["lost 203.0.113.9 silent", "lost everything", "lost 100.64.0.2 silent; reboot", ""]}
    ran = made.run("--json", "-y")
    assert ran.code == 0, ran.stderr
