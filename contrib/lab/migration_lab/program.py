"""What a program of the lab does before it is inside: it builds announced, becomes root, and enters a host of its own."""

import argparse
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

from .rack import LAB

TOP = LAB.parent.parent


class Program:
    """The running program, `contrib/lab/NAME`. It ends with one line when something is missing."""

    def __init__(self, name):
        self.name, self.script = name, LAB / name

    def fail(self, complaint):
        sys.exit(f"{self.name}: {complaint}")

    def programs(self, directory, what, needed):
        """Where the `needed` programs are: in that directory, or built, with all installed that install-needs calls `what`."""
        directory = directory or self._build(what)
        missing = [name for name in needed if not (directory / name).exists()]
        if missing:
            self.fail(f"{directory} lacks {', '.join(missing)}: cargo build --release --bins --examples")
        return directory.resolve()

    def _build(self, what):
        self.must(*([] if os.geteuid() == 0 else ["sudo"]), TOP / "contrib/install-needs", what)
        self.must("cargo", "build", "--quiet", "--release", "--locked", "--bins", "--examples", cwd=TOP)
        return TOP / os.environ.get("CARGO_TARGET_DIR", "target") / "release"

    def become_root(self, programs, **environment):
        """Goes on as root; without root this program starts anew, with the same arguments, and finds the programs built."""
        if os.geteuid() == 0:
            return
        if not shutil.which("sudo"):
            self.fail("needs root, or sudo")
        variables = [f"{name}={value}" for name, value in environment.items()]
        os.execvp("sudo", ["sudo", "env", *variables, str(self.script), "--programs", str(programs), *sys.argv[1:]])

    def enter(self, arguments, programs, **environment):
        """Runs this program in a host of its own, as root, and returns its exit status when nothing of the host is left."""
        for name in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, lambda number, _: sys.exit(128 + number))
        directory = tempfile.mkdtemp(prefix="announced-lab-")
        # When we die, its standard input ends, and so does all that is inside; it removes its directory, too. Its session is
        # its own, so that what kills our process group leaves a process to clean up.
        host = subprocess.Popen([LAB / "host", "--remove", directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                text=True, start_new_session=True)
        try:
            if host.stdout.readline() != "ready\n":
                self.fail("the lab's outer host did not start")
            # Inside, relative paths mean something else.
            output = arguments.output and str(arguments.output.resolve())
            order = vars(arguments) | {"work": directory, "programs": str(programs), "output": output}
            command = [LAB / "enter", directory, sys.executable, self.script, "--inside", json.dumps(order)]
            return subprocess.call(command, env=os.environ | environment)
        finally:
            host.stdin.close()
            host.wait()

    def must(self, *command, **options):
        """Runs a program that says itself what is wrong, and ends with it if so; returns what it printed."""
        try:
            run = subprocess.run(command, text=True, **options)
        except FileNotFoundError:
            self.fail(f"needs {command[0]}: install it, or be root and give --programs")
        if run.returncode:
            sys.exit(run.returncode)
        return run.stdout


def order():
    """What the part that runs inside was started with; None where this is what the user has started."""
    if sys.argv[1:2] not in (["--case"], ["--inside"]):
        return None
    # The reader of our output may leave, and Ctrl-C reaches the whole process group: both end this process silently.
    for name in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(name, signal.SIG_DFL)
    return json.loads(sys.argv[2])


def number(kind, least):
    """A parser of finite numbers that are not smaller than that."""
    def parse(text):
        value = kind(text)
        if not (math.isfinite(value) and value >= least):
            raise argparse.ArgumentTypeError(f"{text} is not a number from {least:g} on")
        return value
    parse.__name__ = "number"
    return parse
