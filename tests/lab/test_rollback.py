"""A change that is not confirmed is taken back by the host itself: nobody else is needed, and a boot does it too."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kernel import difference, dump, until_rested
from meter import Flow, answering_when_there, assert_unharmed, metering
from runs import PAGES, PYINFRA, STOREFRONT, begin, container_of, deploy, edit, killed_at, project, replace_once

from privnet.compiler import compile_fleet
from privnet.deploy.script import RUN, Script
from privnet.lab import Lab
from privnet.store import save_lock

SECONDS = 12
WORK = 20
"""So many more a busy machine may take to put all hosts back, once their time is up."""
Dump = dict[str, list[str]]


@pytest.fixture(scope="module")
def lab(fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]) -> Lab:
    inventory = inventory_copy("lab")
    replace_once(inventory / "fleet.yaml", "policy:\n", f"policy:\n  rollback: {SECONDS}s\n")
    lab = fleet(inventory)
    deploy(lab)
    return lab


def privnet_deploy(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`privnet deploy`, whose exit code says what has become of a run."""
    environment = {**os.environ, "PRIVNET_LAB": lab.name, "PYINFRA_PROGRESS": "off"}
    command = [str(PYINFRA.with_name("privnet")), "deploy", str(lab.inventory), "-y", *arguments]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run(command, text=True, env=environment, timeout=300, cwd="/", **streams)  # type: ignore[call-overload]


def change(lab: Lab) -> None:
    """A container moves, an application comes, another goes."""
    edit(lab, "shop", "web: [lab-1, lab-2]", "web: [lab-1, lab-3]")
    edit(lab, "blog", "worker: [lab-3]", "worker: [lab-2, lab-3]\n      cron: [lab-2]")


def undo(lab: Lab) -> None:
    edit(lab, "shop", "web: [lab-1, lab-3]", "web: [lab-1, lab-2]")
    edit(lab, "blog", "worker: [lab-2, lab-3]\n      cron: [lab-2]", "worker: [lab-3]")


def armed(found: list[str]) -> bool:
    return "left: /var/lib/privnet/armed" in found


def lasting(found: Dump) -> Dump:
    """What hosts are, without what they have for the time of a run."""
    return {host: [line for line in lines if not line.startswith("left: ")] for host, lines in found.items()}


@pytest.mark.proves("P7", "rollback")
def test_the_control_machine_dies_after_what_is_new_was_added(lab: Lab) -> None:
    """The run is killed when a stage begins, so what came before it is done and not confirmed."""
    before = dump(lab)
    change(lab)
    killed_at(lab, "switch what has moved")
    during = dump(lab)
    # The twin: something was changed, and the hosts know that it is not confirmed.
    assert any(map(armed, during.values()))
    assert difference(before, during)
    until_rested(lab, within=SECONDS + WORK)
    assert difference(before, dump(lab)) == ""
    finish_and_undo(lab, before)


def test_an_upload_that_never_ends_keeps_no_host_from_rolling_back(lab: Lab) -> None:
    """As of a connection that dies without a FIN in the middle of it."""
    before = dump(lab)
    change(lab)
    killed_at(lab, "switch what has moved")
    half = Script().upload().encode()[:-8]
    with contextlib.ExitStack() as stack:
        for host in lab.hosts:
            command = lab.argv(host, ["sh", "-c", RUN, "privnet", "300"])
            process = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdin is not None
            process.stdin.write(half)
            process.stdin.flush()
        for host in lab.hosts:
            lab.exec(host, "until [ ! -e /var/lib/privnet/armed ]; do sleep 0.2; done", timeout=SECONDS + WORK)
    until_rested(lab, within=WORK)
    assert difference(before, dump(lab)) == ""
    finish_and_undo(lab, before)


STOPPED, NO_WAY_IN = "systemctl kill -s STOP privnet-guard.service", "rm /run/privnet/guard.commands"
DEAF = {"lab-1": STOPPED, "lab-2": NO_WAY_IN, "lab-3": STOPPED}


