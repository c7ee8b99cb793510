# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Story sentences about things: who owns them, who has them, where they are lost and found.

Facts: `owner o a` · `has o X` X (a person, a spot, or the word lost) has o · `giver o a` gave it
last · `finder o a` found it · `found o s` at s · `hid o s` it was put at s · `guess - s` somebody
thinks of s · `searched s o` it is not at s.
"""

from openllm.data.builtin.template import Act

HAVING = {
    "own": Act(
        (
            "<a> had a {o} and took it everywhere.",
            "{a.His} [dearest|greatest] treasure was a {o}.",
            "On {a.his} birthday <a=> had been given a {o}.",
            "<a> owned a {o} and [kept it clean|cared for it well|never lent it to anyone].",
            "Nothing made {a} happier than {a.his} {o}.",
            "<a> had a {o}, a gift from {a.his} [uncle|aunt].",
        ),
        new="o",
        makes=("has o a", "owner o a"),
    ),
    "carry": Act(
        (
            "<a> carried the {o} [in both hands|in a bag|under one arm].",
            "The {o} [was|came] with {a} all the way.",
            "<a> [held on to|showed everyone|was proud of] the {o}.",
        ),
        needs=("has o a",),
    ),
    "play": Act(
        (
            "{a} let {b} hold the <o>[, too| for a while].",
            "<a> showed {b} the {o}, and they laughed.",
            "For an hour {a} and {b} [played|had fun] with the <o>.",
        ),
        needs=("has o a",),
    ),
    "end_has": Act(
        (
            "That night the {o} was [safe|back home|in good hands] with {a}.",
            "From that day on, <a=> took good care of the <o>.",
            "And the {o} stayed with {a} [for many years|ever after].",
            "<a> fell asleep with the {o} beside {a.him}.",
        ),
        needs=("has o a",),
    ),
}

LOSING = {
    "lose": Act(
        (
            "[Suddenly|But then], <a> saw that the {o} was [gone|missing].",
            "[On the way back|When it was time to go], <a=> could not find the {o}.",
            "But when <a> looked again, the {o} was gone.",
            "Then the <o> slipped away from {a}, and nobody saw it fall.",
        ),
        needs=("has o a",),
        makes=("has o lost",),
    ),
    "cry": Act(
        (
            '"Where is my {o}?" [asked|cried] <a=>.',
            '"I have lost my {o}!" [cried|sobbed] <a=>.',
            '"Oh no, my {o} is gone!" [cried|called] <a=>.',
        ),
        needs=("owner o a", "has o lost"),
    ),
    "guess": Act(
        (
            '"Perhaps it is {s}," said <b=>.',
            '"Maybe the <o> is {s}," said <b=>.',
            '"Let us look {s}," said <b=>.',
            '"I think I saw it {s}," said <b=>.',
        ),
        makes=("guess - s",),
    ),
    "not_there": Act(
        (
            "<a> looked {s}, but the <o> was not there.",
            "<a> ran to look {s}, but there was no <o>.",
            "But {a} looked {s} and did not find the {o}.",
        ),
        needs=("guess - s", "has o lost"),
        makes=("searched s o",),
    ),
    "find": Act(
        (
            "[At last|Then], <b> found the {o} {s}.",
            "There it was: the {o} lay {s}, and <b=> picked it up.",
            "[At last|But then], <b> saw something {s} and pulled out the <o>.",
        ),
        needs=("has o lost", "!searched s o"),
        makes=("has o b", "finder o b", "found o s"),
    ),
    "find_strange": Act(
        (
            "There <a=> found a {o} {s}.",
            "A {o} lay {s}, and <a=> picked it up.",
            "<a> saw something {s} and pulled out a {o}.",
        ),
        new="o",
        makes=("has o a", "finder o a", "found o s"),
    ),
    "is_it_yours": Act(
        (
            '"Is this your {o}?" asked <a=>.',
            '"Did you lose a {o}?" asked <a=>.',
            "<a> showed {b} the {o} and asked about it.",
        ),
        needs=("has o a",),
    ),
    "not_mine": Act(
        (
            '"No, my {o.thing} is {y}," said <b=>.',
            '"No, I only have a {y} {o.thing}," said <b=>.',
            '"It is not mine, for my {o.thing} is {y}," said <b=>.',
        ),
        needs=("!colour o y",),
    ),
    "is_mine": Act(
        (
            '"Yes, I lost my {o} {p.at}!" [cried|said] <c=>.',
            '"That is my {o}, I lost it {p.at}!" [cried|said] <c=>.',
            '"Yes, the {o} is mine!" [cried|said] <c=>.',
        ),
        needs=("here - p",),
        makes=("owner o c",),
    ),
    "blow": Act(
        (
            "A gust of wind took the {o} from {a} and dropped it {s}.",
            "The wind tore the {o} away from {a}, and it landed {s}.",
            "[Then|But] the wind blew hard, and the {o} flew from {a} and came down {s}.",
        ),
        needs=("has o a",),
        makes=("has o s", "found o s"),
    ),
    "cannot_reach": Act(
        (
            "<a> could see the <o> {s} but could not reach it.",
            '"My <o> is {s}, and I cannot reach it!" [called|cried] <a=>.',
            "{a} tried and tried, but the <o> was stuck {s}.",
        ),
        needs=("has o s", "owner o a"),
    ),
    "tool": Act(
        (
            '"I have a {l}, {a}," said <c=>.',
            "<c> had a {l} and wanted to help {a}.",
            '"A {l} is what you need, {a}," said <c=>.',
        ),
        makes=("tool c l",),
    ),
    "rescue": Act(
        (
            "With the {l}, <c=> got the {o} and gave it to {a}.",
            "<c=> used the {l} to free the <o> and handed it to {a}.",
            "It took <c=> one try with the {l} to bring the <o> back to {a}.",
        ),
        needs=("tool c l", "owner o a"),
        makes=("has o a", "giver o c"),
    ),
    "end_tool": Act(
        (
            "{a} always remembered how {c} had saved the {o} with a {l}.",
            "Later <a> [drew|painted] a picture of {c} with the {l}.",
            "Without {c} and the {l}, the {o} would still be {s}.",
        ),
        needs=("tool c l", "found o s", "giver o c"),
    ),
    "end_found": Act(
        (
            "<a> never forgot how {b} had found the {o} {s}.",
            "Years later, <a> still told how {b} found the <o> {s}.",
            "{a} and {b} often laughed about the day when the {o} lay {s}.",
        ),
        needs=("finder o b", "found o s"),
    ),
}

GIVING = {
    "give": Act(
        (
            "<a> [gave|handed] the {o} to {b}.",
            "<a> put the {o} into the hands of {b}.",
            '"The {o} is for you, {b}," said <a=>.',
        ),
        needs=("has o a",),
        makes=("has o b", "giver o a"),
    ),
    "give_back": Act(
        (
            "<a> [gave|handed] the <o> back to {b}.",
            '"Here is your {o}, {b}," said <a=>.',
            "<a> brought the <o> back to {b}.",
        ),
        needs=("has o a", "owner o b"),
        makes=("has o b", "giver o a"),
    ),
    "give_in_return": Act(
        (
            "In return, <c> gave {a} a {u}.",
            "<c> wanted to give something back, and so {a} got a {u}.",
            '"Take this {u}, {a}," said <c=>.',
        ),
        new="u",
        makes=("has u a", "owner u a", "giver u c"),
    ),
    "task": Act(
        (
            "One day <a> was asked to bring a {o} to {b}.",
            "<a> had made a {o} as a present for {b}.",
            "One day <a> found a {o} in a shop and bought it for {b}.",
        ),
        new="o",
        makes=("has o a", "owner o b"),
    ),
    "tell_about": Act(
        (
            "<a> told {b} about {c} and showed {b.him} the {u}.",
            '"{c} gave me this {u}," said <a=>.',
            "<a> put the {u} on the table and told {b} about {c}.",
        ),
        needs=("has u a", "giver u c"),
    ),
    "end_both": Act(
        (
            "So the {o} stayed with {b}, and the {u} stayed with {a}.",
            "Now {b} had the {o}, and {a} had the {u}.",
            "{a} kept the {u}, and {b} kept the {o}.",
        ),
        needs=("has o b", "has u a"),
    ),
    "end_gift": Act(
        (
            "Whenever <b> looked at the {o}, {b.he} thought of {a}.",
            "<b> kept the {o} for many years and never forgot that it came from {a}.",
            '"The {o} is the best present of all, {a}," said <b=>.',
        ),
        needs=("has o b", "giver o a"),
    ),
}

THINGS = HAVING | LOSING | GIVING
