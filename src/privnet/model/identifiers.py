"""Checked names, identifiers and small values. Each parses the raw text of its field.

Nothing is converted silently: a text is accepted in its one canonical form or refused with that form. The functions
raise :class:`Invalid`, a ``ValueError`` that carries a whole message; pydantic passes it on untouched.

Addresses and prefixes are integers inside: ``ipaddress`` objects cost microseconds each, and there are thousands.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from privnet.diagnostics import hidden, quoted
from privnet.model.nodes import Mapping, Scalar, Sequence

LABEL = "[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
APPLICATION_ID = f"ap-{UUID}"
NETWORK_ID = f"pn-{UUID}"
DOMAIN = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?([.][a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+"
NAME = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?([.][a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
SSH_USER = "[a-z_][a-z0-9_-]{0,31}"
DURATION = "(0|[1-9][0-9]*)[smhd]"
PERCENT = "(0|[1-9][0-9]?|100)%"
VNI_RANGE = "[1-9][0-9]*-[1-9][0-9]*"
RELEASE = "[a-z0-9][a-z0-9._-]{0,39} [a-z0-9][a-z0-9._-]{0,39}"
DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
PREFIX = f"{OCTET}([.]{OCTET}){{3}}/([0-9]|[12][0-9]|3[012])"

VNI_LAST = 2**24 - 1
MTU_FIRST, MTU_LAST = 1280, 9216
QUARANTINE_LAST = 365 * 86400
ROLLBACK_LAST = 86400

_LABEL = re.compile(LABEL)
_IDS = {"ap-": re.compile(APPLICATION_ID), "pn-": re.compile(NETWORK_ID)}
_DOMAIN = re.compile(DOMAIN)
_NAME = re.compile(NAME)
_SSH_USER = re.compile(SSH_USER)
_DURATION = re.compile(DURATION)
_INTEGER = re.compile("0|-?[1-9][0-9]*")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Invalid(ValueError):
    """A value that breaks the rule of its kind, with everything there is to say about it."""

    def __init__(self, code: str, message: str, *, label: str = "", note: str = "", help: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.label = label
        self.note = note
        self.help = help


# --- numbers and booleans, from plain text only ---------------------------------------------------


def parse_integer(value: object, what: str = "the value") -> int:
    """A plain decimal integer. Raises Invalid (PN206) for everything else, with the number to write instead."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = _scalar(value, what, "a plain integer", "PN206")
    if isinstance(value, Scalar) and value.quoted:
        plain = f"write {text if _INTEGER.fullmatch(text) else 'a whole number'} without quotes"
        raise Invalid("PN206", f"{what} {quoted(text)} is text in quotes; an integer is wanted", help=plain)
    if len(text) > 20:
        raise Invalid("PN206", f"{what} {quoted(text)} is too long for a number ({len(text):,} characters)")
    if not _INTEGER.fullmatch(text):
        raise Invalid("PN206", f"{what} {quoted(text)} is not a plain decimal integer", help=_integer_meant(text))
    return int(text)


def _integer_meant(text: str) -> str:
    bare = text.replace("_", "").replace(",", "").removeprefix("+")
    if re.fullmatch("0[0-9]+", bare):
        return f"write {int(bare)}: a leading zero means octal to some programs and decimal to others"
    if re.fullmatch("0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+", bare):
        return f"write {int(bare, 0)}: only decimal numbers are read"
    if re.fullmatch("[0-9]+", bare):
        return f"write {int(bare)}"
    if re.fullmatch("[0-9]+[.]0+", bare):
        return f"write {bare.split('.')[0]}"
    if found := re.fullmatch("([1-9][0-9]*) ?[A-Za-z%]+", bare):
        return f"write {found[1]}, without a unit"
    return "write a whole number, for example 3"