def test_a_host_goes_back_whose_guard_hears_nobody(lab: Lab) -> None:
    """Its rules cannot be changed then, so the process that owns them is ended and another begun."""
    before = dump(lab)
    change(lab)
    killed_at(lab, "switch what has moved")
    for host, command in DEAF.items():
        lab.exec(host, command)
        assert difference({host: before[host]}, dump(lab, host)), host
    # It waits for an answer first.
    until_rested(lab, within=SECONDS + WORK + 40)
    assert difference(before, dump(lab)) == ""
    finish_and_undo(lab, before)


def test_the_control_machine_dies_at_its_end(lab: Lab) -> None:
    """Each host's last wave is taken back. An earlier one was confirmed by the next: old and new both work then."""
    before = dump(lab)
    change(lab)
    waves = [lasting(before), *seen_at(lab, "switch what has moved", "retire what is gone", end="confirm")]
    end = dump(lab)
    until_rested(lab, within=SECONDS + WORK)
    after = dump(lab)
    waves.append(lasting(end))
    for host in lab.hosts:
        states = [wave[host] for wave in waves]
        last = max(n for n in range(len(states)) if n == 0 or states[n] != states[n - 1])
        # One that was confirmed meanwhile, because the others took long, stays as it is.
        wanted = states[last - 1] if armed(end[host]) else states[last]
        assert difference({host: wanted}, {host: after[host]}) == ""
    # The twin: there were several waves, and the last one is gone.
    assert any(armed(end[host]) and waves[0][host] != after[host] != waves[-1][host] for host in lab.hosts)
    finish_and_undo(lab, before)


def seen_at(lab: Lab, *stages: str, end: str) -> list[Dump]:
    """What hosts are when each of these stages begins, while the run is held; it is killed when the last one does."""
    found = []
    with begin(lab) as process:
        for line in process.stdout or ():
            if any(f"| {stage}" in line for stage in stages):
                process.send_signal(signal.SIGSTOP)
                found.append(lasting(dump(lab)))
                process.send_signal(signal.SIGCONT)
            elif f"| {end}" in line:
                process.send_signal(signal.SIGKILL)
                break
    assert len(found) == len(stages)
    return found


def finish_and_undo(lab: Lab, before: Dump) -> None:
    deploy(lab)
    done = deploy(lab)
    assert done.changed == {}
    assert not any(line.startswith("left: ") for lines in dump(lab).values() for line in lines)
    undo(lab)
    deploy(lab)
    assert difference(before, dump(lab)) == ""


RECORD = """#!/bin/sh
echo "$@" >> /run/recorded
case $1 in addconf | syncconf | setconf) tee -a /run/recorded | /usr/bin/wg "$@" ;; *) exec /usr/bin/wg "$@" ;; esac
"""


def recorded(lab: Lab, host: str, commands: str) -> str:
    """What ``wg`` is told by commands on a host, its standard input included."""
    prepare = "mkdir -p /run/record; : > /run/recorded; cat > /run/record/wg; chmod 0755 /run/record/wg"
    lab.exec(host, prepare, input=RECORD)
    lab.exec(host, f"PATH=/run/record:$PATH; {commands}")
    return lab.exec(host, "cat /run/recorded").stdout


def test_going_back_touches_no_peer_that_stays(lab: Lab) -> None:
    """A peer that is told again what it is has no addresses for a moment, and what comes from it then is lost."""
    look = "wg show privnet dump | tail -n +2 | cut -f 1,3,4,8 | sort; wg show privnet listen-port"
    look += "; cat /sys/class/net/privnet/mtu"
    before = lab.exec("lab-1", look).stdout
    peers = dict(line.split("\t")[:2] for line in before.splitlines() if "\t" in line)
    (other,) = (peer for peer, endpoint in peers.items() if endpoint == "192.0.2.13:51820")
    stranger = lab.exec("lab-1", "wg genkey | wg pubkey").stdout.strip()
    wrong = f"peer {other} endpoint 192.0.2.99:1 peer {stranger} allowed-ips 100.64.9.9/32"
    lab.exec("lab-1", f"wg set privnet listen-port 51821 {wrong}; ip link set dev privnet mtu 1400")
    assert lab.exec("lab-1", look).stdout != before
    told = recorded(lab, "lab-1", "sh /etc/privnet/lib/mesh.sh follow")
    assert lab.exec("lab-1", look).stdout == before
    assert {peer for peer in (*peers, stranger) if peer in told} == {other, stranger}, told
    assert not any(peer in recorded(lab, "lab-1", "sh /etc/privnet/lib/mesh.sh follow") for peer in peers)


