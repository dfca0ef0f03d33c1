"""Memory behind an AXI port, as a test bench sees it: a cycle at a time, everything it drives comes out of registers."""

from __future__ import annotations

from collections import deque

import numpy as np


class ReadMemory:
    """Bursts in the order of their requests; the first beat of a burst asked for in cycle t is there from t + latency on, or later.

    A burst is (due, address, beats). In an exact memory each beat follows the one before in the next cycle.

    Attributes:
        asked: (cycle, address, beats) of each request that was accepted.
    """

    def __init__(self, hbm, beat_bytes: int, latency: int, rng: np.random.Generator | None = None) -> None:
        self._hbm, self._beat_bytes, self._latency, self._rng = hbm, beat_bytes, latency, rng
        self._bursts: deque[list[int]] = deque()
        self._cycle = 0
        self.asked: list[tuple[int, int, int]] = []
        self.errors: set[int] = set()
        self.outputs = {"arready": 1, "rvalid": 0, "rdata": 0, "rresp": 0, "rlast": 0}

    def step(self, arvalid: int, araddr: int, arlen: int, rready: int) -> dict[str, int]:
        """What the engine drove in this cycle; what the memory drives in the next."""
        out = self.outputs
        if arvalid and out["arready"]:
            self.asked.append((self._cycle, araddr, arlen + 1))
            latency = self._latency if self._rng is None else int(self._rng.integers(1, self._latency + 1))
            self._bursts.append([self._cycle + latency, araddr, arlen + 1])
        taken = out["rvalid"] and rready
        if taken:
            self._bursts[0][1] += self._beat_bytes
            self._bursts[0][2] -= 1
            if not self._bursts[0][2]:
                self._bursts.popleft()
        self._cycle += 1
        holds = out["rvalid"] and not taken
        there = bool(self._bursts) and self._bursts[0][0] <= self._cycle and (holds or not self._stalls())
        address = self._bursts[0][1] if there else 0
        self.outputs = {
            "arready": int(not self._stalls()),
            "rvalid": int(there),
            "rdata": int.from_bytes(self._hbm[address : address + self._beat_bytes].tobytes(), "little") if there else 0,
            "rresp": 2 if there and address in self.errors else 0,
            "rlast": int(there and self._bursts[0][2] == 1),
        }
        return self.outputs

    def _stalls(self) -> bool:
        return self._rng is not None and bool(self._rng.random() < 0.3)


class WriteMemory:
    """The response of a burst comes `latency` cycles after its last beat, or later; beats may come before their address.

    Attributes:
        asked: (cycle, address, beats) of each address that was accepted.
    """

    def __init__(self, hbm, beat_bytes: int, latency: int, rng: np.random.Generator | None = None) -> None:
        self._hbm, self._beat_bytes, self._latency, self._rng = hbm, beat_bytes, latency, rng
        self._addresses: deque[list[int]] = deque()
        self._beats: deque[tuple[int, int, int]] = deque()
        self._responses: deque[tuple[int, int]] = deque()
        self._cycle = 0
        self.asked: list[tuple[int, int, int]] = []
        self.errors: set[int] = set()
        self.outputs = {"awready": 1, "wready": 1, "bvalid": 0, "bresp": 0}

    def step(self, awvalid: int, awaddr: int, awlen: int, wvalid: int, wdata: int, wstrb: int, wlast: int, bready: int) -> dict[str, int]:
        """What the engine drove in this cycle; what the memory drives in the next."""
        out = self.outputs
        if awvalid and out["awready"]:
            self.asked.append((self._cycle, awaddr, awlen + 1))
            self._addresses.append([awaddr, awlen + 1, 0])
        if wvalid and out["wready"]:
            self._beats.append((wdata, wstrb, wlast))
        while self._beats and self._addresses:
            burst, (word, strobes, last) = self._addresses[0], self._beats.popleft()
            self._write(burst[0], word, strobes)
            burst[2] |= burst[0] in self.errors
            burst[0] += self._beat_bytes
            burst[1] -= 1
            assert bool(last) == (burst[1] == 0), "WLAST at another beat than the last"
            if last:
                latency = self._latency if self._rng is None else int(self._rng.integers(1, self._latency + 1))
                self._responses.append((self._cycle + latency, 2 * burst[2]))
                self._addresses.popleft()
        taken = out["bvalid"] and bready
        if taken:
            self._responses.popleft()
        self._cycle += 1
        there = bool(self._responses) and self._responses[0][0] <= self._cycle and ((out["bvalid"] and not taken) or not self._stalls())
        self.outputs = {
            "awready": int(not self._stalls()),
            "wready": int(not self._stalls()),
            "bvalid": int(there),
            "bresp": self._responses[0][1] if there else 0,
        }
        return self.outputs

    def _write(self, address: int, word: int, strobes: int) -> None:
        new = np.frombuffer(word.to_bytes(self._beat_bytes, "little"), np.uint8)
        chosen = np.array([strobes >> index & 1 for index in range(self._beat_bytes)], bool)
        part = self._hbm[address : address + self._beat_bytes]
        part[chosen[: len(part)]] = new[: len(part)][chosen[: len(part)]]

    def _stalls(self) -> bool:
        return self._rng is not None and bool(self._rng.random() < 0.3)
