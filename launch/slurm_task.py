"""What runs in a SLURM job: a module of its own, so that submitit finds it by name on the nodes."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

from research.core.errors import STOPPED

STAY = 600  # seconds at most that a task waits for SLURM to end it


@dataclasses.dataclass
class Training:
    """research.train; told to make room (`checkpoint`), it saves and can be called again."""

    command: list[str]

    def __call__(self):
        # SLURM sends the signal that means "make room" to all processes of a task, or to this one alone, as the cluster is set up: it is ours to pass on, as SIGTERM.
        before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        self.process = subprocess.Popen(self.command)
        signal.signal(signal.SIGUSR2, before)
        signal.signal(signal.SIGTERM, lambda *_: self.process.send_signal(signal.SIGTERM))
        while self.process.poll() is None:
            time.sleep(0.5)
        if self.process.returncode == STOPPED:
            time.sleep(STAY)  # cancelled or preempted: SLURM ends the job, and queues it again if it is to; a job that ended by itself would be done
        if self.process.returncode:
            sys.exit(self.process.returncode)  # research.train has said why

    def checkpoint(self):
        """Called by submitit's signal handler on top of __call__: waits without the lock that poll() may hold there."""
        from submitit.helpers import DelayedSubmission

        self.process.send_signal(signal.SIGTERM)
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(Training(self.command))
