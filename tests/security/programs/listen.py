"""Numbers of the probes that arrive in this namespace, until standard input ends: {protocol: [number, …]}."""

import json
import select
import socket
import sys

BASE = 20000
ports = {
    socket.socket(socket.AF_INET, socket.SOCK_RAW, number): name
    for number, name in ((6, "tcp"), (17, "udp"), (1, "icmp"))
}
for raw in ports:
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
seen = {name: set() for name in ports.values()}
sys.stdin.readline()  # nothing to be told
print("ready", flush=True)
over = False
while not over:
    ready, _, _ = select.select([sys.stdin, *ports], [], [])
    if ready == [sys.stdin]:
        over = True
    for raw in ready:
        if raw is sys.stdin:
            continue
        packet = raw.recv(65535)
        body = packet[(packet[0] & 15) * 4 :]
        if ports[raw] == "icmp":
            if body[0] == 8 and body[4:6] == b"pn":
                seen["icmp"].add(int.from_bytes(body[6:8], "big"))
        else:
            number = int.from_bytes(body[2:4], "big") - BASE
            if 0 <= number < 10000:
                seen[ports[raw]].add(number)
print(json.dumps({name: sorted(numbers) for name, numbers in seen.items()}))
