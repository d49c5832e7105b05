"""Tokens that arrive in this namespace until standard input ends: in a container every frame on an interface;
on a host, which has none of that name, what its IP stack gets behind all filters."""

import json
import re
import select
import socket
import sys

order = json.loads(sys.stdin.readline())
token, interface = order["token"].encode(), order["interface"]
pattern = re.compile(re.escape(token) + rb"[^ \0]*")
try:
    socket.if_nametoindex(interface)
    frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    frames.bind((interface, 3))
    sockets = [frames]
except OSError:
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_RAW, number) for number in (1, 6, 17)]
for one in sockets:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
found = []
print("ready", flush=True)
while True:
    ready, _, _ = select.select([sys.stdin, *sockets], [], [])
    for one in ready:
        if one is not sys.stdin:
            data, where = one.recvfrom(65535)
            if len(where) < 5:
                inside = (data[0] & 15) * 4
                # The datagram of a tunnel is not what is in it.
                wanted = not (data[9] == 17 and data[inside + 2 : inside + 4] == (4789).to_bytes(2, "big"))
            else:
                wanted = where[2] != socket.PACKET_OUTGOING
            if wanted:
                found += [match.decode() for match in pattern.findall(data)]
    if ready == [sys.stdin]:
        break
print(json.dumps(found))
