"""Weight files that hold something else than an LSTM's weights: one clear line each, or the right values."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from adaptive_lstm.cli import main as cli
from adaptive_lstm.cli.model_file import load_lstms

from ..support.cut_files import cut_while_read
from ..support.helpers import refused

INPUT, HIDDEN = 3, 2
STATE = nn.LSTM(INPUT, HIDDEN, 2).state_dict()


def given(folder: Path, **changes: Tensor) -> Path:
    """A file of an LSTM's weights with some replaced; names begin with rnn."""
    torch.save({f"rnn.{name}": value for name, value in (STATE | changes).items()}, folder / "w.pt")
    return folder / "w.pt"


def tensors_of(path: Path) -> dict[str, Tensor]:
    (lstm,) = load_lstms(str(path)).values()
    return dict(lstm.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_every_floating_point_dtype_gives_its_values(tmp_path: Path, dtype: torch.dtype) -> None:
    stored = {name: value.to(dtype) for name, value in STATE.items()}
    for name, value in tensors_of(given(tmp_path, **stored)).items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, stored[name].float(), rtol=0, atol=0)


@pytest.mark.skipif(not hasattr(torch, "float4_e2m1fn_x2"), reason="a torch without dtypes of four bits")
def test_a_dtype_that_torch_cannot_convert_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = torch.zeros(8, 3, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    assert "rnn.weight_ih_l0: got torch.float4" in refused(capsys, "inspect", given(tmp_path, weight_ih_l0=packed))


def test_views_give_their_values_and_share_nothing(tmp_path: Path) -> None:
    first = STATE["weight_ih_l0"]
    views = {
        "weight_ih_l0": first.t().contiguous().t(),
        "weight_hh_l0": torch.tensor(0.5).expand(4 * HIDDEN, HIDDEN),
        "bias_hh_l0": torch.ones(8 * HIDDEN)[::2],
        "bias_ih_l1": nn.Parameter(torch.zeros(4 * HIDDEN)),
    }
    (lstm,) = load_lstms(str(given(tmp_path, **views))).values()
    found = dict(lstm.named_parameters())
    assert all(p.is_contiguous() and p.is_leaf and p.device.type == "cpu" for p in found.values())
    for name, view in views.items():
        torch.testing.assert_close(found[name].detach(), view.detach(), check_stride=False, rtol=0, atol=0)
    with torch.no_grad():
        found["weight_hh_l0"][0, 0] = 7
        assert int(found["weight_hh_l0"].eq(0.5).sum()) == 4 * HIDDEN * HIDDEN - 1
        assert lstm(torch.zeros(1, 4, INPUT))[0].isfinite().all()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("weight_ih_l0", torch.tensor(1.0), r"rnn.weight_ih_l0: got the shape [], expected 2 dimensions"),
        ("weight_ih_l0", torch.zeros(8), "rnn.weight_ih_l0: got the shape [8], expected 2 dimensions"),
        ("weight_ih_l0", torch.zeros(8, 1, 3), "got the shape [8, 1, 3], expected 2 dimensions"),
        ("weight_ih_l0", torch.zeros(8, 0), "got the shape [8, 0], expected 2 dimensions, none of them 0"),
        ("weight_ih_l0", torch.zeros(0, 3), "no nn.LSTM in"),
        ("weight_ih_l0", torch.zeros(6, 3), "no nn.LSTM in"),
        ("weight_hh_l0", torch.zeros(8), "rnn.weight_hh_l0: got the shape [8]"),
        ("weight_hh_l1", torch.zeros(8, 3), "the weights rnn.* do not form an LSTM: size mismatch for weight_hh_l1"),
        ("weight_hh_l7", torch.zeros(8, 2), "do not form an LSTM: Unexpected key"),
        ("weight_hr_l0", torch.zeros(9, 2), "rnn.weight_hr_l0: got the shape [9, 2], expected fewer rows than the 2"),
        ("weight_hr_l0", torch.zeros(1), "rnn.weight_hr_l0: got the shape [1], expected 2 dimensions"),
        ("bias_ih_l0", torch.zeros(8, 1), "rnn.bias_ih_l0: got the shape [8, 1], expected 1 dimension,"),
        ("bias_ih_l1", torch.tensor(0.0), "rnn.bias_ih_l1: got the shape []"),
        ("weight_ih_l1", torch.zeros(8, 2, dtype=torch.cfloat), "rnn.weight_ih_l1: got torch.complex64"),
        ("weight_ih_l1", torch.zeros(8, 2, dtype=torch.int8), "rnn.weight_ih_l1: got torch.int8"),
        ("weight_ih_l1", torch.zeros(8, 2, dtype=torch.bool), "rnn.weight_ih_l1: got torch.bool"),
        ("weight_ih_l0", torch.zeros(8, 3, device="meta"), "which holds no values here"),
        ("weight_ih_l0", torch.zeros(8, 3).to_sparse(), "rnn.weight_ih_l0: got a sparse or nested tensor"),
        ("weight_hh_l1", torch.full((8, 2), torch.nan), "rnn.weight_hh_l1: it holds NaN, infinity"),
        ("bias_hh_l1", torch.full((8,), 1e39, dtype=torch.float64), "values beyond float32"),
    ],
)  # fmt: skip
def test_other_tensors_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: Tensor, message: str
) -> None:
    assert message in refused(capsys, "inspect", given(tmp_path, **{name: value}))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantized_and_nested_tensors_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quantized = torch.quantize_per_tensor(torch.zeros(8, 3), 0.1, 0, torch.qint8)
    assert "a quantized tensor" in refused(capsys, "inspect", given(tmp_path, weight_ih_l0=quantized))
    for other in (torch.nested.nested_tensor([torch.zeros(8, 3)]), torch.eye(8)[:, :3].to_sparse_csr()):
        assert "a sparse or nested tensor" in refused(capsys, "inspect", given(tmp_path, weight_ih_l0=other))


