"""Ships the configs within the package; all else about it stands in setup.cfg.

The configs lie at the top of the repository, where a reader looks for them. An installed package has them as
``pet_cifar/configs``, from where ``--config NAME`` takes them.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["pet_cifar*"]), "pet_cifar.configs"],
    package_dir={"pet_cifar.configs": "configs"},
    package_data={
        "pet_cifar": ["py.typed"],
        "pet_cifar.doctor": ["*.jinja"],
        "pet_cifar.runs": ["*.jinja"],
        "pet_cifar.runs.exercise": ["*.jinja"],
        "pet_cifar.runs.report": ["*.jinja"],
        "pet_cifar.configs": ["*.yaml"],
    },
)
