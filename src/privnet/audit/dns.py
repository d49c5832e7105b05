"""DNS messages, as far as the audit asks and reads them (RFC 1035). Nothing here trusts what it reads."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from privnet.model.identifiers import format_address

A, PTR, AAAA = 1, 12, 28
TYPES = {A: "A", PTR: "PTR", AAAA: "AAAA"}
RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
_JUMPS_AT_MOST = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """What a resolver answered.

    :param values: addresses or names, sorted
    :param ttls: of all records of the answer
    """

    rcode: str
    values: tuple[str, ...] = ()
    ttls: frozenset[int] = frozenset()
    truncated: bool = False


def question(number: int, name: str, kind: int) -> bytes:
    """A recursive query for one name."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return _HEADER.pack(number & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def read_answer(asked: bytes, data: bytes) -> Answer:
    """The answer to ``asked``. Raises ValueError when it is none."""
    try:
        return _read(asked, data)
    except (IndexError, struct.error) as error:
        raise ValueError("the message is cut off") from error


def _read(asked: bytes, data: bytes) -> Answer:
    number, flags, questions, answers, _, _ = _HEADER.unpack_from(data)
    if number != int.from_bytes(asked[:2], "big") or not flags & 0x8000:
        raise ValueError("the message is not the answer to the question")
    if questions != 1 or data[12 : len(asked)].lower() != asked[12:].lower():
        raise ValueError("the message answers another question")
    place, values, ttls = len(asked), [], set()
    wanted = int.from_bytes(asked[-4:-2], "big")
    for _ in range(answers):
        _, place = _name(data, place)
        kind, _, ttl, length = _RECORD.unpack_from(data, place)
        place += _RECORD.size
        if place + length > len(data):
            raise ValueError("the message is cut off")
        if kind == wanted:
            values.append(_value(kind, data, place, length))
            ttls.add(ttl)
        else:
            values.append(f"a record of type {TYPES.get(kind, kind)}")
        place += length
    rcode = RCODES.get(flags & 15, f"rcode {flags & 15}")
    return Answer(rcode, tuple(sorted(values)), frozenset(ttls), bool(flags & 0x0200))


def _value(kind: int, data: bytes, place: int, length: int) -> str:
    if kind == A and length == 4:
        return format_address(int.from_bytes(data[place : place + 4], "big"))
    if kind == PTR:
        return _name(data, place)[0]
    return data[place : place + length].hex()


def _name(data: bytes, place: int) -> tuple[str, int]:
    """A name, and where it ends."""
    labels: list[str] = []
    end = 0
    for _ in range(_JUMPS_AT_MOST):
        length = data[place]
        if length >= 0xC0:
            end = end or place + 2
            place = struct.unpack_from("!H", data, place)[0] & 0x3FFF
        elif length:
            labels.append(data[place + 1 : place + 1 + length].decode("latin-1"))
            place += 1 + length
        else:
            return ".".join(labels), end or place + 1
    raise ValueError("the message has a name without an end")


def reverse_name(address: str) -> str:
    """The name whose PTR record tells an address's name."""
    return ".".join(reversed(address.split("."))) + ".in-addr.arpa"
