"""Speed of the simulated shop: events generated per second of one core, and the time to start it.

Run ``python -m load_tests.simulate [--items N] [--days N] [--json]``. Time is CPU time of this process; the first days
(warm-up) are generated but not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from typing import Any

from streams.shop import Shop

WARM_UP_DAYS = 3


def measure(items: int, days: int, locations: int = 1) -> dict[str, Any]:
    """Generate ``days`` days and give figures."""
    begin_s = time.perf_counter()
    shop = Shop(items, seed=1, days=days + WARM_UP_DAYS, locations=locations)
    start_s = time.perf_counter() - begin_s
    for day in range(WARM_UP_DAYS):
        shop.day(day)
    records = size_bytes = 0
    begin_s = time.process_time()
    for day in range(WARM_UP_DAYS, WARM_UP_DAYS + days):
        lines = shop.day(day)
        records += len(lines)
        size_bytes += sum(map(len, lines))
    cpu_s = time.process_time() - begin_s
    return {
        "items": items,
        "days": days,
        "locations": locations,
        "records": records,
        "start_s": round(start_s, 3),
        "cpu_s": round(cpu_s, 3),
        "records_per_s": round(records / cpu_s),
        "bytes_per_record": round(size_bytes / records, 1),
    }


def main() -> int:
    """Measure small and large shops and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--items", type=int, nargs="*", default=[200, 2_000, 20_000])
    parser.add_argument("--days", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    rows = [measure(items, args.days) for items in args.items]
    if args.json:
        print(json.dumps({"machine": machine, "rows": rows}, indent=1))
        return 0
    print(machine, file=sys.stderr)
    for row in rows:
        print(f"{row['items']:>7,} items: {row['records_per_s']:>9,} events/s, {row['records']:,} events in "
              f"{row['cpu_s']} CPU s, started in {row['start_s']} s")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
