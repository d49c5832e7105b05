"""A resolver outside the fleet that answers what an attacker would; ends with the names that it was asked: [name, …].

Names in `example` lead inside (`rebind`, `mapped`), or are an alias of a private name with an address beside it.
"""

import json
import select
import socket
import struct
import sys

PRIVATE = json.loads(sys.stdin.readline())["private"]
asked = []


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
    if name == "rebind.example":
        return [record(name, 1, v4("10.240.0.3"))] if kind == 1 else [record(name, 28, v6("fe80::1"))]
    if name == "mapped.example" and kind == 28:
        return [record(name, 28, v6("::ffff:10.240.0.3"))]
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
