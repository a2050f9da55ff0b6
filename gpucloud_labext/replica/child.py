"""The last step before the user's script: it dies with the runner that started it.

Run as a file, isolated from the user's environment: `child.py RUNNER_PID COMMAND...`. A
`preexec_fn` could do it, but not safely in a process with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h

if __name__ == "__main__":
    runner, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != runner:  # it has ended meanwhile
        sys.exit(128 + signal.SIGKILL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"gpucloud: {command[0]!r} cannot be started: {error.strerror}", flush=True)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)
