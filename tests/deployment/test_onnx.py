"""ONNX by torch's own exporter, run by onnxruntime."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torchvision")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from deploying import FIELDS, check_batches, features, head, images, whole_model

onnxruntime = pytest.importorskip("onnxruntime")


def to_onnx(model: nn.Module, example: Tensor, path: Path) -> Path:
    with warnings.catch_warnings():
        # The exporter's own, about Python and torch.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N")},),
            input_names=["input"],
            output_names=list(FIELDS),
            verbose=False,
        )
    assert program is not None
    program.save(path)
    return path


def runner(path: Path) -> Callable[[Tensor], dict[str, Tensor]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[0] == "N"
    assert [output.name for output in session.get_outputs()] == list(FIELDS)

    def run(x: Tensor) -> dict[str, Tensor]:
        values = session.run(None, {"input": x.numpy()})
        return {name: torch.from_numpy(v) for name, v in zip(FIELDS, values, strict=True)}

    return run


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_whole_model_computes_the_same(tmp_path: Path, dtype: torch.dtype) -> None:
    model = whole_model().to(dtype)
    path = to_onnx(model, images(4, dtype=dtype), tmp_path / "model.onnx")
    check_batches("ONNX", runner(path), model, images, dtype)


def test_a_head_with_other_options_computes_the_same(tmp_path: Path) -> None:
    model = head(reduction="share", self_feature="message")
    path = to_onnx(model, features(4), tmp_path / "head.onnx")
    check_batches("ONNX", runner(path), model, features)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_onnxruntime_quantizes_what_it_has_folded(tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    model = head()
    plain = to_onnx(model, features(4), tmp_path / "head.onnx")
    folded, quantized = tmp_path / "folded.onnx", tmp_path / "quantized.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(plain, options, providers=["CPUExecutionProvider"])
    unsigned = quantization.QuantType.QUInt8
    quantization.quantize_dynamic(folded, quantized, weight_type=unsigned)
    # The decomposition has two thirds of the weights; the relations, two einsums, stay as they are.
    assert quantized.stat().st_size < 0.55 * plain.stat().st_size
    run = runner(quantized)
    with torch.no_grad():
        expected = model(features(64, seed=3))
    error = (run(features(64, seed=3))["logits"] - expected.logits).norm() / expected.logits.norm()
    print(f"quantized ONNX: logits {error:.1e}")
    assert 1e-4 < error < 0.02