FLEET = """\
fleet: lab
lab: true
policy: {{rollback: {seconds}s}}
hosts:
  lab-1: {{address: 192.0.2.11, zone: a}}
  lab-2: {{address: 192.0.2.12, zone: a}}
  lab-3: {{address: 192.0.2.13, zone: a}}
"""
# In the place of the program itself: what a host does while it rolls back sets its own search path.
IN_PLACE = """mkdir -p /run/record && cp /usr/bin/wg /run/record/real && : > /run/recorded
sed 's|/usr/bin/wg|/run/record/real|g' > /run/record/wg && chmod 0755 /run/record/wg
mount --bind /run/record/wg /usr/bin/wg"""


def test_a_way_back_tells_the_mesh_only_of_who_goes(
    fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]
) -> None:
    inventory = inventory_copy("lab")
    for path in (inventory / "projects").iterdir():
        path.unlink()
    (inventory / "fleet.yaml").write_text(FLEET.format(seconds=SECONDS))
    staying = project("staying", 1, "[lab-1, lab-2]")
    (inventory / "projects" / "staying.yaml").write_text(staying)
    lab = fleet(inventory, name="peers")
    deploy(lab)
    before = dump(lab)
    stays = lab.exec("lab-1", "wg show privnet peers").stdout.split()
    coming = project("coming", 2, "[lab-1, lab-3]")
    (inventory / "projects" / "coming.yaml").write_text(coming)
    killed_at(lab, "confirm")
    (comes,) = set(lab.exec("lab-1", "wg show privnet peers").stdout.split()) - set(stays)
    lab.exec("lab-1", IN_PLACE, input=RECORD)
    until_rested(lab, within=SECONDS + WORK)
    told = lab.exec("lab-1", "umount /usr/bin/wg; cat /run/recorded").stdout
    assert difference(before, dump(lab)) == ""
    assert f"set privnet peer {comes} remove\n" in told
    assert not any(peer in told for peer in stays), told


def test_the_same_operator_need_not_wait(lab: Lab) -> None:
    before = dump(lab)
    change(lab)
    killed_at(lab, "retire what is gone")
    done = deploy(lab)
    assert done.changed["confirm"]
    assert deploy(lab).changed == {}
    undo(lab)
    deploy(lab)
    assert difference(before, dump(lab)) == ""


def test_a_boot_takes_it_back(lab: Lab) -> None:
    before = dump(lab)
    change(lab)
    killed_at(lab, "switch what has moved")
    lab.kill("lab-2")
    lab.start("lab-2")
    until_rested(lab, within=SECONDS + WORK)
    assert difference(before, dump(lab)) == ""
    undo(lab)
    deploy(lab)


def test_a_boot_that_takes_it_back_leaves_nothing_to_confirm(lab: Lab) -> None:
    """Its files are back, and its kernel is still to follow, when a confirmation comes, and then the next run."""
    before = dump(lab)
    change(lab)
    killed_at(lab, "switch what has moved")
    armed = "sh /var/lib/privnet/armed/change.sh"
    run, been = lab.exec("lab-1", "cd /var/lib/privnet && cat armed/run generation").stdout.splitlines()
    assert been == f"{run} add done"
    alone = "exec 8> /run/privnet/program.lock && flock 8 && systemctl stop privnet-rollback.timer"
    lab.exec("lab-1", f"{alone} && {armed} boot && systemctl stop privnet-rollback.service")
    for word in ("confirm", "extend"):
        late = lab.exec("lab-1", f"{armed} {word} {run} '{been}'", check=False)
        assert late.returncode == 75
        assert "privnet: stale: it has rolled back to what it was before" in late.stderr
    first = deploy(lab, check=False)
    assert first.code != 0
    assert "lab-1] privnet: stale: it has rolled back since this run asked it. Run again" in first.output
    # The two others may go back by their timers when the next one comes to them, and say the same.
    assert any(deploy(lab, check=False).code == 0 for _ in range(3))
    undo(lab)
    deploy(lab)
    assert difference(before, dump(lab)) == ""


