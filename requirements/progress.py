# SPDX-License-Identifier: Apache-2.0
"""Turns pip's output (stdin) into one line that counts: pip alone is either silent for minutes or
prints thousands of lines. On a terminal the line is rewritten in place; in a log every twentieth
package gets a line. Errors go to pip's stderr, which is not touched.

usage: pip install --no-deps -r LOCK | python progress.py TOTAL
"""

import re
import sys

total = int(sys.argv[1])
terminal = sys.stdout.isatty()
start = "\r\033[K  " if terminal else "  "
seen = 0
for line in sys.stdin:
    if found := re.match(r"(?:Collecting|Processing|Requirement already satisfied:) (\S+)", line):
        seen += 1
        name = re.sub(r"-(py|cp)\d.*", "", found[1].rsplit("/", 1)[-1])
        if terminal or seen % 20 == 0 or seen == total:
            end = "" if terminal else "\n"
            print(f"{start}fetching [{seen}/{total}] {name}", end=end, flush=True)
    elif line.startswith("Installing collected packages"):
        print(f"{start}unpacking {seen} packages", flush=True)
