"""Probe all targets at once over TCP, UDP and ICMP; the numbers of those that answered: {protocol: [number, …]}."""

import contextlib
import json
import select
import socket
import struct
import sys
import time

BASE = 20000
SECONDS = 1.5
order = json.loads(sys.stdin.readline())
targets, TOKEN = order["targets"], order["token"].encode()
answered = {"tcp": set(), "icmp": set()}


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
icmp.setblocking(False)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
waiting = {}
for number, address in targets:
    payload = TOKEN + b"." * (len(TOKEN) % 2)
    echo = struct.pack("!BBH2sH", 8, 0, 0, b"pn", number) + payload
    echo = echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]
    # No route: that is an answer too, and not one that counts.
    with contextlib.suppress(OSError):
        icmp.sendto(echo, (address, 0))
    with contextlib.suppress(OSError):
        udp.sendto(TOKEN, (address, BASE + number))
    tcp = socket.socket()
    tcp.setblocking(False)
    if tcp.connect_ex((address, BASE + number)) == 115:  # EINPROGRESS
        waiting[tcp] = number
end = time.monotonic() + SECONDS
while (left := end - time.monotonic()) > 0:
    readable, writable, _ = select.select([icmp], list(waiting), [], left)
    for tcp in writable:
        error = tcp.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        number = waiting.pop(tcp)
        if error in (0, 111):  # connected, or refused: somebody was there
            answered["tcp"].add(number)
        tcp.close()
    if readable:
        packet = icmp.recv(65535)
        body = packet[(packet[0] & 15) * 4 :]
        if body[0] == 0 and body[4:6] == b"pn":
            answered["icmp"].add(int.from_bytes(body[6:8], "big"))
print(json.dumps({name: sorted(numbers) for name, numbers in answered.items()}))