def test_half_a_wave_is_not_kept_and_a_directory_is_not_in_the_way(lab: Lab) -> None:
    """A container engine leaves an empty directory where it was told of a file that was missing."""
    lab.exec("lab-2", f"mkdir -p /etc/netns/1.cron.{PAGES}/resolv.conf")
    before = dump(lab)
    change(lab)
    killed_at(lab, "switch what has moved")
    lab.exec("lab-2", f"test -f /etc/netns/1.cron.{PAGES}/resolv.conf")
    run = lab.exec("lab-2", "cat /var/lib/privnet/armed/run").stdout.strip()
    lab.exec("lab-2", f"echo '{run} switch begun' > /var/lib/privnet/generation")
    half = f"sh /var/lib/privnet/armed/change.sh confirm {run} '{run} add done'"
    assert lab.exec("lab-2", half, check=False).returncode == 75
    lab.exec("lab-2", f"cd /etc/netns/1.cron.{PAGES} && rm resolv.conf && mkdir resolv.conf")
    until_rested(lab, within=SECONDS + WORK)
    assert difference(before, dump(lab)) == ""
    undo(lab)
    deploy(lab)
    lab.exec("lab-2", f"rm -rf /etc/netns/1.cron.{PAGES}")


def test_a_host_that_a_change_cuts_off_comes_back(
    fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]
) -> None:
    """The mesh's prefix lies over the operator's own address: the host's answers to it go nowhere from then on."""
    inventory = inventory_copy("lab")
    text = (inventory / "fleet.yaml").read_text().replace("192.0.2.", "10.77.0.")
    text = text.replace("policy:\n", f"policy:\n  rollback: {SECONDS}s\n")
    (inventory / "fleet.yaml").write_text(text)
    lab = fleet(inventory, "lab-1", name="cut")
    operator = next(str(address) for address in lab.underlay.operator if address.version == 4)
    assert operator == "10.77.0.253"
    # The other two hosts are not there: without a lock file they might be, with numbers of their own.
    save_lock(inventory, compile_fleet(inventory).lock)
    (inventory / "fleet.yaml").write_text(text + "\nwireguard: {mesh: 10.77.0.248/29}\n")
    before = _traces(lab)
    with begin(lab) as run:
        # The twin: it is cut off, and the run waits for an answer that cannot come.
        _until(lab, reachable=False)
        assert _traces(lab) != before
        _until(lab, reachable=True)
        run.kill()
    until_rested(lab, "lab-1", within=SECONDS + WORK)
    assert _traces(lab) == before
    (inventory / "fleet.yaml").write_text(text)
    deploy(lab, "--limit", "lab-1")


def test_a_deployed_host_that_a_change_cuts_off_works_again(
    fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]
) -> None:
    """The same change of hosts that serve: what they had works as before, and nobody but the first one was changed."""
    inventory = inventory_copy("lab")
    declared, lock = inventory / "fleet.yaml", inventory / "privnet.lock.yaml"
    text = declared.read_text().replace("192.0.2.", "10.77.0.")
    text = text.replace("policy:\n", f"policy:\n  rollback: {SECONDS}s\n")
    declared.write_text(text)
    lab = fleet(inventory, name="cut-again")
    deploy(lab)
    before, numbers = dump(lab), lock.read_bytes()
    there = Flow(f"1.web.{STOREFRONT}", f"1.worker.{STOREFRONT}")
    back = Flow(f"1.worker.{STOREFRONT}", f"1.web.{STOREFRONT}")
    with metering(lab, there, back) as meter:
        declared.write_text(text + "\nwireguard: {mesh: 10.77.0.248/29}\n")
        with meter.during("it is cut off") as seen, begin(lab) as run:
            _until(lab, reachable=False)
            during = dump(lab)
            _until(lab, reachable=True)
            run.kill()
            until_rested(lab, within=SECONDS + WORK)
        # The twin: what it had did not work meanwhile, and was not there.
        assert difference({"lab-1": before["lab-1"]}, {"lab-1": during["lab-1"]}) and seen[there].lost > 0
        assert all(difference({h: before[h]}, {h: during[h]}) == "" for h in ("lab-2", "lab-3"))
        with meter.during("it is back") as seen:
            time.sleep(3)
        assert_unharmed(seen)
    assert difference(before, dump(lab)) == ""
    declared.write_text(text)
    lock.write_bytes(numbers)
    assert deploy(lab).changed == {}


