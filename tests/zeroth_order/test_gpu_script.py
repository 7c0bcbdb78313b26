"""The script for a GPU runs from end to end on a tiny model."""

import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="needs the llm extra")
pytest.importorskip("transformers", reason="needs the llm extra")

from tests.zeroth_order.gguf_files import Q4_1, write

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_zeroth_order.py"


@pytest.mark.filterwarnings("ignore:eps is below the spacing")
def test_it_prints_every_row_as_json(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("gpu_zeroth_order", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "SHAPES", {32: (4, 8)})
    monkeypatch.setattr(script, "ROUNDS", 1)
    monkeypatch.setattr(script, "DIRECTIONS", 2)
    file = write(tmp_path / "m.gguf", Q4_1)
    script.main(["--tiny", "--device", "cpu", "--model", str(file)])
    found = json.loads(capsys.readouterr().out)
    rows = found["rows"]["32"]
    assert {name for name in rows if "blocks" in name}
    assert found["left_out"] == []
    for name, row in rows.items():
        assert row["ratio"] > 0, name
        assert row["how"].startswith(
            "one forward" if "one" in name or "products" in name else "two"
        )
    assert rows["float32, one forward"]["c error"] < 1e-3
    # Nothing is begun that there is no time for, and that is said.
    script.main(["--tiny", "--device", "cpu", "--seconds", "0"])
    assert json.loads(capsys.readouterr().out)["left_out"] == ["32"]
    monkeypatch.setattr(script.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        script.main([])
    assert "no GPU was found" in capsys.readouterr().err
