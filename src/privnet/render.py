"""Host plan → managed files. Templates print; every decision was made in ``privnet.plan``.

What is the same on all hosts of a network is rendered once and shared. Nothing here reads a clock, an environment or a
host, so equal plans give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from operator import attrgetter
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from jinja2.runtime import Context

from privnet.model.identifiers import Prefix
from privnet.plan.containers import Port
from privnet.plan.guard import Binding, Guard, Speaker
from privnet.plan.host import HostPlan
from privnet.plan.mesh import Mesh, Peer
from privnet.plan.names import Outside
from privnet.plan.overlay import Network, Overlay, source_ports
from privnet.plan.printable import checked, checked_all
from privnet.plan.record import VERSION, Settings, document

ETC = "/etc/privnet"
KEY = "/etc/wireguard/privnet.key"
OLD_KEY = f"{ETC}/wireguard.key"
"""A host's own key, and where earlier versions kept it."""
NETWORKD = "/etc/systemd/network"
BEFORE_OTHERS = "05-"
"""How files for networkd begin: a device is set up by the first file that fits it (systemd.network(5))."""
UNITS = "/etc/systemd/system"
TARGET = "privnet-networks.target"
WANTS = f"{UNITS}/{TARGET}.wants"

HOST_PROGRAMS = ("change.sh", "container.sh", "guard.sh", "mesh.sh", "names.sh", "neighbour-table.sh", "overlay.sh")
FORWARDER = "forwarder.pl"
"""The one that only hosts have that ask outside."""
UNIT_FILES = (
    "privnet-guard.service",
    "privnet-overlay@.service",
    "privnet-container@.service",
    "privnet-namespace@.service",
    "privnet-dns@.service",
    "privnet-restore.service",
    TARGET,
)


@dataclass(frozen=True, slots=True, order=True)
class ManagedFile:
    """One file, or symbolic link, that privnet owns on a host; it belongs to root.

    :param text: the file's whole content, or the link's target
    :param mode: permission bits; 0 for a link
    """

    path: str
    text: str
    mode: int = 0o644

    @property
    def is_link(self) -> bool:
        return self.mode == 0


def render_host(plan: HostPlan) -> tuple[ManagedFile, ...]:
    """All managed files of a host, sorted by path."""
    files = [*static_files(), render_record(plan), *render_guard(plan), *render_mesh(plan)]
    files.append(render_neighbour_table(plan))
    for overlay in plan.overlays:
        files += _network_files(overlay.network, plan.ttl, plan.domain, plan.outside)
        files += render_overlay(overlay, plan.guard.vxlan_port)
        files += render_containers(overlay, asks_outside=bool(plan.outside.upstream))
    if plan.outside.upstream:
        files += render_forwarder(plan.outside)
    return tuple(sorted(files, key=attrgetter("path")))


# --- what every host has --------------------------------------------------------------------------


@cache
def static_files() -> tuple[ManagedFile, ...]:
    """Programs, units and networkd's settings."""
    host = resources.files("privnet") / "host"
    return (
        *(ManagedFile(f"{ETC}/lib/{name}", (host / name).read_text()) for name in HOST_PROGRAMS),
        *(ManagedFile(f"{UNITS}/{name}", _print(f"systemd/{name}")) for name in UNIT_FILES),
        ManagedFile(f"{UNITS}/wg-quick@privnet.service.d/privnet.conf", _print("systemd/wg-quick.conf")),
        ManagedFile("/etc/systemd/networkd.conf.d/privnet.conf", _print("networkd/networkd.conf")),
        ManagedFile(f"{NETWORKD}/{BEFORE_OTHERS}privnet-unmanaged.network", _print("networkd/unmanaged.network")),
    )


# --- record ---------------------------------------------------------------------------------------

RECORD = f"{ETC}/record.json"


def render_record(plan: HostPlan) -> ManagedFile:
    """What this host remembers of the declaration and the lock file: JSON, one line a private network."""
    checked_all("label", [plan.name])
    host = {
        "name": plan.name,
        "mesh": checked(plan.mesh).address,
        "declared": document(plan.record.host, without="renamed_from"),
    }
    networks = ",\n".join([_network_record(overlay.network) for overlay in plan.overlays])
    lines = (
        f'"version": {VERSION}',
        f'"fleet": {_settings_record(plan.record.settings)}',
        f'"host": {_json(host)}',
        f'"networks": {{\n{networks}\n}}' if networks else '"networks": {}',
    )
    return ManagedFile(RECORD, "{\n" + ",\n".join(lines) + "\n}\n")


