"""Connects over TCP to link-local addresses on an interface; those that take the connection: [address, …]."""

import json
import select
import socket
import sys
import time

order = json.loads(sys.stdin.readline())
scope, waiting, taken = socket.if_nametoindex(order["interface"]), {}, []
for address in order["addresses"]:
    one = socket.socket(socket.AF_INET6)
    one.setblocking(False)
    if one.connect_ex((address, order["port"], 0, scope)) == 115:  # EINPROGRESS
        waiting[one] = address
end = time.monotonic() + 1.5
while waiting and (left := end - time.monotonic()) > 0:
    for one in select.select([], list(waiting), [], left)[1]:
        address = waiting.pop(one)
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, 111):  # refused: somebody was there
            taken.append(address)
print(json.dumps(taken))
