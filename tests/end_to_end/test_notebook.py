"""docs/python.md runs as the notebook that it says it is."""

from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

from tests.conftest import HOME


@pytest.mark.filterwarnings("ignore")  # They are those of Jupyter's own packages.
def test_the_page_runs_as_a_notebook(tmp_path: Path) -> None:
    notebook = jupytext.read(HOME / "docs" / "python.md")
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) == 9
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    printed = "".join(output.get("text", "") for output in outputs)
    # One line stands for each epoch, and no bar is drawn over and over.
    assert "epoch 0: " in printed
    assert "\r" not in printed
    assert "did you mean" in printed
    assert "4 batches of probabilities" in printed
