"""torchvision beside any build of torch; that no other module imports it is a rule of ruff."""

import subprocess
import sys


def test_torchvision_imports_afresh_and_runs_a_model() -> None:
    code = (
        "from snrlib.utils.torchvision_import import torchvision; import torch\n"
        "from torchvision.transforms import v2\n"
        "model = torchvision.models.squeezenet1_1(weights=None, num_classes=3).eval()\n"
        "assert model(v2.Resize(64)(torch.zeros(1, 3, 80, 80))).shape == (1, 3)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
