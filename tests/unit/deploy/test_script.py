"""One upload and one program: quoted, the same for the same, and nothing at all when a byte of it is missing."""

from __future__ import annotations

import base64
import gzip
import io
import shlex
import subprocess
import tarfile
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privnet.deploy.script import RUN, Script, command
from privnet.render import ManagedFile


def example() -> Script:
    script = Script()
    script.run("touch", "/etc/first", early=True)
    script.place(ManagedFile("/etc/privnet/a b.conf", "it's $HOME\n" * 400))
    script.place(ManagedFile("/etc/systemd/system/x.wants/link", "../x", 0))
    script.place(ManagedFile("/etc/privnet/deep/er/secret", "x", 0o600))
    script.remove("/etc/privnet/old")
    script.feed("batch", ["one $(reboot)", "two"], "cp", "-t", "/etc")
    script.run("test", "!", "-e", "/etc/privnet/old")
    return script


def run_in_own_etc(upload: str) -> tuple[int, list[str], str]:
    """Run an upload where /etc is an empty file system that nobody else sees; (exit code, what is in it, errors)."""
    before = "mount -t tmpfs none /etc && mkdir /etc/privnet && touch /etc/privnet/old && umask 077"
    after = "code=$?; cd /etc && find . -mindepth 1 -printf '%y %m %p %l\\n' | sort -k 3; exit $code"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{before}; sh -c {shlex.quote(RUN)} privnet 3; {after}"],
        input=upload,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_a_program_that_hangs_is_ended_with_all_that_it_has_begun() -> None:
    script = Script()
    script.run("sh", "-c", "trap '' TERM; sleep 61 & sleep 62")
    begun = time.monotonic()
    code, _, errors = run_in_own_etc(script.upload())
    # Whoever lives on would have the output open, and be waited for.
    assert time.monotonic() - begun < 30
    assert code == 137
    assert errors.endswith("its program was killed, or not over after 3 s\n")


@pytest.mark.parametrize(
    ("there", "said"), [("privnet", ""), ("privnet/lease", "privnet: locked: ")], ids=["nobody's", "another run's"]
)
def test_a_program_that_waits_in_vain_says_whether_it_is_for_another_run(there: str, said: str) -> None:
    held = f"mount -t tmpfs none /run && mkdir -p /run/{there} && exec 7> /run/privnet/program.lock && flock 7"
    short = RUN.replace("flock -w 120", "flock -w 0.1")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{held}; sh -c {shlex.quote(short)} privnet 3"],
        input=Script().upload(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 75
    assert done.stderr == f"{said}another program is at work there: run again when it is over\n"


def test_a_program_takes_the_lock_when_its_upload_is_complete() -> None:
    """A connection that is dead in the middle of an upload must not keep a host from rolling back."""
    upload = Script().upload()
    free = "mount -t tmpfs none /run && mount -t tmpfs none /etc && mkdir /etc/privnet"
    look = "flock -n /run/privnet/program.lock echo free; find /etc/privnet -name '.stage.*' | wc -l"
    program = f"{free}; exec 3<&0; sh -c {shlex.quote(RUN)} privnet 4 <&3 & sleep 2; {look}; wait $!; echo $?; {look}"
    command = ["unshare", "--mount", "sh", "-c", program]
    begun = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(upload.encode()[:-8])
        process.stdin.flush()
        said = process.stdout.read().decode().splitlines()
    assert (said[0], said[1]) == ("free", "1")
    assert said[-3] != "0" and said[-2:] == ["free", "0"], said
    assert 3 < time.monotonic() - begun < 30


def test_an_upload_that_is_under_way_is_left_alone_by_another_program_and_a_dead_one_is_not() -> None:
    dead = "mkdir /etc/privnet/.stage.dead"
    alive = "mkdir /etc/privnet/.stage.alive && exec 5< /etc/privnet/.stage.alive && flock 5"
    before = f"mount -t tmpfs none /run && mount -t tmpfs none /etc && mkdir /etc/privnet && {dead} && {alive}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{before}; sh -c {shlex.quote(RUN)} privnet 4; ls -A /etc/privnet"],
        input=Script().upload(),
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == (".stage.alive\n", "")


