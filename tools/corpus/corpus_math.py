"""Mathematics: problems with numbers of their own, each with a derivation that is really computed.

A family returns (question, steps, answer). The steps are the reasoning in thinking mode and the
worked solution in direct mode. The question's frame is said in one of eight languages; the algebra
is the same in all of them.
"""
from fractions import Fraction
from math import comb, gcd, isqrt

from corpus_dice import PHRASES

FRAME = PHRASES["math frame"]


def signed(n, first=False):
    return ("%d" % n) if first else (" + %d" % n if n >= 0 else " - %d" % -n)


def term(c, power, first=False):
    body = {0: "", 1: "x"}.get(power, "x^%d" % power)
    size = "" if abs(c) == 1 and power else str(abs(c))
    sign = ("-" if c < 0 else "") if first else (" - " if c < 0 else " + ")
    return sign + size + body


def polynomial(coefficients):
    """Highest power first."""
    out, top = "", len(coefficients) - 1
    for i, c in enumerate(coefficients):
        if c:
            out += term(c, top - i, not out)
    return out or "0"


def quadratic(d):
    p, q, a = d.between(-12, 12), d.between(-12, 12), d.between(1, 5)
    b, c = -a * (p + q), a * p * q
    disc = b * b - 4 * a * c
    steps = ["The equation is %s = 0, so a = %d, b = %d, c = %d."
             % (polynomial([a, b, c]), a, b, c),
             "Discriminant: b^2 - 4ac = %d - %d = %d." % (b * b, 4 * a * c, disc),
             "Its square root is %d, because %d^2 = %d." % (isqrt(disc), isqrt(disc), disc),
             "x = (%d + %d) / %d = %d and x = (%d - %d) / %d = %d."
             % (-b, isqrt(disc), 2 * a, max(p, q), -b, isqrt(disc), 2 * a, min(p, q)),
             "Check by factors: %d(x - (%d))(x - (%d)); the sum of the roots is %d = -b/a and "
             "their "
             "product is %d = c/a." % (a, p, q, p + q, p * q)]
    roots = "x = %d" % p if p == q else "x = %d, x = %d" % (min(p, q), max(p, q))
    return "Find all real x with %s = 0." % polynomial([a, b, c]), steps, roots


def system(d):
    x, y, z = (d.between(-9, 9) for _ in range(3))
    while True:
        m = [[d.between(-6, 6) or 1 for _ in range(3)] for _ in range(3)]
        minor = m[0][0] * m[1][1] - m[0][1] * m[1][0]
        det = (m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
               - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
               + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]))
        if det and minor:
            break
    rows = [[Fraction(v) for v in r] + [Fraction(r[0] * x + r[1] * y + r[2] * z)] for r in m]
    shown = "\n".join("%dx%sy%sz = %d" % (r[0], signed(r[1]), signed(r[2]), r[3]) for r in rows)
    steps = ["Write the system as an augmented matrix and eliminate downwards."]
    for i in range(3):
        for j in range(i + 1, 3):
            f = rows[j][i] / rows[i][i]
            rows[j] = [v - f * w for v, w in zip(rows[j], rows[i])]
            steps.append("R%d := R%d - (%s) R%d gives (%s)."
                         % (j + 1, j + 1, f, i + 1, ", ".join(map(str, rows[j]))))
    steps += ["The last row says %s z = %s, hence z = %d." % (rows[2][2], rows[2][3], z),
              "Back into the second: %s y = %s - (%s)(%d), hence y = %d."
              % (rows[1][1], rows[1][3], rows[1][2], z, y),
              "Back into the first: %s x = %s - (%s)(%d) - (%s)(%d), hence x = %d."
              % (rows[0][0], rows[0][3], rows[0][1], y, rows[0][2], z, x)]
    return "Solve the system\n\n" + shown, steps, "x = %d, y = %d, z = %d" % (x, y, z)


def euclid(d):
    g = d.between(2, 40)
    a, b = g * d.between(20, 400), g * d.between(20, 400)
    r, s, t = [a, b], [1, 0], [0, 1]
    steps = ["Run Euclid's algorithm and keep each remainder as a combination of %d and %d."
             % (a, b)]
    while r[1]:
        q = r[0] // r[1]
        steps.append("%d = %d * %d + %d." % (r[0], q, r[1], r[0] - q * r[1]))
        r, s, t = [r[1], r[0] - q * r[1]], [s[1], s[0] - q * s[1]], [t[1], t[0] - q * t[1]]
    steps.append("The last remainder that is not zero is %d." % r[0])
    steps.append("Going back up: %d = (%d) * %d + (%d) * %d, which is right since %d%s = %d."
                 % (r[0], s[0], a, t[0], b, s[0] * a, signed(t[0] * b), r[0]))
    return ("Find the greatest common divisor of %d and %d and write it as u * %d + v * %d with "
            "whole "
            "numbers u and v." % (a, b, a, b), steps,
            "gcd = %d, u = %d, v = %d" % (r[0], s[0], t[0]))


