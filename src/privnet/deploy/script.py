"""One upload and one program: everything that a stage does to a host, in a single execution.

The upload is a tar on standard input with the files to place, batch files and the program; its manifest is checked
before anything is moved into place. No text of a user's reaches a shell: what is printed here is quoted, and
everything that could be long stands in a file.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import shlex
import tarfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from privnet.render import ManagedFile, static_files

STAGING = "/etc/privnet/.stage"
"""On the file system of the managed files, so that moving a file into place is a rename."""

RUN = (
    "umask 077; export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin; mkdir -p /run/privnet"
    " && install -d -m 0755 /etc/privnet"
    f' && stage=$(mktemp -d {STAGING}.XXXXXX) && trap \'rm -rf "$stage"\' EXIT && exec 7< "$stage" && flock 7'
    ' && timeout --signal=KILL "$1" base64 -d | tar -xzp --no-same-owner -C "$stage" && cd "$stage"'
    " && sha256sum --quiet --strict -c manifest && sync -f ."
    " && exec 8> /run/privnet/program.lock"
    " && { flock -w 120 8 || { [ ! -e /run/privnet/lease ] || printf 'privnet: locked: ' >&2;"
    " echo 'another program is at work there: run again when it is over' >&2; exit 75; }; }"
    f' && for old in {STAGING}.*; do (flock -n 6 && rm -rf "$old") 6< "$old" || :; done'
    ' && { code=0; timeout --signal=KILL "$1" sh -eu ./program > .said 2> .complaints || code=$?; exec 8>&-;'
    " cat .said; cat .complaints >&2;"
    ' [ $code != 137 ] || echo "its program was killed, or not over after $1 s" >&2; exit $code; }'
)
"""The same for every host and stage; its argument is the program's time in seconds, and the upload's.

