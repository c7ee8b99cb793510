# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""LiteLLM against our server: `python litellm_client.py URL` prints what was checked."""

import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would fetch a list of prices

import litellm

CALL = '<tool_call>{"name": "weather", "arguments": {"town": "Bern"}}</tool_call>'
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}


def main(url: str) -> dict[str, bool]:
    """Call everything; returns what went well."""
    common = {"model": "openai/echo", "api_base": f"{url}/v1", "api_key": "none", "max_retries": 0}
    done = {}

    def chat(text: str, **more: object) -> object:
        return litellm.completion(messages=[{"role": "user", "content": text}], **common, **more)

    answer = chat("hé", temperature=0.5, seed=1, user="me")
    done["chat"] = answer.choices[0].message.content == "hé\n" and answer.usage.total_tokens == 8

    pieces = chat("one two", stream=True, stream_options={"include_usage": True})
    text = "".join(c.delta.content or "" for piece in pieces for c in piece.choices)
    done["stream"] = text == "one two\n"

    calls = chat(CALL, tools=[TOOL]).choices[0].message.tool_calls
    done["tools"] = [c.function.arguments for c in calls] == ['{"town": "Bern"}']

    rebuilt = litellm.stream_chunk_builder(list(chat(CALL, tools=[TOOL], stream=True)))
    done["tools_stream"] = rebuilt.choices[0].message.tool_calls[0].function.name == "weather"

    answer = chat('{"a": 1}', response_format={"type": "json_object"})
    done["json"] = json.loads(answer.choices[0].message.content) == {"a": 1}

    answer = chat("<think>hm</think>yes")
    done["reasoning"] = answer.choices[0].message.reasoning_content == "hm"

    answer = litellm.text_completion(
        **{**common, "model": "text-completion-openai/echo"}, prompt="abc"
    )
    done["completions"] = answer.choices[0].text == "abc"

    vectors = litellm.embedding(input=["abc", "x"], **common)
    done["embeddings"] = [len(one["embedding"]) for one in vectors.data] == [8, 8]

    asked = litellm.responses(input="hé", **common)
    done["responses"] = asked.output[0].content[0].text == "hé\n"

    try:
        chat("x" * 5000)
    except litellm.ContextWindowExceededError:
        done["too_long"] = True
    return done


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
