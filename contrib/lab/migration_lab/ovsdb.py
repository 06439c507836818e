"""A client for ovsdb-server (RFC 7047), as far as the agent's stand-in needs one."""

import json
import socket
import time


class Ovsdb:
    """A connection. Transactions return when they are committed."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.received = ""

    def set_port(self, name, **columns):
        """Waits for the port, and sets its columns in the transaction that sees it; returns when that was committed."""
        here = [["name", "==", name]]
        until_it_is_there = {"op": "wait", "timeout": 120_000, "table": "Port", "where": here,
                             "columns": ["name"], "until": "==", "rows": [{"name": name}]}
        update = {"op": "update", "table": "Port", "where": here, "row": columns}
        # As ovsdbapp, the agent's library, and ovs-vsctl do: ovs-vswitchd then says when it has carried this out.
        count = {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}
        operations = [until_it_is_there, update, count]
        request = {"id": name, "method": "transact", "params": ["Open_vSwitch", *operations]}
        self.socket.sendall(json.dumps(request).encode())
        answer = self._answer()
        at = time.time()
        if answer.get("error") or any(result.get("error") for result in answer["result"]):
            raise RuntimeError(f"ovsdb-server refuses to set port {name}: {answer}")
        return at

    def _answer(self):
        while True:
            message = self._message()
            if message.get("method") == "echo":
                reply = {"id": message["id"], "result": message["params"], "error": None}
                self.socket.sendall(json.dumps(reply).encode())
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
