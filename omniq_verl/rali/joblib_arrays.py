"""Arrays of a scikit-learn PCA that joblib has pickled, read without running anything from the file.

A pickle can run any code where it is read. Here every class that it names is replaced by a stand-in of this module that
only holds values, any other name is rejected, and the bytes of arrays, which joblib writes between the operations of
the pickle, are read by numpy as plain numbers.
"""

import pickle
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

_KINDS = "fiub"
"""Kinds of numpy dtypes: floats, integers and booleans. Objects would be pickles again."""
_MOST = 2**28
"""Numbers of one array; the release has at most 768 x 768."""


class BadPickle(ValueError):
    """A file that is not a pickled PCA, or would do more than hold numbers."""


def read_pca(path: Path) -> dict[str, Any]:
    """The attributes of a pickled ``PCA`` or ``IncrementalPCA``, e.g. ``mean_`` and ``components_``.

    Raises:
        BadPickle: it is none, is compressed, or names any class but those of a PCA.
    """
    try:
        with open(path, "rb") as file:
            found = _Reader(file).load()
    except BadPickle as error:
        raise BadPickle(f"{path}: {error}. Fix: take the file of the official release") from None
    except OSError as error:
        raise BadPickle(f"{path} cannot be read ({error.strerror}). Fix: download the release again") from error
    except Exception as error:  # of every kind, on a broken pickle
        raise BadPickle(
            f"{path} is not a pickled PCA ({type(error).__name__}). Fix: download the release again"
        ) from error
    if not isinstance(found, _Holder):
        raise BadPickle(f"{path} holds no PCA. Fix: take the file of the official release")
    return vars(found)


class _Holder:
    """Stands for an object of scikit-learn: pickle fills its ``__dict__``."""


class _Wrapper:
    """Stands for joblib's ``NumpyArrayWrapper``, which says what the array is like that follows."""

    shape: tuple[int, ...]
    order: str

    def read(self, file: Any) -> np.ndarray:
        dtype = _plain(getattr(self, "dtype", None))
        shape = tuple(int(length) for length in self.shape)
        count = int(np.prod(shape, dtype=np.int64))
        if min(shape, default=0) < 0 or not 0 <= count <= _MOST:
            raise BadPickle(f"an array of the shape {shape} is too large")
        if getattr(self, "numpy_array_alignment_bytes", None) is not None:
            file.read(file.read(1)[0])
        data = file.read(count * dtype.itemsize)
        flat = np.frombuffer(data, dtype, count)
        return flat.reshape(shape[::-1]).T if self.order == "F" else flat.reshape(shape)


class _Dtype:
    """Stands for a numpy dtype that is being pickled."""

    def __init__(self, name: str, *_align_and_copy: Any):
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]


_ORDERS: dict[str, Literal["<", ">"]] = {"<": "<", ">": ">"}


def _plain(found: Any) -> np.dtype:
    dtype = (
        np.dtype(found.name).newbyteorder(_ORDERS.get(found.order, "="))
        if isinstance(found, _Dtype)
        else np.dtype(object)
    )
    if dtype.kind not in _KINDS:
        raise BadPickle(f"an array of the type {dtype}")
    return dtype


def _scalar(dtype: Any, data: bytes) -> Any:
    return np.frombuffer(data, _plain(dtype), 1)[0]


_STAND_INS: dict[tuple[str, str], Any] = {
    ("sklearn.decomposition._pca", "PCA"): _Holder,
    ("sklearn.decomposition._incremental_pca", "IncrementalPCA"): _Holder,
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _Wrapper,
    ("numpy", "ndarray"): _Holder,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


class _Reader(pickle._Unpickler):
    """Python's own unpickler, the one that is written in Python, so that arrays can be read between operations."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]

    def __init__(self, file: Any):
        super().__init__(file)
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise BadPickle(f"it names {module}.{name}, which a PCA does not need")
        return _STAND_INS[module, name]

    def load_build(self) -> None:
        super().load_build()  # pyright: ignore[reportAttributeAccessIssue]  the stub leaves it out
        if isinstance(self.stack[-1], _Wrapper):
            self.stack.append(self.stack.pop().read(self._file))

    dispatch[pickle.BUILD[0]] = load_build
