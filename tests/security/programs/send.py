"""Send frames on an interface, whole IPv4 packets, or datagrams: with this namespace's own address or with another.

Frames with `until_end` go round and round until standard input ends; how many were sent is said then.
"""

import json
import select
import socket
import struct
import sys
import time

UDP_SEGMENT = 103
order = json.loads(sys.stdin.readline())
if "frames" in order:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind((order["interface"], 0))
    if order.get("until_end"):
        print("ready", flush=True)
        sent = 0
        while not select.select([sys.stdin], [], [], 0)[0]:
            for frame in map(bytes.fromhex, order["frames"]):
                raw.send(frame)
                sent += 1
        print(sent)
        sys.exit()
    for frame in order["frames"]:
        raw.send(bytes.fromhex(frame))
        if order["pause"]:
            time.sleep(order["pause"])
elif "packets" in order:
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for packet in map(bytes.fromhex, order["packets"]):
        raw.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
else:
    target, port = order["address"], order["port"]
    if order["source"]:
        sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    else:
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        if order["from_port"]:
            sender.bind(("", order["from_port"]))
        if order["segment"]:
            sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, order["segment"])
    for payload in map(bytes.fromhex, order["payloads"]):
        if order["source"]:
            udp = struct.pack("!HHHH", order["from_port"] or 40000, port, 8 + len(payload), 0) + payload
            addresses = socket.inet_aton(order["source"]) + socket.inet_aton(target)
            payload = struct.pack("!BBHHHBBH", 69, 0, 0, 0, 0, 64, 17, 0) + addresses + udp
        try:
            sender.sendto(payload, (target, port))
        except OSError as error:
            print(error, file=sys.stderr)
        if order["pause"]:
            time.sleep(order["pause"])
