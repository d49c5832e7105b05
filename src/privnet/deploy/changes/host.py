"""What the waves stand on: packages, the host's own key, a networkd that leaves other programs' settings alone."""

from __future__ import annotations

from privnet.deploy.changes.files import differs
from privnet.deploy.script import Script
from privnet.deploy.state import HostState
from privnet.render import KEY, OLD_KEY, static_files

PACKAGES = ("dnsmasq-base", "iproute2", "nftables", "wireguard-tools")
USERSPACE = "wireguard-go"
NETWORKD = "systemd-networkd.service"
_APT = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=60"
_FINISH = "DEBIAN_FRONTEND=noninteractive dpkg --configure -a < /dev/null"
"""What a power cut or a kill has left half done, apt refuses to go on from; where there is nothing, it does nothing."""
WAIT_ONLINE = "systemd-networkd-wait-online.service"


def missing_packages(state: HostState) -> list[str]:
    """Debian packages that the host lacks; a kernel without WireGuard needs the one in user space."""
    wanted = [*PACKAGES] if state.kernel_wireguard else [*PACKAGES, USERSPACE]
    return [name for name in wanted if name not in state.packages]


def prepare(state: HostState, script: Script) -> None:
    """Install, make the key, start networkd."""
    missing = missing_packages(state)
    if missing:
        install = f"{_APT} --no-install-recommends install {' '.join(missing)} < /dev/null"
        script.before.append(f"{install} || {{ {_FINISH} && {_APT} update < /dev/null && {install}; }}")
    key = state.files.get(KEY)
    bad_key = key is None or key.mode != 0o600 or key.owner != "0:0"
    needs_key = state.public_key is None or bad_key or OLD_KEY in state.files
    networkd = state.units.get(NETWORKD)
    running = networkd is not None and networkd.active == "active"
    needs_networkd = not running or state.enabled.get(NETWORKD) != "enabled"
    if missing or needs_key or needs_networkd:
        for file in static_files():
            # One that runs is restarted for its settings by a wave, which can be taken back.
            if differs(file, state) and not (running and file.path.startswith("/etc/systemd/network")):
                script.place(file)
    if needs_key:
        # It makes one where there is none. Who has tunnels already loses them by it.
        anew = state.public_key is None and state.mesh is not None
        script.run("sh", "/etc/privnet/lib/mesh.sh", "key", *(["anew"] if anew else []))
    if needs_networkd:
        # The drop-in that keeps foreign routes and rules is in place before networkd starts for the first time.
        script.run("systemctl", "daemon-reload")
        script.run("systemctl", "enable", "--quiet", NETWORKD)
        if state.enabled.get(WAIT_ONLINE) != "enabled":
            # It comes along with networkd (Also=) and would wait 120 s at boot for an uplink that another tool owns.
            script.run("systemctl", "disable", "--quiet", WAIT_ONLINE)
        if not running:
            script.run("systemctl", "restart", NETWORKD)
