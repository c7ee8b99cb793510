# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Settings of a request as the engine's."""

import pytest

from openllm.engine.request import SamplingParams, Structure
from openllm.serve.errors import ApiError
from openllm.serve.openai.schemas import Sampling, as_list, only


def test_nothing_given_is_the_engines_default_but_for_a_random_seed():
    params = [Sampling.parse({}).params(9) for _ in range(20)]
    assert len({one.seed for one in params}) == 20
    assert params[0] == SamplingParams(max_new_tokens=9, seed=params[0].seed)


def test_null_is_as_if_it_were_not_given():
    nothing = dict.fromkeys(Sampling.model_fields)
    params = Sampling.parse(nothing).params(9)
    assert params == SamplingParams(max_new_tokens=9, seed=params.seed)


def test_all_settings_arrive():
    given = {
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 4,
        "min_p": 0.1,
        "typical_p": 0.9,
        "repetition_penalty": 1.1,
        "presence_penalty": -1,
        "frequency_penalty": 2.0,
        "logit_bias": {"7": -100, "8": 1.5},
        "stop": ["a", "b"],
        "stop_token_ids": [3, 4],
        "ignore_eos": True,
        "min_tokens": 2,
        "seed": 11,
    }
    structure = Structure(kind="regex", value="a+")
    params = Sampling.parse(given).params(9, n=2, structure=structure, logprobs=3, best_of=5)
    assert params == SamplingParams(
        max_new_tokens=9,
        min_new_tokens=2,
        temperature=0.0,
        top_k=4,
        top_p=0.5,
        min_p=0.1,
        typical_p=0.9,
        repetition_penalty=1.1,
        presence_penalty=-1.0,
        frequency_penalty=2.0,
        logit_bias={7: -100.0, 8: 1.5},
        stop=("a", "b"),
        stop_ids=(3, 4),
        ignore_eos=True,
        n=2,
        best_of=5,
        logprobs=3,
        seed=11,
        structure=structure,
    )


def test_values_that_openai_allows_and_the_engine_does_not():
    params = Sampling.parse({"top_p": 0, "top_k": -1, "seed": -3, "stop": "x"}).params(1)
    assert 0 < params.top_p < 1e-6
    assert (params.top_k, params.seed, params.stop) == (0, 2**63 - 3, ("x",))
    assert Sampling.parse({"seed": -3}).params(1).seed == params.seed


@pytest.mark.parametrize(
    ("given", "structure"),
    [
        ({"guided_json": {"a": 1}}, Structure(kind="json_schema", value={"a": 1})),
        ({"guided_json": "{}"}, Structure(kind="json_schema", value={})),
        ({"guided_json": {}}, Structure(kind="json_schema", value={})),
        ({"guided_regex": "a"}, Structure(kind="regex", value="a")),
        ({"guided_choice": ["a", "b"]}, Structure(kind="choice", value=("a", "b"))),
        ({"guided_grammar": "start: A"}, Structure(kind="grammar", value="start: A")),
        ({"structured_outputs": {"json": {}}}, Structure(kind="json_schema", value={})),
        ({"structured_outputs": {"json_object": True}}, Structure(kind="json_object")),
        ({"structured_outputs": {"json_object": False}}, None),
        ({"structured_outputs": {"choice": ["a"]}}, Structure(kind="choice", value=("a",))),
        ({}, None),
    ],
)  # fmt: skip
def test_structures(given, structure):
    assert only(Sampling.parse(given).structures()) == structure


def test_two_structures_are_one_too_many():
    body = Sampling.parse({"guided_regex": "a", "structured_outputs": {"regex": "b"}})
    with pytest.raises(ApiError, match="one structure"):
        only(body.structures())


def test_prompts_one_by_one():
    assert as_list("ab") == ["ab"]
    assert as_list(["a", "b"]) == ["a", "b"]
    assert as_list([1, 2]) == [[1, 2]]
    assert as_list([[1], [2, 3]]) == [[1], [2, 3]]
