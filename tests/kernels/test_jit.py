"""The cache of machine code, without machine code: what it finds again, and what it does not trust."""

from types import SimpleNamespace

import pytest

from fastml.kernels import _jit


def function(x):
    return x


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(_jit, "cache_folder", lambda: str(tmp_path))
    monkeypatch.setattr(_jit.CompileResult, "_rebuild", staticmethod(lambda context, *parts: parts))
    return tmp_path


@pytest.fixture
def cache(folder):
    return _jit._KernelCache(function)


class Context:
    """What Numba's target context is to a cache."""

    def refresh(self):
        pass

    def codegen(self):
        return SimpleNamespace(magic_tuple=lambda: ("processor", "features"))


def result(parts=("machine", "code"), is_dynamic=False):
    """What Numba's compilation result is to a cache."""
    library = SimpleNamespace(has_dynamic_globals=is_dynamic)
    return SimpleNamespace(library=library, codegen=Context().codegen(), _reduce=lambda: parts)


def test_finds_what_it_saved(cache, folder):
    assert cache.cache_path == str(folder)
    assert cache.load_overload("signature", Context()) is None
    cache.save_overload("signature", result())
    assert cache.load_overload("signature", Context()) == ("machine", "code")
    assert cache.load_overload("another", Context()) is None
    assert len(list(folder.iterdir())) == 1


def test_one_changed_byte_is_noticed(cache, folder):
    cache.save_overload("signature", result())
    (path,) = folder.iterdir()
    data = path.read_bytes()
    for damaged in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), b"", b"no line"):
        path.write_bytes(damaged)
        assert cache.load_overload("signature", Context()) is None


def test_other_sources_are_noticed(cache, monkeypatch):
    cache.save_overload("signature", result())
    monkeypatch.setattr(_jit, "source_digest", lambda file: b"edited")
    assert cache.load_overload("signature", Context()) is None


def test_what_belongs_to_another_key_is_not_taken(cache, monkeypatch):
    cache.save_overload("signature", result())
    place = cache._place
    monkeypatch.setattr(cache, "_place", lambda *args: ("another key", place(*args)[1]))
    assert cache.load_overload("signature", Context()) is None


def test_addresses_are_not_saved(cache, folder):
    cache.save_overload("signature", result(is_dynamic=True))
    assert not list(folder.iterdir())


def test_a_folder_that_went_away_is_no_error(cache, folder):
    folder.rmdir()
    cache.save_overload("signature", result())
    assert cache.load_overload("signature", Context()) is None


def test_the_digest_is_of_the_sources(tmp_path):
    digest = _jit.source_digest.__wrapped__
    file = tmp_path / "kernels.py"
    file.write_text("a = 1")
    before = digest(str(file))
    assert before == digest(str(file)) != digest()
    file.write_text("a = 2")
    assert digest(str(file)) != before


def test_the_folder_that_is_named_comes_first(tmp_path, monkeypatch):
    find = _jit.cache_folder.__wrapped__
    monkeypatch.setattr(_jit.config, "CACHE_DIR", str(tmp_path))
    assert find().startswith(str(tmp_path))
    monkeypatch.setattr(_jit.config, "CACHE_DIR", "")
    assert not find().startswith(str(tmp_path))
    for locator in (_jit.InTreeCacheLocator, _jit.UserWideCacheLocator):
        monkeypatch.setattr(locator, "from_function", classmethod(lambda cls, *args: None))
    assert find() is None


def test_kernels_are_cached(folder, monkeypatch):
    monkeypatch.setattr(_jit.config, "DISABLE_JIT", 0)
    assert isinstance(_jit.kernel(function)._cache, _jit._KernelCache)