def parse_boolean(value: object, what: str = "the value") -> bool:
    """``true`` or ``false``, plain. Raises Invalid (PN205) for everything else."""
    if isinstance(value, bool):
        return value
    text = _scalar(value, what, "`true` or `false`", "PN205")
    if isinstance(value, Scalar) and value.quoted:
        plain = f"write {text if text in ('true', 'false') else 'it'} without quotes"
        raise Invalid("PN205", f"{what} {quoted(text)} is text in quotes; `true` or `false` is wanted", help=plain)
    if text in ("true", "false"):
        return text == "true"
    meant = {"no": "false", "off": "false", "n": "false", "yes": "true", "on": "true", "y": "true"}
    meant |= {"false": "false", "true": "true", "0": "false", "1": "true"}
    guess = meant.get(text.lower())
    help = f"did you mean `{guess}`?" if guess else "write `true` or `false`"
    raise Invalid("PN205", f"{what} {quoted(text)} is not a boolean: only `true` and `false` are", help=help)


def _scalar(value: object, what: str, wanted: str, code: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping | Sequence | dict | list):
        raise Invalid("PN201", f"{what} must be {wanted}, not a {kind_of(value)}")
    raise Invalid(code, f"{what} must be {wanted}")


def kind_of(value: object) -> str:
    """What a node is called in a message: mapping, list or single value."""
    return "mapping" if isinstance(value, dict) else "list" if isinstance(value, list | tuple) else "single value"


@dataclass(frozen=True, slots=True)
class Integer:
    """Annotation of an ``int`` field: the range, and what the number is called in a message."""

    minimum: int
    maximum: int
    what: str

    def parse(self, value: object) -> int:
        number = parse_integer(value, self.what)
        if not self.minimum <= number <= self.maximum:
            message = f"{self.what} {number} is not between {self.minimum} and {self.maximum}"
            raise Invalid("PN207", message)
        return number

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _plain(self.parse, {"type": "integer", "minimum": self.minimum, "maximum": self.maximum})


@dataclass(frozen=True, slots=True)
class Boolean:
    """Annotation of a ``bool`` field, and what it is called in a message."""

    what: str

    def parse(self, value: object) -> bool:
        return parse_boolean(value, self.what)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _plain(self.parse, {"type": "boolean"})


