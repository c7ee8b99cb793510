# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`/v1/embeddings`."""

import base64
import math
import struct

import pytest
from tests.serve.live import client_of, error_of

PATH = "/v1/embeddings"


@pytest.fixture(scope="module")
def client():
    with client_of() as client:
        yield client


def ask(client, given="abc", **fields):
    return client.post(PATH, json={"model": "echo", "input": given, **fields})


def test_vectors(client):
    answer = ask(client, ["abc", "x"]).json()
    assert (answer["object"], answer["model"]) == ("list", "echo")
    assert answer["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert [one["index"] for one in answer["data"]] == [0, 1]
    first, second = (one["embedding"] for one in answer["data"])
    assert len(first) == len(second) == 8
    assert math.hypot(*first) == pytest.approx(1)
    assert first != second
    assert ask(client, [97, 98, 99]).json()["data"][0]["embedding"] == first
    assert ask(client, [[97, 98, 99]]).json()["data"][0]["embedding"] == first


def test_base64_is_the_same(client):
    plain = ask(client).json()["data"][0]["embedding"]
    coded = ask(client, encoding_format="base64").json()["data"][0]["embedding"]
    assert struct.unpack("<8f", base64.b64decode(coded)) == pytest.approx(plain)


def test_fewer_dimensions(client):
    whole = ask(client).json()["data"][0]["embedding"]
    cut = ask(client, dimensions=4).json()["data"][0]["embedding"]
    size = math.hypot(*whole[:4])
    assert cut == pytest.approx([x / size for x in whole[:4]])
    assert error_of(ask(client, dimensions=9))["param"] == "dimensions"
    # 'h' is the only token, its remainder is 0: nothing is left of it in no other place
    assert ask(client, "a", dimensions=1).json()["data"][0]["embedding"] == [0.0]


def test_what_is_refused(client):
    assert error_of(ask(client, "a" * 5000))["code"] == "context_length_exceeded"
    assert ask(client, "a" * 4095).status_code == 200
    for given in ("", [], [[]], [1, "a"], None):
        assert error_of(ask(client, given))
    assert error_of(ask(client, encoding_format="int8"))["param"] == "encoding_format"
