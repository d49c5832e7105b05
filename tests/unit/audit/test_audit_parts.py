"""The audit's readers take nothing on trust, and its choice of pairs leaves no host out."""

from __future__ import annotations

import struct
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privnet.audit import dns
from privnet.audit.actual import SECTIONS, parse_dump
from privnet.audit.connection import Dialogue
from privnet.audit.finding import Deviation, Unanswered
from privnet.audit.reach import ALL_PAIRS_UP_TO, interleaved, steps_of
from privnet.audit.rules import parse_table

MARK = "##audit-0"
FREE = ("user", "config", "owner", "tables", "routes", "end")
"""Sections whose lines are compared as they are."""
LISTING = """\
table inet privnet { # progname nft
	flags owner

	set speakers {
		typeof ip saddr . @th,96,24
		elements = { 100.64.0.2 . 0x1000,
			100.64.0.3 . 4097 }
	}

	chain egress {
		type filter hook output priority raw; policy accept;
		udp dport 4789 counter drop comment "a } in a comment"
	}
}
"""


def shell(script: str) -> Dialogue:
    return Dialogue(["sh", "-c", script])


def dump(**sections: str) -> bytes:
    return "".join(f"\n{MARK} {name}\n{sections.get(name, '')}" for name in SECTIONS).encode()


def test_an_endless_answer_ends_at_the_limit() -> None:
    dialogue = Dialogue(["yes"], 1_000_000)
    with pytest.raises(Unanswered, match="longer than 1,000,000 bytes"):
        dialogue.read_all(20)
    dialogue.close()
    whole = shell("yes | head -c 900000")
    assert len(whole.read_all(20)) == 900_000
    assert whole.close() == 0


def test_a_line_without_end_takes_no_longer_than_it_is_long() -> None:
    """Looked at from its beginning with each piece that arrives, it would take a minute and a half."""
    begun = time.monotonic()
    dialogue = shell("head -c 200000000 /dev/zero | tr '\\0' x; echo; echo next")
    assert len(dialogue.read_line()) == 200_000_000 and dialogue.read_line() == "next"
    dialogue.close()
    assert time.monotonic() - begun < 20


def test_an_answer_that_does_not_come_ends_at_the_deadline() -> None:
    begun = time.monotonic()
    dialogue = shell("exec sleep 60")
    with pytest.raises(Unanswered, match="did not come in time"):
        dialogue.read_line(0.3)
    dialogue.close()
    assert time.monotonic() - begun < 5


def test_a_dialogue_takes_in_what_it_is_sent_while_it_writes() -> None:
    dialogue = Dialogue([sys.executable, "-c", "import sys\nfor line in sys.stdin: print(line, end='')"])
    lines = b"".join(b"%d\n" % number for number in range(200_000))
    dialogue.write(lines, 30)
    dialogue.finish_input()
    assert dialogue.read_all(30) == lines
    assert dialogue.close() == 0


def test_a_host_with_another_ssh_key_is_told_as_such() -> None:
    """The last line is that of OpenSSH 9.2."""
    dialogue = shell("printf '%s\\n' 'REMOTE HOST IDENTIFICATION HAS CHANGED' 'Host key verification failed.' >&2")
    with pytest.raises(Unanswered, match="PN508: its SSH key is not the one by which it is known"):
        dialogue.read_line()
    dialogue.close()


def test_a_host_whose_ssh_key_nobody_knows_is_told_as_such() -> None:
    """The lines are those of OpenSSH 9.2."""
    unknown = "No ED25519 host key is known for 192.0.2.1 and you have requested strict checking."
    dialogue = shell(f"printf '%s\\n' '{unknown}' 'Host key verification failed.' >&2")
    with pytest.raises(Unanswered, match="its SSH key is known neither to the lock file nor to your SSH files: the"):
        dialogue.read_line()
    dialogue.close()


def test_what_is_complained_about_is_shown_without_control_characters() -> None:
    dialogue = shell("printf 'first\\n\\033[31mPermission denied\\n' >&2; exit 255")
    dialogue.read_all(5)
    assert dialogue.close() == 255
    assert dialogue.complaint() == "\\x1b[31mPermission denied"
    assert "\x1b" not in str(Deviation("\x1b", "\x1b", "\x1b"))


def test_an_empty_host_is_read_and_half_an_answer_is_not() -> None:
    assert parse_dump(dump(user="0"), MARK).root
    with pytest.raises(Unanswered, match="not complete: no namespaces, listeners, processes, servers, failed, end"):
        parse_dump(dump().partition(f"{MARK} namespaces".encode())[0], MARK)


