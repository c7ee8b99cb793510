# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The plots of the builtin stories, each a sequence of acts with a cast of two or three people."""

from collections.abc import Callable

from openllm.data.builtin.grammar_people import PEOPLE
from openllm.data.builtin.grammar_plots import PLOTS
from openllm.data.builtin.grammar_things import THINGS
from openllm.data.builtin.lexicon import COLOURS, FOODS, HOME_SPOTS, PLANS, PRAISES, TOOLS, TRAITS
from openllm.data.builtin.names import Split
from openllm.data.builtin.scene import Draw, Scene

STORY_ACTS = PEOPLE | THINGS | PLOTS


def story(draw: Draw, split: Split) -> str:
    """One story of 8 to 17 sentences."""
    scene = Scene(draw, split, STORY_ACTS)
    draw.pick(PLOT_LIST)(scene)
    return scene.text()


def lost_and_found(s: Scene) -> None:
    """a loses a thing, b finds it, the end remembers where."""
    a, b, t, q, o, p = s.person(), s.person(), s.town(), s.draw.pick(TRAITS), s.thing(), s.place()
    s.say("intro", a=a, t=t, q=q)
    s.say("own", a=a, o=o)
    s.say("friend", a=a, b=b)
    s.maybe(0.3, "weather", a=a, t=t)
    s.say("go_together", a=a, b=b, p=p)
    s.maybe(0.5, "carry", a=a, o=o)
    s.maybe(0.4, "scene", a=a, p=p)
    s.say("lose", a=a, o=o)
    s.say("cry", a=a, o=o)
    s.maybe(0.6, "comfort", a=a, b=b, o=o)
    for _ in range(s.draw.number(1, 2)):
        spot = s.spot()
        s.say("guess", b=b, o=o, s=spot)
        s.say("not_there", a=s.draw.pick((a, b)), o=o, s=spot)
    spot = s.spot()
    s.say("find", b=b, o=o, s=spot)
    s.say("give_back", a=b, b=a, o=o)
    s.say("thank", a=b, b=a)
    s.maybe(0.5, "go_home", a=a, b=b, t=t)
    s.maybe(0.5, "end_has", a=a, o=o)
    s.say("end_found", a=a, b=b, o=o, s=spot)


def birthday_present(s: Scene) -> None:
    """a buys one of two things from c, hides it, and gives it to b."""
    a, b, c, t, p = s.person(), s.person(), s.person(), s.town(), s.place()
    o, u, n, q = s.thing(), s.thing(), s.draw.number(2, 9), s.draw.pick(TRAITS)
    s.say("intro", a=a, t=t, q=q)
    s.say("birthday", a=a, b=b)
    s.say("go", a=a, p=p)
    s.say("meet", a=a, c=c, p=p)
    s.say("wares", c=c, o=o, u=u) if s.draw.chance(0.5) else s.say("wares", c=c, o=u, u=o)
    s.say("would_love", a=a, b=b, o=o)
    s.say("price", a=a, c=c, o=o, n=n)
    s.say("buy", a=a, c=c, o=o, n=n)
    s.maybe(0.6, "left_over", c=c, u=u)
    if s.draw.chance(0.5):
        spot = s.spot(HOME_SPOTS)
        s.say("hide", a=a, b=b, o=o, s=spot)
        s.say("fetch", a=a, o=o, s=spot)
    s.say("congratulate", a=a, b=b, o=o)
    s.say("joy", b=b, o=o)
    s.maybe(0.5, "thank", a=a, b=b)
    s.say("end_gift", a=a, b=b, o=o)
    s.maybe(0.5, "end_trait", a=a, q=q, t=t)


def the_swap(s: Scene) -> None:
    """a and b swap their things; some want theirs back."""
    a, b, t, q, p = s.person(), s.person(), s.town(), s.draw.pick(TRAITS), s.place()
    o, u = s.thing(), s.thing()
    s.say("intro", a=a, t=t, q=q)
    s.say("own", a=a, o=o)
    s.say("friend", a=a, b=b)
    s.say("own", a=b, o=u)
    s.say("go_together", a=a, b=b, p=p)
    s.maybe(0.5, "scene", a=a, p=p)
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


def hide_the_thing(s: Scene) -> None:
    """a hides a thing, b finds it, then the other way round."""
    a, b, t, q, o, p = s.person(), s.person(), s.town(), s.draw.pick(TRAITS), s.thing(), s.place()
    s.say("intro", a=a, t=t, q=q)
    s.say("friend", a=a, b=b)
    s.say("own", a=a, o=o)
    s.say("go_together", a=a, b=b, p=p)
    s.maybe(0.4, "scene", a=b, p=p)
    spot = ""
    for hider, seeker in ((a, b), (b, a))[: s.draw.number(1, 2)]:
        spot, wrong = s.spot(), s.spot()
        s.say("game", a=hider, b=seeker, o=o)
        s.say("hide", a=hider, b=seeker, o=o, s=spot)
        s.say("is_it_there", a=hider, b=seeker, o=o, s=wrong)
        s.say("not_it", a=hider, b=seeker, o=o, s=wrong)
        s.say("uncover", b=seeker, o=o, s=spot)
    s.maybe(0.6, "go_home", a=a, b=b, t=t)
    s.say("end_hid", a=a, b=b, o=o, s=spot)
    s.maybe(0.5, "end_trait", a=a, q=q, t=t)


