"""Questions to the resolver of this namespace at a steady rate: {"p50": ms, "p99": ms, "lost": …, "rate": …, "gap": s}.

An answer that is not the right one (`right`, all addresses of the name) ends it; one that says that there is none now
(SERVFAIL, REFUSED) counts as none. `gap` is the longest time without an answer. With `unique` each question has a name
of its own below the one that it is told.
"""

import contextlib
import itertools
import json
import select
import socket
import sys
import time

order = json.loads(sys.stdin.readline())
right = sorted(order.get("right", []))


def wire(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def addresses(answer):
    """Those of all A records."""
    at, found = answer.index(b"\0", 12) + 5, []
    for _ in range(int.from_bytes(answer[6:8], "big")):
        while answer[at] and answer[at] < 192:
            at += 1 + answer[at]
        at += 2 if answer[at] else 1
        size = int.from_bytes(answer[at + 8 : at + 10], "big")
        if answer[at : at + 2] == b"\0\1":
            found.append(socket.inet_ntoa(answer[at + 10 : at + 14]))
        at += 10 + size
    return sorted(found)


def question(number):
    name = f"{number}.{order['name']}" if order.get("unique") else order["name"]
    return number.to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0" + wire(name) + b"\0\1\0\1"


resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
resolver.connect(("10.240.0.1", 53))
sent, times, answered, end = {}, [], [], 0.0
print("ready", flush=True)
begun = time.monotonic()
while len(sent) < order["count"] or (len(times) < len(sent) and time.monotonic() < end):
    due = begun + len(sent) / order["rate"]
    left = (due if len(sent) < order["count"] else end) - time.monotonic()
    # Nobody may be there for a moment, which the kernel says here.
    with contextlib.suppress(ConnectionRefusedError):
        if left <= 0 and len(sent) < order["count"]:
            number = len(sent)
            sent[number] = time.monotonic()
            end = sent[number] + order.get("patience", 2)
            resolver.send(question(number))
        elif select.select([resolver], [], [], max(0, left))[0]:
            answer = resolver.recv(4096)
            if answer[3] & 15 in (2, 5):
                continue
            answered.append(time.monotonic())
            times.append(answered[-1] - sent[int.from_bytes(answer[:2], "big")])
            found = addresses(answer)
            if not found or (right and found != right):
                sys.exit(f"a wrong answer: {found}, not {right or 'an address'}")
asked = (max(sent.values()) - begun) or 1
moments = [begun, *answered, max([*sent.values(), *answered])]
gap = max(later - earlier for earlier, later in itertools.pairwise(moments))
times.sort()
ranks = {share: min(len(times) - 1, int(len(times) * share)) for share in (0.5, 0.99)}
at = {share: round(1000 * times[rank], 2) if times else 0 for share, rank in ranks.items()}
found = {"p50": at[0.5], "p99": at[0.99], "lost": len(sent) - len(times), "rate": round(len(sent) / asked), "gap": gap}
print(json.dumps(found))
