"""UDP payloads for one port, until standard input ends: {"from": [hex, …], …}. They are those that come by on an
interface; without one, what the IP stack gets behind all filters."""

import json
import select
import socket
import sys

order = json.loads(sys.stdin.readline())
if order["interface"]:
    # All, so that this sees what a filter drops.
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    raw.bind((order["interface"], 3))
else:
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
PORT = order["port"].to_bytes(2, "big")
seen = {}
print("ready", flush=True)
while True:
    ready, _, _ = select.select([sys.stdin, raw], [], [])
    if raw in ready:
        frame, where = raw.recvfrom(65535)
        if not order["interface"]:
            frame, where = bytes(12) + b"\x08\x00" + frame, ("", 0, None)
        at = 14 + (frame[14] & 15) * 4
        wanted = frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[at + 2 : at + 4] == PORT
        if wanted and where[2] != socket.PACKET_OUTGOING:
            length = int.from_bytes(frame[at + 4 : at + 6], "big")
            seen.setdefault(socket.inet_ntoa(frame[26:30]), []).append(frame[at + 8 : at + length].hex())
    elif sys.stdin in ready:
        break
print(json.dumps(seen))