@lru_cache(maxsize=16)
def _settings_record(settings: Settings) -> str:
    return _json(settings.data())


@lru_cache(maxsize=20_000)
def _network_record(network: Network) -> str:
    """The project's document, the lock file's entry (containers in the order of their indices), and the hosts."""
    places = network.record.places
    every = network.record.containers
    checked_all("label", {container.host for container in every}.union(places))
    checked_all("slot", [container.slot for container in every])
    checked_all("address", [container.address for container in every])
    containers: dict[str, dict[str, list[str]]] = {}
    for container in every:
        _, process_type, application = container.slot.split(".")
        of_application = containers.setdefault(application, {})
        of_application.setdefault(process_type, []).append(f"{container.address} {container.host}")
    data = {
        "project": document(network.record.project),
        "vni": _checked(network).vni,
        "cidr": str(network.cidr),
        "mtu": network.mtu,
        "containers": containers,
        "hosts": {name: f"{mesh} {endpoint}" for name, (mesh, endpoint) in places.items()},
        **({"out": network.record.out} if network.record.out else {}),
    }
    return f'"{network.id}": {_json(data)}'


_json = json.JSONEncoder(sort_keys=True).encode
"""Sorted: what only stands in another order in the YAML is no change of a host. ASCII: the rest are escapes."""


# --- guard ----------------------------------------------------------------------------------------


def render_guard(plan: HostPlan) -> Iterator[ManagedFile]:
    """The guard's rules and elements, and what its program needs to know."""
    yield ManagedFile(f"{ETC}/guard.conf", _print("privnet/guard.conf", mesh=checked(plan.mesh)))
    yield guard_file(plan.guard)


def guard_file(guard: Guard, more: Iterable[Speaker | Binding] = ()) -> ManagedFile:
    """The guard as nft reads it; ``more`` are elements that still hold while a run goes on."""
    checked(guard)
    extra = list(more)
    speakers = {speaker_element(s) for s in (*guard.speakers, *(e for e in extra if isinstance(e, Speaker)))}
    bindings = {binding_element(b) for b in (*guard.bindings, *(e for e in extra if isinstance(e, Binding)))}
    text = _print(
        "nftables/guard.nft",
        vxlan_port=guard.vxlan_port,
        mesh=guard.mesh,
        port=guard.port,
        speakers=_elements(speakers),
        bindings=_elements(bindings),
    )
    return ManagedFile(f"{ETC}/guard.nft", text)


_ELEMENTS = re.compile(r"^\t\telements = \{\n.*?^\t\t\}\n|^\n", re.MULTILINE | re.DOTALL)


@cache
def guard_structure(vxlan_port: int, mesh: str, port: int) -> str:
    """Digest of the guard's rules without the members of its sets, as ``guard.sh`` computes it on the host."""
    text = guard_file(Guard(vxlan_port, mesh, port, (), ())).text
    return hashlib.sha256(_ELEMENTS.sub("", text).encode()).hexdigest()


def _elements(elements: set[str]) -> str:
    # nft refuses an empty list of elements.
    return "\t\telements = {\n\t\t\t" + ",\n\t\t\t".join(sorted(elements)) + "\n\t\t}" if elements else ""


@lru_cache(maxsize=200_000)
def speaker_element(speaker: Speaker) -> str:
    """A member of the set ``speakers``, as nft reads it; a MAC is 02:70 and its container's address."""
    address = checked(speaker).mac.replace(":", "")[4:]
    return f"{speaker.vtep} . 0x{speaker.vni:06x}00 . 0x{address} . 0x{address}"


def binding_element(binding: Binding) -> str:
    """A member of the set ``ports``, as nft reads it."""
    checked(binding)
    return f'"{binding.port}" . {binding.mac} . {binding.address}'


# --- mesh -----------------------------------------------------------------------------------------


def render_mesh(plan: HostPlan) -> Iterator[ManagedFile]:
    """wg-quick's file without the private key, which only the host knows."""
    yield ManagedFile(f"{ETC}/mesh.conf", mesh_text(plan.mesh))


def mesh_text(mesh: Mesh) -> str:
    """The mesh of a host, without its key."""
    return _print("wireguard/mesh.conf", mesh=checked(mesh), peers="".join(map(peer_block, mesh.peers)))


@lru_cache(maxsize=100_000)
def peer_block(peer: Peer) -> str:
    """One peer's section of wg-quick's file."""
    return _print("wireguard/peer.conf", peer=checked(peer))


