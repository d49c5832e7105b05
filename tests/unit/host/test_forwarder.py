"""The forwarder as it stands, between sockets that it is given and servers on the loopback."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources

import pytest

PROGRAM = resources.files("privnet") / "host/forwarder.pl"
QUESTION = b"\x12\x34\x01\x00" + b"question"
ANSWER = b"\x12\x34\x81\x80" + b"answer"
FORGED = b"\x12\x35\x81\x80" + b"forged"
FIRST, SECOND = "127.0.0.1", "127.0.0.2"


def bound(kind: int, address: str = FIRST, port: int = 0) -> socket.socket:
    found = socket.socket(socket.AF_INET, kind)
    found.bind((address, port))
    if kind == socket.SOCK_STREAM:
        found.listen()
    return found


@contextmanager
def forwarder(*servers: tuple[str, int]) -> Iterator[list[socket.socket]]:
    """A running forwarder, as systemd starts it; the sockets that it was given, UDP and TCP for each server."""
    sockets = [
        bound(kind, f"127.0.0.{number}")
        for number, _ in enumerate(servers, 1)
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
    ]

    def hand_over() -> None:
        copies = [fcntl.fcntl(each, fcntl.F_DUPFD, 50) for each in sockets]
        for number, copy in enumerate(copies, 3):
            os.dup2(copy, number)
        os.closerange(3 + len(copies), 100)

    arguments = [f"{address}#{port}" for address, port in servers]
    process = subprocess.Popen(
        ["perl", str(PROGRAM), *arguments],
        env={"LISTEN_FDS": str(len(sockets))},
        close_fds=False,
        preexec_fn=hand_over,
    )
    try:
        yield sockets
        assert process.poll() is None, "it is still there"
    finally:
        process.kill()
        process.wait()
        for each in sockets:
            each.close()


def asking(to: socket.socket, seconds: float = 2) -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(seconds)
    client.connect(to.getsockname())
    return client


@contextmanager
def server(
    reply: Callable[[bytes], list[bytes]], family: int = socket.AF_INET
) -> Iterator[tuple[tuple[str, int], list[tuple[str, int]]]]:
    """A UDP server; its address, and from where it was asked."""
    found = socket.socket(family, socket.SOCK_DGRAM)
    found.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    askers: list[tuple[str, int]] = []

    def serve() -> None:
        while True:
            try:
                data, asker = found.recvfrom(65535)
            except OSError:
                return
            if data == b"end":
                return
            askers.append(asker[:2])
            for answer in reply(data):
                found.sendto(answer, asker)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield found.getsockname()[:2], askers
    finally:
        with socket.socket(family, socket.SOCK_DGRAM) as ender:
            ender.sendto(b"end", found.getsockname())
        thread.join()
        found.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_a_question_goes_to_the_server_and_its_answer_to_who_asked(family: int) -> None:
    with server(lambda _: [ANSWER], family) as (place, askers), forwarder(place) as (udp, _), asking(udp) as client:
        for _ in range(20):
            client.send(QUESTION)
            assert client.recv(65535) == ANSWER
    assert len({port for _, port in askers}) > 15, "a port of its own for each question"


def test_each_socket_has_its_own_server() -> None:
    with (
        server(lambda data: [data[:2] + b"first"]) as (first, _),
        server(lambda data: [data[:2] + b"second"]) as (second, _),
        forwarder(first, second) as (udp_1, _, udp_2, _),
        asking(udp_1) as client_1,
        asking(udp_2) as client_2,
    ):
        client_2.send(QUESTION)
        client_1.send(QUESTION)
        assert (client_1.recv(100)[2:], client_2.recv(100)[2:]) == (b"first", b"second")


def test_an_answer_with_another_number_is_passed_over_and_the_right_one_still_comes() -> None:
    with server(lambda _: [FORGED, ANSWER]) as (place, _), forwarder(place) as (udp, _), asking(udp) as client:
        client.send(QUESTION)
        assert client.recv(65535) == ANSWER


def test_nobody_but_the_server_is_heard() -> None:
    with (
        bound(socket.SOCK_DGRAM, SECOND) as stranger,
        server(lambda _: []) as (place, askers),
        forwarder(place) as (udp, _),
        asking(udp, 0.5) as client,
    ):
        client.send(QUESTION)
        while not askers:
            time.sleep(0.01)
        stranger.sendto(ANSWER, askers[0])
        with pytest.raises(TimeoutError):
            client.recv(65535)


def test_what_is_no_message_and_servers_that_refuse_do_not_end_it() -> None:
    with bound(socket.SOCK_DGRAM) as gone:
        nobody = gone.getsockname()
    with server(lambda _: [ANSWER]) as (place, _), forwarder(place, nobody, ("2001:db8::1", 53)) as sockets:
        for to in sockets[::2]:
            with asking(to) as client:
                for data in (b"", b"x", b"\0" * 65507):
                    client.send(data)
        with asking(sockets[0]) as client:
            client.send(QUESTION)
            assert client.recv(65535) == ANSWER


def test_questions_that_nobody_answers_are_given_up_and_do_not_keep_others() -> None:
    """More than it holds at once; after ten seconds there is room again."""
    with server(lambda data: [ANSWER] if data == QUESTION else []) as (place, _), forwarder(place) as (udp, _):
        with asking(udp, 0.3) as client:
            for number in range(600):
                client.send(struct.pack("!H", number) + b"unanswered")
                if number % 50 == 0:
                    time.sleep(0.02)
            client.send(QUESTION)
            with pytest.raises(TimeoutError):
                client.recv(100)
        with asking(udp, 1) as client:
            for _ in range(15):
                client.send(QUESTION)
                try:
                    assert client.recv(100) == ANSWER
                    break
                except TimeoutError:
                    continue
            else:
                pytest.fail("no room again")


def test_connections_carry_both_ways_and_one_that_hangs_does_not_keep_others() -> None:
    large = b"a" * 200_000
    with bound(socket.SOCK_STREAM) as listener, forwarder(listener.getsockname()) as (_, tcp):
        hanging = socket.create_connection(tcp.getsockname())
        listener.accept()
        with socket.create_connection(tcp.getsockname(), timeout=5) as client:
            upstream, _ = listener.accept()
            client.sendall(QUESTION)
            assert upstream.recv(100) == QUESTION
            upstream.sendall(large)
            upstream.close()
            found = b""
            while more := client.recv(65536):
                found += more
        assert found == large
        hanging.close()


def test_a_server_that_takes_no_connection_ends_the_connection() -> None:
    with bound(socket.SOCK_STREAM) as listener:
        nobody = listener.getsockname()
    with forwarder(nobody) as (_, tcp), socket.create_connection(tcp.getsockname(), timeout=5) as client:
        assert client.recv(100) == b""
