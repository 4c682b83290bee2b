"""`python -m openledger_torch --scratch DIR`: serves one parent over stdin and stdout until it closes them."""

from __future__ import annotations

import argparse
import os
import signal
import sys


def main() -> None:
    parser = argparse.ArgumentParser(prog="openledger_torch", description=__doc__)
    parser.add_argument("--scratch", required=True, help="a private directory that both sides see")
    parser.add_argument("--probe", action="store_true", help="say what is there, and end")
    options = parser.parse_args()
    # Frames have standard output to themselves: what libraries print goes to standard error.
    outgoing = os.fdopen(os.dup(1), "wb", buffering=1 << 20)
    os.dup2(2, 1)
    # Nothing is ever fetched: models come from the directory that is named.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Ctrl-C in a terminal reaches the whole group; when to end is the parent's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if options.probe:
        import json

        from .service import hello

        outgoing.write(json.dumps(hello()).encode() + b"\n")
        outgoing.close()
        return
    from .service import Service

    Service(sys.stdin.buffer, outgoing, options.scratch).run()


if __name__ == "__main__":
    main()
