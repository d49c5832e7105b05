"""The catalogue of wrong input: each kind with its cases, or why it cannot occur.

An entry names cases of the corpus, or the beginning of their names (``project/Y08-``). Y = text, T = types,
I = identity, A = addresses, N = numbers, H = hosts and keys, P = placement and policy, D = names, X = injection,
L = limits, R = lock file.
"""

from __future__ import annotations

CASES: dict[str, tuple[str, ...]] = {
    "Y01": ("project/Y01-", "fleet/Y01-"),
    "Y02": ("project/Y02-",),
    "Y03": ("project/Y03-", "fleet/Y03-"),
    "Y04": ("project/Y04-",),
    "Y05": ("project/Y05-",),
    "Y06": ("project/Y06-",),
    "Y07": ("project/Y07-",),  # the mark itself is accepted: the case has a mistake behind it, at the right column
    "Y08": ("project/Y08-",),
    "Y09": ("project/Y09-",),  # likewise
    "Y10": ("project/Y10-", "fleet/Y10-"),
    "Y11": ("project/Y11-",),
    "Y12": ("project/Y12-",),
    "Y13": ("project/Y13-",),
    "Y14": ("project/Y14-",),
    "Y15": ("project/Y15-",),
    "Y16": ("project/Y16-",),
    "Y17": ("project/Y17-",),
    "Y18": ("project/Y18-",),
    "Y19": ("project/Y19-",),
    "Y20": ("project/Y20-",),
    "Y21": ("project/Y21-",),
    "Y22": ("project/Y22-",),  # the large ones are made by test_limits.py
    "Y23": ("tree/Y23-", "lock/R02-link"),  # a FIFO and an unreadable file cannot be committed: tests/unit/load
    "Y24": ("project/Y24-", "lock/R02-merge-conflict"),
    "T01": ("project/T01-", "fleet/T01-"),
    "T02": ("project/T02-",),
    "T03": (
        "project/T03-count-quoted",
        "project/T03-count-decimal",
        "project/T03-count-exponent",
        "project/T03-count-underscore",
        "project/T03-count-plus",
        "project/T03-count-space",
        "project/T03-count-word",
        "project/T03-count-arabic",
    ),
    "T04": ("project/T03-count-octal", "project/T03-count-hexadecimal", "project/T03-count-binary"),
    "T05": ("project/T03-count-negative",),
    "T06": ("project/T03-count-infinity",),
    "T07": ("project/T07-", "fleet/T07-", "project/T03-count-nothing", "project/T03-count-tilde"),
    "T08": ("project/T08-", "fleet/T08-", "project/T03-count-list", "project/T03-count-mapping"),
    "T09": ("project/T09-", "fleet/T09-"),
    "T10": ("project/T03-count-huge",),
    "T11": ("project/T11-", "fleet/T11-"),
    "T12": ("project/T12-", "fleet/T12-"),
    "T13": ("project/T13-", "fleet/T13-"),
    "T14": ("project/T14-",),
    "T15": ("fleet/T15-", "lock/R02-newer-version"),
    "I01": ("project/I01-", "project/I02-application-network-prefix", "project/I02-application-no-prefix"),
    "I02": ("project/I02-network-word", "project/I02-application-short", "project/I02-application-bad-digit"),
    "I03": ("project/I02-application-upper-case", "project/I03-"),
    "I04": ("project/I02-application-braces", "project/I02-application-urn", "project/I02-application-no-dashes"),
    "I05": ("project/I02-application-nil", "project/I05-"),
    "I06": ("project/I06-", "project/I11-"),
    "I07": ("project/I07-",),
    "I08": ("project/I08-",),
    "I09": ("project/I09-", "project/I02-application-trailing-"),
    "I10": ("project/I10-", "fleet/I10-", "project/T13-no-project"),
    "I11": ("project/I11-",),
    "I13": ("project/I13-",),
    "A01": ("project/A02-cidr-host-bits",),
    "A02": (
        "project/A02-cidr-address",
        "project/A02-cidr-no-length",
        "project/A02-cidr-long",
        "project/A02-cidr-negative",
        "project/A02-cidr-three",
        "project/A02-cidr-five",
        "project/A02-cidr-zero-length",
    ),
    "A03": ("project/A02-cidr-netmask", "project/A02-cidr-hostmask"),
    "A04": ("project/A02-cidr-ipv6",),
    "A05": ("project/A05-", "fleet/A05-"),
    "A06": ("project/A06-cidr-", "fleet/A06-"),
    "A07": ("project/A06-cidr-slash-31", "project/A06-cidr-slash-8", "fleet/A10-mesh-too-small"),
    "A09": ("fleet/A09-",),
    "A10": ("project/A10-",),  # containers have no fixed addresses
    "A12": ("project/A12-", "lock/A12-"),
    "A13": ("project/A02-cidr-leading-zero", "project/A02-cidr-arabic"),
    "A14": ("lock/A14-",),
    "N01": ("project/N01-vni-zero",),
    "N02": (
        "project/N01-vni-large",
        "project/N01-vni-negative",
        "project/N01-vni-decimal",
        "project/N01-vni-word",
    ),
    "N03": ("project/N03-", "lock/R02-vni-twice"),
    "N04": ("project/N04-", "fleet/T17-vni-range"),
    "N05": ("lock/N05-",),
    "N06": ("fleet/N06-",),
    "N07": ("fleet/N07-",),
    "N08": ("fleet/N08-vxlan-port-of-a-host",),  # one port for the whole fleet, so no two can differ
    "N09": ("fleet/N09-",),  # there is no keepalive to set
    "H01": ("project/H01-",),
    "H02": ("fleet/H02-",),
    "H03": ("fleet/H03-", "fleet/T09-host-number"),
    "H04": ("fleet/H04-endpoint-empty", "fleet/H04-endpoint-no-address", "fleet/H04-endpoint-no-port"),
    "H05": ("fleet/H04-endpoint-ipv6-bare", "fleet/H04-endpoint-ipv6-no-port"),
    "H06": ("fleet/H04-endpoint-unbalanced", "fleet/H04-endpoint-ipv4-in-brackets"),
    "H07": (
        "fleet/H04-endpoint-unspecified",
        "fleet/H04-endpoint-loopback",
        "fleet/H04-endpoint-multicast",
        "fleet/H04-endpoint-broadcast",
        "fleet/H04-endpoint-port",
        "fleet/H07-",
    ),
    "H08": ("fleet/H08-",),
    "H09": ("fleet/H04-endpoint-name", "fleet/H07-address-name"),  # names are not looked up
    "H10": ("fleet/H10-", "lock/R02-mesh-twice"),  # privnet gives them; only the lock file could say something else
    "H11": ("lock/H11-",),  # keys stand in the lock file alone
    "H12": ("fleet/H12-",),  # a host's own key comes from `wg pubkey`, which gives none of the low-order points
    "H13": ("lock/H13-",),
    "H14": ("lock/H14-",),
    "H15": ("fleet/H15-", "project/H15-"),
    "H16": ("fleet/H16-",),
    "H17": ("fleet/T13-no-address", "fleet/T13-empty-hosts", "fleet/T13-no-hosts"),  # one host is a fleet
    "H18": ("fleet/H18-kernel",),
    "P01": ("project/P01-", "fleet/P01-", "tree/P01-"),
    "P02": ("project/P02-",),  # an application has no field for a network: it is in that of its project
    "P03": ("fleet/P03-",),
    "P04": ("project/P04-",),  # containers are numbered by their place in a list
    "P05": ("project/P05-",),
    "P06": ("project/H01-",),  # a host is in the fleet or not
    "P08": ("project/P08-", "tree/P08-"),
    "D01": ("project/D01-",),
    "D02": ("project/D01-type-long",),
    "D03": ("tree/D03-",),
    "D04": ("project/D01-type-identifier", "project/D01-type-digit", "project/T09-type-number"),
    "D05": ("fleet/D05-",),
    "D06": ("project/D06-", "project/D01-type-capital"),
    "D07": ("project/D07-",),
    "D08": ("project/D08-",),
    "X01": ("project/X01-", "fleet/X01-"),
    "X02": ("project/X02-", "fleet/X02-"),
    "X03": ("project/X03-",),
    "X04": ("project/X04-",),
    "X05": ("project/X05-", "fleet/X05-"),
    "X06": ("project/X06-",),
    "X07": ("fleet/X07-",),
    "X08": ("project/X08-",),
    "X09": ("project/X09-",),
    "X10": ("project/X10-",),
    "R01": ("lock/R01-",),
    "R02": ("lock/R02-", "lock/R03-other-fleet"),
    "R04": ("lock/R04-",),
    "R05": ("project/N03-", "project/I07-", "project/I11-", "fleet/H08-"),
}

