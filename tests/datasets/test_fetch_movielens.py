"""fetch_movielens against a local server with a small archive in each real format, and connections that break."""

import hashlib
import io
import os
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fastml.datasets import _movielens, fetch_movielens

RATINGS = [(1, 10, 4, 881250949), (1, 2, 3, 881250950), (7, 10, 1, 881250951)]
MATRIX, TIMES = [[3, 4], [0, 1]], [[881250950, 881250949], [0, 881250951]]
TITLES = {2: 'Misérables, Les "1" (1995)', 10: "GoldenEye (1995)", 11: "Unrated (1996)"}


def lines(delimiter, rows):
    return "".join(delimiter.join(map(str, row)) + "\n" for row in rows)


def members(variant):
    """The two files of an archive, as GroupLens writes them."""
    if variant == "100k":
        genres = [0] * 19
        return lines("\t", RATINGS), lines(
            "|", [(i, title, "01-Jan-1995", "", "", *genres) for i, title in TITLES.items()]
        )
    if variant in ("1m", "10m"):
        return lines("::", RATINGS), lines("::", [(i, title, "Drama|War") for i, title in TITLES.items()])
    quoted = [
        (i, '"' + title.replace('"', '""') + '"' if "," in title else title, "Drama") for i, title in TITLES.items()
    ]
    return "userId,movieId,rating,timestamp\n" + lines(",", RATINGS), "movieId,title,genres\n" + lines(",", quoted)


