"""Bytes beside calls: what comes late is nobody's."""

from __future__ import annotations

import socket
import struct

import pytest

from burnish.targets.remote.stream import Stream, receive


def test_what_comes_late_is_not_taken_for_the_next_call():
    client, own = socket.socketpair()
    with client, own:
        stream = Stream(own)
        with pytest.raises(ValueError, match="4 bytes did not come"):
            stream.take(4, 0.05)
        with pytest.raises(OSError, match="Broken pipe"):
            client.sendall(struct.pack("<Q", 4) + b"late")
        with pytest.raises(ValueError, match="4 bytes did not come"):
            stream.take(4, 5.0)


def test_what_was_sent_comes_in_turn():
    client, own = socket.socketpair()
    with client, own:
        stream = Stream(own)
        for content in (b"one", b"twenty"):
            client.sendall(struct.pack("<Q", len(content)) + content)
        assert stream.take(3, 5.0) == b"one"
        assert stream.take(6, 5.0) == b"twenty"
        stream.give(b"back")
        assert receive(client, 4, 5.0) == b"back"


def test_the_limit_is_of_all_that_is_to_come():
    client, own = socket.socketpair()
    with client, own:
        own.sendall(b"ab")
        with pytest.raises(TimeoutError):
            receive(client, 3, 0.05)
