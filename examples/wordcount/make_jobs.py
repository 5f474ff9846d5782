"""Print one job a line for each text: `python make_jobs.py > jobs.ndjson`."""

import json
from pathlib import Path

for path in sorted((Path(__file__).parent / "texts").glob("*.txt")):
    print(
        json.dumps(
            {
                "task": "count_words",
                "args": [path.name],
                "kwargs": {"shortest": 4},
                "key": f"words-{path.stem}",
            }
        )
    )
