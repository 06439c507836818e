"""What happened, one line each, with its time in seconds since the begin."""

import sys
import threading
import time


class Journal:
    """Written to a file, and, unless it is quiet, to standard error."""

    def __init__(self, file, quiet):
        self.began, self.file, self.quiet = time.time(), open(file, "w", buffering=1), quiet
        self.lock, self.complaints = threading.Lock(), []

    def note(self, words, at=None):
        line = f"{(at or time.time()) - self.began:9.3f} {' '.join(words.split())}"
        with self.lock:
            print(line, file=self.file)
            if not self.quiet:
                print(line, file=sys.stderr, flush=True)

    def complain(self, words):
        """What no fault excuses, whatever the frames are like."""
        self.complaints.append((time.time(), words))
        self.note(words)
