"""Where words (regular expressions) are on this host, on disk, in its log and in its kernel: {word: [place, …], …}."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

WORDS = {word: re.compile(word.encode()) for word in json.loads(sys.stdin.readline())["words"]}
ANY = re.compile(b"|".join(word.pattern for word in WORDS.values()))
SKIPPED = {"/proc", "/sys", "/dev", "/usr"}  # the kernel is asked below; /usr is Debian's
QUESTIONS = (
    "journalctl -o export", "nft list ruleset", "ip -d addr", "ip neigh", "bridge fdb", "ip route show table all",
    "wg show all dump", "systemctl list-units --all --full", "systemctl show *", "ps axww -o args", "ss -anp",
)  # fmt: skip
found = {}


def search(data, place):
    if ANY.search(data):
        for word, pattern in WORDS.items():
            if pattern.search(data):
                found.setdefault(word, []).append(str(place))


for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if str(Path(folder, name)) not in SKIPPED]
    for path in (Path(folder, name) for name in (*folders, *files)):
        search(os.fsencode(path), f"the name {path}")
        if path.is_symlink():
            search(os.fsencode(path.readlink()), f"the link {path}")
        elif path.is_file():
            # A named namespace is a file that cannot be read.
            with contextlib.suppress(OSError):
                search(path.read_bytes(), path)
for question in QUESTIONS:
    search(subprocess.run(question.split(), capture_output=True).stdout, question)
print(json.dumps(found))
