"""`python -m privnet.lab`: the same as `privnet lab`."""

from __future__ import annotations

from privnet.lab.cli import app

app(prog_name="privnet lab")