def power_mod(d):
    base, exponent, m = d.between(2, 60), d.between(50, 900), d.between(7, 199)
    steps, square, result, e, k = [], base % m, 1, exponent, 0
    steps.append("Write the exponent in binary: %d = %s." % (exponent, bin(exponent)[2:]))
    while e:
        steps.append("%d^(2^%d) = %d (mod %d)%s" % (base, k, square, m, "; this bit is set."
                                                    if e & 1
                                                   else "; this bit is clear."))
        if e & 1:
            steps.append("Multiply it in: %d * %d = %d = %d (mod %d)."
                         % (result, square, result * square, result * square % m, m))
            result = result * square % m
        square, e, k = square * square % m, e >> 1, k + 1
    return "What is %d^%d modulo %d?" % (base, exponent, m), steps, str(result)


def crt(d):
    moduli = d.pick([(3, 5, 7), (4, 9, 5), (7, 11, 13), (8, 5, 9), (5, 12, 17), (11, 3, 16)])
    total = moduli[0] * moduli[1] * moduli[2]
    x = d.below(total)
    steps = ["The moduli are coprime in pairs, so there is one solution modulo %d." % total]
    now, step = x % moduli[0], moduli[0]
    for m in moduli[1:]:
        k = next(k for k in range(m) if (now + k * step) % m == x % m)
        steps.append("x = %d + %d k must be %d modulo %d: trying k = 0, 1, ... the first that fits "
                     "is k = %d, so x = %d modulo %d."
                     % (now, step, x % m, m, k, now + k * step, step * m))
        now, step = now + k * step, step * m
    question = "Find the smallest non-negative x with " + ", ".join(
        "x = %d (mod %d)" % (x % m, m) for m in moduli) + "."
    return question, steps, str(now)


def derivative(d):
    c = [d.between(-9, 9) or 2 for _ in range(d.between(3, 5))]
    at = d.between(-4, 4)
    top = len(c) - 1
    dc = [v * (top - i) for i, v in enumerate(c[:-1])]
    value = sum(v * at ** (top - i) for i, v in enumerate(c))
    slope = sum(v * at ** (top - 1 - i) for i, v in enumerate(dc))
    steps = ["Differentiate term by term: " + "; ".join(
        "(%s)' = %s" % (term(v, top - i, True), term(v * (top - i), top - i - 1, True))
        for i, v in enumerate(c[:-1])) + "; a constant has derivative 0.",
        "f'(x) = %s." % polynomial(dc),
        "f(%d) = %s = %d." % (at, " + ".join("(%d)(%d)^%d" % (v, at, top - i)
                                            for i, v in enumerate(c)), value),
        "f'(%d) = %d, the slope of the tangent." % (at, slope),
        "Tangent: y = %d + %d (x - (%d)) = %dx%s." % (value, slope, at, slope,
                                                     signed(value - slope * at))]
    return ("Let f(x) = %s. Find the tangent to its graph at x = %d." % (polynomial(c), at), steps,
            "y = %dx%s" % (slope, signed(value - slope * at)))


def integral(d):
    c = [d.between(-6, 6) or 1 for _ in range(d.between(2, 4))]
    low = d.between(-3, 2)
    high = low + d.between(1, 4)
    top = len(c) - 1
    anti = [Fraction(v, top - i + 1) for i, v in enumerate(c)]

    def value(x):
        return sum(v * x ** (top - i + 1) for i, v in enumerate(anti))
    shown = " + ".join("(%s) x^%d" % (v, top - i + 1) for i, v in enumerate(anti))
    steps = ["An antiderivative, by the power rule: F(x) = %s." % shown,
             "F(%d) = %s." % (high, " + ".join(str(v * high ** (top - i + 1))
                                              for i, v in enumerate(anti)) + " = %s" % value(high)),
             "F(%d) = %s." % (low, " + ".join(str(v * low ** (top - i + 1))
                                             for i, v in enumerate(anti)) + " = %s" % value(low)),
             "F(%d) - F(%d) = %s - (%s) = %s." % (high, low, value(high), value(low),
                                                 value(high) - value(low))]
    return ("Compute the integral of %s from x = %d to x = %d." % (polynomial(c), low, high), steps,
            str(value(high) - value(low)))


