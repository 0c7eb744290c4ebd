"""tool_skill.py - dialogues with tool calls in the vendor's markup.

A request is a user's wish, the call or calls that serve it, what the tools return, and what to say
then. Cases: one call; two calls at once; two calls of which the second needs the first's result;
a tool that fails; a wish for which no declared tool is fit. A dialogue strings several requests
together, because the declaration of the tools is the longest part of the prompt."""
from chat import Dialogue, assistant, dumps, tool, user
from world import WORLD, is_held

TOOLS = {
    "get_weather": ("Get the current weather of a city.", {"city": "string"}),
    "read_file": ("Read a file and return its text.", {"path": "string"}),
    "list_files": ("List the files of a folder.", {"path": "string"}),
    "run_command": ("Run a shell command.", {"command": "string"}),
    "calculator": ("Evaluate an arithmetic expression.", {"expression": "string"}),
    "search": ("Search the encyclopedia.", {"query": "string", "limit": "integer"}),
    "set_timer": ("Set a timer.", {"seconds": "integer", "label": "string"}),
    "write_file": ("Write text to a file.", {"path": "string", "content": "string"}),
}
CITIES = ("Rome Milan Paris London Oslo Cairo Tokyo Lima Quito Delhi Hanoi Kyiv Malta Bonn Turin "
          "Catania Madrid Lisbon Athens Dublin Vienna Prague Berlin Boston").split()
SKIES = ["sunny", "cloudy", "rainy", "windy", "snowy"]
ERRORS = ["not found", "access denied", "timeout", "out of memory", "not available"]
REFUSAL = "I cannot do that: I have no tool for it."


def schema(name):
    text, params = TOOLS[name]
    return {"name": name, "description": text, "parameters": {
        "type": "object", "properties": {k: {"type": t} for k, t in params.items()},
        "required": list(params)}}


def path(rng):
    return (rng.choice(("", "src/", "docs/", "/etc/", "/home/", "notes/")) +
            rng.choice(WORLD.words) + rng.choice((".txt", ".c", ".md", ".json", ".py")))


def phrase(rng, n):
    return " ".join(rng.choice(WORLD.words) for _ in range(n))


# Each: (question, [(name, args)], [result], final text).

def weather(rng):
    c, t, sky = rng.choice(CITIES), rng.randint(-9, 39), rng.choice(SKIES)
    q = rng.choice(("What is the weather in %s?", "Is it warm in %s now?",
                    "How is the weather in %s?")) % c
    return (q, [("get_weather", {"city": c})], [dumps({"temperature": t, "sky": sky})],
            "It is %s in %s, %d degrees." % (sky, c, t))


def read(rng):
    p, text = path(rng), phrase(rng, rng.randint(2, 8))
    q = rng.choice(("What is in %s?", "Read %s.", "Show me the file %s.")) % p
    return q, [("read_file", {"path": p})], [text], "The file %s says: %s" % (p, text)


def listing(rng):
    p = rng.choice(("src", "docs", "/etc", "notes", "/home", rng.choice(WORLD.words)))
    files = [rng.choice(WORLD.words) + rng.choice((".c", ".h", ".md"))
             for _ in range(rng.randint(1, 5))]
    q = rng.choice(("Which files are in %s?", "List the folder %s.")) % p
    return (q, [("list_files", {"path": p})], ["\n".join(files)],
            "The files in %s are: %s" % (p, ", ".join(files)))


def command(rng):
    c = rng.choice(("make", "ls", "git status", "make test", "date", "wc -l %s" % path(rng),
                    "cat %s" % path(rng), "rm %s" % path(rng)))
    r = rng.choice(("ok", "done", phrase(rng, 2), "%s %d" % (phrase(rng, 1), rng.randrange(100))))
    q = rng.choice(("Run %s.", "Please execute the command %s.")) % c
    return q, [("run_command", {"command": c})], [r], "The command %s printed: %s" % (c, r)


def calculate(rng):
    a, b, op = rng.randrange(1000), rng.randrange(1000), rng.choice("+-*")
    e = "%d %s %d" % (a, op, b)
    r = str({"+": a + b, "-": a - b, "*": a * b}[op])
    return ("Use the calculator: what is %s?" % e, [("calculator", {"expression": e})], [r],
            "%s = %s" % (e, r))


