"""A client for ovsdb-server (RFC 7047), as far as a stand-in for neutron's agent needs one: ovs-vsctl takes milliseconds to start."""

import collections
import json
import socket
import time

NOTHING = ["set", []]
# When a transaction was sent, and when its commit was known, in seconds since the epoch.
Commit = collections.namedtuple("Commit", ["sent", "known"])


class Ovsdb:
    """A connection. Transactions return when they are committed."""

    def __init__(self, path="/run/openvswitch/db.sock"):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.received = ""

    def close(self):
        """A transaction that waits in another thread ends with an error."""
        self.socket.shutdown(socket.SHUT_RDWR)

    def bind(self, port, tag, counted=True):
        """Makes it an access port of that VLAN, or with `NOTHING` one without VLAN."""
        return self.set_port(port, counted, tag=tag, vlan_mode=NOTHING, trunks=NOTHING)

    def set_port(self, name, counted=True, **columns):
        """Waits for the port, and sets its columns in the transaction that sees it; returns the `Commit`.

        A change that is counted in `next_cfg` is what ovsdbapp, the agent's library, and ovs-vsctl make: ovs-vswitchd then says
        when it has carried it out.
        """
        here = [["name", "==", name]]
        until_it_is_there = {"op": "wait", "timeout": 120_000, "table": "Port", "where": here,
                             "columns": ["name"], "until": "==", "rows": [{"name": name}]}
        update = {"op": "update", "table": "Port", "where": here, "row": columns}
        count = {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}
        return self.transact(f"set port {name}", until_it_is_there, update, *[count] * counted)

    def await_loss(self, name, tag):
        """Returns when the port has another tag, or is gone."""
        here = [["name", "==", name]]
        lost = {"op": "wait", "table": "Port", "where": here, "columns": ["tag"], "until": "!=", "rows": [{"tag": tag}]}
        self.transact(f"await the loss of {name}'s tag", lost)

    def transact(self, what, *operations):
        """One transaction (RFC 7047 section 5.2), named in the error; returns the `Commit`."""
        request = {"id": what, "method": "transact", "params": ["Open_vSwitch", *operations]}
        sent = time.time()
        self._send(request)
        answer = self._answer()
        known = time.time()
        if answer.get("error") or any(result.get("error") for result in answer["result"]):
            raise RuntimeError(f"ovsdb-server refuses to {what}: {str(answer)[:1000]}")
        return Commit(sent, known)

    def carried_out(self):
        """Yields the time and the number up to which ovs-vswitchd has carried out changes (`cur_cfg`), and again at each change."""
        params = ["Open_vSwitch", None, {"Open_vSwitch": {"columns": ["cur_cfg"]}}]
        self._send({"id": "monitor", "method": "monitor", "params": params})
        tables = self._answer()["result"]
        while True:
            for row in tables["Open_vSwitch"].values():
                yield time.time(), row["new"]["cur_cfg"]
            tables = self._answer()["params"][1]

    def _send(self, message):
        # Where ovsdb-server has gone, that is an error and not SIGPIPE, which ends the lab's programs.
        self.socket.sendall(json.dumps(message).encode(), socket.MSG_NOSIGNAL)

    def _answer(self):
        while True:
            message = self._message()
            if message.get("method") == "echo":
                self._send({"id": message["id"], "result": message["params"], "error": None})
            else:
                return message

    def _message(self):
        while True:
            try:
                message, length = json.JSONDecoder().raw_decode(self.received)
                self.received = self.received[length:]
                return message
            except json.JSONDecodeError:
                chunk = self.socket.recv(65536)
                if not chunk:
                    raise RuntimeError("ovsdb-server has closed the connection") from None
                self.received += chunk.decode()
