"""How far an engine is and what it has made: figures for people, as plain tables, and the same as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from open_florence.data.store import Store
from open_florence.data_engine.audit.drift import Drift
from open_florence.data_engine.closing import STEPS
from open_florence.data_engine.partition import rule_of
from open_florence.data_engine.round_folder import RoundFolder, rounds
from open_florence.errors import OpenFlorenceError

TOP = 20
"""Lines of a table that may be long, unless all are asked for."""
DECIDING = ("migrate", "filter", "enhance", "merge", "review")


def status(labels: Path) -> dict[str, Any]:
    """Everything that is known about an engine, as JSON holds it. Raises OpenFlorenceError where there is none."""
    if not (labels / "store").is_dir() and not (labels / "engine.toml").is_file():
        raise OpenFlorenceError(f"there is no engine in {labels}: begin with open-florence engine init {labels}")
    begun = rounds(labels)
    if not (labels / "store" / "annotations.lance").is_dir():
        return {"folder": str(labels), "images": {}, "quarantined": [], "rounds": [], "failed": []}
    store = Store(labels / "store")
    return {
        "folder": str(labels),
        **_images(store),
        "rounds": [_round(store, one) for one in begun],
        "failed": _failed(store),
        **(_labels(store, begun[-1]) if begun else {}),
    }


def show(found: dict[str, Any], everything: bool = False) -> str:
    """The status as text."""
    images = found["images"]
    lines = [f"{found['folder']}: {', '.join(f'{count} images {name}' for name, count in images.items()) or 'empty'}"]
    for one in found["rounds"]:
        lines += ["", *_show_round(one)]
    if "counts" in found:
        where = f"round {found['rounds'][-1]['round']}, step {found['labels']}"
        for name, counts in found["counts"].items():
            lines += _table(f"labels by {name} ({where})", [(count, key) for key, count in counts.items()], everything)
        dropped = found["reasons"] if everything else found["dropped"]
        lines += _listed("dropped: answers, regions, step, reason", dropped, everything)
    lines += _listed("files that cannot be read", found["quarantined"], everything)
    lines += _listed("images about which a specialist has no answer", found["failed"], everything)
    for name, table in (("audit", _audit_table), ("drift", _drift_table)):
        if found.get(name):
            lines += ["", f"{name}:", table(found[name])]
    return "\n".join(lines)


def _images(store: Store) -> dict[str, Any]:
    """Images by status, and the broken ones that were not mended since."""
    counts: Counter[str] = Counter()
    broken: dict[str, str] = {}
    good: set[str] = set()
    for row in store.images(status=None):
        if row.status == "quarantined":
            broken[row.path] = row.reason
        else:
            counts[row.status] += 1
            good.add(row.path)
    left = [{"path": path, "reason": reason} for path, reason in broken.items() if path not in good]
    return {"images": {**counts, **({"quarantined": len(left)} if left else {})}, "quarantined": left}


def _round(store: Store, one: RoundFolder) -> dict[str, Any]:
    """Where a round is, or how it ended."""
    manifest, images = one.manifest(), int(one.facts()["images"])
    steps: dict[str, Any] = {}
    for step in STEPS:
        outcome = (manifest["steps"].get(step) if manifest else None) or one.outcome(step)
        if outcome is not None:
            steps[step] = {"state": "done", "seconds": outcome["seconds"]}
        elif manifest is None:
            done = Counter[str]()
            for shard, note in store.notes(f"{one.number:03d}/{step}/").items():
                done[shard.split("/")[2]] += note["images"]
            steps[step] = {"state": "begun" if done else "to do", "images": dict(done)}
    state = "running" if manifest is None else "promoted" if manifest["promoted"] else "not promoted"
    if manifest and manifest.get("abandoned"):
        state = "abandoned"
    told = {key: manifest[key] if manifest else [] for key in ("reasons", "warnings")}
    unstable = (one.outcome("filter") or {}).get("unstable", [])
    trained = (one.outcome("train") or {}).get("images")
    facts = {"round": one.number, "state": state, "images": images, "begun": one.facts()["date"], "trained on": trained}
    return {**facts, "steps": steps, **told, "unstable": unstable}


def _labels(store: Store, last: RoundFolder) -> dict[str, Any]:
    """What the last round keeps and drops, at its last step that decides anything."""
    manifest = last.manifest()
    step = next((s for s in ("merge", "enhance", "filter") if store.notes(f"{last.number:03d}/{s}/")), None)
    if step is None:
        return {}
    where: dict[str, Any] = {"step": step, "round": last.number, "status": "kept"}
    counts = {}
    for name, column in (("level", "level"), ("task", "task"), ("class", "label"), ("source", "source")):
        tally = store.tally(column, **where, **({"task": "<OD>"} if column == "label" else {}))
        counts[name] = {key: count for (key,), count in tally.most_common()}
    dropped, reasons = _dropped(store, last.number)
    figures = {name: last.read(f"{name}.json") for name in ("audit", "drift")} if manifest else {}
    return {"labels": step, "counts": counts, "dropped": dropped, "reasons": reasons, **figures}


def _dropped(store: Store, number: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What was dropped in a round: by rule, and by the whole reason; most first."""
    where: dict[str, Any] = {"status": "dropped", "round": number, "step": DECIDING}
    answers, regions = store.tally("step", "reason", **where), Counter[tuple[str, str]]()
    for (step, reason, _), count in store.tally("step", "reason", "label", **where).items():
        regions[step, reason] += count
    rules: dict[tuple[str, str], list[int]] = {}
    for (step, reason), count in answers.items():
        total = rules.setdefault((step, rule_of(reason)), [0, 0])
        total[0] += count
        total[1] += regions[step, reason]
    each = {key: [count, regions[key]] for key, count in answers.items()}
    listed = [
        [{"answers": a, "regions": r, "step": step, "reason": reason} for (step, reason), (a, r) in table.items()]
        for table in (rules, each)
    ]
    for table in listed:
        table.sort(key=lambda one: (-one["regions"], -one["answers"], one["step"], one["reason"]))
    return listed[0], listed[1]


