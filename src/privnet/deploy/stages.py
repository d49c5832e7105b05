"""The stages of a run, in order. pyinfra ends one on all hosts before it begins the next."""

from __future__ import annotations

from pyinfra.api import deploy

from privnet.deploy import lookups, operations

lookups.install()


@deploy("Private network")
def private_network() -> None:
    """Make the fleet so: everything from an empty host to a working private network."""
    if operations.outside():
        operations.leave_alone(name="leave alone")
        return
    operations.ask(name="ask")
    operations.record(name="record numbers")
    operations.prepare_one(name="prepare one host")
    operations.prepare(name="prepare host")
    operations.record(name="record keys")
    operations.add_one(name="add what is new to one host")
    operations.add(name="add what is new")
    operations.reach(name="see that peers answer")
    operations.switch_one(name="switch on one host")
    operations.switch(name="switch what has moved")
    operations.settle(name="connect anew")
    operations.retire_one(name="retire on one host")
    operations.retire(name="retire what is gone")
    operations.confirm(name="confirm")
    operations.confirm_retired(name="confirm what was taken away")


@deploy("Last word")
def last_word() -> None:
    """Keep what a run has left waiting for a person, or take it back."""
    operations.ask(name="ask")
    operations.say(name="confirm or undo")
