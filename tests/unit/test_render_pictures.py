"""Pictures of emails, where a browser is installed; and a plain sentence where none is."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

from dripwell.cli.pictures import BROWSERS, take
from dripwell.core.errors import ConfigurationError

pytest.importorskip("playwright")


def size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no browser is installed")
def test_an_email_has_a_picture_for_each_width_and_look(tmp_path: Path) -> None:
    page = '<body style="margin:0"><p>Hello</p><img src="https://nowhere.example/shore-1.jpg"></body>'
    taken = take({"one": page}, tmp_path / "new", widths=(375,), dark=(False, True))
    assert [path.name for path in taken] == ["one-375-light.png", "one-375-dark.png"]
    assert all(size(path)[0] == 375 for path in taken)
    cut = take({"one": page}, tmp_path, widths=(640,), dark=(False,), height=100)
    assert size(cut[0]) == (640, 100)


def test_without_a_browser_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="apt-get install chromium"):
        take({"one": "<p>Hello</p>"}, tmp_path)
