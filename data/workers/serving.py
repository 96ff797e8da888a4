"""Run as a script by `process.start`: sets where to import from, then imports what is ours.

As a script, and not by `python -c`, since that would look for modules in the current folder first.
"""

from __future__ import annotations

import json
import sys

if __name__ == "__main__":
    path, number, modules = json.loads(sys.argv[1])
    sys.path[:] = path
    from headstart.data.workers.process import serve

    serve(number, modules)
