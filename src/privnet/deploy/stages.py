"""The stages of a run, in order. pyinfra ends one on all hosts before it begins the next."""

from __future__ import annotations

from pyinfra.api import deploy

from privnet.deploy import operations


@deploy("Private network")
def private_network() -> None:
    """Make the fleet so: everything from an empty host to a working private network."""
    operations.ask(name="ask")
    operations.record(name="record numbers")
    operations.prepare(name="prepare host")
    operations.record(name="record keys")
    operations.canary(name="add what is new to one host")
    operations.add(name="add what is new")
    operations.switch(name="switch what has moved")
    operations.retire(name="retire what is gone")
    operations.confirm(name="confirm")