def _plain(parse: Callable[[Any], Any], schema: dict[str, Any]) -> CoreSchema:
    """A field that ``parse`` reads; ``schema`` describes it to other tools."""

    def json_schema(_: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(schema)

    return core_schema.no_info_plain_validator_function(parse, metadata={"pydantic_js_functions": [json_schema]})


# --- names ----------------------------------------------------------------------------------------


def _label(text: str, what: str) -> str:
    if _LABEL.fullmatch(text):
        return text
    raise Invalid("PN210", f"{what} {quoted(text)} breaks the rule for names", note=_NAME_RULE, help=_label_meant(text))


_NAME_RULE = (
    "it becomes part of DNS names and file names: lower-case letters, digits and inner hyphens, "
    "beginning with a letter, 1 to 63 characters"
)


def _label_meant(text: str) -> str:
    if hidden(text) != text:
        return ""
    meant = re.sub("[^a-z0-9]+", "-", text.lower()).lstrip("-0123456789")[:63].rstrip("-")
    return f"for example `{meant}`" if _LABEL.fullmatch(meant) else ""


def check_host_name(text: str) -> str:
    """A host name: one DNS label. Raises Invalid (PN210)."""
    return _label(text, "host name")


def check_zone(text: str) -> str:
    """A zone's name. Raises Invalid (PN210)."""
    return _label(text, "zone")


def check_project_name(text: str) -> str:
    """A project's name. Raises Invalid (PN210)."""
    return _label(text, "project name")


def check_fleet_name(text: str) -> str:
    """A fleet's name. Raises Invalid (PN210)."""
    return _label(text, "fleet name")


def check_process_type(text: str) -> str:
    """A process type (``web``, ``worker``, …): one DNS label that is not an identifier. Raises Invalid (PN210)."""
    _label(text, "process type")
    if len(text) == 39 and any(pattern.fullmatch(text) for pattern in _IDS.values()):
        raise Invalid("PN210", f"process type {quoted(text)} looks like an identifier", help="for example `web`")
    return text


def check_application_id(text: str) -> str:
    """``ap-`` and a canonical UUID. Raises Invalid (PN211)."""
    return _identifier(text, "ap-", "application id")


def check_network_id(text: str) -> str:
    """``pn-`` and a canonical UUID. Raises Invalid (PN211)."""
    return _identifier(text, "pn-", "network id")


def _identifier(text: str, prefix: str, what: str) -> str:
    if not _IDS[prefix].fullmatch(text):
        shape = f"an id is `{prefix}` and a UUID: {prefix}a71da13f-7c70-4c00-a644-eee8558d8053"
        raise Invalid("PN211", f"{what} {quoted(text)} is not a canonical id", note=shape, help=_id_meant(text, prefix))
    if len(set(text[3:].replace("-", ""))) == 1:
        raise Invalid(
            "PN211",
            f"{what} {quoted(text)} is not an identity: every digit is the same",
            help=f"take a new id: {_new_id(prefix)}",
        )
    return text


def _id_meant(text: str, prefix: str) -> str:
    other = {"ap-": "pn-", "pn-": "ap-"}[prefix]
    if _IDS[other].fullmatch(text):
        kinds = {"ap-": "an application", "pn-": "a private network"}
        meant = f"this is the id of {kinds[other]}; {kinds[prefix]} has an id that begins with `{prefix}`"
        return f"{meant}. For a new one: {_new_id(prefix)}"
    start = text[:100].lower().strip()
    digits = re.sub("[^0-9a-f]", "", re.sub("^(ap|pn)-|urn:uuid:", "", start))
    if len(digits) == 32 and text.isascii() and len(text) <= 100:
        meant = f"{prefix}{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
        return f"write {meant}"
    return f"write the id that it has; for a new one: {_new_id(prefix)}"


def _new_id(prefix: str) -> str:
    return f"python3 -c 'import uuid; print(f\"{prefix}{{uuid.uuid4()}}\")'"


def check_domain(text: str) -> str:
    """The domain all names live in: at least two labels, lower case, no final dot. Raises Invalid (PN215)."""
    rule = "a domain is two or more labels of lower-case letters, digits and inner hyphens, without a final dot"
    meant = text.lower().strip(". ")
    if not _DOMAIN.fullmatch(text):
        help = f"write {meant}" if _DOMAIN.fullmatch(meant) else "for example private-network.internal"
        raise Invalid("PN215", f"domain {quoted(text)} is not a domain name", note=rule, help=help)
    if len(text) > 200:
        raise Invalid("PN215", f"domain {quoted(text)} has {len(text)} characters; at most 200 leave room for names")
    top = text.rsplit(".", 1)[1]
    if top.isdigit() or top == "local":
        why = "`.local` belongs to multicast DNS" if top == "local" else "its last label is a number"
        raise Invalid(
            "PN215",
            f"domain {quoted(text)} cannot be used: {why}",
            help="for example private-network.internal",
        )
    return text


def check_internal(text: str) -> str:
    """A domain of somebody's own, of one label or more, whose names have private addresses. Raises Invalid (PN215)."""
    rule = "an internal domain is lower-case letters, digits and inner hyphens between dots, without a final dot"
    meant = re.sub("^[*]?[.]", "", text.lower().strip()).strip(".")
    if not _NAME.fullmatch(text) or len(text) > 253:
        help = f"write {meant}" if _NAME.fullmatch(meant) and len(meant) <= 253 else "for example corp.example"
        raise Invalid("PN215", f"internal domain {quoted(text)} is not a domain name", note=rule, help=help)
    if text.rpartition(".")[2].isdigit() or re.fullmatch("(.+[.])?(in-addr|ip6)[.]arpa", text):
        why = "it has the names of addresses" if text.endswith("arpa") else "its last label is a number"
        help = "for example corp.example, with all names below it"
        raise Invalid("PN215", f"internal domain {quoted(text)} cannot be used: {why}", help=help)
    return text


def check_ssh_user(text: str) -> str:
    """A user name of the host's system. Raises Invalid (PN216)."""
    if not _SSH_USER.fullmatch(text):
        rule = "lower-case letters, digits, `_` and `-`, beginning with a letter or `_`, 1 to 32 characters"
        raise Invalid("PN216", f"ssh user {quoted(text)} is not a user name", note=rule, help="for example `deploy`")
    return text


def check_release(text: str) -> str:
    """The release of an operating system, as os-release(5) names it: ID and VERSION_ID. Raises Invalid (PN209)."""
    if not re.fullmatch(RELEASE, text):
        help = "write ID and VERSION_ID of the host's /etc/os-release, for example `ubuntu 24.04`"
        raise Invalid("PN209", f"{quoted(text)} is not a release", help=help)
    return text


@dataclass(frozen=True, slots=True)
class Line:
    """Annotation of a text for people: one line of printable characters, without space at its ends."""

    what: str
    longest: int = 100

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.parse, core_schema.str_schema())

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "minLength": 1, "maxLength": self.longest, "pattern": r"^\S(.*\S)?$"}

    def parse(self, text: str) -> str:
        if not text.strip():
            raise Invalid("PN216", f"{self.what} is empty", help="write it, or delete the line")
        if len(text) > self.longest:
            raise Invalid("PN216", f"{self.what} has {len(text):,} characters; at most {self.longest} are allowed")
        if hidden(text) != text:
            raise Invalid("PN217", f"{self.what} {quoted(text)} has a secret in it", help="write it without")
        if text != text.strip() or not text.isprintable():
            raise Invalid("PN216", f"{self.what} {quoted(text)} has space at its ends or characters that do not print")
        return text


