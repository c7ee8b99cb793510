# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Story sentences about people: who they are, where they go, what they say, how it ends.

Facts: `home a t` a lives in t · `trait a q` · `at a p` a is at p · `here - p` the story is at p.
"""

from openllm.data.builtin.template import Act

BEGINNINGS = {
    "intro": Act(
        (
            "[Once upon a time|Long ago|One year|Many years ago], a {q} {a.girl} named <a=> lived "
            "in [the village of |the town of |]{t}.",
            "There once was a {q} {a.girl} named <a=> who lived in [the village of |]{t}.",
            "In [the village of |the town of |the valley of |]{t} there lived a {q} {a.girl} named "
            "<a=>.",
            "This is the story of <a=>, a {q} {a.girl} from [the village of |the town of |]{t}.",
            "[Everyone|Every child|Every baker|Every farmer] in {t} knew <a=>, a {q} {a.girl} with "
            "[freckles|quick feet|a loud laugh|messy hair].",
        ),
        new="at",
        makes=("home a t", "trait a q"),
    ),
    "intro_plain": Act(
        (
            "[Once upon a time|Long ago|One year|Many years ago], a {a.girl} named <a=> lived in "
            "[the village of |the town of |]{t}.",
            "There once was a {a.girl} named <a=> in [the village of |the town of |]{t}, who "
            "[loved rainy days|whistled all day|was never bored].",
            "In [the village of |the town of |the valley of |]{t} there lived a {a.girl} named "
            "<a=>, who [asked a thousand questions|knew every path by heart|slept with the window "
            "open].",
            "This is the story of <a=>, a {a.girl} who had grown up in [the village of |the town "
            "of |]{t}.",
        ),
        new="at",
        makes=("home a t",),
    ),
    "weather": Act(
        (
            "[The sun was shining|A soft rain was falling|Snow lay on the roofs|A warm wind was "
            "blowing] in {t}, and {a} was [happy|wide awake|full of plans].",
            "It was [a bright spring|a cold winter|a golden autumn|a lazy summer] day in {t}.",
            "[Birds were singing|The bakers were busy|The streets were empty] in {t} when <a> "
            "[woke up|opened the window|ate breakfast].",
        ),
        needs=("home a t",),
    ),
    "friend": Act(
        (
            "{a.His} friend was a {b.girl} named <b=>.",
            "{a} had a good friend, a {b.girl} named <b=>.",
            "Every day {a} played with a {b.girl} named <b=>.",
            "The best friend of {a} was a {b.girl} named <b=> [who lived next door|from the same "
            "street].",
            "Next door to {a} lived a {b.girl} named <b=>.",
        ),
        new="b",
        makes=("friend a b",),
    ),
    "birthday": Act(
        (
            "It was nearly the birthday of a {b.girl} named <b=> who lived next door to {a}.",
            "Soon a {b.girl} named <b=>, the best friend of {a}, would have a birthday.",
            "The next day a {b.girl} named <b=>, {a.his} friend, had a birthday.",
        ),
        new="b",
        makes=("friend a b",),
    ),
    "grandparent": Act(
        (
            "{a.His} {b.grandmother} <b=> lived [far away |]in {v}.",
            "The {b.grandmother} of {a} was named <b=> and lived [far away |]in {v}.",
            "<a> had a {b.grandmother} named {b}, who lived [far away |]in {v}.",
        ),
        new="bv",
        makes=("home b v",),
    ),
    "meet": Act(
        (
            "[There, |Soon ]<a> met a {c.woman} named {c} {p.at}.",
            "A {c.woman} named <c=> was [sitting|resting|waiting] {p.at}.",
            "{a} saw a {c.woman} {p.at}, and {c.his} name was <c=>.",
            "[Just then|After a while], a {c.woman} named <c=> came to the {p} and [waved at|"
            "greeted] {a}.",
        ),
        new="c",
        needs=("here - p",),
    ),
}

JOURNEYS = {
    "go": Act(
        (
            "[One morning|One day|After breakfast|That afternoon|One Sunday], <a> [walked|went|"
            "ran|set out] to the {p}.",
            "[One morning|One day|After lunch], <a=> took the path to the {p}.",
        ),
        makes=("at a p", "here - p"),
    ),
    "go_together": Act(
        (
            "[One morning|One day|After breakfast|That afternoon|One Sunday], {a} and {b} "
            "[walked|went|ran|hurried] to the {p}.",
            "[One morning|One day|After lunch], <a=> took {b} along to the {p}.",
            '"Let us go to the {p}," said <a=>, and {b} [came along|agreed|jumped up].',
        ),
        makes=("at a p", "at b p", "here - p"),
    ),
    "scene": Act(
        (
            "It was [quiet|lovely|cool|busy] {p.at}, and <a> [smiled|looked around|hummed a tune].",
            "[Birds sang|Bees hummed|Children laughed|A dog barked] {p.at}, and {a} [stopped to "
            "listen|felt happy].",
            "[The air|Everything] {p.at} smelled of [rain|flowers|smoke|salt], and {a} took a deep "
            "breath.",
        ),
        needs=("at a p",),
    ),
    "rest": Act(
        (
            "{a} and {b} sat down {p.at} and [told each other riddles|watched the clouds|shared an "
            "apple].",
            "<a> and {b} [played tag|sang songs|ran races] {p.at} until they were out of breath.",
            "It was so nice {p.at} that {a} and {b} forgot the time.",
        ),
        needs=("at a p", "at b p"),
    ),
    "depart": Act(
        (
            "<a> left {t} [at sunrise|early] and walked as far as the {p}.",
            "[At sunrise|The next morning], <a> left {t} and came to the {p}.",
        ),
        needs=("home a t",),
        makes=("at a p", "here - p"),
    ),
    "arrive": Act(
        (
            "[By evening|At last|Before dark], <a> came to {v} and knocked at the door of {b}.",
            "[By evening|At last|Late that day], <a> reached {v}, where {b} was waiting.",
        ),
        needs=("home b v",),
    ),
    "go_home": Act(
        (
            "[Before dark|In the evening|Then], {a} and {b} went home to {t}.",
            "{a} and {b} walked back to {t} [hand in hand|side by side|under the first stars].",
            "The stars were out when {a} and {b} came home to {t}.",
        ),
        needs=("home a t",),
    ),
    "travel": Act(
        (
            "One day <b> had to go away to {v} for a [week|month].",
            "[That spring|That summer|That autumn], <b> had to travel to {v}.",
        ),
        new="v",
        makes=("away b v",),
    ),
    "come_back": Act(
        (
            "[At last|After many days|One evening], <b> came back from {v} and ran to {a}.",
            "When <b=> came home from {v}, {a} was waiting at the door.",
        ),
        needs=("away b v",),
    ),
}

TALK = {
    "thank": Act(
        (
            '"Thank you, {a}!" [said|cried|laughed] <b=>.',
            '"You are a true friend, {a}," said <b=>.',
            "<b> [thanked|hugged] {a} and [smiled|danced for joy|laughed out loud].",
            '"I will never forget this, {a}," [said|whispered] <b=>.',
        ),
    ),
    "comfort": Act(
        (
            '"Do not [cry|worry], {a}," said <b=>.',
            '"We will find the {o}, {a}," said <b=>.',
            '"I will help you, {a}," said <b=>.',
        ),
        needs=("has o lost",),
    ),
    "hungry": Act(
        (
            '"I am so hungry," [said|sighed] <c=>.',
            "<c> [was hungry and cold|had not eaten all day], and {a} saw it.",
            '"I have not eaten all day, {a}," said <c=>.',
        ),
    ),
    "share_food": Act(
        (
            "So <a> gave {c} some {f}.",
            '"You can have my {f}, {c}," said <a=>.',
            "<a> sat down and shared the {f} with {c}.",
        ),
        makes=("ate c f", "fed c a"),
    ),
    "reward_food": Act(
        (
            "<c> was so glad that {a} got some {f}.",
            '"Have some {f}, {a}," said <c=>.',
            "To say thank you, <c> gave {a} some {f}.",
        ),
        makes=("ate a f", "fed a c"),
    ),
    "eat": Act(
        (
            "{a} and {b} ate the {f} together.",
            "At home <a> gave half of the {f} to {b}.",
            "{a} kept half of the {f} and gave the rest to {b}.",
        ),
        needs=("ate a f",),
    ),
}

ENDINGS = {
    "end_trait": Act(
        (
            "[Everyone|The whole village|All the people] in {t} agreed that {a} was a very {q} "
            "{a.girl}.",
            "There was no {a.girl} in {t} as {q} as {a}.",
            "And that is how <a=> became known as the {q} {a.girl} of {t}.",
        ),
        needs=("home a t", "trait a q"),
    ),
    "end_town": Act(
        (
            "People in {t} still tell this story about {a}.",
            "And if you ever come to {t}, ask for {a}.",
            "<a> lived in {t} for many more years and was never [lonely|sad|bored] again.",
            "The next morning all of {t} had heard about {a}.",
        ),
        needs=("home a t",),
    ),
    "end_fed": Act(
        (
            "<c> never forgot the {f} that {a} had given away.",
            "And whenever <c> ate {f}, {c.he} thought of {a}.",
            "Years later, <c=> still told everyone about {a} and the {f}.",
        ),
        needs=("ate c f", "fed c a"),
    ),
    "end_friends": Act(
        (
            "{a} and {b} stayed friends [all their lives|for many years|ever after].",
            "From that day on, <a> and {b} [went everywhere together|told each other everything].",
            "Nobody in {t} ever saw {a} without {b} again.",
        ),
        needs=("friend a b", "home a t"),
    ),
}

PEOPLE = BEGINNINGS | JOURNEYS | TALK | ENDINGS
