# SPDX-License-Identifier: Apache-2.0
"""Tables, in Markdown, from result files.

    python -m benchmarks.tables RESULTS ... [--readme] [--into FILE]

``--readme`` prints what README.md needs; ``--into`` puts it between the two lines of a file that
say ``<!-- results -->`` and ``<!-- /results -->``. Numbers are medians over rounds.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record.record import BadRecord, load_all
from benchmarks.report import glance, report

BEGIN, END = "<!-- results -->", "<!-- /results -->"


def put(text: str, into: Path) -> None:
    """Replace what stands between the two marks of a file. Raises ValueError."""
    old = into.read_text()
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{into}: no lines {BEGIN} and {END} to put the tables between")
    into.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("results", nargs="+", type=Path, help="result files, or folders of them")
    parser.add_argument("--readme", action="store_true", help="only what README.md needs")
    parser.add_argument("--into", type=Path, metavar="FILE", help="put it there")
    arguments = parser.parse_args(words)
    try:
        records = load_all(arguments.results)
        text = (glance.render if arguments.readme else report.render)(records)
        if arguments.into:
            put(text, arguments.into)
        else:
            print(text)
    except (BadRecord, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
