"""What a user can get wrong is one clear line; what we got wrong keeps its traceback."""

import errno
import sys

from absl import logging

STOPPED = 75  # the exit code of a run that was told to stop and has saved: EX_TEMPFAIL of sysexits.h, start it again


class UserError(Exception):
    """A mistake the user can mend. The message says what is wrong and what to do, in one line."""


def run_command(main, argv=None):
    """Calls `main(argv)` and exits: 0, or 1 after printing a UserError or a full disk as one line."""
    logging.set_verbosity(logging.FATAL)  # what the libraries log is for us; what they raise comes out below
    if "--help" in (sys.argv if argv is None else argv):
        print(sys.modules[main.__module__].__doc__.strip())
        return
    try:
        main(sys.argv if argv is None else argv)
    except UserError as e:
        sys.exit(f"error: {' '.join(str(e).split())}")
    except KeyboardInterrupt:
        sys.exit("stopped.")
    except Exception as e:
        if not is_disk_full(e):
            raise
        sys.exit(f"error: {disk_full(getattr(e, 'filename', None))}")


def is_disk_full(error: BaseException) -> bool:
    """Whether the disk is full, as Python says it or as TensorStore does, which raises ValueError."""
    number = getattr(error, "errno", None)
    return number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error) or f"os_error_code='{errno.ENOSPC}'" in str(error)


def disk_full(path=None) -> str:
    where = f" while writing {path}" if path else ""
    return f"the disk is full{where}: free some space and give the same command again; a run goes on from its last checkpoint."
