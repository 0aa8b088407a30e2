"""One command for all that the library does: ``python -m dynlib COMMAND``; each has its own ``--help``."""

import sys
from importlib import import_module

from dynlib.files import CLONE

COMMANDS = {
    "data": "dynlib.data",
    "train": "dynlib.networks.queue",
    "cards": "dynlib.networks.checkpoints",
    "check-networks": "dynlib.networks.check",
    "time": "dynlib.timing",
    "claims": "dynlib.report.claims",
    "report": "dynlib.report.report",
    "audit": "dynlib.report.audit",
}
ALONE = ("data", "audit")  # what the package can do without its repository


def main() -> None:
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command in ("-h", "--help"):
        print(f"usage: python -m dynlib {{{','.join(COMMANDS)}}} ...")
    elif command not in COMMANDS:
        sys.exit(f"error: unknown command {command!r}: choose one of {', '.join(COMMANDS)}")
    elif CLONE and command not in ALONE:
        sys.exit(f"error: {command} needs more than the package{CLONE}")
    else:
        try:
            import_module(COMMANDS[command]).main(sys.argv[2:])
        except KeyboardInterrupt:
            sys.exit("interrupted")


if __name__ == "__main__":
    main()
