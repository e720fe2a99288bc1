"""Bad input to the command line: one clear line, and nothing is written."""

import json
import shutil

import pytest
import torch
from command_line import enter, error_of, files_in
from safetensors.torch import save_file

TRAIN = "train gaussian --data digits --out new --epochs 1"
BAD_INPUT = {
    "": "required: VERB",
    "tarin": "invalid choice: 'tarin' (choose from 'train', 'resume', 'grow', 'sweep', 'evaluate', 'sample', ",
    "train": "train needs a pair and data: pyrovae train PAIR --data FILE_OR_NAME",
    "train gaussian": "train needs a pair and data: pyrovae train PAIR --data FILE_OR_NAME",
    "train --data digits": "train needs a pair and data: pyrovae train PAIR --data FILE_OR_NAME",
    "train gausian --data digits": "unknown pair 'gausian'; known are auto-decoder, categorical, gaussian, ",
    "train gaussian --data digitz": "no data set, file or folder 'digitz'; known are adult, ",
    "train gaussian --data digits --out gaussian": "gaussian already holds a run; go on with it (pyrovae ",
    "train gaussian --data digits --out=": "--out: names no file or folder; the folder you are in is .",
    "train gaussian --data digits --out mymodule.py/new": "mymodule.py",
    "train gaussian --data digits --pair mymodule:make_vae": "unknown arguments: --pair mymodule:make_vae",
    "resume": "required: RUN",
    "resume gaussian --lr 3": "unknown arguments: --lr 3 (see pyrovae resume --help)",
    "resume nowhere": "nowhere is no run folder",
    "resume gaussian --pair mymodule:make_vae": "a run of the pair gaussian, not mymodule:make_vae",
    "grow": "required: RUN",
    "grow gaussian": "sticks are for runs of the pair stick-breaking; gaussian is of gaussian",
    "grow gaussian --lr 3": "unknown arguments: --lr 3 (see pyrovae grow --help)",
    "grow gaussian --sticks x": "argument --sticks: invalid int value: 'x'",
    "grow nowhere": "nowhere is no run folder",
    f"{TRAIN} --latent-dmi 3": "unknown arguments: --latent-dmi 3 (see pyrovae train --help)",
    f"{TRAIN} --latent-dim x": "argument --latent-dim: invalid int value: 'x'",
    f"{TRAIN} --latent-dim 0": "--latent-dim must be at least 1, got 0",
    f"{TRAIN} --hidden 3,x": "argument --hidden: expected whole numbers separated by commas, got '3,x'",
    f"{TRAIN} --hidden 0": "layer sizes must be at least 1",
    f"{TRAIN} --activation rleu": "unknown activation 'rleu'",
    f"{TRAIN} --layer gatd": "invalid choice: 'gatd' (choose from 'plain', 'gated', 'residual')",
    f"{TRAIN} --net conv --channels 3": "two numbers of channels",
    f"{TRAIN} --likelihood discretized-logistic": "digits is unit",
    f"{TRAIN} --likelihood normal --likelihood-scale -1": "scale",
    f"{TRAIN} --prior vamp --num-components 0": "components",
    f"{TRAIN} --prior mixture --num-components 0": "components",
    f"{TRAIN} --tied --layer gated": "tied",
    f"{TRAIN} --epochs 0": "epochs must be positive",
    f"{TRAIN} --epochs 1.5": "argument --epochs: invalid int value: '1.5'",
    f"{TRAIN} --lr 0": "lr must be positive",
    f"{TRAIN} --lr nan": "lr must be positive",
    f"{TRAIN} --lr model=1,guide=2,model=3": "argument --lr: lr names the group 'model' twice",
    f"{TRAIN} --objective eblo": "invalid choice: 'eblo' (choose from 'elbo', ",
    f"{TRAIN} --optimizer adm": "unknown optimizer 'adm'; known are adam",
    f"{TRAIN} --kl-weight warm-up:0": "positive number of epochs",
    f"{TRAIN} --kl-weight fast": "unknown schedule 'fast'; give a number, warm-up:EPOCHS, decay or cyclic:EPOCHS",
    f"{TRAIN} --device cuda:99": "device 'cuda:99' cannot be used",
    f"{TRAIN} --device tpu": "device 'tpu' cannot be used",
    f"{TRAIN} --binarize dynamic --scale symmetric": "exclude each other",
    f"{TRAIN} --dequantize": "dequantize needs values of kind '8-bit'",
    f"{TRAIN} --validation 0": "validation of digits must be a share between 0 and 1, or a whole number of at le",
    f"{TRAIN} --seed 99999999999999999999": "argument --seed: a seed is a whole number from 0 to 2**32 - 1, got 9999",
    "train nomodule:make_vae --data digits": "there is no module 'nomodule' in the working directory or installed",
    "train no.module:make_vae --data digits": "there is no module 'no.module'",
    "train mymodule:make --data digits": "no function 'make'; it has make_vae, needs, fails, no_vae",
    "train mymodule: --data digits": "'mymodule:' is no pair",
    "train broken:make_vae --data digits": "module 'broken' cannot be imported: SyntaxError",
    "train lonely:make_vae --data digits": "lonely needs the module 'friend', which is not installed",
    "train mymodule:fails --data digits --out new": "mymodule:fails failed: KeyError: 'nothing here'",
    "train mymodule:no_vae --data digits --out new": "mymodule:no_vae must return a pyrovae.VAE, got NoneType",
    "train mymodule:unreadable --data digits": "the arguments of mymodule:unreadable cannot be read: NameError",
    "train mymodule:make_vae --data linear-gaussian --out new": "Shape mismatch inside plate('data') at site latent",
    "train mymodule:make_vae --data digits --out new": "'obs': Expected value argument (Tensor of shape (128, 64))",
    "train mymodule:mismatch --data digits --out new": "mat1 and mat2 shapes cannot be multiplied (128x64 and 32x6)",
    "train mymodule:make_vae --data digits --out new --size medium": "invalid choice: 'medium'",
    "evaluate": "required: RUN",
    "evaluate nowhere": "nowhere is no run folder",
    "evaluate gaussian --num-samples 0": "--num-samples must be at least 1, got 0",
    "evaluate gaussian --num-samples 5 --num-rows 0": "--num-rows must be at least 1, got 0",
    "evaluate gaussian --num-samples 5 --num-rows -3": "--num-rows must be at least 1, got -3",
    "evaluate gaussian --num-samples 5 --chunk-size 0": "--chunk-size must be at least 1",
    "evaluate gaussian --compile --inference-gap": "--compile is not for --inference-gap; leave out one of them",
    "evaluate gaussian --num 5": "unknown arguments: --num 5 (see pyrovae evaluate --help)",
    "evaluate gaussian --split all": "invalid choice: 'all' (choose from 'train', 'validation', 'test')",
    "evaluate gaussian --pair mymodule:make_vae": "is a run of the pair gaussian, not mymodule:make_vae",
    "evaluate own --pair mymodule:another": "is a run of the pair mymodule:make_vae, not mymodule:another",
    "evaluate own --pair gaussian": "is a run of the pair mymodule:make_vae, not gaussian",
    "evaluate no-json": "no-json/config.json is damaged",
    "evaluate no-pair": "no-pair/config.json is damaged: it lacks a str 'pair'",
    "evaluate odd-data": "no data set, file or folder 'digitz'",
    "evaluate odd-option": "pair 'gaussian' has no option 'latent'; it has latent_dim, ",
    "evaluate newer": "newer/config.json has format version 99",
    "evaluate truncated": "truncated/model.safetensors is damaged or truncated",
    "evaluate no-weights": "no-weights/model.safetensors does not exist",
    "evaluate other-net": "other-net/model.safetensors is of another architecture",
    "evaluate foreign": "foreign/model.safetensors was not written by pyrovae",
    "resume truncated": "truncated/last/state.safetensors is damaged or truncated",
    "sample gaussian": "required: --out",
    "sample gaussian --out x.jpg": "--out: must end in .png, .csv or .npz (tables: also .csv.gz, .parquet), got x.jpg",
    "sample gaussian --out x.csv --num 0": "--num must be at least 1, got 0",
    "sample gaussian --out x.csv --output median": "invalid choice: 'median' (choose from 'draw', 'mean', 'mode')",
    "sample gaussian --out mymodule.py/x.csv": "mymodule.py",
    "sample gaussian --out mymodule.py/x.npz": "mymodule.py",
    "sample gaussian --out mymodule.py/x.png": "mymodule.py",
    "sample truncated --out x.csv": "truncated/model.safetensors is damaged",
    "plot gaussian --format jpg": "invalid choice: 'jpg'",
    "plot truncated": "truncated/model.safetensors is damaged",
    "datasets digits iris": "unknown arguments: iris (see pyrovae datasets --help)",
}