@lru_cache(maxsize=20_000)
def _checked(network: Network) -> Network:
    """A network is judged once, and printed on each of its hosts."""
    return checked(network)


# --- neighbour table --------------------------------------------------------------------------------


def render_neighbour_table(plan: HostPlan) -> ManagedFile:
    """The limits that the kernel is to have at least."""
    table = checked(plan.neighbour_table)
    return ManagedFile(f"{ETC}/neighbour-table.conf", _print("privnet/neighbour-table.conf", table=table))


# --- overlay --------------------------------------------------------------------------------------


def render_overlay(overlay: Overlay, vxlan_port: int) -> Iterator[ManagedFile]:
    """The files of one private network that differ from host to host."""
    network = _checked(checked(overlay).network)
    vni = network.vni
    vxlan = _print(
        "networkd/vxlan.netdev",
        network=network,
        mac=overlay.mac,
        vtep=overlay.vtep,
        vxlan_port=vxlan_port,
        source_ports="-".join(map(str, source_ports(vxlan_port))),
    )
    yield ManagedFile(f"{NETWORKD}/{BEFORE_OTHERS}privnet-{vni}-vxlan.netdev", vxlan)
    others = [lines for lines in _remote_lines(network) if lines[0] != overlay.vtep]
    yield ManagedFile(f"{ETC}/overlay/{vni}.fdb", "".join([fdb for _, fdb, _ in others]))
    yield ManagedFile(f"{ETC}/overlay/{vni}.neighbours", "".join([neighbour for _, _, neighbour in others]))


@lru_cache(maxsize=20_000)
def _remote_lines(network: Network) -> tuple[tuple[str, str, str], ...]:
    """For each container of a network: its host's mesh address, and what other hosts' FDB and neighbours say of it."""
    remotes = sorted(map(checked, network.remotes), key=lambda remote: remote.container.number)
    fdb = fdb_text(network.vxlan, {remote.container.mac: remote.vtep for remote in remotes})
    neighbours = neighbours_text(network.vxlan, {remote.container.address: remote.container.mac for remote in remotes})
    vteps = [remote.vtep for remote in remotes]
    return tuple(zip(vteps, fdb.splitlines(True), neighbours.splitlines(True), strict=True))


def fdb_text(vxlan: str, entries: Mapping[str, str]) -> str:
    """A batch for ``bridge``: where frames for each MAC go."""
    checked_all("vxlan", [vxlan])
    checked_all("mac", entries)
    checked_all("address", entries.values())
    return _print("iproute2/fdb", vxlan=vxlan, entries=sorted(entries.items()))


def neighbours_text(vxlan: str, neighbours: Mapping[str, str]) -> str:
    """A batch for ``ip``: the answers of the VXLAN device to ARP. MACs end in addresses, so both sort alike."""
    checked_all("vxlan", [vxlan])
    checked_all("address", neighbours)
    checked_all("mac", neighbours.values())
    return _print("iproute2/neighbours", vxlan=vxlan, neighbours=sorted(neighbours.items(), key=lambda item: item[1]))


@lru_cache(maxsize=20_000)
def _network_files(network: Network, ttl: int, domain: str, outside: Outside) -> tuple[ManagedFile, ...]:
    """The files of one private network that are the same on all of its hosts."""
    vni = _checked(network).vni
    networkd = f"{NETWORKD}/{BEFORE_OTHERS}privnet-{vni}"
    return (
        ManagedFile(f"{networkd}-bridge.netdev", _print("networkd/bridge.netdev", network=network)),
        ManagedFile(f"{networkd}-bridge.network", _print("networkd/bridge.network", network=network)),
        ManagedFile(f"{networkd}-vxlan.network", _print("networkd/vxlan.network", network=network)),
        ManagedFile(f"{ETC}/overlay/{vni}.conf", _print("privnet/overlay.conf", network=network)),
        *render_names(network, ttl, domain, outside),
        _wanted(f"privnet-overlay@{vni}.service"),
        _wanted(f"privnet-dns@{network.id}.service"),
    )


# --- names ----------------------------------------------------------------------------------------


