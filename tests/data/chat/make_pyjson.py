"""Write pyjson_floats.txt and pyjson_values.jsonl: what Python's own json module prints.

python3 tests/data/chat/make_pyjson.py tests/data/chat
"""
import json
import random
import struct
import sys


def bits(x):
    return struct.unpack(">Q", struct.pack(">d", x))[0]


def double(b):
    return struct.unpack(">d", struct.pack(">Q", b))[0]


def floats():
    """Boundaries of the notation, powers of two (where n correctly rounded digits need not be
    the shortest that read back), powers of ten, and random bits."""
    rng = random.Random(1)
    xs = [0.0, -0.0, 1.0, -1.0, 0.1, 0.5, 100.0, 1e5, 123456789.0, 1 / 3, 2 / 3, 1e15, 1e16, 1e17,
          9999999999999998.0, 9007199254740993.0, 1e-4, 1e-5, 0.00012345, 0.000099999, 1e20, 1e21,
          1e22, 1e23, 1.7976931348623157e308, 5e-324, 2.2250738585072014e-308,
          2.225073858507201e-308, 1e-323, 123e-322, 4.35, 0.3, 2.675, 1e100, -1.5e-7]
    for k in range(-1074, 1024):
        x = 2.0 ** k
        rounded = next(n for n in range(1, 18) if float("%.*e" % (n - 1, x)) == x)
        shortest = len(repr(x).split("e")[0].replace(".", "").strip("0"))
        if rounded != shortest or k % 32 == 0:
            xs += [x, double(bits(x) + 1), double(bits(x) - 1)] if k > -1074 else [x]
    xs += [float("1e%d" % k) for k in range(-30, 31)]
    xs += [float("%de%d" % (rng.randrange(10 ** 17), rng.randrange(-30, 20))) for _ in range(100)]
    while len(xs) < 900:
        x = double(rng.getrandbits(64))
        if x == x and abs(x) != float("inf"):
            xs.append(x)
    return xs


VALUES = [
    "0", "-0", "1", "-1", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
    "-9223372036854775809", "123456789012345678901234567890", "1" * 4300, "1" * 4301,
    "1E5", "1e5", "0.10", "1.0", "-0.0", "1e20", "1e16", "1e15", "1e400", "-1e400", "1e-400",
    "0.000001", "1E+2", "1e-7", "1.0e0", "1" * 310 + ".5", "1" * 400 + "e-395",
    "0." + "0" * 400 + "1e390", "NaN", "Infinity", "-Infinity",
    "true", "false", "null", '""', '"a"', "[]", "{}", "[ ]", "{ }", " [1,2 ,3 ] ",
    '"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\u0001\\u001f\\u007f\\u0080\\u2028"', '"\\u00e9\\u4e2d"',
    '"\\ud83d\\ude00"', '"é中😀\x7f/"', '"\\u0000"', '"\\u0000\\u0000"', '"\\u0000123"',
    '"\\u0000NaN"', '"a\\u0000b"', '["\\u0000n", 99999999999999999999, NaN]',
    '{"b": 1, "a": 2}', '{"a":1,"b":2,"a":3}', '{"a":{"x":1},"b":2,"a":[99999999999999999999]}',
    '{"":0}', '{"é":"\\u00e9"}', '{"a\\n":"b\\n"}', '{"x":[{"y":[1.50,2e0,{"z":null}]}]}',
    '{"n":123456789012345678901234567890,"f":[1e999,-1e999,NaN]}',
    '[[[[[[[[[[1]]]]]]]]]]', '"NaN -Infinity 99999999999999999999"',
    # not JSON
    "", " ", "[", "]", "{", "[1,]", "[1 2]", '{"a"}', '{"a":}', '{"a":1,}', "{a:1}", "'a'", "01",
    "-", "+1", ".5", "1.", "1.e5", "1e", "1e+", "--1", "-NaN", "+Infinity", "Infinit", "nan",
    "NaNs", "1NaN", "tru", "truex", "nul", "1 2", "[1] x", '"abc', '"a\nb"', '"\t"', '"\\x"',
    '"\\u12"', '"\\u12g4"', '{"a":1}}', "[1}", '{1:2}', '{NaN:1}', '{99999999999999999999:1}',
    "-a", "0x10", "1_000", "[NaN", "/* */ 1", "\ufeff1", '"\\', '"\\u', "[,]",
    "99999999999999999999a",
    # no UTF-8 for these: fails when the prompt is encoded
    '"\\ud800"', '"\\udc00"', '"\\ud800\\ud800"', '"\\ud800x"', '["a\\udfff"]', '{"\\ud800":1}',
    '"\\ud83d\\u0041"',
]


def outcome(text):
    try:
        return {"dumps": json.dumps(json.loads(text), ensure_ascii=False)}
    except json.JSONDecodeError:
        return {"error": "format"}
    except ValueError:
        return {"error": "limit"}


def main(folder):
    with open(folder + "/pyjson_floats.txt", "w") as f:
        for x in floats():
            f.write("%016x %s\n" % (bits(x), repr(x)))
    with open(folder + "/pyjson_values.jsonl", "w") as f:
        for text in VALUES:
            line = {"text": text, **outcome(text)}
            if any("\ud800" <= c <= "\udfff" for c in line.get("dumps", "")):
                line = {"text": text, "error": "surrogate"}
            f.write(json.dumps(line) + "\n")


main(sys.argv[1])
