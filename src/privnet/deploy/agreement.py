"""What a run knows of hosts that have to agree, put to ``together``."""

from __future__ import annotations

from collections.abc import Collection

from privnet.deploy.run import Run
from privnet.deploy.state import Unknown
from privnet.deploy.together import together
from privnet.progress import load_progress, unfinished
from privnet.store import lock_checksum


def agree(run: Run, asked: Collection[str], active: Collection[str]) -> None:
    """Stop the run when hosts have to change something together and one of them cannot. Once all have answered.

    :param asked: hosts that the run is about
    :param active: those that have answered, or will be asked yet
    """
    answers = {name: found for (name, phase), found in run.answers.items() if phase == run.executing}
    if run.together is not None or run.stopped or not answers.keys() >= set(active):
        return
    states = run.states()
    run.together = together(run.plan, states, run.compiled.known.settings)
    silent = {name: "it is not in this run" for name in run.plan.hosts if name not in asked}
    silent |= {name: "it does not answer" for name in asked if name not in states}
    silent |= {name: found.why for name, found in answers.items() if isinstance(found, Unknown)}
    unfit = {name: why for name, found in states.items() if (why := run.refused_key(name, found))}
    if why := run.together.hindered(unfit | (run.judged or {}), silent, _behind(run)):
        run.stop(why, "refused")


def apart(run: Run, failed: set[str]) -> None:
    """Stop the run when one of them has failed: some would have the new value and some the old one."""
    if run.executing and not run.stopped and run.together and (why := run.together.torn(failed)):
        run.stop(why, "failed")


def _behind(run: Run) -> frozenset[str]:
    """Hosts that no run is known to have brought to the lock file with which this one began."""
    known = run.compiled.known
    found = load_progress(run.directory, known.fleet)
    return frozenset(unfinished(found, run.plan.hosts, known.serial, lock_checksum(known)) if found else ())
