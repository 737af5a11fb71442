"""`posesweep clean`: how much the crop stores take, and giving the room back."""

from dataclasses import dataclass
from pathlib import Path

from posesweep.datasets.stores import IDLE_S, Entry, entries, remove, remove_idle_locks
from posesweep.errors import ConfigError

OLDER_THAN_DAYS = 30.0
_DAY_S = 86400.0


@dataclass(frozen=True)
class Cleaned:
    """What was found, the longest unused first, and what became of each: 'removed', 'in use' or 'kept'."""

    entries: list[Entry]
    fates: list[str]

    @property
    def freed(self) -> int:
        """Bytes."""
        return sum(entry.size for entry, fate in zip(self.entries, self.fates, strict=True) if fate == "removed")

    @property
    def left(self) -> int:
        """Bytes."""
        return sum(entry.size for entry in self.entries) - self.freed


def clean(cache: Path, older_than_days: float = OLDER_THAN_DAYS, everything: bool = False) -> Cleaned:
    """Remove the crop stores below `cache` that were last opened so long ago (`everything`: whenever), and what
    builders that died left behind. A store that a process uses stays. ConfigError: a negative age."""
    if not older_than_days >= 0:
        raise ConfigError(f"--older-than: {older_than_days:g} must be a number of days from 0 on; try 30")
    found = entries(cache)
    oldest_s = 0.0 if everything else max(IDLE_S, older_than_days * _DAY_S)
    fates = []
    for entry in found:
        if entry.finished and entry.idle_s < oldest_s:
            fates.append("kept")
        else:
            fates.append("removed" if remove(entry) else "in use")
    remove_idle_locks(cache)
    return Cleaned(found, fates)


def run(cache: Path, older_than_days: float = OLDER_THAN_DAYS, everything: bool = False) -> None:
    """Clean and say what was there, what went and what it freed."""
    done = clean(cache, older_than_days, everything)
    for entry, fate in zip(done.entries, done.fates, strict=True):
        print(f"{entry.folder.name:31.31s} {_amount(entry.size):>9s}   last used {_ago(entry.idle_s):12s} {fate}")
    kept = [entry for entry, fate in zip(done.entries, done.fates, strict=True) if fate != "removed"]
    print(f"{cache}: freed {_amount(done.freed)}; {len(kept)} stores with {_amount(done.left)} are left")
    if "kept" in done.fates and not everything:
        print("--older-than DAYS removes younger ones, --all every store that nothing uses now")


def _amount(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _ago(seconds: float) -> str:
    for unit, length_s in (("days", _DAY_S), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit} ago"
    return "just now"
