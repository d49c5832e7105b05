"""`python -m privnet.audit`: the same as `privnet audit`."""

from __future__ import annotations

import typer

from privnet.audit.cli import audit_command

typer.run(audit_command)