def urn(d):
    red, blue, green = (d.between(2, 12) for _ in range(3))
    n, k = red + blue + green, d.between(2, 4)
    want = d.between(1, min(k, red))
    ways, total = comb(red, want) * comb(n - red, k - want), comb(n, k)
    steps = ["All sets of %d balls are equally likely; there are C(%d, %d) = %d of them."
             % (k, n, k, total),
             "%d red ones from %d: C(%d, %d) = %d ways." % (want, red, red, want, comb(red, want)),
             "The other %d from the %d that are not red: C(%d, %d) = %d ways."
             % (k - want, n - red, n - red, k - want, comb(n - red, k - want)),
             "Favourable: %d * %d = %d." % (comb(red, want), comb(n - red, k - want), ways),
             "%d / %d; the common divisor is %d." % (ways, total, gcd(ways, total)),
             "As a number about %.4f." % (ways / total)]
    return ("An urn holds %d red, %d blue and %d green balls. %d are drawn at once. How likely are "
            "exactly %d red ones?" % (red, blue, green, k, want), steps,
            str(Fraction(ways, total)))


def markov(d):
    a, b = Fraction(d.between(1, 9), 10), Fraction(d.between(1, 9), 10)
    p, steps = Fraction(1), ["Let p_n be the probability of being in state A after n steps; "
                             "p_0 = 1 and p_(n+1) = %s p_n + %s (1 - p_n)." % (1 - a, b)]
    for n in range(1, d.between(4, 7)):
        new = (1 - a) * p + b * (1 - p)
        steps.append("p_%d = %s * %s + %s * %s = %s, about %.5f."
                     % (n, 1 - a, p, b, 1 - p, new, float(new)))
        p = new
    limit = b / (a + b)
    steps += ["In the long run p = %s p + %s (1 - p), so (%s + %s) p = %s." % (1 - a, b, a, b, b),
              "Hence p = %s, about %.5f. The distance to it shrinks by the factor %s each step."
              % (limit, float(limit), 1 - a - b)]
    return ("A chain leaves state A for B with probability %s in a step, and B for A with "
            "probability "
            "%s. It starts in A. How often is it in A after a few steps, and in the long run?"
            % (a, b),
            steps, "the long-run share of A is %s" % limit)


def geometry(d):
    p = [(d.between(-9, 9), d.between(-9, 9)) for _ in range(d.between(3, 5))]
    p = sorted(set(p))
    if len(p) < 3:
        p = [(0, 0), (7, 1), (3, 8)]
    hull = []
    for points in (p, p[::-1]):
        half = []
        for q in points:
            while len(half) > 1 and ((half[-1][0] - half[-2][0]) * (q[1] - half[-2][1])
                                     - (half[-1][1] - half[-2][1]) * (q[0] - half[-2][0])) <= 0:
                half.pop()
            half.append(q)
        hull += half[:-1]
    twice, steps = 0, ["Go around the corners and add x_i y_(i+1) - x_(i+1) y_i "
                       "(shoelace formula)."]
    for (x, y), (u, v) in zip(hull, hull[1:] + hull[:1]):
        twice += x * v - u * y
        steps.append("(%d, %d) to (%d, %d): %d * %d - %d * %d = %d." % (x, y, u, v, x, v, u, y,
                                                                     x * v - u * y))
    steps.append("The sum is %d; the area is half of its absolute value." % twice)
    return ("Find the area of the polygon with the corners %s."
            % ", ".join("(%d, %d)" % q for q in hull), steps, str(Fraction(abs(twice), 2)))


def recurrence(d):
    p, q = d.pick([(2, 3), (3, -1), (4, -2), (5, 2), (-1, 2), (3, 4)])
    u, v = d.between(-5, 5) or 1, d.between(-5, 5) or 2
    a = [u + v, u * p + v * q]
    n = d.between(6, 9)
    steps = ["Characteristic equation: r^2 = %dr%s, that is (r - (%d))(r - (%d)) = 0."
             % (p + q, signed(-p * q), p, q),
             "So a_n = u (%d)^n + v (%d)^n with u + v = %d and %du%sv = %d."
             % (p, q, a[0], p, signed(q), a[1]), "This gives u = %d and v = %d." % (u, v)]
    for i in range(2, n + 1):
        a.append((p + q) * a[-1] - p * q * a[-2])
        steps.append("Check: a_%d = %d * %d%s * %d = %d." % (i, p + q, a[-2], signed(-p * q), a[-3],
                                                          a[-1]))
    steps.append("The formula gives a_%d = %d * (%d) + %d * (%d) = %d, the same."
                 % (n, u, p ** n, v, q ** n, u * p ** n + v * q ** n))
    return ("Let a_0 = %d, a_1 = %d and a_n = %d a_(n-1)%s a_(n-2). Find a formula for a_n, and "
            "a_%d."
            % (a[0], a[1], p + q, signed(-p * q), n), steps,
            "a_n = %d (%d)^n%s (%d)^n, a_%d = %d" % (u, p, signed(v), q, n, a[n]))


