# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The plots of the builtin stories, each a sequence of acts with a cast of two or three people."""

from collections.abc import Callable

from openllm.data.builtin.grammar_people import PEOPLE
from openllm.data.builtin.grammar_plots import PLOTS
from openllm.data.builtin.grammar_things import THINGS
from openllm.data.builtin.lexicon import (
    PLANS,
    PRAISES,
    TOOLS,
    TRAITS,
    Person,
    Place,
)
from openllm.data.builtin.names import Split
from openllm.data.builtin.scene import Draw, Scene

STORY_ACTS = PEOPLE | THINGS | PLOTS


def story(draw: Draw, split: Split) -> str:
    """One story of 8 to 17 sentences."""
    scene = Scene(draw, split, STORY_ACTS)
    draw.pick(PLOT_LIST)(scene)
    return scene.text()


def _begin(s: Scene, a: Person, t: str) -> str:
    """Introduce the hero; returns the trait that the ending must recall, or an empty string."""
    trait = s.draw.pick(TRAITS) if s.draw.chance(0.5) else ""
    if trait:
        s.say("intro", a=a, t=t, q=trait)
    else:
        s.say("intro_plain", a=a, t=t)
    return trait


def _linger(s: Scene, a: Person, b: Person, p: Place) -> None:
    """Say something about the place, so that it is remembered."""
    if s.draw.chance(0.5):
        s.say("scene", a=a, p=p)
    else:
        s.say("rest", a=a, b=b, p=p)


def _finish(s: Scene, a: Person, t: str, trait: str) -> None:
    """The last sentence, which refers back to the first."""
    if trait:
        s.say("end_trait", a=a, q=trait, t=t)
    else:
        s.say("end_town", a=a, t=t)


def lost_and_found(s: Scene) -> None:
    """a loses a thing, b finds it, the ending recalls where."""
    a, b, t, o, p = s.person(), s.person(), s.town(), s.thing(), s.place()
    q = _begin(s, a, t)
    s.say("own", a=a, o=o)
    s.say("friend", a=a, b=b)
    s.maybe(0.2, "weather", a=a, t=t)
    s.say("go_together", a=a, b=b, p=p)
    s.maybe(0.4, "carry", a=a, o=o)
    _linger(s, a, b, p)
    s.say("lose", a=a, o=o)
    s.say("cry", a=a, o=o)
    s.maybe(0.4, "comfort", a=a, b=b, o=o)
    for _ in range(2 if s.draw.chance(0.3) else 1):
        spot = s.spot()
        s.say("guess", b=b, o=o, s=spot)
        s.say("not_there", a=s.draw.pick((a, b)), o=o, s=spot)
    spot = s.spot()
    s.say("find", b=b, o=o, s=spot)
    s.say("give_back", a=b, b=a, o=o)
    s.say("thank", a=b, b=a)
    s.maybe(0.3, "go_home", a=a, b=b, t=t)
    s.maybe(0.3, "end_has", a=a, o=o)
    s.say("end_found", a=a, b=b, o=o, s=spot)
    _finish(s, a, t, q)


def birthday_present(s: Scene) -> None:
    """a buys one of two things from c, hides it, and gives it to b."""
    a, b, c, t, p = s.person(), s.person(), s.person(), s.town(), s.place()
    o, u, n = s.thing(), s.thing(), s.draw.number(2, 9)
    q = _begin(s, a, t)
    s.say("birthday", a=a, b=b)
    s.say("go", a=a, p=p)
    s.say("meet", a=a, c=c, p=p)
    s.say("wares", c=c, o=o, u=u) if s.draw.chance(0.5) else s.say("wares", c=c, o=u, u=o)
    s.say("would_love", a=a, b=b, o=o)
    s.say("price", a=a, c=c, o=o, n=n)
    s.say("buy", a=a, c=c, o=o, n=n)
    s.say("left_over", c=c, u=u)
    if s.draw.chance(0.5):
        spot = s.home_spot()
        s.say("hide", a=a, b=b, o=o, s=spot)
        s.say("fetch", a=a, o=o, s=spot)
    s.say("congratulate", a=a, b=b, o=o)
    s.say("joy", b=b, o=o)
    s.maybe(0.5, "thank", a=a, b=b)
    s.say("end_gift", a=a, b=b, o=o)
    _finish(s, a, t, q)


