"""A host's own rules, read from what programs list: nft, iptables-restore-translate and ebtables-legacy-save. Pure.

Text and not JSON: of what iptables keeps by extensions of its own, which is most of its rules, `nft -j` says nothing
(``{"xt": null}``), its text says what they do. What is not understood is a rule of which nothing is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from privnet.deploy.firewall import Base, Match, Rule, Table

RULES_AT_MOST = 20_000
"""Of a table; of one with more nothing is said."""

_NAME = "[A-Za-z0-9_./-]{1,128}"
_TABLE = re.compile(rf"table ([a-z0-9]+) ({_NAME}) \{{.*")
_CHAIN = re.compile(rf"chain ({_NAME}) \{{")
_BASE = re.compile(
    r"type (?:filter|route) hook ([a-z]{4,11}) (?:devices? (?:= )?(\{[^{}]*\}|\S+) )?.*?; ?(?:policy (accept|drop);)?.*"
)
_TRANSLATED = re.compile(rf"add (table|chain|rule) (ip6?) ({_NAME})(?: ({_NAME})(?: (.*))?)?")
_UNTRANSLATED = re.compile(rf"# -t ({_NAME}) -A ({_NAME}) .*-j ({_NAME})(?: .*)?")
_EBTABLES = re.compile(rf"\*({_NAME})|:({_NAME}) (\w+).*|-A ({_NAME}) (.*)")
_NOISE = re.compile(
    r"counter(?: packets \d+ bytes \d+)?(?: |$)|comment \"[^\"]*\"(?: |$)"
    r"|log(?: (?:prefix \"[^\"]*\"|level \w+|flags (?:all|skuid|ether|(?:tcp|ip) [a-z,]+)|group \d+))*(?: |$)"
)
_KEYS = {
    "iifname": "iif", "iif": "iif", "oifname": "oif", "oif": "oif", "ct state": "state", "ct status": "status",
    "meta l4proto": "protocol", "ip protocol": "protocol", "ip6 nexthdr": "protocol", "meta nfproto": "family",
    "meta protocol": "family", "ether type": "family", "udp dport": "dport", "th dport": "dport", "udp sport": "sport",
    "th sport": "sport", "ip saddr": "source", "ip daddr": "target", "ip6 saddr": "source", "ip6 daddr": "target",
    "fib daddr type": "type",
}  # fmt: skip
_VALUE = r'\{[^{}]*\}|"[^"]*"|[^\s{}]+'
_MATCH = re.compile(rf"(?:meta )?({'|'.join(_KEYS)}) (!= |== )?(?!vmap |map |[.&|^] )({_VALUE})(?: |$)")
_MAP = re.compile(rf"(?:meta )?({'|'.join(_KEYS)}) vmap \{{([^{{}}]*)\}}(?: |$)")
_ABOUT = {
    "ip": ("family", "ipv4"), "ip6": ("family", "ipv6"), "arp": ("family", "arp"), "vlan": ("family", "vlan"),
    "udp": ("protocol", "udp"), "tcp": ("protocol", "tcp"), "icmp": ("protocol", "icmp"),
    "icmpv6": ("protocol", "ipv6-icmp"), "sctp": ("protocol", "sctp"), "dccp": ("protocol", "dccp"),
    "udplite": ("protocol", "udplite"), "ah": ("protocol", "ah"), "esp": ("protocol", "esp"),
    "comp": ("protocol", "comp"),
}  # fmt: skip
"""What a packet must be so that it has the header which a match looks into."""
_HEADER = re.compile(rf"({'|'.join(_ABOUT)}) ")
_VERDICT = re.compile(rf"(?:^|.* )(accept|drop|return|continue|reject|queue|jump {_NAME}|goto {_NAME})(?: .*)?$")
_TARGETS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return", "CONTINUE": "continue"}
_HOOKS = {"PREROUTING": "prerouting", "INPUT": "input", "FORWARD": "forward", "OUTPUT": "output",
          "POSTROUTING": "postrouting"}  # fmt: skip


@dataclass
class _Draft:
    """A table that is being read."""

    family: str
    name: str
    legacy: str = ""
    bases: list[Base] = field(default_factory=list)
    chains: dict[str, list[Rule]] = field(default_factory=dict)
    ends: dict[str, Rule] = field(default_factory=dict)

    def done(self) -> Table:
        for name, rule in self.ends.items():
            self.chains[name].append(rule)
        few = sum(map(len, self.chains.values())) <= RULES_AT_MOST
        chains = {name: tuple(rules) for name, rules in self.chains.items()} if few else {}
        return Table(self.family, self.name, tuple(self.bases), chains, self.legacy)


def parse_tables(lines: Iterable[str]) -> tuple[Table, ...]:
    """Tables from the listings of all programs, one after the other."""
    found: list[_Draft] = []
    chain: list[Rule] | None = None
    name = ""
    for line in map(str.strip, lines):
        if table := _TABLE.fullmatch(line):
            found.append(_Draft(table[1], table[2]))
            chain = None
        elif line.startswith(("add ", "# -t ")):
            _translated(line, found)
        elif line.startswith(("*", ":", "-A ")):
            _ebtables(line, found)
        elif found and (begins := _CHAIN.fullmatch(line)):
            name = begins[1]
            chain = found[-1].chains.setdefault(name, [])
        elif line == "}":
            chain = None
        elif chain is not None and line and not line.startswith("#"):
            if line.startswith("type "):
                found[-1].bases += _base(name, line)
            else:
                chain += _rules(line)
    return tuple(draft.done() for draft in found)


def _base(name: str, line: str) -> list[Base]:
    base = _BASE.fullmatch(line)
    return [Base(name, base[1], base[3] or "accept", frozenset(_values(base[2] or "")))] if base else []


def _translated(line: str, found: list[_Draft]) -> None:
    """A line of iptables-restore-translate: of iptables-legacy, since the rules of iptables-nft are nft's own."""
    if untold := _UNTRANSLATED.fullmatch(line):
        table, name, target = untold.groups()
        for draft in found:
            if draft.legacy and draft.name == table and name in draft.chains:
                draft.chains[name].append(Rule((), _TARGETS.get(target, f"jump {target}"), strange=True))
        return
    match = _TRANSLATED.fullmatch(line)
    if match is None:
        return
    what, family, table, name, text = match.groups()
    if what == "table":
        found.append(_Draft(family, table, "iptables-legacy" if family == "ip" else "ip6tables-legacy"))
    elif found and found[-1].name == table and name:
        rules = found[-1].chains.setdefault(name, [])
        if what == "rule":
            rules += _rules(text or "")
        else:
            found[-1].bases += _base(name, (text or "").strip("{} "))


