"""Conditions and computed values in policies: a typed, bounded subset of CEL (Common Expression Language).

`compile_expression` turns text into a `Program`, or tells everything that is wrong with it. The stages, one module
each: `lexer`, `parser` -> tree (`nodes`) -> `checker` (`types`) -> `cost` -> `generator`, with `evaluator` as the
reference that the generated code falls back on. Why not a library: docs/decisions/0001-conditions.md.
"""

from shared.policy.cel.describe import Label, Language, describe, describe_part
from shared.policy.cel.environment import Environment
from shared.policy.cel.functions import Function
from shared.policy.cel.limits import DEFAULT_LIMITS, Limits
from shared.policy.cel.problems import EvaluationError, ExpressionError, Problem, near_miss
from shared.policy.cel.program import Program, compile_expression, compile_value
from shared.policy.cel.types import (
    BOOL,
    DATE,
    DURATION,
    DYN,
    INSTANT,
    INT,
    MONEY,
    NULL,
    STRING,
    EnumType,
    ListType,
    MapType,
    RecordType,
    Scalar,
    Type,
)

__all__ = [
    "BOOL",
    "DATE",
    "DEFAULT_LIMITS",
    "DURATION",
    "DYN",
    "INSTANT",
    "INT",
    "MONEY",
    "NULL",
    "STRING",
    "EnumType",
    "Environment",
    "EvaluationError",
    "ExpressionError",
    "Function",
    "Label",
    "Language",
    "Limits",
    "ListType",
    "MapType",
    "Problem",
    "Program",
    "RecordType",
    "Scalar",
    "Type",
    "compile_expression",
    "compile_value",
    "describe",
    "describe_part",
    "near_miss",
]