# From then on the host answers those who are connected already, and nobody else.
CUT_OFF = """
for n in $(seq 3000); do [ ! -e /var/lib/privnet/armed ] || break; sleep 0.02; done
nft -f - << 'END'
table inet cutoff {
	chain input {
		type filter hook input priority -300;
		tcp dport 22 tcp flags & (syn | ack) == syn drop
	}
}
END
"""


@contextmanager
def no_new_connections(lab: Lab, host: str) -> Iterator[None]:
    """From the moment when a wave has begun on a host."""
    with subprocess.Popen(lab.argv(host, ["sh", "-c", CUT_OFF])) as waiting:
        try:
            yield
            assert waiting.wait(10) == 0
        finally:
            waiting.kill()
            lab.exec(host, "nft delete table inet cutoff", check=False)


def test_a_host_that_takes_no_new_connection_comes_back(lab: Lab) -> None:
    """The old one goes on, so all would seem well over it. Whatever was to move to that host stays where it was."""
    before = dump(lab)
    edit(lab, "blog", "worker: [lab-3]", "worker: [lab-2]\n      cron: [lab-1, lab-3]")
    with no_new_connections(lab, "lab-2"):
        failed = deploy(lab, check=False)
        until_rested(lab, "lab-2", within=SECONDS + WORK)
    assert failed.code == 1
    assert failed.json["results"]["failed_hosts"] == ["lab-2"]
    why = f"it takes no new connection, so it rolls back within {SECONDS} s: "
    assert failed.output.count(f"privnet: lab-2: {why}") == 1
    assert f"nothing old is taken away: 1.worker.{PAGES} in pn-" in failed.output
    after = dump(lab)
    assert difference({"lab-2": before["lab-2"]}, {"lab-2": after["lab-2"]}) == ""
    assert f"netns 1.worker.{PAGES}" in after["lab-3"]
    assert f"netns 1.cron.{PAGES}" in after["lab-1"] and f"netns 2.cron.{PAGES}" in after["lab-3"]
    assert not any(line.startswith("left: ") for lines in after.values() for line in lines)
    deploy(lab)
    assert deploy(lab).changed == {}
    done = dump(lab)
    assert f"netns 1.worker.{PAGES}" in done["lab-2"] and f"netns 1.worker.{PAGES}" not in done["lab-3"]
    edit(lab, "blog", "worker: [lab-2]\n      cron: [lab-1, lab-3]", "worker: [lab-3]")
    deploy(lab)
    assert difference(before, dump(lab)) == ""


# In the place of the program itself: all goes through but where frames of moved containers go.
NOT_SWITCHED = """mkdir -p /run/record && cp "$(command -v bridge)" /run/record/real
cat > /run/record/bridge && chmod 0755 /run/record/bridge
mount --bind /run/record/bridge "$(readlink -f "$(command -v bridge)")"
"""
BRIDGE = """#!/bin/sh
case $* in *moved.*) echo 'it does not switch' >&2; exit 1 ;; esac
exec /run/record/real "$@"
"""


@contextmanager
def not_switching(lab: Lab, host: str) -> Iterator[None]:
    """A host on which every switch fails."""
    lab.exec(host, NOT_SWITCHED, input=BRIDGE)
    try:
        yield
    finally:
        lab.exec(host, 'umount "$(readlink -f "$(command -v bridge)")"')