@pytest.mark.parametrize(("rows", "width"), [(400_000, 100_000), (4 * 10**9, 10**9)])
def test_expanded_weights_that_no_memory_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: int, width: int
) -> None:
    one = torch.zeros(1)
    large = {"weight_ih_l0": one.expand(rows, 3), "weight_hh_l0": one.expand(rows, width)}
    torch.save(large, tmp_path / "w.pt")
    assert "this machine has" in refused(capsys, "inspect", tmp_path / "w.pt")
    torch.save({"weight_ih_l0": torch.zeros(400_000, 1)}, tmp_path / "w.pt")  # a hidden size of 100,000
    assert "Missing key(s)" in refused(capsys, "inspect", tmp_path / "w.pt")


def cyclic() -> Any:
    found: dict[str, Any] = {"state": 0}
    found["again"] = found
    return found


def laughs() -> Any:
    found: Any = {}
    for _ in range(25):
        found = {str(i): found for i in range(10)}
    return found


def deep() -> Any:
    found: Any = STATE
    for _ in range(100):
        found = {"x": found}
    return found


@pytest.mark.parametrize("nested", [cyclic, laughs, deep])
def test_dicts_without_end(tmp_path: Path, capsys: pytest.CaptureFixture[str], nested: Callable[[], Any]) -> None:
    torch.save(nested(), tmp_path / "w.pt")
    assert "nested deeper than 32 levels, or more than 1,000,000" in refused(capsys, "inspect", tmp_path / "w.pt")


@pytest.mark.parametrize("found", [None, 3, "text", [], [torch.zeros(3)], {}, {"weight_ih_l0": 3}, torch.zeros(3)])
def test_files_without_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str], found: Any) -> None:
    torch.save(found, tmp_path / "w.pt")
    assert "no nn.LSTM in" in refused(capsys, "inspect", tmp_path / "w.pt")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors"])
def test_what_is_no_weight_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    for data in (b"", b"\0", b"PK\x03\x04", b"\x80\x02.", b"{}", b"\xff" * 9, b"\x80\x02}q\0(X\xff\xff\xff\x7f"):
        path.write_bytes(data)
        assert "is damaged or" in refused(capsys, "inspect", path), data
    path.unlink()
    path.mkdir()
    assert "is a folder, expected a file" in refused(capsys, "inspect", path)
    path.rmdir()
    os.mkfifo(path)
    assert "is a FIFO, expected a file" in refused(capsys, "inspect", path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "is a device, expected a file" in refused(capsys, "inspect", path)
    assert "no such file" in refused(capsys, "inspect", tmp_path / f"absent{suffix}")
    assert "cannot read" in refused(capsys, "inspect", tmp_path / ("x" * 300 + suffix))
    assert "cannot read" in refused(capsys, "inspect", f"a\0b{suffix}")


def test_a_torch_file_is_no_safetensors_file_and_the_reverse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(STATE, tmp_path / "w.safetensors")
    assert "is damaged or no safetensors file" in refused(capsys, "inspect", tmp_path / "w.safetensors")
    save_file(STATE, tmp_path / "w.pt")
    assert "is damaged or" in refused(capsys, "inspect", tmp_path / "w.pt")


def test_cut_files_and_archives_that_unfold_to_more_than_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = given(tmp_path)
    whole = path.read_bytes()
    for length in (10, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "is damaged or" in refused(capsys, "inspect", path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("w/data.pkl", b"\x80\x02}.")
        bomb.writestr("w/data/0", bytes(10**8))
    assert path.stat().st_size < 10**6
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10_000}.__getitem__)
    assert "reading it takes 0.1 GB, and this machine has 0.0 GB" in refused(capsys, "inspect", path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("length", [0, 100, 5000])
def test_weights_that_are_truncated_while_they_are_read(tmp_path: Path, suffix: str, length: int) -> None:
    path, weights = tmp_path / f"w{suffix}", nn.LSTM(64, 64).state_dict()
    if suffix == ".pt":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    assert "is damaged or" in str(cut_while_read(path, length, lambda: load_lstms(str(path))))


def test_names_that_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xfe.pt")
    torch.save({f"rnn\udcff\n.{name}": value for name, value in STATE.items()}, path)
    assert cli.main(["inspect", str(path)]) == 0
    assert "rnn" in capsys.readouterr().out
    assert "no such file" in refused(capsys, "inspect", tmp_path / os.fsdecode(b"\xff.safetensors"))
