"""What the guard costs: `python -m tests.bench.guard [PAIRS]`, as root, with `perf`, on a machine with no other work.

TCP through a private network between two hosts and within one, in one run of one lab: one stream, and eight at once.
Last with a plain link in the mesh's place, which hands packets on in bulk. Two figures of each.

The guard's share: of all samples of the processors that are taken in what carries the stream (iperf3, wireguard-go,
ksoftirqd), those that are inside nftables. Where processors are the limit, as here, that is the share of throughput
that the guard takes. It moves by tenths of a percent from turn to turn; what other programs do has little part in it.

Throughput with the guard and without it, by short turns, each held against its neighbour. On a machine with two
processors a turn differs from the next by more than the guard costs, so there are many, and an interval is told: the
median's, by 2,000 draws of as many pairs from those that were measured (bootstrap).

Before all that the time that a host takes to load a guard of 1,000 networks with 10,000 containers, and what its owner
holds of it.
"""

from __future__ import annotations

import json
import os
import random
import re
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

PAIRS, SECONDS, SETTLE = 60, 2, 0.5
STREAMS = (1, 8)
SAMPLED = 12
NETWORKS, CONTAINERS = 1000, 10000
TESTS = Path(__file__).parents[1]
WEB, FAR = "1.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053", "2.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053"
NEAR = ("1.web.ap-d4b6f1a0-93c7-4e52-8a1d-2f5b7c9e0d36", "1.web.ap-0c8b7a52-93a4-4f39-9b1d-2f6f3a1c7d10")
ON = "systemctl reload privnet-guard"
GONE = "delete table inet privnet; delete table bridge privnet"
OFF = f"{ON}; echo '{GONE}' | sh /etc/privnet/lib/guard.sh apply /dev/stdin"  # before a turn comes the same for both
RULES = "/etc/privnet/guard.nft"
CARRIERS = re.compile("wireguard-go|iperf3|ksoftirqd")

Place = tuple[str, str]
"""Host and slot."""


def load(lab: Lab, host: str) -> None:
    """Print the median time of five loads, as a run has them, and the memory of the process that owns the guard."""
    speakers = []
    for number in range(CONTAINERS):
        network, place = number % NETWORKS, number // NETWORKS + 2
        octets = (10, 240, place >> 8, place & 255)
        mac = "02:70:" + ":".join(f"{octet:02x}" for octet in octets)
        peer = f"100.64.{number % 50}.2"
        speakers.append(Speaker(peer, 4096 + network, mac, ".".join(map(str, octets))))
    bindings = [Binding(f"pnc{4096 + n:06x}0001", "02:70:0a:f0:00:01", "10.240.0.1") for n in range(NETWORKS)]
    text = guard_file(Guard(4789, "100.64.0.0/16", 51820, tuple(speakers), tuple(bindings))).text
    memory = "sed -n 's/^RssAnon:[^0-9]*\\([0-9]*\\) kB/\\1/p' /proc/$(systemctl show -P MainPID privnet-guard)/status"
    script = f"""{memory}; cp {RULES} /run/kept; trap 'mv /run/kept {RULES}; systemctl reload privnet-guard' EXIT
        cat > {RULES}
        for i in 1 2 3 4 5; do
            begun=$(date +%s%3N); systemctl reload privnet-guard || exit 1; echo $(($(date +%s%3N) - begun))
        done
        {memory}"""
    before, *times, after = map(int, lab.exec(host, script, input=text).stdout.split())
    print(f"load of {NETWORKS} networks, {CONTAINERS} containers: {statistics.median(times) / 1000:.2f} s")
    print(f"  its owner holds {after / 1024:.0f} MiB, and {before / 1024:.1f} MiB of this lab's guard", flush=True)


def throughput(lab: Lab, source: Place, address: str, streams: int) -> float:
    """Gbit/s of so many TCP streams together, from a container to the iperf3 that listens at an address."""
    client = ["ip", "netns", "exec", source[1], "iperf3", "-J", "-t", str(SECONDS), "-P", str(streams), "-c", address]
    said = json.loads(lab.exec(source[0], client).stdout)
    return float(said["end"]["sum_received"]["bits_per_second"]) / 1e9