ELSEWHERE: dict[str, str] = {
    "I12": "a private network is declared inside its project's file, so there is no project to name",
    "A08": "private networks are separate: all may use the same prefix (a lab test sends with equal addresses)",
    "A11": "containers have no fixed addresses; the lock file's are in lock/R02-address-twice",
    "P07": "`count: 0` and an empty list both say none; a list of hosts and a count exclude each other (P05)",
    "P09": "a network begins on an empty project (M7), so one without members is how each begins",
    "P10": "moving an application's block is how it is migrated; `privnet plan` shows project and containers",
    "L01": "works: tests/bench compiles fleets of that size, test_limits.py one with a mistake",
    "L02": "a warning with the number (PN703), which takes hundreds of hosts: tests/unit/plan/test_consequences.py",
    "L03": "works: the guard's elements are one of the phases that tests/bench measures",
    "R03": "another host key (PN508) is what a host answers, not what is declared: test_explain.py",
}
"""Kinds that no declaration can be wrong by, and what is there instead."""

MORE: tuple[str, ...] = (
    "fleet/H18-upstream-",
    "fleet/N08-ttl-",
    "fleet/T16-",
    "fleet/T17-",
    "fleet/H04-endpoint-port-octal",
    "lock/G01-",
    "lock/N10-",
    "fleet/S01-",
    "lock/R02-address-twice",
    "project/M05-",
    "project/T16-",
    "project/T18-",
    "project/T19-",
    "project/Y25-",
    "project/Y26-",
    "project/Y27-",
    "project/Z01-",
    "tree/P11-",
    "tree/Z02-",
)
"""Cases of kinds that the catalogue did not foresee."""

SIZES = {"Y": 24, "T": 15, "I": 13, "A": 14, "N": 9, "H": 18, "P": 10, "D": 8, "X": 10, "L": 3, "R": 5}
IDS = tuple(f"{letter}{number:02}" for letter, size in SIZES.items() for number in range(1, size + 1))
