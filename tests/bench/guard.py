"""What the guard costs: `python -m tests.bench.guard [PAIRS]`, as root, on a machine that does nothing else.

Throughput of a private network between two hosts and within one, with the guard and without it, by turns in one run
of one lab. Turns are short and many, and each with the guard is held against its neighbour without it: what else
happens on the machine comes and goes, and is in both. Between hosts twice: through WireGuard, and through a plain
link in its place, which carries many times as much, so that what is left is the guard. Then the time that nft takes
to load a guard of 1,000 networks with 10,000 containers.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from privnet.lab import Lab
from privnet.plan.guard import Binding, Guard, Speaker
from privnet.render import guard_file

PAIRS, SECONDS, SETTLE = 20, 2, 0.3
NETWORKS, CONTAINERS = 1000, 10000
TESTS = Path(__file__).parents[1]
WEB, FAR = "1.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053", "2.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053"
NEAR = ("1.web.ap-d4b6f1a0-93c7-4e52-8a1d-2f5b7c9e0d36", "1.web.ap-0c8b7a52-93a4-4f39-9b1d-2f6f3a1c7d10")
GONE = "add table {0} privnet; delete table {0} privnet"  # also where it is gone already
OFF = f"nft '{GONE.format('inet')}; {GONE.format('bridge')}'"
ON = "systemctl reload privnet-guard"

Place = tuple[str, str]
"""Host and slot."""


def load_seconds() -> float:
    """Median time of five loads, in a network namespace of its own."""
    speakers = []
    for number in range(CONTAINERS):
        network, place = number % NETWORKS, number // NETWORKS + 2
        octets = (10, 240, place >> 8, place & 255)
        mac = "02:70:" + ":".join(f"{octet:02x}" for octet in octets)
        host = f"100.64.{number % 50}.2"
        speakers.append(Speaker(host, 4096 + network, mac, ".".join(map(str, octets))))
    bindings = [Binding(f"pnc{4096 + n:06x}0001", "02:70:0a:f0:00:01", "10.240.0.1") for n in range(NETWORKS)]
    text = guard_file(Guard(4789, "100.64.0.0/16", 51820, tuple(speakers), tuple(bindings))).text
    with tempfile.NamedTemporaryFile("w", suffix=".nft") as file:
        file.write(text)
        file.flush()
        script = f"""for i in 1 2 3 4 5; do
            begun=$(date +%s%3N); nft -f {file.name} || exit 1; echo $(($(date +%s%3N) - begun))
        done"""
        done = subprocess.run(["unshare", "-n", "sh", "-c", script], capture_output=True, text=True, check=True)
    return statistics.median(map(int, done.stdout.split())) / 1000


def throughput(lab: Lab, source: Place, address: str) -> float:
    """Gbit/s of one TCP stream from a container to the iperf3 that listens at an address."""
    client = ["ip", "netns", "exec", source[1], "iperf3", "-J", "-O", "0.5", "-t", str(SECONDS), "-c", address]
    said = json.loads(lab.exec(source[0], client).stdout)
    return float(said["end"]["sum_received"]["bits_per_second"]) / 1e9


def compare(lab: Lab, what: str, source: Place, target: Place, pairs: int) -> None:
    """Print how much less goes through with the guard: the median of the pairs, and where half of them are."""
    hosts = {source[0], target[0]}
    shown = lab.exec(target[0], f"ip netns exec {target[1]} ip -o -4 addr show pn0").stdout
    address = shown.split()[3].partition("/")[0]
    server = lab.argv(target[0], ["ip", "netns", "exec", target[1], "iperf3", "-s"])
    less, speeds = [], []
    with subprocess.Popen(server, stdout=subprocess.DEVNULL) as serving:
        time.sleep(0.5)
        for number in range(pairs):
            found = {}
            for switch in (ON, OFF) if number % 2 else (OFF, ON):
                for host in hosts:
                    lab.exec(host, switch)
                time.sleep(SETTLE)
                found[switch] = throughput(lab, source, address)
            less.append(100 * (1 - found[ON] / found[OFF]))
            speeds.append((found[ON], found[OFF]))
        lab.exec(target[0], "pkill -x iperf3")
        serving.wait(10)
    for host in hosts:
        lab.exec(host, ON)
    low, middle, high = statistics.quantiles(less, n=4)
    on, off = (statistics.median(column) for column in zip(*speeds, strict=True))
    print(
        f"{what}: {on:.2f} Gbit/s with, {off:.2f} without the guard; "
        f"{middle:+.1f} % less with it, half of {pairs} pairs between {low:+.1f} and {high:+.1f} %",
        flush=True,
    )


def plain_link(lab: Lab) -> None:
    """Put a veth pair named as the mesh in the place of WireGuard between lab-1 and lab-2, as root of this machine."""
    addresses = {}
    for host in ("lab-1", "lab-2"):
        addresses[host] = lab.exec(host, "ip -o -4 addr show privnet").stdout.split()[3]
        lab.exec(host, "systemctl stop wg-quick@privnet")
    one, two = (lab.machine(host).init for host in ("lab-1", "lab-2"))
    if one is None or two is None:
        raise RuntimeError("the lab's hosts are off")
    make = f"ip link add privnet netns {one.pid} type veth peer name privnet netns {two.pid}"
    subprocess.run(make.split(), check=True)
    for host, address in addresses.items():
        lab.exec(host, f"ip addr add {address} dev privnet && ip link set privnet mtu 1440 up")


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    print(f"load of {NETWORKS} networks, {CONTAINERS} containers: {load_seconds():.2f} s", flush=True)
    sys.path.insert(0, str(TESTS))
    from lab.runs import deploy  # type: ignore[import-not-found]

    os.environ["PRIVNET_LAB"] = "bench-guard"
    with tempfile.TemporaryDirectory() as temporary:
        shutil.copytree(TESTS / "security/inventory", Path(temporary) / "inventory")
        shutil.copy(TESTS / "security/inventory.py", temporary)
        lab = Lab(Path(temporary) / "inventory", name="bench-guard")
        lab.down()
        lab.up()
        try:
            deploy(lab)
            for host in ("lab-1", "lab-2", "lab-3"):
                lab.exec(host, "systemctl stop privnet-guard-watch")  # it would bring back what is taken away here
            far = (("lab-1", WEB), ("lab-2", FAR))
            compare(lab, "within a host", ("lab-3", NEAR[0]), ("lab-3", NEAR[1]), pairs)
            compare(lab, "between hosts", *far, pairs)
            plain_link(lab)
            compare(lab, "between hosts, a plain link in WireGuard's place", *far, pairs)
        finally:
            lab.down()


if __name__ == "__main__":
    main()
