"""One of three hosts lies, over a real SSH server that it has changed: it fails alone, in a line, and costs little."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from runs import DEPLOY, PYINFRA, deploy, plan_of

from privnet.lab import Lab

LIAR, OTHERS = "lab-2", ("lab-1", "lab-3")
QUESTION, PROGRAM = "gzip -d", "base64 -d"
"""What stands in the one question, and in what takes in a program."""
FORCED = "/etc/ssh/sshd_config.d/lies.conf"
LIES = "/root/lies"
# A process keeps the size of the one it was forked from as its greatest so far: this one is small.
MEASURED = """
import os, sys
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(process, 0)
print("PEAK", usage.ru_maxrss // 1024, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""
MUCH = 250
"""MiB more than an honest run: 64 MiB of an answer, some times over."""

HONEST = 'sh -c "$SSH_ORIGINAL_COMMAND"'
TO_THE_QUESTION = {
    "ten megabytes of random bytes": ("head -c 10000000 /dev/urandom", "its answer is not complete: "),
    "a byte that is no text in the right answer": (
        rf"{HONEST} | sed 's/^time /&\xff/'",
        'it says a time that cannot be: "?1',
    ),
    "no end and no line": (
        "exec tr '\\0' x < /dev/zero",
        "it gave no answer: it sends an answer of more than 67,108,864 bytes: its connection was closed",
    ),
    "escapes on standard error": (
        r"printf '\033]0;owned\007\033[31;1;44m\033[2Jevil\302\233 \377' >&2; exit 1",
        r"it gave no answer: \x1b]0;owned\x07\x1b[31;1;44m\x1b[2Jevil\x9b " + "\ufffd",
    ),
    "a wish for a password": (
        "echo 'sudo: a password is required' >&2; exit 1",
        "it gave no answer: sudo: a password is required: let this user use sudo without a password",
    ),
    "a directory above": (
        rf"{HONEST} | sed 's| /etc/privnet/guard| /etc/privnet/../guard|'",
        "it lists a file in a way ",
    ),
    "what is no JSON": (rf"{HONEST} | sed 's/^\[.*/[{{,/'", "its answer has a shape that privnet does not know (JSON"),
}
TO_A_PROGRAM = {
    "bytes that are no text": (
        rf"{HONEST}; printf 'no\377 room\n' >&2; exit 1",
        "no\ufffd room",
    ),
    "no end and no line": (
        "exec tr '\\0' x < /dev/zero",
        "it sends an answer of more than 67,108,864 bytes: its connection was closed",
    ),
    "no end of complaints": (
        "exec yes >&2",
        "it sends complaints of more than 1,048,576 bytes: its connection was closed",
    ),
    "escapes on standard error": (
        r"printf '\033]0;owned\007\033[2Jevil' >&2; exit 1",
        r"\x1b]0;owned\x07\x1b[2Jevil",
    ),
}


@dataclass(frozen=True)
class Ran:
    """What a run has come to; ``peak`` in MiB, of the largest of its processes."""

    code: int
    output: str
    peak: int

    def said(self, host: str) -> list[str]:
        """Lines of the summary about a host."""
        return [line for line in self.output.splitlines() if line.startswith(f"  {host}  ")]


@pytest.fixture(scope="module")
def lab(shared_fleet) -> Lab:
    """Three hosts, deployed to."""
    return shared_fleet("lab")


@pytest.fixture(scope="module")
def plain(lab: Lab) -> Ran:
    """A run to which nobody lies."""
    ran = privnet(lab, "deploy", str(lab.inventory), "-y")
    assert ran.code == 0 and "nothing to do: 3 hosts" in ran.output, ran.output
    return ran


def privnet(lab: Lab, *words: str) -> Ran:
    return measured(lab, str(PYINFRA.with_name("privnet")), *words)


def measured(lab: Lab, *command: str) -> Ran:
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=300, cwd="/",
        env={**os.environ, "PRIVNET_LAB": lab.name, "PYINFRA_PROGRESS": "off"},
    )  # fmt: skip
    output = (done.stdout + done.stderr).decode()
    peak = re.search("^PEAK ([0-9]+)$", output, re.MULTILINE)
    assert peak is not None, output
    return Ran(done.returncode, output.replace(peak[0], ""), int(peak[1]))


@contextmanager
def lying(lab: Lab, lie: str, to: str) -> Iterator[None]:
    """The liar's SSH server answers so to each command that has this text in it, and does what else it is asked."""
    honest = f"case $SSH_ORIGINAL_COMMAND in *'{to}'*) ;; *) exec {HONEST} ;; esac"
    install = f"cat > {LIES}; chmod 755 {LIES}; echo 'ForceCommand {LIES}' > {FORCED}; systemctl reload ssh.service"
    lab.exec(LIAR, ["sh", "-euc", install], input=f"#!/bin/sh\n{honest}\n{lie}\n")
    try:
        yield
    finally:
        lab.exec(LIAR, f"rm {FORCED}; systemctl reload ssh.service")


