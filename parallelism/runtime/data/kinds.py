"""What a file is, by its first bytes: text in some encoding, a compressed file, or something that is no text.

The name of a file is asked only where bytes do not decide (a zip archive, the tokens of a corpus).
"""

from __future__ import annotations

import codecs
import shlex
import zipfile
from pathlib import Path

HEAD = 2**16
#: Compressed forms that are read, by their first bytes.
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x2a\x4d\x18": "zstd",  # a frame to skip, from its second byte on; the first is 0x50 to 0x5f
}
_REMOVE = "remove it from --input"
_TABLE = "write its text as JSON lines first (datasets.Dataset, or pandas, to_json(..., lines=True))"
_EXTRACT = "extract its text to a .txt or .jsonl file first"
_CORPUS = "it needs no preparing: name it in a run file, data: {train: PREFIX}"
#: Kinds whose first bytes no text has: offset, bytes, what it is, what to do.
_BINARY = (
    (257, b"ustar", "a tar archive", ""),
    (0, b"\x04\x22\x4d\x18", "an lz4 file", "unpack it first: lz4 -d FILE"),
    (0, b"\xff\x06\x00\x00sNaPpY", "a snappy file", "unpack it first"),
    (0, b"\x1f\x9d", "a compress (.Z) file", "unpack it first: uncompress FILE"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first and give the folder"),
    (0, b"Rar!\x1a\x07", "a rar archive", "unpack it first and give the folder"),
    (0, b"PAR1", "a Parquet file", _TABLE),
    (0, b"ARROW1\x00", "an Arrow file", _TABLE),
    (0, b"\xff\xff\xff\xff", "an Arrow stream (as Hugging Face datasets keep)", _TABLE),
    (0, b"FEA1", "a Feather file", _TABLE),
    (0, b"ORC", "an ORC file", _TABLE),
    (0, b"Obj\x01", "an Avro file", _TABLE),
    (0, b"SQLite format 3\x00", "an SQLite database", _TABLE),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", _TABLE),
    (0, b"\x93NUMPY", "a numpy array", _EXTRACT),
    (0, b"MMIDIDX\x00\x00", "the index of a corpus in Megatron's format", _CORPUS),
    (0, b"GGUF", "a GGUF model", _REMOVE),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document", _EXTRACT),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image", _REMOVE),
    (0, b"\xff\xd8\xff", "a JPEG image", _REMOVE),
    (0, b"GIF8", "a GIF image", _REMOVE),
    (0, b"II*\x00", "a TIFF image", _REMOVE),
    (0, b"MM\x00*", "a TIFF image", _REMOVE),
    (0, b"BM", "a BMP image", _REMOVE),
    (0, b"RIFF", "an image, sound or film (RIFF)", _REMOVE),
    (0, b"OggS", "a sound or film (Ogg)", _REMOVE),
    (0, b"ID3", "a sound (MP3)", _REMOVE),
    (4, b"ftyp", "a film (MP4)", _REMOVE),
    (0, b"\x7fELF", "a program (ELF)", _REMOVE),
    (0, b"MZ", "a Windows program", _REMOVE),
    *((0, bytes([0x80, n]), "a pickle", _EXTRACT) for n in range(2, 6)),
)
#: Kinds that are text, or begin like it, but not the text of documents.
_TEXTUAL = (
    (b"%PDF-", "a PDF document", "extract its text first: pdftotext FILE"),
    (b"{\\rtf", "an RTF document", _EXTRACT),
    (b"WARC/", "a web archive (WARC)", "extract the text of its pages to JSON lines first"),
    (b"version https://git-lfs.github.com/", "a pointer of Git LFS, not the file", "run git lfs pull"),
)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
#: More undecodable bytes than this, and than this share, are another encoding and not damage.
_FEW_BYTES, _FEW = 16, 0.01
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\b\x1b"))
_MANY_CONTROLS = 0.02