def the_swap(s: Scene) -> None:
    """a and b swap their things; some want theirs back."""
    a, b, t, p = s.person(), s.person(), s.town(), s.place()
    o, u = s.thing(), s.thing()
    q = _begin(s, a, t)
    s.say("own", a=a, o=o)
    s.say("friend", a=a, b=b)
    s.say("own", a=b, o=u)
    s.say("go_together", a=a, b=b, p=p)
    _linger(s, a, b, p)
    s.say("admire", a=a, b=b, u=u)
    s.say("offer", a=a, b=b, o=o, u=u)
    s.say("swap", a=a, b=b, o=o, u=u)
    s.say("go_home", a=a, b=b, t=t)
    if s.draw.chance(0.6):
        s.say("regret", a=a, o=o)
        s.say("swap_back", a=a, b=b, o=o, u=u)
        s.say("end_has", a=a, o=o)
    else:
        s.maybe(0.5, "carry", a=b, o=o)
        s.say("end_both", a=a, b=b, o=o, u=u)
    s.say("end_friends", a=a, b=b, t=t)
    _finish(s, a, t, q)


def hide_the_thing(s: Scene) -> None:
    """a hides a thing, b finds it, then the other way round."""
    a, b, t, o, p = s.person(), s.person(), s.town(), s.thing(), s.place()
    q = _begin(s, a, t)
    s.say("friend", a=a, b=b)
    s.say("own", a=a, o=o)
    s.say("go_together", a=a, b=b, p=p)
    _linger(s, b, a, p)
    spot = ""
    rounds = s.draw.number(1, 2)
    for hider, seeker in ((a, b), (b, a))[:rounds]:
        spot, wrong = s.spot(), s.spot()
        s.say("game", a=hider, b=seeker, o=o)
        s.say("hide", a=hider, b=seeker, o=o, s=spot)
        s.say("is_it_there", a=hider, b=seeker, o=o, s=wrong)
        s.say("not_it", a=hider, b=seeker, o=o, s=wrong)
        s.say("uncover", b=seeker, o=o, s=spot)
    if rounds == 1:
        s.say("go_home", a=a, b=b, t=t)
    s.say("end_hid", a=a, b=b, o=o, s=spot)
    _finish(s, a, t, q)


def the_errand(s: Scene) -> None:
    """a carries a present to another town, shares food on the way and is given something."""
    a, b, c, t, v = s.person(), s.person(), s.person(), s.town(), s.town()
    o, u, f, p = s.thing(), s.thing(), s.food(), s.place()
    q = _begin(s, a, t)
    s.say("grandparent", a=a, b=b, v=v)
    s.say("task", a=a, b=b, o=o)
    s.say("depart", a=a, t=t, p=p)
    s.maybe(0.4, "scene", a=a, p=p)
    s.say("meet", a=a, c=c, p=p)
    s.say("hungry", a=a, c=c)
    s.say("share_food", a=a, c=c, f=f)
    s.say("give_in_return", a=a, c=c, u=u)
    s.maybe(0.5, "thank", a=c, b=a)
    s.say("arrive", a=a, b=b, v=v)
    s.say("give", a=a, b=b, o=o)
    s.maybe(0.5, "joy", b=b, o=o)
    s.say("tell_about", a=a, b=b, c=c, u=u)
    s.say("end_both", a=a, b=b, o=o, u=u)
    s.say("end_fed", a=a, c=c, f=f)
    _finish(s, a, t, q)


def honest_finder(s: Scene) -> None:
    """a finds a thing, asks b, and brings it back to its owner c."""
    a, b, c, t, p = s.person(), s.person(), s.person(), s.town(), s.place()
    (o, other), f, spot = s.thing_and_other_colour(), s.food(), s.spot()
    q = _begin(s, a, t)
    s.say("friend", a=a, b=b)
    s.say("go", a=a, p=p)
    s.maybe(0.5, "scene", a=a, p=p)
    s.say("find_strange", a=a, o=o, s=spot)
    s.say("is_it_yours", a=a, b=b, o=o)
    s.say("not_mine", b=b, o=o, y=other)
    s.say("meet", a=a, c=c, p=p)
    s.say("is_it_yours", a=a, b=c, o=o)
    s.say("is_mine", c=c, o=o, p=p)
    s.say("give_back", a=a, b=c, o=o)
    s.say("reward_food", a=a, c=c, f=f)
    s.say("eat", a=a, b=b, f=f)
    s.say("end_found", a=c, b=a, o=o, s=spot)
    _finish(s, a, t, q)


