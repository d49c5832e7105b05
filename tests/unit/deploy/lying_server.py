"""An SSH server on this machine that answers as it is asked to; one process, for tests of what is read of a host.

The command that it is asked to execute is the answer: a line of Python, after a ``#``. Or there is a file with such
lines, for the question, a program and a confirmation of a run.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

import paramiko


class Anybody(paramiko.ServerInterface):
    """Lets everybody in and executes everything."""

    def check_auth_password(self, username: str, password: str) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=_answer, args=(channel, command.decode()), daemon=True).start()
        return True


def _line(command: str) -> tuple[str, bool]:
    """What is answered to a command, and whether something is sent to it that is read first."""
    if sys.argv[1:2] != ["run"]:
        return command.partition("#")[2].rstrip("'"), False
    lines = json.loads(Path(sys.argv[2]).read_text())
    # A confirmation comes with the question.
    words = {" privnet confirm ": "confirmation", "gzip -d": "question", "base64 -d": "program"}
    kind = next((kind for word, kind in words.items() if word in command), "confirmation")
    return lines.get(kind, "end(0)"), kind == "program"


def _answer(channel: paramiko.Channel, command: str) -> None:
    def say(data: bytes) -> None:
        channel.sendall(data)

    def complain(data: bytes) -> None:
        channel.sendall_stderr(data)

    def flood(data: bytes) -> None:
        """Without a look at the window that the client has given."""
        while True:
            message = paramiko.Message()
            message.add_byte(paramiko.common.cMSG_CHANNEL_DATA)
            message.add_int(channel.remote_chanid)
            message.add_string(data)
            channel.transport._send_user_message(message)

    def end(code: int) -> None:
        channel.send_exit_status(code)
        channel.close()

    line, reads = _line(command)
    time.sleep(0.05)  # the request is granted when this is over
    try:
        while reads and channel.recv(65536):
            pass
        exec(line, {"say": say, "complain": complain, "flood": flood, "end": end, "os": os, "channel": channel})
    except (OSError, EOFError, paramiko.SSHException):  # the client has had enough
        return


def _serve(client: socket.socket, key: paramiko.PKey) -> None:
    transport = paramiko.Transport(client)
    transport.add_server_key(key)
    try:
        transport.start_server(server=Anybody())
    except (EOFError, paramiko.SSHException):
        return


def main() -> None:
    """Print the port, and serve for ever; ``greet WORD``: greet with that instead of a version, and do not end."""
    key = paramiko.ECDSAKey.generate()
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    while True:
        client, _ = listening.accept()
        if sys.argv[1:2] == ["greet"]:
            threading.Thread(target=_greet, args=(client, sys.argv[2].encode()), daemon=True).start()
        else:
            _serve(client, key)


def _greet(client: socket.socket, word: bytes) -> None:
    try:
        while True:
            client.sendall(word * 1000)
    except OSError:
        return


if __name__ == "__main__":
    main()