class NotText(Exception):
    """A file that cannot become documents: what it is, and what to do."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


def compression(head: bytes) -> str | None:
    """The name of the compressed form that begins with ``head``; None if it is none that is read."""
    if head[:3] == b"BZh" and head[4:10] not in (b"1AY&SY", b"\x17rE8P\x90"):  # first block, or no block
        return None
    if head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:
        return "zstd"
    return next((name for start, name in COMPRESSED.items() if head.startswith(start)), None)


def encoding(head: bytes, path: Path) -> str:
    """The encoding of a text that begins with ``head``, its first 64 KiB; raises NotText for all else."""
    for start, what, fix in _TEXTUAL:
        if head.startswith(start):
            raise NotText(what, fix)
    for mark, name in _BOMS:
        if head.startswith(mark):
            return name
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        raise _zip(path)
    if not _is_binary(head):
        _check_utf8(head)
        return "utf-8"
    raise _binary(head, path)


def is_corpus(path: Path) -> bool:
    """Whether a file is the tokens of a corpus, by its name and the index beside it."""
    return path.suffix == ".bin" and path.with_suffix(".idx").is_file()


def _is_binary(head: bytes) -> bool:
    if head[:1] == b"\x80" or head[257:262] == b"ustar":
        return True
    controls = len(head) - len(head.translate(None, _CONTROLS))
    return b"\x00" in head or controls > _MANY_CONTROLS * len(head)


def _binary(head: bytes, path: Path) -> NotText:
    if is_corpus(path):
        return NotText("the tokens of a corpus in Megatron's format", _CORPUS)
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 2**32:
        return NotText("a safetensors file", _REMOVE)
    for offset, start, what, fix in _BINARY:
        if head[offset:].startswith(start):
            if what == "a tar archive":
                return _tar(path)
            return NotText(what, fix.replace("FILE", shlex.quote(str(path))))
    for name, zeros in (("UTF-16LE", head[1::2]), ("UTF-16BE", head[::2])):
        others = head[::2] if name == "UTF-16LE" else head[1::2]
        if zeros.count(0) > 0.5 * len(zeros) and others.count(0) < 0.05 * len(others):
            return _other_encoding(f"text in {name} without a byte order mark", name)
    return NotText("binary, of no kind that is known here", _REMOVE)


def _check_utf8(head: bytes) -> None:
    text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(head)
    wrong = sum("\udc80" <= character <= "\udcff" for character in text) if not text.isascii() else 0
    if too_many(wrong, len(head)):
        share = f"{100 * wrong / len(head):.0f} % of its first bytes"
        raise _other_encoding(f"text in another encoding than UTF-8 ({share} are not UTF-8)", "ENCODING")


def too_many(undecodable: int, size: int) -> bool:
    """Whether this many undecodable bytes mean another encoding or binary, rather than some damage."""
    return undecodable >= _FEW_BYTES and undecodable > _FEW * size


def _other_encoding(what: str, name: str) -> NotText:
    return NotText(what, f"convert it first: iconv -f {name} -t UTF-8")


def _tar(path: Path) -> NotText:
    quoted = shlex.quote(str(path))
    return NotText("a tar archive", f"unpack it and give the folder: mkdir NEW; tar -xf {quoted} -C NEW")


def _zip(path: Path) -> NotText:
    """What a file in zip's format is: documents, arrays and torch's pickles use it too."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):  # damaged, or inside another compressed file
        names = []
    if "[Content_Types].xml" in names or "mimetype" in names:
        return NotText("an Office document or e-book", _EXTRACT)
    if names and all(name.endswith(".npy") for name in names):
        return NotText("numpy arrays (.npz)", _EXTRACT)
    if any(name.endswith("data.pkl") for name in names):
        return NotText("a file of torch.save", _REMOVE)
    return NotText("a zip archive", f"unpack it and give the folder: unzip {shlex.quote(str(path))} -d NEW")
