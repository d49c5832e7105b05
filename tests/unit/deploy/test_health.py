"""What is said of peers that a change has cut off."""

from __future__ import annotations

import pytest

from privnet.deploy.health import Loss, losses, seconds, sentence


def test_a_host_that_is_lost_by_many_is_named_once() -> None:
    lost = {(f"h{n}", "h9"): False for n in range(8)} | {("h9", "h1"): False, ("h9", "h8"): False}
    assert "h9 (no endpoint) does not answer h0, h1, h2, h3 and 5 others over the mesh" in sentence(lost, {})


def test_of_many_lost_hosts_some_are_named() -> None:
    lost = {(f"a{n}", f"b{n}"): False for n in range(6)}
    said = sentence(lost, {})
    assert said.count(" does not answer ") == 4 and " over the mesh. 2 other hosts would be cut off too. " in said


@pytest.mark.parametrize("line", ["lost 100.64.0.2 silent; reboot", "lost", "silent", "lost 100.64.0.2 gone", ""])
def test_what_is_no_loss_is_left_out(line: str) -> None:
    assert losses([line, "lost 100.64.0.2 silent", "lost 100.64.0.3 small"]) == (
        Loss("100.64.0.2", small=False),
        Loss("100.64.0.3", small=True),
    )


def test_no_wait_is_as_long_as_the_time_of_a_rollback() -> None:
    assert [seconds(rollback) for rollback in (10, 30, 180, 86_400)] == [3, 10, 20, 20]
