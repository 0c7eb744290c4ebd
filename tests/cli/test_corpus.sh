#!/bin/sh
# test_corpus.sh - tools/corpus without packages or network: the same prompts twice, true answers,
# calls that fit their tools, and a proof of disjointness that finds what is planted.
set -u
build=${DSTAR_BUILD:-build}
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
    echo "ok 1 # SKIP no python3 of version 3.9"
    exit 0
fi
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=tools/corpus DSTAR_BUILD="$build"
exec python3 - <<'END'
import json, os, re, subprocess, sys, tempfile
import corpus_agent, corpus_code, corpus_math, corpus_sources, disjoint
from corpus_dice import Dice

n = 0
def check(what, good):
    global n
    n += 1
    print("%sok %d - %s" % ("" if good else "not ", n, what))

package = corpus_sources.packages()[0]
files = [corpus_sources.CodeFile(package, p, "c", corpus_sources.read_text(p))
         for p in ("src/text/bpe.c", "src/base/buf.c", "src/format/gguf_read.c")]
page = corpus_sources.Page(package, "model.md", corpus_sources.read_text("docs/model.md"))

def prompts(seed):
    out = []
    for i in range(40):
        d = Dice(seed, i)
        file = d.pick(files)
        chunk = (file, d.pick(file.chunks(10, 70)))
        out.append({"messages": corpus_math.problem(d, i % 2 == 0)[0], "thinking": i % 2 == 0})
        out.append({"messages": corpus_code.dialogue(d, chunk, i % 2 == 0),
                    "thinking": i % 2 == 0})
        messages, tools = corpus_agent.dialogue(d, (files, chunk), page, i % 2 == 0)
        out.append({"messages": messages, "tools": tools, "thinking": i % 2 == 0})
    return out

made = prompts("test")
check("the same prompts twice", made == prompts("test") and made != prompts("other"))
check("dice are the same everywhere", Dice("a", 1).below(1000) == 390
      and Dice("order").shuffled(range(8)) == [3, 1, 0, 6, 2, 5, 4, 7])

def root_wrong(i):
    question, _, answer = corpus_math.quadratic(Dice("root", i))
    a, b, c = re.fullmatch(r".* x with (.*) = 0\.", question)[1], 0, 0
    value = lambda x: eval(re.sub(r"(?<=\d)x", "*x", a).replace("^", "**"), {"x": x})
    return any(value(int(x)) for x in re.findall(r"x = (-?\d+)", answer))
check("roots are roots", not any(root_wrong(i) for i in range(100)))

def calls_fit(prompt):
    schema = {t["function"]["name"]: t["function"]["parameters"] for t in prompt["tools"]}
    open_calls = []
    for m in prompt["messages"]:
        if m["role"] == "tool":
            if not open_calls or open_calls.pop(0) != m["tool_call_id"]:
                return False
            continue
        if open_calls:
            return False
        for call in m.get("tool_calls", ()):
            given = json.loads(call["function"]["arguments"])
            known = schema[call["function"]["name"]]
            open_calls.append(call["id"])
            if not set(known["required"]) <= set(given) <= set(known["properties"]):
                return False
    return not open_calls
check("calls fit their tools and are answered", all(calls_fit(p) for p in made if "tools" in p))
check("only who thinks has thoughts", all(
    ("reasoning_content" in m) <= p["thinking"] for p in made for m in p["messages"]))
planted = [corpus_code.plant(Dice("plant", i), f.lines[b:e]) for i, f in enumerate(files)
           for b, e in f.chunks(10, 70)]
check("a planted fault is a change", any(planted) and all(
    p[0] != f.lines[b:e] for p, (f, b, e) in
    zip(planted, ((f, b, e) for f in files for b, e in f.chunks(10, 70))) if p))

with tempfile.TemporaryDirectory() as work:
    os.makedirs(work + "/tests/data")
    with open(work + "/tests/data/a.jsonl", "w") as file:
        file.write(json.dumps({"x": ["The quick brown fox jumps over one lazy dog while nine small "
                                     "birds watch it closely",
                                     "天地玄黄宇宙洪荒日月盈昃辰宿列张"]}) + "\n")
    found = disjoint.evaluation_runs(work)[0]
    def hits(text):
        line = json.dumps({"id": "p", "messages": [{"role": "user", "content": text}]})
        return len(list(disjoint.overlaps([line], found)))
    check("thirteen words are found, twelve are not", hits(
        "So: THE QUICK, brown fox jumps over one lazy dog while nine small birds? Yes.") == 1 and
        hits("So: the quick brown fox jumps over one lazy dog while nine small. Yes.") == 0)
    check("so are thirteen characters", 1 == hits(
        "你说天地玄黄，宇宙洪荒，日月盈昃辰。") and 0 == hits(
        "天地玄黄，宇宙洪荒，日月盈昃。"))
    with open(work + "/corpus.jsonl", "w") as file:
        for p in made:
            file.write(json.dumps(dict(p, id="x")) + "\n")
    def verdict():
        return subprocess.run([sys.executable, "tools/corpus/disjoint.py", work + "/corpus.jsonl",
                               work], capture_output=True).returncode
    clean = verdict()
    with open(work + "/corpus.jsonl", "a") as file:
        file.write(json.dumps({"id": "y", "messages": [{"role": "assistant", "tool_calls": [{
            "function": {"arguments": json.dumps(
                {"text": "天地玄黄宇宙洪荒日月盈昃辰宿列张"})}
        }]}]}) + "\n")
    check("an overlap inside a call's arguments fails", (clean, verdict()) == (0, 1))
    dstar = os.environ["DSTAR_BUILD"] + "/dstar"
    if os.path.exists(dstar) and os.path.exists(os.environ["DSTAR_BUILD"] + "/pebble.gguf"):
        with open(work + "/corpus.jsonl", "w") as file:
            for p in made:
                file.write(json.dumps(p) + "\n")
        ids = subprocess.run([dstar, "tokenize", "--jsonl", "-f", work + "/corpus.jsonl"],
                             capture_output=True, text=True)
        lines = [json.loads(line) for line in ids.stdout.splitlines()]
        check("dstar renders every prompt", ids.returncode == 0 and len(lines) == len(made)
              and all(len(line) > 20 for line in lines))
print("1..%d" % n)
END
