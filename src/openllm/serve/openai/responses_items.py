# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The items of a response, and the events that tell a client how they grow."""

from typing import Any
from uuid import uuid4

Event = dict[str, Any]


class Items:
    """Builds the output of a response from an answer's parts, in the order in which they come.

    Attributes:
        output: the items so far.
    """

    def __init__(self) -> None:
        self.output: list[dict[str, Any]] = []
        self._open: str | None = None  # the kind of the last item, while it grows
        self._calls: dict[int, int] = {}  # index of a call -> that of its item

    def take(self, delta: dict[str, Any], logprobs: dict[str, Any] | None) -> list[Event]:
        """Add a `delta` of a chat; returns the events of it."""
        calls = delta.get("tool_calls", ())
        # what follows a call ends it, so all of that call comes first
        events = [e for call in calls if call["index"] in self._calls for e in self._call(call)]
        if reasoning := delta.get("reasoning_content"):
            events += self._grow("reasoning", reasoning, [])
        shown = logprobs["content"] if logprobs else []
        if delta.get("content") or (shown and self._open == "message"):
            events += self._grow("message", delta.get("content", ""), shown)
        for call in calls:
            if call["index"] not in self._calls:
                events += self._call(call)
        return events

    def finish(self, reason: str | None) -> list[Event]:
        """End the last item; there is a message even if the answer is empty."""
        events: list[Event] = []
        if all(item["type"] == "reasoning" for item in self.output):
            events += self._grow("message", "", [])
        return events + self._close("incomplete" if reason == "length" else "completed")

    @property
    def _place(self) -> dict[str, Any]:
        """Where the last item is, as events say it."""
        return {"item_id": self.output[-1]["id"], "output_index": len(self.output) - 1}

    def _grow(self, kind: str, text: str, logprobs: list[Any]) -> list[Event]:
        events: list[Event] = []
        if self._open != kind:
            events += self._close("completed")
            events += self._begin(kind)
        part = self.output[-1]["content"][0]
        part["text"] += text
        event = {**self._place, "content_index": 0, "delta": text}
        if kind == "reasoning":
            return [*events, {"type": "response.reasoning_text.delta", **event}]
        part["logprobs"] += logprobs
        if not text and not logprobs:
            return events
        return [*events, {"type": "response.output_text.delta", **event, "logprobs": logprobs}]

    def _begin(self, kind: str) -> list[Event]:
        item: dict[str, Any] = {"type": kind, "status": "in_progress"}
        if kind == "message":
            item |= {"id": f"msg_{uuid4().hex}", "role": "assistant"}
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        else:
            item |= {"id": f"rs_{uuid4().hex}", "summary": []}
            part = {"type": "reasoning_text", "text": ""}
        self.output.append({**item, "content": [part]})
        self._open = kind
        added = {**item, "content": []}
        events = [_item("added", len(self.output) - 1, added)]
        if kind == "message":
            event = {"type": "response.content_part.added", **self._place, "content_index": 0}
            events.append({**event, "part": dict(part)})
        return events

    def _close(self, status: str) -> list[Event]:
        if self._open is None:
            return []
        kind, self._open = self._open, None
        item = self.output[-1]
        item["status"] = status
        index = len(self.output) - 1
        if kind == "function_call":
            event = {"type": "response.function_call_arguments.done", **self._place}
            whole = {"name": item["name"], "arguments": item["arguments"]}
            return [{**event, **whole}, _item("done", index, dict(item))]
        part = item["content"][0]
        done = {**self._place, "content_index": 0}
        if kind == "reasoning":
            event = {"type": "response.reasoning_text.done", **done, "text": part["text"]}
            return [event, _item("done", index, item)]
        text = {"text": part["text"], "logprobs": part["logprobs"]}
        return [
            {"type": "response.output_text.done", **done, **text},
            {"type": "response.content_part.done", **done, "part": part},
            _item("done", index, item),
        ]

    def _call(self, call: dict[str, Any]) -> list[Event]:
        """What is new of a call."""
        function, events = call["function"], []
        if call["index"] not in self._calls:
            events += self._close("completed")
            item = {
                "id": f"fc_{uuid4().hex}",
                "type": "function_call",
                "status": "in_progress",
                "call_id": call["id"],
                "name": function.get("name", ""),
                "arguments": "",
            }
            self._open, self._calls[call["index"]] = "function_call", len(self.output)
            self.output.append(item)
            events.append(_item("added", len(self.output) - 1, dict(item)))
        at = self._calls[call["index"]]
        item, arguments = self.output[at], function["arguments"]
        item["arguments"] += arguments
        if arguments:
            place = {"item_id": item["id"], "output_index": at}
            kind = "response.function_call_arguments.delta"
            events.append({"type": kind, **place, "delta": arguments})
        return events


def _item(what: str, index: int, item: dict[str, Any]) -> Event:
    return {"type": f"response.output_item.{what}", "output_index": index, "item": item}
