"""Adaptation methods: one file each, registered by name."""

from adapters.methods import linear, logistic, pointwise, spatial, zero_shot
from adapters.methods.base import FitContext, Fitted, Method
from adapters.methods.registry import get_method, method_names, register

for _module in (zero_shot, logistic, linear, pointwise, spatial):
    register(_module.METHOD)

__all__ = ["FitContext", "Fitted", "Method", "get_method", "method_names", "register"]