def the_errand(s: Scene) -> None:
    """a carries a present to another town, shares food on the way and is given something."""
    a, b, c, t, v = s.person(), s.person(), s.person(), s.town(), s.town()
    o, u, f, p, q = s.thing(), s.thing(), s.draw.pick(FOODS), s.place(), s.draw.pick(TRAITS)
    s.say("intro", a=a, t=t, q=q)
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
    s.maybe(0.5, "end_fed", a=a, c=c, f=f)


def honest_finder(s: Scene) -> None:
    """a finds a thing, asks b, and brings it back to c, whose it is."""
    a, b, c, t, p = s.person(), s.person(), s.person(), s.town(), s.place()
    o, f, q, spot = s.thing(), s.draw.pick(FOODS), s.draw.pick(TRAITS), s.spot()
    s.say("intro", a=a, t=t, q=q)
    s.say("friend", a=a, b=b)
    s.say("go", a=a, p=p)
    s.maybe(0.5, "scene", a=a, p=p)
    s.say("find_strange", a=a, o=o, s=spot)
    s.say("is_it_yours", a=a, b=b, o=o)
    s.say("not_mine", b=b, o=o, y=s.fresh(COLOURS))
    s.say("meet", a=a, c=c, p=p)
    s.say("is_it_yours", a=a, b=c, o=o)
    s.say("is_mine", c=c, o=o, p=p)
    s.say("give_back", a=a, b=c, o=o)
    s.say("reward_food", a=a, c=c, f=f)
    s.maybe(0.6, "eat", a=a, b=b, f=f)
    s.say("end_found", a=c, b=a, o=o, s=spot)
    s.maybe(0.5, "end_trait", a=a, q=q, t=t)


def the_wind(s: Scene) -> None:
    """The wind takes a thing, and c gets it back with a tool."""
    a, b, c, t, p = s.person(), s.person(), s.person(), s.town(), s.place()
    o, tool, q, spot = s.thing(), s.draw.pick(TOOLS), s.draw.pick(TRAITS), s.spot()
    s.say("intro", a=a, t=t, q=q)
    s.say("own", a=a, o=o)
    s.say("friend", a=a, b=b)
    s.say("go_together", a=a, b=b, p=p)
    s.maybe(0.6, "play", a=a, b=b, o=o)
    s.say("blow", a=a, o=o, s=spot)
    s.say("cannot_reach", a=a, o=o, s=spot)
    s.say("meet", a=a, c=c, p=p)
    s.say("tool", c=c, l=tool)
    s.say("rescue", a=a, c=c, l=tool, o=o)
    s.say("thank", a=c, b=a)
    s.maybe(0.5, "go_home", a=a, b=b, t=t)
    s.maybe(0.6, "end_has", a=a, o=o)
    s.say("end_tool", a=a, c=c, l=tool, o=o, s=spot)


def the_plan(s: Scene) -> None:
    """a borrows a thing from b and one from c, and brings both back."""
    a, b, c, t, p = s.person(), s.person(), s.person(), s.town(), s.place()
    o, u, j, q = s.thing(), s.thing(), s.draw.pick(PLANS), s.draw.pick(TRAITS)
    s.say("intro", a=a, t=t, q=q)
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
    s.maybe(0.5, "end_trait", a=a, q=q, t=t)
    s.say("end_plan", a=a, b=b, c=c, j=j, p=p)


def the_keeper(s: Scene) -> None:
    """a keeps a thing safe for b, though c wants it."""
    a, b, c, t, v = s.person(), s.person(), s.person(), s.town(), s.town()
    o, p, q, spot = s.thing(), s.place(), s.draw.pick(TRAITS), s.spot(HOME_SPOTS)
    s.say("intro", a=a, t=t, q=q)
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
    s.say("end_trait", a=a, q=q, t=t)


def the_contest(s: Scene) -> None:
    """a and b show their things, c judges, and the winner shares the prize."""
    a, b, c, t, p = s.person(), s.person(), s.person(), s.town(), s.place()
    o, u, f, w, q = (
        s.thing(), s.thing(), s.draw.pick(FOODS), s.draw.pick(PRAISES), s.draw.pick(TRAITS)
    )  # fmt: skip
    s.say("intro", a=a, t=t, q=q)
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
