"""Be the mesh's device as a program in user space makes it that hands on several datagrams as one, and hand on some.

Linux takes such a packet apart at the socket, behind netfilter (udp_queue_rcv_skb): rules see one header for all.
"""

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys

TUNSETIFF = 0x400454CA
TUN, WITHOUT_HEAD, WITH_VIRTIO_HEAD = 0x0001, 0x1000, 0x4000
NEEDS_CHECKSUM, JOINED_DATAGRAMS = 1, 5  # VIRTIO_NET_HDR_GSO_UDP_L4
PORT = 4789

order = json.loads(sys.stdin.readline())
device = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"privnet", TUN | WITHOUT_HEAD | WITH_VIRTIO_HEAD))
for command in (f"ip address add {order['target']}/32 dev privnet", "ip link set privnet up"):
    subprocess.run(command.split(), check=True)
print("ready", flush=True)
sys.stdin.readline()
payloads = [bytes.fromhex(payload) for payload in order["payloads"]]
size = len(payloads[0])
assert all(len(payload) == size for payload in payloads)
body = struct.pack("!HHHH", 40000, PORT, 8 + size * len(payloads), 0) + b"".join(payloads)
ends = socket.inet_aton(order["source"]) + socket.inet_aton(order["target"])
head = struct.pack("!BBHHHBBH", 69, 0, 20 + len(body), 1, 0, 64, 17, 0) + ends
words = struct.unpack("!10H", head)
total = sum(words)
total = (total >> 16) + (total & 0xFFFF)
head = head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:]
virtio = struct.pack("<BBHHHH", NEEDS_CHECKSUM, JOINED_DATAGRAMS, 28, size, 20, 6)
os.write(device, virtio + head + body)
sys.stdin.readline()