def sampled(lab: Lab, source: Place, address: str, streams: int) -> float:
    """Of what carries the streams, the percentage that is spent inside nftables."""
    with tempfile.TemporaryDirectory() as temporary:
        file = f"{temporary}/perf.data"
        record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "1999", "-a", "-g", "-o", file]
        with subprocess.Popen([*record, "--", "sleep", str(SECONDS)], stderr=subprocess.DEVNULL):
            throughput(lab, source, address, streams)
        script = ["perf", "script", "-i", file, "-F", "comm,ip,sym"]
        text = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    samples = [sample for sample in text.split("\n\n") if CARRIERS.match(sample.strip())]
    return 100 * sum("nft_do_chain" in sample for sample in samples) / len(samples)


def measure(lab: Lab, what: str, source: Place, target: Place, pairs: int, streams: int) -> None:
    """Print what the guard takes: medians, and where half of the turns are."""
    hosts = {source[0], target[0]}
    shown = lab.exec(target[0], f"ip netns exec {target[1]} ip -o -4 addr show pn0").stdout
    address = shown.split()[3].partition("/")[0]
    server = lab.argv(target[0], ["ip", "netns", "exec", target[1], "iperf3", "-s"])
    less, speeds = [], []
    with subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as serving:
        time.sleep(0.5)
        for number in range(pairs):
            found = {}
            for switch in (ON, OFF) if number % 2 else (OFF, ON):
                for host in hosts:
                    lab.exec(host, switch)
                time.sleep(SETTLE)
                found[switch] = throughput(lab, source, address, streams)
            less.append(100 * (1 - found[ON] / found[OFF]))
            speeds.append((found[ON], found[OFF]))
        for host in hosts:
            lab.exec(host, ON)
        shares = [sampled(lab, source, address, streams) for _ in range(SAMPLED)]
        lab.exec(target[0], "pkill -x iperf3")
        serving.wait(10)
    on, off = (statistics.median(column) for column in zip(*speeds, strict=True))
    print(f"{what}, {streams} at once, {pairs} pairs of turns: {on:.2f} Gbit/s with, {off:.2f} without the guard")
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(less, k=pairs)) for _ in range(2000))
    lost = f"{statistics.median(less):.1f} % ({medians[50]:.1f} to {medians[1949]:.1f} %)"
    low, middle, high = statistics.quantiles(shares, n=4)
    print(f"  throughput that is lost: median of the pairs, and its 95 % interval: {lost}")
    shared = f"{middle:.1f} % ({low:.1f} to {high:.1f} %)"
    print(f"  share of processors' time: median of the turns, and half of them: {shared}", flush=True)


def hand_on_in_bulk(lab: Lab, ends: tuple[str, str]) -> None:
    """Put a veth in the mesh's place. It hands on 64 KiB at once, as WireGuard in the kernel, without encryption."""
    addresses = {end: lab.exec(end, "ip -o -4 addr show privnet").stdout.split()[3].partition("/")[0] for end in ends}
    for end in ends:
        lab.exec(end, "ip link del privnet")
    inits = [lab.machine(end).init for end in ends]
    near, far = (init.pid for init in inits if init is not None)
    make = f"ip link add privnet netns {near} type veth peer name privnet netns {far}"
    subprocess.run(make.split(), check=True)
    for end, other in (ends, ends[::-1]):
        place = f"ip link set privnet mtu 1440 up; ip addr add {addresses[end]}/32 dev privnet; "
        lab.exec(end, f"{place} ip route add {addresses[other]}/32 dev privnet")


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    if shutil.which("perf") is None:
        sys.exit("perf is missing: it takes the samples. Debian has it in the package linux-perf.")
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
                # A plain Debian host does not load br_netfilter.
                lab.exec(host, "sysctl -qw net.bridge.bridge-nf-call-iptables=0")
            load(lab, "lab-1")
            for streams in STREAMS:
                measure(lab, "between hosts", ("lab-1", WEB), ("lab-2", FAR), pairs, streams)
                measure(lab, "within a host", ("lab-3", NEAR[0]), ("lab-3", NEAR[1]), pairs, streams)
            hand_on_in_bulk(lab, ("lab-1", "lab-2"))
            measure(lab, "between hosts, in bulk", ("lab-1", WEB), ("lab-2", FAR), pairs, 1)
        finally:
            lab.down()


if __name__ == "__main__":
    main()
