"""What happened in each quarter of a soak, and what of it is wrong."""

import statistics
import time

MIB = 1 << 20
# docs/semantics.md, 8: what S3 may make of a read that it fails, within the time for it. Not ESTALE, as no object is replaced;
# not ENOENT or EACCES, as all names are there for all to read.
ALLOWED = ("EIO", "ETIMEDOUT", "EKEYEXPIRED")
# RSS of the last quarter over that of the second: what grows by more is a leak. In a few minutes its ups and downs do not
# average out.
FLAT, FLAT_SHORT, SHORT_SECONDS = 1.05, 1.1, 600


class Quarter:
    """A fourth of the time, or what comes after."""

    def __init__(self):
        self.calls = self.bytes = 0
        self.slowest = (0, "")
        self.errors = {}
        self.samples = []


class Tally:
    """All that was told."""

    def __init__(self, begin, until):
        self.begin, self.until = begin, until
        self.quarters = [Quarter() for _ in range(4)]
        self.kinds = {}
        self.slow_errors = []
        self.at_ends = None

    def quarter(self, at):
        part = int((at - self.begin) / (self.until - self.begin) * 4)
        return self.quarters[min(part, 3)]

    def done(self, said):
        quarter = self.quarter(said["at"])
        for kind, (calls, size, slowest) in said["done"].items():
            quarter.calls += calls
            quarter.bytes += size
            quarter.slowest = max(quarter.slowest, (slowest, kind))
            of_kind = self.kinds.setdefault(kind, [0, 0, 0, 0])
            of_kind[0] += calls
            of_kind[1] += size
            of_kind[3] = max(of_kind[3], slowest)

    def failed(self, said):
        errors = self.quarter(said["at"]).errors
        errors[said["error"]] = errors.get(said["error"], 0) + 1
        self.kinds.setdefault(said["call"], [0, 0, 0, 0])[2] += 1

    def sampled(self, now, rss, descriptors, threads):
        if now < self.until:
            self.quarter(now).samples.append((rss, descriptors, threads))

    def ends(self, at_start, at_rest):
        """The figures before the load, and after it."""
        self.at_ends = (at_start, at_rest)

    def errors(self):
        return sum(sum(quarter.errors.values()) for quarter in self.quarters)

    def line(self, now):
        calls, size = sum(q.calls for q in self.quarters), sum(q.bytes for q in self.quarters)
        errors = self.errors()
        rss, descriptors, threads = self.quarter(now).samples[-1] if self.quarter(now).samples else (0, 0, 0)
        return (
            f"{now - self.begin:6.0f} s  {calls:,} operations, {size / MIB:,.0f} MiB, {errors} errors; RSS "
            f"{rss / MIB:.0f} MiB, {descriptors} descriptors, {threads} threads"
        )

    def judge(self, errors_per_million, operation_timeout, slack):
        """What is wrong."""
        wrong = []
        errors = {}
        for quarter in self.quarters:
            for name, count in quarter.errors.items():
                errors[name] = errors.get(name, 0) + count
        wrong += [f"{count} times {name}" for name, count in errors.items() if name not in ALLOWED]
        calls = sum(quarter.calls for quarter in self.quarters)
        count = self.errors()
        if count > max(1, calls * errors_per_million / 1e6):
            wrong.append(f"{count} errors in {calls:,} operations: retries ought to do better")
        if not all(quarter.calls and quarter.samples for quarter in self.quarters):
            return wrong + ["a quarter in which nothing happened"]
        if self.kinds["read"][3] > operation_timeout + slack:
            wrong.append(f"a read took {self.kinds['read'][3]:.1f} s")
        second, last = (statistics.median(sample[0] for sample in self.quarters[n].samples) for n in (1, 3))
        flat = FLAT_SHORT if self.until - self.begin < SHORT_SECONDS else FLAT
        if last > second * flat:
            wrong.append(f"RSS grew: {last / MIB:.1f} MiB in the last quarter, {second / MIB:.1f} MiB in the second")
        return wrong

    def table(self):
        rows = [("quarter", "operations", "MiB", "errors", "slowest, s", "RSS, MiB: median", "most", "descriptors", "threads")]
        for number, quarter in enumerate(self.quarters, 1):
            errors = " ".join(f"{name} {count}" for name, count in sorted(quarter.errors.items())) or "none"
            samples = quarter.samples or [(0, 0, 0)]
            rss, descriptors, threads = zip(*samples)
            slowest = f"{quarter.slowest[0]:.1f} {quarter.slowest[1]}"
            row = (number, f"{quarter.calls:,}", f"{quarter.bytes / MIB:,.0f}", errors, slowest)
            row += (f"{statistics.median(rss) / MIB:.1f}", f"{max(rss) / MIB:.1f}", max(descriptors), max(threads))
            rows.append(row)
        for name, figures in zip(("before", "after"), self.at_ends or ()):
            rows.append((name, "", "", "", "", f"{figures[0] / MIB:.1f}", "", *figures[1:]))
        kinds = [("call", "operations", "MiB", "errors", "slowest, s")]
        for kind, (calls, size, errors, slowest) in sorted(self.kinds.items()):
            kinds.append((kind, f"{calls:,}", f"{size / MIB:,.0f}", errors, f"{slowest:.1f}"))
        took = time.monotonic() - self.begin
        return f"{markdown(rows)}\n\n{markdown(kinds)}\n\n{took:.0f} s in all"


def markdown(rows):
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    lines = ["| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(lines)