def _failed(store: Store) -> list[dict[str, str]]:
    """Images about which a specialist has no answer, and why: of its last round, which tries earlier ones again."""
    failed: dict[str, tuple[str, dict[str, str]]] = {}
    for shard, note in sorted(store.notes().items()):
        if "failed" in note:
            number, _, source, _ = shard.split("/")
            if source not in failed or failed[source][0] != number:
                failed[source] = number, {}
            failed[source][1].update(note["failed"])
    return [
        {"source": source, "image": image, "reason": reason}
        for source, (_, reasons) in sorted(failed.items())
        for image, reason in sorted(reasons.items())
    ]


def _show_round(one: dict[str, Any]) -> list[str]:
    trained = f", trained on {one['trained on']}" if one["trained on"] else ""
    lines = [f"round {one['round']}: {one['state']}, {one['images']} images{trained}, begun {one['begun']}"]
    for step, told in one["steps"].items():
        if told["state"] == "done":
            lines.append(f"  {step:<12} done, {told['seconds']:g} s")
        else:
            done = ", ".join(f"{count} by {what}" for what, count in told["images"].items())
            lines.append(f"  {step:<12} {told['state']}{f': {done}' if done else ''}")
    for name in ("reasons", "warnings", "unstable"):
        lines += [f"  {name.removesuffix('s')}: {sentence}" for sentence in one[name]]
    return lines


def _listed(title: str, records: Iterable[dict[str, Any]], everything: bool) -> list[str]:
    return _table(title, [tuple(one.values()) for one in records], everything)


def _audit_table(record: Any) -> str:
    from open_florence.data_engine.audit.report import AuditReport

    return AuditReport.from_json(record).table()


def _drift_table(record: Any) -> str:
    return Drift.from_json(record).table()


def _table(title: str, rows: Iterable[Sequence[Any]], everything: bool) -> list[str]:
    """Columns of equal width; nothing where there are no rows."""
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        return []
    shown = cells if everything else cells[:TOP]
    widths = [max(len(row[k]) for row in shown) for k in range(len(shown[0]))]
    lines = ["", f"{title}:"]
    for row in shown:
        padded = [cell.rjust(w) if cell.isdigit() else cell.ljust(w) for cell, w in zip(row, widths, strict=True)]
        lines.append(f"  {'  '.join(padded)}".rstrip())
    if len(shown) < len(cells):
        lines.append(f"  ... and {len(cells) - len(shown)} more (--all)")
    return lines
