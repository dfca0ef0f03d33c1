"""How fast a whole checkpoint is quantized, and in how much memory: files read and written, one thread.

Writes a synthetic LLaDA checkpoint of 1.1 GB to a temporary folder (TMPDIR says where; twice that space is needed) and quantizes it once
per format. MB/s are of the source in BF16, checksums and writing to the disk included, by the clock and by processor time, which differ
where other work shares the cores or the disk is slow.
"""

from __future__ import annotations

import json
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unmask.models.checkpoint import shapes, unfilled
from unmask.models.config import LladaConfig
from unmask.models.llada import FAMILY
from unmask.numerics import bf16, mx
from unmask.quant import stream
from unmask.quant.checkpoint import quantize_checkpoint
from unmask.quant.layout import CheckpointFormats, Entry

SHARDS = 4
CONFIG = LladaConfig(
    d_model=4096,
    n_heads=32,
    n_layers=2,
    mlp_hidden_size=12288,
    vocab_size=16384,
    embedding_size=16384,
    max_sequence_length=4096,
    mask_token_id=16383,
    eos_token_id=16382,
)
"""Two layers of LLaDA-8B's width, and an eighth of its vocabulary."""


def random_weights(entries: list[Entry]) -> Iterator[stream.Part]:
    """The content of a safetensors file of normal BF16 weights."""
    rows = bf16.to_bits(bf16.round(np.random.default_rng(0).normal(0, 0.02, 2**20).astype(np.float32)))
    yield stream.header(entries)
    for entry in entries:
        left = entry.size // 2
        while left:
            yield rows[:left].data
            left -= min(left, len(rows))


def write_checkpoint(folder: Path) -> int:
    """Write the checkpoint in shards, and return the bytes of its tensors."""
    entries = [Entry(name, "BF16", shape) for name, shape in shapes(unfilled(FAMILY, CONFIG)).items()]
    placed = {}
    for shard in range(SHARDS):
        name, held = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors", entries[shard::SHARDS]
        stream.write_file(folder / name, random_weights(held))
        placed |= {entry.name: name for entry in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    (folder / "config.json").write_text(json.dumps(CONFIG.to_json()))
    return sum(entry.size for entry in entries)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as place:
        source, output = Path(place, "source"), Path(place, "packed")
        source.mkdir()
        size = write_checkpoint(source) / 1e6
        print(f"{size:,.0f} MB of BF16 weights in {SHARDS} files")
        for name in mx.FORMATS:
            formats = CheckpointFormats(name, "mxint8", "mxint8")
            quantize_checkpoint("sotu", output, formats)
            shutil.rmtree(output)
            started, busy = time.perf_counter(), time.process_time()
            quantize_checkpoint(source, output, formats)
            seconds, busy = time.perf_counter() - started, time.process_time() - busy
            shutil.rmtree(output)
            print(f"{name:<12}{size / seconds:7,.0f} MB/s by the clock {size / busy:7,.0f} MB/s of processor time")
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f} MB")


if __name__ == "__main__":
    main()