UNTOUCHED = ["d 755 ./privnet ", "f 644 ./privnet/old "]


def test_a_whole_upload_places_removes_and_runs() -> None:
    code, found, errors = run_in_own_etc(example().upload())
    assert (code, errors) == (0, "")
    assert found == [
        "f 600 ./batch ",
        "f 644 ./first ",
        "d 755 ./privnet ",
        "f 644 ./privnet/a b.conf ",
        "d 755 ./privnet/deep ",
        "d 755 ./privnet/deep/er ",
        "f 600 ./privnet/deep/er/secret ",
        "d 755 ./systemd ",
        "d 755 ./systemd/system ",
        "d 755 ./systemd/system/x.wants ",
        "l 777 ./systemd/system/x.wants/link ../x",
    ]


def test_an_upload_cut_anywhere_changes_nothing() -> None:
    upload = example().upload()
    assert len(upload) > 1024
    for cut in [0, 1, *range(128, len(upload) - 8, 128)]:
        code, found, _ = run_in_own_etc(upload[:cut])
        assert code != 0, cut
        assert found == UNTOUCHED, cut


def test_an_upload_with_another_byte_in_a_file_changes_nothing() -> None:
    raw = bytearray(gzip.decompress(base64.b64decode(example().upload())))
    raw[raw.index(b"it's")] ^= 1
    code, found, _ = run_in_own_etc(base64.encodebytes(gzip.compress(bytes(raw))).decode())
    assert code != 0 and found == ["files/etc/privnet/a b.conf: FAILED", *UNTOUCHED]


def test_a_program_stops_at_its_first_failure() -> None:
    script = Script()
    script.run("false")
    script.run("touch", "/etc/after")
    code, found, _ = run_in_own_etc(script.upload())
    assert code == 1 and found == UNTOUCHED


def test_an_empty_directory_in_a_files_place_goes_and_a_full_one_stops_the_run() -> None:
    script = Script()
    script.run("mkdir", "-p", "/etc/privnet/x", early=True)
    script.place(ManagedFile("/etc/privnet/x", "y"))
    assert "f 644 ./privnet/x " in run_in_own_etc(script.upload())[1]
    script.run("touch", "/etc/privnet/x/mine", early=True)
    code, found, _ = run_in_own_etc(script.upload())
    assert code != 0 and "f 644 ./privnet/x/mine " in found


def test_equal_scripts_give_equal_uploads_whatever_the_order() -> None:
    one, two = Script(), Script()
    files = [ManagedFile(f"/etc/privnet/{name}", name) for name in "abc"]
    for file in files:
        one.place(file)
    for file in reversed(files):
        two.place(file)
    assert one.upload() == two.upload()
    two.remove("/etc/privnet/d")
    assert one.upload() != two.upload()


def test_every_member_but_links_is_in_the_manifest() -> None:
    data = gzip.decompress(base64.b64decode(example().upload()))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = {member.name for member in tar if member.isfile()}
        manifest = tar.extractfile("manifest")
        assert manifest is not None
        listed = {line[66:] for line in manifest.read().decode().splitlines()}
    assert listed == files - {"manifest"}
    assert {"program", "place", "discard", "batch"} <= listed


@given(words=st.lists(st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs", "Cc"])), min_size=1))
def test_every_word_is_quoted(words: list[str]) -> None:
    assert shlex.split(command(*words)) == words


def test_a_command_is_run_once() -> None:
    script = Script()
    script.run("systemctl", "daemon-reload")
    script.run("systemctl", "daemon-reload")
    assert script.after == ["systemctl daemon-reload"]


def test_units_are_stopped_together_and_failed_ones_are_forgotten() -> None:
    script = Script()
    script.end(["b.service", "a.service"], failed={"b.service", "other.service"})
    assert script.before == ["systemctl stop a.service b.service", "systemctl reset-failed b.service"]
    nothing = Script()
    nothing.end([], failed={"other.service"})
    assert not nothing


def test_a_script_without_steps_is_nothing() -> None:
    assert not Script()
    assert example()