The lock of all programs is taken when the program is complete and verified, and given back before anything is said:
a host that rolls back waits for it, and must not wait for the network. A cut upload fails the unpacking or the
manifest, and nothing has happened. An upload locks its own directory, so the next program removes those of dead ones
alone. A program that waits in vain where somebody has the lease has met another run."""

CONFIRM = (
    "umask 077; export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin; change=/var/lib/privnet/armed/change.sh;"
    ' if [ -e "$change" ]; then exec sh "$change" "$@"; fi;'
    " found=$(head -c 100 /var/lib/privnet/generation);"
    ' if [ "$1" = confirm ] && [ "$found" = "$3" ]; then exit; fi; exec >&2;'
    ' case $found in "" | none | *"back "* | "$2 "*)'
    " echo 'privnet: stale: it has rolled back to what it was before: no confirmation came in time. Run again' ;;"
    ' *) echo "privnet: stale: run ${found%% *} has changed it meanwhile. Take its lock file, and run again" ;;'
    " esac; exit 75"
)
"""Its arguments: ``confirm``, ``extend``, ``hold``, ``lost``, ``undo`` or ``withdraw``, the run, what the host has been
through, and the seconds to wait for a person (``hold``) or for peers (``lost``). What is confirmed stays so."""

ANSWERING = "/var/lib/privnet/armed/answering"
"""The peers that answered before a change: forgotten with it."""
ANSWER_SECONDS = 3
"""How long a peer that is dead before a change is waited for. One that answers later is not asked again."""

_PLACE = """\
umask 022
place() {
	while IFS= read -r path; do
		[ -d "${path%/*}" ] || mkdir -p "${path%/*}"
		# An empty directory of that name is what a container engine leaves that was told of a missing file.
		[ -L "$path" ] || [ ! -d "$path" ] || rmdir "$path"
		mv -T "files$path" "$path"
	done < "$1"
}
discard() {
	while IFS= read -r path; do rm -f "$path"; done < "$1"
	# Directories that only one file was in go with it.
	sed -n 's|/[^/]*$||p' "$1" | sort -u | while IFS= read -r folder; do
		case $folder in
		/etc/netns/* | *.service.d | *.socket.d | /etc/systemd/network/*.d)
			rmdir --ignore-fail-on-non-empty "$folder" 2> /dev/null || true
			;;
		esac
	done
}
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """What ``change.sh`` is told before and after a wave's program.

    :param run: who holds the host's lease
    :param wave: ``add``, ``switch`` or ``retire``
    :param expected: what the host last said it had been through; another answer means that it was changed since
    :param seconds: how long it waits for a confirmation before it rolls back
    :param token: the same for all runs that cannot be under way at the same time, since one lock keeps them apart
    :param owner: for people: who runs this, and where
    :param broken: a run whose lease may be taken
    :param serial: of the lock file that the wave follows
    :param checksum: of the same
    :param asks: whether peers are asked before the wave if they answer, to be asked again after it
    :param held: whether the waves before this one are not confirmed by it, since a person is to confirm them all
    """

    run: str
    wave: str
    expected: str
    seconds: int
    token: str
    owner: str
    broken: str
    serial: int
    checksum: str
    asks: bool = False
    held: bool = False

    def begin(self) -> list[str]:
        """The program's first lines."""
        words = (self.run, self.wave, self.expected, self.seconds, self.token, self.owner, self.broken)
        lines = [command("sh", "./change.sh", "begin", *words, *(["held"] if self.held else []))]
        if self.asks:
            lines.append(f"{command('perl', './peers.pl', 'answering', ANSWER_SECONDS)} > {ANSWERING}")
        return lines

    def end(self) -> str:
        """The program's last line."""
        return command("sh", "./change.sh", "done", self.run, self.wave, self.serial, self.checksum)

    @property
    def generation(self) -> str:
        """What the host has been through afterwards."""
        return f"{self.run} {self.wave} done"


@dataclass(slots=True)
class Script:
    """What one stage does to one host, in order: ``before``, files placed and removed, ``after``.

    :param inputs: further files of the upload, for programs that read batches
    :param disturbs: whether it touches what carries the traffic with peers that are there already
    """

    before: list[str] = field(default_factory=list)
    files: dict[str, ManagedFile] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    after: list[str] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)
    disturbs: bool = False
    _run: set[tuple[bool, str]] = field(default_factory=set, repr=False, compare=False)

    def __bool__(self) -> bool:
        return bool(self.before or self.files or self.removed or self.after)

    def place(self, file: ManagedFile) -> None:
        """Write a file; it replaces the present one in one step."""
        self.files[file.path] = file

    def remove(self, path: str) -> None:
        """Delete a file after the stage's programs that still need it have run."""
        self.removed.add(path)

    def run(self, *words: str | int, early: bool = False) -> None:
        """Run a command after the files are in place, or before (``early``)."""
        line = command(*words)
        if (early, line) not in self._run:
            self._run.add((early, line))
            (self.before if early else self.after).append(line)

    def end(self, units: Iterable[str], failed: Collection[str] = ()) -> None:
        """Stop units before anything of theirs is removed, and forget those that have ``failed``."""
        stop = sorted(units)
        if stop:
            self.run("systemctl", "stop", *stop, early=True)
        if forget := [unit for unit in stop if unit in failed]:
            self.run("systemctl", "reset-failed", *forget, early=True)

    def feed(self, name: str, lines: Iterable[str], *words: str | int, early: bool = False) -> None:
        """Run a command that reads ``lines`` from the file ``name``, which is its last argument."""
        self.inputs[name] = "".join(f"{line}\n" for line in lines)
        self.run(*words, name, early=early)

    @property
    def is_far(self) -> bool:
        """Whether it takes away only what this host knows of others: no unit, device or file of its own ends."""
        own = any(line.startswith(("ip link ", "[ ! -e ", "networkctl ", "find ")) for line in self.after)
        return bool(self) and not (self.before or self.removed or own)

    def merge(self, other: Script) -> None:
        """Do ``other`` afterwards, in the same program."""
        for name in ("before", "after"):
            steps: list[str] = getattr(self, name)
            known = set(steps)
            steps += [line for line in getattr(other, name) if line not in known]
        self.files |= other.files
        self.removed |= other.removed
        self.inputs |= other.inputs
        self.disturbs |= other.disturbs

    def lines(self) -> list[str]:
        """What it does, for people: in order, a line each."""
        files = [f"write {path}" for path in sorted(self.files)] + [f"remove {path}" for path in sorted(self.removed)]
        return [*(f"run {line}" for line in self.before), *files, *(f"run {line}" for line in self.after)]

    def program(self, turn: Turn | None = None) -> str:
        """The shell program of this stage, between the beginning and the end of a turn."""
        lines = [*(turn.begin() if turn else []), *self.before]
        if self.files:
            lines.append("place place")
        if self.removed:
            lines.append("discard discard")
        end = [turn.end()] if turn else []
        return _PLACE + "\n".join([*lines, *self.after, *end]) + "\n"

    def upload(self, turn: Turn | None = None) -> str:
        """The tar for standard input, in base64; equal scripts give equal text."""
        members = {"program": self.program(turn), **self.inputs, **(_change_program() if turn else {})}
        if turn and turn.asks:
            members["peers.pl"] = _peers_program()
        if self.files:
            members["place"] = "".join(f"{path}\n" for path in sorted(self.files))
        if self.removed:
            members["discard"] = "".join(f"{path}\n" for path in sorted(self.removed))
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
            manifest = []
            for path, file in sorted(self.files.items()):
                _add(tar, f"files{path}", file)
                if not file.is_link:
                    manifest.append(f"{hashlib.sha256(file.text.encode()).hexdigest()}  files{path}\n")
            for name, text in sorted(members.items()):
                _add(tar, name, ManagedFile(name, text, 0o600))
                manifest.append(f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n")
            _add(tar, "manifest", ManagedFile("manifest", "".join(manifest), 0o600))
        return base64.encodebytes(gzip.compress(buffer.getvalue(), mtime=0)).decode()


@cache
def _change_program() -> dict[str, str]:
    """What a host needs to take a change back: it may never have had privnet on it."""
    files = {file.path.rpartition("/")[2]: file.text for file in static_files()}
    return {name: files[name] for name in ("change.sh", "privnet-restore.service")}


@cache
def _peers_program() -> str:
    """What asks a host's peers whether they answer; for the time of a run only."""
    return (resources.files("privnet") / "host" / "peers.pl").read_text()


def command(*words: str | int) -> str:
    """A command line with every word quoted."""
    return " ".join(shlex.quote(str(word)) for word in words)


def _add(tar: tarfile.TarFile, name: str, file: ManagedFile) -> None:
    member = tarfile.TarInfo(name)
    if file.is_link:
        member.type, member.linkname = tarfile.SYMTYPE, file.text
        tar.addfile(member)
        return
    data = file.text.encode()
    member.size, member.mode = len(data), file.mode
    tar.addfile(member, io.BytesIO(data))
