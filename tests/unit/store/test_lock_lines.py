"""The quick reader of the lock file accepts nothing that the thorough one refuses, and reads the same from it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from privnet import store
from privnet.diagnostics import DeclarationError, render_text
from privnet.lock_lines import read_lines
from privnet.model.identifiers import Prefix
from privnet.model.lock import HostLock, HostSettings, Lock, NetworkLock, Rest, SettingsLock, Slot, Version
from privnet.store import load_lock, lock_path, lock_text, save_lock

AP, AP2 = "ap-a71da13f-7c70-4c00-a644-eee8558d8053", "ap-0c8b7a52-93a4-4f39-9b1d-2f6f3a1c7d10"
PN, PN2 = "pn-ad0fd6a1-d05e-40ea-bf63-c4f8a75a9d8c", "pn-77b1c0de-0000-4000-8000-000000000001"
LOCK = Lock(
    fleet="test",
    serial=7,
    settings=SettingsLock(
        "pn.example",
        Prefix.parse("100.64.0.0/16"),
        51820,
        4789,
        5,
        ("9.9.9.9", "127.0.0.53#53", "::1"),
        ("corp.example", "lan"),
        {
            "a": HostSettings("192.0.2.1", None, 1500),
            "b": HostSettings("192.0.2.2", None, 1500, "out"),
            "c-1": HostSettings("2001:db8::1", "[2001:db8::7]:51820", 9000),
        },
    ),
    hosts={
        "a": HostLock(0x64400001, "A" * 42 + "Q=", "ssh-ed25519 " + "B" * 68),
        "b": HostLock(0x64400002),
        "c-1": HostLock(0x64400003, "B" * 42 + "Q=", forgotten=True),
    },
    networks={
        PN2: NetworkLock("blog", 4097, Prefix.parse("10.240.0.0/22")),
        PN: NetworkLock(
            "shop",
            4096,
            Prefix.parse("10.240.0.0/22"),
            {f"{index}.web.{AP}": Slot(0x0AF00001 + index, host) for index, host in ((1, "a"), (2, "b"), (10, "c-1"))},
        ),
    },
    applications={AP2: "blog", AP: "shop"},
    quarantine=(
        Rest("address", PN, 0x0AF00009, 1_700_000_000),
        Rest("mesh", "", 0x64400009, 1_700_000_000),
        Rest("vni", "", 4098, 1_700_000_000),
    ),
    history=(Version(5, "5" * 64), Version(5, "a" * 64), Version(6, "6" * 64)),
)
TEXT = lock_text(LOCK)
Reader = Callable[[str], Lock | str]


def sealed(body: str, head: str = TEXT.partition("checksum: ")[0]) -> str:
    """A lock file with this body and the checksum that belongs to it."""
    return f"{head}checksum: {hashlib.sha256(body.encode()).hexdigest()}\n{body}"


BODY = TEXT.partition("checksum: ")[2].partition("\n")[2]


@pytest.fixture
def thorough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """What the reader of YAML makes of a lock file: the lock, or why it is refused."""
    monkeypatch.setattr(store, "read_lines", lambda text: None)

    def read(text: str) -> Lock | str:
        lock_path(tmp_path).write_bytes(text.encode("utf-8", "surrogateescape"))
        try:
            return load_lock(tmp_path, "test")
        except DeclarationError as error:
            return render_text(error.problems, color=False, sources=error.sources)

    return read


def variants(body: str) -> dict[str, str]:
    """Every line spoilt in every way."""
    lines = body.splitlines(keepends=True)
    found = {"as it is": body, "no end": body[:-1], "another end": body + "\n", "CRLF": body.replace("\n", "\r\n")}
    for number, line in enumerate(lines):
        before, after = "".join(lines[:number]), "".join(lines[number + 1 :])
        words = line.replace(":", " : ").split()
        found |= {
            f"{number} gone": before + after,
            f"{number} twice": before + line + line + after,
            f"{number} last": before + after + line,
            f"{number} indented": f"{before} {line}{after}",
            f"{number} outdented": before + line.removeprefix(" ") + after,
            f"{number} space behind": f"{before}{line[:-1]} \n{after}",
            f"{number} comment": f"{before}{line[:-1]} # a word\n{after}",
            f"{number} quoted": before + line.replace(": ", ': "', 1)[:-1] + '"\n' + after,
            f"{number} upper case": before + line.upper() + after,
        }
        for other in ("null", "~", "", "0", "256", "00", "-1", "x" * 64, "é", "\t", "<<", "*a", "&a x", "!x y", AP, PN):
            for word in words:
                found[f"{number} {other} for {word}"] = before + line.replace(word, other, 1) + after
        for word in dict.fromkeys(BODY.replace(":", " ").split() if number % 4 == 0 else ()):
            found[f"{number} {word} for the last"] = before + line.replace(words[-1], word, 1) + after
    return found


def test_what_one_reader_refuses_the_other_does_not_accept(thorough: Reader) -> None:
    accepted, refused = 0, 0
    for name, body in variants(BODY).items():
        text = sealed(body)
        lock, judged = read_lines(text), thorough(text)
        if lock is not None and lock.fleet == "test":
            assert lock == judged, name
        accepted += lock is not None
        refused += isinstance(judged, str)
    assert accepted > 20
    assert refused > 500


def test_random_damage_is_judged_alike(thorough: Reader) -> None:
    dice = random.Random(4)
    for _ in range(400):
        body = list(BODY)
        for _ in range(dice.choice((1, 1, 2, 3))):
            at = dice.randrange(len(body))
            body[at : at + dice.choice((0, 1))] = dice.choice("0159af.-: \n\"'#[{~=/\x00\x85é")
        text = sealed("".join(body))
        lock = read_lines(text)
        if lock is not None and lock.fleet == "test":
            assert lock == thorough(text), text


@pytest.mark.parametrize(
    "text",
    [
        BODY,
        TEXT.replace("version: 1", "version: 2"),
        TEXT.replace("checksum: ", "checksum:  "),
        TEXT.replace("serial: 7", "serial: 8"),
        "\ufeff" + TEXT,
        "# another comment\n" + TEXT,
        TEXT.replace("# Commit", "# C\u00f6mmit"),
        TEXT + "---\n",
        sealed(BODY.replace("fleet: test", "fleet: null")),
        sealed(BODY.replace("project: blog", "project: null")),
        sealed(BODY.replace(PN2, "pn-77777777-7777-7777-7777-777777777777")),
        sealed(BODY.replace(AP2, "ap-77777777-7777-7777-7777-777777777777")),
        sealed(BODY.replace("vni: 4097", "vni: 16777216")),
        sealed(BODY.replace("vni: 4097", "vni: 4096")),
        sealed(BODY.replace("100.64.0.2\n", "100.64.0.1\n")),
        sealed(BODY.replace("10.240.0.3 b", "10.240.0.2 b")),
        sealed(BODY.replace("B" * 42, "A" * 42)),
        sealed(BODY.replace("10.240.0.0/22", "10.240.0.1/22")),
        sealed(BODY.replace("serial: 7", f"serial: {2**53 + 1}")),
        sealed(BODY.replace("wireguard_port: 51820", "wireguard_port: 65536")),
        sealed(BODY.replace("dns_ttl: 5", "dns_ttl: 3601")),
        sealed(BODY.replace("mtu 9000", "mtu 1279")),
        sealed(BODY.replace("domain: pn.example", "domain: example")),
        sealed(BODY.replace("192.0.2.1 ", "192.0.2.256 ")),
    ],
)
def test_these_are_left_to_the_thorough_reader(text: str) -> None:
    assert read_lines(text) is None


def test_the_quick_reader_reads_what_is_written() -> None:
    assert read_lines(TEXT) == LOCK
    for part in ("hosts", "networks", "applications", "quarantine", "history"):
        less = replace(LOCK, **{part: () if part in ("quarantine", "history") else {}})
        assert read_lines(lock_text(less)) == less
    assert read_lines(lock_text(replace(LOCK, settings=None))) == replace(LOCK, settings=None)
    assert LOCK.settings is not None
    bare = replace(LOCK, settings=replace(LOCK.settings, dns_upstream=(), dns_internal=(), hosts={}))
    assert read_lines(lock_text(bare)) == bare
    internal = replace(LOCK, settings=replace(LOCK.settings, dns_internal=("corp.example", "lan", "no")))
    assert read_lines(lock_text(internal)) == internal


def test_an_internal_domain_is_read_again_by_yaml(tmp_path: Path) -> None:
    assert LOCK.settings is not None
    domains = ("corp.example", "no", "null", "e1", "x.1e3.y")
    lock = Lock("small", settings=replace(LOCK.settings, dns_internal=domains))
    assert save_lock(tmp_path, lock).settings == load_lock(tmp_path, "small").settings == lock.settings


@pytest.mark.parametrize("word", ["null", "true", "no", "on", "e1"])
def test_a_name_that_yaml_gives_a_meaning_to_is_read_again(word: str, tmp_path: Path) -> None:
    lock = Lock(
        fleet=word,
        hosts={word: HostLock(0x64400001)},
        networks={
            PN: NetworkLock(word, 4096, Prefix.parse("10.240.0.0/22"), {f"1.{word}.{AP}": Slot(0x0AF00002, word)})
        },
        applications={AP: word},
    )
    saved = save_lock(tmp_path, lock)
    assert load_lock(tmp_path, word) == saved