def _ebtables(line: str, found: list[_Draft]) -> None:
    match = _EBTABLES.fullmatch(line)
    if match is None:
        return
    table, chain, policy, name, text = match.groups()
    if table:
        found.append(_Draft("bridge", table, "ebtables-legacy"))
    elif not found or found[-1].legacy != "ebtables-legacy":
        return
    elif chain:
        found[-1].chains[chain] = []
        if chain in _HOOKS:
            found[-1].bases.append(Base(chain, _HOOKS[chain], policy.lower()))
        else:  # a chain of somebody's own has a policy too
            found[-1].ends[chain] = Rule((), _TARGETS.get(policy, "anything"))
    elif name in found[-1].chains:
        found[-1].chains[name].append(_ebtables_rule(text.split()))


def _ebtables_rule(words: list[str]) -> Rule:
    keys = {"-p": "family", "-i": "iif", "-o": "oif"}
    matches, verdict, strange, negated = list[Match](), "continue", False, False
    rest = iter(words)
    for word in rest:
        if word in keys:
            value = next(rest, "")
            if value == "!":
                negated, value = True, next(rest, "")
            value = value.lower() if word == "-p" else value.replace("+", "*")
            matches.append(Match(keys[word], (value,), negated))
            negated = False
        elif word == "!":
            negated = True
        elif word == "-j":
            target = next(rest, "")
            verdict = _TARGETS.get(target, f"jump {target}")
        else:
            strange = True
    return Rule(tuple(matches), verdict, strange)


def _rules(line: str) -> list[Rule]:
    """A rule, or one for each way that a map of verdicts leads."""
    matches: list[Match] = []
    rest = line
    while rest:
        if noise := _NOISE.match(rest):
            rest = rest[noise.end() :]
        elif match := _MATCH.match(rest):
            matches += [*_header(rest), Match(_KEYS[match[1]], _values(match[3]), match[2] == "!= ")]
            rest = rest[match.end() :]
        elif ways := _MAP.match(rest):
            return list(_ways((*matches, *_header(rest)), _KEYS[ways[1]], ways[2]))
        else:
            matches += _header(rest)
            break
    verdict = _VERDICT.fullmatch(rest)
    if verdict is None:
        # It goes on to the next rule, or is a way of leading on that is not known here.
        return [Rule(tuple(matches), "anything", strange=True)] if "vmap" in rest or rest == "longer" else []
    return [Rule(tuple(matches), verdict[1], strange=verdict.start(1) > 0)]


def _header(text: str) -> list[Match]:
    found = _HEADER.match(text)
    return [Match(_ABOUT[found[1]][0], (_ABOUT[found[1]][1],))] if found else []


def _values(text: str) -> tuple[str, ...]:
    inner = text[1:-1] if text.startswith("{") else text
    return tuple(part.strip().strip('"') for part in inner.split(",") if part.strip())


def _ways(matches: tuple[Match, ...], key: str, elements: str) -> Iterator[Rule]:
    for element in elements.split(","):
        value, _, verdict = element.rpartition(" : ")
        found = _VERDICT.fullmatch(verdict.strip())
        if found:
            yield Rule((*matches, Match(key, _values(value.strip()))), found[1])
        else:
            yield Rule(matches, "anything", strange=True)