def test_a_host_that_was_not_switched_reaches_what_has_moved_where_it_was(lab: Lab) -> None:
    """What it sends goes to the old place until a later run switches it; so long that place stays."""
    before = dump(lab)
    moved = f"2.web.{STOREFRONT}"
    port = container_of(lab, moved).port
    flow = Flow(f"1.web.{STOREFRONT}", moved, (moved,))
    with metering(lab, flow) as meter, answering_when_there(lab, "lab-3", moved):
        edit(lab, "shop", "web: [lab-1, lab-2]", "web: [lab-1, lab-3]")
        with not_switching(lab, "lab-1"), meter.during("it cannot be switched") as seen:
            failed = deploy(lab, check=False)
            until_rested(lab, within=SECONDS + WORK)
        assert failed.json["results"]["failed_hosts"] == ["lab-1"]
        why = "goes to lab-3, but lab-1 still sends to lab-2, and is not ready. Run again when it is"
        assert f"privnet: lab-2: nothing old is taken away: {moved} in pn-" in failed.output and why in failed.output
        during = dump(lab)
        assert f"netns {moved}" in during["lab-2"] and f"netns {moved}" in during["lab-3"]
        assert_unharmed(seen)
        # The twin: were the old place taken away, it would be seen.
        with meter.during("the old place is away") as seen:
            # Not by its unit: with that the namespace goes, and who answers in it.
            lab.exec("lab-2", f"ip link set dev {port} down; sleep 1; ip link set dev {port} up")
        assert seen[flow].lost > 50, seen[flow]
        with meter.during("a later run") as seen:
            deploy(lab)
        # Another process answers now, so the stream has ended; only that.
        assert seen[flow].resets == 1 and seen[flow].missing == seen[flow].wrong == 0, seen[flow]
        assert seen[flow].gap < 5, seen[flow]
    assert f"netns {moved}" not in dump(lab, "lab-2")["lab-2"]
    assert deploy(lab).changed == {}
    edit(lab, "shop", "web: [lab-1, lab-3]", "web: [lab-1, lab-2]")
    deploy(lab)
    assert difference(before, dump(lab)) == ""


def _until(lab: Lab, *, reachable: bool) -> None:
    """Wait until the host's SSH port answers the operator, or does not."""
    deadline = time.monotonic() + SECONDS + 90
    probe = "timeout 3 bash -c '</dev/tcp/10.77.0.11/22'"
    while (lab.exec("operator", probe, check=False).returncode == 0) != reachable:
        assert time.monotonic() < deadline, f"the host is {'not ' if reachable else ''}reachable"
        time.sleep(0.5)


def _traces(lab: Lab) -> list[str]:
    """What of private networks runs on the host."""
    kinds = ("peer", "mesh", "inet", "bridge", "route", "link", "fdb", "neighbour", "netns", "unit")
    return [line for line in dump(lab, "lab-1")["lab-1"] if line.startswith(kinds)]


@pytest.mark.proves("two operators")
def test_another_operator_is_told_and_changes_nothing(lab: Lab) -> None:
    """A lease that a run from another machine holds, seen by a run from this one."""
    before = dump(lab)
    lab.exec(
        "lab-1",
        "mkdir -p /run/privnet/lease && cd /run/privnet/lease && echo other-run > run && echo alice@desk > owner"
        " && echo elsewhere > token && echo 180 > seconds && date +%s > since",
    )
    edit(lab, "blog", "worker: [lab-3]", "worker: [lab-1, lab-3]")
    refused = deploy(lab, check=False)
    assert refused.code != 0
    assert "run other-run of alice@desk has it since" in refused.output
    assert "--break-lease other-run" in refused.output
    lab.exec("lab-1", "rm -r /run/privnet/lease")
    assert difference(before, dump(lab)) == ""
    deploy(lab)
    edit(lab, "blog", "worker: [lab-1, lab-3]", "worker: [lab-3]")
    deploy(lab)
    assert difference(before, dump(lab)) == ""


def test_a_dead_lease_ends_after_its_seconds(lab: Lab) -> None:
    """A run that died before there was anything to take back left it; the twin is the test before this one."""
    lab.exec(
        "lab-1",
        "mkdir -p /run/privnet/lease && cd /run/privnet/lease && echo other-run > run && echo alice@desk > owner"
        " && echo elsewhere > token && echo 10 > seconds && date -d '11 seconds ago' +%s > since",
    )
    edit(lab, "blog", "worker: [lab-3]", "worker: [lab-1, lab-3]")
    deploy(lab)
    lab.exec("lab-1", "test ! -e /run/privnet/lease")
    edit(lab, "blog", "worker: [lab-1, lab-3]", "worker: [lab-3]")
    deploy(lab)


