"""The answer to an unknown option, class or word: the option that the user probably means."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.util import find_spec

from pet_cifar.errors import did_you_mean, nearest

OTHER_TOOLS = {
    "--ckpt_path": ("resume_from", "resume_from_checkpoint", "checkpoint", "ckpt"),
    "--data": ("dataset", "datamodule"),
    "--data.batch_size": ("b", "bs", "batch", "batchsize"),
    "--data.image_size": ("imgsz", "img_size", "input_size", "resolution", "size"),
    "--data.num_workers": ("j", "workers"),
    "--data.root": ("data_dir", "data_path", "dataset_dir"),
    "--data.val_fraction": ("val_split", "validation_split"),
    "--model": ("a", "arch", "architecture", "net", "network"),
    "--model.lr": ("learning_rate", "lr", "lr0"),
    "--model.optimizer": ("opt", "optimiser"),
    "--model.schedule": ("scheduler", "lr_schedule"),
    "--model.weight_decay": ("wd",),
    "--model.weights": ("pretrained", "weights"),
    "--seed_everything": ("seed", "random_seed"),
    "--trainer.accelerator": ("device", "cpu", "cuda"),
    "--trainer.devices": ("gpu", "gpus", "n_gpus", "ngpu", "num_gpus"),
    "--trainer.max_epochs": ("e", "epoch", "epochs", "n_epochs", "num_epochs"),
    "--trainer.precision": ("amp", "bf16", "fp16", "half"),
}
"""Our options, each with the names that it has in other tools (Keras, timm, Ultralytics, older Lightning)."""

_VALUES = {
    "--ckpt_path": "RUN_DIR/checkpoints/last.ckpt",
    "--data": "CIFAR10DataModule",
    "--model": "ResidualCNN",
    "--model.optimizer": "adamw",
    "--model.schedule": "one_cycle",
    "--model.weights": "FILE",
    "--trainer.accelerator": "gpu",
    "--trainer.precision": "bf16-mixed",
}
"""Values of the options whose values in other tools are others than ours."""

_SECTIONS = ("data", "model", "trainer")


def unknown_option(name: str, value: str | None, options: Mapping[str, Sequence[str]]) -> str:
    """The line about an option that does not exist.

    Args:
        name: The option as the user wrote it, such as ``--lr``.
        value: The value that follows it.
        options: All options that there are, without their dashes. Those that the chosen net or data module lacks name
            the classes that have them.
    """
    meant = meant_option(name, options)
    if meant is None:
        return f"{name}: there is no such option{did_you_mean(name, [f'--{one}' for one in options])}"
    if meant in _VALUES and not (value or "").endswith(".ckpt"):
        value = _VALUES[meant]
    owners = options.get(meant.removeprefix("--"), ())
    whose = f", an option of {' and '.join(owners)}" if owners else ""
    return f"{name}: there is no such option; give {meant}{f' {value}' if value else ''}{whose}"


def unknown_key(key: str, options: Mapping[str, Sequence[str]]) -> str:
    """The line about a key of a config that does not exist.

    Args:
        key: The key.
        options: All options that there are, as for `unknown_option`.
    """
    meant = meant_option(key, options) or f"--{nearest(key, options) or ''}"
    section, _, name = meant.removeprefix("--").partition(".")
    if not section:
        return f"there is no key {key}; a config has keys such as model, data and trainer"
    where = {"model": " under init_args of model", "data": " under init_args of data", "trainer": " under trainer"}
    return f"there is no key {key}; write {name or section}{where.get(section, '') if name else ''}"


def meant_option(name: str, options: Collection[str]) -> str | None:
    """The option that has this name in another tool, or that ends in this name here."""
    key = name.lstrip("-").replace("-", "_").lower()
    last = key.rpartition(".")[2]
    sections = {option.partition(".")[0] for option in options}
    for option, names in OTHER_TOOLS.items():
        if last in names and option.removeprefix("--").partition(".")[0] in sections:
            return option
    ending = [
        option
        for section in _SECTIONS
        for option in options
        if option.startswith(section) and option.endswith(f".{last}")
    ]
    return f"--{ending[0]}" if ending else None


def stray_word(word: str, options: Mapping[str, Sequence[str]], configs: Iterable[str]) -> str:
    """The line about a word that is neither an option nor the value of one.

    Args:
        word: The word, such as ``lr=0.1``.
        options: All options that there are, as for `unknown_option`.
        configs: The names of the shipped configs.
    """
    key, equals, value = word.partition("=")
    if equals and key:
        if key in options:
            return f"{word}: an option begins with two dashes; give --{key} {value}"
        return unknown_option(key, value, options).replace(f"{key}: there", f"{word}: there", 1)
    stem = word.rpartition("/")[2].removesuffix(".yaml")
    if word.endswith((".yaml", ".yml")) or stem in set(configs):
        return f"{word}: a config is given as --config {word}"
    return f"{word}: this word follows no option; see pet-cifar COMMAND --help{did_you_mean(word, configs)}"


def unknown_class(option: str, name: str, classes: Sequence[str], more: str = "") -> str:
    """The line about a class that does not exist.

    Args:
        option: The option that takes the class, such as ``model``.
        name: The class as the user wrote it.
        classes: The names of the classes that there are.
        more: What the option takes beside a class, in words.
    """
    near = nearest(name, classes)
    if near is None and option == "model" and is_timm_net(name):
        return f"--model {name}: this is a net of timm's; give --model TimmClassifier --model.name {name}"
    # There are dozens of callbacks, but few nets and data modules.
    known = f"; there are {', '.join(classes)}" if len(classes) < 12 else f"; see --{option}.help CLASS"
    known += f", or give {more}" if more else ""
    return f"--{option} {name}: there is no such class{known}{did_you_mean(name, classes)}"


def is_timm_net(name: str) -> bool:
    """Whether timm has a net of this name; timm is imported here, where no other answer is left."""
    if find_spec("timm") is None or not name.replace("_", "a").replace(".", "a").isalnum():
        return False
    import timm

    return bool(timm.is_model(name.partition(".")[0]))
