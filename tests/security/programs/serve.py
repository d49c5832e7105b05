"""Takes TCP connections on a port, over IPv6, until standard input ends; where they came from: [address, …]."""

import json
import select
import socket
import sys

order = json.loads(sys.stdin.readline())
server = socket.create_server(("::", order["port"]), family=socket.AF_INET6)
came = []
print("ready", flush=True)
while True:
    ready, _, _ = select.select([sys.stdin, server], [], [])
    if server in ready:
        came.append(server.accept()[1][0])
    elif sys.stdin in ready:
        break
print(json.dumps(came))
