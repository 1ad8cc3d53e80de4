"""Adaptation methods: one file each, registered by name."""

from adapters.methods import context, linear, logistic, pointwise, prototype, spatial, zero_shot
from adapters.methods.base import FitContext, Fitted, Method
from adapters.methods.registry import get_method, method_names, register

for _module in (zero_shot, prototype, logistic, linear, pointwise, spatial, context):
    register(_module.METHOD)

__all__ = ["FitContext", "Fitted", "Method", "get_method", "method_names", "register"]