OVER = (
    "mkdir -p /run/privnet/lease && cd /run/privnet/lease && echo other-run > run && echo alice@desk > owner"
    " && echo elsewhere > token && echo 10 > seconds && date -d '11 seconds ago' +%s > since"
)
# Of a lease that would be over, were it whole (the twin is the test before this one).
DAMAGE = {
    "nothing in it": "rm *",
    "no since": "rm since",
    "an empty since": ": > since",
    "a since of words": "echo soon > since",
    "a since of 400 digits": "printf '%0400d' 9 | tr 0 9 > since",
    "a since to come": "date -d 'next year' +%s > since",
    "no seconds": "rm seconds",
    "seconds of words": "echo '$(reboot)' > seconds",
    "no owner": "rm owner",
    "an owner of control characters": "printf '\\033[2J\\n' > owner",
    "an empty token": ": > token",
    "no run": "rm run",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_lease_is_held(lab: Lab, damage: str) -> None:
    lab.exec("lab-1", f"{OVER} && {DAMAGE[damage]}")
    before = dump(lab)
    edit(lab, "blog", "worker: [lab-3]", "worker: [lab-1, lab-3]")
    refused = privnet_deploy(lab)
    edit(lab, "blog", "worker: [lab-1, lab-3]", "worker: [lab-3]")
    assert refused.returncode == 75, refused.stdout + refused.stderr
    remedy = "If no run is under way: rm -r /run/privnet/lease"
    assert f"lab-1: its lease is damaged, so it counts as held. {remedy}" in refused.stdout
    assert difference(before, dump(lab)) == ""
    lab.exec("lab-1", "rm -r /run/privnet/lease")


def test_a_lease_is_broken_by_the_name_of_its_run(lab: Lab) -> None:
    lab.exec("lab-1", OVER.replace("11 seconds", "1 second").replace("echo 10 ", "echo 180 "))
    before = dump(lab)
    edit(lab, "blog", "worker: [lab-3]", "worker: [lab-1, lab-3]")
    wrong = privnet_deploy(lab, "--break-lease", "another-run")
    assert wrong.returncode == 75, wrong.stdout + wrong.stderr
    assert "--break-lease other-run" in wrong.stdout
    assert difference(before, dump(lab)) == ""
    right = privnet_deploy(lab, "--break-lease", "other-run")
    assert right.returncode == 0, right.stdout + right.stderr
    after = dump(lab)
    changed = difference(before, after)
    assert "netns 1.worker" in changed or "netns 2.worker" in changed
    assert not any(line.startswith("left: ") for lines in after.values() for line in lines)
    edit(lab, "blog", "worker: [lab-1, lab-3]", "worker: [lab-3]")
    deploy(lab)


def test_an_older_copy_of_the_lock_file_is_refused(lab: Lab) -> None:
    lock = lab.inventory / "privnet.lock.yaml"
    old = lock.read_bytes()
    edit(lab, "blog", "worker: [lab-3]", "worker: [lab-1, lab-3]")
    deploy(lab)
    new = lock.read_bytes()
    before = dump(lab)
    for copy in (old, None):
        lock.unlink()
        if copy is not None:
            lock.write_bytes(copy)
        refused = deploy(lab, check=False)
        assert refused.code != 0
        assert "PN509: nothing is changed: lab-" in refused.output
        assert difference(before, dump(lab)) == ""
    lock.write_bytes(new)
    edit(lab, "blog", "worker: [lab-1, lab-3]", "worker: [lab-3]")
    deploy(lab)


def test_a_container_stays_where_it_is_while_its_new_host_does_not_answer(lab: Lab) -> None:
    before = dump(lab)
    lab.kill("lab-3")
    edit(lab, "shop", "web: [lab-1, lab-2]", "web: [lab-1, lab-3]")
    waits = deploy(lab, check=False)
    assert waits.code != 0  # lab-3 does not answer
    assert "2.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053 in pn-" in waits.output
    assert "goes to lab-3, which is not ready" in waits.output
    assert "netns 2.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053" in dump(lab, "lab-2")["lab-2"]
    lab.start("lab-3")
    deploy(lab)
    assert "netns 2.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053" not in dump(lab, "lab-2")["lab-2"]
    assert deploy(lab).changed == {}
    edit(lab, "shop", "web: [lab-1, lab-3]", "web: [lab-1, lab-2]")
    deploy(lab)
    assert difference(before, dump(lab)) == ""
