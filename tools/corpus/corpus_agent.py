"""Agents: dialogues in which the assistant calls tools, and the tools really answer.

Half of them work on files of the packages: list, search, read, edit; what a tool returns is what
the files hold. The others keep small worlds of tables (orders, calendars, measurements)
made up for the dialogue, so that every number in an answer follows from the calls before it. Tools
come under varying names and with parameters of every JSON type.
"""
import json
import re

from corpus_dice import PHRASES
from corpus_code import diff, fence, owner, plant


def tool(name, text, **parameters):
    required = [k for k, v in parameters.items() if not v.pop("optional", False)]
    return {"type": "function", "function": {"name": name, "description": text, "parameters": {
        "type": "object", "properties": parameters, "required": required}}}


def string(text, **more):
    return dict(type="string", description=text, **more)


def number(text, kind="integer", **more):
    return dict(type=kind, description=text, **more)


NAMES = [{"read": "read_file", "search": "grep", "list": "list_dir", "edit": "edit_file",
          "run": "run_command"},
         {"read": "Read", "search": "Grep", "list": "Glob", "edit": "Edit", "run": "Bash"},
         {"read": "view", "search": "search_files", "list": "ls", "edit": "str_replace",
          "run": "shell"}]


def file_tools(n):
    return [
        tool(n["read"], "Read lines of a file in the working tree.",
             path=string("Path from the root"),
             offset=number("First line, from 1", optional=True),
             limit=number("Number of lines", optional=True)),
        tool(n["search"], "Search the files for a regular expression; prints path:line: text.",
             pattern=string("Regular expression"), path=string("Folder or file", optional=True),
             ignore_case=number("Ignore case", "boolean", optional=True)),
        tool(n["list"], "List files.", pattern=string("Glob pattern, such as src/*.c")),
        tool(n["edit"], "Replace a piece of text that occurs exactly once.", path=string("File"),
             old_text=string("What is there"), new_text=string("What shall be there")),
        tool(n["run"], "Run a command and return its output.", command=string("Command line"),
             timeout=number("Seconds", optional=True)),
    ]