def archive(variant):
    made = _movielens._VARIANTS[variant]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as packed:
        packed.writestr("../outside.txt", "must not be unpacked")
        for name, text in zip((made.ratings, made.titles), members(variant), strict=True):
            packed.writestr(name, text.encode(made.encoding))
    return stream.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.files``; the next of ``server.faults`` spoils an answer."""

    def do_GET(self):
        server, name = self.server, self.path.rpartition("/")[2]
        fault = server.faults.pop(0) if server.faults and not name.endswith(".md5") else None
        begin = self.headers.get("Range", "")
        server.log.append((name, begin, fault))
        if name not in server.files or fault == "error":
            return self.send_error(503 if fault else 404)
        content = server.files[name]
        begin = int(begin.removeprefix("bytes=").removesuffix("-") or 0) if fault != "no range" else 0
        if begin >= len(content):
            return self.send_error(416)
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        rest = content[begin:]
        if fault != "no length":
            self.send_header("Content-Length", len(rest))
        self.end_headers()
        if fault == "garbage":
            rest = bytes(len(rest))
        self.wfile.write(rest[:100] if fault in ("drop", "no length") else rest)
        if server.pause:
            time.sleep(server.pause)

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def server(monkeypatch):
    """All variants, with their checksums put in place."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.faults, server.log, server.pause = {}, [], [], 0
        variants = {}
        for variant, made in _movielens._VARIANTS.items():
            content = server.files[made.archive] = archive(variant)
            checksum = hashlib.md5(content).hexdigest()
            variants[variant] = made._replace(checksum=made.checksum and checksum)
            server.files[made.archive + ".md5"] = f"MD5 ({made.archive}) = {checksum}\n".encode()
        monkeypatch.setattr(_movielens, "_VARIANTS", variants)
        monkeypatch.setattr(_movielens, "_BASE_URL", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("no_proxy", "*")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def holds_only(home, *more):
    return sorted([*more, "ml-1m.zip"]) == sorted(path.name for path in (home / "movielens").iterdir())


def fetch(home, variant="1m", n_retries=0, **options):
    return fetch_movielens(variant, data_home=home, n_retries=n_retries, delay=0, **options)


@pytest.mark.parametrize("variant", _movielens._VARIANTS)
def test_formats(variant, server, tmp_path):
    found = fetch(tmp_path, variant, timestamps=True)
    assert found.data.dtype == np.float32
    assert_array_equal(found.data.toarray(), MATRIX)
    assert_array_equal(found.timestamps.toarray(), TIMES)
    assert_array_equal(found.user_ids, [1, 7])
    assert_array_equal(found.item_ids, [2, 10])
    assert_array_equal(found.item_names, [TITLES[2], TITLES[10]])
    assert f"MovieLens {variant}: 3 ratings of 2 movies by 2 users" in found.DESCR
    assert fetch(tmp_path, variant, dtype=np.float64).data.dtype == np.float64
    assert sum(not name.endswith(".md5") for name, *_ in server.log) == 1
    name = _movielens._VARIANTS[variant].archive
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [name]


def test_known_checksums():
    known = {variant: made.checksum for variant, made in _movielens._VARIANTS.items()}
    assert known.pop("latest-small") is None
    assert len(set(known.values())) == len(known)
    assert all(len(bytes.fromhex(checksum)) == 16 for checksum in known.values())


@pytest.mark.parametrize("fault", ["drop", "no length"])
def test_a_dropped_connection_is_taken_up(fault, server, tmp_path):
    server.faults = [fault]
    if fault == "drop":
        with pytest.warns(UserWarning, match=r"ml-1m.zip again: the connection broke with \d+ bytes to come"):
            found = fetch(tmp_path, n_retries=1)
        assert [begin for _, begin, _ in server.log] == ["", "bytes=100-"]
    else:  # nobody can tell before the checksum
        with pytest.warns(UserWarning, match="again: its MD5 is"):
            found = fetch(tmp_path, n_retries=1)
        assert [begin for _, begin, _ in server.log] == ["", ""]
    assert_array_equal(found.data.toarray(), MATRIX)
    assert holds_only(tmp_path)


def test_a_later_call_takes_up_what_was_left(server, tmp_path):
    server.faults = ["drop", "error", "drop"]
    for _ in range(3):
        with pytest.raises(OSError, match="could not be fetched"):
            fetch(tmp_path)
        assert [path.name for path in tmp_path.rglob("*.*")] == ["ml-1m.zip.part"]
    fetch(tmp_path)
    assert [begin for _, begin, _ in server.log] == ["", "bytes=100-", "bytes=100-", "bytes=200-"]
    assert holds_only(tmp_path)


def test_a_server_that_ignores_ranges(server, tmp_path):
    server.faults = ["drop", "no range"]
    with pytest.warns(UserWarning, match="again"):
        fetch(tmp_path, n_retries=1)
    assert [begin for _, begin, _ in server.log] == ["", "bytes=100-"]


@pytest.mark.parametrize("left", ["longer", "whole", "damaged", "damaged and whole"])
def test_parts_that_are_not_what_they_seem(left, server, tmp_path):
    content = server.files["ml-1m.zip"]
    part = {"longer": content + b"x", "whole": content, "damaged": b"xxx", "damaged and whole": b"x" * len(content)}[
        left
    ]
    (tmp_path / "movielens").mkdir()
    (tmp_path / "movielens" / "ml-1m.zip.part").write_bytes(part)
    if left == "whole":
        fetch(tmp_path)
    else:
        with pytest.warns(UserWarning, match="its MD5 is .*, and should be"):
            fetch(tmp_path, n_retries=1)
    assert (tmp_path / "movielens" / "ml-1m.zip").read_bytes() == content
    assert holds_only(tmp_path)


def test_a_wrong_archive_is_never_kept(server, tmp_path):
    server.faults = ["garbage"] * 2
    with (
        pytest.warns(UserWarning, match="its MD5 is"),
        pytest.raises(
            OSError, match="ml-1m.zip could not be fetched: its MD5 is .* Try again, or fetch it with a browser"
        ),
    ):
        fetch(tmp_path, n_retries=1)
    assert not list((tmp_path / "movielens").iterdir())


def test_the_set_that_changes_is_checked_against_the_server(server, tmp_path):
    server.files["ml-latest-small.zip.md5"] = b"MD5 (ml-latest-small.zip) = " + b"0" * 32
    with pytest.raises(OSError, match="its MD5 is .*, and should be 0000"):
        fetch(tmp_path, "latest-small")
    server.files["ml-latest-small.zip.md5"] = b"<html>"
    with pytest.raises(OSError, match=r"ml-latest-small.zip.md5 has no checksum in it"):
        fetch(tmp_path, "latest-small")
    del server.files["ml-latest-small.zip.md5"]
    with pytest.raises(OSError, match="404"):
        fetch(tmp_path, "latest-small")


def test_several_at_once(server, tmp_path):
    server.pause = 0.05
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(fetch, tmp_path) for _ in range(4)]
        for result in results:
            assert_array_equal(result.result().data.toarray(), MATRIX)
    assert holds_only(tmp_path)