def induction(d):
    k = d.between(2, 9)
    c = d.between(1, 9)
    steps = ["Claim: sum over i from 1 to n of (%di%s) = n(%dn%s)/2."
             % (2 * k, signed(c), 2 * k, signed(2 * k + 2 * c)),
             "n = 1: the left side is %d; the right side is (%d)/2 = %d. Both agree."
             % (2 * k + c, 4 * k + 2 * c, 2 * k + c),
             "Assume the claim for n. The sum to n + 1 is n(%dn%s)/2 + %d(n+1)%s."
             % (2 * k, signed(2 * k + 2 * c), 2 * k, signed(c)),
             "Over the common denominator 2 the numerator is %dn^2 + %dn + %dn + %d."
             % (2 * k, 2 * k + 2 * c, 4 * k, 4 * k + 2 * c),
             "Collected: %dn^2 + %dn + %d." % (2 * k, 6 * k + 2 * c, 4 * k + 2 * c),
             "And (n+1)(%d(n+1) + %d) = %dn^2 + %dn + %d is the same polynomial."
             % (2 * k, 2 * k + 2 * c, 2 * k, 6 * k + 2 * c, 4 * k + 2 * c),
             "So the claim holds for n + 1, and by induction for every n >= 1."]
    return ("Prove by induction that the sum of %di%s for i = 1, ..., n is n(%dn%s)/2."
            % (2 * k, signed(c), 2 * k, signed(2 * k + 2 * c)), steps, "proved by induction on n")


def simplex(d):
    a, b = d.between(2, 9), d.between(2, 9)
    limits = [(d.between(1, 5), d.between(1, 5), d.between(20, 60)) for _ in range(2)]
    corners = [(Fraction(0), Fraction(0))]
    steps = ["The best point of a linear programme is a corner of its region, so list the corners."]
    lines = limits + [(1, 0, 0), (0, 1, 0)]
    for i, (p, q, r) in enumerate(lines):
        for s, t, u in lines[i + 1:]:
            det = p * t - q * s
            if det:
                x, y = Fraction(r * t - q * u, det), Fraction(p * u - r * s, det)
                ok = x >= 0 and y >= 0 and all(m * x + n * y <= o for m, n, o in limits)
                steps.append("%dx + %dy = %d and %dx + %dy = %d meet in (%s, %s): %s."
                             % (p, q, r, s, t, u, x, y,
                                "value %s" % (a * x + b * y) if ok else "outside"))
                if ok:
                    corners.append((x, y))
    best = max(corners, key=lambda v: (a * v[0] + b * v[1], v))
    return ("Maximise %dx + %dy subject to %s, x >= 0, y >= 0."
            % (a, b, ", ".join("%dx + %dy <= %d" % v for v in limits)), steps,
            "%s at (%s, %s)" % (a * best[0] + b * best[1], best[0], best[1]))


FAMILIES = [quadratic, system, euclid, power_mod, crt, derivative, integral, urn, markov, geometry,
            recurrence, induction, simplex]


def problem(d, thinking):
    """(messages, language, family) of one dialogue; a third of them go on with a second problem."""
    language = d.pick(sorted(FRAME)) if d.chance(.5) else "en"
    intro, label, answer_label = FRAME[language]
    messages, names = [], []
    for turn in range(2 if d.chance(.33) else 1):
        family = d.pick(FAMILIES)
        names.append(family.__name__)
        question, steps, answer = family(d)
        messages.append({"role": "user", "content": (
            "%s\n\n%s: %s" % (intro, label, question) if turn == 0 else "%s: %s"
                                                     % (label, question))})
        reply = {"role": "assistant"}
        if thinking:
            reply["reasoning_content"] = "\n".join(steps)
            steps = d.pick([steps[-2:], steps[-1:], steps])
        reply["content"] = "%s\n\n**%s:** %s" % (
            "\n".join("%d. %s" % (i + 1, s) for i, s in enumerate(steps)), answer_label, answer)
        messages.append(reply)
    if d.chance(.2):
        messages.pop()
    return messages, language, "+".join(names)
