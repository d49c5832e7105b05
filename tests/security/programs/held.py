"""A resolver outside the fleet that answers nobody, so that an answer from beside the path has all the time it wants.

Says `{"port": …, "id": …, "question": "hex"}` of each question, one a line, as it comes.
"""

import json
import select
import socket
import sys

sys.stdin.readline()  # nothing to be told
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("0.0.0.0", 53))
print("ready", flush=True)
while True:
    ready, _, _ = select.select([sys.stdin, server], [], [])
    if server in ready:
        data, client = server.recvfrom(4096)
        end = data.index(b"\0", 12) + 5
        said = {"port": client[1], "id": int.from_bytes(data[:2], "big"), "question": data[12:end].hex()}
        print(json.dumps(said), flush=True)
    elif sys.stdin in ready:
        break