def test_parts_of_others_are_left_alone_until_abandoned(server, tmp_path):
    folder = tmp_path / "movielens"
    folder.mkdir()
    other = folder / "ml-1m.zip.0123.part"
    other.write_bytes(server.files["ml-1m.zip"][:50])
    fetch(tmp_path)
    assert holds_only(tmp_path, other.name)
    (folder / "ml-1m.zip").unlink()
    os.utime(other, (0, 0))
    fetch(tmp_path)
    assert [begin for _, begin, _ in server.log] == ["", "bytes=50-"]
    assert holds_only(tmp_path)


def test_a_part_that_another_process_takes_first(server, tmp_path, monkeypatch):
    (tmp_path / "movielens").mkdir()
    part = tmp_path / "movielens" / "ml-1m.zip.part"
    part.write_bytes(server.files["ml-1m.zip"][:50])
    monkeypatch.setattr(os, "utime", lambda path: os.stat(path.with_name("taken")))
    fetch(tmp_path)
    assert [begin for _, begin, _ in server.log] == [""]
    assert holds_only(tmp_path, part.name)


def test_interrupted(server, tmp_path, monkeypatch):
    """Ctrl-C leaves a part for the next call."""
    server.faults = ["drop"]

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.warns(UserWarning, match="again"), pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, n_retries=1)
    assert [path.name for path in tmp_path.rglob("*.*")] == ["ml-1m.zip.part"]


def test_offline(server, tmp_path, monkeypatch):
    with pytest.raises(
        OSError, match=r"ml-1m\.zip is missing, and download_if_missing is False: put http://127.*there"
    ):
        fetch(tmp_path, download_if_missing=False)
    address = f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError, match="refused") as caught:
        fetch(tmp_path)
    assert f"{address}ml-1m.zip" in str(caught.value)
    assert f"put it into {tmp_path / 'movielens'} as ml-1m.zip" in str(caught.value)
    (tmp_path / "movielens" / "ml-1m.zip").write_bytes(server.files["ml-1m.zip"])
    assert_array_equal(fetch(tmp_path, download_if_missing=False).data.toarray(), MATRIX)


def test_a_damaged_archive(server, tmp_path):
    (tmp_path / "movielens").mkdir()
    fixed, latest = (tmp_path / "movielens" / name for name in ("ml-1m.zip", "ml-latest-small.zip"))
    fixed.write_bytes(b"half")
    with pytest.raises(OSError, match="is not what GroupLens published"):
        fetch(tmp_path, download_if_missing=False)
    with pytest.warns(UserWarning, match="is not what GroupLens published .*fetching it again"):
        fetch(tmp_path)
    content = server.files["ml-latest-small.zip"]
    for damaged in (content[:-30], content.replace(b"Golden", b"golden", 1), server.files["ml-1m.zip"]):
        latest.write_bytes(damaged)
        with pytest.raises(OSError, match="damaged or no MovieLens archive.*Delete it, and fetch it again"):
            fetch(tmp_path, "latest-small")


def test_data_home(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    fetch(None)
    assert (tmp_path / "movielens" / "ml-1m.zip").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "1M"}, "variant must be one of '100k', '1m', .*, got '1M'"),
        ({"n_retries": -1}, "n_retries must be an integer of at least 0"),
        ({"n_retries": 1.5}, "n_retries must be an integer"),
        ({"delay": -1}, r"delay must be a number of seconds in \[0, inf\)"),
        ({"dtype": int}, "dtype must be float32 or float64"),
    ],
)
def test_arguments_out_of_range(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        fetch_movielens(**{"variant": "1m", "data_home": tmp_path, **options})
    assert not list(tmp_path.iterdir())
