"""Files from the network that are either whole or not there, whatever breaks meanwhile."""

import hashlib
import os
import re
import time
import warnings
from uuid import uuid4

_CHUNK = 1 << 20  # bytes
_TIMEOUT = 30.0  # seconds without a byte
_ABANDONED = 600.0  # seconds without a byte, after which a part belongs to nobody


def md5(path):
    """Hexadecimal MD5 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def download(url, path, *, checksum=None, n_retries=3, delay=1.0):
    """Fetch ``url`` into ``path``, which appears only once the whole file is there.

    Bytes are gathered in a part file beside ``path``. What a broken download leaves is taken up again, in this call or
    a later one; where its checksum is wrong in the end, the file is fetched afresh. Each process has a part of its own,
    so that several may fetch the same file at once.

    Parameters
    ----------
    url : str
        What to fetch.
    path : Path
        Where it goes; the folder must exist.
    checksum : str, default=None
        MD5 in hexadecimal. None asks for the one that the server has in ``url + ".md5"``.
    n_retries : int, default=3
        How many times to try again.
    delay : float, default=1.0
        Seconds between attempts.

    Raises
    ------
    OSError
        If it cannot be fetched, with the reason and what to do.
    """
    from http.client import HTTPException

    part = _claimed_part(path)
    try:
        for left in reversed(range(n_retries + 1)):
            try:
                expected = checksum or _published_checksum(url)
                _fetch_rest(url, part)
                _check(part, expected)
                break
            except (OSError, HTTPException) as error:
                if not left:
                    raise OSError(
                        f"{url} could not be fetched: {error or type(error).__name__}. Try again, or fetch it with a "
                        f"browser, and put it into {path.parent} as {path.name}."
                    ) from error
                warnings.warn(f"Trying {url} again: {error or type(error).__name__}", stacklevel=4)
                time.sleep(delay)
        os.replace(part, path)
    finally:
        if part.exists():  # for the next call
            os.replace(part, _shared_part(path))


def _shared_part(path):
    return path.with_name(f"{path.name}.part")


def _claimed_part(path):
    """A part file that only this call knows: what an earlier one left, or none yet.

    A rename succeeds for one process alone. A part of a process that was killed is known by its age.
    """
    mine = path.with_name(f"{path.name}.{uuid4().hex}.part")
    for left in path.parent.glob(f"{path.name}*.part"):
        try:
            if left == _shared_part(path) or time.time() - left.stat().st_mtime > _ABANDONED:
                os.utime(left)
                left.rename(mine)
                break
        except OSError:  # another process was faster
            continue
    return mine


def _published_checksum(url):
    from urllib.request import urlopen

    with urlopen(f"{url}.md5", timeout=_TIMEOUT) as response:
        found = re.search(rb"\b[0-9a-fA-F]{32}\b", response.read(1000))
    if not found:
        raise OSError(f"{url}.md5 has no checksum in it")
    return found[0].decode().lower()


def _fetch_rest(url, part):
    """Append what is missing of ``url``; begin anew where the server sends all of it."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    size = part.stat().st_size if part.exists() else 0
    try:
        response = urlopen(Request(url, headers={"Range": f"bytes={size}-"} if size else {}), timeout=_TIMEOUT)
    except HTTPError as error:
        if error.code != 416:
            raise
        error.close()  # nothing is missing; whether the part is right, its checksum tells
        return
    with response, open(part, "r+b" if part.exists() else "wb") as stream:
        begins_at_size = response.headers.get("Content-Range", "").startswith(f"bytes {size}-")
        stream.seek(size if response.status == 206 and begins_at_size else 0)
        stream.truncate()
        missing = int(response.headers.get("Content-Length", -1))
        while chunk := response.read(_CHUNK):
            stream.write(chunk)
            missing -= len(chunk)
    if missing > 0:
        raise ConnectionError(f"the connection broke with {missing} bytes to come")


def _check(part, checksum):
    found = md5(part)
    if found != checksum:
        part.unlink()
        raise OSError(f"its MD5 is {found}, and should be {checksum}")
