"""A resolver outside the fleet, and audits while it answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from privnet.lab import Lab
from privnet.lab.process import wait_until

NAME, ANSWER = "www.example.com", "11.22.33.44"


def audited(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One audit; with an upstream that answers."""
    with answering(lab):
        return subprocess.run(
            [sys.executable, "-m", "privnet.audit", str(lab.inventory), *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PRIVNET_LAB": lab.name},
            timeout=120 * lab.patience,
            cwd="/",
        )


@contextmanager
def answering(lab: Lab) -> Iterator[None]:
    """A resolver outside the fleet that knows one name more."""
    options = [
        "--no-hosts",
        "--no-resolv",
        "--pid-file=",
        "--user=root",
        "--bind-dynamic",
        f"--address=/example.com/{ANSWER}",
    ]
    with subprocess.Popen(lab.argv("outsider", ["dnsmasq", "-k", "-C", "/dev/null", *options])) as process:
        try:
            assert wait_until(lambda: ":53 " in lab.exec("outsider", "ss -Hlun").stdout, 20)
            yield
        finally:
            process.terminate()
