"""Hazards of memory that the counted build finds, and how they are told. Python's standard library alone.

csrc/emulator/count_hazards.h looks for them; docs/counting.md says what each is. used by: csrc/count.py
"""

from dataclasses import dataclass, replace

MISSING = {
    "race": "no barrier between", "race of blocks": "no fence, atomic and fence between",
    "early": "before the wait for the copy", "stale": "__ldg of what the launch writes",
    "unwritten": "nobody wrote there before",
    "outside": "beside an array, in none",
}


@dataclass
class Hazard:
    """A mistake of two accesses, or of one, as a read of what nobody wrote: then both are the same."""

    mistake: str  # race, early, stale, unwritten, outside: docs/counting.md
    space: str  # global, shared
    accesses: tuple  # (file, line, what) of the first and the last in the source; what: load, store, atomic, cp.async
    threads: tuple  # of the first such pair, in their blocks
    blocks: tuple
    times: int = 1

    key = property(lambda hazard: (hazard.mistake, hazard.space, hazard.accesses))
    one = property(lambda hazard: hazard.accesses[0])
    other = property(lambda hazard: hazard.accesses[1])

    def __add__(self, other):
        return replace(self, times=self.times + other.times)

    def __str__(self):
        """One line: what is wrong, at which lines, who did it, how often, and what is missing."""
        lines = " and ".join(dict.fromkeys(f"{what} in {file}:{line}" for file, line, what in self.accesses))
        missing = MISSING[self.mistake]
        if self.blocks[0] == self.blocks[1]:
            who = f"{' and '.join(dict.fromkeys(f'thread {t}' for t in self.threads))} of block {self.blocks[0]}"
        else:
            who = " and ".join(f"thread {t} of block {b}" for t, b in zip(self.threads, self.blocks, strict=True))
            missing = MISSING["race of blocks"] if self.mistake == "race" else missing
        return f"{self.mistake:<9} {self.space} {lines}: {who}, {self.times} times, {missing}"


def told(hazards):
    """Without those that say the same again: of a line in a race, that nobody wrote there before, for the other line
    does it; of two lines with a wait too few, that they race."""
    in_race = {access for hazard in hazards if hazard.mistake == "race" for access in hazard.accesses}
    early = {hazard.accesses for hazard in hazards if hazard.mistake == "early"}
    return [hazard for hazard in hazards if not (hazard.mistake == "unwritten" and hazard.one in in_race)
            and not (hazard.mistake == "race" and hazard.accesses in early)]
