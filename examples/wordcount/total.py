"""Add up the counts in results that come as NDJSON on stdin, and print the most frequent words."""

import json
import sys
from collections import Counter

total: Counter[str] = Counter()
texts = 0
for line in sys.stdin:
    outcome = json.loads(line)
    if outcome["task"] == "count_words" and outcome["state"] == "succeeded":
        total.update(outcome["value"])
        texts += 1

print(f"{sum(total.values())} words, {len(total)} different ones, in {texts} texts")
for word, count in sorted(total.items(), key=lambda item: (-item[1], item[0]))[:10]:
    print(f"{count:5} {word}")
