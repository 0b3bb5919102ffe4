"""``bitmosaic alloc`` on a small model of one's own: a plan and a report, and what it refuses."""

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from gen.cli import app
from golden.alloc import load_plan
from golden.alloc.model import open_model
from golden.alloc.texts import TEXTS, read_text, windows
from golden.llm import CheckpointNotFoundError, load_tokenizer

TOKENS = 256


@pytest.fixture(scope="module")
def tokenizer():
    try:
        return load_tokenizer()
    except CheckpointNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def home(tokenizer, tmp_path_factory):
    """A model directory as transformers saves it, and a text beside it."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512)  # fmt: skip
    path = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(path / "small")
    tokenizer.save_pretrained(path / "small")
    (path / "text").write_text(read_text("docs")[:20_000])
    return path


def alloc(home, *arguments, model="small", text="text"):
    return CliRunner().invoke(app, ["alloc", str(home / model), "--texts", str(home / text), "--tokens", str(TOKENS),
                                    "--output", str(home / "out" / "plan.safetensors"), *arguments])  # fmt: skip


@pytest.mark.parametrize("scales", ["plan", "group"])
def test_plan_and_report_of_a_model_of_one_s_own(home, scales):
    done = alloc(home, "--kv-bits", "1.25", "--scales", scales)
    assert done.exit_code == 0, done.output
    identity = open_model(str(home / "small"))[2]
    plan = load_plan(home / "out" / "plan.safetensors", identity=identity)
    assert plan.widths.shape == (2, 2, 2, 8)
    assert sum(plan.bits) / 2 == 1.25
    assert plan.scales == scales
    report = json.loads((home / "out" / "report.json").read_text())
    assert report["bits"] == list(plan.bits)
    assert report["bits_effective_at_4096"] == list(plan.effective_bits(4096))
    assert report["checkpoint_sha256"] == identity
    assert list(report["texts"]) == [str(home / "text")]


def test_what_is_refused(home):
    for arguments, message in (
        (("--kv-bits", "5"), "kv-bits must be"),
        (("--scales", "none"), "scales must be one of plan, sequence, group, not 'none'"),
        (("--windows", "40"), "must have more than"),
    ):
        done = alloc(home, *arguments)
        assert (done.exit_code, message in done.output) == (2, True), done.output
    (home / "empty").write_text(" \n")
    assert "is empty" in alloc(home, text="empty").output
    assert "text must be one of docs, code, headers, licenses, or a file, not" in alloc(home, text="none").output
    assert "or a directory with a Hugging Face checkpoint, not" in alloc(home, model="none").output
    (home / "bare").mkdir(exist_ok=True)
    assert "holds no .safetensors or .bin file" in alloc(home, model="bare").output


@pytest.mark.parametrize("name", TEXTS)
def test_every_installation_has_the_texts(tokenizer, name):
    """Both ends of each, which do not overlap."""
    first, last = (windows(name, tokenizer, 2, 1536, last=end)[0] for end in (False, True))
    assert len(first) == len(last) == 1536
    assert len(set(first.tolist())) > 100
    assert not torch.equal(first, last)
