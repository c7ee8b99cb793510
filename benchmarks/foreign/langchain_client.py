# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""LangChain against our server: `python langchain_client.py URL` prints what was checked."""

import json
import sys

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

CALL = '<tool_call>{"name": "weather", "arguments": {"town": "Bern"}}</tool_call>'


@tool
def weather(town: str) -> str:
    """The weather of a town."""
    return f"rain in {town}"


def main(url: str) -> dict[str, bool]:
    """Call everything; returns what went well."""
    common = {"base_url": f"{url}/v1", "api_key": "none", "max_retries": 0}
    chat = ChatOpenAI(model="echo", **common)
    done = {}

    answer = chat.invoke([SystemMessage("Be."), HumanMessage("hé")])
    usage = answer.usage_metadata
    done["chat"] = answer.content == "Be.\nhé\n" and usage["total_tokens"] == 16

    pieces = list(chat.stream("one two three"))
    done["stream"] = "".join(piece.content for piece in pieces) == "one two three\n"

    done["batch"] = [one.content for one in chat.batch(["a", "b"])] == ["a\n", "b\n"]

    tooled = chat.bind_tools([weather])
    called = tooled.invoke(CALL)
    calls = called.tool_calls
    done["tools"] = [(c["name"], c["args"]) for c in calls] == [("weather", {"town": "Bern"})]
    streamed = None
    for piece in tooled.stream(CALL):
        streamed = piece if streamed is None else streamed + piece
    done["tools_stream"] = [c["args"] for c in streamed.tool_calls] == [{"town": "Bern"}]
    result = ToolMessage(weather.invoke(calls[0]["args"]), tool_call_id=calls[0]["id"])
    final = tooled.invoke([HumanMessage("?"), AIMessage("", tool_calls=calls), result])
    done["tools_round_trip"] = final.content == "?\n\nrain in Bern\n"

    schema = {"title": "Town", "type": "object", "properties": {"name": {"type": "string"}}}
    structured = chat.with_structured_output(schema, method="json_schema")
    done["structured"] = structured.invoke('{"name": "Bern"}') == {"name": "Bern"}

    logged = chat.bind(logprobs=True, top_logprobs=1).invoke("a")
    done["logprobs"] = logged.response_metadata["logprobs"]["content"][0]["token"] == "a"

    asked = ChatOpenAI(model="echo", use_responses_api=True, **common).invoke("hé")
    done["responses"] = asked.text == "hé\n"

    done["completions"] = OpenAI(model="echo", max_tokens=20, **common).invoke("abc") == "abc"

    embed = OpenAIEmbeddings(model="echo", check_embedding_ctx_length=False, **common)
    vectors = embed.embed_documents(["abc", "x"])
    done["embeddings"] = [len(vector) for vector in vectors] == [8, 8]
    return done


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
