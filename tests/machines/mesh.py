"""Changes of the mesh, and what underlay and packets are with them."""

from __future__ import annotations

from lab.runs import SHOP, WATCHED, container_of, inside, network_of
from privnet.lab import Lab
from privnet.lab.process import wait_until

PORT_AND_MTU = {
    "lab: true\n": "lab: true\nwireguard: {port: 51900}\n",
    "{address: ": "{mtu: 1280, address: ",
}
PREFIX_AND_IPV6 = {
    "{port: 51900}": "{port: 51900, mesh: 100.127.0.0/16}",
    **{f"address: 192.0.2.1{n}": f'endpoint: "[2001:db8::1{n}]:51900", address: 192.0.2.1{n}' for n in "123"},
}
"""Another prefix, and an underlay of IPv6."""
MTU, MTU_OVER_IPV6 = 1280 - 60, 1280 - 80
"""Of the mesh, with each of them. They are too small for IPv6, which the kernel turns on again with a larger MTU."""


def declare(lab: Lab, change: dict[str, str]) -> None:
    """Write a change of the mesh into the fleet's file."""
    path = lab.inventory / "fleet.yaml"
    text = path.read_text()
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def follow_on_the_underlay(lab: Lab) -> None:
    """Let uplinks be as the fleet's file says now. A machine is told while it runs, and does it when it comes to it."""
    lab.up()
    assert wait_until(lambda: all(_is_as_declared(lab, host) for host in lab.hosts), 20 * lab.patience)


def _is_as_declared(lab: Lab, host: str) -> bool:
    declared, shown = lab.machine(host).host, lab.exec(host, "ip address show eth0").stdout
    wanted = [f" mtu {declared.mtu} ", *(f" {address}/" for address in declared.addresses)]
    return all(words in shown for words in wanted)


def assert_whole_packets_arrive(lab: Lab, *slots: str) -> None:
    """Between two containers, in one piece and as large as the plan says. The twin: a byte more does not go out."""
    size = network_of(lab, SHOP).mtu - 28
    for source, target in (slots, slots[::-1]):
        ping = ["ping", *WATCHED, "-M", "do", "-c", "3", "-W", "5", container_of(lab, target).address, "-s"]
        assert ", 0% packet loss" in inside(lab, source, *ping, str(size))
        assert ", 100% packet loss" in inside(lab, source, *ping, str(size + 1), check=False)