def check_date(text: str) -> str:
    """A day as YYYY-MM-DD. Raises Invalid (PN209)."""
    try:
        if re.fullmatch(DATE, text):
            return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        pass
    raise Invalid(
        "PN209",
        f"{quoted(text)} is not a day of the calendar",
        help="write YYYY-MM-DD, for example 2025-09-25",
    )


# --- addresses ------------------------------------------------------------------------------------


def parse_address(text: str) -> int:
    """A canonical dotted IPv4 address as an integer. Raises Invalid (PN212)."""
    value = _dotted(text)
    if value is None:
        raise Invalid("PN212", f"{quoted(text)} is not an IPv4 address", help="for example 192.0.2.11")
    return value


def _dotted(text: str) -> int | None:
    if not text.isascii():
        return None
    parts = text.split(".")
    if len(parts) != 4:
        return None
    value = 0
    for part in parts:
        if not part.isdigit() or len(part) > 3 or (part[0] == "0" and part != "0") or int(part) > 255:
            return None
        value = value << 8 | int(part)
    return value


def format_address(value: int) -> str:
    """An integer as a dotted IPv4 address."""
    return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"


def check_address(text: str) -> str:
    """An IPv4 or IPv6 address that a host can be reached at, in canonical form. Raises Invalid (PN212)."""
    return str(_literal(text, "address"))