@pytest.fixture(scope="module")
def bad_folder(trained, tmp_path_factory):
    """The trained runs and damaged copies of one of them."""
    folder = tmp_path_factory.mktemp("bad")
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    (folder / "broken.py").write_text("def make_vae(:\n")
    (folder / "lonely.py").write_text("import friend\n")
    config = json.loads((folder / "gaussian/config.json").read_text())
    del config["digest"]  # as of configurations that were edited on purpose
    configs = {
        "no-pair": {name: value for name, value in config.items() if name != "pair"},
        "odd-data": {**config, "data": {"name": "digitz"}},
        "odd-option": {**config, "pair_options": {"latent": 3}},
        "newer": {**config, "format_version": 99},
        "other-net": {**config, "pair_options": {**config["pair_options"], "latent_dim": 5}},
    }
    for name in ("no-json", "truncated", "no-weights", "foreign", *configs):
        shutil.copytree(folder / "gaussian", folder / name)
    for name, changed in configs.items():
        (folder / name / "config.json").write_text(json.dumps(changed))
    (folder / "no-json/config.json").write_text('{"format_version": 1, "pair"')
    (folder / "no-weights/model.safetensors").unlink()
    save_file({"weight": torch.zeros(3)}, folder / "foreign/model.safetensors")
    for name in ("model.safetensors", "last/state.safetensors"):
        path = folder / "truncated" / name
        path.write_bytes(path.read_bytes()[:-100])
    return folder


@pytest.mark.parametrize("words", BAD_INPUT)
def test_bad_input(words, bad_folder, monkeypatch, capsys):
    enter(bad_folder, monkeypatch)
    before = files_in(bad_folder)
    try:
        line = error_of(words.split(), capsys)
        assert files_in(bad_folder) == before, "nothing is written"
    finally:
        shutil.rmtree("new", ignore_errors=True)
    assert BAD_INPUT[words] in line
    assert len(line) < 330, "a line, not a page"
