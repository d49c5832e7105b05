"""What the guard costs: `python -m tests.bench.guard`, as root.

Throughput of a private network between two hosts and within one, with the guard and without it, by turns in one run of
one lab; and the time that nft takes to load a guard of 1,000 networks with 10,000 containers.
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

ROUNDS, SECONDS, SETTLE = 6, 4, 1
NETWORKS, CONTAINERS = 1000, 10000
TESTS = Path(__file__).parents[1]
WEB, FAR = "1.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053", "2.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053"
NEAR = ("1.web.ap-d4b6f1a0-93c7-4e52-8a1d-2f5b7c9e0d36", "1.web.ap-0c8b7a52-93a4-4f39-9b1d-2f6f3a1c7d10")
GONE = "add table {0} privnet; delete table {0} privnet"  # also where it is gone already
OFF = f"systemctl stop privnet-guard-watch; nft '{GONE.format('inet')}; {GONE.format('bridge')}'"
ON = "systemctl reload privnet-guard; systemctl start privnet-guard-watch"


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


def throughput(lab: Lab, source: tuple[str, str], target: tuple[str, str]) -> float:
    """Gbit/s of one TCP stream from (host, slot) to (host, slot)."""
    server = lab.argv(target[0], ["ip", "netns", "exec", target[1], "iperf3", "-s", "-1"])
    with subprocess.Popen(server, stdout=subprocess.DEVNULL):
        time.sleep(0.3)
        address = (
            lab.exec(target[0], f"ip netns exec {target[1]} ip -o -4 addr show pn0").stdout.split()[3].split("/")[0]
        )
        client = ["ip", "netns", "exec", source[1], "iperf3", "-J", "-O", "1", "-t", str(SECONDS), "-c", address]
        said = json.loads(lab.exec(source[0], client).stdout)
    return float(said["end"]["sum_received"]["bits_per_second"]) / 1e9


def compare(lab: Lab, source: tuple[str, str], target: tuple[str, str]) -> tuple[float, float]:
    """(with, without the guard): medians over rounds that take turns."""
    found: dict[str, list[float]] = {ON: [], OFF: []}
    hosts = {source[0], target[0]}
    for number in range(ROUNDS):
        for switch in (ON, OFF) if number % 2 else (OFF, ON):
            for host in hosts:
                lab.exec(host, switch)
            time.sleep(SETTLE)
            found[switch].append(throughput(lab, source, target))
    for host in hosts:
        lab.exec(host, ON)
    print({name: [round(value, 2) for value in found[switch]] for name, switch in (("with", ON), ("without", OFF))})
    return statistics.median(found[ON]), statistics.median(found[OFF])


def main() -> None:
    print(f"load of {NETWORKS} networks, {CONTAINERS} containers: {load_seconds():.2f} s")
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
            pairs = {
                "between hosts": (("lab-1", WEB), ("lab-2", FAR)),
                "within a host": (("lab-3", NEAR[0]), ("lab-3", NEAR[1])),
            }
            for what, (source, target) in pairs.items():
                on, off = compare(lab, source, target)
                print(f"{what}: {on:.2f} Gbit/s with, {off:.2f} without the guard: {100 * (1 - on / off):+.1f} %")
        finally:
            lab.down()


if __name__ == "__main__":
    main()
