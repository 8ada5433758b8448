"""Where the processes of a run meet."""

import socket

from torch.distributed import TCPStore

from tsugiki.training.launch import _meeting_place


def test_the_launcher_serves_the_meeting_place_before_any_process_starts_and_each_run_has_its_own():
    one, other = _meeting_place(), _meeting_place()
    assert one.port != other.port
    with socket.create_connection(("127.0.0.1", one.port), timeout=5):
        pass  # nobody can take the port in the seconds until the first process has started
    client = TCPStore("127.0.0.1", one.port, 2, is_master=False)
    client.set("name", "value")
    assert one.get("name") == b"value"
    assert not other.check(["name"])
