"""chat.py - dialogues in the vendor's markup, with the part that the model has to write marked.

Follows the vendor's encoder (encoding_dsv4.py, MIT, DeepSeek) for the roles used here: system,
user, assistant, tool. Without declared tools, reasoning of all but the last answer is dropped, as
the vendor does; with tools it stays. The text of the tools block is the vendor's, byte for byte."""
import json

from tokenizer import ASSISTANT, BOS, DSML, END_THINK, EOS, THINK, USER

TOOLS_BLOCK = """## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by \
writing a "<｜DSML｜tool_calls>" block like the following:

<｜DSML｜tool_calls>
<｜DSML｜invoke name="$TOOL_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE\
</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$TOOL_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜tool_calls>

String parameters should be specified as is and set `string="true"`. For all other types \
(numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning \
inside <think>...</think> BEFORE any tool calls or final response.

Otherwise, output directly after </think> with tool calls or final response.

### Available Tool Schemas

{schemas}

You MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.
"""

PROMPT, REASON, ANSWER = 0, 1, 2


def dumps(x):
    return json.dumps(x, ensure_ascii=False)


def calls_text(calls):
    """calls: [(name, {key: value})]"""
    out = "<%stool_calls>\n" % DSML
    for name, args in calls:
        params = ['<%sparameter name="%s" string="%s">%s</%sparameter>' % (
            DSML, k, "true" if isinstance(v, str) else "false",
            v if isinstance(v, str) else dumps(v), DSML) for k, v in args.items()]
        out += '<%sinvoke name="%s">\n%s\n</%sinvoke>\n' % (DSML, name, "\n".join(params), DSML)
    return out + "</%stool_calls>" % DSML


def user(text):
    return {"role": "user", "content": text}


def tool(text, id=""):
    return {"role": "tool", "content": text, "tool_call_id": id}


def assistant(text, reason=None, calls=None):
    m = {"role": "assistant", "content": text}
    if reason is not None:
        m["reasoning_content"] = reason
    if calls:
        m["calls"] = calls
    return m


class Dialogue:
    """messages as above; skill names what is measured; weight scales the loss of its answers."""

    def __init__(self, skill, messages, system="", tools=None, thinking=False, weight=1.0):
        self.skill, self.messages, self.thinking = skill, messages, thinking
        self.system, self.tools, self.weight = system, tools, weight

    def judged(self):
        """Indices of the assistant messages that are the model's to write."""
        at = [i for i, m in enumerate(self.messages) if m["role"] == "assistant"]
        return at[-1:] if self.thinking and not self.tools else at

    def _keeps_reason(self, i):
        return self.thinking and (bool(self.tools) or i == self.judged()[-1])

    def _answer(self, i):
        m, segments = self.messages[i], []
        if self._keeps_reason(i):
            segments.append((m.get("reasoning_content", "") + END_THINK, REASON))
        calls = "\n\n" + calls_text(m["calls"]) if m.get("calls") else ""
        return segments + [(m["content"] + calls + EOS, ANSWER)]

    def segments(self):
        """[(text, PROMPT, REASON or ANSWER)], cut only beside markers."""
        head = BOS + self.system
        if self.tools:
            schemas = "\n".join(dumps(t) for t in self.tools)
            head += "\n\n" + TOOLS_BLOCK.replace("{schemas}", schemas)
        out, blocks = [(head, PROMPT)], []
        for i, m in enumerate(self.messages):
            if m["role"] == "assistant":
                mark = THINK if self._keeps_reason(i) else END_THINK
                out.append((USER + "\n\n".join(blocks) + ASSISTANT + mark, PROMPT))
                out += self._answer(i)
                blocks = []
            else:
                wrap = "<tool_result>%s</tool_result>" if m["role"] == "tool" else "%s"
                blocks.append(wrap % m["content"])
        return out

    def text(self):
        return "".join(t for t, _ in self.segments())

    def completion(self, i):
        """What the model has to write as message i, without the end marker."""
        return "".join(t for t, _ in self._answer(i))[:-len(EOS)]

    def record(self, name):
        """The dialogue for a held-out file: API messages, and the exact text of each answer."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        n_call, waiting, shift = 0, [], len(messages)
        for m in self.messages:
            m = dict(m)
            calls = m.pop("calls", None)
            if calls:
                waiting = ["call_%d" % (n_call + k) for k in range(len(calls))]
                n_call += len(calls)
                m["tool_calls"] = [
                    {"id": c, "type": "function",
                     "function": {"name": f, "arguments": dumps(a)}}
                    for c, (f, a) in zip(waiting, calls)]
            if m["role"] == "tool":
                m["tool_call_id"] = waiting.pop(0)
            messages.append(m)
        out = {"id": name, "skill": self.skill, "thinking": self.thinking, "messages": messages}
        if self.tools:
            out["tools"] = [{"type": "function", "function": t} for t in self.tools]
        out["expect"] = [{"message": i + shift, "answer": self.messages[i]["content"],
                          "completion": self.completion(i)} for i in self.judged()]
        return out
