"""Files of a data set, found by the names its label file gives them."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omniq_verl.preparation.file_index import BadPath, FileIndex

unhurried = settings(deadline=None)  # a busy machine is no error


def index(root: Path, *paths: str) -> FileIndex:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return FileIndex(root)


def below(root: Path, found: Path | None) -> str | None:
    return None if found is None else found.relative_to(root.resolve()).as_posix()


@pytest.mark.parametrize(
    ("files", "name", "found", "reason"),
    [
        (["a.jpg"], "a.jpg", "a.jpg", "as it is called"),
        (["x/y/a.jpg"], "a.jpg", "x/y/a.jpg", "however deep"),
        (["x/y/a.jpg"], "y/a.jpg", "x/y/a.jpg", "with some of its folders"),
        (["x/y/a.jpg"], "x/y/a.jpg", "x/y/a.jpg", "with all of them"),
        (["x/y/a.jpg"], "y\\a.jpg", "x/y/a.jpg", "as Windows writes it"),
        (["x/y/a.jpg"], "./y/./a.jpg", "x/y/a.jpg", "with dots that lead nowhere"),
        (["X/IMG_1.JPG"], "x/img_1.jpg", "X/IMG_1.JPG", "in another case"),
        (["a.JPG", "a.jpg"], "a.jpg", "a.jpg", "the same case goes first"),
        (["a.JPG", "a.jpg"], "a.JPG", "a.JPG", "and so for the other one"),
        (["a.JPG", "x/y/a.jpg"], "a.jpg", "x/y/a.jpg", "the same case goes before the depth"),
        (["a.jpg", "x/a.jpg", "x/y/a.jpg"], "a.jpg", "a.jpg", "then the least deep"),
        (["x/a.jpg", "y/z/a.jpg"], "z/a.jpg", "y/z/a.jpg", "the folder that was named"),
        (["ü ñ/画.jpg"], "画.jpg", "ü ñ/画.jpg", "letters of any script"),
        (["a\\x41.jpg"], "a\\x41.jpg", "a\\x41.jpg", "a backslash within a name"),
        (["a\\b.jpg", "a/b.jpg"], "a\\b.jpg", "a/b.jpg", "and where Windows' reading fits, too"),
        (["a b,c'[1].jpg"], "a b,c'[1].jpg", "a b,c'[1].jpg", "signs that mean something elsewhere"),
        (["a.jpg"], "b.jpg", None, "not there"),
        (["a.jpg"], "a", None, "without its ending"),
        (["xa.jpg"], "a.jpg", None, "the end of a name is no name"),
        (["x/a.jpg"], "y/a.jpg", None, "in another folder"),
        (["ax/b.jpg"], "x/b.jpg", None, "the end of a folder's name is none"),
        (["a.jpg/b"], "a.jpg", None, "a folder is no file"),
        ([], "a.jpg", None, "nothing there at all"),
    ],
)
def test_a_file_is_found_by_the_end_of_its_path(tmp_path, files, name, found, reason):
    assert below(tmp_path, index(tmp_path, *files).find(name)) == found, reason


@pytest.mark.parametrize(
    ("folders", "found"),
    [(("big", "small"), "x/Big/a.jpg"), (("SMALL",), "x/small/a.jpg"), (("none", "small", "big"), "x/small/a.jpg")],
)
def test_folders_decide_between_files_of_one_name(tmp_path, folders, found):
    files = index(tmp_path, "x/Big/a.jpg", "x/small/a.jpg", "a.jpg")
    assert below(tmp_path, files.find("a.jpg", *folders)) == found


def test_files_that_match_equally_well_are_not_guessed_between(tmp_path):
    files = index(tmp_path, "x/a.jpg", "y/a.jpg", "z/z/a.jpg")
    with pytest.raises(BadPath, match=r"'a.jpg' may be any of x/a.jpg, y/a.jpg. Fix: keep one"):
        files.find("a.jpg")
    assert below(tmp_path, files.find("a.jpg", "y")) == "y/a.jpg"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("root/a.jpg", "a.jpg"),
        ("set/root/a.jpg", "a.jpg"),
        ("root/x/b.jpg", "x/b.jpg"),
        ("root\\x\\b.jpg", "x/b.jpg"),
        ("root/b.jpg", None),
        ("other/a.jpg", None),
        ("root/root/c.jpg", "root/c.jpg"),
        ("root/c.jpg", "root/c.jpg"),
    ],
)
def test_a_name_may_begin_with_the_folder_that_is_the_root(tmp_path, name, found):
    files = index(tmp_path / "set" / "root", "a.jpg", "x/b.jpg", "root/c.jpg")
    assert below(files.root, files.find(name)) == found


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../secret.txt", "upwards"),
        ("x/../../secret.txt", "upwards in the middle"),
        ("x/..", "upwards at the end"),
        ("..", "upwards and nothing else"),
        ("..\\secret.txt", "upwards, as Windows writes it"),
        ("/etc/passwd", "absolute"),
        ("//etc/passwd", "absolute with two strokes"),
        ("\\\\server\\share", "a server of Windows"),
        ("C:\\secret.txt", "a drive of Windows"),
        ("", "empty"),
        (".", "the folder itself"),
        ("a\0.jpg", "a NUL, where names end for the system"),
    ],
)
def test_a_name_that_leads_elsewhere_is_rejected(tmp_path, name, reason):
    (tmp_path / "secret.txt").write_text("secret")
    with pytest.raises(BadPath, match="is not the name of a file below the root"):
        index(tmp_path / "root", "x/a.jpg", "passwd", "etc/passwd").find(name)


@unhurried
@given(name=st.text(st.sampled_from("ab./\\:\0 "), max_size=12))
def test_no_name_at_all_leads_out_of_the_root(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp() / "names" / "root"
    if not root.exists():
        index(root, "a", "b", "a.b", "x/a", "x/ab/b")
        (root.parent / "a").write_text("outside")
    try:
        found = FileIndex(root).find(name)
    except BadPath:
        return
    assert found is None or found.resolve().is_relative_to(root.resolve())


@pytest.mark.parametrize("target", ["../secret.jpg", "/etc/passwd", "../nothing.jpg"])
def test_a_link_out_of_the_root_is_rejected(tmp_path, target):
    (tmp_path / "secret.jpg").write_bytes(b"x")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.jpg").symlink_to(target)
    with pytest.raises(BadPath, match=r"'a.jpg' is a link to outside of the root"):
        FileIndex(root).find("a.jpg")


def in_cache(cache: Path, *names: str) -> Path:
    """Files as huggingface_hub lays them out; returns the snapshot."""
    snapshot = cache / "datasets--org--name" / "snapshots" / "abc"
    (cache / "datasets--org--name" / "blobs").mkdir(parents=True)
    for number, name in enumerate(names):
        blob, link = cache / "datasets--org--name" / "blobs" / str(number), snapshot / name
        blob.write_bytes(name.encode())
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


@pytest.mark.parametrize("root", ["", "img", "img/deep"])
def test_links_of_a_hugging_face_cache_are_followed(tmp_path, root):
    snapshot = in_cache(tmp_path, "a.png", "img/a.png", "img/deep/a.png")
    found = FileIndex(snapshot / root).find("a.png")
    assert found.read_bytes().decode() == f"{root}/a.png".lstrip("/")
    (tmp_path / "elsewhere").symlink_to(snapshot)
    assert FileIndex(tmp_path / "elsewhere" / root).find("a.png") == found


@pytest.mark.parametrize("target", ["../../blobs/../../secret", "../../refs/main", "../../../other/blobs/1"])
def test_other_links_out_of_a_hugging_face_cache_are_rejected(tmp_path, target):
    snapshot = in_cache(tmp_path, "a.png")
    for path in (tmp_path / "secret", tmp_path / "datasets--org--name/refs/main", tmp_path / "other/blobs/1"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (snapshot / "b.png").symlink_to(target)
    with pytest.raises(BadPath, match="Fix: copy the data set with cp -rL"):
        FileIndex(snapshot).find("b.png")


def test_a_link_within_the_root_is_followed_by_whoever_opens_it(tmp_path):
    index(tmp_path, "x/real.jpg")
    (tmp_path / "a.jpg").symlink_to("x/real.jpg")
    assert FileIndex(tmp_path).find("a.jpg").read_bytes() == b"x"


def test_a_link_to_a_folder_is_not_entered(tmp_path):
    index(tmp_path / "outside", "a.jpg")
    index(tmp_path / "root", "x/b.jpg")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / "circle").symlink_to(tmp_path / "root")
    files = FileIndex(tmp_path / "root")
    assert files.find("a.jpg") is None
    assert below(tmp_path / "root", files.find("b.jpg")) == "x/b.jpg"


def test_a_link_that_leads_to_itself_is_no_endless_search(tmp_path):
    (tmp_path / "a.jpg").symlink_to("b.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    with pytest.raises(OSError, match="symbolic links"):
        FileIndex(tmp_path).find("a.jpg").read_bytes()


def test_a_root_that_is_a_link_is_the_folder_it_leads_to(tmp_path):
    index(tmp_path / "real", "a.jpg")
    (tmp_path / "link").symlink_to("real")
    assert FileIndex(tmp_path / "link").find("a.jpg") == (tmp_path / "real" / "a.jpg").resolve()


def test_a_file_whose_path_is_no_unicode_is_rejected(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    with open(folder + b"/a.jpg", "wb") as file:
        file.write(b"x")
    with pytest.raises(BadPath, match=r"the name caf\\xe9/a.jpg is not UTF-8"):
        FileIndex(tmp_path).find("a.jpg")


def test_a_root_that_is_not_there_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone: there is no such folder; name the data set's with --root"):
        FileIndex(tmp_path / "gone")


def test_a_root_that_is_a_file_is_an_error_too(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        FileIndex(tmp_path / "file")
