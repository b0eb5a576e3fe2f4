"""Backbones: a crop in, a feature map out. `docs/how-to/extending.md` tells how to add one."""

from str_app.models.backbones.base import BackboneConfig
from str_app.models.backbones.resnet import ResNetConfig

BACKBONES: dict[str, type[BackboneConfig]] = {"resnet": ResNetConfig}
