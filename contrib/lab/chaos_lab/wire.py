"""What leaves the hosts: tcpdump on the far end of each uplink, beyond the reach of every fault."""

import subprocess
import threading

from migration_lab import witness

from .audit import Frame


class Wire:
    """All frames that come from guests' MAC addresses, as they come; a copy of each capture is in the directory."""

    def __init__(self, hosts, directory):
        # The guests' names by their MAC addresses.
        self.names = {}
        self.frames, self.came = [], threading.Condition()
        self.tcpdumps, self.threads = [], []
        for host in hosts:
            # Without the word vlan: the kernel strips tags before filters look.
            command = witness.tcpdump("-", "-i", host.uplink, "-Q", "in", "ether[6:4] = 0xfa163e00")
            tcpdump = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            while b"listening on" not in (line := tcpdump.stderr.readline()):
                if not line:
                    raise RuntimeError("tcpdump does not listen")
            copy = open(directory / f"{host.uplink}.pcap", "wb")
            thread = threading.Thread(target=self._listen, args=[host.name, _Copied(tcpdump.stdout, copy)], daemon=True)
            thread.start()
            self.tcpdumps.append(tcpdump)
            self.threads.append(thread)

    def watch(self, guests):
        """These are the guests; none of them runs yet."""
        self.names = {bytes.fromhex(guest.mac.replace(":", "")): guest.name for guest in guests}

    def _listen(self, host, capture):
        for at, packet in witness.stream(capture):
            if name := self.names.get(packet[6:12]):
                with self.came:
                    self.frames.append(Frame(at, host, name, *witness.dissect(packet)))
                    self.came.notify_all()

    def await_frame(self, stay, patience, over=None):
        """Returns when a frame of that stay has come, or patience is at its end, or the run is `over`."""
        def is_there():
            last = next((frame for frame in reversed(self.frames) if frame.guest == stay.guest), None)
            return over and over.is_set() or last and last.host == stay.host and last.at >= stay.began

        with self.came:
            return self.came.wait_for(is_there, patience)

    def look_again(self):
        """Has those that wait for frames see that the run is over."""
        with self.came:
            self.came.notify_all()

    def end(self):
        """All frames, in the order in which tcpdump saw them."""
        for tcpdump in self.tcpdumps:
            tcpdump.terminate()
        for thread in self.threads:
            thread.join()
        return self.frames


class _Copied:
    """A file that is read, and written to another one as far as it was read."""

    def __init__(self, file, copy):
        self.file, self.copy = file, copy

    def read(self, length):
        data = self.file.read(length)
        self.copy.write(data)
        return data
