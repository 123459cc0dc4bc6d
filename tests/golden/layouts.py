"""What preflight says of the train step of the large configs, kept as files: a change of sharding, of memory or of traffic shows as a difference.

python -m tests.golden.layouts [NAME ...]    # compiles them again and writes down what is so now
"""

import json
import pathlib
import subprocess
import sys
import tempfile

FOLDER = pathlib.Path(__file__).parent / "preflight"
ROOT = pathlib.Path(__file__).parents[2]

# Topology, slices, config and what differs from it. Attention's weights are not dropped, so that splash can compute it.
BERT = ("configs/bert/large.py", "--config.model.attention_dropout=0", "--config.model.remat=projections")
LAYOUTS = {
    "bert_large_v5e_4x4": ("v5e:4x4", 1, *BERT, "--config.data.batch_size=512"),
    "bert_large_v5e_16x16": ("v5e:16x16", 1, *BERT, "--config.data.batch_size=8192"),
    "gpt2_xl_v5e_8x8": ("v5e:8x8", 1, "configs/gpt/xl.py", "--config.model.attention_dropout=0", "--config.model.remat=projections"),
    "gpt3_6.7b_v6e_16x16": ("v6e:16x16", 1, "configs/gpt/gpt3.py:6.7b", "--config.model.remat=projections"),
    "gpt3_175b_v5p_8x8x16": ("v5p:8x8x16", 1, "configs/gpt/gpt3_175b.py"),
    "gpt3_175b_v5p_8x8x16_two_slices": ("v5p:8x8x16", 2, "configs/gpt/gpt3_175b.py", "--config.mesh.data=2"),
    "vit_h14_v4_4x4x4": ("v4:4x4x4", 1, "configs/vit/b16.py:H/14", "--config.model.attention_dropout=0", "--config.model.remat=attention"),
}


def found(name: str) -> dict:
    """What preflight says now, without what differs from run to run."""
    topology, slices, config, *fields = LAYOUTS[name]
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [
            sys.executable,
            "-m",
            "research.preflight",
            f"--topology={topology}",
            f"--slices={slices}",
            f"--config={config}",
            "--steps=train",
            *fields,
            f"--json={file.name}",
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        said = json.loads(pathlib.Path(file.name).read_text())
    for step in said["steps"].values():
        del step["compile_seconds"]
    return said


def main():
    for name in sys.argv[1:] or LAYOUTS:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{name}.json").write_text(json.dumps(found(name), indent=1) + "\n")
        print(f"wrote {name}", flush=True)


if __name__ == "__main__":
    main()
