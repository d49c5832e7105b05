"""What a run says of units that failed: their own last words, from a host that may say anything."""

from __future__ import annotations

import json

from privnet.deploy.journal import LINES_SAID, UNITS_SAID, WIDTH_SAID, causes

CONTAINER = "privnet-container@pnc6acfc10001.service"
OVERLAY = "privnet-overlay@7000000.service"


def said(unit: str, message: object, priority: int = 6) -> str:
    return json.dumps({"_SYSTEMD_UNIT": unit, "MESSAGE": message, "PRIORITY": str(priority), "_PID": "77"})


def ended(unit: str, result: str = "failed", message: str = "Failed to start it.") -> str:
    found = {"UNIT": unit, "_SYSTEMD_UNIT": "init.scope", "MESSAGE": message, "PRIORITY": "3", "_PID": "1"}
    return json.dumps(found | ({"JOB_RESULT": result} if result else {}))


def test_the_last_lines_of_a_unit_that_failed_are_its_cause() -> None:
    lines = [said(CONTAINER, f"line {number}") for number in range(5)]
    lines += [said(OVERLAY, "all is well"), ended(OVERLAY, "done"), ended(CONTAINER)]
    assert causes(lines) == f"{CONTAINER} failed: line 2; line 3; line 4"


def test_units_that_failed_for_one_reason_are_one() -> None:
    lines = [line for n in range(4) for line in (said(f"u{n}.service", "no room"), ended(f"u{n}.service"))]
    assert causes(lines) == "u0.service and 3 others failed: no room"


def test_where_nothing_failed_nothing_is_said() -> None:
    assert causes([]) == causes([said(CONTAINER, "a line"), ended(CONTAINER, "done")]) == ""


def test_a_line_that_a_retry_repeats_is_said_once() -> None:
    lines = [said(CONTAINER, text) for text in ("first", "same", "same", "same")]
    assert causes([*lines, ended(CONTAINER), ended(CONTAINER)]) == f"{CONTAINER} failed: first; same"


def test_a_unit_that_wrote_nothing_has_the_words_of_systemd() -> None:
    lines = [ended(CONTAINER, "", f"{CONTAINER}: start operation timed out. Terminating."), ended(CONTAINER, "timeout")]
    assert causes(lines) == f"{CONTAINER} failed: {CONTAINER}: start operation timed out. Terminating.; " + (
        "Failed to start it."
    )


def test_a_unit_that_waited_for_one_that_failed_is_no_cause() -> None:
    lines = [said(CONTAINER, "the cause"), ended(CONTAINER), ended("privnet-dns@x.service", "dependency")]
    assert causes(lines) == f"{CONTAINER} failed: the cause"


def test_networkd_is_heard_about_a_device_that_it_could_not_make() -> None:
    lines = [said("systemd-networkd.service", text, 4) for text in ("pnx7000000: netdev exists",)]
    lines += [said("systemd-networkd.service", "eth0: Link UP"), said(OVERLAY, "pnx7000000: not made"), ended(OVERLAY)]
    assert (
        causes(lines) == f"{OVERLAY} failed: pnx7000000: not made. systemd-networkd.service: pnx7000000: netdev exists"
    )
    # The twin: it is not asked about a container.
    assert "netdev" not in causes([lines[0], said(CONTAINER, "no"), ended(CONTAINER)])


def test_what_a_host_says_is_bounded_and_without_control_characters() -> None:
    lines = [said(CONTAINER, list(b"red \x1b[31m\x9b\xff")), said(CONTAINER, "x" * 5000), said(CONTAINER, None)]
    lines += ["", "{", "[]", '"x"', "7", "null", "[" * 9000, '{"UNIT": 7}', said(CONTAINER, [-1, 4096, "x"])]
    found = causes([*lines, ended(CONTAINER)])
    assert found == f"{CONTAINER} failed: red \\x1b[31m\ufffd\ufffd; {'x' * WIDTH_SAID}"
    many = [line for n in range(50) for line in (said(f"u{n}.service", f"{n}" + "x" * 900), ended(f"u{n}.service"))]
    assert causes(many).endswith(f". And {50 - UNITS_SAID} other units")
    assert len(causes(many)) < 2 * UNITS_SAID * LINES_SAID * WIDTH_SAID
