"""A resolver outside the fleet that answers what an attacker would; ends with the names that it was asked: [name, …].

Names in `example` lead inside, by all their addresses or by one beside an honest one, or are an alias of a private name
with an address beside it.
"""

import json
import select
import socket
import struct
import sys

PRIVATE = json.loads(sys.stdin.readline())["private"]
asked = []
INSIDE = {
    "rebind.example": ["10.240.0.3", "fe80::1"],
    "mapped.example": ["::ffff:10.240.0.3"],
    "beside.example": ["11.22.33.44", "10.240.0.3"],
    "shared.example": ["100.64.0.3", "::ffff:100.64.0.3"],
    "beside-shared.example": ["11.22.33.44", "100.127.255.254"],
}


def name_at(data, at):
    labels = []
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode("ascii", "replace"))
        at += 1 + data[at]
    return ".".join(labels), at + 1


def wire(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def record(owner, kind, data):
    return wire(owner) + struct.pack("!HHIH", kind, 1, 600, len(data)) + data


def answers(name, kind):
    v4, v6 = socket.inet_aton, lambda text: socket.inet_pton(socket.AF_INET6, text)
    if name == "alias.example" and PRIVATE:
        return [record(name, 5, wire(PRIVATE)), record(PRIVATE, 1, v4("11.22.33.66"))]
    if name == "chain.example":
        return [record(name, 5, wire("inside.example")), record("inside.example", 1, v4("100.64.0.3"))]
    if name in INSIDE:
        found = [text for text in INSIDE[name] if (":" in text) == (kind == 28)]
        return [record(name, kind, v6(text) if kind == 28 else v4(text)) for text in found if kind in (1, 28)]
    return [record(name, 1, v4("11.22.33.44"))] if kind == 1 else []


server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("0.0.0.0", 53))
print("ready", flush=True)
while True:
    ready, _, _ = select.select([sys.stdin, server], [], [])
    if server in ready:
        data, client = server.recvfrom(4096)
        name, end = name_at(data, 12)
        kind = struct.unpack("!H", data[end : end + 2])[0]
        asked.append(name)
        found = answers(name.lower(), kind)
        head = data[:2] + struct.pack("!HHHHH", 0x8580, 1, len(found), 0, 0)
        server.sendto(head + data[12 : end + 4] + b"".join(found), client)
    elif sys.stdin in ready:
        break
print(json.dumps(asked))