def _literal(text: str, what: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = _any_address(text)
    if address is None:
        raise Invalid(
            "PN212",
            f"{what} {quoted(text)} is not an IP address",
            note="a literal address is wanted; DNS names are not looked up",
            help=_address_meant(text) if what == "address" else "for example 192.0.2.11 or 2001:db8::11",
        )
    why = _unusable(address)
    if why:
        raise Invalid("PN212", f"{what} {text} cannot be used: it is {why}")
    if str(address) != text:
        raise Invalid("PN212", f"{what} {quoted(text)} is not in canonical form", help=f"write {address}")
    return address


_LOGIN = re.compile(r"(?:([a-z_][a-z0-9_-]{0,31})@)?([0-9.]{7,15}|\[[0-9a-f:]+\])(?::([0-9]{1,5})|/[0-9]{1,3})?")
"""An address as other tools take it: with a user, a port, or the length of a prefix."""


def _address_meant(text: str) -> str:
    found = _LOGIN.fullmatch(text)
    address = _any_address(found[2].strip("[]")) if found else None
    if found is None or address is None:
        return "for example 192.0.2.11 or 2001:db8::11"
    login = [f"{name}: {given}" for name, given in (("user", found[1]), ("port", found[3])) if given]
    return f"write {address}" + (f", and how to log in as `ssh: {{{', '.join(login)}}}`" if login else "")


def _any_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if not text.isascii() or "%" in text:
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _unusable(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return "an IPv4 address written as IPv6"
    if address.is_unspecified or (address.version == 4 and int(address) < 2**24):
        return "no address of one host (unspecified)"
    if address.is_loopback:
        return "a loopback address"
    if address.is_multicast:
        return "a multicast address"
    if address.is_link_local:
        return "a link-local address"
    if address.version == 4 and int(address) >= 0xF0000000:
        return "reserved or broadcast (240.0.0.0/4)"
    return ""


def parse_endpoint(text: str) -> tuple[str, int]:
    """``ip:port`` or ``[ipv6]:port`` as (address, port). Raises Invalid (PN212, PN206, PN207)."""
    bracketed = re.fullmatch(r"\[([^\[\]]*)\]:([^\[\]:]*)", text)
    found = bracketed or re.fullmatch(r"([^\[\]:]*):([^\[\]:]*)", text)
    if found is None:
        raise _no_endpoint(text)
    host, port = found.groups()
    if not host or not port:
        missing = "port" if host else "address"
        raise Invalid("PN212", f"endpoint {quoted(text)} has no {missing}", help=_ENDPOINTS)
    address = _literal(host, "endpoint address")
    if (address.version == 6) != (bracketed is not None):
        raise Invalid("PN212", f"endpoint {quoted(text)} has brackets around an IPv4 address", help=_ENDPOINTS)
    return str(address), Integer(1, 65535, "endpoint port").parse(port)


_ENDPOINTS = 'for example "192.0.2.11:51820" or "[2001:db8::11]:51820"'


def _no_endpoint(text: str) -> Invalid:
    bare = _any_address(text)
    if bare is None or bare.version == 4:
        return Invalid("PN212", f"endpoint {quoted(text)} is not an address and a port", help=_ENDPOINTS)
    head, _, port = text.rpartition(":")
    meant = f'did you mean "[{head}]:{port}"?' if _any_address(head) else f'write "[{text}]:51820"'
    return Invalid(
        "PN212",
        f"endpoint {quoted(text)} has an IPv6 address without brackets",
        note="an IPv6 address stands in brackets, so that the port can be told from it",
        help=meant,
    )


def check_endpoint(text: str) -> str:
    """A canonical endpoint. Raises Invalid (PN212)."""
    parse_endpoint(text)
    return text


def check_upstream(text: str) -> str:
    """A resolver to forward to: an IP literal and optionally ``#port``. Raises Invalid (PN212, PN206, PN207)."""
    address_text, mark, port = text.partition("#")
    address = _any_address(address_text)
    if address is None or str(address) != address_text:
        help = f"write {address}" if address else "for example 9.9.9.9, 2620:fe::fe or 127.0.0.53#53"
        if with_port := re.fullmatch("([0-9.]{7,15}):([1-9][0-9]{0,4})", text):
            help = f"write {with_port[1]}#{with_port[2]}"
        note = "a resolver's own name would have to be looked up first"
        raise Invalid("PN212", f"upstream {quoted(text)} is not an IP address in canonical form", note=note, help=help)
    if address.is_unspecified or address.is_multicast:
        raise Invalid("PN212", f"upstream {quoted(text)} is not the address of a resolver")
    if mark:
        Integer(1, 65535, "upstream port").parse(port)
    return text


# --- prefixes -------------------------------------------------------------------------------------

_RESERVED = (
    (0x00000000, 8, 'reserved for "this network"'),
    (0x7F000000, 8, "loopback"),
    (0xA9FE0000, 16, "link-local"),
    (0xE0000000, 4, "multicast"),
    (0xF0000000, 4, "reserved or broadcast"),
)


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """An IPv4 prefix: the network's first address as an integer, and its length in bits."""

    network: int
    length: int

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """``a.b.c.d/length`` in canonical form. Raises Invalid (PN213)."""
        address_text, slash, length_text = text.partition("/")
        address = _dotted(address_text)
        length = int(length_text) if re.fullmatch("[0-9]|[12][0-9]|3[012]", length_text) else None
        if address is None or length is None or not slash:
            raise Invalid("PN213", f"{quoted(text)} is not an IPv4 prefix", help=_prefix_meant(text))
        prefix = cls(address & _mask(length), length)
        if prefix.network != address:
            message = f"{quoted(text)} has bits set behind its length of /{length}"
            raise Invalid("PN213", message, help=f"did you mean {prefix}?")
        return prefix

    @property
    def size(self) -> int:
        """The number of addresses, the first and the last included."""
        return 1 << (32 - self.length)

    @property
    def first(self) -> int:
        """The network's own address."""
        return self.network

    @property
    def last(self) -> int:
        """The broadcast address."""
        return self.network + self.size - 1

    def __contains__(self, address: int) -> bool:
        return self.network <= address <= self.last

    def overlaps(self, other: Prefix) -> bool:
        """Whether an address belongs to both."""
        return self.first <= other.last and other.first <= self.last

    def __str__(self) -> str:
        return f"{format_address(self.network)}/{self.length}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _plain(_prefix, {"type": "string", "pattern": f"^{PREFIX}$"})


def _mask(length: int) -> int:
    return 0xFFFFFFFF << (32 - length) & 0xFFFFFFFF


_PRIVATE = tuple(map(Prefix.parse, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
"""RFC 1918, and the shared addresses of RFC 6598 that the mesh has by default."""
_PRIVATE_SHOWN = ", ".join(map(str, _PRIVATE))


def _prefix_meant(text: str) -> str:
    example = "for example 10.240.0.0/22"
    if ":" in text:
        return f"private networks are IPv4; {example}"
    address, _, rest = text.partition("/")
    mask = _dotted(rest)
    if _dotted(address) is not None and mask is not None:
        for length in range(33):
            if mask in (_mask(length), _mask(length) ^ 0xFFFFFFFF):
                return f"write the length: {address}/{length}"
    if _dotted(text) is not None:
        return f"add the length: {text}/22"
    return example


def _prefix(value: object) -> Prefix:
    if isinstance(value, Prefix):
        return value
    return Prefix.parse(_scalar(value, "a prefix", "text like 10.240.0.0/22", "PN213"))


@dataclass(frozen=True, slots=True)
class Lengths:
    """Annotation of a prefix that hosts or containers take addresses from: the lengths that make sense."""

    what: str
    shortest: int
    longest: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        lengths = "|".join(str(length) for length in range(self.shortest, self.longest + 1))
        return {"type": "string", "pattern": f"^{OCTET}([.]{OCTET}){{3}}/({lengths})$"}

    def check(self, prefix: Prefix) -> Prefix:
        if not self.shortest <= prefix.length <= self.longest:
            message = f"{self.what} {prefix} has a length that is not between /{self.shortest} and /{self.longest}"
            raise Invalid(
                "PN214", message, help=f"/{self.longest} has {1 << 32 - self.longest} addresses, /22 has 1024"
            )
        for network, length, why in _RESERVED:
            if prefix.overlaps(Prefix(network, length)):
                message = f"{self.what} {prefix} cannot be used: {format_address(network)}/{length} is {why}"
                raise Invalid("PN214", message, help="take a private prefix, for example 10.240.0.0/22")
        if not any(prefix.first in private and prefix.last in private for private in _PRIVATE):
            raise Invalid(
                "PN214",
                f"{self.what} {prefix} is not private",
                note=f"whoever has these addresses on the Internet could not be reached; private are {_PRIVATE_SHOWN}",
                help="take a private prefix, for example 10.240.0.0/22",
            )
        return prefix


# --- small values with a unit ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VniRange:
    """The VNIs that privnet gives, both ends included. Written ``first-last``."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> VniRange:
        """``first-last``. Raises Invalid (PN209, PN207)."""
        if not re.fullmatch(VNI_RANGE, text) or len(text) > 30:
            raise Invalid(
                "PN209",
                f"{quoted(text)} is not a range of VNIs",
                help="write first-last, for example 7000000-7999999",
            )
        first, last = (int(part) for part in text.split("-"))
        if not 1 <= first <= last <= VNI_LAST:
            message = f"VNI range {text} is not within 1-{VNI_LAST}, lowest first"
            raise Invalid("PN207", message, help="for example 7000000-7999999")
        return cls(first, last)

    def __contains__(self, vni: int) -> bool:
        return self.first <= vni <= self.last

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _plain(_vni_range, {"type": "string", "pattern": f"^{VNI_RANGE}$"})


def _vni_range(value: object) -> VniRange:
    if isinstance(value, VniRange):
        return value
    return VniRange.parse(_scalar(value, "the VNI range", "text like 7000000-7999999", "PN209"))


@dataclass(frozen=True, slots=True)
class Seconds:
    """Annotation of an ``int`` field of seconds, written with a unit: ``90s``, ``30m``, ``1h``, ``2d``."""

    what: str
    maximum: int
    minimum: int = 0

    def parse(self, value: object) -> int:
        if isinstance(value, int):
            return value
        text = _scalar(value, self.what, "a duration like 1h", "PN209")
        if not _DURATION.fullmatch(text) or len(text) > 12:
            help = "for example 0s, 30m or 1h"
            if found := re.fullmatch("([1-9][0-9]{0,8}) ?(|[smhd])(ec|econd|in|inute|our|r|ay)?s?", text):
                help = f"write {found[1]}{found[2]}" if found[2] else f"write {found[1]}s for seconds"
            raise Invalid("PN209", f"{self.what} {quoted(text)} is not a duration", help=help)
        seconds = int(text[:-1]) * _SECONDS[text[-1]]
        if seconds > self.maximum:
            raise Invalid("PN207", f"{self.what} {text} is longer than {self.maximum // 86400}d")
        if seconds < self.minimum:
            raise Invalid("PN207", f"{self.what} {text} is shorter than {self.minimum}s")
        return seconds

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _plain(self.parse, {"type": "string", "pattern": f"^{DURATION}$"})


@dataclass(frozen=True, slots=True)
class Percent:
    """Annotation of an ``int`` field of percent, written ``10%``."""

    what: str

    def parse(self, value: object) -> int:
        if isinstance(value, int):
            return value
        text = _scalar(value, self.what, "a percentage like 10%", "PN209")
        if not re.fullmatch(PERCENT, text):
            help = f"write {text}%" if re.fullmatch(PERCENT, text + "%") else "from 0% to 100%, for example 10%"
            if re.fullmatch("0[.][0-9]{1,2}", text):
                help = f"write {round(float(text) * 100)}%"
            raise Invalid("PN209", f"{self.what} {quoted(text)} is not a percentage", help=help)
        return int(text[:-1])

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _plain(self.parse, {"type": "string", "pattern": f"^{PERCENT}$"})


def _text(check: Callable[[str], str], pattern: str | None = None, **schema: Any) -> tuple[Any, Any]:
    shape: dict[str, Any] = {"type": "string"} | ({"pattern": f"^({pattern})$"} if pattern else {}) | schema
    return AfterValidator(check), WithJsonSchema(shape)


HostName = Annotated[str, *_text(check_host_name, LABEL)]
HostReference = Annotated[str, WithJsonSchema({"type": "string", "pattern": f"^{LABEL}$"})]
"""The name of a host of the fleet. Whether there is one is judged across documents, with the nearest name."""
Zone = Annotated[str, *_text(check_zone, LABEL)]
FleetName = Annotated[str, *_text(check_fleet_name, LABEL)]
ProjectName = Annotated[str, *_text(check_project_name, LABEL)]
ProcessType = Annotated[str, *_text(check_process_type, LABEL)]
ApplicationId = Annotated[str, *_text(check_application_id, APPLICATION_ID)]
NetworkId = Annotated[str, *_text(check_network_id, NETWORK_ID)]
Domain = Annotated[str, *_text(check_domain, DOMAIN, maxLength=200)]
Internal = Annotated[str, *_text(check_internal, NAME, maxLength=253)]
SshUser = Annotated[str, *_text(check_ssh_user, SSH_USER)]
Date = Annotated[str, *_text(check_date, DATE, format="date")]
Address = Annotated[str, *_text(check_address, "[0-9]+([.][0-9]+){3}|[0-9a-f]*:[0-9a-f:]+")]
Endpoint = Annotated[str, *_text(check_endpoint, r"([0-9]+([.][0-9]+){3}|\[[0-9a-f]*:[0-9a-f:]+\]):[1-9][0-9]{0,4}")]
Release = Annotated[str, *_text(check_release, RELEASE)]
Upstream = Annotated[str, *_text(check_upstream, r"[0-9a-f:.]+(#[1-9][0-9]{0,4})?")]