@pytest.mark.parametrize("section", [name for name in SECTIONS if name not in FREE])
def test_a_line_of_no_known_shape_refuses_the_whole_answer(section: str) -> None:
    with pytest.raises(Unanswered):
        parse_dump(dump(user="0", **{section: "\x1b[31m [[[["}), MARK)


@given(st.sampled_from(SECTIONS), st.text(max_size=300))
def test_no_answer_raises_anything_else(section: str, text: str) -> None:
    try:
        parse_dump(dump(**{section: text}), MARK)
    except Unanswered:
        return


def test_a_deep_nest_of_brackets_is_refused() -> None:
    with pytest.raises(Unanswered):
        parse_dump(dump(links="[" * 100_000 + "]" * 100_000), MARK)


def test_a_table_is_read_from_its_listing() -> None:
    table = parse_table(LISTING.splitlines())
    assert table.sets["speakers"][1] == {("100.64.0.2", "4096"), ("100.64.0.3", "4097")}
    assert len(table.chains["egress"]) == 2
    assert table.flags == "owner"
    of_nobody = [line for line in LISTING.replace(" # progname nft", "").splitlines() if "flags" not in line]
    assert parse_table(of_nobody) == replace(table, flags="")
    with pytest.raises(ValueError, match="no table"):
        parse_table(["garbage"])


# --- DNS ------------------------------------------------------------------------------------------


def answer(asked: bytes, *addresses: str, flags: int = 0x8580, ttl: int = 5) -> bytes:
    records = b"".join(
        b"\xc0\x0c" + struct.pack("!HHIH", dns.A, 1, ttl, 4) + bytes(map(int, address.split(".")))
        for address in addresses
    )
    return asked[:2] + struct.pack("!5H", flags, 1, len(addresses), 0, 0) + asked[12:] + records


def test_an_answer_is_read() -> None:
    asked = dns.question(7, "web.example.internal", dns.A)
    read = dns.read_answer(asked, answer(asked, "10.0.0.2", "10.0.0.1"))
    assert (read.rcode, read.values, read.ttls) == ("NOERROR", ("10.0.0.1", "10.0.0.2"), {5})
    assert dns.read_answer(asked, answer(asked, flags=0x8183)).rcode == "NXDOMAIN"
    assert dns.read_answer(asked, answer(asked, flags=0x8780)).truncated


def test_an_answer_to_another_question_is_none() -> None:
    asked = dns.question(7, "web.example.internal", dns.A)
    for other in (dns.question(8, "web.example.internal", dns.A), dns.question(7, "web.example.internet", dns.A)):
        with pytest.raises(ValueError, match="question"):
            dns.read_answer(asked, answer(other, "10.0.0.1"))


def test_a_name_that_points_to_itself_ends() -> None:
    asked = dns.question(1, "1.0.0.10.in-addr.arpa", dns.PTR)
    place = len(asked) + 12
    record = b"\xc0\x0c" + struct.pack("!HHIH", dns.PTR, 1, 5, 2) + struct.pack("!H", 0xC000 | place)
    message = asked[:2] + struct.pack("!5H", 0x8580, 1, 1, 0, 0) + asked[12:] + record
    with pytest.raises(ValueError, match="without an end"):
        dns.read_answer(asked, message)


@given(st.binary(max_size=200))
def test_no_message_raises_anything_else(data: bytes) -> None:
    asked = dns.question(1, "a.b", dns.A)
    for message in (data, answer(asked)[:-1] + data, answer(asked, "10.0.0.1") + data):
        try:
            dns.read_answer(asked, message)
        except ValueError:
            continue


# --- pairs ----------------------------------------------------------------------------------------


@given(st.dictionaries(st.sampled_from([f"h{n:02}" for n in range(40)]), st.integers(1, 8), min_size=1))
def test_every_container_has_partners_and_no_host_is_left_out(counts: dict[str, int]) -> None:
    order = interleaved({host: tuple(range(count)) for host, count in counts.items()})
    assert sorted(order) == sorted((host, number) for host, count in counts.items() for number in range(count))
    steps = steps_of(len(order))
    if 1 < len(order) <= ALL_PAIRS_UP_TO:
        assert list(steps) == list(range(1, len(order)))
    elif len(order) > 1:
        assert 1 in steps and all(0 < step < len(order) for step in steps)
        assert len(steps) <= len(order).bit_length()
