# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Story sentences that belong to one plot: buying, swapping, hiding, borrowing, keeping, winning.

Facts: `price o n` · `plan a j` a wants to j · `contest - w` who has the w thing? · `prize o w`
it is the w of all; and those of `grammar_people.py` and `grammar_things.py`.
"""

from openllm.data.builtin.template import Act

BUYING = {
    "wares": Act(
        (
            "On {c.his} table lay a {o} and a {u}.",
            "<c> was selling a {o} and a {u}.",
            '"I have a {o} and a {u} today," said <c=>.',
        ),
        new="ou",
        makes=("has o c", "has u c"),
    ),
    "would_love": Act(
        (
            '"{b} would love the {o}," thought <a=>.',
            "<a> knew at once that the {o} was right for {b}.",
            "<a> looked at the <o> and thought of {b}.",
        ),
        needs=("has o c",),
    ),
    "price": Act(
        (
            '"The {o} costs {n} coins," said <c=>.',
            '"You can have the {o} for {n} coins, {a}," said <c=>.',
            "<c> asked {a} for {n} coins for the {o}.",
        ),
        needs=("has o c",),
        makes=("price o n",),
    ),
    "buy": Act(
        (
            "<a> paid {c} {n} coins and took the <o>.",
            "<a> handed {n} coins to {c} and took the {o}.",
            "{a} gave {c} the {n} coins and got the {o}.",
        ),
        needs=("has o c", "price o n"),
        makes=("has o a",),
    ),
    "left_over": Act(
        (
            "The {u} stayed with {c}.",
            "Only the {u} was left on the table of {c}.",
            "<c> put the {u} away and went home.",
        ),
        needs=("has u c",),
    ),
    "congratulate": Act(
        (
            '"Happy birthday, {b}!" said <a=>, and gave {b.him} the {o}.',
            '"This {o} is for your birthday, {b}," said <a=>.',
            "The next day, <a> gave the {o} to {b}.",
        ),
        needs=("has o a",),
        makes=("has o b", "owner o b", "giver o a"),
    ),
    "joy": Act(
        (
            '"I have always wanted a {o}!" [cried|said] <b=>.',
            '"A {o}, how lovely!" [cried|said] <b=>.',
            "<b> held the {o} up high and [danced|sang].",
        ),
        needs=("has o b",),
    ),
}

SWAPPING = {
    "admire": Act(
        (
            '"I wish I had a {u} like yours, {b}," said <a=>.',
            "<a> could not stop looking at the {u} that belonged to {b}.",
            '"Your {u} is so pretty, {b}," said <a=>.',
        ),
        needs=("owner u b",),
    ),
    "offer": Act(
        (
            '"You can have my {u} for your {o}, {a}," said <b=>.',
            '"Let us swap the {u} and the {o}, {a}," said <b=>.',
            '"My {u} for your {o}?" asked <b=>.',
        ),
        needs=("has u b", "has o a"),
    ),
    "swap": Act(
        (
            "So {a} took the {u}, and {b} took the {o}.",
            "<a> gave the {o} to {b} and got the {u}.",
            "{a} and {b} shook hands, and now {a} had the {u} and {b} had the {o}.",
        ),
        needs=("has u b", "has o a"),
        makes=("has u a", "has o b", "giver o a", "giver u b"),
    ),
    "regret": Act(
        (
            "That night <a=> missed the {o} and could not sleep.",
            '"I want my {o} back," sighed <a=> in the dark.',
            "But at home <a> longed for the {o}.",
        ),
        needs=("owner o a", "has o b"),
    ),
    "swap_back": Act(
        (
            "The next morning <a=> gave the {u} back to {b} and got the {o}.",
            "So {a} took the {o} again, and {b} took the {u} again.",
            "{b} laughed, gave {a} the {o}, and took back the {u}.",
        ),
        needs=("owner o a", "has u a", "has o b"),
        makes=("has o a", "has u b", "giver o b", "giver u a"),
    ),
}

HIDING = {
    "game": Act(
        (
            '"Close your eyes, {b}," said <a=>.',
            '"Let us play a game, {b}," said <a=>.',
            "{a} and {b} made up a game with the {o}.",
        ),
    ),
    "hide": Act(
        (
            "<a> hid the {o} {s}.",
            "While {b} counted to ten, <a> hid the {o} {s}.",
            "<a> put the {o} {s} and kept very still.",
        ),
        needs=("has o a",),
        makes=("has o s", "hid o s"),
    ),
    "is_it_there": Act(
        (
            '"Is the {o} {s}?" asked <b=>.',
            '"Did you hide it {s}, {a}?" asked <b=>.',
            "<b> looked {s} first.",
        ),
        needs=("!hid o s",),
        makes=("guess - s",),
    ),
    "not_it": Act(
        (
            '"No, not {s}," laughed <a=>.',
            '"You will not find the {o} {s}, {b}," laughed <a=>.',
            '"The <o> is not {s}," said <a=>.',
        ),
        needs=("guess - s", "!hid o s"),
    ),
    "uncover": Act(
        (
            "[At last|Then], <b> looked {s} and took out the <o>.",
            '"Here is the {o}, {s}!" [cried|called] <b=>.',
            "[At last|Then], <b> went to look {s}, and there was the <o>.",
        ),
        needs=("has o s",),
        makes=("has o b", "finder o b", "found o s"),
    ),
    "end_hid": Act(
        (
            "Nobody but {a} and {b} knew that the {o} had been {s}.",
            "{a} and {b} still talk about the day when the {o} was {s}.",
            "Since then, <a> looks {s} first when the <o> is missing.",
        ),
        needs=("hid o s",),
    ),
}

BORROWING = {
    "plan": Act(
        (
            "One day <a=> wanted to {j} {p.at}.",
            "<a=> had a plan, and that was to {j} {p.at}.",
            "It was the dream of {a} to {j} {p.at}.",
        ),
        makes=("plan a j", "here - p"),
    ),
    "lacks": Act(
        (
            "But to {j}, <a=> needed help.",
            '"I cannot {j} alone," said <a=>.',
            "Nobody can {j} with empty hands, {a} thought.",
        ),
        needs=("plan a j",),
    ),
    "may_i": Act(
        (
            '"May I borrow your {o}, {b}?" asked <a=>.',
            "<a> asked {b} for the {o}.",
            '"I need your {o}, {b}," said <a=>.',
        ),
        needs=("owner o b", "has o b"),
    ),
    "lend": Act(
        (
            "<b> lent {a} the <o>.",
            '"Take the {o}, {a}, but bring it back," said <b=>.',
            "<b> nodded and gave {a} the {o}.",
        ),
        needs=("has o b",),
        makes=("has o a", "giver o b"),
    ),
    "do_plan": Act(
        (
            "With the {o} and the {u}, <a> could {j} at last.",
            "Now <a> had the {o} and the {u} and could {j}.",
            "The {o} and the {u} were just what {a} needed to {j}.",
        ),
        needs=("plan a j", "has o a", "has u a"),
    ),
    "end_plan": Act(
        (
            "{b} and {c} were there when <a=> went to {j} {p.at}.",
            "People still tell how {a} went to {j} {p.at}.",
            '"Next time we will {j} together, {a}," said <b=>.',
        ),
        needs=("plan a j", "here - p"),
    ),
}

KEEPING = {
    "please_keep": Act(
        (
            '"Please keep my {o} safe, {a}," said <b=>.',
            '"Will you look after my {o}, {a}?" asked <b=>.',
            "<b> asked {a} to look after the {o}.",
        ),
        needs=("owner o b", "has o b"),
        makes=("has o a", "giver o b"),
    ),
    "demand": Act(
        (
            '"Give me the {o}, {a}," said <c=>.',
            '"I will pay you well for the {o}," said <c=>.',
            "<c> asked {a} to sell the <o>.",
        ),
        needs=("!owner o c",),
    ),
    "refuse": Act(
        (
            '"No, the <o> belongs to {b}," said <a=>.',
            '"It is not mine, it belongs to {b}," said <a=>.',
            "<a> shook {a.his} head, for the {o} belonged to {b}.",
        ),
        needs=("owner o b",),
    ),
    "fetch": Act(
        (
            "<a> [ran to get|fetched] the {o}, which was still {s}.",
            "<a> took the <o> from its place {s}.",
            "The {o} was still {s}, and <a=> took it out.",
        ),
        needs=("has o s",),
        makes=("has o a",),
    ),
}

WINNING = {
    "contest": Act(
        (
            "There was a contest {p.at} for the {w} thing in {t}.",
            "People came to the {p} to choose the {w} thing in {t}.",
        ),
        needs=("here - p",),
        makes=("contest - w",),
    ),
    "enter": Act(
        (
            "{a} brought the {o}, and {b} brought the {u}.",
            "The {o} of {a} stood next to the {u} of {b}.",
            "<a> held up the {o}, and {b} held up the {u}.",
        ),
        needs=("has o a", "has u b"),
    ),
    "verdict": Act(
        (
            '"The {u} is the {w} of all, {b}!" [said|called] <c=>.',
            "<c> looked at everything twice and chose the {u} as the {w} of all.",
            '"Of all the things here, the {u} is the {w}," said <c=>.',
        ),
        needs=("contest - w", "has u b"),
        makes=("prize u w",),
    ),
    "prize": Act(
        (
            "The prize was some {f}, and {c} gave it to {b}.",
            "<c> gave {b} the prize, some {f}.",
            "So <b> got the prize from {c}, some {f}.",
        ),
        makes=("ate b f",),
    ),
    "share_prize": Act(
        (
            "<b> shared the {f} with {a}.",
            '"The {f} tastes better with you, {a}," said <b=>.',
            "{a} and {b} sat down and ate the {f}.",
        ),
        needs=("ate b f",),
    ),
    "end_prize": Act(
        (
            "And in {t} the {u} is called the {w} of all.",
            "{b} had won with the {u}, but {a} loved the {o} all the same.",
            "<b> never forgot the day when the {u} was the {w} of all.",
        ),
        needs=("prize u w", "has u b", "has o a"),
    ),
}

PLOTS = BUYING | SWAPPING | HIDING | BORROWING | KEEPING | WINNING