def search(rng):
    w, n = rng.choice(WORLD.names), rng.randint(1, 5)
    r = "%s: %s" % (w, WORLD.gloss[w])
    return ("Search the encyclopedia for %s, at most %d results." % (w, n),
            [("search", {"query": w, "limit": n})], [r], "I found this: " + r)


def timer(rng):
    n, w = rng.choice((5, 10, 20, 30, 45, 60, 90, 120, 300, 600)), rng.choice(WORLD.words)
    return ("Set a timer of %d seconds called %s." % (n, w),
            [("set_timer", {"seconds": n, "label": w})], ["done"],
            "The timer %s is set to %d seconds." % (w, n))


def write(rng):
    p, text = path(rng), phrase(rng, rng.randint(1, 5))
    return ('Write "%s" to %s.' % (text, p), [("write_file", {"path": p, "content": text})],
            ["written"], "I wrote the text to %s." % p)


ONE = {"get_weather": weather, "read_file": read, "list_files": listing, "run_command": command,
       "calculator": calculate, "search": search, "set_timer": timer, "write_file": write}


def two_at_once(rng):
    kind = rng.choice((weather, read, timer, calculate))
    a, b = kind(rng), kind(rng)
    join = {weather: "What is the weather in %s and in %s?", read: "Read %s and %s.",
            timer: None, calculate: "Use the calculator: what is %s, and what is %s?"}[kind]
    if join:
        q = join % tuple(next(iter(x[1][0][1].values())) for x in (a, b))
    else:
        q = a[0] + " " + b[0]
    return q, [a[1] + b[1]], [a[2] + b[2]], a[3] + " " + b[3]


def two_in_turn(rng):
    if rng.random() < 0.5:
        p, to, text = path(rng), path(rng), phrase(rng, rng.randint(1, 6))
        return ("Copy %s to %s." % (p, to),
                [[("read_file", {"path": p})], [("write_file", {"path": to, "content": text})]],
                [[text], ["written"]], "I copied %s to %s." % (p, to))
    c, t, p = rng.choice(CITIES), rng.randint(-9, 39), path(rng)
    return ("Write the temperature of %s to %s." % (c, p),
            [[("get_weather", {"city": c})], [("write_file", {"path": p, "content": str(t)})]],
            [[dumps({"temperature": t, "sky": rng.choice(SKIES)})], ["written"]],
            "I wrote %d to %s." % (t, p))


def request(rng, held):
    """question, rounds of calls, rounds of results, final text"""
    while True:
        kind = rng.random()
        if kind < 0.62:
            q, calls, results, final = rng.choice(list(ONE.values()))(rng)
            calls, results = [calls], [results]
            if kind < 0.1:
                why = rng.choice(ERRORS)
                results, final = [["error: " + why]], "The tool failed: %s." % why
        else:
            q, calls, results, final = (two_at_once if kind < 0.82 else two_in_turn)(rng)
        if is_held(q) == held:
            return q, calls, results, final


def messages_of(rng, held, have):
    q, calls, results, final = request(rng, held)
    needed = [c[0] for r in calls for c in r]
    out = [user(q)]
    if not set(needed) <= set(have):
        return out + [assistant(REFUSAL, "I have no tool for this.")]
    for names, result in zip(calls, results):
        out.append(assistant("", "I need %s." % " and ".join(dict.fromkeys(n for n, _ in names)),
                             names))
        out += [tool(r) for r in result]
    return out + [assistant(final, "I have the result.")]


def dialogue(rng, held, thinking, n_request):
    have = rng.sample(list(TOOLS), rng.randint(1, 5))
    messages = []
    while n_request:
        some = messages_of(rng, held, have)
        # Without this most wishes would find no tool.
        if len(some) == 2 and rng.random() < 0.8:
            continue
        messages += some
        n_request -= 1
    for m in messages:
        if not thinking:
            m.pop("reasoning_content", None)
    system = rng.choice(("", "", "You are a helpful assistant."))
    return Dialogue("tools", messages, system, [schema(n) for n in have], thinking)