class Talk:
    """Messages in the making; call() adds a call and what the tool said to it."""

    def __init__(self, d, thinking):
        self.d, self.thinking, self.messages, self.n = d, thinking, [], 0

    def user(self, text):
        self.messages.append({"role": "user", "content": text})

    def call(self, thought, *calls, say=""):
        message = {"role": "assistant", "content": say, "tool_calls": []}
        if self.thinking:
            message["reasoning_content"] = thought
        results = []
        for name, arguments, result in calls:
            key = "call_%d" % self.n
            self.n += 1
            message["tool_calls"].append({"id": key, "type": "function", "function": {
                "name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}})
            results.append({"role": "tool", "tool_call_id": key, "content": result})
        self.messages += [message] + results

    def answer(self, thought, text):
        message = {"role": "assistant", "content": text}
        if self.thinking:
            message["reasoning_content"] = thought
        self.messages.append(message)


def numbered(file, begin, end):
    return "\n".join("%6d\t%s" % (i + 1, file.lines[i]) for i in range(begin, min(end,
                                                                              len(file.lines))))


def grep(files, word, most=12):
    out = []
    for file in files:
        for i, line in enumerate(file.lines):
            if re.search(r"\b%s\b" % re.escape(word), line):
                out.append("%s:%d: %s" % (file.path, i + 1, line.strip()[:140]))
    more = len(out) - most
    return "\n".join(out[:most]) + ("\n(%d more)" % more if more > 0 else "") or "(no match)"


SYSTEM = ["You are a coding agent in a terminal. Use tools to look before you answer; never guess "
          "the contents of files.",
          "You are an autonomous software engineer. Work in small steps and verify each of them.",
          "You help in a repository. Prefer reading over assuming. Be brief.", None]


def coding(d, material, thinking):
    package_files, (file, (begin, end)) = material
    n = d.pick(NAMES)
    talk = Talk(d, thinking)
    lines = file.lines[begin:end]
    planted = plant(d, lines)
    at = planted[1] if planted else len(lines) // 2
    name = owner(lines, at)
    word = name.split(":")[-1] if name != "this piece" else (
        re.findall(r"\w{4,}", "\n".join(lines)) or ["main"])[0]
    near = sorted(package_files, key=lambda f: (f.path != file.path, f.path))[:60]
    fix = planted is not None and d.chance(.6)
    talk.user(d.pick(PHRASES["agent fault" if fix else "agent where"]).format(name=word,
        path=file.path))
    folder = file.path.rsplit("/", 1)[0] if "/" in file.path else "."
    extension = file.path.rsplit(".", 1)[-1]
    if d.chance(.4):
        some = [f.path for f in package_files if f.path.rsplit("/", 1)[0] == folder][:40]
        talk.call("First see what is in the folder.",
                  (n["list"], {"pattern": "%s/*.%s" % (folder, extension)}, "\n".join(some)))
    talk.call("Where does the name `%s` occur? I search for it before I open anything." % word,
              (n["search"], {"pattern": r"\b%s\b" % word, "path": folder},
               grep(near, word)), say=d.pick(["", "", "Let me look for `%s`." % word]))
    context = 4
    shown = file.lines
    if fix:
        shown = file.lines[:begin] + planted[0] + file.lines[end:]
    broken = type(file)(file.package, file.path, file.language, "\n".join(shown))
    first = max(0, begin - context)
    talk.call("The piece around line %d of %s is what matters; read it." % (begin + 1, file.path),
              (n["read"], {"path": file.path, "offset": first + 1,
                           "limit": end - begin + 2 * context},
               numbered(broken, first, end + context)))
    if not fix:
        talk.answer("I have seen the definition and the uses; now answer.",
                    "`%s` is in `%s`, lines %d to %d. Its beginning:\n\n%s" % (
                        word, file.path, begin + 1, end, fence(file.language, "\n".join(
                            lines[:d.between(4, 10)]))))
        if d.chance(.4):
            talk.user(d.pick(PHRASES["agent follow"]))
        return talk.messages, file_tools(n)
    after, at, why = planted
    wrong = after[at] if len(after) == len(lines) else after[at - 1] if at else ""
    right = lines[at] if len(after) == len(lines) else "\n".join(lines[at - 1:at + 1])
    talk.call("Line %d reads `%s`. That cannot be right: %s. I put it back and change nothing else."
              % (begin + at + 1, wrong.strip(), why),
              (n["edit"], {"path": file.path, "old_text": wrong, "new_text": right},
               "1 replacement in %s" % file.path), say=d.pick(["", "Found it: %s." % why]))
    command = {"python": "python3 -m unittest -q", "go": "go test ./...", "rust": "cargo test -q",
               "javascript": "npm test --silent", "ruby": "rake test"}.get(file.language,
                   "make check")
    passed = d.between(8, 340)
    talk.call("Now the tests, and the diff to be sure of what I changed.",
              (n["run"], {"command": command, "timeout": d.pick([60, 120, 300])},
               d.pick(["%d passed in %d.%02d s", "ok: %d tests, %d.%02d s"])
               % (passed, d.between(0, 40), d.below(100))),
              (n["run"], {"command": "git diff"}, diff(file.path, after, lines, begin)))
    talk.answer("All %d tests pass and the diff holds one hunk. Summarise." % passed,
                "Fixed in `%s`: in `%s` %s. I restored the line; %d tests pass." % (
                    file.path, word, why, passed))
    return talk.messages, file_tools(n)


# ---- small worlds -------------------------------------------------------------------------------

CITIES, PEOPLE = PHRASES["cities"], PHRASES["people"]
THINGS = ["desk lamp", "USB-C cable", "kettle", "rain jacket", "notebook A5", "bike pump",
          "headphones",
          "tea sampler", "chess set", "water filter", "power bank", "wool socks"]


def orders(d, talk):
    rows = [{"id": "A%05d" % d.below(100000), "customer": d.pick(PEOPLE), "item": d.pick(THINGS),
             "quantity": d.between(1, 9), "unit_price": d.between(300, 9000) / 100,
             "status": d.pick(["paid", "shipped", "returned", "open"])}
            for _ in range(d.between(6, 14))]
    who = d.pick(rows)["customer"]
    mine = [r for r in rows if r["customer"] == who]
    total = sum(round(r["quantity"] * r["unit_price"], 2) for r in mine
                if r["status"] != "returned")
    talk.user(d.pick(PHRASES["orders"]).format(who))
    talk.call("I need all orders of %s. The search takes a name and a limit." % who,
              ("search_orders", {"customer": who, "limit": 50, "newest_first": True},
               json.dumps({"count": len(mine), "orders": mine}, ensure_ascii=False)))
    terms = ["%d x %.2f = %.2f" % (r["quantity"], r["unit_price"], r["quantity"] * r["unit_price"])
             for r in mine if r["status"] != "returned"]
    talk.answer("Leave out returned ones. %s. Sum: %.2f."
                % ("; ".join(terms) or "None left", total),
                "%s: **%.2f** (%d orders, returns excluded)." % (who, total, len(terms)))
    back = [r for r in mine if r["status"] == "open"]
    if back:
        talk.user("Cancel the open ones.")
        talk.call("%d open: one call for each, they do not depend on each other." % len(back),
                  *[("cancel_order", {"id": r["id"], "reason": "customer request", "refund": True},
                     json.dumps({"id": r["id"], "status": "cancelled"})) for r in back])
        talk.answer("All calls succeeded.", "Cancelled: " + ", ".join(r["id"] for r in back) + ".")
    return [tool("search_orders", "Find orders of a customer.", customer=string("Full name"),
                 limit=number("At most so many"), newest_first=number("Order", "boolean",
                     optional=True)),
            tool("cancel_order", "Cancel an order that is not shipped.", id=string("Order number"),
                 reason=string("Shown to the customer"), refund=number("Pay back", "boolean"))]


def weather(d, talk):
    cities = d.shuffled(CITIES)[:d.between(2, 4)]
    days = d.between(2, 5)
    talk.user(d.pick(PHRASES["weather"]).format(
                          n=days, c=", ".join(cities)))
    data = {c: [{"day": i, "high": d.between(-8, 38), "rain_mm": d.below(200) / 10}
                for i in range(1, days + 1)] for c in cities}
    talk.call("One forecast per city; I can ask for all of them at once.", *[
        ("get_forecast", {"city": c, "days": days, "units": {"temperature": "celsius",
            "rain": "mm"}},
         json.dumps({"city": c, "forecast": data[c]}, ensure_ascii=False)) for c in cities])
    mean = {c: sum(x["high"] for x in data[c]) / days for c in cities}
    best = max(cities, key=lambda c: (mean[c], c))
    talk.answer("Mean of the highs: " + "; ".join("%s %s / %d = %.1f" % (
        c, " + ".join(str(x["high"]) for x in data[c]), days, mean[c]) for c in cities) + ".",
        "**%s**, %.1f °C on average.\n\n| city | mean high | rain |\n|---|---:|---:|\n%s" % (
            best, mean[best], "\n".join("| %s | %.1f | %.1f mm |" % (
                c, mean[c], sum(x["rain_mm"] for x in data[c])) for c in cities)))
    return [tool("get_forecast", "Daily forecast of a city.", city=string("Name of the city"),
                 days=number("1 to 7"), units={"type": "object", "description": "Units",
                                               "properties": {
                     "temperature": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                     "rain": {"type": "string", "enum": ["mm", "in"]}}})]


def calendar(d, talk):
    day = "2031-%02d-%02d" % (d.between(1, 12), d.between(1, 28))
    people = d.shuffled(PEOPLE)[:d.between(2, 3)]
    busy = {p: sorted(d.shuffled(range(9, 17))[:d.between(2, 5)]) for p in people}
    free = [h for h in range(9, 17) if not any(h in busy[p] for p in people)]
    talk.user(d.pick(PHRASES["calendar"]).format(
                          day=day, who=" / ".join(people)))
    talk.call("Get everybody's calendar first.", *[
        ("list_events", {"person": p, "date": day}, json.dumps(
            [{"start": "%02d:00" % h, "end": "%02d:00" % (h + 1)} for h in busy[p]]))
        for p in people])
    work = "; ".join("%s is busy at %s" % (p, ", ".join(map(str, busy[p]))) for p in people)
    if free:
        talk.call("%s. Common free hours: %s. Take the first." % (work, ", ".join(map(str, free))),
                  ("create_event", {"title": "Meeting", "date": day, "start": "%02d:00" % free[0],
                                    "minutes": 60, "attendees": people},
                   json.dumps({"ok": True, "id": "ev-%d" % d.below(10000)})))
        talk.answer("Booked.", "Done: %s at %02d:00 with %s." % (day, free[0], ", ".join(people)))
    else:
        talk.answer(work + ". No hour is free for all.",
                    "There is no common free hour on %s. Shall I try the next day?" % day)
    return [tool("list_events", "Events of a person on a day.", person=string("Name"),
                 date=string("YYYY-MM-DD")),
            tool("create_event", "Create an event.", title=string("Title"),
                 date=string("YYYY-MM-DD"),
                 start=string("HH:MM"), minutes=number("Length"),
                 attendees={"type": "array", "items": {"type": "string"}})]


def database(d, talk):
    rows = [(i, d.pick(CITIES), d.between(2019, 2031), d.between(10, 990)) for i in
            range(1, d.between(8, 20))]
    city = d.pick(rows)[1]
    talk.user(d.pick(PHRASES["database"]).format(city))
    talk.call("I do not know the tables yet.", ("sql",
                                                {"query": "SELECT name, sql FROM sqlite_master"},
              "readings|CREATE TABLE readings (id INTEGER PRIMARY KEY, city TEXT, year INTEGER, "
              "amount INTEGER)"))
    if d.chance(.5):
        talk.call("Look at a few rows before aggregating.",
                  ("sql", {"query": "SELECT * FROM readings LIMIT 5"},
                   "\n".join("%d|%s|%d|%d" % r for r in rows[:5])))
    if d.chance(.3):
        talk.call("Group by year.", ("sql", {"query": "SELECT yr, SUM(amount) FROM readings GROUP "
                                             "BY yr"},
                                     "Error: no such column: yr"))
    years = {}
    for _, c, year, amount in rows:
        if c == city:
            years[year] = years.get(year, 0) + amount
    order = sorted(years.items(), key=lambda v: (-v[1], v[0]))
    talk.call("One table with city, year and amount: sum by year, largest first.",
              ("sql", {"query": "SELECT year, SUM(amount) AS total FROM readings WHERE city = '%s' "
                                "GROUP BY year ORDER BY total DESC, year" % city},
               "\n".join("%d|%d" % v for v in order)))
    talk.answer("The first row is the answer.", "**%d**, with a total of %d." % order[0])
    return [tool("sql", "Run a read-only SQL query on the database.", query=string("SQL"),
                 limit=number("Most rows returned", optional=True))]


def lookup(d, talk, page):
    """Search in the documents: the passages are real."""
    passages = page.passages(300, 1500)
    if not passages:
        return calendar(d, talk)
    hit = d.pick(passages)
    words = re.findall(r"[A-Za-z_]{5,}", hit) or ["introduction"]
    query = " ".join(d.shuffled(sorted(set(words)))[:3])
    talk.user(d.pick(PHRASES["lookup"]).format(query))
    others = d.shuffled(passages)[:d.between(1, 3)]
    found = [{"document": page.name, "score": round(.9 - .1 * i, 2), "text": text}
             for i, text in enumerate([hit] + [o for o in others if o != hit])]
    talk.call("The manual is searchable; ask with the words of the question.",
              ("search_docs", {"query": query, "top_k": len(found),
                               "filters": {"document": [page.name]}},
               json.dumps(found, ensure_ascii=False, indent=d.pick([None, 2]))))
    if d.chance(.6):
        sentence = hit.replace("\n", " ").strip().split(". ")[0]
        talk.answer("The first hit answers it; quote its first sentence and name the document.",
                    "From `%s`:\n\n> %s.\n\nThe passage goes on with the details."
                    % (page.name, sentence))
    return [tool("search_docs", "Search the documentation.", query=string("Words"),
                 top_k=number("Number of passages"),
                 filters={"type": "object", "description": "Restrict the search"})]


WORLDS = [orders, weather, calendar, database]


def dialogue(d, material, page, thinking):
    if d.chance(.55):
        messages, tools = coding(d, material, thinking)
    else:
        talk = Talk(d, thinking)
        tools = lookup(d, talk, page) if d.chance(.4) else d.pick(WORLDS)(d, talk)
        if d.chance(.35):
            more = d.pick(WORLDS)(d, talk)
            tools += [t for t in more if t not in tools]
        messages = talk.messages
    # Some end before the last answer, as a prompt does.
    if messages[-1]["role"] == "assistant" and d.chance(.25):
        messages.pop()
    system = d.pick(SYSTEM)
    return ([{"role": "system", "content": system}] if system else []) + messages, tools