def assert_clean(ran: Ran, plain: Ran) -> None:
    """Nothing but lines that a terminal shows as they are, few of them, and none of a crash."""
    assert "Traceback" not in ran.output, ran.output
    odd = {character for character in ran.output if not character.isprintable()} - {"\n", "\t"}
    assert not odd, (odd, ran.output)
    assert len(ran.output) < 30_000 and max(map(len, ran.output.splitlines())) < 700
    assert ran.peak < plain.peak + MUCH, (ran.peak, plain.peak)
    print(f"{ran.peak} MiB, an honest run {plain.peak} MiB")


def assert_one_line(ran: Ran, said: str) -> None:
    """In the summary, and while it runs at most one of ours."""
    assert ran.said(LIAR) == [line for line in ran.said(LIAR) if line.startswith(f"  {LIAR}  failed: {said}")]
    assert len(ran.said(LIAR)) == 1, ran.output
    assert len([line for line in ran.output.splitlines() if f"privnet: {LIAR}: " in line]) <= 1


def drift(lab: Lab, *hosts: str) -> None:
    """What a run has to put right: a peer is gone."""
    for host in hosts:
        key = plan_of(lab).hosts[host].mesh.peers[0].public_key
        lab.exec(host, f"wg set privnet peer {key} remove")


@pytest.mark.proves("P16", cases=("no end and no line",))
@pytest.mark.parametrize("what", TO_THE_QUESTION)
def test_a_lie_to_the_question_fails_one_host_in_a_line(lab: Lab, plain: Ran, what: str) -> None:
    lie, said = TO_THE_QUESTION[what]
    with lying(lab, lie, QUESTION):
        ran = privnet(lab, "deploy", str(lab.inventory), "-y")
    assert ran.code == 1, ran.output
    assert_clean(ran, plain)
    assert_one_line(ran, said)
    assert "nothing to do: 2 hosts (lab-1, lab-3)" in ran.output


@pytest.mark.parametrize("what", TO_A_PROGRAM)
def test_an_honest_answer_and_then_a_lie_fails_one_host_in_a_line(lab: Lab, plain: Ran, what: str) -> None:
    lie, said = TO_A_PROGRAM[what]
    drift(lab, LIAR, *OTHERS)
    with lying(lab, lie, PROGRAM):
        ran = privnet(lab, "deploy", str(lab.inventory), "-y")
    assert ran.code == 1, ran.output
    assert_clean(ran, plain)
    assert_one_line(ran, said)
    assert [ran.said(host) for host in OTHERS] == [
        [f"  {host}  changed and confirmed (add 1 step)"] for host in OTHERS
    ], ran.output


def test_a_lie_to_the_confirmation_fails_one_host_in_a_line(lab: Lab, plain: Ran) -> None:
    drift(lab, LIAR, *OTHERS)
    with lying(lab, "exec tr '\\0' x < /dev/zero", "/var/lib/privnet/armed/change.sh"):
        ran = privnet(lab, "deploy", str(lab.inventory), "-y")
    assert ran.code == 1, ran.output
    assert_clean(ran, plain)
    assert_one_line(ran, "it sends an answer of more than 67,108,864 bytes")
    assert all(ran.said(host)[0].startswith(f"  {host}  changed and confirmed") for host in OTHERS)


@pytest.mark.parametrize("what", ["no end and no line", "escapes on standard error"])
def test_pyinfra_itself_and_a_plan_tell_the_same(lab: Lab, plain: Ran, what: str) -> None:
    lie, said = TO_THE_QUESTION[what]
    with lying(lab, lie, QUESTION):
        ran = measured(lab, str(PYINFRA), "-y", str(lab.inventory.with_suffix(".py")), str(DEPLOY))
        planned = privnet(lab, "plan", str(lab.inventory), "--live")
    assert ran.code == 1
    assert_clean(ran, plain)
    assert [line for line in ran.output.splitlines() if f"privnet: {LIAR}: {said}" in line], ran.output
    assert planned.code == 0, planned.output
    assert_clean(planned, plain)
    assert "2 of 3 hosts answered, 0 of them would be changed" in planned.output
    assert [line.startswith(f"  {LIAR}  would fail: {said}") for line in planned.said(LIAR)] == [True], planned.output


def test_an_import_is_not_filled_up_either(lab: Lab, plain: Ran, tmp_path: Path) -> None:
    words = ["import", *OTHERS, LIAR, "--output", str(tmp_path / "back"), "--ssh-config", str(lab.ssh_config)]
    with lying(lab, "exec tr '\\0' x < /dev/zero", ""):
        ran = privnet(lab, *words)
    assert ran.code == 3, ran.output
    assert_clean(ran, plain)
    assert f"{LIAR} ({LIAR}) did not answer (its answer is longer than 67,108,864 bytes)" in ran.output


def test_an_honest_host_is_as_the_others_again(lab: Lab, plain: Ran) -> None:
    """The twin of all of them: the same fleet, the same change, and nobody lies."""
    drift(lab, LIAR, *OTHERS)
    ran = privnet(lab, "deploy", str(lab.inventory), "-y")
    assert ran.code == 0, ran.output
    assert all(ran.said(host)[0].startswith(f"  {host}  changed and confirmed") for host in (LIAR, *OTHERS))
    again = deploy(lab)
    assert (again.code, again.changed) == (0, {})