def the_wind(s: Scene) -> None:
    """The wind takes a thing, and c gets it back with a tool."""
    a, b, c, t, p = s.person(), s.person(), s.person(), s.town(), s.place()
    o, tool, spot = s.thing(), s.draw.pick(TOOLS), s.spot()
    q = _begin(s, a, t)
    s.say("own", a=a, o=o)
    s.say("friend", a=a, b=b)
    s.say("go_together", a=a, b=b, p=p)
    s.maybe(0.6, "play", a=a, b=b, o=o)
    s.say("blow", a=a, o=o, s=spot)
    s.say("cannot_reach", a=a, o=o, s=spot)
    s.say("meet", a=a, c=c, p=p)
    s.say("tool", a=a, c=c, l=tool)
    s.say("rescue", a=a, c=c, l=tool, o=o)
    s.say("thank", a=c, b=a)
    s.maybe(0.5, "go_home", a=a, b=b, t=t)
    s.maybe(0.6, "end_has", a=a, o=o)
    s.say("end_tool", a=a, c=c, l=tool, o=o, s=spot)
    _finish(s, a, t, q)


def the_plan(s: Scene) -> None:
    """a borrows a thing from b and one from c, and brings both back."""
    a, b, c, t, p = s.person(), s.person(), s.person(), s.town(), s.place()
    o, u, j = s.thing(), s.thing(), s.draw.pick(PLANS)
    q = _begin(s, a, t)
    s.say("plan", a=a, j=j, p=p)
    s.say("lacks", a=a, j=j)
    s.say("friend", a=a, b=b)
    s.say("own", a=b, o=o)
    s.say("may_i", a=a, b=b, o=o)
    s.say("lend", a=a, b=b, o=o)
    s.say("meet", a=a, c=c, p=p)
    s.say("own", a=c, o=u)
    s.say("may_i", a=a, b=c, o=u)
    s.say("lend", a=a, b=c, o=u)
    s.say("do_plan", a=a, j=j, o=o, u=u)
    for owner, thing in s.draw.shuffled(((b, o), (c, u))):
        s.say("give_back", a=a, b=owner, o=thing)
    s.say("end_plan", a=a, b=b, c=c, j=j, p=p)
    _finish(s, a, t, q)


def the_keeper(s: Scene) -> None:
    """a keeps a thing safe for b, though c wants it."""
    a, b, c, t, v = s.person(), s.person(), s.person(), s.town(), s.town()
    o, p, spot = s.thing(), s.place(), s.home_spot()
    q = _begin(s, a, t)
    s.say("friend", a=a, b=b)
    s.say("own", a=b, o=o)
    s.say("travel", b=b, v=v)
    s.say("please_keep", a=a, b=b, o=o)
    s.say("hide", a=a, b=b, o=o, s=spot)
    s.say("go", a=a, p=p)
    s.say("meet", a=a, c=c, p=p)
    s.say("demand", a=a, c=c, o=o)
    s.say("refuse", a=a, b=b, o=o)
    s.say("come_back", a=a, b=b, v=v)
    s.say("fetch", a=a, o=o, s=spot)
    s.say("give_back", a=a, b=b, o=o)
    s.maybe(0.5, "thank", a=a, b=b)
    s.maybe(0.5, "end_hid", a=a, b=b, o=o, s=spot)
    _finish(s, a, t, q)


def the_contest(s: Scene) -> None:
    """a and b show their things, c judges, and the winner shares the prize."""
    a, b, c, t, p = s.person(), s.person(), s.person(), s.town(), s.place()
    o, u, f, w = s.thing(), s.thing(), s.food(), s.draw.pick(PRAISES)
    q = _begin(s, a, t)
    s.say("own", a=a, o=o)
    s.say("friend", a=a, b=b)
    s.say("own", a=b, o=u)
    s.say("go_together", a=a, b=b, p=p)
    s.say("contest", p=p, t=t, w=w)
    s.say("enter", a=a, b=b, o=o, u=u)
    s.say("meet", a=a, c=c, p=p)
    s.say("verdict", b=b, c=c, u=u, w=w)
    s.say("prize", b=b, c=c, f=f)
    s.say("share_prize", a=a, b=b, f=f)
    s.maybe(0.5, "go_home", a=a, b=b, t=t)
    s.say("end_prize", a=a, b=b, o=o, t=t, u=u, w=w)
    s.maybe(0.5, "end_friends", a=a, b=b, t=t)
    _finish(s, a, t, q)


PLOT_LIST: tuple[Callable[[Scene], None], ...] = (
    lost_and_found,
    birthday_present,
    the_swap,
    hide_the_thing,
    the_errand,
    honest_finder,
    the_wind,
    the_plan,
    the_keeper,
    the_contest,
)