@lru_cache(maxsize=20_000)
def render_names(network: Network, ttl: int, domain: str, outside: Outside) -> tuple[ManagedFile, ManagedFile]:
    """Configuration and hosts file of a private network's resolver; the same on all of its hosts."""
    _checked(network)
    checked_all("domain", [domain])
    checked_all("internal", outside.internal)
    checked_all("number", [ttl])
    checked_all("name", network.names.empty)
    for record in network.names.records:
        checked_all("name", checked(record).names)
    config = _print(
        "dnsmasq/resolver.conf",
        network=network,
        domain=domain,
        reverse_zones=reverse_zones(network.cidr),
        ttl=ttl,
        outside=outside,
        barred=outside.barred(network.cidr),
    )
    hosts = _print("dnsmasq/resolver.hosts", records=network.names.records, empty=network.names.empty)
    path = f"{ETC}/names/{network.id}"
    return ManagedFile(f"{path}.conf", config), ManagedFile(f"{path}.hosts", hosts)


def reverse_zones(cidr: Prefix) -> tuple[str, ...]:
    """The in-addr.arpa zones, cut at octets, that together cover a prefix."""
    octets = max(1, min(3, -(-cidr.length // 8)))
    step = 1 << (32 - 8 * octets)
    zones = range(cidr.first & ~(step - 1), cidr.last + 1, step)
    return tuple(f"{_reversed(zone, octets)}.in-addr.arpa" for zone in zones)


def _reversed(zone: int, octets: int) -> str:
    return ".".join(str(zone >> 24 - 8 * place & 255) for place in reversed(range(octets)))


# --- containers -----------------------------------------------------------------------------------


def render_containers(overlay: Overlay, *, asks_outside: bool) -> Iterator[ManagedFile]:
    """Ports of one private network on one host, the resolver's among them."""
    resolver, *containers = overlay.ports
    yield from _resolver_files(resolver, asks_outside)
    resolv_conf = _resolv_conf(overlay.network)
    for port in containers:
        yield from _port_files(port)
        yield ManagedFile(f"/etc/netns/{port.netns}/resolv.conf", resolv_conf)


def _port_files(port: Port) -> tuple[ManagedFile, ManagedFile]:
    conf = ManagedFile(f"{ETC}/containers/{port.name}.conf", _print("privnet/port.conf", port=checked(port)))
    return conf, _wanted(f"privnet-container@{port.name}.service")


@lru_cache(maxsize=20_000)
def _resolver_files(port: Port, asks_outside: bool) -> tuple[ManagedFile, ...]:
    """A resolver's port is the same on all hosts of its network; what stands on it, and the port itself."""
    socket = f"privnet-forwarder@{checked(port).netns}.socket"
    units = [f"privnet-dns@{port.netns}.service", *([socket] if asks_outside else [])]
    drop_in = _print("systemd/privnet-dns-port.conf", port=port.name)
    return (
        *(ManagedFile(f"{UNITS}/{unit}.d/port.conf", drop_in) for unit in units),
        *([_wanted(socket)] if asks_outside else []),
        *_port_files(port),
    )


@lru_cache(maxsize=20_000)
def _resolv_conf(network: Network) -> str:
    return _print("dnsmasq/resolv.conf", network=_checked(network))


# --- names asked outside --------------------------------------------------------------------------


@lru_cache(maxsize=16)
def render_forwarder(outside: Outside) -> tuple[ManagedFile, ...]:
    """The program that carries a resolver's questions to the servers outside, and its units."""
    checked_all("upstream", outside.servers)
    checked_all("address", outside.places)
    program = resources.files("privnet") / "host" / FORWARDER
    return (
        ManagedFile(f"{ETC}/lib/{FORWARDER}", program.read_text()),
        *(
            ManagedFile(f"{UNITS}/{name.removeprefix('systemd/')}", _print(name, outside=outside))
            for name in ("systemd/privnet-forwarder@.service", "systemd/privnet-forwarder@.socket")
        ),
    )


# --- printing -------------------------------------------------------------------------------------


def _wanted(unit: str) -> ManagedFile:
    """The link by which a boot starts a unit; an instance's link points to its template."""
    name, _, suffix = unit.partition("@")
    target = f"{name}@.{suffix.rpartition('.')[2]}" if suffix else unit
    return ManagedFile(f"{WANTS}/{unit}", f"../{target}", 0)


def template_root() -> Path:
    """The templates of the installed package, or of the checkout that an editable install points to."""
    installed = Path(str(resources.files("privnet"))) / "templates"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "templates"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(template_root()),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # configuration files, not HTML; every value has the shape of its kind (plan/printable.py)
    )


@cache
def _template(name: str) -> Template:
    return _environment().get_template(f"{name}.j2")


def _print(name: str, **values: object) -> str:
    # `Template.render` would copy Jinja's global functions into each context; our templates use none of them.
    template = _template(name)
    return "".join(template.root_render_func(Context(_environment(), values, name, template.blocks)))
